/* Payloads that are one compressed stream per channel (doc/wire/multifd.md 4.5): exact, or refused. */
#include "tests/support/check_main.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <zlib.h>

#include "base/err.h"
#include "engine/ram/multifd_decode.h"
#include "engine/stream/multifd_packet.h"
#include "tests/support/wire.h"

#define PAGE 4096u
#define PIECE_MAX (1u << 20)

static const unsigned methods[] = { MULTIFD_ZLIB, MULTIFD_ZSTD };
#define METHODS 2

/* A sender and a receiver; pages lie apart, with canaries between. */
struct link {
	struct wire_encoder *enc;
	struct multifd_decoder *dec;
	struct multifd_windows windows;
	uint8_t *piece;
	size_t piece_bytes;
	uint8_t *sent, *landed; /* 128 pages; 128 pages with a canary page after each */
	struct iovec iov[128];
	struct err err;
};

static void link_open(struct link *l, unsigned method)
{
	memset(l, 0, sizeof(*l));
	l->windows.bytes_max = 64u << 20;
	l->enc = wire_encoder_new(method);
	ck_assert_int_eq(multifd_decoder_new(&l->dec, method, &l->windows, &l->err), 0);
	l->piece = malloc(PIECE_MAX);
	l->sent = malloc(128 * PAGE);
	l->landed = malloc(258 * PAGE);
	ck_assert(l->piece && l->sent && l->landed);
}

static void link_close(struct link *l)
{
	wire_encoder_free(l->enc);
	multifd_decoder_free(l->dec);
	free(l->piece);
	free(l->sent);
	free(l->landed);
}

static void send_pages(struct link *l, unsigned pages, unsigned seed)
{
	for (unsigned i = 0; i < pages * PAGE; i++)
		l->sent[i] = (uint8_t)(i % 7 * (i / PAGE + seed) + (seed % 3 ? (unsigned)rand() : i / 64));
	l->piece_bytes = wire_encode(l->enc, l->sent, pages * PAGE, l->piece, PIECE_MAX);
	ck_assert_uint_le(l->piece_bytes, PIECE_MAX);
}

/* Into every second page, backwards, as with unsorted offsets. */
static int receive_bytes(struct link *l, unsigned pages, const void *src, size_t bytes)
{
	uint8_t canary[PAGE];
	int r;

	memset(canary, 0xc5, sizeof(canary));
	memset(l->landed, 0xc5, (2 * pages + 2) * PAGE);
	for (unsigned i = 0; i < pages; i++)
		l->iov[i] = (struct iovec){ l->landed + (pages - 1 - i) * 2 * PAGE, PAGE };
	l->err = ERR_NONE;
	r = multifd_decode(l->dec, NULL, l->iov, (int)pages, src, bytes, &l->err);
	for (unsigned i = 0; i < 2 * pages + 2; i++)
		if (i % 2 || i >= 2 * pages)
			ck_assert_msg(memcmp(l->landed + i * PAGE, canary, PAGE) == 0, "written outside of the pages");
	ck_assert_msg(r == 0 || (r == -EPROTO && l->err.text[0]), "%d: %s", r, l->err.text);
	return r;
}

static int receive(struct link *l, unsigned pages)
{
	return receive_bytes(l, pages, l->piece, l->piece_bytes);
}

static bool same(const struct link *l, unsigned pages)
{
	for (unsigned i = 0; i < pages; i++)
		if (memcmp(l->sent + i * PAGE, l->landed + (pages - 1 - i) * 2 * PAGE, PAGE) != 0)
			return false;
	return true;
}

TEST_CASE("streams", 60);

TEST_EACH(test_one_stream_over_many_packets_is_decoded, METHODS)
{
	static const unsigned sizes[] = { 1, 128, 3, 1, 1, 64, 127, 2 };
	struct link l;

	link_open(&l, methods[_i]);
	for (unsigned i = 0; i < 200; i++) {
		unsigned pages = sizes[i % 8];

		send_pages(&l, pages, i);
		ck_assert_msg(receive(&l, pages) == 0, "packet %u: %s", i, l.err.text);
		ck_assert_msg(same(&l, pages), "packet %u: other pages", i);
	}
	link_close(&l);
}

/* The window goes over packets: the same page again is short, and means what came packets ago. */
TEST_EACH(test_the_window_spans_packets, METHODS)
{
	size_t first;
	struct link l;

	link_open(&l, methods[_i]);
	send_pages(&l, 1, 1);
	first = l.piece_bytes;
	ck_assert_int_eq(receive(&l, 1), 0);
	for (unsigned i = 0; i < 5; i++) {
		l.piece_bytes = wire_encode(l.enc, l.sent, PAGE, l.piece, PIECE_MAX);
		ck_assert_uint_lt(l.piece_bytes, first / 4);
		ck_assert_int_eq(receive(&l, 1), 0);
		ck_assert(same(&l, 1));
	}
	link_close(&l);
}

