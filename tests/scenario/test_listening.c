/*
 * Where a guest may come from: which connections may come in, who owns which sockets and descriptors, and what the
 * command of exec: inherits (include/inmigrate.h, inm_listen; doc/wire/channels.md).
 */
#include "tests/support/check_main.h"
#include "tests/support/high_fd.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/list.h"
#include "tests/support/postcopy_scene.h"
#include "tests/support/scene.h"
#include "tests/support/temp.h"

/* Connections that have not said what they are, at most (engine/line.h). */
#define UNKNOWN_MAX 64
#define STRANGERS 70

static const struct land_opts plain = { 0 };

/* A folder for sockets and files; removed by folder_end. */
struct folder {
	char path[TEMP_NAME_BYTES];
	char at[100]; /* path of what folder_at was asked for last */
};

static void folder_begin(struct folder *f)
{
	temp_name(f->path, "listening");
	ck_assert_ptr_nonnull(mkdtemp(f->path));
}

static const char *folder_at(struct folder *f, const char *prefix, const char *name)
{
	snprintf(f->at, sizeof(f->at), "%s%s/%s", prefix, f->path, name);
	return f->at;
}

static void folder_end(struct folder *f)
{
	ck_assert_msg(rmdir(f->path) == 0, "%s: %s", f->path, strerror(errno));
}

static bool peer_has_closed(int fd)
{
	char byte;

	return recv(fd, &byte, 1, MSG_DONTWAIT | MSG_PEEK) == 0 || (errno != EAGAIN && errno != EINTR);
}

static void dispatch_for(struct inm *inm, unsigned ms)
{
	for (uint64_t end_ns = deadline_after_ns(ms * NS_PER_MS); clock_now_ns() < end_ns; usleep(500))
		ck_assert_int_eq(inm_dispatch(inm), 1);
}

/* ---- strangers ----------------------------------------------------------------------------------------- */

TEST_CASE("listening", 60);

TEST(test_of_too_many_silent_strangers_the_oldest_go_and_the_source_gets_in)
{
	int strangers[STRANGERS];
	struct source src;
	struct scene s;

	test_need_files(2 * STRANGERS + 32);
	scene_begin(&s, &(struct honest_opts){ .return_path = true });
	land_new(&s.e, &(struct land_opts){ .return_path = true });
	ck_assert_int_eq(inm_listen(s.e.inm, "tcp:127.0.0.1:0"), 0);
	for (unsigned i = 0; i < STRANGERS; i++) {
		strangers[i] = source_connect(inm_address(s.e.inm, 0), 0);
		dispatch_for(s.e.inm, 1); /* so that their order is known */
	}
	dispatch_for(s.e.inm, 20);
	for (unsigned i = 0; i < STRANGERS; i++)
		ck_assert_msg(peer_has_closed(strangers[i]) == (i < STRANGERS - UNKNOWN_MAX), "stranger %u is %s", i,
		              peer_has_closed(strangers[i]) ? "closed" : "kept");
	source_play_uri(&src, &(struct source_plan){ .wire = &s.wire, .return_path = true }, inm_address(s.e.inm, 0));
	s.e.result = inm_run_until(s.e.inm, deadline_after_ns(5 * NS_PER_S));
	source_wait(&src, &s.report);
	scene_check_landed(&s);
	ck_assert_uint_eq(source_reply_value(&s.report, WIRE_RP_SHUT, 0), 0);
	for (unsigned i = 0; i < STRANGERS; i++) {
		ck_assert(peer_has_closed(strangers[i]));
		close(strangers[i]);
	}
	scene_end(&s);
}

/*
 * An embedder during whose callbacks somebody else connects and says that he is the source: all at once, or a part
 * of it early, so that the rest is read in the same turn in which the first migration ends.
 */
struct rival {
	struct scene s;
	int fd; /* of him; -1 before */
	size_t said_bytes;
	enum inm_state when;
	bool in_ready, begins_early;
};

static void rival_says(struct rival *v, size_t bytes)
{
	if (v->fd < 0)
		v->fd = source_connect(inm_address(v->s.e.inm, 0), 0);
	ck_assert_int_eq(write(v->fd, v->s.wire.data + v->said_bytes, bytes - v->said_bytes),
	                 (ssize_t)(bytes - v->said_bytes));
	v->said_bytes = bytes;
}

