#include "engine/load/sections.h"

#include "base/err.h"
#include "coroutine/co.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

void sections_fini(struct sections *s)
{
	for (size_t i = 0; i < s->count; i++)
		free(s->list[i]);
	free(s->list);
	free(s->by_id);
	*s = (struct sections){ 0 };
}

/* The first one in by_id whose id is not smaller. */
static size_t place_of(const struct sections *s, uint32_t section_id)
{
	size_t low = 0, high = s->count;

	while (low < high) {
		size_t mid = low + (high - low) / 2;

		if (s->by_id[mid]->section_id < section_id)
			low = mid + 1;
		else
			high = mid;
	}
	return low;
}

static bool is_known(const struct sections *s, const char *name, uint32_t instance_id, uint32_t section_id)
{
	size_t at = place_of(s, section_id);

	if (at < s->count && s->by_id[at]->section_id == section_id)
		return true;
	for (size_t i = 0; i < s->count; i++)
		if (s->list[i]->instance_id == instance_id && strcmp(s->list[i]->name, name) == 0)
			return true;
	return false;
}

static int make_room(struct sections *s)
{
	size_t room = s->count + 1;
	struct section **list = reallocarray(s->list, room, sizeof(*list)), **by_id;

	if (!list)
		return -ENOMEM;
	s->list = list;
	by_id = reallocarray(s->by_id, room, sizeof(*by_id));
	if (!by_id)
		return -ENOMEM;
	s->by_id = by_id;
	return 0;
}

int sections_add(struct sections *s, enum section_kind kind, const char *name, uint32_t instance_id,
                 uint32_t section_id, struct section **ret)
{
	struct section *sec;
	size_t at;

	if (is_known(s, name, instance_id, section_id))
		return -EEXIST;
	if (s->count == SECTIONS_MAX)
		return -E2BIG;
	if (make_room(s) < 0)
		return -ENOMEM;
	sec = calloc(1, sizeof(*sec));
	if (!sec)
		return -ENOMEM;
	sec->kind = kind;
	sec->section_id = section_id;
	sec->instance_id = instance_id;
	strncpy(sec->name, name, sizeof(sec->name) - 1);
	at = place_of(s, section_id);
	memmove(s->by_id + at + 1, s->by_id + at, (s->count - at) * sizeof(struct section *));
	s->by_id[at] = sec;
	s->list[s->count++] = sec;
	*ret = sec;
	return 0;
}

struct section *sections_find(const struct sections *s, uint32_t section_id)
{
	size_t at = place_of(s, section_id);

	if (at == s->count || s->by_id[at]->section_id != section_id || s->by_id[at]->kind == SECTION_EARLY_DEVICE)
		return NULL;
	return s->by_id[at];
}

bool sections_all_ended(const struct sections *s)
{
	bool any = false;

	for (size_t i = 0; i < s->count; i++)
		any |= s->list[i]->ended;
	return any && !sections_first_open(s);
}

bool sections_ram_ended(const struct sections *s)
{
	for (size_t i = 0; i < s->count; i++)
		if (s->list[i]->kind == SECTION_RAM)
			return s->list[i]->ended;
	return false;
}

const struct section *sections_first_open(const struct sections *s)
{
	for (size_t i = 0; i < s->count; i++)
		if (s->list[i]->owes_end && !s->list[i]->ended)
			return s->list[i];
	return NULL;
}

void sections_reopen(struct sections *s)
{
	for (size_t i = 0; i < s->count; i++)
		if (s->list[i]->ended_late)
			s->list[i]->ended = false;
}

static size_t put_handlers(const struct sections *s, bool early, struct split_handler *ret)
{
	size_t n = 0;

	for (size_t i = 0; i < s->count; i++) {
		const struct section *sec = s->list[i];

		if ((sec->kind == SECTION_EARLY_DEVICE) == early)
			ret[n++] = (struct split_handler){ .name = sec->name,
				                           .instance_id = sec->instance_id,
				                           .section_id = sec->section_id,
				                           .body_bytes = sec->body_bytes };
	}
	return n;
}

int sections_split_begin(struct sections_split *ret, const struct sections *s, bool footers, struct sched *sched,
                         struct err *err)
{
	struct split_handler *handlers = calloc(s->count + 1, sizeof(*handlers));
	size_t live_count;

	if (!handlers)
		return err_set(err, -ENOMEM, "no memory for the list of sections");
	live_count = put_handlers(s, false, handlers);
	*ret = (struct sections_split){
		.opts = {
			.footers = footers,
			.live = handlers,
			.live_count = live_count,
			.early = handlers + live_count,
			.early_count = put_handlers(s, true, handlers + live_count),
			.sched = sched,
		},
		.handlers = handlers,
	};
	return 0;
}

int sections_split_end(struct sections_split *split, int result)
{
	free(split->handlers);
	split->handlers = NULL;
	if (result == -ECANCELED)
		co_take_cancel(split->opts.sched);
	return result;
}
