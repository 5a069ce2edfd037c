/*
 * Postcopy where two things happen at once: pages are removed while a run of them is placed, a callback waits while the
 * load fails, a cancel meets a loss.
 */
#include "tests/support/check_main.h"

#include <errno.h>
#include <sched.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "tests/support/huge_pool.h"
#include "tests/support/postcopy_scene.h"

static const struct pc_block anon[] = { { "pc.ram", 64, EMB_ANON }, { "vga.vram", 16, EMB_ANON } };

/* ---- a thread of the embedder that gives memory back ---- */
struct remover {
	struct pc_thread thread;
	uint8_t *at;
	size_t bytes;
	int advice, result, cpu;
	atomic_bool done, stop;
	unsigned long rounds;
	bool for_ever;
};

static void *run_remover(void *arg)
{
	struct remover *r = arg;
	cpu_set_t set;

	if (r->cpu >= 0) {
		CPU_ZERO(&set);
		CPU_SET(r->cpu, &set);
		sched_setaffinity(0, sizeof(set), &set);
	}
	do {
		r->result = madvise(r->at, r->bytes, r->advice) < 0 ? -errno : 0;
		r->rounds++;
	} while (r->for_ever && !atomic_load(&r->stop));
	atomic_store(&r->done, true);
	return NULL;
}

static void remover_end(struct pc *s, struct remover *r)
{
	uint64_t deadline_ns = deadline_after_ns(3 * NS_PER_S);

	atomic_store(&r->stop, true);
	while (!atomic_load(&r->done) && clock_now_ns() < deadline_ns)
		pc_turn(s);
	ck_assert_msg(atomic_load(&r->done), "madvise hangs");
	pc_thread_join(&r->thread);
	ck_assert_int_eq(r->result, 0);
}

static void part(struct pc *s, unsigned block, uint64_t first, uint64_t end)
{
	struct wire *w = &s->lines[PC_MAIN].out;

	wire_part(w, WIRE_PART, 2);
	for (uint64_t i = first; i < end; i++)
		wire_content_record(w, i == first ? s->ram[block].said.name : NULL, block, i, false);
	s->lines[PC_MAIN].last_block = (int)block;
	wire_ram_end(w, 2);
}

static struct inm_stats stats(struct pc *s)
{
	struct inm_stats st = { .size = sizeof(st) };

	inm_get_stats(s->e.inm, &st);
	return st;
}

TEST_CASE("races", 90);

TEST(test_pages_removed_in_the_middle_of_a_run_are_counted_once_and_stay_zeros)
{
	struct remover r = { .bytes = 4 * PC_PAGE, .advice = MADV_DONTNEED, .cpu = -1 };
	struct pc s;

	pc_begin_until(&s, pc_vcpus_started,
	               &(struct pc_opts){ .blocks = anon, .block_count = 2, .quiet = true, .unanswered = true });
	pc_settle(&s);
	/* First the pages are there to be read, then the event: the run meets EAGAIN, and waits while it is read. */
	part(&s, 0, 6, 12);
	pc_source_step(&s);
	r.at = pc_guest(&s, 0, 7);
	pc_thread_start(&r.thread, run_remover, &r);
	usleep(50000);
	pc_settle(&s);
	remover_end(&s, &r);
	pc_settle(&s);
	ck_assert_uint_eq(stats(&s).remaining_pages, 80 - 6);
	/* All but four of the rest. */
	part(&s, 0, 0, 6);
	part(&s, 0, 12, 64);
	part(&s, 1, 0, 12);
	pc_settle(&s);
	ck_assert_uint_eq(stats(&s).remaining_pages, 4);
	pc_lose(&s);
	ck_assert_msg(pc_until(&s, pc_paused, 3000), "four pages are missing, the source is lost: state %s (%d)",
	              inm_state_name(inm_get_state(s.e.inm)), s.result);
	pc_give_up(&s);
}

TEST(test_a_page_that_cannot_be_written_is_not_received)
{
	struct rlimit was, none;
	struct pc s;

	pc_begin_until(&s, pc_vcpus_started, &(struct pc_opts){ .quiet = true });
	part(&s, 1, 0, 16);
	part(&s, 0, 0, 62);
	part(&s, 0, 63, 64);
	pc_settle(&s);
	ck_assert_uint_eq(stats(&s).remaining_pages, 1);
	signal(SIGXFSZ, SIG_IGN);
	getrlimit(RLIMIT_FSIZE, &was);
	none = was;
	none.rlim_cur = PC_PAGE; /* stands for a tmpfs that is full: pwritev fails */
	setrlimit(RLIMIT_FSIZE, &none);
	part(&s, 0, 62, 63);
	pc_settle(&s);
	setrlimit(RLIMIT_FSIZE, &was);
	ck_assert_msg(pc_paused(&s), "the last page was lost, and the state is %s (%d)",
	              inm_state_name(inm_get_state(s.e.inm)), s.result);
	ck_assert_uint_eq(stats(&s).remaining_pages, 1);
	pc_give_up(&s);
}