static void rival_state(void *opaque, enum inm_state state)
{
	struct rival *v = container_of(opaque, struct rival, s.e);

	embedder_ops.state_changed(opaque, state);
	if (state == INM_STATE_ACTIVE && v->begins_early)
		rival_says(v, 3);
	if (state == v->when && !v->in_ready)
		rival_says(v, 200);
}

static int rival_ready(void *opaque, const char *run_state)
{
	struct rival *v = container_of(opaque, struct rival, s.e);

	if (v->in_ready)
		rival_says(v, 200);
	return embedder_ops.ready(opaque, run_state);
}

static void rivals(struct rival v, bool return_path, const char *uri)
{
	/* A pause in the middle, so that his first bytes are read. */
	const struct source_pause pause = { 30000, 20 };
	struct inm_ops ops = embedder_ops;
	bool begins_early = v.begins_early;

	ops.state_changed = rival_state;
	ops.ready = rival_ready;
	scene_begin(&v.s, &(struct honest_opts){ .return_path = return_path });
	scene_land(&v.s, &(struct land_opts){ .return_path = return_path,
	                                      .ops = &ops,
	                                      .uri = uri,
	                                      .pauses = &pause,
	                                      .pause_count = begins_early });
	scene_check_landed(&v.s);
	ck_assert_int_ge(v.fd, 0);
	ck_assert_msg(peer_has_closed(v.fd), "the second source is still connected");
	ck_assert_uint_eq(v.s.e.stats.main_bytes, v.s.wire.len);
	ck_assert_int_eq(v.s.e.stats.state, INM_STATE_COMPLETED);
	ck_assert_uint_gt(v.s.e.stats.total_ns, 0);
	ck_assert_uint_lt(v.s.e.stats.total_ns, 10 * NS_PER_S);
	close(v.fd);
	scene_end(&v.s);
}

TEST(test_a_second_source_is_closed_whenever_it_comes)
{
	struct folder f;
	char by_unix[100];

	folder_begin(&f);
	snprintf(by_unix, sizeof(by_unix), "%s", folder_at(&f, "unix:", "rivals"));
	for (unsigned i = 0; i < 8; i++) {
		const char *uri = i & 1 ? by_unix : "tcp:127.0.0.1:0";
		bool return_path = i & 2, early = i & 4;

		rivals((struct rival){ .fd = -1, .when = INM_STATE_ACTIVE }, return_path, uri);
		rivals((struct rival){ .fd = -1, .when = INM_STATE_COMPLETED, .begins_early = early }, return_path,
		       uri);
		rivals((struct rival){ .fd = -1, .in_ready = true, .begins_early = early }, return_path, uri);
	}
	folder_end(&f);
}

/* ---- listening from a callback ------------------------------------------------------------------------- */

struct follower {
	struct scene s;
	struct inm *next; /* of the same reactor */
	const char *uri;
	int result;
};

static void follower_state(void *opaque, enum inm_state state)
{
	struct follower *f = container_of(opaque, struct follower, s.e);

	embedder_ops.state_changed(opaque, state);
	if (state == INM_STATE_ACTIVE)
		f->result = inm_listen(f->next, f->uri);
}

/* The first migration lands and another one listens from within a callback of it. */
static void listen_from_callback(const char *uri, bool works)
{
	struct inm_ops ops = embedder_ops;
	struct embedder second = { .block_count = 0 };
	struct inm_reactor *reactor;
	struct follower f = { .uri = uri };
	struct pump p;

	ops.state_changed = follower_state;
	scene_begin(&f.s, &(struct honest_opts){ 0 });
	embedder_init(&second);
	embedder_add_image(&second, &f.s.image);
	ck_assert_int_eq(inm_reactor_new(&reactor, NULL), 0);
	land_new(&second, &(struct land_opts){ .config = { .reactor = reactor } });
	f.next = second.inm;
	scene_land(&f.s, &(struct land_opts){ .ops = &ops, .config = { .reactor = reactor } });
	scene_check_landed(&f.s);
	ck_assert_msg((f.result == 0) == works, "%s: %d", uri, f.result);
	if (!works) {
		ck_assert_str_ne(inm_error(second.inm), "no error");
		ck_assert_int_eq(inm_dispatch(second.inm), -EINVAL);
		ck_assert_int_eq(land_listen_fd(&second, pump_open(&p, &f.s.wire)), 0);
	} else {
		p = (struct pump){ .wire = &f.s.wire, .stop_at = f.s.wire.len };
		p.fd = source_connect(inm_address(second.inm, 0), 0);
	}
	for (uint64_t end_ns = deadline_after_ns(5 * NS_PER_S); clock_now_ns() < end_ns;) {
		pump_step(&p);
		second.result = inm_dispatch(second.inm);
		if (second.result != 1)
			break;
	}
	ck_assert_int_eq(second.result, 0);
	ck_assert_uint_eq(embedder_compare(&second, &f.s.image), 0);
	pump_close(&p);
	embedder_fini(&second);
	inm_reactor_free(reactor);
	scene_end(&f.s);
}

