/*
 * The network fails between LISTEN and RUN, while a device's callback waits for a page. The package is here, so this is
 * a pause like a later one, unless the source would start its guest again (PING 0x42, from QEMU 10.2 on).
 */
#include "tests/support/check_main.h"

#include <errno.h>
#include <string.h>

#include "base/be.h"
#include "base/clock.h"
#include "engine/inm.h"
#include "tests/support/recovery_scene.h"

#define WAITED_PAGE 1u /* with content, and missing */

static const struct pc_block memories[][2] = {
	{ { "pc.ram", 64, EMB_MEMFD }, { "vga.vram", 16, EMB_ANON } },
	{ { "pc.ram", 64, EMB_ANON }, { "vga.vram", 16, EMB_MEMFD } },
};

/* As a device that has its rings in guest memory. */
static int read_a_page(struct pc *s, const struct inm_device *device)
{
	uint8_t *view = inm_ram_view(s->e.inm, pc_guest(s, 0, WAITED_PAGE), PC_PAGE);
	uint64_t word;

	(void)device;
	if (!view)
		return -ENOMEM;
	if (s->ram[0].said.backing == EMB_ANON && inm_ram_await(s->e.inm, view, PC_PAGE) < 0)
		return -ECANCELED;
	memcpy(&word, view, sizeof(word));
	return word == wire_content_word(0, WAITED_PAGE, 0) ? 0 : -EILSEQ;
}

static struct pc_opts story(int memory, enum rec_style style)
{
	struct pc_opts o = rec_story(memories[memory], style);

	o.device = read_a_page;
	return o;
}

static bool device_waits(struct rec *r)
{
	return pc_asked(&r->s);
}

static bool ended(struct rec *r)
{
	return r->s.result != 1;
}

static void begin(struct rec *r, const struct pc_opts *o)
{
	rec_begin(r, o);
	pc_switch(&r->s);
	ck_assert(rec_until(r, device_waits, 5000));
	ck_assert_uint_eq(r->s.vcpu_starts, 0);
	rec_check_state(r, INM_STATE_POSTCOPY_ACTIVE);
}

/* The guest has not been started, and nobody has given the device a page that is none. */
static void check_held(struct rec *r)
{
	rec_settle(r);
	rec_check_state(r, INM_STATE_POSTCOPY_PAUSED);
	ck_assert_uint_eq(r->s.vcpu_starts, 0);
	ck_assert_uint_eq(r->s.ready_calls, 0);
	ck_assert(!r->s.device_ended);
}

static void finish(struct rec *r, enum rec_style style)
{
	struct rec_opts back = rec_back(style);

	pc_answer(&r->s);
	rec_recover(r, &back);
	rec_finish(r);
}

/* ---- it is recovered --------------------------------------------------------------------------------------------- */

#define LOSSES (2 * REC_STYLES * REC_CUTS * 2)

TEST_CASE("recovered", 60);

TEST_EACH(test_a_loss_while_a_device_waits_is_a_pause, LOSSES)
{
	int memory = _i % 2, style = _i / 2 % REC_STYLES, cut = _i / 2 / REC_STYLES % REC_CUTS;
	const struct pc_opts o = story(memory, (enum rec_style)style);
	struct rec r;

	if (cut == REC_ONLY_PREEMPT && style == REC_NO_PREEMPT)
		return; /* it has none */
	begin(&r, &o);
	ck_assert(rec_pause(&r, (enum rec_cut)cut, _i >= LOSSES / 2));
	check_held(&r);
	finish(&r, (enum rec_style)style);
}