TEST_EACH(test_a_cancel_in_the_turn_of_the_loss_is_heard, 2)
{
	struct pc s;

	pc_begin_until(&s, pc_vcpus_started, &(struct pc_opts){ .quiet = true });
	pc_settle(&s);
	if (_i)
		pc_lose(&s);
	inm_cancel(s.e.inm);
	if (!_i)
		pc_lose(&s);
	pc_run(&s, 3000);
	ck_assert_msg(s.result != 1, "inm_cancel was not heard: state %s after 3 s",
	              inm_state_name(inm_get_state(s.e.inm)));
	pc_check_cancelled(&s);
	pc_end(&s);
}

static uint64_t seen_by_device;
static int touch_missing(struct pc *s, const struct inm_device *device)
{
	uint8_t *view = inm_ram_view(s->e.inm, pc_guest(s, 0, 1), PC_PAGE);

	(void)device;
	seen_by_device = *(volatile uint64_t *)view;
	return 0; /* it believes what it reads */
}

static void put_garbage(struct pc *s, struct wire *w)
{
	(void)s;
	wire_u8(w, 0x77);
}

TEST_EACH(test_a_guest_whose_device_read_zeros_because_of_a_failure_is_not_started, 2)
{
	struct pc s;

	pc_begin_until(&s, pc_asked,
	               &(struct pc_opts){ .quiet = true, .unanswered = true, .modern = true, .device = touch_missing });
	pc_settle(&s);
	if (_i == 0)
		put_garbage(&s, &s.lines[PC_MAIN].out);
	else
		shutdown(s.lines[PC_MAIN].fd, SHUT_WR);
	pc_settle(&s);
	ck_assert_msg(s.vcpu_starts == 0, "the guest was started; ready was called %u times, %u devices delivered",
	              s.ready_calls, s.e.device_count);
	ck_assert_uint_eq(s.ready_calls, 0);
	pc_run(&s, 3000);
	pc_free(&s);
	pc_end(&s);
}

TEST(test_a_lie_right_behind_the_package_keeps_the_guest_at_the_source)
{
	struct pc s;

	pc_begin(&s, &(struct pc_opts){
	                     .quiet = true, .modern = true, .inject_at = PC_AFTER_PACKAGE_END, .inject = put_garbage });
	pc_switch(&s);
	pc_run(&s, 2000);
	ck_assert_msg(s.vcpu_starts == 0, "the guest was started after the failure: state %s, %s",
	              inm_state_name(inm_get_state(s.e.inm)), inm_error(s.e.inm));
	pc_free(&s);
	pc_end(&s);
}

static void spin_until(struct pc *s, bool (*cond)(struct pc *s), unsigned ms)
{
	uint64_t deadline_ns = deadline_after_ns(ms * NS_PER_MS);

	while (!cond(s) && clock_now_ns() < deadline_ns)
		pc_turn(s);
}

static bool has_retried(struct pc *s)
{
	return stats(s).place_retries > 0;
}

TEST(test_who_waits_for_a_page_that_is_being_placed_when_the_network_fails_goes_on)
{
	struct remover r = { .bytes = PC_PAGE, .advice = MADV_REMOVE, .cpu = 0 };
	struct sched_param fifo = { .sched_priority = 10 }, other = { 0 };
	cpu_set_t set, was;
	uint64_t deadline_ns;
	struct pc s;

	pc_begin(&s,
	         &(struct pc_opts){ .quiet = true, .unanswered = true, .preempt = PC_LATE, .touch = { .threads = 1 } });
	sched_getaffinity(0, sizeof(was), &was);
	pc_switch(&s);
	ck_assert(pc_until(&s, pc_asked, 5000));
	pc_send_page(&s, PC_PREEMPT, 0, 40);
	pc_settle(&s);
	r.at = pc_guest(&s, 1, 3);
	pc_thread_start(&r.thread, run_remover, &r);
	usleep(100000);
	CPU_ZERO(&set);
	CPU_SET(0, &set);
	sched_setaffinity(0, sizeof(set), &set);
	if (sched_setscheduler(0, SCHED_FIFO, &fifo) < 0)
		test_skip("no SCHED_FIFO");
	pc_send_page(&s, PC_MAIN, 0, 0);
	spin_until(&s, has_retried, 200);
	pc_close_line(&s, PC_PREEMPT);
	spin_until(&s, pc_paused, 200);
	sched_setscheduler(0, SCHED_OTHER, &other);
	sched_setaffinity(0, sizeof(was), &was);
	ck_assert_msg(has_retried(&s), "no EAGAIN was met");
	ck_assert(pc_paused(&s));
	remover_end(&s, &r);
	deadline_ns = deadline_after_ns(2 * NS_PER_S);
	while (pc_touched(&s) == 0 && clock_now_ns() < deadline_ns)
		pc_settle(&s);
	ck_assert_msg(pc_touched(&s) == 1, "page 0 is received, and its thread still waits; outstanding %lu",
	              stats(&s).outstanding_faults);
	pc_give_up(&s);
}

