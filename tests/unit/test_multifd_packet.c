/* Every field of a multifd channel's packets is checked (doc/wire/multifd.md 3, 4.3, 4.4). */
#include "tests/support/check_main.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/be.h"
#include "base/err.h"
#include "engine/stream/multifd_packet.h"
#include "memory/block.h"
#include "tests/support/wire.h"

#define PAGE 4096u
#define K WIRE_MULTIFD_PAGES_MAX

/* ---- the 64 bytes ---------------------------------------------------------------------------------------------- */

static const uint8_t uuid[16] = { 0x00, 0x11, 0x22, 0x33, 0x44, 0x55, 0x66, 0x77,
	                          0x88, 0x99, 0xaa, 0xbb, 0xcc, 0xdd, 0xee, 0xff };
static const uint8_t other_uuid[16] = { 1 };

/* Return: of the check, with one byte changed (@at below 64). */
static int check_hello(uint8_t id, const uint8_t *theirs, const uint8_t *ours, unsigned channels, unsigned at,
                       struct err *err)
{
	struct wire w = { 0 };
	int r;

	*err = ERR_NONE;
	wire_multifd_hello(&w, theirs, id);
	ck_assert_uint_eq(w.len, MULTIFD_HELLO_BYTES);
	if (at < w.len)
		w.data[at] ^= 0x40;
	r = multifd_hello_check(w.data, ours, channels, err);
	wire_fini(&w);
	return r;
}

TEST_CASE("hello", 4);

TEST(test_every_id_below_the_number_of_channels_is_taken)
{
	struct err err;

	for (unsigned channels = 1; channels <= 255; channels++)
		for (unsigned id = 0; id <= 255; id++) {
			int r = check_hello((uint8_t)id, uuid, uuid, channels, 64, &err);

			if (id < channels)
				ck_assert_int_eq(r, (int)id);
			else
				ck_assert_int_eq(r, -EPROTO);
			if (id >= channels)
				ck_assert_msg(strstr(err.text, "multifd-channels"), "%s", err.text);
		}
}

TEST(test_uuids_must_be_the_same_if_there_is_one_here)
{
	static const uint8_t zeros[16];
	struct err err;

	ck_assert_int_eq(check_hello(1, uuid, uuid, 2, 64, &err), 1);
	ck_assert_int_eq(check_hello(1, zeros, zeros, 2, 64, &err), 1);
	ck_assert_int_eq(check_hello(1, uuid, NULL, 2, 64, &err), 1);
	ck_assert_int_eq(check_hello(1, other_uuid, uuid, 2, 64, &err), -EPROTO);
	ck_assert_msg(strstr(err.text, "uuid"), "%s", err.text);
	ck_assert_int_eq(check_hello(1, zeros, uuid, 2, 64, &err), -EPROTO);
}

TEST(test_of_the_sixty_four_bytes_those_with_a_meaning_are_checked)
{
	struct err err;

	for (unsigned at = 0; at < MULTIFD_HELLO_BYTES; at++)
		ck_assert_msg(check_hello(0, uuid, uuid, 2, at, &err) == (at < 25 ? -EPROTO : 0), "byte %u", at);
}

/* ---- headers --------------------------------------------------------------------------------------------------- */

static struct ram ram;
static uint8_t *memory;

static void add_block(const char *name, unsigned pages, bool ignored)
{
	const struct block_source source = { .fd = -1, .addr = memory, .ignored = ignored };
	struct block *b;

	ck_assert_int_eq(ram_add(&ram, name, strlen(name), pages * PAGE, &source, &b), 0);
}

static void setup(void)
{
	char longest[256];

	ck_assert_int_eq(posix_memalign((void **)&memory, PAGE, 200 * PAGE), 0);
	memset(longest, 'n', 255);
	longest[255] = 0;
	ram_init(&ram, 12);
	add_block("pc.ram", 200, false);
	add_block("rom", 1, false);
	add_block("shared", 4, true);
	add_block(longest, 2, false);
}

static void teardown(void)
{
	ram_fini(&ram);
	free(memory);
}

static struct wire wire_of_packet; /* the packet refers to it */

