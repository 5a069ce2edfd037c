#include "engine/stream/opening.h"

#include "base/err.h"
#include "base/text.h"
#include "engine/stream/element.h"
#include "memory/block.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

#define HEADER_BYTES 8
#define MACHINE_BYTES_MAX 255

static int look_at_header(const uint8_t *bytes, struct err *err)
{
	if (be32_load(bytes) != WIRE_MAGIC)
		return err_set(err, -EPROTO, "not a migration stream");
	if (be32_load(bytes + 4) != WIRE_VERSION)
		return err_set(err, -EPROTO, "stream version %" PRIu32 " is unknown; version 3 is expected",
		               be32_load(bytes + 4));
	return 0;
}

/* Return: how many bytes the machine type takes with its type and length; 0 when it has not come; -EPROTO. */
static int look_at_machine(const uint8_t *bytes, size_t len, struct err *err)
{
	uint32_t name_bytes;

	if (len > 0 && bytes[0] != WIRE_CONFIGURATION)
		return err_set(err, -EPROTO,
		               "configuration section expected, found 0x%02x; if the source has send-configuration "
		               "off, turn it off here too",
		               bytes[0]);
	if (len < 5)
		return 0;
	name_bytes = be32_load(bytes + 1);
	if (name_bytes > MACHINE_BYTES_MAX)
		return err_set(err, -EPROTO, "a machine type's name of %" PRIu32 " bytes; 255 are possible",
		               name_bytes);
	return len - 5 < name_bytes ? 0 : (int)(5 + name_bytes);
}

/* The commands before the first section. */
static int look_at_elements(const uint8_t *bytes, size_t len, struct err *err)
{
	struct command_head head;
	size_t at = 0;

	while (at < len && bytes[at] == WIRE_COMMAND) {
		if (element_command(&head, bytes + at, len - at) == 0)
			return OPENING_SETTLED;
		at += COMMAND_HEAD_BYTES;
		if (len - at < head.payload_bytes)
			return OPENING_SETTLED;
		at += head.payload_bytes;
	}
	if (at == len)
		return OPENING_SETTLED;
	switch (bytes[at]) {
	case WIRE_SECTION_START:
	case WIRE_SECTION_FULL:
	case WIRE_SUBSECTION: /* of the configuration, whose loader knows how long it is */
		return OPENING_DONE;
	default:
		return err_set(err, -EPROTO, "element 0x%02x where a source's first section is expected", bytes[at]);
	}
}

int opening_look(const uint8_t *bytes, size_t len, bool configuration, struct err *err)
{
	size_t at = HEADER_BYTES;
	int e;

	if (len < HEADER_BYTES)
		return OPENING_SHORT;
	e = look_at_header(bytes, err);
	if (e == 0 && configuration) {
		e = look_at_machine(bytes + at, len - at, err);
		if (e == 0)
			return OPENING_SHORT;
	}
	return e < 0 ? e : look_at_elements(bytes + at + e, len - at - (size_t)e, err);
}

int opening_look_recovery(const uint8_t *bytes, size_t len, const struct ram *ram, struct err *err)
{
	struct command_head head;
	const char *name;
	size_t name_bytes;

	if (len > 0 && bytes[0] != WIRE_COMMAND)
		return err_set(err, -EPROTO, "element 0x%02x where a recovery's commands are expected", bytes[0]);
	if (element_command(&head, bytes, len) == 0)
		return OPENING_SHORT;
	if (head.id == WIRE_CMD_POSTCOPY_RESUME && head.payload_bytes == 0)
		return OPENING_DONE;
	if (head.id != WIRE_CMD_RECV_BITMAP || !wire_command_fits(head.id, head.payload_bytes))
		return err_set(err, -EPROTO, "command %u with %u bytes, where a recovery begins with RECV_BITMAP",
		               head.id, head.payload_bytes);
	if (len - COMMAND_HEAD_BYTES < head.payload_bytes)
		return OPENING_SHORT;
	bytes += COMMAND_HEAD_BYTES;
	if (!element_recv_bitmap(&name, &name_bytes, bytes, head.payload_bytes) || !ram_find(ram, name, name_bytes))
		return err_set(err, -EPROTO, "it asks for the pages of unknown block '%s'",
		               TEXT_QUOTE((const char *)bytes + 1, head.payload_bytes - 1u));
	return OPENING_DONE;
}
