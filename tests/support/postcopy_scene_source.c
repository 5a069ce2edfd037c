/* The source of a postcopy scene: the pages that it sends, and what it does in its turn. See postcopy_scene.h. */
#include <stdlib.h>

#include "base/clock.h"
#include "tests/support/postcopy_scene_source.h"

/* What waits to be sent on main, at most, before more is pushed; and pages in a section. */
#define PUSH_BYTES (1u << 20)
#define PUSH_UNITS 32u

/* ---- records ----------------------------------------------------------------------------------------------------- */

/* Named unless it was named last, and always what another section or a test put there is forgotten. */
const char *pc_name_for(struct pc *s, struct pc_line *line, unsigned block)
{
	const char *name = line->last_block == (int)block ? NULL : s->ram[block].said.name;

	line->last_block = (int)block;
	return name;
}

void pc_sync_channels(struct pc *s)
{
	for (unsigned i = 0; i < s->o.channels; i++)
		wire_multifd_sync(&s->lines[PC_MULTIFD + i].out);
}

void pc_end_section(struct pc *s, struct wire *w)
{
	wire_ram_end(w, PC_RAM_ID);
	if (s->o.old_multifd)
		pc_sync_channels(s);
}

void pc_pages_of_unit(struct pc *s, unsigned block, uint64_t unit, uint64_t *ret_first, uint64_t *ret_end)
{
	const struct pc_ram *ram = &s->ram[block];

	*ret_first = unit * ram->unit_pages;
	*ret_end = *ret_first + ram->unit_pages;
	if (*ret_end > ram->said.pages)
		*ret_end = ram->said.pages;
}

static void put_pages(struct pc *s, struct pc_line *line, struct wire *w, unsigned block, uint64_t first, uint64_t end)
{
	for (uint64_t i = first; i < end; i++)
		wire_content_record(w, pc_name_for(s, line, block), block, i, false);
}

void pc_send_run(struct pc *s, unsigned line, unsigned block, uint64_t first, uint64_t end)
{
	struct wire *out = &s->lines[line].out;

	if (line == PC_MAIN)
		wire_part(out, WIRE_PART, PC_RAM_ID);
	put_pages(s, &s->lines[line], out, block, first, end);
	if (line == PC_MAIN)
		pc_end_section(s, out);
}

void pc_send_page(struct pc *s, unsigned line, unsigned block, uint64_t tpage)
{
	pc_send_run(s, line, block, tpage, tpage + 1);
}

void pc_send_unit(struct pc *s, unsigned line, unsigned block, uint64_t unit)
{
	uint64_t first, end;

	pc_pages_of_unit(s, block, unit, &first, &end);
	if (s->o.split && end - first > 1 && s->lines[PC_PREEMPT].fd >= 0) {
		pc_send_run(s, PC_MAIN, block, first, (first + end) / 2);
		pc_send_run(s, PC_PREEMPT, block, (first + end) / 2, end);
	} else {
		pc_send_run(s, line, block, first, end);
	}
	s->ram[block].sent[unit] = 1;
}

void pc_reserve(struct pc *s, unsigned block, uint64_t tpage)
{
	s->ram[block].reserved[tpage / s->ram[block].unit_pages] = 1;
}

unsigned pc_asked_times(const struct pc *s, unsigned block, uint64_t tpage)
{
	return s->ram[block].asked[tpage / s->ram[block].unit_pages];
}
/* ---- pages ------------------------------------------------------------------------------------------------------- */

static unsigned answer_line(const struct pc *s)
{
	return s->o.preempt == PC_NO_PREEMPT || s->o.preempt_silent ? PC_MAIN : PC_PREEMPT;
}

static void answer_unit(struct pc *s, unsigned block, uint64_t unit)
{
	unsigned dice = (unsigned)((unit + 1) * 2654435761u >> 9) % 100;

	if (s->ram[block].sent[unit])
		return;
	pc_send_unit(s, dice < s->o.main_percent ? PC_MAIN : answer_line(s), block, unit);
	if (!s->o.twice && (dice + 50) % 100 >= s->o.twice_percent)
		return;
	pc_send_unit(s, PC_MAIN, block, unit);
}

static bool answer_requests(struct pc *s)
{
	bool any = false;

	if (!s->answering || (answer_line(s) == PC_PREEMPT && s->lines[PC_PREEMPT].fd < 0))
		return false;
	while (s->answered_count < s->request_count) {
		const struct pc_request r = s->requests[s->answered_count];
		uint64_t unit_bytes = s->ram[r.block].unit_pages * PC_PAGE;

		if (clock_now_ns() < r.at_ns + s->o.answer_delay_ms * NS_PER_MS)
			break;
		for (uint64_t u = r.start / unit_bytes; u * unit_bytes < r.start + r.bytes; u++)
			answer_unit(s, r.block, u);
		s->answered_count++;
		any = true;
	}
	return any;
}

/* The next unit that is due to be pushed. Return: whether there is one. */
static bool next_unit(struct pc *s)
{
	for (; s->push_block < s->ram_count; s->push_block++, s->push_unit = 0) {
		const struct pc_ram *ram = &s->ram[s->push_block];

		for (; s->push_unit < ram->units; s->push_unit++)
			if (!ram->precopied[s->push_unit] && !ram->reserved[s->push_unit] &&
			    (!ram->sent[s->push_unit] || s->again))
				return true;
	}
	return false;
}

