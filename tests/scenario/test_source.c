/* The scripted source and the census do what they say: a test that uses them cannot pass because the source failed. */
#include "tests/support/check_main.h"

#include <errno.h>
#include <netinet/in.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/be.h"
#include "tests/support/census.h"
#include "tests/support/source.h"

/* Read to the end or @max. Return: bytes read, or negative errno. */
static ssize_t drain(int fd, uint8_t *buf, size_t max)
{
	size_t at = 0;

	while (at < max) {
		ssize_t n = read(fd, buf + at, max - at);

		if (n < 0)
			return -errno;
		if (n == 0)
			break;
		at += (size_t)n;
	}
	return (ssize_t)at;
}

static void arrives(const struct source_plan *how, enum source_kind kind, size_t expected)
{
	static uint8_t buf[1 << 20];
	struct source_plan plan = *how;
	struct source_report report;
	struct census before;
	struct wire w = { 0 };
	struct source src;
	int fd;

	census_take(&before);
	wire_honest(&w, &(struct honest_opts){ .return_path = plan.return_path }, NULL);
	plan.wire = &w;
	fd = source_play_pair(&src, &plan, kind);
	ck_assert_int_eq(drain(fd, buf, sizeof(buf)), (ssize_t)(expected ? expected : w.len));
	ck_assert_int_eq(memcmp(buf, w.data, expected ? expected : w.len), 0);
	close(fd);
	source_wait(&src, &report);
	ck_assert_uint_eq(report.written, expected ? expected : w.len);
	ck_assert_int_eq(report.write_errno, 0);
	wire_fini(&w);
	ck_assert_uint_eq(census_differs(&before), 0);
	census_free(&before);
}

TEST_CASE("source", 60);

TEST(test_a_played_stream_arrives_byte_for_byte)
{
	const struct source_pause pauses[] = { { 0, 5 }, { 100, 5 }, { 5000, 5 } };

	arrives(&(struct source_plan){ 0 }, SOURCE_SOCKETPAIR, 0);
	arrives(&(struct source_plan){ 0 }, SOURCE_PIPE, 0);
	arrives(&(struct source_plan){ .chunk_bytes = 1 }, SOURCE_SOCKETPAIR, 0);
	arrives(&(struct source_plan){ .chunk_bytes = 4097 }, SOURCE_PIPE, 0);
	arrives(&(struct source_plan){ .pauses = pauses, .pause_count = 3 }, SOURCE_SOCKETPAIR, 0);
	arrives(&(struct source_plan){ .stop_at = 777 }, SOURCE_SOCKETPAIR, 777);
}

static void reply(int fd, uint16_t type, uint16_t len, uint32_t value)
{
	uint8_t buf[8];

	be16_store(buf, type);
	be16_store(buf + 2, len);
	be32_store(buf + 4, value);
	ck_assert_int_eq(write(fd, buf, 4u + len), (ssize_t)(4u + len));
}

TEST(test_a_source_with_return_path_waits_for_shut_and_reports_every_reply)
{
	static uint8_t buf[1 << 20];
	struct source_report report;
	struct wire w = { 0 };
	struct source src;
	char text[200];
	int fd;

	wire_honest(&w, &(struct honest_opts){ .return_path = true }, NULL);
	fd = source_play_pair(&src, &(struct source_plan){ .wire = &w, .return_path = true }, SOURCE_SOCKETPAIR);
	ck_assert_int_eq(drain(fd, buf, w.len), (ssize_t)w.len);
	reply(fd, WIRE_RP_SWITCHOVER_ACK, 0, 0);
	reply(fd, WIRE_RP_PONG, 4, 1);
	ck_assert_int_eq(recv(fd, buf, 1, MSG_DONTWAIT), -1); /* it has not gone away */
	reply(fd, WIRE_RP_SHUT, 4, 1);
	ck_assert_int_eq(read(fd, buf, 1), 0);
	source_wait(&src, &report);
	ck_assert_str_eq(source_reply_text(&report, text, sizeof(text)), "SWITCHOVER_ACK, PONG 1, SHUT 1");
	close(fd);
	wire_fini(&w);
}

TEST(test_a_reply_that_breaks_the_rules_is_reported)
{
	struct source_report report;
	struct wire w = { 0 };
	struct source src;
	int fd;

	wire_header(&w);
	fd = source_play_pair(&src, &(struct source_plan){ .wire = &w, .return_path = true }, SOURCE_SOCKETPAIR);
	reply(fd, WIRE_RP_PONG, 3, 1);
	close(fd);
	source_wait(&src, &report);
	ck_assert(report.bad_reply);
	ck_assert_uint_eq(report.reply_count, 0);
	wire_fini(&w);
}

TEST(test_a_source_notices_that_the_destination_has_gone)
{
	struct source_report report;
	struct wire w = { 0 };
	struct source src;
	int fd;

	wire_fill(&w, 0, 4 << 20);
	fd = source_play_pair(&src, &(struct source_plan){ .wire = &w }, SOURCE_SOCKETPAIR);
	close(fd);
	source_wait(&src, &report);
	ck_assert_int_ne(report.write_errno, 0);
	ck_assert_uint_lt(report.written, w.len);
	wire_fini(&w);
}

