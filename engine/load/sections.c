#include "engine/load/sections.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

void sections_fini(struct sections *s)
{
	for (size_t i = 0; i < s->count; i++)
		free(s->list[i]);
	free(s->list);
	*s = (struct sections){ 0 };
}

int sections_add(struct sections *s, enum section_kind kind, const char *name, uint32_t instance_id,
		 uint32_t section_id, struct section **ret)
{
	struct section *sec, **list;

	for (size_t i = 0; i < s->count; i++) {
		sec = s->list[i];
		if (sec->section_id == section_id || (sec->instance_id == instance_id && !strcmp(sec->name, name)))
			return -EEXIST;
	}
	if (s->count == SECTIONS_MAX)
		return -E2BIG;
	list = realloc(s->list, (s->count + 1) * sizeof(*list));
	if (!list)
		return -ENOMEM;
	s->list = list;
	sec = calloc(1, sizeof(*sec));
	if (!sec)
		return -ENOMEM;
	sec->kind = kind;
	sec->section_id = section_id;
	sec->instance_id = instance_id;
	strncpy(sec->name, name, sizeof(sec->name) - 1);
	list[s->count++] = sec;
	*ret = sec;
	return 0;
}

struct section *sections_find(const struct sections *s, uint32_t section_id)
{
	for (size_t i = 0; i < s->count; i++) {
		if (s->list[i]->section_id == section_id && s->list[i]->kind != SECTION_EARLY_DEVICE)
			return s->list[i];
	}
	return NULL;
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

size_t sections_handlers(const struct sections *s, bool early, struct split_handler *ret)
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

void sections_reopen(struct sections *s)
{
	for (size_t i = 0; i < s->count; i++)
		if (s->list[i]->ended_late)
			s->list[i]->ended = false;
}
