/*
 * What rarely goes wrong around a pause: the kernel is short of memory, or two things happen in one turn. The linker
 * wraps the functions that would report it (WRAPPED in tests/tests.mk), and they report it when the test wants.
 */
#include "tests/support/check_main.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>

#include "coroutine/group.h"
#include "engine/inm.h"
#include "engine/stream/hello.h"
#include "postcopy/uffd.h"
#include "tests/support/recovery_scene.h"

static const struct pc_block blocks[] = { { "pc.ram", 40, EMB_MEMFD }, { "vga.vram", 8, EMB_ANON } };

/* Each is for one call, and then taken back. */
static bool continue_fails, read_fails, spawn_fails, hello_times_out;
static const char *spawn_name = "main stream";
static struct rec *speaks_when_it_pauses;

struct uffd_done __real_uffd_continue(const struct uffd *u, void *addr, size_t bytes);
struct uffd_done __wrap_uffd_continue(const struct uffd *u, void *addr, size_t bytes);
ssize_t __real_uffd_read(const struct uffd *u, struct uffd_msg *events, size_t max);
ssize_t __wrap_uffd_read(const struct uffd *u, struct uffd_msg *events, size_t max);
int __real_group_spawn(struct group *g, const char *name, co_fn *fn, void *arg);
int __wrap_group_spawn(struct group *g, const char *name, co_fn *fn, void *arg);
int __real_hello_read(struct hello *h, uint64_t deadline_ns, struct err *err);
int __wrap_hello_read(struct hello *h, uint64_t deadline_ns, struct err *err);
int __real_ledger_send(void *arg);
int __wrap_ledger_send(void *arg);

static bool take(bool *order)
{
	bool was = *order;

	*order = false;
	return was;
}

struct uffd_done __wrap_uffd_continue(const struct uffd *u, void *addr, size_t bytes)
{
	if (take(&continue_fails))
		return (struct uffd_done){ .error = -ENOMEM };
	return __real_uffd_continue(u, addr, bytes);
}

ssize_t __wrap_uffd_read(const struct uffd *u, struct uffd_msg *events, size_t max)
{
	return take(&read_fails) ? -ENOMEM : __real_uffd_read(u, events, max);
}

int __wrap_group_spawn(struct group *g, const char *name, co_fn *fn, void *arg)
{
	if (strcmp(name, spawn_name) == 0 && take(&spawn_fails))
		return -ENOMEM;
	return __real_group_spawn(g, name, fn, arg);
}

int __wrap_hello_read(struct hello *h, uint64_t deadline_ns, struct err *err)
{
	int e = __real_hello_read(h, deadline_ns, err);

	return e == -ENODATA && take(&hello_times_out) ? -ECONNABORTED : e;
}

/* It ends when a pause begins. */
int __wrap_ledger_send(void *arg)
{
	int e = __real_ledger_send(arg);

	if (speaks_when_it_pauses)
		ck_assert_int_eq(send(speaks_when_it_pauses->s.lines[PC_PREEMPT].fd, "\0\0\0\0", 4, 0), 4);
	speaks_when_it_pauses = NULL;
	return e;
}

static struct pc_opts story(enum rec_style style, unsigned threads)
{
	struct pc_opts o = rec_story(blocks, style);

	o.touch.threads = threads;
	o.connect_deadline = "1";
	return o;
}

static void pauses(struct rec *r)
{
	ck_assert_msg(rec_until(r, rec_is_paused, 5000), "state %s; said: %s",
	              inm_state_name(inm_get_state(r->s.e.inm)), r->s.said);
	r->losses++;
	rec_forget(r);
	rec_settle(r);
}

TEST_CASE("faults", 30);

/* A page that has come and cannot be shown: threads that wait for it go on when it can. */
TEST(test_a_page_that_cannot_be_shown_strands_nobody)
{
	const struct pc_opts o = story(REC_NO_PREEMPT, 1); /* another thread there would wake it */
	struct rec r;

	rec_begin_waiting(&r, &o);
	continue_fails = true;
	pc_answer(&r.s);
	pauses(&r);
	rec_recover_and_finish(&r, REC_NO_PREEMPT);
}

TEST(test_faults_that_could_not_be_read_are_read_after_the_recovery)
{
	const struct pc_opts o = story(REC_NO_PREEMPT, REC_THREADS);
	struct rec r;

	rec_begin_waiting(&r, &o);
	read_fails = true;
	pc_answer(&r.s);
	pauses(&r);
	rec_recover_and_finish(&r, REC_NO_PREEMPT);
}

TEST(test_a_recovery_without_memory_is_one_that_failed)
{
	const struct pc_opts o = story(REC_NO_PREEMPT, REC_THREADS);
	const struct rec_opts back = rec_back(REC_NO_PREEMPT);
	struct rec r;

	rec_begin_paused(&r, &o);
	spawn_fails = true;
	rec_return(&r, &back);
	rec_until(&r, rec_is_away, 5000);
	pauses(&r);
	rec_recover_and_finish(&r, REC_NO_PREEMPT);
}

/* After LISTEN it would be too late: the source sends its package once. */
TEST(test_a_package_that_nobody_can_load_fails_before_pages_are_watched)
{
	struct pc s;

	pc_begin(&s, &(struct pc_opts){ .quiet = true });
	spawn_name = "package";
	spawn_fails = true;
	pc_switch(&s);
	pc_until(&s, pc_vcpus_started, 5000);
	ck_assert_uint_eq(s.e.inm->postcopy.listening, false);
	pc_check_failed(&s, -ENOMEM, "no memory for a coroutine");
	pc_end(&s);
}

/* The kernel has given up probing it: it is as lost as one that has ended. */
TEST(test_a_silent_preempt_channel_that_times_out_is_a_pause)
{
	const struct pc_opts o = story(REC_NEW, REC_THREADS);
	struct rec r;

	rec_begin_waiting(&r, &o);
	hello_times_out = true;
	rec_lose(&r, REC_ONLY_PREEMPT, false);
	pauses(&r);
	rec_recover_and_finish(&r, REC_NEW);
}

/* Its first bytes, in the turn in which it is closed because main was lost: it is not the channel of the recovery. */
TEST(test_the_lost_preempt_channel_does_not_become_the_next_one)
{
	const struct pc_opts o = story(REC_NEW, REC_THREADS);
	struct rec r;

	rec_begin_waiting(&r, &o);
	speaks_when_it_pauses = &r;
	rec_lose(&r, REC_MAIN, false);
	ck_assert(rec_until(&r, rec_is_paused, 5000));
	rec_settle(&r);
	ck_assert_ptr_null(r.s.e.inm->preempt.ch);
	pauses(&r);
	rec_recover_and_finish(&r, REC_NEW);
}
