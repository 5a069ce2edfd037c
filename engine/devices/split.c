/* What all ways of dividing share: results, their limits, and that nothing occurs twice. */
#include "engine/devices/split.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/be.h"
#include "base/text.h"
#include "coroutine/turn.h"
#include "engine/devices/split_parts.h"
#include "engine/devices/vmdesc.h"

void split_result_fini(struct split_result *r)
{
	if (!r)
		return;
	free(r->sections);
	free(r->commands);
	vmdesc_free(r->desc);
	*r = SPLIT_RESULT_NONE;
}

const char *split_name(char ret_name[static 256], const uint8_t *buf, const struct split_section *s)
{
	memcpy(ret_name, buf + s->name_off, s->name_bytes);
	ret_name[s->name_bytes] = '\0';
	return ret_name;
}

int split_head(struct split_section *ret, const uint8_t *buf, size_t bytes, size_t off)
{
	struct section_head head;
	int n = element_section(&head, buf + off, bytes - off);

	if (n > 0)
		*ret = (struct split_section){
			.off = off,
			.name_off = (size_t)(head.name - (const char *)buf),
			.name_bytes = head.name_bytes,
			.body_off = off + (size_t)n,
			.section_id = head.section_id,
			.instance_id = head.instance_id,
			.version_id = head.version_id,
			.device = -1,
		};
	return n;
}

static int grow(void **array, size_t *room, size_t count, size_t max, size_t element_bytes, struct err *err)
{
	size_t want = *room ? 2 * *room : 16;
	void *bigger;

	if (count < *room)
		return 0;
	if (count >= max)
		return err_set(err, -E2BIG, "more than %zu sections or commands", max);
	bigger = reallocarray(*array, want, element_bytes);
	if (!bigger)
		return err_set(err, -ENOMEM, "no memory for %zu sections", want);
	*array = bigger;
	*room = want;
	return 0;
}

int split_push_section(struct split_build *b, const struct split_section *s, struct err *err)
{
	void *array = b->r.sections;
	int r = grow(&array, &b->section_room, b->r.section_count, SPLIT_SECTIONS_MAX, sizeof(*s), err);

	b->r.sections = array;
	if (r == 0)
		b->r.sections[b->r.section_count++] = *s;
	return r;
}

int split_push_command(struct split_build *b, const struct split_command *c, struct err *err)
{
	void *array = b->r.commands;
	int r = grow(&array, &b->command_room, b->r.command_count, SPLIT_COMMANDS_MAX, sizeof(*c), err);

	b->r.commands = array;
	if (r == 0)
		b->r.commands[b->r.command_count++] = *c;
	return r;
}

/* What memchr looks through between two looks at the clock: some 20 us. */
#define SEEK_BYTES ((size_t)512 << 10)

const uint8_t *split_seek(const struct split_opts *opts, const uint8_t *at, const uint8_t *end, uint8_t byte)
{
	const uint8_t *found;
	size_t n;

	for (; at < end; at += n) {
		n = (size_t)(end - at) < SEEK_BYTES ? (size_t)(end - at) : SEEK_BYTES;
		found = memchr(at, byte, n);
		if (found)
			return found;
		if (turn_spend_pending(opts->sched, n / 8) < 0)
			return NULL;
	}
	return NULL;
}

/* One who has a name and an id: a live handler, an early section, a section. */
struct party {
	const char *name;
	size_t name_bytes;
	uint32_t instance_id, section_id;
	enum { PARTY_LIVE, PARTY_EARLY, PARTY_SECTION } kind;
};

static int party_compare_name(const void *a, const void *b, void *sched)
{
	const struct party *x = a, *y = b;
	int r;

	turn_spend_pending(sched, TURN_STEP); /* a cancel waits for the end of the sort */
	if (x->name_bytes != y->name_bytes)
		return x->name_bytes < y->name_bytes ? -1 : 1;
	r = memcmp(x->name, y->name, x->name_bytes);
	return r ? r : (x->instance_id > y->instance_id) - (x->instance_id < y->instance_id);
}

static int party_compare_id(const void *a, const void *b, void *sched)
{
	const struct party *x = a, *y = b;

	turn_spend_pending(sched, TURN_STEP);
	if (x->section_id != y->section_id)
		return x->section_id < y->section_id ? -1 : 1;
	return (x->kind > y->kind) - (x->kind < y->kind);
}

static size_t parties_fill(struct party *out, const struct split_handler *h, size_t count, int kind)
{
	for (size_t i = 0; i < count; i++)
		out[i] = (struct party){ h[i].name, strlen(h[i].name), h[i].instance_id, h[i].section_id, kind };
	return count;
}

/* Live handlers were checked when they STARTed, and one of them may have a FULL too: only the others count. */
static int check_names(struct party *all, size_t count, struct sched *sched, struct err *err)
{
	const struct party *last = NULL;

	qsort_r(all, count, sizeof(*all), party_compare_name, sched);
	for (size_t i = 0; i < count; i++) {
		if (all[i].kind == PARTY_LIVE)
			continue;
		if (last && !party_compare_name(last, &all[i], sched))
			return err_set(err, -EPROTO, "device '%s' instance %u occurs twice",
			               TEXT_QUOTE(last->name, last->name_bytes), last->instance_id);
		last = &all[i];
	}
	return 0;
}

static int check_ids(struct party *all, size_t count, struct sched *sched, struct err *err)
{
	qsort_r(all, count, sizeof(*all), party_compare_id, sched);
	for (size_t i = 1; i < count; i++) {
		const struct party *x = &all[i - 1], *y = &all[i];

		if (x->section_id != y->section_id || y->kind != PARTY_SECTION)
			continue;
		/* The final state of a handler with a live part comes under the same id (doc/wire/stream.md 1.4). */
		if (x->kind == PARTY_LIVE && !party_compare_name(x, y, sched))
			continue;
		return err_set(err, -EPROTO, "device '%s' has section id %u, which '%s' has",
		               TEXT_QUOTE(y->name, y->name_bytes), y->section_id, TEXT_QUOTE(x->name, x->name_bytes));
	}
	return 0;
}

int split_check_unique(const struct split_result *r, const uint8_t *buf, const struct split_opts *opts, struct err *err)
{
	size_t count = 0;
	size_t room = opts->live_count + opts->early_count + r->section_count + 1;
	struct party *all = reallocarray(NULL, room, sizeof(*all));
	int ret;

	if (!all)
		return err_set(err, -ENOMEM, "no memory for %zu sections", r->section_count);
	count += parties_fill(all, opts->live, opts->live_count, PARTY_LIVE);
	count += parties_fill(all + count, opts->early, opts->early_count, PARTY_EARLY);
	for (size_t i = 0; i < r->section_count; i++) {
		const struct split_section *s = &r->sections[i];

		all[count++] = (struct party){ (const char *)buf + s->name_off, s->name_bytes, s->instance_id,
			                       s->section_id, PARTY_SECTION };
	}
	ret = check_names(all, count, opts->sched, err);
	if (ret == 0)
		ret = check_ids(all, count, opts->sched, err);
	free(all);
	return ret;
}
