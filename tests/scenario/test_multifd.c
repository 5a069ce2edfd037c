/* Pages on channels of their own: all of them land, and of several copies the last one stays (doc/wire/multifd.md). */
#include "tests/support/check_main.h"

#include <string.h>

#include "tests/support/multifd_eras.h"
#include "tests/support/several.h"

#define PAGE ((uint64_t)WIRE_TPAGE_BYTES)

/* ---- what pages hold --------------------------------------------------------------------------------------- */

/* Every page in every round, so that each is rewritten again and again. */
static enum wire_how fill_all(void *opaque, unsigned block, uint64_t tpage, unsigned round, uint8_t *page)
{
	wire_fill_default(opaque, block, tpage * 12, 0, page);
	page[0] = (uint8_t)round;
	page[PAGE - 1] = (uint8_t)~round;
	return WIRE_SEND_PAGE;
}

/* Content and zeros by turns, other pages the other way round. */
static enum wire_how fill_by_turns(void *opaque, unsigned block, uint64_t tpage, unsigned round, uint8_t *page)
{
	enum wire_how how = fill_all(opaque, block, tpage, round, page);

	return (tpage + round) % 2 ? WIRE_SEND_ZERO : how;
}

/* Never the same channel twice in a row, and the main stream every fourth time. */
static int route_around(void *opaque, unsigned block, uint64_t tpage, unsigned round)
{
	unsigned channels = *(unsigned *)opaque;
	unsigned at = (unsigned)(tpage + block + round) % (channels + 1);

	return at == channels ? WIRE_ON_MAIN : (int)at;
}

/* The last packet on a lane only when there is one: with it the sync packet of an old source carries pages. */
static int route_first(void *opaque, unsigned block, uint64_t tpage, unsigned round)
{
	(void)opaque;
	(void)block;
	(void)tpage;
	(void)round;
	return 0;
}

/* ---- ways to send ------------------------------------------------------------------------------------------ */

static void lands(const struct multifd_opts *m, const struct several_opts *o, size_t chunk_bytes)
{
	struct several s;

	several_begin(&s, m, o);
	several_connect_all(&s);
	for (unsigned i = 0; i < s.line_count; i++)
		s.lines[i].chunk_bytes = chunk_bytes;
	several_finish(&s);
	several_check_landed(&s);
	ck_assert_uint_eq(s.scene.e.stats.received_pages * PAGE, s.scene.e.stats.ram_bytes);
	several_end(&s);
}

TEST_CASE("ways", 120);

TEST_EACH(test_every_era_and_compression_lands_over_one_to_four_channels, MULTIFD_ERAS)
{
	const struct multifd_era *era = &multifd_eras[_i];

	for (unsigned channels = 1; channels <= 4; channels++)
		for (unsigned i = 0; i < 3; i++)
			for (unsigned rp = 0; rp < 2; rp++) {
				struct multifd_opts m = multifd_opts_of(era, channels, multifd_methods[i]);

				m.return_path = rp;
				m.rounds = 3;
				lands(&m, &(struct several_opts){ .anon = channels % 2 }, 0);
			}
}

TEST_EACH(test_full_packets_of_several_blocks_land, MULTIFD_ERAS)
{
	for (unsigned i = 0; i < 3; i++)
		for (unsigned channels = 1; channels <= 4; channels += 3) {
			struct multifd_opts m = multifd_opts_of(&multifd_eras[_i], channels, multifd_methods[i]);

			m.blocks = multifd_big_blocks;
			m.block_count = MULTIFD_BIG_BLOCKS;
			m.rounds = 3;
			lands(&m, &(struct several_opts){ .tcp = channels == 4 }, 0);
			lands(&m, &(struct several_opts){ .anon = true }, channels * 5000);
		}
}

TEST(test_delivery_in_pieces_of_any_size_changes_nothing)
{
	static const size_t sizes[] = { 13, 63, 64, 65, 1343, 1344, 1345, 4096, 5440 };

	for (unsigned i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++)
		for (unsigned k = 0; k < 3; k += 2) {
			struct multifd_opts m = multifd_opts_of(&multifd_eras[k], 2, multifd_methods[i % 3]);

			lands(&m, NULL, sizes[i]);
		}
}

TEST(test_delivery_byte_by_byte_changes_nothing)
{
	struct multifd_opts m = multifd_opts_of(&multifd_eras[0], 2, 0);

	m.rounds = 1;
	lands(&m, NULL, 1);
}

TEST_EACH(test_packets_of_one_page_land, MULTIFD_ERAS)
{
	for (unsigned i = 0; i < 3; i++) {
		struct multifd_opts m = multifd_opts_of(&multifd_eras[_i], 3, multifd_methods[i]);

		m.packet_pages = 1;
		m.rounds = 4;
		m.fill = fill_by_turns;
		lands(&m, NULL, 0);
	}
}

TEST(test_a_channel_that_never_carries_a_page_lands_the_others)
{
	for (unsigned i = 0; i < MULTIFD_ERAS; i++) {
		struct multifd_opts m = multifd_opts_of(&multifd_eras[i], 3, 0);

		m.route = route_first;
		m.rounds = 3;
		lands(&m, NULL, 0);
	}
}

