/*
 * The keepalive options of an address apply to the connections that come there; the parameters supply what it does not
 * say (doc/wire/channels.md 7.1; tcp(7)).
 */
#include "tests/support/check_main.h"

#include <dirent.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/clock.h"
#include "tests/support/recovery_scene.h"
#include "tests/support/scene.h"

/* What the kernel keeps of a connection. */
struct kept {
	int on, idle_s, interval_s, count, user_timeout_ms;
};

static int number(int fd, int level, int name)
{
	int value = -1;
	socklen_t bytes = sizeof(value);

	ck_assert_int_eq(getsockopt(fd, level, name, &value, &bytes), 0);
	return value;
}

static void check_kept(int fd, const struct kept *want, const char *uri)
{
	struct kept is = { .on = number(fd, SOL_SOCKET, SO_KEEPALIVE),
		           .idle_s = number(fd, IPPROTO_TCP, TCP_KEEPIDLE),
		           .interval_s = number(fd, IPPROTO_TCP, TCP_KEEPINTVL),
		           .count = number(fd, IPPROTO_TCP, TCP_KEEPCNT),
		           .user_timeout_ms = number(fd, IPPROTO_TCP, TCP_USER_TIMEOUT) };

	ck_assert_msg(is.on == want->on && is.idle_s == want->idle_s && is.interval_s == want->interval_s &&
	                      is.count == want->count && is.user_timeout_ms == want->user_timeout_ms,
	              "%s: on %d idle %d interval %d count %d timeout %d", uri, is.on, is.idle_s, is.interval_s,
	              is.count, is.user_timeout_ms);
}

/* The other end of @fd, in this process; -1: nobody has accepted it. */
static int other_end(int fd)
{
	struct sockaddr_storage own = { 0 }, peer;
	socklen_t own_bytes = sizeof(own);
	DIR *dir = opendir("/proc/self/fd");
	struct dirent *entry;
	int found = -1;

	ck_assert_int_eq(getsockname(fd, (struct sockaddr *)&own, &own_bytes), 0);
	while (found < 0 && (entry = readdir(dir))) {
		socklen_t peer_bytes = sizeof(peer);
		int other = atoi(entry->d_name);

		memset(&peer, 0, sizeof(peer));
		if (getpeername(other, (struct sockaddr *)&peer, &peer_bytes) == 0 && peer_bytes == own_bytes &&
		    memcmp(&peer, &own, own_bytes) == 0)
			found = other;
	}
	closedir(dir);
	return found;
}

/* ---- inm_listen ------------------------------------------------------------------------------------------------ */

static const char *const defaults[] = { NULL };
static const char *const own[] = {
	"keepalive-idle", "7", "keepalive-interval", "3", "keepalive-count", "4", "tcp-user-timeout", "12345", NULL
};
static const char *const off[] = { "keepalive-idle", "0", "tcp-user-timeout", "0", NULL };

static const struct {
	const char *options;
	const char *const *params;
	struct kept kept; /* idle_s -1: the kernel's own */
} rows[] = {
	{ "", defaults, { 1, 10, 5, 6, 40000 } },
	{ "", own, { 1, 7, 3, 4, 12345 } },
	{ ",keep-alive=off", own, { 0, 7, 3, 4, 12345 } },
	{ ",keep-alive=off,keep-alive-count=9", own, { 0, 7, 3, 9, 12345 } },
	{ ",keep-alive", own, { 1, 7, 3, 4, 12345 } },
	{ ",keep-alive=on,keep-alive-count=20", own, { 1, 7, 3, 20, 67000 } },
	{ ",keep-alive-idle=100", own, { 1, 100, 3, 4, 112000 } },
	{ ",keep-alive=on,keep-alive-interval=1", defaults, { 1, 10, 1, 6, 16000 } },
	{ ",keep-alive=on,keep-alive-count=2,keep-alive-idle=3,keep-alive-interval=4",
	  defaults,
	  { 1, 3, 4, 2, 11000 } },
	{ "", off, { 0, -1, 5, 6, 0 } },
	{ ",keep-alive=on", off, { 1, -1, 5, 6, 0 } },
	{ ",keep-alive-idle=30", off, { 1, 30, 5, 6, 0 } },
	{ ",ipv4,numeric,keep-alive-count=2", defaults, { 1, 10, 5, 2, 20000 } },
};

