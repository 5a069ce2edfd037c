/*
 * The time of splitting is in proportion to the bytes, even if an attacker has made them: engine/devices/split.h.
 * Without sanitizers it takes at most a tenth of each limit.
 */
#include "engine/devices/split.h"

#include <errno.h>

#include "tests/support/check_main.h"
#include "tests/unit/data/made.h"

/* Not ck_assert: it writes to a pipe each time, which is not what is measured. */
static void still_more(struct split_tail *state, const uint8_t *buf, size_t bytes)
{
	struct split_result r = SPLIT_RESULT_NONE;
	struct err err;

	if (split_try_tail(state, &r, buf, bytes, &plain, &err) != 0)
		ck_abort_msg("not 0 after %zu bytes", bytes);
}

TEST_CASE("time", 60);

TEST(test_split_ten_megabytes_in_a_blink)
{
	struct split_result r = SPLIT_RESULT_NONE, f = SPLIT_RESULT_NONE;
	uint8_t *body = malloc(40000);
	struct split_tail state = { 0 };
	struct err err = ERR_NONE;
	struct out o = { 0 }, json = { 0 };
	uint64_t seed = 88172645463325252ull;
	double start;

	put(&json, "{\"page_size\": 4096, \"devices\": [", 32);
	for (unsigned i = 0; i < 256; i++) {
		char text[256];

		for (size_t k = 0; k < 40000; k += 8)
			be64_store(body + k, random_next(&seed));
		full(&o, i + 1, "device", i, body, 40000);
		snprintf(text, sizeof(text),
		         "%s{\"name\": \"device\", \"instance_id\": %u, \"fields\": [{\"name\": \"data\", \"size\": "
		         "40000, \"type\": \"b\"}]}",
		         i ? ", " : "", i);
		put(&json, text, strlen(text));
	}
	put(&json, "]}", 3);
	eof_and(&o, (char *)json.p);
	start = cpu_s();
	ck_assert_int_eq(split_try_tail(&state, &r, o.p, o.n, &plain, &err), 1);
	took("10 MB by description", start, 1.0);
	start = cpu_s();
	ck_assert_int_eq(split_by_footers(&f, o.p, r.eof_off + 1, SPLIT_TAIL, &plain, &err), 0);
	took("10 MB by footers", start, 1.0);
	same_sections(&r, &f);
	split_result_fini(&f);
	split_result_fini(&r);
	/* As it would arrive, and as slowly as it can. */
	memset(&state, 0, sizeof(state));
	start = cpu_s();
	for (size_t n = 0; n < o.n; n++)
		still_more(&state, o.p, n);
	took("10 MB byte by byte", start, 10);
	free(o.p);
	free(json.p);
	free(body);
}

TEST(test_split_hostile_announcements_cost_no_square)
{
	struct split_result r = SPLIT_RESULT_NONE;
	struct split_tail state = { 0 };
	struct err err = ERR_NONE;
	struct out o = { 0 };
	double start = cpu_s();

	/* `00 06 be32 {` over and over; each length fits once, and each call ends in '}'. */
	head(&o, 4, 7, "a", 0, 1);
	for (size_t i = 0; i < (1 << 20) / 8; i++)
		put(&o, "\x00\x06\x00\x00\x00\x02{}", 8);
	for (size_t n = 0; n <= o.n; n++)
		still_more(&state, o.p, n);
	ck_assert_int_ne(state.miss.code, 0);
	ck_assert_int_eq(split_tail_end(&state, o.p, o.n, &plain, &err), -EPROTO);
	took("1 MiB of complete announcements", start, 5);
	o.n = 15;
	memset(&state, 0, sizeof(state));
	start = cpu_s();
	for (size_t i = 0; i < (1 << 20) / 7; i++)
		put(&o, "\x00\x06\x00\x00\x00\x10{", 7);
	put(&o, "}", 1);
	for (size_t n = 0; n <= o.n; n++)
		still_more(&state, o.p, n);
	ck_assert_int_eq(split_tail_end(&state, o.p, o.n, &plain, &err), -EPROTO);
	took("1 MiB of overlapping announcements", start, 5);
	/* All lengths end at the same place, the last byte. */
	start = cpu_s();
	memset(&state, 0, sizeof(state));
	for (size_t off = 15; off + 7 < o.n; off += 7)
		be32_store(o.p + off + 2, (uint32_t)(o.n - off - 6));
	ck_assert_int_eq(split_try_tail(&state, &r, o.p, o.n, &plain, &err), 0);
	ck_assert_int_eq(split_tail_end(&state, o.p, o.n, &plain, &err), -EPROTO);
	took("1 MiB of announcements of one end", start, 5);
	/* Whole and valid ones, of nothing that is here. */
	start = cpu_s();
	memset(&state, 0, sizeof(state));
	for (o.n = 15; o.n < 1 << 20;) {
		eof_and(&o, TOP(""));
		still_more(&state, o.p, o.n);
	}
	ck_assert_int_eq(split_tail_end(&state, o.p, o.n, &plain, &err), -EPROTO);
	took("1 MiB of valid descriptions", start, 5);
	/* Nothing but braces. */
	start = cpu_s();
	memset(&state, 0, sizeof(state));
	memset(o.p + 15, '}', o.n - 15);
	for (size_t n = 0; n <= o.n; n++)
		still_more(&state, o.p, n);
	took("1 MiB of braces, one by one", start, 5);
	free(o.p);
}

TEST(test_split_ten_megabytes_of_subsections)
{
	struct split_result r = SPLIT_RESULT_NONE;
	struct split_tail state = { 0 };
	struct err err = ERR_NONE;
	struct out o = { 0 };
	double start;

	head(&o, 4, 7, "a", 0, 1);
	for (unsigned i = 0; i < 1000000; i++)
		put(&o, "\5\4s/bc\0\0\0\2", 10);
	footer(&o, 7);
	eof_and(&o,
	        TOP("{\"name\": \"a\", \"instance_id\": 0, \"vmsd_name\": \"a\", \"version\": 1, \"fields\": "
	            "[{\"name\": \"s\", "
	            "\"array_len\": 1000000, \"type\": \"struct\", \"struct\": {\"vmsd_name\": \"s\", \"version\": 1, "
	            "\"fields\": [], \"subsections\": [{\"vmsd_name\": \"s/bc\", \"version\": 2, \"fields\": []}]}, "
	            "\"size\": 10}]}"));
	start = cpu_s();
	ck_assert_int_eq(try_all(&o, &plain, &r, &state, &err), 1);
	took("10 MB of subsections", start, 1);
	split_result_fini(&r);
	free(o.p);
}

TEST(test_split_deep_arrays_of_nothing_end)
{
	struct split_result r = SPLIT_RESULT_NONE;
	struct split_tail state = { 0 };
	struct err err = ERR_NONE;
	struct out o = { 0 };
	double start = cpu_s();

	/* 2^62 empty structures without a byte */
	full(&o, 7, "a", 0, "", 0);
	eof_and(&o, TOP("{\"name\": \"a\", \"instance_id\": 0, \"vmsd_name\": \"a\", \"version\": 1, \"fields\": "
	                "[{\"name\": \"s\", "
	                "\"array_len\": 4611686018427387904, \"type\": \"struct\", \"struct\": {\"vmsd_name\": \"s\", "
	                "\"version\": 1, "
	                "\"fields\": []}, \"size\": 0}]}"));
	ck_assert_int_eq(try_all(&o, &plain, &r, &state, &err), 1);
	took("2^62 empty structures", start, 1);
	split_result_fini(&r);
	free(o.p);
}
