/*
 * A callback holds the thread that runs the migration: under a lock that the log callback takes, or forever, at a page
 * that only this thread could bring. Another thread learns which callback it is (inm_stuck_fd, inm_stuck_text); nothing
 * of the embedder's is called until the callback has returned.
 */
#include "tests/support/check_main.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/clock.h"
#include "engine/inm.h"
#include "tests/support/postcopy_scene.h"

#define TOUCHED_PAGE 3
#define DEVICE "the callback for device '0000:00:03.0/virtio-net' instance 0: stuck for "
#define PATIENCE_MS 20000 /* of everybody with everybody: far longer than anything takes */

/* The embedder, beside what postcopy_scene has of it. */
static struct world {
	struct pc s;
	struct inm_ops before;
	struct pc_thread thread;
	pthread_mutex_t lock; /* of its logger */
	bool slow_ready;      /* it is ready that is slow, and not the device */
	atomic_int held;      /* the lock, by the slow callback */
	atomic_int broken;    /* a line came while it was held */
	atomic_uint lines;    /* that name a callback as stuck */
	char line[1024];      /* the last one */
	atomic_int read;      /* the other thread has read about it */
	int text_bytes;
	char text[1024];
} w;

/* ---- a slow callback under the logger's lock -------------------------------------------------------------------- */

static void log_under_the_lock(void *opaque, enum inm_log_level level, const char *text)
{
	(void)opaque;
	(void)level;
	if (atomic_load(&w.held))
		atomic_store(&w.broken, 1);
	pthread_mutex_lock(&w.lock); /* forever, if this thread has it */
	if (strstr(text, ": stuck for ")) {
		snprintf(w.line, sizeof(w.line), "%s", text);
		atomic_fetch_add(&w.lines, 1);
	}
	pthread_mutex_unlock(&w.lock);
}

/* Works until another thread has read that it is stuck. */
static int work_under_the_lock(void)
{
	uint64_t until_ns = deadline_after_ns(PATIENCE_MS * NS_PER_MS);

	pthread_mutex_lock(&w.lock);
	atomic_store(&w.held, 1);
	while (!atomic_load(&w.read) && clock_now_ns() < until_ns)
		;
	atomic_store(&w.held, 0);
	pthread_mutex_unlock(&w.lock);
	return 0;
}

static int slow_device(struct pc *s, const struct inm_device *device)
{
	(void)s;
	(void)device;
	return w.slow_ready ? 0 : work_under_the_lock();
}

static int slow_ready(void *opaque, const char *run_state)
{
	if (w.slow_ready)
		work_under_the_lock();
	return w.before.ready(opaque, run_state);
}

static void *reads_what_is_stuck(void *arg)
{
	struct inm *inm = arg;
	struct pollfd p = { .fd = inm_stuck_fd(inm), .events = POLLIN };

	if (poll(&p, 1, PATIENCE_MS) == 1)
		w.text_bytes = inm_stuck_text(inm, w.text, sizeof(w.text));
	atomic_store(&w.read, 1);
	return NULL;
}

static void begin(const struct pc_opts *o)
{
	pthread_mutex_init(&w.lock, NULL);
	pc_begin(&w.s, o);
	pc_reserve(&w.s, 0, TOUCHED_PAGE);
}

TEST_CASE("slow", 60);

/* ready, and a device. */
TEST_EACH(test_a_slow_callback_that_holds_the_logs_lock_goes_on_and_is_named, 2)
{
	struct pc_opts o = {
		.touch = { .threads = 1 }, .device = slow_device, .log = log_under_the_lock, .stuck_after = "50"
	};
	const char *words = _i ? "the callback ready: stuck for " : DEVICE;
	char rest[8];

	w.slow_ready = _i;
	begin(&o);
	w.before = w.s.e.inm->callbacks.ops;
	w.s.e.inm->callbacks.ops.ready = slow_ready;
	pc_thread_start(&w.thread, reads_what_is_stuck, w.s.e.inm);
	pc_finish(&w.s);
	pc_thread_join(&w.thread);
	/* It has returned: nothing is stuck now. */
	ck_assert_int_eq(inm_stuck_text(w.s.e.inm, rest, sizeof(rest)), 0);
	ck_assert_str_eq(rest, "");
	pc_check_landed(&w.s);
	ck_assert_int_eq(atomic_load(&w.broken), 0);
	ck_assert_msg(strncmp(w.text, words, strlen(words)) == 0, "%s", w.text);
	ck_assert_int_eq(w.text_bytes, (int)strlen(w.text));
	ck_assert_msg(strstr(w.text, ": busy or blocked elsewhere"), "%s", w.text);
	ck_assert_uint_eq(atomic_load(&w.lines), 1);
	ck_assert_msg(strncmp(w.line, words, strlen(words)) == 0, "%s", w.line);
	pc_end(&w.s);
}

/* ---- the callbacks that have no business with guest memory ------------------------------------------------------- */