static int check_packet(const struct wire_packet *p, unsigned compression, struct multifd_packet *ret, struct err *err)
{
	wire_fini(&wire_of_packet);
	*err = ERR_NONE;
	*ret = (struct multifd_packet){ .normal_pages = 77 };
	wire_multifd_header(&wire_of_packet, p);
	ck_assert_uint_eq(wire_of_packet.len, multifd_header_bytes(12));
	ck_assert_uint_eq(wire_of_packet.len, 1344);
	return multifd_packet_check(ret, wire_of_packet.data, &ram, compression, err);
}

/* An honest packet of @normal and @zero pages, to be spoiled. */
static uint64_t offs[2 * K];

static struct wire_packet honest(unsigned normal, unsigned zero, uint32_t method)
{
	for (unsigned i = 0; i < 2 * K; i++)
		offs[i] = (uint64_t)(i * 37 % 200) * PAGE;
	return (struct wire_packet){ .flags = method,
		                     .pages_alloc = K,
		                     .normal_pages = normal,
		                     .zero_pages = zero,
		                     .payload_bytes = normal ? method ? 100 : normal * PAGE : 0,
		                     .block = "pc.ram",
		                     .offsets = offs,
		                     .offset_count = K };
}

static void accepts(const struct wire_packet *p, unsigned compression)
{
	struct multifd_packet got;
	struct err err;
	int r = check_packet(p, compression, &got, &err);

	ck_assert_msg(r == 0, "%u + %u pages: %s", p->normal_pages, p->zero_pages, err.text);
	ck_assert_uint_eq(got.normal_pages, p->normal_pages);
	ck_assert_uint_eq(got.zero_pages, p->zero_pages);
	ck_assert_uint_eq(got.payload_bytes, p->normal_pages ? p->payload_bytes : 0);
	ck_assert_int_eq(got.sync, p->flags & WIRE_MULTIFD_SYNC);
	ck_assert_int_eq(got.block != NULL, p->normal_pages + p->zero_pages > 0);
	for (unsigned i = 0; got.block && i < p->normal_pages + p->zero_pages; i++)
		ck_assert_uint_eq(be64_load(got.offsets + 8 * i), p->offsets[i]);
}

/* The result is written only on success. */
static void refuses(const struct wire_packet *p, unsigned compression, const char *word)
{
	struct multifd_packet got;
	struct err err;
	int r = check_packet(p, compression, &got, &err);

	ck_assert_msg(r == -EPROTO, "%s: %d", word, r);
	ck_assert_msg(strstr(err.text, word), "no '%s' in '%s'", word, err.text);
	ck_assert_uint_eq(got.normal_pages, 77);
}

static void free_wire(void)
{
	wire_fini(&wire_of_packet);
	teardown();
}

TEST_CASE("header", 30, .checked = { setup, free_wire });

TEST(test_every_number_of_pages_that_fits_is_taken)
{
	for (unsigned normal = 0; normal <= K; normal++)
		for (unsigned zero = 0; zero <= K - normal; zero++) {
			struct wire_packet p = honest(normal, zero, 0);

			accepts(&p, 0);
		}
}

TEST(test_numbers_of_pages_that_do_not_fit_are_refused)
{
	static const uint32_t rows[][3] = {
		/* alloc, normal, zero */
		{ K, K + 1, 0 },
		{ K, 0, K + 1 },
		{ K, K, 1 },
		{ K, 1, K },
		{ K, 65, 64 },
		{ K, UINT32_MAX, 0 },
		{ K, UINT32_MAX, 1 },
		{ K, 1, UINT32_MAX },
		{ K, 2, UINT32_MAX - 1 },
		{ K, 0x80000000, 0x80000000 },
		{ K, 1, 0x80000000 },
		{ K + 1, 1, 0 },
		{ K + 1, 0, 0 },
		{ UINT32_MAX, 1, 0 },
		{ UINT32_MAX, UINT32_MAX, 0 },
		{ 0, 1, 0 },
		{ 0, 0, 1 },
		{ 1, 1, 1 },
		{ 5, 3, 3 },
	};

	for (unsigned i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		struct wire_packet p = honest(1, 0, 0);

		p.pages_alloc = rows[i][0];
		p.normal_pages = rows[i][1];
		p.zero_pages = rows[i][2];
		p.payload_bytes = p.normal_pages * PAGE;
		refuses(&p, 0, "pages");
	}
}

