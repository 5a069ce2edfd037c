/*
 * Structures that begin with their size: an older embedder's are shorter, a newer one's longer. The library reads and
 * writes nothing past the given size (include/inmigrate.h).
 */
#include "tests/support/check_main.h"

#include <errno.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include "tests/support/scene.h"

/* Past the given size lies something that must not be taken for a pointer. */
#define GARBAGE 0xa5

TEST_CASE("sizes", 4);

TEST(test_a_shorter_configuration_has_zeros_for_what_it_lacks)
{
	static const size_t sizes[] = { sizeof(size_t), offsetof(struct inm_config, log_level),
		                        offsetof(struct inm_config, uuid), offsetof(struct inm_config, machine),
		                        sizeof(struct inm_config) };

	for (unsigned i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
		struct inm_config config;
		struct scene s;

		memset(&config, GARBAGE, sizeof(config));
		memset(&config, 0, sizes[i]);
		config.size = sizes[i];
		scene_begin(&s, NULL);
		ck_assert_int_eq(inm_new(&s.e.inm, &config, &embedder_ops, &s.e), 0);
		ck_assert_int_eq(inm_listen(s.e.inm, "tcp:127.0.0.1:0"), 0);
		ck_assert_int_eq(inm_dispatch(s.e.inm), 1);
		scene_end(&s);
	}
}

TEST(test_a_configuration_of_an_impossible_size_is_refused)
{
	static const size_t sizes[] = { 0, sizeof(size_t) - 1, sizeof(struct inm_config) + 1, SIZE_MAX };

	for (unsigned i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
		struct inm_config config = { .size = sizes[i] };
		struct inm *inm = NULL;

		ck_assert_int_eq(inm_new(&inm, &config, &embedder_ops, NULL), -EINVAL);
		ck_assert_ptr_null(inm);
	}
}

TEST(test_a_shorter_reactor_configuration_has_zeros_for_what_it_lacks)
{
	static const size_t sizes[] = { sizeof(size_t), offsetof(struct inm_reactor_config, ring),
		                        sizeof(struct inm_reactor_config) };

	for (unsigned i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
		struct inm_reactor_config config;
		struct inm_reactor *reactor = NULL;

		memset(&config, GARBAGE, sizeof(config));
		memset(&config, 0, sizes[i]);
		config.size = sizes[i];
		ck_assert_int_eq(inm_reactor_new(&reactor, &config), 0);
		inm_reactor_free(reactor);
	}
}

TEST(test_a_reactor_configuration_of_an_impossible_size_or_ring_is_refused)
{
	const struct inm_reactor_config bad[] = { { .size = 0 },
		                                  { .size = sizeof(bad[0]) + 1 },
		                                  { .size = sizeof(bad[0]), .ring = "nonsense" } };

	for (unsigned i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		struct inm_reactor *reactor = NULL;

		ck_assert_int_eq(inm_reactor_new(&reactor, &bad[i]), -EINVAL);
		ck_assert_ptr_null(reactor);
	}
}

TEST(test_callbacks_of_an_older_embedder_are_those_it_has)
{
	struct inm_ops ops;
	struct scene s;

	scene_begin(&s, &(struct honest_opts){ 0 });
	memset(&ops, GARBAGE, sizeof(ops));
	memcpy(&ops, &embedder_ops, offsetof(struct inm_ops, device));
	ops.size = offsetof(struct inm_ops, device);
	scene_land(&s, &(struct land_opts){ .ops = &ops });
	ck_assert_msg(s.e.result == 0, "%s", s.e.error);
	ck_assert_uint_eq(embedder_compare(&s.e, &s.image), 0);
	ck_assert_uint_eq(s.e.state_count, 0);
	scene_end(&s);
}

/* A structure of @size with a fence after it. */
static void stats_of_size(struct inm *inm, size_t size, const struct inm_stats *whole)
{
	struct {
		struct inm_stats st;
		uint8_t more[64];
	} got;
	const uint8_t *bytes = (const uint8_t *)&got;

	memset(&got, GARBAGE, sizeof(got));
	got.st.size = size;
	inm_get_stats(inm, &got.st);
	ck_assert_uint_eq(got.st.size, size);
	/* What both have is the same, what only the caller has is zero, and everything after it is untouched. */
	for (size_t i = sizeof(size_t); i < sizeof(got); i++) {
		int expected = i >= size ? GARBAGE : i < sizeof(*whole) ? ((const uint8_t *)whole)[i] : 0;

		ck_assert_msg(bytes[i] == expected, "byte %zu of %zu is 0x%02x, not 0x%02x", i, size, bytes[i],
		              expected);
	}
}

TEST(test_numbers_fit_into_a_structure_of_any_length)
{
	struct inm_stats whole = { .size = sizeof(whole) };
	struct scene s;
	struct pump p;

	scene_begin(&s, &(struct honest_opts){ 0 });
	land_new(&s.e, &(struct land_opts){ 0 });
	ck_assert_int_eq(land_listen_fd(&s.e, pump_open(&p, &s.wire)), 0);
	while (inm_dispatch(s.e.inm) == 1)
		pump_step(&p);
	pump_close(&p);
	inm_get_stats(s.e.inm, &whole);
	ck_assert_uint_gt(whole.main_bytes, 0);
	ck_assert_int_eq(whole.state, INM_STATE_COMPLETED);
	for (size_t size = sizeof(size_t); size <= sizeof(whole) + 64; size++)
		stats_of_size(s.e.inm, size, &whole);
	scene_end(&s);
}
