/*
 * What a migration changes in the process around it: nothing but a handler for SIGBUS, in postcopy; and what may be
 * called in a handler of the embedder's (inmigrate(3), "Threads" and "The process").
 */
#include "tests/support/check_main.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/clock.h"
#include "tests/support/postcopy_scene.h"
#include "tests/support/temp.h"

/* ---- what the process has ------------------------------------------------------------------------------------- */

struct process {
	struct sigaction acts[NSIG];
	sigset_t mask;
	unsigned threads; /* without those of the kernel */
};

static unsigned count_threads(void)
{
	DIR *dir = opendir("/proc/self/task");
	struct dirent *entry;
	unsigned count = 0;

	while ((entry = readdir(dir))) {
		char path[300], name[32] = "";
		FILE *f;

		snprintf(path, sizeof(path), "/proc/self/task/%s/comm", entry->d_name);
		f = entry->d_name[0] == '.' ? NULL : fopen(path, "r");
		if (!f)
			continue;
		count += fgets(name, sizeof(name), f) && strncmp(name, "iou-", 4) != 0;
		fclose(f);
	}
	closedir(dir);
	return count;
}

static void look_at(struct process *p)
{
	memset(p, 0, sizeof(*p));
	for (int sig = 1; sig < NSIG; sig++)
		sigaction(sig, NULL, &p->acts[sig]);
	sigemptyset(&p->mask);
	pthread_sigmask(SIG_BLOCK, NULL, &p->mask);
	p->threads = count_threads();
}

static bool same_act(const struct sigaction *a, const struct sigaction *b)
{
	const int restorer = 0x04000000; /* the C library's, with whatever it sets */

	return a->sa_handler == b->sa_handler && (a->sa_flags | restorer) == (b->sa_flags | restorer);
}

/* @but: a signal that may have another handler, and be blocked or not. */
static void check_same(const struct process *was, const struct process *is, int but)
{
	for (int sig = 1; sig < NSIG; sig++) {
		if (sig == but)
			continue;
		ck_assert_msg(same_act(&was->acts[sig], &is->acts[sig]), "signal %d has another handler", sig);
		ck_assert_msg(sigismember(&was->mask, sig) == sigismember(&is->mask, sig), "signal %d is %sblocked",
		              sig, sigismember(&is->mask, sig) ? "" : "not ");
	}
#ifndef __SANITIZE_THREAD__ /* which has one of its own */
	ck_assert_uint_eq(was->threads, is->threads);
#endif
}

static struct process before, in_ready;
static bool inherited[1024]; /* those that were there before, as they were */
static unsigned looks;

/* Nobody that the embedder starts inherits what is ours. */
static void check_descriptors(void)
{
	DIR *dir = opendir("/proc/self/fd");
	struct dirent *entry;

	while ((entry = readdir(dir))) {
		int fd = atoi(entry->d_name);

		if (fd > 2 && !(fcntl(fd, F_GETFD) & FD_CLOEXEC) && !inherited[fd % 1024])
			ck_abort_msg("descriptor %d is inherited", fd);
	}
	closedir(dir);
}

static int look_in_ready(void *opaque, const char *run_state)
{
	look_at(&in_ready);
	check_descriptors();
#ifdef __SANITIZE_THREAD__
	in_ready.mask = before.mask; /* under it, coroutines run with signals blocked: coroutine/co.c */
#endif
	looks++;
	return embedder_ops.ready(opaque, run_state);
}

/* Standard output and error go to a file for the while. Return: what was written to them. */
struct streams {
	int file, out, err;
};

static void streams_catch(struct streams *st)
{
	fflush(NULL);
	st->file = memfd_create("streams", MFD_CLOEXEC);
	st->out = fcntl(1, F_DUPFD_CLOEXEC, 10);
	st->err = fcntl(2, F_DUPFD_CLOEXEC, 10);
	dup2(st->file, 1);
	dup2(st->file, 2);
}

static off_t streams_give_back(struct streams *st)
{
	off_t written;

	fflush(NULL);
	written = lseek(st->file, 0, SEEK_CUR);
	dup2(st->out, 1);
	dup2(st->err, 2);
	close(st->out);
	close(st->err);
	close(st->file);
	return written;
}

TEST_CASE("process", 60);

TEST_EACH(test_a_precopy_migration_changes_nothing_in_its_process_and_prints_nothing, 2)
{
	struct inm_ops ops = embedder_ops;
	struct process after;
	struct streams st;
	struct scene s;
	off_t written;

	looks = 0;
	for (int fd = 3; fd < 1024; fd++)
		inherited[fd] = fcntl(fd, F_GETFD) == 0;
	ops.ready = look_in_ready;
	scene_begin(&s, &(struct honest_opts){ .return_path = true });
	s.wire.data[_i ? 0 : s.wire.len - 1] ^= _i ? 0xff : 0; /* one that fails, too */
	look_at(&before);
	streams_catch(&st);
	scene_land(&s, &(struct land_opts){ .ops = &ops, .return_path = true, .config.log_level = INM_LOG_DEBUG });
	written = streams_give_back(&st);
	look_at(&after);
	ck_assert_int_eq(written, 0);
	ck_assert_uint_eq(looks, _i ? 0 : 1);
	if (looks)
		check_same(&before, &in_ready, 0);
	/* The source was a thread of the test's. */
	after.threads = before.threads;
	check_same(&before, &after, 0);
	scene_end(&s);
}

/* ---- SIGBUS, in postcopy -------------------------------------------------------------------------------------- */

static void on_sigbus(int sig)
{
	(void)sig;
}

static void land_all(struct pc *s)
{
	pc_answer(s);
	pc_push(s);
	pc_run(s, 5000);
	pc_check_landed(s);
}