static const struct pc_block odd[] = { { "pc.ram", 512 + 37, EMB_HUGETLB } };
static int await_r1, await_r2;
static int await_behind_the_end(struct pc *s, const struct inm_device *device)
{
	uint8_t *last = inm_ram_view(s->e.inm, pc_guest(s, 0, 548), PC_PAGE);

	(void)device;
	await_r1 = inm_ram_view(s->e.inm, last + 2 * PC_PAGE, 1ull << 40) ? 0 : -EFAULT;
	await_r2 = inm_ram_await(s->e.inm, last + 2 * PC_PAGE, 1ull << 40);
	return 0;
}

TEST_CASE("huge", 40, HUGE_POOL);

TEST(test_an_address_behind_the_end_of_a_block_is_refused)
{
	struct pc s;

	huge_pool_need(2);
	pc_begin(&s, &(struct pc_opts){ .blocks = odd, .block_count = 1, .device = await_behind_the_end });
	pc_finish(&s);
	ck_assert_int_eq(await_r1, -EFAULT);
	ck_assert_int_eq(await_r2, -EFAULT);
	pc_check_landed(&s);
	pc_end(&s);
}

static bool preempt_is_closed(struct pc *s)
{
	char c;

	return recv(s->lines[PC_PREEMPT].fd, &c, 1, MSG_DONTWAIT) == 0;
}

TEST_CASE("races", 90);

/* Not at once: it might be of the network that is back. */
TEST(test_a_silent_preempt_channel_is_closed_at_a_pause)
{
	struct pc s;

	pc_begin_until(&s, pc_vcpus_started,
	               &(struct pc_opts){ .quiet = true, .preempt = PC_LATE, .preempt_silent = true });
	pc_settle(&s);
	pc_close_line(&s, PC_MAIN);
	ck_assert(pc_until(&s, pc_paused, 3000));
	ck_assert_msg(pc_until(&s, preempt_is_closed, 5000), "it is still open");
	inm_cancel(s.e.inm);
	pc_run(&s, 5000);
	pc_free(&s);
	pc_end(&s);
}

/* Of all threads of the test: those that remove never rest, so it goes on as time does that others leave to us. */
#define FLOOD_CPU_NS (6 * NS_PER_S)

static uint64_t cpu_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
	return (uint64_t)t.tv_sec * NS_PER_S + (uint64_t)t.tv_nsec;
}

TEST_EACH(test_a_flood_of_removals_does_not_stop_the_pages, 5)
{
	static const int counts[] = { 1, 2, 4 };
	const int threads = counts[_i % 3];
	struct remover r[4];
	uint64_t began_ns, took_ns;
	struct pc s;

	pc_begin_until(
	        &s, pc_vcpus_started,
	        &(struct pc_opts){ .blocks = _i < 3 ? NULL : anon, .block_count = _i < 3 ? 0 : 2, .quiet = true });
	pc_settle(&s);
	for (int i = 0; i < threads; i++) {
		r[i] = (struct remover){ .bytes = PC_PAGE,
			                 .advice = MADV_DONTNEED,
			                 .cpu = -1,
			                 .for_ever = true,
			                 .at = pc_guest(&s, 1, 3 + i) };
		pc_thread_start(&r[i].thread, run_remover, &r[i]);
	}
	began_ns = cpu_ns();
	for (unsigned i = 0; i < 64; i++)
		pc_send_page(&s, PC_MAIN, 0, i);
	while (stats(&s).remaining_pages > 16 && cpu_ns() - began_ns < 2 * FLOOD_CPU_NS && s.result == 1 &&
	       !pc_paused(&s))
		pc_turn(&s);
	took_ns = cpu_ns() - began_ns;
	for (int i = 0; i < threads; i++)
		remover_end(&s, &r[i]);
	pc_give_up(&s);
	ck_assert_msg(took_ns < FLOOD_CPU_NS, "%llu ms of CPU", (unsigned long long)(took_ns / NS_PER_MS));
}
