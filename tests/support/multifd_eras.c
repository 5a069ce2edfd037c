#include "tests/support/multifd_eras.h"

const struct wire_block multifd_big_blocks[MULTIFD_BIG_BLOCKS] = {
	{ .name = "pc.ram", .bytes = 600 * WIRE_TPAGE_BYTES },
	{ .name = "vga.vram", .bytes = 5 * WIRE_TPAGE_BYTES },
	{ .name = "rom", .bytes = 1 * WIRE_TPAGE_BYTES },
};

const struct multifd_era multifd_eras[MULTIFD_ERAS] = {
	{ "7.2", true, true, true },
	{ "8.2", false, true, true },
	{ "9.0 and later", false, false, false },
	{ "10.0 with machine 7.2", true, false, true },
	{ "10.0 with machine 8.2", false, false, true },
	{ "9.0 and later, per section", true, false, false },
};

const uint32_t multifd_methods[MULTIFD_METHODS] = { 0, WIRE_MULTIFD_ZLIB, WIRE_MULTIFD_ZSTD };

struct multifd_opts multifd_opts_of(const struct multifd_era *era, unsigned channels, uint32_t method)
{
	return (struct multifd_opts){ .channels = channels,
		                      .method = method,
		                      .per_section = era->per_section,
		                      .old = era->old,
		                      .zero_in_main = era->zero_in_main };
}
