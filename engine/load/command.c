#include "engine/load/command.h"

#include "base/err.h"
#include "base/log.h"
#include "base/text.h"
#include "engine/load/load.h"
#include "engine/options/options.h"
#include "engine/ram/discard.h"
#include "engine/stream/element.h"
#include "engine/stream/trace.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>

/* Why a command ends the migration here; NULL: it does not. */
static const char *const refused[WIRE_CMD_COUNT] = {
	[WIRE_CMD_POSTCOPY_LISTEN] = "it comes outside a package",
	[WIRE_CMD_POSTCOPY_RUN] = "it comes outside a package",
	[WIRE_CMD_ENABLE_COLO] = "the source has capability x-colo on, which is not supported",
};

/*
 * What the source's release implies and the stream does not say (doc/wire/stream.md 3): up to machine type 11.0 a
 * source with switchover-ack waits for exactly one, later ones count the requests of their own devices and take none
 * unasked.
 */
static bool ack_is_due(const struct load *l)
{
	if (!options_has(l->opts, CAP_SWITCHOVER_ACK) || l->opts->switchover_ack_legacy == TRISTATE_OFF)
		return false;
	return l->opts->switchover_ack_legacy == TRISTATE_ON || configuration_machine_version(l->config.machine) < 1101;
}

static int open_return_path(struct load *l, struct err *err)
{
	bool again = l->reply.open;
	int e = reply_open(&l->reply, err);

	if (e == 0 && !again && ack_is_due(l))
		e = reply_switchover_ack(&l->reply, err);
	return e;
}

/*
 * A source that is gone does not miss the answer, and what it has sent is here to be read: the package, as it may be.
 * Where it has left off, reading finds its end.
 */
static int answer_ping(struct load *l, const uint8_t *payload, struct err *err)
{
	int e;

	if (!l->reply.open)
		return err_set(err, -EPROTO, "the source has not opened a return path to answer on");
	/* Answers come in the order of the questions (doc/wire/stream.md 2), and main does not wait for the package. */
	if (package_is_loading(&l->package) && l->package.ping_count < PACKAGE_PINGS_MAX) {
		l->package.pings[l->package.ping_count++] = be32_load(payload);
		return 0;
	}
	e = reply_pong(&l->reply, be32_load(payload), err);
	return e == -EPIPE || e == -ECONNRESET ? 0 : e;
}

/* Where nothing else has said how large a target page is, ADVISE does. No block is there that was made by it. */
static void adopt_tpage(struct load *l, uint64_t bytes)
{
	if (!l->ram_loader.tpage_assumed || bytes & (bytes - 1) || bytes < 1u << WIRE_TPAGE_BITS_MIN ||
	    bytes > 1u << WIRE_TPAGE_BITS_MAX)
		return;
	l->config.tpage_bits = (unsigned)__builtin_ctzll(bytes);
	l->ram_loader.tpage_assumed = false;
	l->ram->tpage_shift = l->config.tpage_bits;
}

static int advise(struct load *l, const uint8_t *payload, size_t len, struct err *err)
{
	if (l->ram_loader.listed)
		return err_set(err, -EPROTO, "it comes after the list of RAM blocks");
	if (l->advised)
		return err_set(err, -EPROTO, "a second one");
	l->advised = true;
	if (len == 0) {
		if (!options_has(l->opts, CAP_DIRTY_BITMAPS))
			return err_set(err, -EPROTO, "the source has capability dirty-bitmaps on; it is off here");
		l->phase = LOAD_ADVISED;
		return 0;
	}
	if (!options_has(l->opts, CAP_POSTCOPY_RAM))
		return err_set(err, -EPROTO, "the source has capability postcopy-ram on; it is off here");
	adopt_tpage(l, be64_load(payload + 8));
	if (be64_load(payload + 8) != (uint64_t)1 << l->config.tpage_bits)
		return err_set(err, -EPROTO, "target pages of 0x%" PRIx64 " bytes; the stream's have 0x%x",
		               be64_load(payload + 8), 1u << l->config.tpage_bits);
	l->advised_page_sizes = be64_load(payload);
	l->ram_loader.advised = true;
	l->phase = LOAD_ADVISED;
	return 0;
}

/* Discards and the package: between the last round of precopy and the guest's start. */
static int check_switch(const struct load *l, struct err *err)
{
	if (l->phase < LOAD_ADVISED)
		return err_set(err, -EPROTO, "postcopy was not advised");
	if (l->phase >= LOAD_LISTENING)
		return err_set(err, -EPROTO, "it comes after LISTEN");
	if (!l->ram_loader.listed)
		return err_set(err, -EPROTO, "it comes before the list of RAM blocks");
	return 0;
}

static int discard(struct load *l, const uint8_t *payload, size_t len, struct err *err)
{
	int e = check_switch(l, err);

	if (e == 0 && !l->ram_loader.advised)
		e = err_set(err, -EPROTO, "postcopy of RAM was not advised");
	if (e == 0)
		e = l->ops->switch_memory(l->ops_opaque, err);
	if (e < 0)
		return e;
	l->phase = LOAD_DISCARDING;
	/* What is discarded comes again; to see both, it stays. */
	if (l->opts->looking)
		return 0;
	return discard_ranges(l->postcopy, payload, len, err);
}