/* The first line of postcopy takes long; the next one, about that, does not. */
static void slow_log(void *opaque, enum inm_log_level level, const char *text)
{
	uint64_t until_ns = deadline_after_ns(PATIENCE_MS * NS_PER_MS);

	(void)opaque;
	(void)level;
	if (strstr(text, ": stuck for ")) {
		snprintf(w.line, sizeof(w.line), "%s", text);
		atomic_fetch_add(&w.lines, 1);
	}
	if (strncmp(text, "postcopy: ", 10) != 0)
		return;
	while (!atomic_load(&w.read) && clock_now_ns() < until_ns)
		;
}

TEST(test_a_log_callback_that_is_slow_itself_is_named)
{
	static const char words[] = "the callback log: stuck for ";

	begin(&(struct pc_opts){ .touch = { .threads = 1 }, .log = slow_log, .stuck_after = "50" });
	pc_thread_start(&w.thread, reads_what_is_stuck, w.s.e.inm);
	pc_finish(&w.s);
	pc_thread_join(&w.thread);
	pc_check_landed(&w.s);
	ck_assert_msg(strncmp(w.text, words, strlen(words)) == 0, "%s", w.text);
	ck_assert_msg(strstr(w.text, ": busy or blocked"), "%s", w.text);
	ck_assert_uint_eq(atomic_load(&w.lines), 1);
	ck_assert_msg(strncmp(w.line, words, strlen(words)) == 0, "%s", w.line);
	pc_end(&w.s);
}

/* ---- who parks is not stuck -------------------------------------------------------------------------------------- */

static int waits_for_a_page(struct pc *s, const struct inm_device *device)
{
	uint8_t *view = inm_ram_view(s->e.inm, pc_guest(s, 0, TOUCHED_PAGE), PC_PAGE);

	(void)device;
	return *(volatile uint64_t *)view == wire_content_word(0, TOUCHED_PAGE, 0) ? 0 : -EILSEQ;
}

TEST_EACH(test_a_callback_that_waits_for_its_page_is_not_stuck, 2)
{
	struct pc_opts o = { .touch = { .threads = 1 }, .unanswered = true, .stuck_after = "20" };
	char text[100];

	o.device = _i ? pc_device_waits : waits_for_a_page;
	begin(&o);
	pc_reserve(&w.s, 0, 1);
	pc_switch(&w.s);
	ck_assert(pc_until(&w.s, pc_asked, PATIENCE_MS));
	/* Long enough for both who find out. */
	ck_assert_int_eq(poll(&(struct pollfd){ .fd = inm_stuck_fd(w.s.e.inm), .events = POLLIN }, 1, 300), 0);
	ck_assert_int_eq(inm_stuck_text(w.s.e.inm, text, sizeof(text)), 0);
	pc_answer(&w.s);
	pc_finish(&w.s);
	pc_check_landed(&w.s);
	pc_end(&w.s);
}

/* ---- forever ---------------------------------------------------------------------------------------------------- */

static int report = -1;

static int touch_the_guest_view(struct pc *s, const struct inm_device *device)
{
	(void)device;
	return *(volatile uint64_t *)pc_guest(s, 0, TOUCHED_PAGE) ? 0 : -EILSEQ;
}

/* The kernel touches it, and a signal does not end that wait. */
static int read_into_the_guest_view(struct pc *s, const struct inm_device *device)
{
	int fds[2];

	(void)device;
	if (pipe(fds) < 0 || write(fds[1], "x", 1) != 1)
		return -errno;
	return read(fds[0], pc_guest(s, 0, TOUCHED_PAGE), 1) == 1 ? 0 : -errno;
}

static void *tells_what_is_stuck(void *arg)
{
	struct inm *inm = arg;
	struct pollfd p = { .fd = inm_stuck_fd(inm), .events = POLLIN };
	char text[1024];
	int n = poll(&p, 1, PATIENCE_MS) == 1 ? inm_stuck_text(inm, text, sizeof(text)) : 0;

	n = n > 0 ? (int)write(report, text, (size_t)n) : 0;
	(void)n;
	return NULL;
}

static void state_changed_that_touches(void *opaque, enum inm_state state)
{
	w.before.state_changed(opaque, state);
	if (state == INM_STATE_POSTCOPY_ACTIVE)
		touch_the_guest_view(&w.s, NULL);
}

/* The log's lock is held by a callback that has parked. */
static int parks_under_the_lock(struct pc *s, const struct inm_device *device)
{
	(void)device;
	pthread_mutex_lock(&w.lock);
	return waits_for_a_page(s, NULL);
}

static void log_takes_the_lock(void *opaque, enum inm_log_level level, const char *text)
{
	(void)opaque;
	(void)level;
	(void)text;
	pthread_mutex_lock(&w.lock);
	pthread_mutex_unlock(&w.lock);
}