TEST_EACH(test_a_payload_that_ends_before_its_pages_is_refused, METHODS)
{
	struct link l;

	for (unsigned cut = 0; cut < 3000; cut = cut < 20 ? cut + 1 : cut * 2) {
		link_open(&l, methods[_i]);
		send_pages(&l, 2, 1);
		/* The flush's own end, which yields nothing, is five bytes of zlib's and three of zstd's. */
		if (cut > 5)
			ck_assert_msg(receive_bytes(&l, 2, l.piece, l.piece_bytes - cut) == -EPROTO, "cut by %u", cut);
		link_close(&l);
	}
	link_open(&l, methods[_i]);
	send_pages(&l, 2, 1);
	ck_assert_int_eq(receive(&l, 3), -EPROTO); /* pages that are not in it */
	ck_assert_msg(strstr(l.err.text, "ends before"), "%s", l.err.text);
	link_close(&l);
	link_open(&l, methods[_i]);
	send_pages(&l, 2, 1);
	ck_assert_int_eq(receive_bytes(&l, 2, l.piece, 1), -EPROTO);
	link_close(&l);
}

TEST_EACH(test_a_payload_that_holds_more_than_its_pages_is_refused, METHODS)
{
	struct link l;

	link_open(&l, methods[_i]);
	send_pages(&l, 3, 1);
	ck_assert_int_eq(receive(&l, 2), -EPROTO); /* a page too many */
	ck_assert_msg(strstr(l.err.text, "more than"), "%s", l.err.text);
	link_close(&l);

	link_open(&l, methods[_i]);
	send_pages(&l, 1, 1);
	l.piece_bytes += wire_encode(l.enc, "x", 1, l.piece + l.piece_bytes, 1000); /* a byte too many */
	ck_assert_int_eq(receive(&l, 1), -EPROTO);
	link_close(&l);

	link_open(&l, methods[_i]);
	send_pages(&l, 1, 1);
	memset(l.piece + l.piece_bytes, 0xff, 50); /* rubbish after it */
	l.piece_bytes += 50;
	ck_assert_int_eq(receive(&l, 1), -EPROTO);
	link_close(&l);
}

TEST_EACH(test_a_packet_of_another_place_in_the_stream_is_refused_or_harmless, METHODS)
{
	struct link l;

	/* One that begins in the middle of a stream. */
	link_open(&l, methods[_i]);
	send_pages(&l, 4, 1);
	send_pages(&l, 4, 2);
	ck_assert_int_eq(receive(&l, 4), -EPROTO);
	link_close(&l);

	/* A second beginning in the middle: zlib has none; a zstd frame that has not ended has none either. */
	link_open(&l, methods[_i]);
	send_pages(&l, 4, 1);
	ck_assert_int_eq(receive(&l, 4), 0);
	ck_assert_int_eq(receive(&l, 4), -EPROTO);
	link_close(&l);
}

TEST_EACH(test_the_other_methods_stream_and_garbage_are_refused, METHODS)
{
	struct link l;

	for (unsigned seed = 0; seed < 200; seed++) {
		uint8_t garbage[600];

		srand(seed);
		for (unsigned i = 0; i < sizeof(garbage); i++)
			garbage[i] = (uint8_t)(seed < 100 ? (unsigned)rand() : seed);
		link_open(&l, methods[_i]);
		ck_assert_int_eq(receive_bytes(&l, 3, garbage, sizeof(garbage)), -EPROTO);
		link_close(&l);
	}
	link_open(&l, methods[!_i]);
	send_pages(&l, 2, 1);
	multifd_decoder_free(l.dec);
	ck_assert_int_eq(multifd_decoder_new(&l.dec, methods[_i], &l.windows, &l.err), 0);
	ck_assert_int_eq(receive(&l, 2), -EPROTO);
	link_close(&l);
}

/* Each bit of a payload wrong, in turn: an error or other bytes, never one outside of the pages, never a crash. */
TEST_EACH(test_bit_flips_stay_inside_the_pages, METHODS)
{
	unsigned refused = 0, bits = 0;
	struct link l;

	for (unsigned bit = 0;; bit += bit < 800 ? 1 : 41) {
		link_open(&l, methods[_i]);
		srand(7);
		send_pages(&l, 2, 3);
		if (bit / 8 >= l.piece_bytes) {
			link_close(&l);
			break;
		}
		l.piece[bit / 8] ^= (uint8_t)(1u << bit % 8);
		refused += receive(&l, 2) != 0;
		bits++;
		link_close(&l);
	}
	ck_assert_uint_gt(bits, 500);
	ck_assert_uint_gt(refused, bits / 20);
}

TEST(test_a_zlib_stream_that_ends_is_refused)
{
	uint8_t page[PAGE] = { 0 }, piece[200];
	uLongf bytes = sizeof(piece);
	struct link l;

	ck_assert_int_eq(compress(piece, &bytes, page, PAGE), Z_OK);
	link_open(&l, MULTIFD_ZLIB);
	ck_assert_int_eq(receive_bytes(&l, 1, piece, bytes), -EPROTO);
	link_close(&l);
}