TEST(test_a_listen_from_inside_a_callback_fails_or_works_like_any_other)
{
	listen_from_callback("unix:/nonexistent/folder/socket", false);
	listen_from_callback("file:/nonexistent/file", false);
	listen_from_callback("fd:9999", false);
	listen_from_callback("nonsense", false);
	listen_from_callback("tcp:127.0.0.1:0", true);
}

/* ---- unix sockets of others ---------------------------------------------------------------------------- */

/* Return: a socket that is bound at @path. */
static int bind_unix(const char *path)
{
	struct sockaddr_un sun = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	snprintf(sun.sun_path, sizeof(sun.sun_path), "%s", path);
	ck_assert_int_eq(bind(fd, (struct sockaddr *)&sun, sizeof(sun)), 0);
	return fd;
}

TEST(test_a_unix_socket_that_somebody_listens_at_is_left_alone)
{
	struct embedder other;
	struct folder f;
	struct scene s;
	int fd;

	folder_begin(&f);
	scene_begin(&s, NULL);
	embedder_init(&other);
	land_new(&s.e, &plain);
	land_new(&other, &plain);
	ck_assert_int_eq(inm_listen(s.e.inm, folder_at(&f, "unix:", "socket")), 0);
	ck_assert_int_eq(inm_listen(other.inm, f.at), -EADDRINUSE);
	ck_assert_ptr_nonnull(strstr(inm_error(other.inm), "socket"));
	embedder_fini(&other);
	fd = source_connect(inm_address(s.e.inm, 0), 0); /* it is still there, and still the first one's */
	dispatch_for(s.e.inm, 5);
	ck_assert(!peer_has_closed(fd));
	close(fd);
	scene_end(&s);
	ck_assert_int_eq(access(folder_at(&f, "", "socket"), F_OK), -1);
	folder_end(&f);
}

