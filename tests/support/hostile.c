#include "tests/support/hostile.h"

#include <check.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "tests/support/scene.h"

/* The lie of the row, if this is its place. Return: whether it was. */
static bool lie(struct wire *w, const struct hostile_row *row, enum hostile_place place)
{
	if (row->place != place)
		return false;
	if (row->put)
		row->put(w, row);
	else
		wire_bytes(w, row->bytes, row->len);
	return true;
}

static void build_start(struct wire *w, const struct hostile_row *row)
{
	const struct wire_block blocks[] = { { .name = HOSTILE_RAM, .bytes = 4 * WIRE_TPAGE_BYTES },
		                             { .name = HOSTILE_VICTIM, .bytes = 2 * WIRE_TPAGE_BYTES } };

	if (!lie(w, row, AT_START))
		wire_section(w, WIRE_START, HOSTILE_RAM_ID, "ram", 0, 4);
	if (!lie(w, row, AT_BLOCKS))
		wire_mem_size(w, blocks, 2);
	wire_ram_end(w, HOSTILE_RAM_ID);
}

static void build_ram(struct wire *w, const struct hostile_row *row)
{
	uint8_t page[WIRE_TPAGE_BYTES];

	memset(page, 0x11, sizeof(page));
	lie(w, row, AT_SETUP);
	wire_part(w, WIRE_PART, HOSTILE_RAM_ID);
	lie(w, row, AT_RECORDS);
	wire_page(w, HOSTILE_RAM, 0, page);
	lie(w, row, AT_RECORDS_LATER);
	wire_eos(w);
	if (!lie(w, row, AT_FOOTER))
		wire_footer(w, HOSTILE_RAM_ID);
	lie(w, row, AT_ELEMENT);
	if (!lie(w, row, AT_END)) {
		wire_part(w, WIRE_END, HOSTILE_RAM_ID);
		wire_ram_end(w, HOSTILE_RAM_ID);
	}
}

void hostile_build(struct wire *w, const struct hostile_row *row)
{
	if (!lie(w, row, AT_HEADER))
		wire_header(w);
	if (!lie(w, row, AT_CONFIG))
		wire_config(w, HOSTILE_MACHINE);
	lie(w, row, AT_CONFIG_MORE);
	lie(w, row, AT_FIRST);
	wire_open_return_path(w);
	wire_ping(w, 1);
	lie(w, row, AT_COMMANDS);
	build_start(w, row);
	build_ram(w, row);
	if (!lie(w, row, AT_DEVICES)) {
		wire_device(w, 10, &wire_standard_devices[0]);
		wire_globalstate(w, 11, "running");
	}
	if (!lie(w, row, AT_TAIL)) {
		wire_eof(w);
		wire_vmdesc(w);
	}
	lie(w, row, AT_BEHIND);
}

static bool has_one_of(const char *text, const char *words)
{
	while (words) {
		size_t len = strcspn(words, "|");

		for (const char *at = text; *at; at++)
			if (!strncasecmp(at, words, len))
				return true;
		words = words[len] ? words + len + 1 : NULL;
	}
	return false;
}

static void check_error(const struct embedder *e, const struct hostile_row *row)
{
	if (row->code == 0) {
		ck_assert_msg(e->result == 0, "%s: did not land: %d: %s", row->what, e->result, e->error);
		return;
	}
	ck_assert_msg(e->result != 0, "%s: it landed", row->what);
	ck_assert_msg(e->result != -ETIMEDOUT, "%s: it hangs", row->what);
	if (row->code != ANY_ERROR)
		ck_assert_msg(e->result == row->code, "%s: %d: %s", row->what, e->result, e->error);
	ck_assert_msg(e->error[0], "%s: error %d without a text", row->what, e->result);
	if (row->words)
		ck_assert_msg(has_one_of(e->error, row->words), "%s: no '%s' in: %s", row->what, row->words, e->error);
	if (e->result == -EPROTO || e->result == -ENODATA)
		ck_assert_msg(strstr(e->error, "0x") != NULL, "%s: no offset in: %s", row->what, e->error);
	ck_assert_int_eq(e->start_calls, 0);
	ck_assert_int_eq(e->stats.state, INM_STATE_FAILED);
}

/* 1.6: the source goes on with its guest when it reads SHUT with another status than 0, or the end. */
static void check_told(const struct pump *p, const struct hostile_row *row)
{
	unsigned shuts = source_reply_count(&p->report, WIRE_RP_SHUT);

	ck_assert_msg(!p->report.bad_reply, "%s: rubbish on the return path", row->what);
	ck_assert_msg(shuts == 1 || (shuts == 0 && p->report.peer_closed), "%s: the source was not told", row->what);
	if (shuts)
		ck_assert_uint_eq(source_reply_value(&p->report, WIRE_RP_SHUT, 0), row->code != 0);
}

void hostile_check(const struct hostile_row *row)
{
	const struct land_opts o = { .return_path = true,
		                     .caps = row->caps,
		                     .params = row->params,
		                     .config = row->config,
		                     .deadline_ms = 5000 };
	struct emb_block *ram;
	struct scene s;
	struct pump p;
	int fd;

	scene_begin(&s, NULL);
	hostile_build(&s.wire, row);
	ram = embedder_add(&s.e, HOSTILE_RAM, row->ram_max ? row->ram_max : 4 * WIRE_TPAGE_BYTES, EMB_MEMFD);
	ram->resizable = row->ram_max != 0;
	embedder_add(&s.e, HOSTILE_VICTIM, 2 * WIRE_TPAGE_BYTES, EMB_ANON);
	embedder_add(&s.e, HOSTILE_UNSENT, WIRE_TPAGE_BYTES, EMB_ANON);
	fd = pump_open(&p, &s.wire);
	p.end = row->ends ? PUMP_SHUTDOWN : PUMP_HONEST;
	land_pump(&s.e, &p, fd, &o, UINT32_MAX, NULL);
	check_error(&s.e, row);
	check_told(&p, row);
	ck_assert_msg(embedder_block_is(&s.e.blocks[1], 0), "%s: another block was written to", row->what);
	ck_assert_msg(embedder_block_is(&s.e.blocks[2], 0), "%s: a block that was not sent was written to", row->what);
	scene_end(&s);
}
