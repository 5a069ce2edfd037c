/*
 * The package touches missing guest memory, while the source outruns us and the channel that would bring the page has
 * not been accepted, or does not exist (doc/wire/channels.md 6 item 3).
 */
#include "tests/support/check_main.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/clock.h"
#include "engine/inm.h"
#include "tests/support/postcopy_scene.h"

/* More than the buffers of a connection hold, several times. */
#define BULK_PAGES 4096
#define TOUCHED_PAGE 2001 /* with content: 2000 is one of zeros */

static const struct pc_block bulk[] = { { "pc.ram", BULK_PAGES, EMB_MEMFD }, { "vga.vram", 16, EMB_ANON } };

static uint64_t load_word(const void *at)
{
	return *(const volatile uint64_t *)at;
}

/* As a device that has its rings in guest memory. */
static int touch_a_missing_page(struct pc *s, const struct inm_device *device)
{
	uint8_t *view = inm_ram_view(s->e.inm, pc_guest(s, 0, TOUCHED_PAGE), PC_PAGE);

	(void)device;
	return view && load_word(view) == wire_content_word(0, TOUCHED_PAGE, 0) ? 0 : -EILSEQ;
}

static struct pc_opts outrun(enum pc_preempt when)
{
	return (struct pc_opts){ .blocks = bulk,
		                 .block_count = 2,
		                 .preempt = when,
		                 .device = touch_a_missing_page,
		                 .touch = { .threads = 2, .order = PC_SCATTERED } };
}

/* The page is none of those that are pushed: it comes when it is asked for, and on the preempt channel. */
static void begin(struct pc *s, const struct pc_opts *o)
{
	pc_begin(s, o);
	pc_reserve(s, 0, TOUCHED_PAGE);
	if (!s->ram[0].precopied[TOUCHED_PAGE])
		return;
	ck_abort_msg("the page must be missing");
}

static void check_it_came_by_preempt(const struct pc *s)
{
	ck_assert_uint_eq(pc_asked_times(s, 0, TOUCHED_PAGE), 1);
	ck_assert_uint_ge(s->e.stats.engine_faults, 1);
	ck_assert_uint_ge(s->e.stats.preempt_bytes, PC_PAGE);
}

TEST_CASE("late", 60);

/* The library has no turn between the connection, the package and what comes after it. */
TEST(test_a_connection_that_nobody_has_accepted_is_waited_for)
{
	const struct pc_opts o = outrun(PC_WITH_PACKAGE);
	struct pc s;

	begin(&s, &o);
	pc_precopy(&s);
	pc_switch(&s);
	for (unsigned i = 0; i < 100; i++)
		pc_source_step(&s);
	ck_assert_uint_gt(s.lines[PC_MAIN].sent, s.package_end);
	ck_assert_uint_gt(s.lines[PC_MAIN].out.len - s.lines[PC_MAIN].done, 0); /* it has outrun us */
	pc_run(&s, 20000);
	pc_check_landed(&s);
	check_it_came_by_preempt(&s);
	pc_end(&s);
}

static const unsigned delays_ms[] = { 0, 100, 3000 };

TEST_EACH(test_a_connection_that_comes_behind_the_package_is_waited_for, 3)
{
	struct pc_opts o = outrun(PC_AFTER_PACKAGE);
	struct pc s;

	o.preempt_delay_ms = delays_ms[_i];
	begin(&s, &o);
	pc_finish(&s);
	pc_check_landed(&s);
	check_it_came_by_preempt(&s);
	pc_end(&s);
}

/* Nothing is asked for, and the guest does not start, before the channel is there. */
TEST(test_nothing_is_asked_for_before_the_channel_is_there)
{
	struct pc_opts o = outrun(PC_AFTER_PACKAGE);
	struct pc s;

	o.preempt_delay_ms = 300;
	begin(&s, &o);
	pc_switch(&s);
	while (s.lines[PC_PREEMPT].fd < 0) {
		pc_turn(&s);
		ck_assert_uint_eq(s.request_count, 0);
		ck_assert_uint_eq(s.vcpu_starts, 0);
		ck_assert_int_eq(inm_get_state(s.e.inm), INM_STATE_ACTIVE);
		usleep(1000);
	}
	pc_run(&s, 20000);
	pc_check_landed(&s);
	pc_end(&s);
}

/* With a source in a thread of its own, and inm_run. */
TEST_EACH(test_a_source_of_its_own_outruns_us, 4)
{
	static const enum pc_preempt whens[] = { PC_EARLY, PC_LATE, PC_WITH_PACKAGE, PC_AFTER_PACKAGE };
	const struct pc_opts o = outrun(whens[_i]);
	struct pc s;

	begin(&s, &o);
	pc_run_threaded(&s, 20000);
	pc_check_landed(&s);
	check_it_came_by_preempt(&s);
	pc_end(&s);
}

/* ---- it never comes ---------------------------------------------------------------------------------------------- */

TEST_CASE("never", 60);

TEST(test_a_connection_that_never_comes_is_named_and_the_source_told)
{
	struct pc_opts o = outrun(PC_NEVER);
	uint64_t began_ns;
	struct pc s;

	o.connect_deadline = "2";
	begin(&s, &o);
	began_ns = clock_now_ns();
	pc_switch(&s);
	pc_run(&s, 6000);
	pc_check_failed(&s, -ECONNABORTED, "the preempt channel has not come within 2 s (connect-deadline)");
	ck_assert_uint_ge(clock_now_ns() - began_ns, 2 * NS_PER_S);
	ck_assert_uint_eq(s.request_count, 0);
	ck_assert(!s.device_ended);
	pc_end(&s);
}

/* ---- ready and start_vcpus --------------------------------------------------------------------------------------- */

static struct pc *looks;
static struct inm_ops before;
static uint64_t looked_word;

static void look_at_a_missing_page(void)
{
	looked_word = load_word(inm_ram_view(looks->e.inm, pc_guest(looks, 0, TOUCHED_PAGE), PC_PAGE));
}

static int ready_that_looks(void *opaque, const char *run_state)
{
	look_at_a_missing_page();
	return before.ready(opaque, run_state);
}

static void start_vcpus_that_looks(void *opaque, const char *run_state)
{
	look_at_a_missing_page();
	before.start_vcpus(opaque, run_state);
}

TEST_CASE("last", 60);

/* They park like a device's callback. */
TEST_EACH(test_the_last_callbacks_may_touch_what_is_missing, 2)
{
	struct pc_opts o = outrun(PC_LATE);
	struct pc s;

	o.device = NULL;
	begin(&s, &o);
	looks = &s;
	before = s.e.inm->callbacks.ops;
	if (_i)
		s.e.inm->callbacks.ops.start_vcpus = start_vcpus_that_looks;
	else
		s.e.inm->callbacks.ops.ready = ready_that_looks;
	pc_finish(&s);
	pc_check_landed(&s);
	ck_assert_uint_eq(looked_word, wire_content_word(0, TOUCHED_PAGE, 0));
	pc_end(&s);
}
