/* Are the stamps still there? And their log, for programs that look at the guest's memory afterwards. */
#include "programs/guest/touch_parts.h"

#include "base/text.h"
#include "programs/cli/complain.h"

#include <errno.h>
#include <jansson.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

static void count_violation(struct touch *t, const struct touch_violation *v)
{
	if (!t->first.wrong)
		t->first = *v;
	t->violations++;
}

static void check_stamps(struct touch *t, const struct toucher *tc)
{
	uint64_t off, found;

	for (uint64_t page = 0; page < t->tracked_pages && tc->stamps; page++) {
		if (!tc->stamps[page].value)
			continue;
		off = page * TOUCH_PAGE_BYTES + 8ull * tc->index;
		found = touch_load(t->block->addr + off);
		if (found == tc->stamps[page].value)
			t->intact++;
		else
			count_violation(
			        t, &(struct touch_violation){ TOUCH_STAMP_LOST, off, tc->stamps[page].value, found });
	}
}

void touch_check(struct touch *t)
{
	for (unsigned i = 0; i < t->made; i++) {
		if (t->touchers[i].violation.wrong)
			count_violation(t, &t->touchers[i].violation);
	}
	for (unsigned i = 0; i < t->made; i++)
		check_stamps(t, &t->touchers[i]);
}

/* The bytes as they are in memory. */
static void put_hex(char ret_text[static 17], uint64_t word)
{
	const uint8_t *bytes = (const uint8_t *)&word;

	for (size_t i = 0; i < sizeof(word); i++)
		snprintf(ret_text + 2 * i, 3, "%02x", bytes[i]);
}

static int print_stamp(FILE *f, const char *block, uint64_t off, const struct touch_stamp *stamp)
{
	char value[17], original[17];
	json_t *line;
	int r;

	put_hex(value, stamp->value);
	put_hex(original, stamp->original);
	line = json_pack("{s:s, s:I, s:s, s:s}", "block", block, "offset", (json_int_t)off, "value", value, "original",
	                 original);
	if (!line)
		return -ENOMEM;
	r = json_dumpf(line, f, JSON_ENSURE_ASCII) < 0 || fputc('\n', f) == EOF ? -EIO : 0;
	json_decref(line);
	return r;
}

static int print_log(const struct touch *t, FILE *f)
{
	const char *name = t->block ? t->block->name : "", *block = TEXT_QUOTE(name, strlen(name));
	int r = 0;

	for (unsigned i = 0; i < t->made; i++) {
		const struct toucher *tc = &t->touchers[i];

		for (uint64_t page = 0; r == 0 && page < t->tracked_pages && tc->stamps; page++)
			if (tc->stamps[page].value)
				r = print_stamp(f, block, page * TOUCH_PAGE_BYTES + 8ull * i, &tc->stamps[page]);
	}
	return r;
}

int touch_write_log(const struct touch *t, struct out_file *file)
{
	FILE *stream = out_file_stream(file);
	int r, done;

	if (!stream)
		return -EIO;
	r = print_log(t, stream);
	if (r == -ENOMEM)
		fail("%s: %s", file->path, strerror(ENOMEM));
	done = out_file_done(file, stream);
	return r == -ENOMEM ? r : done;
}