static _Noreturn void hang(pc_device_fn *device)
{
	struct pc_opts o = { .touch = { .threads = 1 }, .device = device, .stuck_after = "50" };

	if (device == parks_under_the_lock)
		o.log = log_takes_the_lock;
	begin(&o);
	w.before = w.s.e.inm->callbacks.ops;
	if (!device)
		w.s.e.inm->callbacks.ops.state_changed = state_changed_that_touches;
	pc_thread_start(&w.thread, tells_what_is_stuck, w.s.e.inm);
	if (device == parks_under_the_lock) {
		pc_switch(&w.s);
		pc_until(&w.s, pc_asked, PATIENCE_MS);
		pc_lose(&w.s); /* and that is logged */
	}
	pc_finish(&w.s);
	_exit(0);
}

static void hangs_and_is_named(pc_device_fn *device, const char *name, const char *words)
{
	struct pollfd pfd = { .events = POLLIN };
	char text[1024] = "";
	int fds[2], status;
	ssize_t n = 0;
	pid_t child;

	ck_assert_int_eq(pipe(fds), 0);
	pc_need();
	child = fork();
	ck_assert_int_ge(child, 0);
	if (child == 0) {
		report = fds[1];
		hang(device);
	}
	close(fds[1]);
	pfd.fd = fds[0];
	if (poll(&pfd, 1, PATIENCE_MS) > 0)
		n = read(fds[0], text, sizeof(text) - 1);
	ck_assert_int_eq(waitpid(child, &status, WNOHANG), 0); /* it hangs */
	kill(child, SIGKILL);
	ck_assert_int_eq(waitpid(child, &status, 0), child);
	close(fds[0]);
	ck_assert_int_gt(n, 0);
	ck_assert_msg(strncmp(text, name, strlen(name)) == 0, "%s", text);
	ck_assert_msg(strstr(text, words), "%s", text);
}

TEST_CASE("for_ever", 60);

TEST(test_a_callback_that_touches_the_guest_view_hangs_and_is_named)
{
	hangs_and_is_named(touch_the_guest_view, DEVICE, "block 'pc.ram' at 0x");
}

TEST(test_a_system_call_that_is_given_the_guest_view_hangs_and_is_named)
{
	hangs_and_is_named(read_into_the_guest_view, DEVICE, "inside a system call");
}

TEST(test_a_state_callback_that_touches_the_guest_view_hangs_and_is_named)
{
	hangs_and_is_named(NULL, "the callback state_changed: stuck for ", ": busy or blocked");
}

/* What inm_ram_view(3) warns of. */
TEST(test_a_log_callback_that_waits_for_a_parked_one_hangs_and_is_named)
{
	hangs_and_is_named(parks_under_the_lock, "the callback log: stuck for ", ": busy or blocked");
}

TEST_CASE("slow", 60);

/* ulimit -i 0: no timer can be had that signals. It is found out at the switch, when the source has stopped. */
TEST(test_without_a_signal_to_spare_the_guest_lands_and_who_is_slow_is_named)
{
	struct pc_opts o = { .touch = { .threads = 1 }, .device = slow_device, .stuck_after = "50" };
	struct rlimit before, none;

	ck_assert_int_eq(getrlimit(RLIMIT_SIGPENDING, &before), 0);
	none = (struct rlimit){ 0, before.rlim_max };
	ck_assert_int_eq(setrlimit(RLIMIT_SIGPENDING, &none), 0);
	begin(&o);
	pc_thread_start(&w.thread, reads_what_is_stuck, w.s.e.inm);
	pc_finish(&w.s);
	pc_thread_join(&w.thread);
	pc_check_landed(&w.s);
	ck_assert_msg(strncmp(w.text, DEVICE, strlen(DEVICE)) == 0, "%s", w.text);
	pc_end(&w.s);
	setrlimit(RLIMIT_SIGPENDING, &before); /* Check's own timer needs one */
}

/* ---- the calls --------------------------------------------------------------------------------------------------- */

TEST_CASE("calls", 20);

TEST(test_the_calls_have_an_answer_in_every_state)
{
	struct inm_ops ops = { .size = sizeof(ops), .ram_block = embedder_ops.ram_block };
	char text[4] = "abc";
	struct inm *inm;
	int fd;

	ck_assert_int_eq(inm_stuck_fd(NULL), -EINVAL);
	ck_assert_int_eq(inm_stuck_text(NULL, text, sizeof(text)), -EINVAL);
	ck_assert_int_eq(inm_new(&inm, NULL, &ops, NULL), 0);
	fd = inm_stuck_fd(inm);
	ck_assert_int_ge(fd, 0);
	ck_assert_int_eq(poll(&(struct pollfd){ .fd = fd, .events = POLLIN }, 1, 0), 0);
	ck_assert_int_eq(inm_stuck_text(inm, NULL, 4), -EINVAL);
	ck_assert_int_eq(inm_stuck_text(inm, NULL, 0), 0);
	ck_assert_int_eq(inm_stuck_text(inm, text, sizeof(text)), 0);
	ck_assert_str_eq(text, "");
	ck_assert_int_eq(inm_set_parameter(inm, "stuck-after", "0"), 0);
	inm_free(inm);
}