static int kernel_idle_s(void)
{
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), value = number(fd, IPPROTO_TCP, TCP_KEEPIDLE);

	close(fd);
	return value;
}

TEST_CASE("keepalive", 60);

TEST_ROWS(test_what_the_address_says_of_keepalive_comes_before_the_parameters, rows)
{
	struct kept want = rows[_i].kept;
	uint64_t end_ns = deadline_after_ns(5 * NS_PER_S);
	char uri[200];
	struct scene s;
	int far, near;

	if (want.idle_s < 0)
		want.idle_s = kernel_idle_s();
	scene_begin(&s, NULL);
	land_new(&s.e, &(struct land_opts){ .params = rows[_i].params });
	snprintf(uri, sizeof(uri), "tcp:127.0.0.1:0%s", rows[_i].options);
	ck_assert_int_eq(inm_listen(s.e.inm, uri), 0);
	far = source_connect(inm_address(s.e.inm, 0), 0);
	while ((near = other_end(far)) < 0 && clock_now_ns() < end_ns)
		ck_assert_int_eq(inm_dispatch(s.e.inm), 1);
	ck_assert_int_ge(near, 0);
	/* It is set when the coroutine that accepts has had its turn. */
	ck_assert_int_eq(inm_run_until(s.e.inm, clock_now_ns() + NS_PER_MS), -ETIMEDOUT);
	check_kept(near, &want, uri);
	close(far);
	scene_end(&s);
}

/* A connection that the embedder has made itself. */
TEST(test_a_tcp_connection_by_descriptor_gets_keepalive_too)
{
	const struct kept want = { 1, 7, 3, 4, 12345 };
	struct sockaddr_in sin = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	socklen_t len = sizeof(sin);
	int listener, near, far, copy;
	struct scene s;

	scene_begin(&s, NULL);
	listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	ck_assert_int_eq(bind(listener, (struct sockaddr *)&sin, len), 0);
	ck_assert_int_eq(listen(listener, 1), 0);
	ck_assert_int_eq(getsockname(listener, (struct sockaddr *)&sin, &len), 0);
	far = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	ck_assert_int_eq(connect(far, (struct sockaddr *)&sin, len), 0);
	near = accept(listener, NULL, NULL);
	copy = dup(near);
	ck_assert_int_eq(number(copy, SOL_SOCKET, SO_KEEPALIVE), 0);
	land_new(&s.e, &(struct land_opts){ .params = own });
	ck_assert_int_eq(land_listen_fd(&s.e, near), 0);
	check_kept(copy, &want, "by descriptor");
	ck_assert_int_eq(number(copy, IPPROTO_TCP, TCP_NODELAY), 1);
	close(copy);
	close(far);
	close(listener);
	scene_end(&s);
}

/* ---- inm_recover ----------------------------------------------------------------------------------------------- */

static const struct pc_block blocks[] = { { "pc.ram", 64, EMB_MEMFD }, { "vga.vram", 16, EMB_MEMFD } };

TEST(test_the_address_of_inm_recover_has_its_own)
{
	static const char uri[] = "tcp:127.0.0.1:0,keep-alive-count=2,keep-alive-idle=3,keep-alive-interval=4";
	const struct kept want = { 1, 3, 4, 2, 11000 };
	struct pc_opts o;
	uint64_t end_ns = deadline_after_ns(5 * NS_PER_S);
	int far, near;
	struct rec r;

	o = rec_story(blocks, REC_NO_PREEMPT);
	rec_begin_paused(&r, &o);
	ck_assert_int_eq(inm_recover(r.s.e.inm, uri), 0);
	far = source_connect(inm_address(r.s.e.inm, 0), 0);
	while ((near = other_end(far)) < 0 && clock_now_ns() < end_ns)
		ck_assert_int_eq(inm_dispatch(r.s.e.inm), 1);
	ck_assert_int_ge(near, 0);
	ck_assert_int_eq(inm_run_until(r.s.e.inm, clock_now_ns() + NS_PER_MS), -ETIMEDOUT);
	check_kept(near, &want, uri);
	close(far);
	rec_give_up(&r);
}