TEST(test_a_reset_is_seen_as_one)
{
	struct sockaddr_in sin = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	socklen_t len = sizeof(sin);
	struct source_report report;
	struct wire w = { 0 };
	struct source src;
	uint8_t buf[16];
	int fd, listener = socket(AF_INET, SOCK_STREAM, 0);
	char uri[64];

	ck_assert_int_eq(bind(listener, (struct sockaddr *)&sin, sizeof(sin)), 0);
	ck_assert_int_eq(listen(listener, 1), 0);
	ck_assert_int_eq(getsockname(listener, (struct sockaddr *)&sin, &len), 0);
	snprintf(uri, sizeof(uri), "tcp:127.0.0.1:%d", ntohs(sin.sin_port));
	wire_header(&w);
	source_play_uri(&src, &(struct source_plan){ .wire = &w, .end = SOURCE_END_RESET }, uri);
	fd = accept(listener, NULL, NULL);
	source_wait(&src, &report);
	ck_assert_int_eq(drain(fd, buf, sizeof(buf)), -ECONNRESET);
	close(fd);
	close(listener);
	wire_fini(&w);
}

TEST(test_a_pump_moves_at_most_a_chunk_in_a_step)
{
	struct wire w = { 0 };
	uint8_t buf[64];
	struct pump p;
	int fd;

	wire_header(&w);
	fd = pump_open(&p, &w);
	p.chunk_bytes = 3;
	ck_assert(pump_step(&p));
	ck_assert_int_eq(recv(fd, buf, sizeof(buf), MSG_DONTWAIT), 3);
	while (pump_step(&p))
		;
	ck_assert_int_eq(drain(fd, buf + 3, sizeof(buf) - 3), 5);
	ck_assert_int_eq(memcmp(buf, "QEVM\0\0\0\3", 8), 0);
	close(fd);
	wire_fini(&w);
}

/* ---- deltas ------------------------------------------------------------------------------------------------ */

/* 4.3, written a second time, from the reader's side. Return: the position reached, or -1. */
static int apply(uint8_t *page, const uint8_t *buf, int n)
{
	int at = 0, pos = 0;

	while (at < n) {
		int lens[2];

		for (int i = 0; i < 2; i++) {
			lens[i] = buf[at++];
			if (lens[i] & 0x80)
				lens[i] = (lens[i] & 0x7f) | buf[at++] << 7;
		}
		if ((lens[0] == 0 && pos) || lens[1] == 0 || pos + lens[0] + lens[1] > (int)WIRE_TPAGE_BYTES)
			return -1;
		memcpy(page + pos + lens[0], buf + at, (size_t)lens[1]);
		pos += lens[0] + lens[1];
		at += lens[1];
	}
	return at == n ? pos : -1;
}

TEST(test_a_delta_turns_the_old_page_into_the_new_one)
{
	uint8_t old[WIRE_TPAGE_BYTES] = { 0 }, fresh[WIRE_TPAGE_BYTES], buf[WIRE_TPAGE_BYTES];
	unsigned seed = 7;

	ck_assert_int_eq(wire_xbzrle_encode(buf, old, old), 0);
	memset(fresh, 1, sizeof(fresh));
	ck_assert_int_eq(wire_xbzrle_encode(buf, old, fresh), -1); /* longer than the page itself */
	for (unsigned i = 0; i < 500; i++) {
		int n;

		memcpy(fresh, old, sizeof(fresh));
		for (unsigned k = 0; k <= i % 9; k++) {
			unsigned at = (seed = seed * 1103515245 + 12345) >> 8 & 4095, len = seed >> 4 & 300;

			memset(fresh + at, (int)i, at + len > 4096 ? 4096 - at : len);
		}
		fresh[i % 2 ? 0 : 4095] ^= 0xff;
		n = wire_xbzrle_encode(buf, old, fresh);
		ck_assert_int_gt(n, 2);
		ck_assert_int_gt(apply(old, buf, n), 0);
		ck_assert_int_eq(memcmp(old, fresh, sizeof(old)), 0);
	}
}

/* ---- the census -------------------------------------------------------------------------------------------- */

static void *wait_for_byte(void *opaque)
{
	char c;

	return read(*(int *)opaque, &c, 1) < 0 ? opaque : NULL;
}

TEST(test_the_census_sees_descriptors_mappings_guards_and_threads)
{
	struct census before;
	pthread_t thread;
	int fds[2];
	void *p;

	census_take(&before);
	ck_assert_uint_eq(census_differs(&before), 0);
	ck_assert_int_eq(pipe(fds), 0);
	ck_assert_uint_eq(census_differs(&before), 2);
	ck_assert_int_eq(pthread_create(&thread, NULL, wait_for_byte, &fds[0]), 0);
	ck_assert_uint_ge(census_differs(&before), 3);
	close(fds[1]);
	pthread_join(thread, NULL);
	close(fds[0]);
	census_free(&before);

	census_take(&before); /* the thread's stack is kept by the C library */
	p = mmap(NULL, 8192, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	ck_assert_uint_eq(census_differs(&before), 1);
	munmap(p, 8192);
	ck_assert_uint_eq(census_differs(&before), 0);
	census_free(&before);
}