/* What the device waits for is asked for on each new connection, and once. */
TEST_EACH(test_it_may_be_lost_again_before_the_guest_runs, 2)
{
	const struct pc_opts o = story(_i % 2, REC_NEW);
	struct rec_opts back = rec_back(REC_NEW);
	struct rec r;

	begin(&r, &o);
	for (unsigned i = 0; i < 3; i++) {
		ck_assert(rec_pause(&r, REC_BOTH, false));
		check_held(&r);
		rec_recover(&r, &back);
		ck_assert(rec_until(&r, device_waits, 5000));
		rec_settle(&r);
		ck_assert_uint_eq(pc_asked_times(&r.s, 0, WAITED_PAGE), 1);
		ck_assert_uint_eq(r.s.vcpu_starts, 0);
	}
	rec_answer_and_finish(&r);
}

/* At each step of the dialogue. */
TEST_EACH(test_a_recovery_before_the_guest_runs_may_fail, 2)
{
	const struct pc_opts o = story(_i % 2, REC_NEW);
	struct rec_opts back = rec_back(REC_NEW);
	struct rec r;

	begin(&r, &o);
	ck_assert(rec_pause(&r, REC_BOTH, false));
	for (back.stop = REC_CONNECTED; back.stop <= REC_PREEMPT; back.stop++) {
		rec_attempt(&r, &back, REC_BOTH);
		check_held(&r);
	}
	finish(&r, REC_NEW);
}

TEST(test_a_pause_can_be_asked_for_before_the_guest_runs)
{
	const struct pc_opts o = story(0, REC_NEW);
	struct rec r;

	begin(&r, &o);
	ck_assert_int_eq(inm_pause(r.s.e.inm), 0);
	ck_assert(rec_until(&r, rec_is_paused, 5000));
	r.losses++;
	rec_forget(&r);
	check_held(&r);
	ck_assert_msg(strstr(inm_error(r.s.e.inm), "inm_pause"), "%s", inm_error(r.s.e.inm));
	finish(&r, REC_NEW);
}

/* Main is lost before the preempt channel has come: LISTEN is not carried out any more on that connection. */
TEST_EACH(test_a_loss_while_the_preempt_channel_is_waited_for_is_a_pause, 2)
{
	struct pc_opts o = story(0, REC_NEW);
	struct rec r;

	o.preempt = PC_NEVER;
	o.connect_deadline = "20";
	rec_begin(&r, &o);
	pc_switch(&r.s);
	rec_settle(&r);
	rec_check_state(&r, INM_STATE_ACTIVE);
	ck_assert(rec_pause(&r, REC_MAIN, _i));
	check_held(&r);
	ck_assert_uint_eq(r.s.request_count, 0);
	r.s.o.preempt = PC_LATE;
	finish(&r, REC_NEW);
}

/* The source is gone before we look at a byte of the package: we read it even though we cannot answer. */
TEST_EACH(test_a_source_that_is_gone_leaves_its_package, 4)
{
	struct pc_opts o = story(_i % 2, REC_NO_PREEMPT);
	struct rec r;

	if (_i / 2)
		o.device = NULL;
	rec_begin(&r, &o);
	pc_precopy(&r.s);
	pc_switch(&r.s);
	for (unsigned i = 0; i < 100; i++)
		pc_source_step(&r.s);
	ck_assert_uint_ge(r.s.lines[PC_MAIN].sent, r.s.package_end);
	ck_assert(rec_pause(&r, REC_MAIN, false));
	ck_assert_uint_eq(r.s.vcpu_starts, _i / 2);
	finish(&r, REC_NO_PREEMPT);
}

/* Inside TLS: a device waits for a page, and we wait for the preempt channel. */
TEST_EACH(test_a_loss_inside_tls_is_a_pause, 2)
{
	struct pc_opts o = story(0, REC_NEW);
	struct pc s;

	o.tls = true;
	if (_i)
		o.preempt = PC_NEVER;
	o.connect_deadline = "20";
	pc_begin(&s, &o);
	pc_switch(&s);
	if (_i)
		pc_settle(&s);
	else
		ck_assert(pc_until(&s, pc_asked, 5000));
	pc_lose(&s);
	ck_assert(pc_until(&s, pc_paused, 5000));
	ck_assert_uint_eq(s.vcpu_starts, 0);
	pc_give_up(&s);
}