/* A SYNC packet is the last thing before its sync point, with pages or without: what follows may be long in coming. */
TEST_EACH(test_nothing_needs_to_follow_a_sync_packet_with_pages, 2)
{
	for (unsigned i = 0; i < 3; i++) {
		struct multifd_opts m = multifd_opts_of(&multifd_eras[_i], 2, multifd_methods[i]);

		m.no_phantom = m.return_path = true;
		lands(&m, &(struct several_opts){ .anon = i == 0 }, 0);
	}
}

/* If the parameter is set, only its value counts. */
TEST(test_the_way_of_syncing_can_be_told)
{
	static const char *const on[] = { "multifd-flush-after-each-section", "on", NULL };
	static const char *const off[] = { "multifd-flush-after-each-section", "off", NULL };
	struct multifd_opts m = multifd_opts_of(&multifd_eras[0], 2, 0);

	lands(&m, &(struct several_opts){ .params = on }, 0);
	m = multifd_opts_of(&multifd_eras[2], 2, 0);
	lands(&m, &(struct several_opts){ .params = off }, 0);
}

TEST(test_two_hundred_and_fifty_five_channels_land)
{
	struct multifd_opts m = multifd_opts_of(&multifd_eras[2], 255, 0);

	test_need_files(2 * 256 + 32);
	m.blocks = multifd_big_blocks;
	m.block_count = MULTIFD_BIG_BLOCKS;
	lands(&m, NULL, 0);
}

/* All connected before one of them speaks: a source over a slow network, or in the middle of its TLS handshakes. */
TEST(test_two_hundred_and_fifty_five_channels_may_connect_before_any_speaks)
{
	struct multifd_opts m = multifd_opts_of(&multifd_eras[2], 255, 0);
	struct several s;

	test_need_files(2 * 256 + 32);
	several_begin(&s, &m, NULL);
	several_connect_all(&s);
	several_settle(&s);
	several_finish(&s);
	several_check_landed(&s);
	several_end(&s);
}

/* ---- the barrier: a later copy of a page never loses to an earlier one (doc/wire/multifd.md 5.3) --------------- */

static size_t after_start(const struct several *s, unsigned line)
{
	return wire_find(several_wire(s, line), line == SEVERAL_MAIN ? "sync point" : "interval", 0);
}

/*
 * One line lags: all others have sent everything (main all but its last bytes, so that it cannot land) and settled
 * when the laggard's first round comes. What the others hold of later rounds must have waited for it.
 */
static void laggard_lands(const struct multifd_opts *m, unsigned laggard)
{
	struct several s;

	several_begin(&s, m, &(struct several_opts){ .anon = laggard % 2 });
	several_connect_all(&s);
	for (unsigned i = 0; i < s.line_count; i++)
		several_allow(&s, i,
		              i == laggard      ? after_start(&s, i) :
		              i == SEVERAL_MAIN ? wire_find(&s.h.main, "EOF", 0) :
		                                  SEVERAL_ALL);
	several_settle(&s);
	several_allow(&s, laggard, laggard == SEVERAL_MAIN ? wire_find(&s.h.main, "EOF", 0) : SEVERAL_ALL);
	several_settle(&s);
	several_finish(&s);
	several_check_landed(&s);
	several_end(&s);
}

static void any_laggard_lands(const struct multifd_era *era, wire_fill_fn *fill, wire_route_fn *route)
{
	static const unsigned counts[] = { 1, 2, 3 };

	for (unsigned c = 0; c < 3; c++)
		for (unsigned laggard = 0; laggard <= counts[c]; laggard++) {
			unsigned channels = counts[c];
			struct multifd_opts m = multifd_opts_of(era, channels, 0);

			m.rounds = 4;
			m.fill = fill;
			m.route = route;
			m.opaque = &channels;
			laggard_lands(&m, laggard);
		}
}

TEST_CASE("barrier", 60);

TEST_EACH(test_a_page_rewritten_on_another_channel_each_round_ends_as_sent_last, MULTIFD_ERAS)
{
	any_laggard_lands(&multifd_eras[_i], fill_all, NULL);
}

TEST_EACH(test_a_page_rewritten_on_channels_and_in_the_main_stream_ends_as_sent_last, MULTIFD_ERAS)
{
	any_laggard_lands(&multifd_eras[_i], fill_all, route_around);
}

TEST_EACH(test_zero_pages_and_content_by_turns_end_as_sent_last, MULTIFD_ERAS)
{
	any_laggard_lands(&multifd_eras[_i], fill_by_turns, NULL);
}

/* No channel is read beyond its SYNC, and main is not read beyond its sync point, until all are there. */
TEST_EACH(test_nobody_passes_a_sync_point_alone, MULTIFD_ERAS)
{
	for (unsigned laggard = 0; laggard < 3; laggard++) {
		struct multifd_opts m = multifd_opts_of(&multifd_eras[_i], 2, 0);
		struct several s;
		struct emb_block *ram;
		bool any = false;

		m.rounds = 2;
		m.fill = fill_all;
		several_begin(&s, &m, NULL);
		several_connect_all(&s);
		ram = embedder_block(&s.scene.e, "pc.ram");
		for (unsigned i = 0; i < s.line_count; i++)
			several_allow(&s, i, i == laggard ? after_start(&s, i) - (i ? 1344 : 8) : SEVERAL_ALL);
		several_settle(&s);
		for (unsigned i = 0; i < ram->bytes; i++)
			any |= ram->host[i] != 0;
		ck_assert_msg(!any, "pages landed before all were at the first sync point");
		several_finish(&s);
		several_check_landed(&s);
		several_end(&s);
	}
}
