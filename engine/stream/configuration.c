#include "engine/stream/configuration.h"

#include "base/err.h"
#include "base/text.h"
#include "engine/options/options.h"
#include "engine/options/options_table.h"
#include "engine/stream/reader.h"
#include "engine/stream/trace.h"
#include "engine/stream/wire.h"

#include <errno.h>
#include <fnmatch.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

/* More than there are capabilities in any release (doc/wire/stream.md 11). */
#define CAPABILITIES_MAX 64

/* What else a source sends, where somebody has captured it. */
static const char *what_else(uint32_t magic)
{
	if (magic == WIRE_MAGIC_MULTIFD)
		return ", as a multifd channel does: its pages belong to the stream of the main channel";
	if (magic == WIRE_MAGIC_CPR)
		return ", as the channel of mode cpr-transfer does, which is not supported";
	if (magic >> 16 == 0x1603)
		return ", as TLS does";
	if (magic >> 24 == WIRE_COMMAND)
		return ", as the connection of a recovery does, which goes on where another one ended";
	if (magic >> 16 == 0x1f8b)
		return ", as what gzip has compressed: 'exec:gzip -dc FILE' reads it";
	if (magic >> 8 == 0x425a68)
		return ", as what bzip2 has compressed: 'exec:bzip2 -dc FILE' reads it";
	if (magic == 0xfd377a58)
		return ", as what xz has compressed: 'exec:xz -dc FILE' reads it";
	if (magic == 0x28b52ffd)
		return ", as what zstd has compressed: 'exec:zstd -dc FILE' reads it";
	if (magic == 0x4c696276) /* "Libv" */
		return ", as a file of libvirt's does: the stream comes after a header of libvirt's own";
	return "";
}

static int read_header(struct reader *r, const struct trace *trace, struct err *err)
{
	uint64_t off = reader_off(r);
	uint32_t magic, version;
	int e = reader_be32(r, &magic, err);

	if (e < 0)
		return e;
	if (magic != WIRE_MAGIC)
		return err_set(err, -EPROTO,
		               "not a migration stream: it begins with 0x%08" PRIx32 " instead of \"QEVM\"%s", magic,
		               what_else(magic));
	e = reader_be32(r, &version, err);
	if (e < 0)
		return e;
	TRACE(trace, off, 0, "header: version %" PRIu32, version);
	if (version == WIRE_VERSION_OBSOLETE)
		return err_set(err, -EPROTO, "stream version 2 is obsolete");
	if (version != WIRE_VERSION)
		return err_set(err, -EPROTO, "stream version %" PRIu32 " is unknown; version 3 is expected", version);
	return 0;
}

/* The validated capabilities must be equal both ways (doc/wire/stream.md 1.3). */
static int check_capabilities(uint32_t at_source, const struct options *opts, struct err *err)
{
	static const enum cap validated[] = { CAP_X_IGNORE_SHARED, CAP_MAPPED_RAM };

	for (size_t i = 0; i < sizeof(validated) / sizeof(validated[0]); i++) {
		bool theirs = at_source >> validated[i] & 1, ours = options_has(opts, validated[i]);
		const struct cap_row *row = options_cap_row(validated[i]);

		/* To turn it on here would only lead to the next refusal. */
		if (theirs && row->support == SUPPORT_REFUSED)
			return err_set(err, -ENOTSUP, "capability %s is on at the source: %s", row->name, row->note);
		if (theirs != ours && !opts->looking)
			return err_set(err, -EPROTO, "capability %s is %s at the source and %s here", row->name,
			               theirs ? "on" : "off", ours ? "on" : "off");
	}
	return 0;
}

static int read_capabilities(struct reader *r, uint32_t *caps, const struct trace *trace, struct err *err)
{
	uint32_t count;
	int e = reader_be32(r, &count, err);

	if (e < 0)
		return e;
	if (count > CAPABILITIES_MAX)
		return err_set(err, -EPROTO, "%" PRIu32 " capabilities; there are not that many", count);
	while (count-- > 0) {
		uint64_t off = reader_off(r);
		char name[256];
		size_t bytes;
		unsigned i = 0;

		e = reader_str8(r, name, &bytes, err);
		if (e < 0)
			return e;
		while (i < CAP_COUNT && (strlen(options_cap_row(i)->name) != bytes ||
		                         memcmp(options_cap_row(i)->name, name, bytes) != 0))
			i++;
		if (i != CAP_X_IGNORE_SHARED && i != CAP_MAPPED_RAM)
			return err_set(err, -EPROTO, "unknown capability '%s'", TEXT_QUOTE(name, bytes));
		TRACE(trace, off, 1, "capability %s", name);
		*caps |= 1u << i;
	}
	return 0;
}

