/* The library's own books in a postcopy scene: which threads wait, and for what. See postcopy_scene.h. */
#include <check.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/bitmap.h"
#include "base/clock.h"
#include "engine/inm.h"
#include "tests/support/postcopy_scene.h"

#define STRANDED_NS NS_PER_S

static struct pblock *pblock_of(const struct pc *s, unsigned block)
{
	struct postcopy *pc = &s->e.inm->postcopy;

	for (size_t i = 0; pc->blocks && i < pc->ram->count; i++)
		if (!strcmp(pc->blocks[i].b->name, s->ram[block].said.name))
			return &pc->blocks[i];
	return NULL;
}

/* 'R': it runs, or would if it had a processor; else it sleeps. */
static char task_state(int tid)
{
	char path[64], text[256] = "";
	const char *after;
	int fd;

	snprintf(path, sizeof(path), "/proc/self/task/%d/stat", tid);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return '?';
	if (read(fd, text, sizeof(text) - 1) < 0)
		text[0] = 0;
	close(fd);
	after = strrchr(text, ')');
	return after && after[1] ? after[2] : '?';
}

/* ---- waiters ----------------------------------------------------------------------------------------------------- */

static void check_toucher(struct pc *s, struct pc_toucher *t)
{
	uint64_t since_ns = atomic_load(&t->since_ns), tpage = atomic_load(&t->tpage), now_ns = clock_now_ns();
	unsigned block = atomic_load(&t->block);
	struct pblock *pb;
	size_t unit;
	char state;

	if (!since_ns || now_ns < since_ns + STRANDED_NS || atomic_load(&t->since_ns) != since_ns)
		return;
	pb = pblock_of(s, block);
	unit = tpage / s->ram[block].unit_pages;
	if (!pb || !pblock_complete(pb, unit)) {
		ck_assert_msg(!pb || bitmap_test(&pb->asked, unit),
		              "thread %u waits for '%s' page %llu, which is not here, and nobody asks for it", t->id,
		              s->ram[block].said.name, (unsigned long long)tpage);
		t->stuck_since_ns = 0;
		return;
	}
	if (t->stuck_since_ns != since_ns) {
		t->stuck_since_ns = since_ns;
		t->stuck_seen_ns = now_ns;
		return;
	}
	state = task_state(atomic_load(&t->tid));
	if (now_ns < t->stuck_seen_ns + STRANDED_NS || state == 'R')
		return;
	ck_abort_msg("stranded: thread %u (%c) has waited %llu ms for '%s' page %llu: received, %sasked for %u times, "
	             "sent %u, removed %u, with%s an entry",
	             t->id, state, (unsigned long long)((now_ns - since_ns) / NS_PER_MS), s->ram[block].said.name,
	             (unsigned long long)tpage, s->ram[block].precopied[unit] ? "precopied, " : "",
	             s->ram[block].asked[unit], s->ram[block].sent[unit], s->ram[block].removed[tpage],
	             bitmap_test(&pb->asked, unit) ? "" : "out");
}

/* ---- the ledger -------------------------------------------------------------------------------------------------- */

static size_t length(const struct list *l)
{
	size_t n = 0;

	for (const struct list *i = l->next; i != l; i = i->next)
		n++;
	return n;
}

static size_t bits(const struct bitmap *map)
{
	size_t n = 0;

	for (size_t i = bitmap_find_set(map, 0); i < map->nbits; i = bitmap_find_set(map, i + 1))
		n++;
	return n;
}

/* Return: how many entries; each is owed. */
static size_t check_entries(struct postcopy *pc)
{
	size_t n = 0;

	for (size_t i = 0; i < LEDGER_BUCKETS; i++)
		for (const struct want *w = pc->ledger.buckets[i]; w; w = w->chain) {
			n++;
			ck_assert_msg(bitmap_test(&w->pb->asked, w->unit), "an entry for '%s' unit %zu without its bit",
			              w->pb->b->name, w->unit);
			ck_assert_msg(!pblock_complete(w->pb, w->unit) || pc->placing,
			              "an entry for '%s' unit %zu, which is here", w->pb->b->name, w->unit);
		}
	return n;
}

static void check_ledger(struct pc *s)
{
	struct postcopy *pc = &s->e.inm->postcopy;
	const struct ledger *l = &pc->ledger;
	size_t asked = 0, entries = check_entries(pc), missing = 0;

	for (size_t i = 0; i < pc->ram->count; i++) {
		asked += bits(&pc->blocks[i].asked);
		missing += pc->blocks[i].b->received.nbits - bits(&pc->blocks[i].b->received);
	}
	ck_assert_uint_eq(entries, asked);
	ck_assert_uint_eq(l->outstanding + l->guesses, entries);
	ck_assert_uint_eq(length(&l->unsent) + length(&l->guessed) + length(&l->sent), entries);
	/* Something will send what is to be sent: otherwise the thread would wait forever. */
	ck_assert(l->offline || list_empty(&l->unsent) || l->unsent_there.set);
	ck_assert_uint_eq(postcopy_missing(pc), missing);
}

void pc_check_books(struct pc *s)
{
	if (!s->e.inm || !s->e.inm->postcopy.listening || !s->e.inm->postcopy.blocks)
		return;
	check_ledger(s);
	for (unsigned i = 0; i < s->toucher_count; i++)
		check_toucher(s, &s->touchers[i]);
}