static void push_section(struct pc *s)
{
	struct pc_line *l = &s->lines[PC_MAIN];
	uint64_t first, end;

	wire_part(&l->out, WIRE_PART, PC_RAM_ID);
	for (unsigned i = 0; i < PUSH_UNITS && l->out.len - l->done < PUSH_BYTES && next_unit(s); i++) {
		pc_pages_of_unit(s, s->push_block, s->push_unit, &first, &end);
		put_pages(s, l, &l->out, s->push_block, first, end);
		s->ram[s->push_block].sent[s->push_unit++] = 1;
	}
	pc_end_section(s, &l->out);
}

/* Reserved pages are owed until somebody has asked for them. */
static bool owes(const struct pc *s)
{
	for (unsigned b = 0; b < s->ram_count; b++)
		for (uint64_t u = 0; u < s->ram[b].units; u++)
			if (s->ram[b].reserved[u] && !s->ram[b].sent[u])
				return true;
	return false;
}

static void end_stream(struct pc *s)
{
	struct wire *w = &s->lines[PC_MAIN].out;

	wire_part(w, WIRE_END, PC_RAM_ID);
	pc_end_section(s, w);
	wire_eof(w);
	if (s->o.preempt_eos)
		wire_eos(&s->lines[PC_PREEMPT].out);
	s->ended = true;
}

static bool push(struct pc *s)
{
	const struct pc_line *l = &s->lines[PC_MAIN];

	if (!s->pushing || s->ended || l->broken || l->allowed != PC_ALL || l->out.len - l->done >= PUSH_BYTES)
		return false;
	if (next_unit(s)) {
		if (s->o.split && s->ram[s->push_block].unit_pages > 1 && !s->again)
			pc_send_unit(s, PC_MAIN, s->push_block, s->push_unit++);
		else
			push_section(s);
		return true;
	}
	if (owes(s))
		return false;
	if (s->o.twice && !s->again) {
		s->again = true;
		s->push_block = 0;
		s->push_unit = 0;
		return true;
	}
	end_stream(s);
	return true;
}

void pc_push(struct pc *s)
{
	s->pushing = true;
}

void pc_answer(struct pc *s)
{
	s->answering = true;
}

void pc_allow(struct pc *s, size_t upto)
{
	s->lines[PC_MAIN].allowed = upto;
}

/* ---- all of it --------------------------------------------------------------------------------------------------- */

static void plan_precopied(struct pc *s)
{
	for (unsigned b = 0; b < s->ram_count; b++)
		for (uint64_t u = 0; u < s->ram[b].units; u++)
			s->ram[b].precopied[u] = (u * 2654435761u >> 5) % 100 < s->o.precopied;
}

void pc_source_begin(struct pc *s)
{
	for (unsigned i = 0; i < PC_LINES; i++)
		s->lines[i] = (struct pc_line){ .fd = -1, .allowed = PC_ALL, .last_block = -1 };
	for (unsigned i = 0; i < s->o.channels; i++)
		wire_multifd_hello(&s->lines[PC_MULTIFD + i].out, NULL, (uint8_t)i);
	s->answering = !s->o.unanswered;
	s->pushing = !s->o.quiet;
	plan_precopied(s);
	pc_put_head(s);
	wire_bytes(&s->lines[PC_MAIN].out, s->head.data, s->head.len);
	pc_allow(s, 0);
}

void pc_source_end(struct pc *s)
{
	for (unsigned i = 0; i < PC_LINES; i++) {
		pc_close_line(s, i);
		wire_fini(&s->lines[i].out);
	}
	free(s->requests);
	s->requests = NULL;
}

/* Told that all is here, a source closes its connections. */
static bool leave(struct pc *s)
{
	if (s->source_closed || !pc_reply_count(s, WIRE_RP_SHUT))
		return false;
	pc_lose(s);
	return true;
}

static bool connect_preempt(struct pc *s)
{
	struct pc_line *l = &s->lines[PC_MAIN];

	if (!s->preempt_due || l->sent < s->package_end || s->lines[PC_PREEMPT].fd >= 0)
		return false;
	if (!s->preempt_at_ns)
		s->preempt_at_ns = deadline_after_ns(s->o.preempt_delay_ms * NS_PER_MS);
	if (clock_now_ns() < s->preempt_at_ns)
		return false;
	pc_source_connect(s, PC_PREEMPT);
	s->preempt_due = false;
	return true;
}

/* A real one has nothing to say there before it has been asked for a page, and that is after LISTEN. */
static bool may_speak(const struct pc *s, unsigned line)
{
	enum inm_state state;

	if (s->lines[line].held)
		return false;
	if (line != PC_PREEMPT || !s->e.inm)
		return true;
	state = inm_get_state(s->e.inm);
	return state != INM_STATE_SETUP && state != INM_STATE_ACTIVE;
}

bool pc_source_step(struct pc *s)
{
	bool moved = pc_read_main(s);

	if (s->lines[PC_MAIN].fd >= 0) {
		moved |= connect_preempt(s);
		moved |= answer_requests(s);
		moved |= push(s);
	}
	for (unsigned i = 0; i < PC_LINES; i++)
		moved |= may_speak(s, i) && pc_flush_line(&s->lines[i], s->lines[i].allowed);
	moved |= leave(s);
	return moved;
}