/* ---- without the source ------------------------------------------------------------------------------------------ */

/* What the device waits for is given back by a balloon: it is zeros, and the devices are complete. */
static int take_what_is_there(struct pc *s, const struct inm_device *device)
{
	(void)device;
	return inm_ram_await(s->e.inm, pc_guest(s, 0, WAITED_PAGE), PC_PAGE);
}

TEST_CASE("alone", 60);

TEST_EACH(test_the_guest_starts_while_the_source_is_away, 2)
{
	struct pc_opts o = story(0, REC_NEW);
	struct rec r;

	o.device = take_what_is_there;
	o.touch.threads = 0;
	begin(&r, &o);
	ck_assert(rec_pause(&r, REC_BOTH, false));
	check_held(&r);
	rec_remove(&r, 0, WAITED_PAGE, WAITED_PAGE + 1);
	ck_assert(rec_until(&r, rec_guest_runs, 5000));
	ck_assert_uint_eq(r.s.ready_calls, 1);
	rec_check_state(&r, INM_STATE_POSTCOPY_PAUSED);
	if (_i == 0) {
		finish(&r, REC_NEW);
		return;
	}
	/* And all the rest: nothing is missing, and it is not needed any more. */
	for (unsigned b = 0; b < r.s.ram_count; b++)
		rec_remove(&r, b, 0, r.s.ram[b].bytes / PC_PAGE);
	r.lost_at_end = true;
	rec_finish(&r);
}

/* All pages are here, and the device has no end: nothing completes before it has. */
TEST(test_nothing_completes_before_the_devices_are_loaded)
{
	struct pc_opts o = story(0, REC_NO_PREEMPT);
	struct rec r;

	o.device = take_what_is_there;
	o.touch.threads = 0;
	begin(&r, &o);
	ck_assert(rec_pause(&r, REC_BOTH, false));
	for (unsigned b = r.s.ram_count; b-- > 0;)
		rec_remove(&r, b, b == 0 ? WAITED_PAGE + 1 : 0, r.s.ram[b].bytes / PC_PAGE);
	rec_remove(&r, 0, 0, WAITED_PAGE);
	check_held(&r);
	rec_remove(&r, 0, WAITED_PAGE, WAITED_PAGE + 1);
	r.lost_at_end = true;
	rec_finish(&r);
}

/* ---- it is given up ---------------------------------------------------------------------------------------------- */

static int refuse(struct pc *s, const struct inm_device *device)
{
	(void)device;
	return inm_ram_await(s->e.inm, pc_guest(s, 0, WAITED_PAGE), PC_PAGE) < 0 ? -ECANCELED : -ENODEV;
}

static void check_refused(struct rec *r)
{
	ck_assert_msg(rec_until(r, ended, 5000), "state %s", inm_state_name(inm_get_state(r->s.e.inm)));
	ck_assert_int_eq(r->s.result, -ENODEV);
	rec_check_state(r, INM_STATE_FAILED);
	ck_assert_msg(strstr(inm_error(r->s.e.inm), "refused here"), "%s", inm_error(r->s.e.inm));
	ck_assert_uint_eq(r->s.vcpu_starts, 0);
	ck_assert_uint_eq(r->s.ready_calls, 0);
	pc_free(&r->s);
	rec_end(r);
}

TEST_CASE("given up", 60);

TEST(test_a_device_may_be_refused_while_it_is_paused)
{
	struct pc_opts o = story(0, REC_NEW);
	struct rec r;

	o.device = refuse;
	begin(&r, &o);
	ck_assert(rec_pause(&r, REC_BOTH, false));
	check_held(&r);
	rec_remove(&r, 0, WAITED_PAGE, WAITED_PAGE + 1);
	check_refused(&r);
}

