/* What the globalstate section says: engine/stream/globalstate.h. */
#include "engine/stream/globalstate.h"

#include <errno.h>

#include "tests/support/check_main.h"
#include "tests/unit/data/tails.h"

TEST_CASE("globalstate", 100);

TEST(test_globalstate)
{
	uint8_t body[104] = { 0, 0, 0, 8 };
	char state[GLOBALSTATE_NAME_MAX + 1];
	struct err err = ERR_NONE;

	memcpy(body + 4, "running", 7);
	ck_assert_int_eq(globalstate_parse(state, body, sizeof(body), &err), 0);
	ck_assert_str_eq(state, "running");
	/* vm_was_suspended, which sources from 9.0 on say in two bytes after the name. */
	body[4 + 32] = 1;
	body[4 + 33] = 1;
	ck_assert_int_eq(globalstate_parse(state, body, sizeof(body), &err), 0);
	ck_assert_str_eq(state, "running");
	ck_assert_int_eq(globalstate_parse(state, body, 103, &err), -EPROTO);
	body[3] = 9;
	ck_assert_int_eq(globalstate_parse(state, body, sizeof(body), &err), -EPROTO);
	body[3] = 8;
	body[5] = '\n';
	ck_assert_int_eq(globalstate_parse(state, body, sizeof(body), &err), -EPROTO);
	memset(body + 4, 'x', 100);
	body[3] = 101;
	ck_assert_int_eq(globalstate_parse(state, body, sizeof(body), &err), -EPROTO);
	memset(body, 0, sizeof(body));
	body[3] = 1;
	ck_assert_int_eq(globalstate_parse(state, body, sizeof(body), &err), -EPROTO);
}

static void check_globalstate(struct tail *t)
{
	struct split_result r = tail_split(t);
	const struct split_section *s = tail_section(&r, t->buf, "globalstate");
	char state[GLOBALSTATE_NAME_MAX + 1];
	struct err err = ERR_NONE;

	ck_assert_ptr_nonnull(s);
	ck_assert_int_eq(globalstate_parse(state, t->buf + s->body_off, s->body_bytes, &err), 0);
	ck_assert_str_eq(state, "prelaunch");
	split_result_fini(&r);
}

TEST(test_globalstate_of_real_sources)
{
	for_each_tail(".tail", check_globalstate);
}