TEST(test_magic_version_and_flags_are_checked)
{
	struct wire_packet p = honest(1, 0, 0);

	p.magic = 0x44332211;
	refuses(&p, 0, "magic");
	p = honest(1, 0, 0);
	p.version = 2;
	refuses(&p, 0, "version 2");
	for (unsigned bit = 7; bit < 32; bit++) {
		p = honest(1, 0, 0);
		p.flags |= 1u << bit;
		refuses(&p, 0, "flags");
		p = (struct wire_packet){ .flags = 1u << bit | WIRE_MULTIFD_SYNC };
		refuses(&p, 0, "flags");
	}
}

TEST(test_blocks_must_be_known_and_sent)
{
	char name[257];
	struct wire_packet p = honest(1, 0, 0);

	p.block = "pc.rom";
	refuses(&p, 0, "pc.rom");
	p.block = "";
	refuses(&p, 0, "unknown block");
	p.block = "pc.ra";
	refuses(&p, 0, "unknown block");
	p.block = "pc.ramm";
	refuses(&p, 0, "unknown block");
	p.block = "shared";
	refuses(&p, 0, "shared");
	p = honest(0, 1, 0);
	p.block = "nowhere";
	refuses(&p, 0, "nowhere");
	/* 256 bytes without a NUL: the last one counts as it (4.3, rule 5), so the name is one of 255. */
	memset(name, 'n', 256);
	name[256] = 0;
	p = honest(1, 0, 0);
	p.block = name;
	p.offset_count = 1;
	accepts(&p, 0);
	name[100] = '\n';
	refuses(&p, 0, "unknown block");
}

TEST(test_bytes_of_a_name_are_quoted)
{
	struct wire_packet p = honest(1, 0, 0);
	struct multifd_packet got;
	struct err err;

	p.block = "a\x1b[31m\nb";
	ck_assert_int_eq(check_packet(&p, 0, &got, &err), -EPROTO);
	for (const char *c = err.text; *c; c++)
		ck_assert_msg(*c >= ' ' && *c < 127, "byte 0x%02x in the text", (unsigned char)*c);
}

/* The last page is taken, the next one is not; also in the last place of the list, and for zero pages. */
TEST(test_every_used_offset_is_checked)
{
	static const uint64_t bad[] = {
		200 * PAGE, 200 * PAGE - 1,        199 * PAGE + 1, 1, 2048, 1ull << 32, 1ull << 63,
		UINT64_MAX, UINT64_MAX - PAGE + 1, (uint64_t)-PAGE
	};

	for (unsigned i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		for (unsigned at = 0; at < K; at += at == 63 ? 1 : 63 + at % 2) {
			struct wire_packet p = honest(64, 64, 0);

			offs[at] = 199 * PAGE;
			accepts(&p, 0);
			offs[at] = bad[i];
			refuses(&p, 0, "no page at offset 0x");
		}
	}
}

TEST(test_offsets_that_are_not_used_are_ignored)
{
	struct wire_packet p = honest(3, 2, 0);

	for (unsigned i = 5; i < K; i++)
		offs[i] = UINT64_MAX - i;
	accepts(&p, 0);
	p = honest(1, 0, 0);
	p.block = "rom";
	p.offset_count = 1;
	accepts(&p, 0);
}

TEST(test_payloads_of_plain_pages_are_exact)
{
	for (unsigned normal = 1; normal <= K; normal += 127) {
		const uint32_t right = normal * PAGE;
		const uint32_t wrong[] = { 0, right - 1, right + 1, right - PAGE, right + PAGE, UINT32_MAX };

		for (unsigned i = 0; i < 6; i++) {
			struct wire_packet p = honest(normal, 0, 0);

			p.payload_bytes = wrong[i];
			refuses(&p, 0, "payload");
		}
	}
}

TEST(test_payloads_of_compressed_pages_are_bounded)
{
	static const uint32_t good[] = { 1, 100, MULTIFD_PAYLOAD_BYTES_MAX };
	static const uint32_t bad[] = { 0, MULTIFD_PAYLOAD_BYTES_MAX + 1, 0x80000000, UINT32_MAX };

	for (unsigned m = WIRE_MULTIFD_ZLIB; m <= WIRE_MULTIFD_ZSTD; m *= 2) {
		for (unsigned i = 0; i < 3; i++) {
			struct wire_packet p = honest(5, 0, m);

			p.payload_bytes = good[i];
			accepts(&p, m);
		}
		for (unsigned i = 0; i < 4; i++) {
			struct wire_packet p = honest(5, 0, m);

			p.payload_bytes = bad[i];
			refuses(&p, m, "payload");
		}
	}
}

