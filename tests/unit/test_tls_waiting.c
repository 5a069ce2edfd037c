/* Deadlines and cancels on a channel inside TLS lose nothing: engine/channel/tls/tls.h */
#include "base/clock.h"
#include "tests/support/tls_scene.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#if HAVE_GNUTLS

/* ---- waiting ---------------------------------------------------------------------------------------------------- */

static void act_on_request(struct tls_peer *p)
{
	char c;

	for (uint64_t i = 0; i < 3; i++) {
		MUST_BE_ZERO(tls_peer_recv(p, &c, 1));
		tls_peer_send_pattern(p, i * 20000, 20000);
	}
	tls_peer_until_closed(p);
}

/* A deadline that passes, in the middle of a record, too, costs nothing. */
static void body_deadlines(struct chan *ch)
{
	struct iovec iov = { (char[1]){ 0 }, 1 };

	for (uint64_t i = 0; i < 3; i++) {
		ck_assert_int_eq(chan_readv(ch, &iov, 1, deadline_after_ns(20 * NS_PER_MS), &tls.err), -ETIMEDOUT);
		ck_assert_int_eq(tls.err.code, -ETIMEDOUT);
		ck_assert_int_eq(chan_write_all(ch, "x", 1, tls.deadline_ns, &tls.err), 0);
		tls_scene_reads_pattern(ch, i * 20000, 20000);
	}
}

TEST_CASE("waiting", 60, TLS_SCENE);

TEST(test_tls_read_goes_on_after_its_deadline)
{
	tls.plan.act = act_on_request;
	tls.body = body_deadlines;
	tls_scene_works();
}

static void body_cancelled(struct chan *ch)
{
	struct iovec iov = { (char[1]){ 0 }, 1 };

	for (uint64_t i = 0; i < 3; i++) {
		co_cancel(tls.reactor->sched.current);
		ck_assert_int_eq(chan_readv(ch, &iov, 1, tls.deadline_ns, &tls.err), -ECANCELED);
		ck_assert_str_eq(tls.err.text, "");
		ck_assert_int_eq(chan_write_all(ch, "x", 1, tls.deadline_ns, &tls.err), 0);
		tls_scene_reads_pattern(ch, i * 20000, 20000);
	}
}

TEST(test_tls_read_goes_on_after_a_cancel)
{
	tls.plan.act = act_on_request;
	tls.body = body_cancelled;
	tls_scene_works();
}

/* Every record in two parts with a pause between them. */
static ssize_t push_in_two_parts(gnutls_transport_ptr_t ptr, const void *buf, size_t bytes)
{
	struct tls_peer *p = ptr;

	tls_peer_send_raw(p, buf, bytes / 2);
	usleep(30000);
	tls_peer_send_raw(p, (const char *)buf + bytes / 2, bytes - bytes / 2);
	return (ssize_t)bytes;
}

static void act_records_in_two_parts(struct tls_peer *p)
{
	gnutls_transport_set_push_function(p->session, push_in_two_parts);
	tls_peer_send_pattern(p, 0, 100000);
}

static void body_short_deadlines(struct chan *ch)
{
	uint8_t *got = malloc(100000), *want = malloc(100000);
	size_t bytes = 0;
	unsigned expired = 0;

	while (bytes < 100000) {
		struct iovec iov = { got + bytes, 100000 - bytes };
		ssize_t n = chan_readv(ch, &iov, 1, deadline_after_ns(5 * NS_PER_MS), &tls.err);

		expired += n == -ETIMEDOUT;
		ck_assert(n > 0 || n == -ETIMEDOUT);
		bytes += n > 0 ? (size_t)n : 0;
	}
	ck_assert_uint_gt(expired, 0);
	tls_pattern(want, 0, 100000);
	ck_assert_int_eq(memcmp(got, want, 100000), 0);
	free(got);
	free(want);
}

TEST(test_tls_deadlines_inside_records_lose_nothing)
{
	tls.plan.act = act_records_in_two_parts;
	tls.body = body_short_deadlines;
	tls_scene_works();
}

static void act_read_nothing(struct tls_peer *p)
{
	char c;

	sleep(1);
	while (recv(p->fd, &c, 1, 0) > 0)
		;
}

static void body_write_into_a_wall(struct chan *ch)
{
	char *big = calloc(1, 8 << 20);

	ck_assert_int_eq(chan_write_all(ch, big, 8 << 20, deadline_after_ns(100 * NS_PER_MS), &tls.err), -ETIMEDOUT);
	ck_assert_int_eq(chan_write_all(ch, "x", 1, tls.deadline_ns, &tls.err), -EPIPE);
	tls_scene_says("an earlier write ended half way");
	free(big);
}

TEST(test_tls_write_that_ended_half_way_is_not_followed_by_another)
{
	tls.plan.act = act_read_nothing;
	tls.body = body_write_into_a_wall;
	tls_scene_works();
}

#endif
