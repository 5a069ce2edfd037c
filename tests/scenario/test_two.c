/* Several migrations in one process, on one reactor and on several: none notices the others. */
#include "tests/support/check_main.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "tests/support/scene.h"

#define HUNDRED 100u

/* One of several: the parts of a scene without the census, and its pump. */
struct side {
	struct wire wire;
	struct honest_image image;
	struct embedder e;
	struct pump p;
	bool done;
};

/* Each side has content of its own, so that one page in the wrong guest is seen. */
static enum wire_how fill_of_side(void *opaque, unsigned block, uint64_t tpage, unsigned round, uint8_t *page)
{
	enum wire_how how = wire_fill_default(NULL, block, tpage, round, page);

	memcpy(page + 8, opaque, sizeof(unsigned));
	return how;
}

static void side_begin(struct side *s, struct inm_reactor *reactor, unsigned number, size_t chunk_bytes)
{
	const struct land_opts o = { .return_path = true, .config = { .reactor = reactor } };

	*s = (struct side){ 0 };
	embedder_init(&s->e);
	wire_honest(&s->wire,
	            &(struct honest_opts){ .return_path = true, .rounds = 3, .fill = fill_of_side, .opaque = &number },
	            &s->image);
	for (unsigned i = 0; i < s->image.block_count; i++)
		embedder_add(&s->e, s->image.blocks[i].name, s->image.blocks[i].bytes,
		             number % 2 ? EMB_ANON : EMB_MEMFD);
	land_new(&s->e, &o);
	ck_assert_int_eq(land_listen_fd(&s->e, pump_open(&s->p, &s->wire)), 0);
	s->p.return_path = true;
	s->p.chunk_bytes = chunk_bytes;
}

static void side_end(struct side *s)
{
	pump_close(&s->p);
	ck_assert_uint_eq(embedder_canaries(&s->e), 0);
	embedder_fini(&s->e);
	honest_image_fini(&s->image);
	wire_fini(&s->wire);
}

static void side_check_landed(struct side *s)
{
	const char *error = s->e.inm ? inm_error(s->e.inm) : NULL;

	ck_assert_msg(s->e.result == 0, "%d: %s", s->e.result, error ? error : "no text");
	ck_assert_uint_eq(embedder_compare(&s->e, &s->image), 0);
	ck_assert_uint_eq(embedder_compare_devices(&s->e, &s->wire), 0);
	ck_assert_uint_eq(source_reply_count(&s->p.report, WIRE_RP_SHUT), 1);
	ck_assert_uint_eq(source_reply_value(&s->p.report, WIRE_RP_SHUT, 0), 0);
}

/* One round over all of them. Return: how many are still under way; @ret_moved: whether any byte was moved. */
static unsigned round_over(struct side *sides, unsigned count, bool *ret_moved)
{
	unsigned under_way = 0;

	*ret_moved = false;
	for (unsigned i = 0; i < count; i++) {
		struct side *s = &sides[i];
		int r;

		*ret_moved |= pump_step(&s->p);
		if (s->done)
			continue;
		r = inm_dispatch(s->e.inm);
		if (r == 1) {
			under_way++;
			continue;
		}
		s->e.result = r;
		s->done = true;
	}
	return under_way;
}

static void play_all(struct side *sides, unsigned count)
{
	uint64_t deadline_ns = deadline_after_ns(60 * NS_PER_S);
	bool moved;

	while (round_over(sides, count, &moved)) {
		struct pollfd pfd = { .fd = inm_fd(sides[0].e.inm), .events = POLLIN };

		ck_assert_msg(clock_now_ns() < deadline_ns, "it does not end");
		if (!moved)
			poll(&pfd, 1, 1);
	}
	while (moved) { /* the last replies */
		moved = false;
		for (unsigned i = 0; i < count; i++)
			moved |= pump_step(&sides[i].p);
	}
}

TEST_CASE("two", 120);

TEST(test_two_migrations_on_one_reactor_land_interleaved)
{
	struct inm_reactor *reactor;
	struct census before;
	struct side sides[2];

	census_take(&before);
	ck_assert_int_eq(inm_reactor_new(&reactor, NULL), 0);
	side_begin(&sides[0], reactor, 0, 997);
	side_begin(&sides[1], reactor, 1, 1499);
	ck_assert_int_eq(inm_fd(sides[0].e.inm), inm_fd(sides[1].e.inm));
	play_all(sides, 2);
	for (unsigned i = 0; i < 2; i++) {
		side_check_landed(&sides[i]);
		side_end(&sides[i]);
	}
	inm_reactor_free(reactor);
	ck_assert_uint_eq(census_differs(&before), 0);
	census_free(&before);
}

