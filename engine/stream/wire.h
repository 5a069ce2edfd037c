/*
 * wire.h - the numbers and names of the migration stream, each with its place in the description of the wire
 *
 * What is made of them is in element.h.
 */
#ifndef ENGINE_STREAM_WIRE_H
#define ENGINE_STREAM_WIRE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* doc/wire/stream.md 1.2, 1.3 */
#define WIRE_MAGIC 0x5145564du /* "QEVM" */
#define WIRE_MAGIC_MULTIFD 0x11223344u
#define WIRE_MAGIC_CPR 0x51435052u /* "QCPR" */
#define WIRE_VERSION 3
#define WIRE_VERSION_OBSOLETE 2

/* doc/wire/stream.md 1.4: what an element begins with */
enum wire_element {
	WIRE_EOF = 0x00,
	WIRE_SECTION_START = 0x01,
	WIRE_SECTION_PART = 0x02,
	WIRE_SECTION_END = 0x03,
	WIRE_SECTION_FULL = 0x04,
	WIRE_SUBSECTION = 0x05,
	WIRE_VMDESCRIPTION = 0x06,
	WIRE_CONFIGURATION = 0x07,
	WIRE_COMMAND = 0x08,
	WIRE_SECTION_FOOTER = 0x7e,
};

/** wire_element_name - "FULL", "COMMAND"; "unknown" for what is none */
const char *wire_element_name(uint8_t type);

/* doc/wire/stream.md 2 */
enum wire_command {
	WIRE_CMD_OPEN_RETURN_PATH = 1,
	WIRE_CMD_PING = 2,
	WIRE_CMD_POSTCOPY_ADVISE = 3,
	WIRE_CMD_POSTCOPY_LISTEN = 4,
	WIRE_CMD_POSTCOPY_RUN = 5,
	WIRE_CMD_POSTCOPY_RAM_DISCARD = 6,
	WIRE_CMD_PACKAGED = 7,
	WIRE_CMD_ENABLE_COLO = 8,
	WIRE_CMD_POSTCOPY_RESUME = 9,
	WIRE_CMD_RECV_BITMAP = 10,
	WIRE_CMD_SWITCHOVER_START = 11,
	WIRE_CMD_COUNT,
};

/* A PING of this value asks whether the guest is ours: QEMU 10.2 on (doc/wire/stream.md 2). */
#define WIRE_PING_OWNER 0x42

/* The payload has bytes_min bytes, or so many times bytes_step more, up to bytes_max. */
struct wire_command_row {
	const char *name;
	uint16_t bytes_min, bytes_max, bytes_step;
};

/** wire_command_row - what every command of this id has; NULL where there is none */
const struct wire_command_row *wire_command_row(unsigned id);

/** wire_command_fits - is there such a command, and may its payload have so many bytes? */
bool wire_command_fits(unsigned id, size_t payload_bytes);

/* doc/wire/stream.md 3 */
enum wire_reply {
	WIRE_REPLY_SHUT = 1,
	WIRE_REPLY_PONG = 2,
	WIRE_REPLY_REQ_PAGES_ID = 3,
	WIRE_REPLY_REQ_PAGES = 4,
	WIRE_REPLY_RECV_BITMAP = 5,
	WIRE_REPLY_RESUME_ACK = 6,
	WIRE_REPLY_SWITCHOVER_ACK = 7,
};

/* doc/wire/stream.md 4: flags of a RAM record, below its page-aligned address */
enum wire_ram {
	WIRE_RAM_FULL = 0x001,
	WIRE_RAM_ZERO = 0x002,
	WIRE_RAM_MEM_SIZE = 0x004,
	WIRE_RAM_PAGE = 0x008,
	WIRE_RAM_EOS = 0x010,
	WIRE_RAM_CONTINUE = 0x020,
	WIRE_RAM_XBZRLE = 0x040,
	WIRE_RAM_HOOK = 0x080,
	WIRE_RAM_COMPRESS_PAGE = 0x100,
	WIRE_RAM_MULTIFD_FLUSH = 0x200,
};

#define WIRE_RAM_VERSION 4

/*
 * A target page on x86 and most others. Where it differs from what its architecture once had, a configuration
 * subsection says it (doc/wire/stream.md 1.3). Below 10 bits the flags of a RAM record would not fit.
 */
#define WIRE_TPAGE_BITS_DEFAULT 12
#define WIRE_TPAGE_BITS_MIN 10 /* ARM boards */
#define WIRE_TPAGE_BITS_MAX 16 /* ARM and others go up to 64 KiB */

#endif
