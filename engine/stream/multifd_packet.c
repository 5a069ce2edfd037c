#include "engine/stream/multifd_packet.h"

#include "base/be.h"
#include "base/err.h"
#include "base/text.h"
#include "engine/stream/wire.h"
#include "memory/block.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

_Static_assert(MULTIFD_PAGES_MAX == MULTIFD_PACKET_PAGE_BYTES >> WIRE_TPAGE_BITS_MIN, "the smallest target page");

/* Where the fields are; doc/wire/multifd.md 3, 4.1. */
enum {
	HELLO_UUID = 8,
	HELLO_ID = 24,
	AT_MAGIC = 0,
	AT_VERSION = 4,
	AT_FLAGS = 8,
	AT_PAGES_ALLOC = 12,
	AT_NORMAL_PAGES = 16,
	AT_PAYLOAD_BYTES = 20,
	AT_ZERO_PAGES = 32,
	AT_BLOCK = 64,
	AT_OFFSETS = 320,
	BLOCK_BYTES = 256,
};

static int check_magic(const uint8_t *p, struct err *err)
{
	if (be32_load(p + AT_MAGIC) != WIRE_MAGIC_MULTIFD)
		return err_set(err, -EPROTO, "magic 0x%08" PRIx32 " instead of 0x11223344", be32_load(p + AT_MAGIC));
	if (be32_load(p + AT_VERSION) != MULTIFD_VERSION)
		return err_set(err, -EPROTO, "version %" PRIu32 " is unknown; version 1 is expected",
		               be32_load(p + AT_VERSION));
	return 0;
}

int multifd_hello_check(const uint8_t hello[static MULTIFD_HELLO_BYTES], const uint8_t *uuid, unsigned channels,
                        struct err *err)
{
	int e = check_magic(hello, err);

	if (e < 0)
		return e;
	if (uuid && memcmp(hello + HELLO_UUID, uuid, 16) != 0)
		return err_set(err, -EPROTO, "a multifd channel of a guest with another uuid");
	if (hello[HELLO_ID] >= channels)
		return err_set(err, -EPROTO,
		               "multifd channel %u: the source has more multifd channels than %u; set "
		               "multifd-channels to the same on both sides",
		               hello[HELLO_ID], channels);
	return hello[HELLO_ID];
}

static int find_block(struct multifd_packet *p, const uint8_t *header, const struct ram *ram, struct err *err)
{
	const char *name = (const char *)header + AT_BLOCK;
	size_t bytes = strnlen(name, BLOCK_BYTES - 1);

	p->block = ram_find(ram, name, bytes);
	if (!p->block)
		return err_set(err, -EPROTO, "unknown block '%s'", TEXT_QUOTE(name, bytes));
	if (p->block->kind == BLOCK_IGNORED)
		return err_set(err, -EPROTO, "pages for block '%s', which is shared and not sent",
		               TEXT_QUOTE(name, bytes));
	return 0;
}

static int check_offsets(const struct multifd_packet *p, const struct ram *ram, struct err *err)
{
	size_t page_bytes = ram_tpage_bytes(ram);

	for (size_t i = 0; i < p->normal_pages + p->zero_pages; i++) {
		uint64_t off = be64_load(p->offsets + 8 * i);

		/* used_bytes is a multiple of the page and not zero, so nothing here can wrap. */
		if (off % page_bytes || off > p->block->used_bytes - page_bytes)
			return err_set(err, -EPROTO, "block '%s' has no page at offset 0x%" PRIx64,
			               TEXT_QUOTE(p->block->name, p->block->name_bytes), off);
	}
	return 0;
}

static int check_payload(struct multifd_packet *p, const uint8_t *header, size_t page_bytes, unsigned compression,
                         struct err *err)
{
	uint32_t bytes = be32_load(header + AT_PAYLOAD_BYTES);
	unsigned flags = be32_load(header + AT_FLAGS) & MULTIFD_COMPRESSION;

	/* Zero pages alone carry the method's bits in some releases and none in others: they have no payload. */
	if (p->normal_pages == 0)
		return 0;
	if (flags != compression)
		return err_set(err, -EPROTO, "compression 0x%02x; parameter multifd-compression here means 0x%02x",
		               flags, compression);
	if (compression == 0 ? bytes != p->normal_pages * page_bytes : bytes == 0 || bytes > MULTIFD_PAYLOAD_BYTES_MAX)
		return err_set(err, -EPROTO, "%" PRIu32 " bytes of payload for %zu pages", bytes, p->normal_pages);
	p->payload_bytes = bytes;
	return 0;
}

int multifd_packet_check(struct multifd_packet *ret, const uint8_t *header, const struct ram *ram, unsigned compression,
                         struct err *err)
{
	uint32_t flags = be32_load(header + AT_FLAGS), alloc = be32_load(header + AT_PAGES_ALLOC);
	uint32_t normal = be32_load(header + AT_NORMAL_PAGES), zero = be32_load(header + AT_ZERO_PAGES);
	struct multifd_packet p = { .sync = flags & MULTIFD_SYNC, .offsets = header + AT_OFFSETS };
	int e = check_magic(header, err);

	if (e < 0)
		return e;
	if (flags & ~(uint32_t)MULTIFD_KNOWN)
		return err_set(err, -EPROTO, "flags 0x%" PRIx32 ", which no source sends", flags);
	if (alloc > multifd_pages_max(ram->tpage_shift) || normal > alloc || zero > alloc - normal)
		return err_set(err, -EPROTO, "%" PRIu32 " normal and %" PRIu32 " zero pages of %" PRIu32 "; %zu fit",
		               normal, zero, alloc, multifd_pages_max(ram->tpage_shift));
	p.normal_pages = normal;
	p.zero_pages = zero;
	/* Without pages all else is stale, and no payload follows, whatever it says (doc/wire/multifd.md 4.4). */
	if (normal + zero > 0) {
		e = find_block(&p, header, ram, err);
		if (e == 0)
			e = check_offsets(&p, ram, err);
		if (e == 0)
			e = check_payload(&p, header, ram_tpage_bytes(ram), compression, err);
		if (e < 0)
			return e;
	}
	*ret = p;
	return 0;
}