static int package(struct load *l, const uint8_t *payload, struct err *err)
{
	uint32_t bytes = be32_load(payload);
	int e = check_switch(l, err);

	if (e == 0 && l->ram_loader.advised && !l->reply.open)
		e = err_set(err, -EPROTO, "the source has not opened a return path to ask for pages on");
	if (e == 0 && !l->ram_loader.advised && !sections_ram_ended(&l->sections))
		e = err_set(err, -EPROTO, "RAM has not ended, and postcopy was advised for dirty bitmaps alone");
	/* There may have been no discard. */
	if (e == 0)
		e = l->ops->switch_memory(l->ops_opaque, err);
	return e < 0 ? e : package_read(l, bytes, err);
}

static int switchover_start(struct load *l, struct err *err)
{
	if (l->switched_over)
		return err_set(err, -EPROTO, "a second one");
	if (sections_all_ended(&l->sections))
		return err_set(err, -EPROTO, "it comes after the last END section");
	l->switched_over = true;
	l->ops->switchover(l->ops_opaque);
	return 0;
}

static int refuse_name(const uint8_t *payload, size_t len, struct err *err)
{
	return err_set(err, -EPROTO, "a name of %u bytes in a command of %zu", payload[0], len);
}

static int send_bitmap(struct load *l, const uint8_t *payload, size_t len, struct err *err)
{
	const struct block *b;
	const char *name;
	size_t name_bytes;

	if (!element_recv_bitmap(&name, &name_bytes, payload, len))
		return refuse_name(payload, len, err);
	b = ram_find(l->ram, name, name_bytes);
	if (!b)
		return err_set(err, -EPROTO, "unknown block '%s'", TEXT_QUOTE(name, name_bytes));
	if (b->kind == BLOCK_IGNORED)
		return err_set(err, -EPROTO, "block '%s' is shared and not sent", TEXT_QUOTE(name, name_bytes));
	return reply_bitmap(&l->reply, b, err);
}

static int resume(struct load *l, struct err *err)
{
	int e = l->ops->resume(l->ops_opaque, err);

	if (e == 0)
		l->phase = LOAD_LISTENING;
	return e;
}

/* What a source says when it comes back, before its stream goes on (doc/wire/stream.md 5.8). */
static int recover(struct load *l, unsigned id, const uint8_t *payload, size_t len, struct err *err)
{
	switch (id) {
	case WIRE_CMD_RECV_BITMAP:
		return send_bitmap(l, payload, len, err);
	case WIRE_CMD_POSTCOPY_RESUME:
		return resume(l, err);
	default:
		return err_set(err, -EPROTO, "it has no place in a recovery");
	}
}

/* Nobody is asked to recover: a source that says this all the same goes on. */
static int pass_over(const struct load *l, unsigned id, const uint8_t *payload, size_t len, struct err *err)
{
	const char *name;
	size_t name_bytes;

	if (id == WIRE_CMD_RECV_BITMAP && !element_recv_bitmap(&name, &name_bytes, payload, len))
		return refuse_name(payload, len, err);
	log_often(l->log, LOG_STREAM, LOG_WARN, "command %s outside a recovery is ignored", wire_command_row(id)->name);
	return 0;
}

static int carry_out(struct load *l, unsigned id, const uint8_t *payload, size_t len, struct err *err)
{
	if (l->phase == LOAD_RECOVERING)
		return recover(l, id, payload, len, err);
	switch (id) {
	case WIRE_CMD_OPEN_RETURN_PATH:
		return open_return_path(l, err);
	case WIRE_CMD_PING:
		return answer_ping(l, payload, err);
	case WIRE_CMD_POSTCOPY_ADVISE:
		return advise(l, payload, len, err);
	case WIRE_CMD_POSTCOPY_RAM_DISCARD:
		return discard(l, payload, len, err);
	case WIRE_CMD_PACKAGED:
		return package(l, payload, err);
	case WIRE_CMD_SWITCHOVER_START:
		return switchover_start(l, err);
	default:
		/* RECV_BITMAP, POSTCOPY_RESUME */
		return pass_over(l, id, payload, len, err);
	}
}

static int check(const struct command_head *head, struct err *err)
{
	const struct wire_command_row *row = wire_command_row(head->id);

	if (!row)
		return err_set(err, -EPROTO, "unknown");
	if (!wire_command_fits(head->id, head->payload_bytes))
		return err_set(err, -EPROTO, "it has %u bytes; %u %s %u are possible", head->payload_bytes,
		               row->bytes_min, row->bytes_step > 1 ? "or" : "to", row->bytes_max);
	return refused[head->id] ? err_set(err, -EPROTO, "%s", refused[head->id]) : 0;
}

int command_read(struct load *l, struct err *err)
{
	uint64_t off = reader_off(&l->reader);
	uint8_t small[256], *payload = small;
	struct command_head head;
	const char *name;
	int e = element_read_command(&head, &l->reader, err);

	if (e < 0)
		return e;
	name = wire_command_row(head.id) ? wire_command_row(head.id)->name : "?";
	TRACE(l->trace, off, 0, "command %s (%u), %u bytes", name, head.id, head.payload_bytes);
	e = check(&head, err);
	if (e == 0 && head.payload_bytes > sizeof(small)) {
		payload = malloc(head.payload_bytes);
		e = payload ? 0 : err_set(err, -ENOMEM, "no memory for %u bytes", head.payload_bytes);
	}
	if (e == 0)
		e = reader_bytes(&l->reader, payload, head.payload_bytes, err);
	if (e == 0)
		e = carry_out(l, head.id, payload, head.payload_bytes, err);
	if (payload != small)
		free(payload);
	if (e < 0)
		return err_up(err, e, "command %s (%u) at 0x%" PRIx64, name, head.id, off);
	return 0;
}
