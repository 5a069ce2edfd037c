/* A stream as numbers and bytes, with its position: engine/stream/reader.h */
#include "engine/stream/reader.h"

#include "base/clock.h"
#include "base/err.h"
#include "coroutine/group.h"
#include "coroutine/reactor.h"
#include "engine/channel/channel.h"
#include "engine/channel/file.h"
#include "engine/channel/socket.h"
#include "tests/support/check_main.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#define MIB (1u << 20)

/* A reader of a real channel, in a coroutine. */
struct world {
	struct reactor *reactor;
	struct group group;
	struct chan *ch;
	struct reader r;
	struct err err;
	int peer; /* the other end of a socket; -1 */
	void (*body)(struct world *w);
};

static uint8_t byte_at(uint64_t off)
{
	return (uint8_t)(off * 31 + off / 256 * 7);
}

static int run_body(void *arg)
{
	struct world *w = arg;

	w->body(w);
	return 0;
}

static void begin(struct world *w)
{
	*w = (struct world){ .peer = -1 };
	ck_assert_int_eq(reactor_new(&w->reactor, &ring_uring, 0), 0);
	group_init(&w->group, &w->reactor->sched, "test");
}

static void run(struct world *w, void (*body)(struct world *w), const void *first, size_t first_bytes)
{
	ck_assert_int_eq(reader_init(&w->r, &w->reactor->sched, w->ch, first, first_bytes), 0);
	w->body = body;
	ck_assert_int_eq(group_spawn(&w->group, "reader", run_body, w), 0);
	ck_assert_int_eq(reactor_run(w->reactor, &w->group, deadline_after_ns(30 * NS_PER_S)), 0);
	reader_fini(&w->r);
	chan_close(w->ch);
	if (w->peer >= 0)
		close(w->peer);
	reactor_free(w->reactor);
}

/* The channel holds bytes @off on of the pattern, and then ends. */
static void run_on_file(void (*body)(struct world *w), uint64_t off, size_t bytes, size_t first_bytes)
{
	uint8_t *pattern = malloc(first_bytes + bytes + 1);
	int fd = memfd_create("stream", MFD_CLOEXEC);
	struct world w;

	ck_assert(pattern && fd >= 0);
	for (size_t i = 0; i < first_bytes + bytes; i++)
		pattern[i] = byte_at(off + i);
	ck_assert_int_eq(write(fd, pattern + first_bytes, bytes), (ssize_t)bytes);
	begin(&w);
	ck_assert_int_eq(file_chan_new(&w.ch, w.reactor, fd, 0, "file"), 0);
	run(&w, body, pattern, first_bytes);
	free(pattern);
}

static void run_on_socket(void (*body)(struct world *w))
{
	int fds[2];
	struct world w;

	ck_assert_int_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds), 0);
	begin(&w);
	w.peer = fds[1];
	ck_assert_int_eq(socket_chan_new(&w.ch, w.reactor, fds[0], "socket"), 0);
	run(&w, body, "", 0);
}

static void say(struct world *w, const void *bytes, size_t n)
{
	ck_assert_int_eq(write(w->peer, bytes, n), (ssize_t)n);
}

/* ---- values ------------------------------------------------------------------------------------------------------ */

TEST_CASE("values", 30);

static const uint8_t values[] = "\x12\x12\x34\x12\x34\x56\x78\x12\x34\x56\x78\x9a\xbc\xde\xf0\x03"
                                "abc\x00";

static void take_values(struct world *w)
{
	char name[256] = "?";
	size_t bytes = 99;
	uint64_t u64;
	uint32_t u32;
	uint16_t u16;
	uint8_t u8;

	ck_assert_int_eq(reader_u8(&w->r, &u8, &w->err), 0);
	ck_assert_uint_eq(u8, 0x12);
	ck_assert_int_eq(reader_be16(&w->r, &u16, &w->err), 0);
	ck_assert_uint_eq(u16, 0x1234);
	ck_assert_int_eq(reader_be32(&w->r, &u32, &w->err), 0);
	ck_assert_uint_eq(u32, 0x12345678);
	ck_assert_uint_eq(reader_off(&w->r), 7);
	ck_assert_int_eq(reader_be64(&w->r, &u64, &w->err), 0);
	ck_assert_uint_eq(u64, 0x123456789abcdef0);
	ck_assert_int_eq(reader_str8(&w->r, name, &bytes, &w->err), 0);
	ck_assert_str_eq(name, "abc");
	ck_assert_uint_eq(bytes, 3);
	ck_assert_int_eq(reader_str8(&w->r, name, &bytes, &w->err), 0);
	ck_assert_str_eq(name, "");
	ck_assert_uint_eq(bytes, 0);
	ck_assert_uint_eq(reader_off(&w->r), sizeof(values) - 1);
}

static void body_values_in_one_piece(struct world *w)
{
	say(w, values, sizeof(values) - 1);
	take_values(w);
}

TEST(test_reader_values_in_one_piece)
{
	run_on_socket(body_values_in_one_piece);
}

/* One byte at each receive: each value is put together from as many as it has. */
static void body_values_byte_by_byte(struct world *w)
{
	w->r.chunk_bytes = 1;
	say(w, values, sizeof(values) - 1);
	take_values(w);
	ck_assert_uint_eq(reader_buffered(&w->r), 0);
}

TEST(test_reader_values_byte_by_byte)
{
	run_on_socket(body_values_byte_by_byte);
}

/* ---- bytes ------------------------------------------------------------------------------------------------------- */

TEST_CASE("bytes", 60);

#define STREAM_BYTES (5 * MIB + 12345)

