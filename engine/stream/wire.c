#include "engine/stream/wire.h"

const char *wire_element_name(uint8_t type)
{
	switch (type) {
	case WIRE_EOF:
		return "EOF";
	case WIRE_SECTION_START:
		return "START";
	case WIRE_SECTION_PART:
		return "PART";
	case WIRE_SECTION_END:
		return "END";
	case WIRE_SECTION_FULL:
		return "FULL";
	case WIRE_SUBSECTION:
		return "SUBSECTION";
	case WIRE_VMDESCRIPTION:
		return "VMDESCRIPTION";
	case WIRE_CONFIGURATION:
		return "CONFIGURATION";
	case WIRE_COMMAND:
		return "COMMAND";
	case WIRE_SECTION_FOOTER:
		return "FOOTER";
	default:
		return "unknown";
	}
}

/* doc/wire/stream.md 2 */
static const struct wire_command_row rows[WIRE_CMD_COUNT] = {
	[WIRE_CMD_OPEN_RETURN_PATH] = { "OPEN_RETURN_PATH", 0, 0, 1 },
	[WIRE_CMD_PING] = { "PING", 4, 4, 1 },
	[WIRE_CMD_POSTCOPY_ADVISE] = { "POSTCOPY_ADVISE", 0, 16, 16 },
	[WIRE_CMD_POSTCOPY_LISTEN] = { "POSTCOPY_LISTEN", 0, 0, 1 },
	[WIRE_CMD_POSTCOPY_RUN] = { "POSTCOPY_RUN", 0, 0, 1 },
	[WIRE_CMD_POSTCOPY_RAM_DISCARD] = { "POSTCOPY_RAM_DISCARD", 20, 65535, 1 },
	[WIRE_CMD_PACKAGED] = { "PACKAGED", 4, 4, 1 },
	[WIRE_CMD_ENABLE_COLO] = { "ENABLE_COLO", 0, 0, 1 },
	[WIRE_CMD_POSTCOPY_RESUME] = { "POSTCOPY_RESUME", 0, 0, 1 },
	[WIRE_CMD_RECV_BITMAP] = { "RECV_BITMAP", 2, 256, 1 },
	[WIRE_CMD_SWITCHOVER_START] = { "SWITCHOVER_START", 0, 0, 1 },
};

const struct wire_command_row *wire_command_row(unsigned id)
{
	return id < WIRE_CMD_COUNT && rows[id].name ? &rows[id] : NULL;
}

bool wire_command_fits(unsigned id, size_t payload_bytes)
{
	const struct wire_command_row *row = wire_command_row(id);

	return row && payload_bytes >= row->bytes_min && payload_bytes <= row->bytes_max &&
	       (payload_bytes - row->bytes_min) % row->bytes_step == 0;
}