/* Exactly one value of the field is right: not two bits, not none, and not another method. */
TEST(test_the_compression_must_be_the_one_that_was_agreed)
{
	static const unsigned agreed[] = { 0, WIRE_MULTIFD_ZLIB, WIRE_MULTIFD_ZSTD };

	for (unsigned a = 0; a < 3; a++)
		for (unsigned field = 0; field < 64; field += 2) {
			struct wire_packet p = honest(1, 0, 0);

			p.flags = field;
			p.payload_bytes = agreed[a] ? 100 : PAGE;
			if (field == agreed[a])
				accepts(&p, agreed[a]);
			else
				refuses(&p, agreed[a], "compression");
		}
}

TEST(test_packets_of_zero_pages_alone_may_carry_the_methods_bits_or_none)
{
	static const unsigned methods[] = { 0, WIRE_MULTIFD_ZLIB, WIRE_MULTIFD_ZSTD };

	for (unsigned m = 0; m < 3; m++)
		for (unsigned bits = 0; bits < 3; bits++) {
			struct wire_packet p = honest(0, K, 0);

			p.flags = methods[bits];
			accepts(&p, methods[m]);
		}
}

/* 4.4: all that a packet without pages says besides SYNC is what the last one said. */
TEST(test_stale_fields_of_packets_without_pages_are_ignored)
{
	static const unsigned methods[] = { 0, WIRE_MULTIFD_ZLIB, WIRE_MULTIFD_ZSTD };

	for (unsigned m = 0; m < 3; m++)
		for (unsigned sync = 0; sync < 2; sync++)
			for (unsigned alloc = 0; alloc <= K; alloc += K) {
				struct wire_packet p = honest(0, 0, 0);

				p.flags = sync;
				p.pages_alloc = alloc;
				p.payload_bytes = 0xdeadbeef;
				p.block = "gone";
				for (unsigned i = 0; i < K; i++)
					offs[i] = UINT64_MAX;
				accepts(&p, methods[m]);
				p.flags |= 0x3e;
				accepts(&p, methods[m]);
			}
}

TEST(test_a_sync_packet_may_carry_pages_and_payload)
{
	struct wire_packet p = honest(K, 0, 0);

	p.flags |= WIRE_MULTIFD_SYNC;
	accepts(&p, 0);
	p = honest(1, 0, WIRE_MULTIFD_ZLIB);
	p.flags |= WIRE_MULTIFD_SYNC;
	accepts(&p, WIRE_MULTIFD_ZLIB);
}

/* 12: the vectors of captures. */
TEST(test_captured_headers_are_understood)
{
	static const uint64_t captured[] = { 0, 0x9000, 0x6000, 0x4000 };
	struct wire_packet p = honest(3, 125, 0);
	struct multifd_packet got;
	struct err err;

	memcpy(offs, captured, sizeof(captured));
	ck_assert_int_eq(check_packet(&p, 0, &got, &err), 0);
	ck_assert_int_eq(
	        memcmp(wire_of_packet.data, "\x11\x22\x33\x44\0\0\0\1\0\0\0\0\0\0\0\x80\0\0\0\x03\0\0\x30\0", 24), 0);
	ck_assert_uint_eq(got.payload_bytes, 0x3000);
	ck_assert_uint_eq(got.zero_pages, 0x7d);
	p = (struct wire_packet){ .pages_alloc = K, .payload_bytes = 0x40, .packet_num = 0x15, .block = "pc.ram" };
	accepts(&p, WIRE_MULTIFD_ZLIB); /* the phantom */
	p.flags = 3;
	p.normal_pages = 1;
	p.offsets = captured;
	p.offset_count = 1;
	accepts(&p, WIRE_MULTIFD_ZLIB);
}

TEST(test_the_length_of_a_header_follows_the_page_size)
{
	ck_assert_uint_eq(multifd_pages_max(12), 128);
	ck_assert_uint_eq(multifd_pages_max(16), 8);
	ck_assert_uint_eq(multifd_header_bytes(14), 320 + 8 * 32);
	ck_assert_uint_eq(multifd_header_bytes(12), 1344);
	ck_assert_uint_eq(multifd_header_bytes(10), MULTIFD_HEADER_BYTES_MAX);
	ck_assert_uint_eq(MULTIFD_HEADER_BYTES_MAX, 320 + 8 * 512);
}
