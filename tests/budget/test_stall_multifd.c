/* Many channels with full packets: each does its work in pieces, and all together stay inside a round. */
#include "tests/support/check_main.h"
#include "tests/support/scene.h"
#include "tests/support/stall.h"

#include <stdio.h>
#include <string.h>

#define CHANNELS 16u

/* The kernel copies what is ready for all of them in one call, 512 KiB each: some 0.5 ms that cannot be divided. */
#define CHANNELS_PLAIN 8u
#define MIB (1ull << 20)

static const struct wire_block blocks[] = { { .name = "pc.ram", .bytes = 96 * MIB } };

/* Pages that inflate to something that is no zeros, and little on the wire. */
static enum wire_how fill(void *opaque, unsigned block, uint64_t tpage, unsigned round, uint8_t *page)
{
	(void)opaque;
	(void)block;
	memset(page, (int)(1 + (tpage + round) % 200), WIRE_TPAGE_BYTES);
	for (unsigned i = 0; i < 64; i++)
		page[64 * i] = (uint8_t)(tpage * 31 + i * 7);
	return WIRE_SEND_PAGE;
}

static void listen_for(struct embedder *e, const char *method, unsigned count)
{
	static const char *const caps[] = { "multifd", NULL };
	char channels[8];
	const char *const params[] = { "multifd-channels", channels, "multifd-compression", method, NULL };

	snprintf(channels, sizeof(channels), "%u", count);
	land_new(e, &(struct land_opts){ .caps = caps, .params = params });
	ck_assert_int_eq(inm_listen(e->inm, "tcp:127.0.0.1:0"), 0);
}

static void play(const char *method, uint32_t flag, enum emb_backing backing, unsigned count)
{
	struct multifd_honest h;
	struct source src[CHANNELS + 1];
	struct source_plan plan[CHANNELS + 1];
	struct source_report report;
	struct embedder e;
	struct stall seen;
	char what[64];

	stall_need_figures();
	snprintf(what, sizeof(what), "%u channels, %s", count, method);
	multifd_honest(&h, &(struct multifd_opts){ .channels = count,
	                                           .method = flag,
	                                           .blocks = blocks,
	                                           .block_count = 1,
	                                           .rounds = 1,
	                                           .fill = fill });
	embedder_init(&e);
	embedder_add(&e, blocks[0].name, blocks[0].bytes, backing);
	listen_for(&e, method, count);
	for (unsigned i = 0; i <= count; i++) {
		plan[i] = (struct source_plan){ .wire = i ? &h.channels[i - 1] : &h.main, .give_up_ms = 100000 };
		source_play_uri(&src[i], &plan[i], inm_address(e.inm, 0));
	}
	stall_begin();
	ck_assert_int_eq(inm_run_until(e.inm, deadline_after_ns(100 * NS_PER_S)), 0);
	stall_end(&seen);
	ck_assert_uint_eq(embedder_compare(&e, &h.image), 0);
	embedder_fini(&e);
	for (unsigned i = 0; i <= count; i++)
		source_wait(&src[i], &report);
	multifd_honest_fini(&h);
	stall_check(&seen, what);
}

TEST_CASE("multifd", 120);

TEST(test_many_channels_of_zlib_do_not_hold_up_others)
{
	play("zlib", WIRE_MULTIFD_ZLIB, EMB_ANON, CHANNELS);
}

TEST(test_many_channels_of_zstd_do_not_hold_up_others)
{
	play("zstd", WIRE_MULTIFD_ZSTD, EMB_ANON, CHANNELS);
}

TEST(test_many_channels_of_plain_pages_do_not_hold_up_others)
{
	play("none", 0, EMB_MEMFD, CHANNELS_PLAIN);
}
