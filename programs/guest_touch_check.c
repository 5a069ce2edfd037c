/* Are the stamps still there? And their log, for whoever looks at the guest's memory afterwards. */
#include "programs/guest_touch_parts.h"

#include "base/text.h"
#include "programs/cli/complain.h"

#include <errno.h>
#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
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

static void print_hex(FILE *f, uint64_t word)
{
	const uint8_t *bytes = (const uint8_t *)&word;

	for (size_t i = 0; i < sizeof(word); i++)
		fprintf(f, "%02x", bytes[i]);
}

static void print_log(const struct touch *t, FILE *f, const char *quoted)
{
	for (unsigned i = 0; i < t->made; i++) {
		const struct toucher *tc = &t->touchers[i];

		for (uint64_t page = 0; page < t->tracked_pages && tc->stamps; page++) {
			if (!tc->stamps[page].value)
				continue;
			fprintf(f, "{\"block\": %s, \"offset\": %" PRIu64 ", \"value\": \"", quoted,
			        page * TOUCH_PAGE_BYTES + (uint64_t)8 * i);
			print_hex(f, tc->stamps[page].value);
			fprintf(f, "\", \"original\": \"");
			print_hex(f, tc->stamps[page].original);
			fprintf(f, "\"}\n");
		}
	}
}

int touch_write_log(const struct touch *t, struct out_file *file)
{
	const char *name = t->block ? t->block->name : "";
	json_t *text = json_string(TEXT_QUOTE(name, strlen(name)));
	char *quoted = json_dumps(text, JSON_ENCODE_ANY | JSON_ENSURE_ASCII);
	FILE *stream;
	int r = -EIO;

	json_decref(text);
	if (!quoted) {
		fail("%s: %s", file->path, strerror(ENOMEM));
		return -ENOMEM;
	}
	stream = out_file_stream(file);
	if (stream) {
		print_log(t, stream, quoted);
		r = out_file_done(file, stream);
	}
	free(quoted);
	return r;
}
