/*
 * multifd_packet.h - the packets of a multifd channel: bytes to checked values
 *
 * Pure: what a header says, checked completely against the blocks that there are, before a byte of its payload is read.
 *
 * Source: doc/wire/multifd.md 2, 3, 4
 */
#ifndef ENGINE_STREAM_MULTIFD_PACKET_H
#define ENGINE_STREAM_MULTIFD_PACKET_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct block;
struct err;
struct ram;

#define MULTIFD_HELLO_BYTES 64
#define MULTIFD_VERSION 1
#define MULTIFD_CHANNELS_MAX 255

/* Pages of one packet, for the smallest target page; a header has this many offsets (doc/wire/multifd.md 2). */
#define MULTIFD_PACKET_PAGE_BYTES 524288
#define MULTIFD_PAGES_MAX 512
#define MULTIFD_HEADER_FIXED_BYTES 320
#define MULTIFD_HEADER_BYTES_MAX (MULTIFD_HEADER_FIXED_BYTES + 8 * MULTIFD_PAGES_MAX)

/* A compressed payload is at most this long; sources stay below (doc/wire/multifd.md 4.3). */
#define MULTIFD_PAYLOAD_BYTES_MAX (1u << 20)

enum multifd_flags {
	MULTIFD_SYNC = 0x01,
	MULTIFD_ZLIB = 0x02,
	MULTIFD_ZSTD = 0x04,
	MULTIFD_QPL = 0x08,
	MULTIFD_UADK = 0x10,
	MULTIFD_QATZIP = 0x20,
	MULTIFD_COMPRESSION = 0x3e,
	MULTIFD_DEVICE_STATE = 0x40,
	MULTIFD_KNOWN = 0x7f,
};

/* Magic, version and flags: which layout follows is in the flags (doc/wire/multifd.md 4). */
#define MULTIFD_PREFIX_BYTES 12

static inline size_t multifd_pages_max(unsigned tpage_shift)
{
	return MULTIFD_PACKET_PAGE_BYTES >> tpage_shift;
}

static inline size_t multifd_header_bytes(unsigned tpage_shift)
{
	return MULTIFD_HEADER_FIXED_BYTES + 8 * multifd_pages_max(tpage_shift);
}

struct multifd_packet {
	bool sync;
	size_t normal_pages, zero_pages;
	size_t payload_bytes;   /* that follow the header; 0 without normal pages */
	struct block *block;    /* NULL without pages */
	const uint8_t *offsets; /* be64 each, in the header: normal pages, then zero pages; all checked */
};

/**
 * multifd_hello_check - the 64 bytes a channel begins with
 * @uuid: of the guest here; NULL: none, and any is accepted
 * Return: the channel's id, 0 to @channels - 1; -EPROTO.
 */
int multifd_hello_check(const uint8_t hello[static MULTIFD_HELLO_BYTES], const uint8_t *uuid, unsigned channels,
                        struct err *err);

/**
 * multifd_packet_check - a whole header
 * @header: multifd_header_bytes() of it; the packet refers to it
 * @compression: the flag that packets with pages must have (0: none)
 * Return: 0, -EPROTO.
 */
int multifd_packet_check(struct multifd_packet *ret, const uint8_t *header, const struct ram *ram, unsigned compression,
                         struct err *err);

#endif