TEST(test_a_stale_unix_socket_is_replaced_and_anything_else_is_not)
{
	struct folder f;
	struct scene s;
	int fd;

	folder_begin(&f);
	scene_begin(&s, NULL);
	close(bind_unix(folder_at(&f, "", "socket")));
	land_new(&s.e, &plain);
	ck_assert_int_eq(inm_listen(s.e.inm, folder_at(&f, "unix:", "socket")), 0);
	inm_free(s.e.inm);
	s.e.inm = NULL;
	ck_assert_int_eq(access(folder_at(&f, "", "socket"), F_OK), -1);

	fd = open(folder_at(&f, "", "file"), O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
	ck_assert_int_eq(write(fd, "precious", 8), 8);
	close(fd);
	land_new(&s.e, &plain);
	ck_assert_int_eq(inm_listen(s.e.inm, folder_at(&f, "unix:", "file")), -EADDRINUSE);
	ck_assert_int_eq(unlink(folder_at(&f, "", "file")), 0);
	scene_end(&s);
	folder_end(&f);
}

TEST(test_at_the_end_a_unix_socket_of_somebody_else_stays)
{
	struct folder f;
	struct scene s;
	int fd;

	folder_begin(&f);
	scene_begin(&s, NULL);
	land_new(&s.e, &plain);
	ck_assert_int_eq(inm_listen(s.e.inm, folder_at(&f, "unix:", "socket")), 0);
	ck_assert_int_eq(unlink(folder_at(&f, "", "socket")), 0);
	fd = bind_unix(f.at);
	inm_free(s.e.inm);
	s.e.inm = NULL;
	ck_assert_int_eq(access(f.at, F_OK), 0);
	ck_assert_int_eq(unlink(f.at), 0);
	close(fd);
	scene_end(&s);
	folder_end(&f);
}

/* ---- descriptors --------------------------------------------------------------------------------------- */

static bool is_open(int fd)
{
	return fcntl(fd, F_GETFD) >= 0;
}

TEST(test_a_descriptor_is_taken_also_when_the_call_fails)
{
	struct scene s;
	struct pump p;
	int first, fd;

	scene_begin(&s, &(struct honest_opts){ 0 });
	land_new(&s.e, &plain);
	ck_assert_int_eq(inm_set_capability(s.e.inm, "switchover-ack", true), 0); /* which needs return-path */
	fd = pump_open(&p, &s.wire);
	ck_assert_int_eq(land_listen_fd(&s.e, fd), -EINVAL);
	ck_assert(!is_open(fd));
	pump_close(&p);

	ck_assert_int_eq(inm_set_capability(s.e.inm, "switchover-ack", false), 0);
	first = pump_open(&p, &s.wire);
	ck_assert_int_eq(land_listen_fd(&s.e, first), 0);
	fd = dup(first);
	ck_assert_int_eq(land_listen_fd(&s.e, fd), -EBUSY);
	ck_assert(!is_open(fd));
	ck_assert(is_open(first));
	pump_close(&p);
	scene_end(&s);
}

/* At once: later, the source would be waiting, with its guest stopped. The command of exec: is not even started. */
TEST_EACH(test_what_needs_more_connections_is_refused_on_a_single_one, 6)
{
	static const char *const uris[] = { "fd", "exec:exit 0", "file:/dev/null" };
	const char *cap = _i % 2 ? "postcopy-preempt" : "multifd", *uri = uris[_i / 2];
	struct scene s;
	struct pump p;
	int fd = -1, r;

	pc_need();
	scene_begin(&s, &(struct honest_opts){ 0 });
	land_new(&s.e, &plain);
	ck_assert_int_eq(inm_set_capability(s.e.inm, "postcopy-ram", true), 0);
	ck_assert_int_eq(inm_set_capability(s.e.inm, cap, true), 0);
	if (uri[1] == 'd') {
		fd = pump_open(&p, &s.wire);
		r = land_listen_fd(&s.e, fd);
		ck_assert(!is_open(fd));
		pump_close(&p);
	} else {
		r = inm_listen(s.e.inm, uri);
	}
	ck_assert_int_eq(r, -EINVAL);
	ck_assert_msg(strstr(inm_error(s.e.inm), cap) && strstr(inm_error(s.e.inm), "single connection"), "%s",
	              inm_error(s.e.inm));
	ck_assert_int_eq(waitpid(-1, NULL, WNOHANG), -1);
	scene_end(&s);
}

TEST(test_a_descriptor_is_not_inherited)
{
	struct scene s;
	struct pump p;
	int fd;

	scene_begin(&s, &(struct honest_opts){ 0 });
	land_new(&s.e, &plain);
	fd = pump_open(&p, &s.wire);
	ck_assert_int_eq(fcntl(fd, F_SETFD, 0), 0);
	ck_assert_int_eq(land_listen_fd(&s.e, fd), 0);
	ck_assert_int_eq(fcntl(fd, F_GETFD) & FD_CLOEXEC, FD_CLOEXEC);
	pump_close(&p);
	scene_end(&s);
}

TEST(test_a_file_descriptor_is_read_from_where_it_stands)
{
	struct scene s;
	int fd;

	scene_begin(&s, &(struct honest_opts){ 0 });
	fd = memfd_create("stream", MFD_CLOEXEC);
	ck_assert_int_eq(pwrite(fd, s.wire.data, s.wire.len, 4099), (ssize_t)s.wire.len);
	ck_assert_int_eq(lseek(fd, 4099, SEEK_SET), 4099);
	land_new(&s.e, &plain);
	ck_assert_int_eq(land_listen_fd(&s.e, fd), 0);
	s.e.result = inm_run_until(s.e.inm, deadline_after_ns(5 * NS_PER_S));
	scene_check_landed(&s);
	scene_end(&s);
}

TEST(test_a_fifo_is_refused_by_name_and_not_waited_for)
{
	struct folder f;
	struct scene s;

	folder_begin(&f);
	scene_begin(&s, NULL);
	ck_assert_int_eq(mkfifo(folder_at(&f, "", "fifo"), 0600), 0);
	land_new(&s.e, &plain);
	ck_assert_int_eq(inm_listen(s.e.inm, folder_at(&f, "file:", "fifo")), -EINVAL);
	ck_assert_msg(strstr(inm_error(s.e.inm), "a FIFO; 'exec:cat FILE' reads one"), "%s", inm_error(s.e.inm));
	unlink(folder_at(&f, "", "fifo"));
	scene_end(&s);
	folder_end(&f);
}

/* ---- exec: --------------------------------------------------------------------------------------------- */

/* The word after @key in @text; "" if there is none. */
static const char *value_of(const char *text, const char *key, char buf[static 100])
{
	const char *at = strstr(text, key);

	buf[0] = 0;
	if (at)
		sscanf(at + strlen(key), " %99s", buf);
	return buf;
}

/* The C library keeps two realtime signals to itself: what can be ignored is all below them. */
#define ORDINARY_SIGNALS 0x7fffffffull

TEST(test_the_command_of_exec_inherits_no_signals_and_no_input_and_is_reaped)
{
	char said[8192] = "", value[100], command[300];
	struct sigaction ignore = { .sa_handler = SIG_IGN }, old_pipe, old_int;
	sigset_t usr1, old_mask;
	int input[2], old_stdin = high_fd(STDIN_FILENO, 100);
	struct folder f;
	struct scene s;
	FILE *file;

	folder_begin(&f);
	ck_assert_int_eq(pipe2(input, O_CLOEXEC), 0);
	ck_assert_int_eq(dup2(input[0], STDIN_FILENO), STDIN_FILENO);
	scene_begin(&s, &(struct honest_opts){ 0 });
	file = fopen(folder_at(&f, "", "stream"), "we");
	ck_assert_uint_eq(fwrite(s.wire.data, 1, s.wire.len, file), s.wire.len);
	fclose(file);
	sigaction(SIGPIPE, &ignore, &old_pipe);
	sigaction(SIGINT, &ignore, &old_int);
	sigemptyset(&usr1);
	sigaddset(&usr1, SIGUSR1);
	sigprocmask(SIG_BLOCK, &usr1, &old_mask);
	land_new(&s.e, &plain);
	snprintf(command, sizeof(command),
	         "exec:cd '%s'; cat /proc/self/status >said; echo Stdin: $(readlink /proc/self/fd/0) >>said; "
	         "exec cat stream",
	         f.path);
	ck_assert_int_eq(inm_listen(s.e.inm, command), 0);
	s.e.result = inm_run_until(s.e.inm, deadline_after_ns(10 * NS_PER_S));
	scene_check_landed(&s);
	sigprocmask(SIG_SETMASK, &old_mask, NULL);
	sigaction(SIGPIPE, &old_pipe, NULL);
	sigaction(SIGINT, &old_int, NULL);
	ck_assert_int_eq(waitpid(-1, NULL, WNOHANG), -1);
	ck_assert_int_eq(errno, ECHILD);

	file = fopen(folder_at(&f, "", "said"), "re");
	ck_assert_uint_gt(fread(said, 1, sizeof(said) - 1, file), 100);
	fclose(file);
	ck_assert_uint_eq(strtoull(value_of(said, "SigIgn:", value), NULL, 16) & ORDINARY_SIGNALS, 0);
	ck_assert_uint_eq(strtoull(value_of(said, "SigBlk:", value), NULL, 16), 0);
	ck_assert_str_eq(value_of(said, "Stdin:", value), "/dev/null");
	unlink(f.at);
	unlink(folder_at(&f, "", "stream"));
	scene_end(&s);
	dup2(old_stdin, STDIN_FILENO);
	close(old_stdin);
	close(input[0]);
	close(input[1]);
	folder_end(&f);
}

TEST(test_the_command_of_exec_ends_with_the_migration)
{
	struct scene s;

	scene_begin(&s, NULL);
	land_new(&s.e, &plain);
	ck_assert_int_eq(inm_listen(s.e.inm, "exec:sleep 1000 | sleep 1001"), 0);
	dispatch_for(s.e.inm, 20);
	inm_free(s.e.inm);
	s.e.inm = NULL;
	ck_assert_int_eq(waitpid(-1, NULL, WNOHANG), -1);
	ck_assert_int_eq(errno, ECHILD);
	scene_end(&s);
}