/* A frame that asks for a window of 2^@log, and one page of 0xaa as a run. */
struct frame {
	uint8_t bytes[9 + 1];
};

static struct frame frame_of(unsigned log)
{
	uint32_t block = 0 | 1u << 1 | PAGE << 3; /* not the last one; a run; its length */

	/* Magic; no content size and no single segment; window descriptor. */
	return (struct frame){ { 0x28, 0xb5, 0x2f, 0xfd, 0x00, (uint8_t)((log - 10) << 3), (uint8_t)block,
		                 (uint8_t)(block >> 8), (uint8_t)(block >> 16), 0xaa } };
}

/* The window is the peer's word: what level 20 needs is there, and no more. What it holds: tests/budget/. */
TEST(test_a_zstd_window_beyond_that_of_level_20_is_refused)
{
	struct link l;

	for (unsigned log = 12; log <= 41; log++) {
		struct frame frame = frame_of(log);
		int r;

		link_open(&l, MULTIFD_ZSTD);
		r = receive_bytes(&l, 1, frame.bytes, sizeof(frame.bytes));
		ck_assert_msg(r == (log > 25 ? -EPROTO : 0), "2^%u: %d: %s", log, r, l.err.text);
		if (log > 25)
			ck_assert_msg(strstr(l.err.text, "window of more than 33554432 bytes"), "%s", l.err.text);
		link_close(&l);
		ck_assert_uint_eq(l.windows.bytes, 0);
	}
}

/* Each alone is in order. */
TEST(test_zstd_windows_are_bounded_together)
{
	struct frame frame = frame_of(25);
	struct link links[3];
	int r;

	for (unsigned i = 0; i < 3; i++) {
		link_open(&links[i], MULTIFD_ZSTD);
		multifd_decoder_free(links[i].dec);
		links[0].windows.bytes_max = 80u << 20;
		ck_assert_int_eq(multifd_decoder_new(&links[i].dec, MULTIFD_ZSTD, &links[0].windows, &links[i].err), 0);
		r = receive_bytes(&links[i], 1, frame.bytes, sizeof(frame.bytes));
		ck_assert_msg(r == (i < 2 ? 0 : -EPROTO), "%u: %d: %s", i, r, links[i].err.text);
	}
	ck_assert_msg(strstr(links[2].err.text, "multifd-window-limit"), "%s", links[2].err.text);
	for (unsigned i = 3; i-- > 0;)
		link_close(&links[i]);
	ck_assert_uint_eq(links[0].windows.bytes, 0);
}

/* What a source at level 20 sends, with a page that comes again after 20 MiB. */
TEST(test_a_zstd_stream_of_level_20_is_decoded)
{
	struct link l;

	link_open(&l, MULTIFD_ZSTD);
	wire_encoder_free(l.enc);
	l.enc = wire_encoder_new_at(MULTIFD_ZSTD, 20);
	srand(5);
	for (unsigned i = 0; i < 44; i++) {
		/* The first packet once more, which is short only where the window is as wide as that. */
		srand(i == 43 ? 5 : 100 + i);
		send_pages(&l, 128, i == 43 ? 1 : i + 1);
		ck_assert_msg(receive(&l, 128) == 0, "packet %u: %s", i, l.err.text);
		ck_assert(same(&l, 128));
	}
	ck_assert_uint_ge(l.windows.bytes, 32u << 20);
	link_close(&l);
}

/* Decoders of old formats hold what they like, and are in libzstd all the same. */
TEST(test_a_zstd_frame_of_an_old_format_is_refused)
{
	struct link l;

	for (unsigned version = 0; version < 8; version++) {
		uint8_t frame[64] = { (uint8_t)(0x20 + version), 0xb5, 0x2f, 0xfd, 0x00, (27 - 10) << 3 };

		for (unsigned own = 0; own < 2; own++) {
			struct frame first = frame_of(20);

			link_open(&l, MULTIFD_ZSTD);
			if (own) {
				/* The frame before it has ended: a block that says it is the last one. */
				first.bytes[6] |= 1;
				ck_assert_int_eq(receive_bytes(&l, 1, first.bytes, sizeof(first.bytes)), 0);
			}
			ck_assert_int_eq(receive_bytes(&l, 1, frame, sizeof(frame)), -EPROTO);
			ck_assert_msg(strstr(l.err.text, "does not begin as a frame does"), "%s", l.err.text);
			link_close(&l);
		}
	}
}

TEST_EACH(test_an_empty_payload_is_refused, METHODS)
{
	struct link l;

	link_open(&l, methods[_i]);
	ck_assert_int_eq(receive_bytes(&l, 1, "", 0), -EPROTO);
	link_close(&l);
}

TEST(test_a_decoder_that_was_not_made_can_be_freed)
{
	multifd_decoder_free(NULL);
}