TEST_EACH(test_a_device_may_be_refused_while_the_source_comes_back, 2)
{
	struct pc_opts o = story(0, REC_NEW);
	struct rec_opts back = rec_back(REC_NEW);
	struct rec r;

	o.device = refuse;
	begin(&r, &o);
	ck_assert(rec_pause(&r, REC_BOTH, false));
	back.stop = _i ? REC_ASKED : REC_CONNECTED;
	rec_return(&r, &back);
	ck_assert(rec_until(&r, rec_is_stopped, 5000));
	rec_remove(&r, 0, WAITED_PAGE, WAITED_PAGE + 1);
	check_refused(&r);
}

TEST_EACH(test_a_cancel_ends_it_before_the_guest_runs, 2)
{
	const struct pc_opts o = story(_i % 2, REC_NEW);
	struct rec r;

	begin(&r, &o);
	ck_assert(rec_pause(&r, REC_BOTH, false));
	check_held(&r);
	rec_give_up(&r);
	ck_assert_uint_eq(r.s.vcpu_starts, 0);
}

/* ---- a source that takes its guest back -------------------------------------------------------------------------- */

TEST_CASE("taken back", 60);

TEST_EACH(test_a_loss_before_the_source_gave_the_guest_away_is_the_end, 4)
{
	struct pc_opts o = story(_i % 2, REC_NEW);
	struct rec r;

	o.modern = true;
	begin(&r, &o);
	rec_lose(&r, _i / 2 ? REC_BOTH : REC_MAIN, false);
	ck_assert(rec_until(&r, ended, 5000));
	rec_check_state(&r, INM_STATE_FAILED);
	ck_assert_uint_eq(r.s.vcpu_starts, 0);
	ck_assert_uint_eq(r.s.ready_calls, 0);
	ck_assert(r.s.device_ended);
	ck_assert_int_eq(r.s.device_result, _i % 2 ? -ECANCELED : -EILSEQ);
	pc_free(&r.s);
	rec_end(&r);
}

static struct pc *asked;
static struct inm_ops before;

/* It looks at the last page that it needs, as a device does; what it finds is not its business. */
static int ready_that_looks(void *opaque, const char *run_state)
{
	volatile uint8_t *view = inm_ram_view(asked->e.inm, pc_guest(asked, 0, WAITED_PAGE), PC_PAGE);

	if (asked->ram[0].said.backing != EMB_ANON)
		(void)*view;
	else
		inm_ram_await(asked->e.inm, (void *)view, PC_PAGE);
	return before.ready(opaque, run_state);
}

static bool was_told_owner(const struct pc *s)
{
	for (unsigned i = 0; i < s->reply_count; i++)
		if (s->replies[i].type == WIRE_RP_PONG && be32_load(s->replies[i].payload) == 0x42)
			return true;
	return false;
}

/*
 * The preempt channel is lost while the callback ready waits for a page; main is there. So the migration ends, and the
 * source must not hear that the guest is ours: it takes it back.
 */
TEST_EACH(test_a_source_whose_guest_is_not_taken_is_not_told_that_it_is, 2)
{
	struct pc_opts o = story(_i, REC_NEW);
	struct rec r;

	o.modern = true;
	o.device = NULL;
	rec_begin(&r, &o);
	asked = &r.s;
	before = r.s.e.inm->callbacks.ops;
	r.s.e.inm->callbacks.ops.ready = ready_that_looks;
	pc_switch(&r.s);
	ck_assert(rec_until(&r, device_waits, 5000));
	rec_lose(&r, REC_ONLY_PREEMPT, false);
	ck_assert(rec_until(&r, ended, 5000));
	rec_settle(&r);
	rec_check_state(&r, INM_STATE_FAILED);
	ck_assert_uint_eq(r.s.vcpu_starts, 0);
	ck_assert(!was_told_owner(&r.s));
	pc_free(&r.s);
	rec_end(&r);
}