TEST(test_two_migrations_on_two_reactors_land_interleaved)
{
	struct census before;
	struct side sides[2];

	census_take(&before);
	side_begin(&sides[0], NULL, 0, 997);
	side_begin(&sides[1], NULL, 1, 1499);
	ck_assert_int_ne(inm_fd(sides[0].e.inm), inm_fd(sides[1].e.inm));
	play_all(sides, 2);
	for (unsigned i = 0; i < 2; i++) {
		side_check_landed(&sides[i]);
		side_end(&sides[i]);
	}
	ck_assert_uint_eq(census_differs(&before), 0);
	census_free(&before);
}

TEST(test_a_hundred_migrations_land_on_one_reactor)
{
	struct side *sides = calloc(HUNDRED, sizeof(*sides));
	struct inm_reactor *reactor;
	struct census before;

	test_need_files(9 * HUNDRED);
	ck_assert_ptr_nonnull(sides);
	census_take(&before);
	ck_assert_int_eq(inm_reactor_new(&reactor, NULL), 0);
	for (unsigned i = 0; i < HUNDRED; i++)
		side_begin(&sides[i], reactor, i, 4000 + 37 * i);
	play_all(sides, HUNDRED);
	for (unsigned i = 0; i < HUNDRED; i++) {
		side_check_landed(&sides[i]);
		side_end(&sides[i]);
	}
	inm_reactor_free(reactor);
	ck_assert_uint_eq(census_differs(&before), 0);
	census_free(&before);
	free(sides);
}

TEST(test_a_failed_neighbour_changes_nothing)
{
	struct inm_reactor *reactor;
	struct side sides[3];

	ck_assert_int_eq(inm_reactor_new(&reactor, NULL), 0);
	for (unsigned i = 0; i < 3; i++)
		side_begin(&sides[i], reactor, i, 1009);
	sides[1].wire.data[wire_find(&sides[1].wire, "PART", 1)] = 0x77;
	play_all(sides, 3);
	ck_assert_int_eq(sides[1].e.result, -EPROTO);
	ck_assert_uint_eq(sides[1].e.start_calls, 0);
	side_check_landed(&sides[0]);
	side_check_landed(&sides[2]);
	for (unsigned i = 0; i < 3; i++)
		side_end(&sides[i]);
	inm_reactor_free(reactor);
}

TEST(test_a_cancelled_or_freed_neighbour_changes_nothing)
{
	struct inm_reactor *reactor;
	struct side sides[3];
	bool moved;

	ck_assert_int_eq(inm_reactor_new(&reactor, NULL), 0);
	for (unsigned i = 0; i < 3; i++)
		side_begin(&sides[i], reactor, i, 1009);
	for (unsigned i = 0; i < 10; i++)
		ck_assert_uint_eq(round_over(sides, 3, &moved), 3);
	inm_cancel(sides[1].e.inm);
	side_end(&sides[2]);
	play_all(sides, 2);
	side_check_landed(&sides[0]);
	ck_assert_int_eq(sides[1].e.result, -ECANCELED);
	ck_assert_uint_eq(sides[1].e.start_calls, 0);
	side_end(&sides[0]);
	side_end(&sides[1]);
	inm_reactor_free(reactor);
}

TEST(test_running_one_of_a_reactor_to_its_end_and_then_the_other_works)
{
	struct inm_reactor *reactor;
	struct side sides[2];
	bool moved = true;

	ck_assert_int_eq(inm_reactor_new(&reactor, NULL), 0);
	for (unsigned i = 0; i < 2; i++)
		side_begin(&sides[i], reactor, i, 0);
	while (moved) {
		moved = pump_step(&sides[0].p);
		moved |= pump_step(&sides[1].p);
	}
	for (unsigned i = 2; i-- > 0;) {
		sides[i].e.result = inm_run_until(sides[i].e.inm, deadline_after_ns(10 * NS_PER_S));
		while (pump_step(&sides[i].p))
			;
		side_check_landed(&sides[i]);
	}
	for (unsigned i = 0; i < 2; i++)
		side_end(&sides[i]);
	inm_reactor_free(reactor);
}

TEST(test_a_reactor_serves_one_migration_after_the_other)
{
	struct inm_reactor *reactor;
	struct census first;

	ck_assert_int_eq(inm_reactor_new(&reactor, NULL), 0);
	for (unsigned i = 0; i < 20; i++) {
		struct side side;

		side_begin(&side, reactor, i, 0);
		play_all(&side, 1);
		side_check_landed(&side);
		side_end(&side);
		if (i == 0)
			census_take(&first); /* with what a reactor keeps for the next one */
	}
	ck_assert_uint_eq(census_differs(&first), 0);
	census_free(&first);
	inm_reactor_free(reactor);
}