TEST_CASE("postcopy", 60, .checked = { .setup = pc_need });

/* With a handler of the embedder's, and blocked, before; each in turn. */
TEST_EACH(test_in_postcopy_only_sigbus_is_handled_and_all_is_as_before_at_the_end, 8)
{
	struct sigaction own = { .sa_handler = on_sigbus, .sa_flags = SA_RESTART };
	struct process now;
	sigset_t set;
	struct pc s;

	if (_i & 1)
		ck_assert_int_eq(sigaction(SIGBUS, &own, NULL), 0);
	sigemptyset(&set);
	sigaddset(&set, SIGBUS);
	if (_i & 2)
		pthread_sigmask(SIG_BLOCK, &set, NULL);
	look_at(&before);
	pc_begin(&s, &(struct pc_opts){ .quiet = true, .unanswered = true, .device = pc_device_waits });
	pc_precopy(&s);
	look_at(&now);
	check_same(&before, &now, 0);

	pc_switch(&s);
	ck_assert(pc_until(&s, pc_asked, 5000));
	look_at(&now);
	check_same(&before, &now, SIGBUS);
	ck_assert(!same_act(&before.acts[SIGBUS], &now.acts[SIGBUS]));
#ifndef __SANITIZE_THREAD__ /* under which coroutines have a mask of their own */
	ck_assert(!sigismember(&now.mask, SIGBUS));
#endif

	if (_i & 4) {
		pc_give_up(&s);
	} else {
		land_all(&s);
		look_at(&now);
		check_same(&before, &now, 0);
		pc_free(&s);
		pc_end(&s);
	}
	look_at(&now);
	check_same(&before, &now, 0);
}

/* ---- in a handler of the embedder's --------------------------------------------------------------------------- */

static struct inm *signalled;
static volatile sig_atomic_t signals;

static void on_alarm(int sig)
{
	int saved = errno;

	(void)sig;
	errno = 4711;
	if (inm_get_state(signalled) == INM_STATE_NONE || inm_pause(signalled) == 0 ||
	    !inm_state_name(inm_get_state(signalled))[0] || !inm_version()[0] || inm_stuck_fd(signalled) < 0)
		_exit(99);
	if (errno == 4711)
		signals++;
	errno = saved;
}

TEST_CASE("process", 60);

/* All that may be called there but inm_cancel, in a storm of signals; see test_cancel for that one. */
TEST(test_what_a_signal_handler_may_call_disturbs_nothing)
{
	const struct itimerval often = { { 0, 200 }, { 0, 200 } }, never = { { 0, 0 }, { 0, 0 } };
	struct sigaction act = { .sa_handler = on_alarm, .sa_flags = SA_RESTART };
	uint64_t end_ns = deadline_after_ns(10 * NS_PER_S);
	struct scene s;
	struct pump p;
	int r;

	scene_begin(&s, &(struct honest_opts){ .return_path = true });
	land_new(&s.e, &(struct land_opts){ .return_path = true });
	ck_assert_int_eq(land_listen_fd(&s.e, pump_open(&p, &s.wire)), 0);
	p.return_path = true;
	signals = 0;
	signalled = s.e.inm;
	ck_assert_int_eq(sigaction(SIGALRM, &act, NULL), 0);
	setitimer(ITIMER_REAL, &often, NULL);
	while (((r = inm_dispatch(s.e.inm)) == 1 || signals < 50) && clock_now_ns() < end_ns)
		pump_step(&p);
	setitimer(ITIMER_REAL, &never, NULL);
	ck_assert_int_eq(r, 0);
	ck_assert_int_ge(signals, 50);
	ck_assert_uint_eq(embedder_compare(&s.e, &s.image), 0);
	pump_close(&p);
	scene_end(&s);
}

/* ---- a child of the embedder's -------------------------------------------------------------------------------- */

static volatile sig_atomic_t children;

static void on_child(int sig)
{
	(void)sig;
	children++;
}

static void reap_all(int sig)
{
	int saved = errno;

	(void)sig;
	while (waitpid(-1, NULL, WNOHANG) > 0)
		;
	errno = saved;
}

/* The command of exec: is a child of the process, and SIGCHLD comes; the library neither handles nor needs it. */
TEST_EACH(test_the_command_of_exec_lands_whatever_the_embedder_does_with_its_children, 5)
{
	void (*const handlers[])(int sig) = { SIG_DFL, SIG_IGN, on_child, SIG_DFL, reap_all };
	struct sigaction act = { .sa_handler = handlers[_i], .sa_flags = SA_RESTART | (_i == 3 ? SA_NOCLDWAIT : 0) };
	char path[TEMP_NAME_BYTES], uri[100];
	struct scene s;
	int fd, r;

	children = 0;
	scene_begin(&s, &(struct honest_opts){ 0 });
	temp_name(path, "test");
	fd = mkstemp(path);
	ck_assert_int_eq(write(fd, s.wire.data, s.wire.len), (ssize_t)s.wire.len);
	close(fd);
	snprintf(uri, sizeof(uri), "exec:cat '%s'", path);
	ck_assert_int_eq(sigaction(SIGCHLD, &act, NULL), 0);
	land_new(&s.e, &(struct land_opts){ 0 });
	ck_assert_int_eq(inm_listen(s.e.inm, uri), 0);
	r = inm_run_until(s.e.inm, deadline_after_ns(20 * NS_PER_S));
	ck_assert_msg(r == 0, "%d: %s", r, inm_error(s.e.inm));
	ck_assert_int_eq(children, _i == 2 ? 1 : 0);
	unlink(path);
	scene_end(&s);
}
