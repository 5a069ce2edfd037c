/* How much multifd channels make us hold beyond guest RAM, when the source asks for as much as it can. */
#include "tests/support/check_main.h"
#include "tests/support/held.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "engine/options/options.h"
#include "engine/options/options_set.h"
#include "engine/ram/multifd_decode.h"
#include "engine/stream/multifd_packet.h"
#include "tests/support/several.h"
#include "tests/support/wire.h"

#define PAGE 4096u
#define PIECE_MAX (2u << 20)

static struct multifd_windows windows;
static struct multifd_decoder *decoders[MULTIFD_CHANNELS_MAX];
static uint8_t page_of_zeros[PAGE], piece[PIECE_MAX], landed[128 * PAGE];
static struct err err;

static void open_decoders(unsigned count, unsigned method)
{
	for (unsigned i = 0; i < count; i++)
		ck_assert_int_eq(multifd_decoder_new(&decoders[i], method, &windows, &err), 0);
}

static void close_decoders(unsigned count)
{
	for (unsigned i = 0; i < count; i++)
		multifd_decoder_free(decoders[i]);
	ck_assert_uint_eq(windows.bytes, 0);
}

/* 128 pages that are one byte over and over: 16 bytes on the wire for 512 KiB of window. */
static int send_runs(unsigned channel, bool first, unsigned log)
{
	struct iovec iov = { landed, sizeof(landed) };
	uint32_t block = 0 | 1u << 1 | (128u << 10) << 3;
	uint8_t runs[6 + 16] = { 0x28, 0xb5, 0x2f, 0xfd, 0x00, (uint8_t)((log - 10) << 3) }, *p = runs + 6;

	for (unsigned i = 0; i < 4; i++, p += 4)
		memcpy(p, (uint8_t[]){ (uint8_t)block, (uint8_t)(block >> 8), (uint8_t)(block >> 16), 0xaa }, 4);
	p = first ? runs : runs + 6;
	return multifd_decode(decoders[channel], NULL, &iov, 1, p, (size_t)(runs + sizeof(runs) - p), &err);
}

/* Return: channels whose windows could be filled before one was refused, which is the end of the migration. */
static unsigned fill_windows(unsigned channels, unsigned log)
{
	for (unsigned c = 0; c < channels; c++)
		for (unsigned i = 0; i < (1u << log) / sizeof(landed) + 2; i++)
			if (send_runs(c, i == 0, log) < 0)
				return c;
	return channels;
}

TEST_CASE("windows", 120);

TEST(test_a_zstd_channel_holds_no_more_than_level_20_needs)
{
	struct held held;

	windows.bytes_max = 1u << 30;
	for (unsigned log = 25; log <= 31; log++) {
		held_begin(&held);
		open_decoders(1, MULTIFD_ZSTD);
		ck_assert_uint_eq(fill_windows(1, log), log == 25);
		close_decoders(1);
		held_within(&held, (32u << 20) + (2u << 20), "the zstd window of a channel");
	}
}

TEST(test_zstd_channels_hold_no_more_than_their_limit_together)
{
	struct options opts;
	struct held held;
	unsigned filled;

	options_init(&opts);
	ck_assert_uint_eq(opts.multifd_window_limit_bytes, 1u << 30);
	windows.bytes_max = 256u << 20; /* as the default, with less of this machine's memory */
	held_begin(&held);
	open_decoders(MULTIFD_CHANNELS_MAX, MULTIFD_ZSTD);
	filled = fill_windows(MULTIFD_CHANNELS_MAX, 25);
	ck_assert_uint_ge(filled, 6);
	held_within(&held, (256u << 20) + (4u << 20), "the zstd windows of 255 channels, 256 MiB allowed");
	close_decoders(MULTIFD_CHANNELS_MAX);
}

/* Pages that are hard to shrink; each comes again, after more bytes than the windows of lower levels hold. */
static enum wire_how fill_noise(void *opaque, unsigned block, uint64_t tpage, unsigned round, uint8_t *page)
{
	(void)opaque;
	srand((unsigned)(tpage % 2500 * 31 + block));
	for (unsigned i = 0; i < PAGE; i++)
		page[i] = (uint8_t)rand();
	page[0] = (uint8_t)round;
	return WIRE_SEND_PAGE;
}

/* A whole guest from a source at the highest level that there is, and one more channel than the limit has room for. */
TEST_EACH(test_a_source_at_level_20_lands_or_is_refused_by_name, 2)
{
	static const struct wire_block block = { .name = "pc.ram", .bytes = 20 << 20 };
	static const struct multifd_opts m = { .channels = 2,
		                               .method = MULTIFD_ZSTD,
		                               .level = 20,
		                               .blocks = &block,
		                               .block_count = 1,
		                               .rounds = 1,
		                               .fill = fill_noise };
	static const char *const narrow[] = { "multifd-window-limit", "64M", NULL };
	struct held held;
	struct several s;

	several_begin(&s, &m, _i ? &(struct several_opts){ .params = narrow } : NULL);
	held_begin(&held);
	several_connect_all(&s);
	several_finish(&s);
	if (_i)
		several_check_failed(&s, -EPROTO, "multifd-window-limit");
	else
		several_check_landed(&s);
	held_within(&held, (20u << 20) + 2 * (35u << 20) + (4u << 20), "two channels at level 20, and 20 MiB of RAM");
	several_end(&s);
}

TEST(test_a_zlib_channel_holds_its_fixed_window)
{
	struct wire_encoder *enc = wire_encoder_new(MULTIFD_ZLIB);
	struct iovec iov = { landed, PAGE };
	struct held held;

	windows.bytes_max = 0;
	held_begin(&held);
	open_decoders(MULTIFD_CHANNELS_MAX, MULTIFD_ZLIB);
	for (unsigned i = 0; i < 32; i++) {
		size_t bytes = wire_encode(enc, page_of_zeros, PAGE, piece, sizeof(piece));

		for (unsigned c = 0; c < MULTIFD_CHANNELS_MAX; c++)
			ck_assert_int_eq(multifd_decode(decoders[c], NULL, &iov, 1, piece, bytes, &err), 0);
	}
	held_within(&held, MULTIFD_CHANNELS_MAX * (44u << 10) + (1u << 20), "zlib on 255 channels");
	close_decoders(MULTIFD_CHANNELS_MAX);
	wire_encoder_free(enc);
}
