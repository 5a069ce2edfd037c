/* What the globalstate section says: engine/devices/split.h. */
#include "engine/devices/split.h"

#include <errno.h>

#include "tests/support/check_main.h"
#include "tests/unit/data/tails.h"

START_TEST(test_split_globalstate)
{
	uint8_t body[104] = { 0, 0, 0, 8 };
	struct split_globalstate g;
	struct err err = ERR_NONE;

	memcpy(body + 4, "running", 7);
	ck_assert_int_eq(split_globalstate(&g, body, sizeof(body), &err), 0);
	ck_assert_str_eq(g.run_state, "running");
	ck_assert(!g.has_vm_was_suspended && !g.vm_was_suspended);
	body[4 + 32] = 1;
	body[4 + 33] = 1;
	ck_assert_int_eq(split_globalstate(&g, body, sizeof(body), &err), 0);
	ck_assert(g.has_vm_was_suspended && g.vm_was_suspended);
	ck_assert_int_eq(split_globalstate(&g, body, 103, &err), -EPROTO);
	body[3] = 9;
	ck_assert_int_eq(split_globalstate(&g, body, sizeof(body), &err), -EPROTO);
	body[3] = 8;
	body[5] = '\n';
	ck_assert_int_eq(split_globalstate(&g, body, sizeof(body), &err), -EPROTO);
	memset(body + 4, 'x', 100);
	body[3] = 101;
	ck_assert_int_eq(split_globalstate(&g, body, sizeof(body), &err), -EPROTO);
	memset(body, 0, sizeof(body));
	body[3] = 1;
	ck_assert_int_eq(split_globalstate(&g, body, sizeof(body), &err), -EPROTO);
}
END_TEST

static void check_globalstate(struct tail *t)
{
	struct split_result r = tail_split(t);
	const struct split_section *s = split_find(&r, t->buf, "globalstate", 0);
	struct split_globalstate g;
	struct err err = ERR_NONE;
	char name[256];

	ck_assert_ptr_nonnull(s);
	ck_assert_str_eq(split_name(name, t->buf, s), "globalstate");
	ck_assert_int_eq(split_globalstate(&g, t->buf + s->body_off, s->body_bytes, &err), 0);
	ck_assert_str_eq(g.run_state, "prelaunch");
	split_result_fini(&r);
}

START_TEST(test_split_globalstate_of_real_sources)
{
	for_each_tail(".tail", check_globalstate);
}
END_TEST

Suite *suite(void)
{
	Suite *s = suite_create("split_globalstate");
	TCase *t = suite_case(s, "globalstate", 100);

	tcase_add_test(t, test_split_globalstate);
	tcase_add_test(t, test_split_globalstate_of_real_sources);
	return s;
}