static int read_uuid(struct configuration *config, struct reader *r, const struct trace *trace, struct err *err)
{
	const uint8_t *u = config->uuid;
	int e = reader_bytes(r, config->uuid, sizeof(config->uuid), err);

	if (e < 0)
		return e;
	config->has_uuid = true;
	TRACE(trace, reader_off(r) - 16, 1, "uuid %02x%02x%02x%02x-%02x%02x-%02x%02x-%02x%02x-%02x%02x%02x%02x%02x%02x",
	      u[0], u[1], u[2], u[3], u[4], u[5], u[6], u[7], u[8], u[9], u[10], u[11], u[12], u[13], u[14], u[15]);
	return 0;
}

static int read_page_bits(struct configuration *config, struct reader *r, struct err *err)
{
	uint32_t bits;
	int e = reader_be32(r, &bits, err);

	if (e < 0)
		return e;
	if (bits < WIRE_TPAGE_BITS_MIN || bits > WIRE_TPAGE_BITS_MAX)
		return err_set(err, -EPROTO, "target pages of 2^%" PRIu32 " bytes; 2^%d to 2^%d are possible", bits,
		               WIRE_TPAGE_BITS_MIN, WIRE_TPAGE_BITS_MAX);
	config->tpage_bits = bits;
	config->tpage_assumed = false;
	return 0;
}

static int read_subsection(struct configuration *config, uint32_t *caps, struct reader *r, const struct trace *trace,
                           struct err *err)
{
	uint64_t off = reader_off(r);
	uint32_t version;
	char name[256];
	size_t bytes;
	int e;

	reader_skip(r, 1);
	e = reader_str8(r, name, &bytes, err);
	if (e == 0)
		e = reader_be32(r, &version, err);
	if (e < 0)
		return e;
	TRACE(trace, off, 1, "subsection '%s' version %" PRIu32, TEXT_QUOTE(name, bytes), version);
	if (version != 1)
		e = err_set(err, -EPROTO, "version %" PRIu32 " is unknown; version 1 is expected", version);
	else if (strcmp(name, "configuration/target-page-bits") == 0)
		e = read_page_bits(config, r, err);
	else if (strcmp(name, "configuration/capabilities") == 0)
		e = read_capabilities(r, caps, trace, err);
	else if (strcmp(name, "configuration/uuid") == 0)
		e = read_uuid(config, r, trace, err);
	else
		e = err_set(err, -EPROTO, "unknown");
	if (e < 0)
		return err_up(err, e, "configuration subsection '%s' at 0x%" PRIx64, TEXT_QUOTE(name, bytes), off);
	return 0;
}

static int read_machine(struct configuration *config, struct reader *r, const struct options *opts,
                        const struct trace *trace, struct err *err)
{
	uint64_t off = reader_off(r);
	uint32_t bytes;
	int e;

	reader_skip(r, 1);
	e = reader_be32(r, &bytes, err);
	if (e < 0)
		return e;
	if (bytes >= sizeof(config->machine))
		return err_set(err, -EPROTO, "a machine type's name of %" PRIu32 " bytes; 255 are possible", bytes);
	e = reader_bytes(r, config->machine, bytes, err);
	if (e < 0)
		return e;
	TRACE(trace, off, 0, "configuration: machine type '%s'", TEXT_QUOTE(config->machine, bytes));
	if (memchr(config->machine, '\0', bytes))
		return err_set(err, -EPROTO, "machine type '%s' has a zero byte in its name",
		               TEXT_QUOTE(config->machine, bytes));
	config->machine[bytes] = '\0';
	if (opts->machine[0] && strcmp(opts->machine, config->machine) != 0)
		return err_set(err, -EPROTO, "the source's machine type is '%s'; here it is '%s'",
		               TEXT_QUOTE(config->machine, bytes), opts->machine);
	return 0;
}