static void check_pattern(const uint8_t *bytes, uint64_t off, size_t n)
{
	size_t i = 0;

	/* An assertion for each byte would take most of the time. */
	while (i < n && bytes[i] == byte_at(off + i))
		i++;
	ck_assert_msg(i == n, "at %llu", (unsigned long long)(off + i));
}

/* Each way of taking bytes in turn, with lengths that go over every border of the buffer. */
static void body_ways(struct world *w)
{
	uint8_t *dst = malloc(MIB);
	size_t n = 1, way = 0;
	uint64_t off = 0;

	ck_assert_ptr_nonnull(dst);
	while (off < STREAM_BYTES) {
		n = n * 3 + 1 > MIB ? 1 : n * 3 + 1;
		if (n > STREAM_BYTES - off)
			n = (size_t)(STREAM_BYTES - off);
		ck_assert_uint_eq(reader_off(&w->r), off);
		if (way++ % 2) {
			ck_assert_msg(reader_need(&w->r, n, &w->err) == 0, "%s", w->err.text);
			ck_assert_uint_ge(reader_buffered(&w->r), n);
			check_pattern(reader_data(&w->r), off, n);
			reader_skip(&w->r, n);
		} else {
			ck_assert_msg(reader_bytes(&w->r, dst, n, &w->err) == 0, "%s", w->err.text);
			check_pattern(dst, off, n);
		}
		off += n;
	}
	ck_assert_int_eq(reader_fill(&w->r, &w->err), 0);
	free(dst);
}

TEST(test_reader_loses_nothing_at_any_border_of_the_buffer)
{
	run_on_file(body_ways, 0, STREAM_BYTES, 0);
}

TEST(test_reader_begins_with_what_was_read_before)
{
	run_on_file(body_ways, 0, STREAM_BYTES - 1000, 1000);
}

/* The largest piece is there in one, wherever the contents stand in the buffer. */
static void body_largest(struct world *w)
{
	reader_need(&w->r, 1, &w->err);
	reader_skip(&w->r, reader_buffered(&w->r) - 1); /* one byte is left, at the end of the buffer */
	ck_assert_uint_eq(reader_buffered(&w->r), 1);
	ck_assert_int_eq(reader_need(&w->r, READER_NEED_MAX, &w->err), 0);
	check_pattern(reader_data(&w->r), reader_off(&w->r), READER_NEED_MAX);
}

TEST(test_reader_has_the_largest_piece_in_one)
{
	run_on_file(body_largest, 0, 4 * MIB, 0);
}

static void body_fills_up(struct world *w)
{
	ssize_t n;

	while ((n = reader_fill(&w->r, &w->err)) > 0)
		;
	ck_assert_int_eq(n, -ENOBUFS);
	ck_assert_uint_eq(reader_buffered(&w->r), READER_BUFFER_BYTES);
	check_pattern(reader_data(&w->r), 0, READER_BUFFER_BYTES);
}

TEST(test_reader_says_when_the_buffer_is_full)
{
	run_on_file(body_fills_up, 0, 4 * MIB, 0);
}

/* ---- ends -------------------------------------------------------------------------------------------------------- */

TEST_CASE("ends", 30);

static void body_ends_inside(struct world *w)
{
	uint8_t dst[64];
	uint64_t u64;

	ck_assert_int_eq(reader_bytes(&w->r, dst, 10, &w->err), 0);
	ck_assert_int_eq(reader_be64(&w->r, &u64, &w->err), -ENODATA);
	ck_assert_ptr_nonnull(strstr(w->err.text, "at 0xf, before its end"));
	ck_assert(w->r.ended);
	/* By (2): what came is still there, and is no less the end. */
	ck_assert_uint_eq(reader_off(&w->r), 10);
	ck_assert_uint_eq(reader_buffered(&w->r), 5);
	ck_assert_int_eq(reader_bytes(&w->r, dst, 5, &w->err), 0);
	check_pattern(dst, 10, 5);
	ck_assert_int_eq(reader_need(&w->r, 1, &w->err), -ENODATA);
}

TEST(test_reader_an_end_inside_a_value_is_named_and_loses_nothing)
{
	run_on_file(body_ends_inside, 0, 15, 0);
}

static void body_deadline(struct world *w)
{
	uint32_t u32;

	say(w, "\x12\x34", 2);
	w->r.deadline_ns = deadline_after_ns(20 * NS_PER_MS);
	ck_assert_int_eq(reader_be32(&w->r, &u32, &w->err), -ETIMEDOUT);
	ck_assert_uint_eq(reader_off(&w->r), 0);
	/* It may be tried again. */
	say(w, "\x56\x78", 2);
	w->r.deadline_ns = DEADLINE_NEVER;
	ck_assert_int_eq(reader_be32(&w->r, &u32, &w->err), 0);
	ck_assert_uint_eq(u32, 0x12345678);
}

TEST(test_reader_a_deadline_ends_the_wait_and_loses_nothing)
{
	run_on_socket(body_deadline);
}

static void body_cancelled(struct world *w)
{
	uint32_t u32;

	say(w, "\x12\x34", 2);
	co_cancel(w->reactor->sched.current);
	ck_assert_int_eq(reader_be32(&w->r, &u32, &w->err), -ECANCELED);
	say(w, "\x56\x78", 2);
	ck_assert_int_eq(reader_be32(&w->r, &u32, &w->err), 0);
	ck_assert_uint_eq(u32, 0x12345678);
}

TEST(test_reader_a_cancel_loses_nothing)
{
	run_on_socket(body_cancelled);
}
