/*
 * A callback returns 0, or a negative errno to refuse. Anything else is the embedder's mistake, and must not count as
 * success: the source would give up its guest (include/inmigrate.h).
 */
#include "tests/support/check_main.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>

#include "tests/support/postcopy_scene.h"
#include "tests/support/scene.h"

static const int no_answers[] = { 1, EINVAL, ENOENT, 4096, INT_MAX, -4096, -65536, INT_MIN };

static void check_names(const char *error, const char *callback, int code)
{
	char text[200];

	snprintf(text, sizeof(text), "%s returned %d%s; it must return 0 or a negative errno (EINVAL)", callback, code,
	         code < 0 ? ", which is no errno" : "");
	ck_assert_msg(strstr(error, text) != NULL, "'%s' is not in: %s", text, error);
}

static void answers(struct scene *s, int *where, int code, const char *callback)
{
	scene_begin(s, &(struct honest_opts){ .return_path = true });
	*where = code;
	ck_assert_int_eq(scene_land(s, &(struct land_opts){ .return_path = true }), -EINVAL);
	check_names(s->e.error, callback, code);
	ck_assert_int_eq(s->e.stats.state, INM_STATE_FAILED);
	ck_assert_uint_eq(source_reply_count(&s->report, WIRE_RP_SHUT), 1);
	ck_assert_uint_eq(source_reply_value(&s->report, WIRE_RP_SHUT, 0), 1);
	scene_end(s);
}

TEST_CASE("answers", 4);

TEST_ROWS(test_ram_block_that_returns_no_errno_fails_by_name_and_the_source_keeps_its_guest, no_answers)
{
	struct scene s;

	answers(&s, &s.e.fail_ram_block, no_answers[_i], "the callback for block 'pc.ram'");
}

TEST_ROWS(test_device_that_returns_no_errno_fails_by_name_and_the_source_keeps_its_guest, no_answers)
{
	struct scene s;

	answers(&s, &s.e.fail_device, no_answers[_i], "the callback for device 'timer'");
}

TEST_ROWS(test_ready_that_returns_no_errno_fails_by_name_and_the_source_keeps_its_guest, no_answers)
{
	struct scene s;

	answers(&s, &s.e.fail_start, no_answers[_i], "the callback ready");
}

static int positive_early(void *opaque, const struct inm_device *device)
{
	(void)opaque;
	return device->description ? 7 : -EIO;
}

TEST(test_early_described_that_returns_no_errno_fails_by_name)
{
	static const struct wire_device early = {
		.name = "0000:00:05.0/virtio-mem-device-early", .version_id = 1, .data = "0123456789abcdef", .bytes = 16
	};
	struct inm_ops ops = embedder_ops;
	struct scene s;

	ops.early_described = positive_early;
	scene_begin(&s, &(struct honest_opts){ .early = &early });
	ck_assert_int_eq(scene_land(&s, &(struct land_opts){ .ops = &ops }), -EINVAL);
	check_names(s.e.error, "the callback for early device '0000:00:05.0/virtio-mem-device-early'", 7);
	scene_end(&s);
}

static int a_positive_one(struct pc *s, const struct inm_device *device)
{
	(void)s;
	(void)device;
	return EIO;
}

/* In the package, which the source has nothing left to recover. */
TEST_EACH(test_in_postcopy_a_positive_answer_of_a_device_never_starts_the_guest, 2)
{
	struct pc s;

	pc_begin(&s, &(struct pc_opts){ .quiet = true, .modern = _i, .device = a_positive_one });
	pc_switch(&s);
	pc_run(&s, 5000);
	ck_assert_int_eq(s.result, -EINVAL);
	check_names(inm_error(s.e.inm), "the callback for device '0000:00:03.0/virtio-net'", EIO);
	pc_free(&s);
	ck_assert_int_eq(s.e.stats.state, INM_STATE_FAILED);
	ck_assert_uint_eq(s.e.start_calls, 0);
	pc_end(&s);
}