/* A source without a UUID sends none even with validate-uuid on, and a destination without one accepts any. */
static int check_uuid(const struct configuration *config, const struct options *opts, struct err *err)
{
	if (!config->has_uuid || !opts->has_uuid || memcmp(config->uuid, opts->uuid, sizeof(config->uuid)) == 0)
		return 0;
	return err_set(err, -EPROTO, "the guest's uuid at the source is not the uuid given here");
}

/*
 * Boards whose target pages are of 1 KiB, which QEMU does not say because all ARM machines had such once. Those with
 * other pages (virt, sbsa-ref) say it.
 */
static const char *const small_page_boards[] = {
	"akita",
	"ast[0-9]*-evb",
	"*-bmc",
	"borzoi",
	"canon-a1100",
	"cheetah",
	"collie",
	"connex",
	"cubieboard",
	"b-l475e-iot01a",
	"bpim2u",
	"emcraft-sf2",
	"fby35",
	"highbank",
	"imx25-pdk",
	"imx8*-evk",
	"integratorcp",
	"kzm",
	"lm3s*evb",
	"mainstone",
	"mcimx*",
	"microbit",
	"midway",
	"mps[23]-an*",
	"musca-*",
	"musicpal",
	"n800",
	"n810",
	"netduino*",
	"npcm*-evb",
	"nuri",
	"olimex-stm32-h405",
	"orangepi-pc",
	"quanta-*",
	"raspi*",
	"realview-*",
	"sabrelite",
	"smdkc210",
	"spitz",
	"stm32vldiscovery",
	"sx1*",
	"terrier",
	"tosa",
	"verdex",
	"versatile?b",
	"vexpress-*",
	"xilinx-zynq-a9",
	"xlnx-*",
	"z2",
};

static void assume_page_bits(struct configuration *config, const struct options *opts)
{
	config->tpage_assumed = opts->tpage_bits == 0;
	config->tpage_bits = WIRE_TPAGE_BITS_DEFAULT;
	if (opts->tpage_bits > 0)
		config->tpage_bits = (unsigned)(WIRE_TPAGE_BITS_MIN - 1 + opts->tpage_bits);
	for (size_t i = 0; config->tpage_assumed && i < sizeof(small_page_boards) / sizeof(small_page_boards[0]); i++)
		if (fnmatch(small_page_boards[i], config->machine, 0) == 0)
			config->tpage_bits = WIRE_TPAGE_BITS_MIN;
}

static int read_configuration(struct configuration *config, struct reader *r, const struct options *opts,
                              const struct trace *trace, struct err *err)
{
	uint32_t caps = 0;
	int e = reader_need(r, 1, err);

	if (e < 0)
		return e;
	if (*reader_data(r) != WIRE_CONFIGURATION)
		return err_set(err, -EPROTO,
		               "configuration section expected, found 0x%02x; if the source has send-configuration "
		               "off, turn it off here too",
		               *reader_data(r));
	e = read_machine(config, r, opts, trace, err);
	if (e == 0)
		assume_page_bits(config, opts);
	/* "The next byte is a subsection's" is the only way to know: nothing else begins with it here. */
	while (e == 0) {
		e = reader_need(r, 1, err);
		if (e < 0 || *reader_data(r) != WIRE_SUBSECTION)
			break;
		e = read_subsection(config, &caps, r, trace, err);
	}
	config->ignore_shared = caps >> CAP_X_IGNORE_SHARED & 1;
	if (e == 0)
		e = check_capabilities(caps, opts, err);
	if (e == 0)
		e = check_uuid(config, opts, err);
	return e;
}

int configuration_read(struct configuration *ret, struct reader *r, const struct options *opts,
                       const struct trace *trace, struct err *err)
{
	struct configuration config = { .tpage_bits = 0 };
	uint64_t off = reader_off(r);
	int e = read_header(r, trace, err);

	if (e < 0)
		return err_up(err, e, "header at 0x%" PRIx64, off);
	assume_page_bits(&config, opts);
	if (opts->send_configuration) {
		off = reader_off(r);
		e = read_configuration(&config, r, opts, trace, err);
		if (e < 0)
			return err_up(err, e, "configuration at 0x%" PRIx64, off);
	}
	*ret = config;
	return 0;
}

unsigned configuration_machine_version(const char *machine)
{
	const char *dash = strrchr(machine, '-');
	unsigned major, minor;

	if (!dash || sscanf(dash + 1, "%3u.%2u", &major, &minor) != 2)
		return 0;
	return major * 100 + minor;
}
