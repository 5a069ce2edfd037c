/* The source of a postcopy scene. See postcopy_scene.h. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/assert.h"
#include "base/be.h"
#include "base/clock.h"
#include "tests/support/postcopy_scene.h"
#include "tests/support/tls_peer.h"

#define RAM_ID 2u
#define FIRST_DEVICE_ID 10u
#define HELLO_BYTES 64u
/* What waits to be sent on main, at most, before more is pushed; and pages in a section. */
#define PUSH_BYTES (1u << 20)
#define PUSH_UNITS 32u
#define DISCARD_RANGES 12u /* as QEMU's (5.3) */

/* ---- records ----------------------------------------------------------------------------------------------------- */

/* Named unless it was named last, and always what another section or a test put there is forgotten. */
static const char *name_for(struct pc *s, struct pc_line *line, unsigned block)
{
	const char *name = line->last_block == (int)block ? NULL : s->ram[block].said.name;

	line->last_block = (int)block;
	return name;
}

static void sync_channels(struct pc *s)
{
	for (unsigned i = 0; i < s->o.channels; i++)
		wire_multifd_sync(&s->lines[PC_MULTIFD + i].out);
}

static void end_section(struct pc *s, struct wire *w)
{
	wire_eos(w);
	wire_footer(w, RAM_ID);
	if (s->o.old_multifd)
		sync_channels(s);
}

static void pages_of_unit(struct pc *s, unsigned block, uint64_t unit, uint64_t *ret_first, uint64_t *ret_end)
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
		wire_content_record(w, name_for(s, line, block), block, i, false);
}

void pc_send_run(struct pc *s, unsigned line, unsigned block, uint64_t first, uint64_t end)
{
	struct wire *out = &s->lines[line].out;

	if (line == PC_MAIN)
		wire_part(out, WIRE_PART, RAM_ID);
	put_pages(s, &s->lines[line], out, block, first, end);
	if (line == PC_MAIN)
		end_section(s, out);
}

void pc_send_page(struct pc *s, unsigned line, unsigned block, uint64_t tpage)
{
	pc_send_run(s, line, block, tpage, tpage + 1);
}

void pc_send_unit(struct pc *s, unsigned line, unsigned block, uint64_t unit)
{
	uint64_t first, end;

	pages_of_unit(s, block, unit, &first, &end);
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

/* ---- the head: up to PING 4 -------------------------------------------------------------------------------------- */

static void inject(struct pc *s, enum pc_place here)
{
	if (s->o.inject && s->o.inject_at == here)
		s->o.inject(s, &s->head);
}

static void put_start(struct pc *s)
{
	struct wire_block blocks[PC_BLOCKS_MAX];
	struct wire *w = &s->head;

	for (unsigned b = 0; b < s->ram_count; b++)
		blocks[b] = (struct wire_block){ .name = s->ram[b].said.name,
			                         .bytes = s->ram[b].bytes,
			                         .page_bytes = s->ram[b].unit_pages > 1 ? PC_HUGE_BYTES : 0 };
	wire_section(w, WIRE_START, RAM_ID, "ram", 0, 4);
	wire_mem_size(w, blocks, s->ram_count);
	if (s->o.channels && !s->o.old_multifd) {
		wire_flush(w);
		sync_channels(s);
	}
	end_section(s, w);
}

/* Every other page travels on a multifd channel, in a packet of its own. */
static bool goes_by_multifd(const struct pc *s, uint64_t tpage)
{
	return s->o.channels && tpage % 2 && tpage % 7 != 5;
}

static void put_packet(struct pc *s, unsigned block, uint64_t tpage, bool stale)
{
	struct wire *w = &s->lines[PC_MULTIFD + tpage / 2 % s->o.channels].out;
	uint64_t offset = tpage * PC_PAGE;
	uint8_t page[PC_PAGE];

	wire_content(page, block, tpage);
	if (stale)
		memset(page, 0xee, sizeof(page));
	wire_multifd_header(w, &(struct wire_packet){ .pages_alloc = WIRE_MULTIFD_PAGES_MAX,
	                                              .normal_pages = 1,
	                                              .payload_bytes = WIRE_TPAGE_BYTES,
	                                              .block = s->ram[block].said.name,
	                                              .offsets = &offset,
	                                              .offset_count = 1 });
	wire_bytes(w, page, sizeof(page));
}

static void put_precopy_page(struct pc *s, unsigned block, uint64_t tpage, bool stale)
{
	if (goes_by_multifd(s, tpage))
		put_packet(s, block, tpage, stale);
	else
		wire_content_record(&s->head, name_for(s, &s->lines[PC_MAIN], block), block, tpage, stale);
}

static void put_precopy(struct pc *s)
{
	struct wire *w = &s->head;

	wire_part(w, WIRE_PART, RAM_ID);
	for (unsigned b = 0; b < s->ram_count; b++)
		for (uint64_t i = 0; i < s->ram[b].said.pages; i++) {
			bool final = s->ram[b].precopied[i / s->ram[b].unit_pages];

			if (s->o.precopied > 0 && (final || i % 3 == 0))
				put_precopy_page(s, b, i, !final);
		}
	if (s->o.channels && !s->o.old_multifd && s->o.precopied > 0) {
		wire_flush(w);
		sync_channels(s);
	}
	end_section(s, w);
}

static void put_discards_of(struct pc *s, unsigned block)
{
	const struct pc_ram *ram = &s->ram[block];
	struct wire_range ranges[DISCARD_RANGES];
	unsigned count = 0;

	for (uint64_t unit = 0; unit < ram->units;) {
		uint64_t first = unit, begin, end, ignored;

		while (unit < ram->units && !ram->precopied[unit])
			unit++;
		if (unit > first) {
			pages_of_unit(s, block, first, &begin, &ignored);
			pages_of_unit(s, block, unit - 1, &ignored, &end);
			ranges[count++] = (struct wire_range){ begin * PC_PAGE, (end - begin) * PC_PAGE };
		}
		if (count == DISCARD_RANGES) {
			wire_discard(&s->head, ram->said.name, ranges, count);
			count = 0;
		}
		unit += unit < ram->units;
	}
	if (count)
		wire_discard(&s->head, ram->said.name, ranges, count);
}

static void put_devices(struct pc *s)
{
	static const uint8_t state[] = { 1, 2, 3, 0x7e, 0, 0, 0, 4, 5, 6, 7, 8 };
	static const struct wire_device devices[] = {
		{ .name = "timer", .version_id = 2, .data = state, .bytes = sizeof(state) },
		{ .name = "0000:00:03.0/virtio-net", .version_id = 11, .data = state, .bytes = 5 },
		{ .name = "0000:00:04.0/virtio-blk", .version_id = 2, .data = state, .bytes = 1 },
	};

	for (unsigned i = 0; i < 3 && !s->o.no_devices; i++)
		wire_device(&s->head, FIRST_DEVICE_ID + 3 * i, &devices[i]);
	wire_globalstate(&s->head, FIRST_DEVICE_ID + 9, "running");
}

static void put_package(struct pc *s)
{
	struct wire *w = &s->head;
	size_t begun = wire_package_begin(w);

	inject(s, PC_BEFORE_LISTEN);
	if (!s->o.no_listen)
		wire_listen(w);
	inject(s, PC_AFTER_LISTEN);
	put_devices(s);
	wire_ping(w, 3);
	if (s->o.modern)
		wire_ping(w, 0x42);
	inject(s, PC_BEFORE_RUN);
	if (!s->o.no_run)
		wire_run(w);
	inject(s, PC_AFTER_RUN);
	wire_package_end(w, begun);
	if (s->o.package_lies)
		be32_store(w->data + begun - 4, s->o.package_bytes);
	s->package_at = begun - 4;
	s->package_end = w->len;
}

static void put_switch(struct pc *s)
{
	struct wire *w = &s->head;

	s->switch_at = w->len;
	if (s->o.modern || (s->o.channels && !s->o.old_multifd)) {
		wire_part(w, WIRE_PART, RAM_ID);
		if (s->o.channels && !s->o.old_multifd) {
			wire_flush(w);
			sync_channels(s);
		}
		end_section(s, w);
	}
	if (s->o.modern)
		wire_switchover_start(w);
	inject(s, PC_BEFORE_DISCARD);
	for (unsigned b = 0; b < s->ram_count; b++)
		put_discards_of(s, b);
	inject(s, PC_AFTER_DISCARD);
	wire_ping(w, 2);
	put_package(s);
	wire_ping(w, 4);
	inject(s, PC_AFTER_PACKAGE_END);
	s->lines[PC_MAIN].last_block = -1; /* it is named again behind the switch (4) */
}

static uint64_t page_sizes(const struct pc *s)
{
	uint64_t sizes = 0;

	for (unsigned b = 0; b < s->ram_count; b++)
		sizes |= s->ram[b].unit_pages * PC_PAGE;
	return sizes;
}

static void put_head(struct pc *s)
{
	struct wire *w = &s->head;

	wire_header(w);
	wire_config(w, s->o.modern ? "pc-i440fx-10.2" : "pc-i440fx-7.2");
	wire_open_return_path(w);
	wire_ping(w, 1);
	inject(s, PC_BEFORE_ADVISE);
	if (!s->o.no_advise)
		wire_advise(w, s->o.summary ? s->o.summary : page_sizes(s),
		            s->o.advised_tpage_bytes ? s->o.advised_tpage_bytes : PC_PAGE);
	inject(s, PC_BEFORE_START);
	put_start(s);
	put_precopy(s);
	put_switch(s);
}

/* ---- connections ------------------------------------------------------------------------------------------------- */

#if HAVE_GNUTLS

/* A line inside TLS: a child that shakes hands on the connection and then carries bytes in both directions. */
struct tls_relay {
	struct tls_peer peer;
	struct tls_peer_plan plan;
	int fd; /* the child's end of the pair */
};

/* tls_peer_start closes what is below. */
#define RELAY_FD_MIN 256

/* Return: whether it goes on. */
static bool relay_in(struct tls_peer *p, int fd)
{
	uint8_t buf[16384];
	ssize_t n = gnutls_record_recv(p->session, buf, sizeof(buf));

	if (n == GNUTLS_E_AGAIN || n == GNUTLS_E_INTERRUPTED)
		return true;
	return n > 0 && write(fd, buf, (size_t)n) == n;
}

static bool relay_out(struct tls_peer *p, int fd)
{
	uint8_t buf[16384];
	ssize_t n = read(fd, buf, sizeof(buf)), sent;

	for (ssize_t at = 0; at < n; at += sent) {
		sent = gnutls_record_send(p->session, buf + at, (size_t)(n - at));
		if (sent < 0)
			return false;
	}
	return n > 0;
}

static void act_relay(struct tls_peer *p)
{
	const struct tls_relay *r = p->plan->arg;
	struct pollfd fds[2] = { { .fd = p->fd, .events = POLLIN }, { .fd = r->fd, .events = POLLIN } };
	bool on = true;

	while (on) {
		fds[0].revents = POLLIN;
		fds[1].revents = 0;
		if (!gnutls_record_check_pending(p->session) && poll(fds, 2, -1) < 0)
			return;
		if (fds[0].revents)
			on = relay_in(p, r->fd);
		if (on && fds[1].revents)
			on = relay_out(p, r->fd);
	}
}

static int through_tls(struct pc *s, unsigned line, int fd)
{
	struct tls_relay *r = calloc(1, sizeof(*r));
	int pair[2];

	ASSERT(r && socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) == 0);
	fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) & ~O_NONBLOCK);
	*r = (struct tls_relay){ .plan = { .kind = TLS_PEER_PSK, .dir = s->tls_dir, .act = act_relay },
		                 .fd = fcntl(pair[1], F_DUPFD_CLOEXEC, RELAY_FD_MIN) };
	ASSERT(r->fd >= 0);
	close(pair[1]);
	r->plan.arg = r;
	s->lines[line].fd = pair[0];
	tls_peer_start(&r->peer, &r->plan, fd);
	close(r->fd);
	s->lines[line].relay = r;
	return pair[0];
}

static void end_tls(struct pc_line *line)
{
	struct tls_peer_report report;

	if (!line->relay)
		return;
	tls_peer_wait(&line->relay->peer, &report);
	free(line->relay);
	line->relay = NULL;
}

#else

static int through_tls(struct pc *s, unsigned line, int fd)
{
	(void)s;
	(void)line;
	return fd;
}

static void end_tls(struct pc_line *line)
{
	(void)line;
}

#endif

void pc_source_connect(struct pc *s, unsigned line)
{
	static const struct wire nothing;
	struct pump p;

	if (s->lines[line].fd >= 0)
		return;
	ASSERT(pump_connect(&p, &nothing, s->address) == 0);
	s->lines[line].fd = s->o.tls ? through_tls(s, line, p.fd) : p.fd;
	fcntl(s->lines[line].fd, F_SETFL, O_NONBLOCK);
}

void pc_close_line(struct pc *s, unsigned line)
{
	struct pc_line *l = &s->lines[line];

	if (l->fd < 0)
		return;
	close(l->fd);
	l->fd = -1;
	end_tls(l);
}

void pc_lose(struct pc *s)
{
	s->source_closed = true;
	for (unsigned i = 0; i < PC_LINES; i++)
		pc_close_line(s, i);
}

static bool flush_line(struct pc_line *l)
{
	size_t piece = l->out.len - l->done;
	ssize_t n;

	if (l->fd < 0 || l->held || l->broken)
		return false;
	if (piece > l->allowed - l->sent)
		piece = l->allowed - l->sent;
	if (!piece)
		return false;
	n = send(l->fd, l->out.data + l->done, piece, MSG_DONTWAIT | MSG_NOSIGNAL);
	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return false;
	if (n < 0) {
		l->broken = true;
		return true;
	}
	l->done += (size_t)n;
	l->sent += (size_t)n;
	if (l->done == l->out.len)
		l->done = l->out.len = l->out.mark_count = 0;
	return true;
}

/* ---- replies ----------------------------------------------------------------------------------------------------- */

static void breach(struct pc *s, const char *what, uint64_t start, uint64_t bytes)
{
	if (!s->breach[0])
		snprintf(s->breach, sizeof(s->breach), "%s: block '%s' 0x%llx +0x%llx", what, s->last_name,
		         (unsigned long long)start, (unsigned long long)bytes);
}

static int find_block(const struct pc *s, const char *name)
{
	for (unsigned b = 0; b < s->ram_count; b++)
		if (!strcmp(s->ram[b].said.name, name))
			return (int)b;
	return -1;
}

static void note_request(struct pc *s, unsigned block, uint64_t start, uint64_t bytes)
{
	struct pc_ram *ram = &s->ram[block];
	uint64_t unit_bytes = ram->unit_pages * PC_PAGE;

	/* The last page of a block that is no multiple of it is asked for whole or up to the block's end. */
	if (!bytes || start % unit_bytes || (bytes % unit_bytes && start + bytes != ram->bytes) ||
	    start + bytes < start || start + bytes > ram->units * unit_bytes) {
		breach(s, "no whole pages", start, bytes);
		return;
	}
	for (uint64_t u = start / unit_bytes; u * unit_bytes < start + bytes; u++) {
		if (ram->precopied[u])
			breach(s, "a page that is there", start, bytes);
		if (ram->asked[u]++)
			breach(s, "a second request", start, bytes);
	}
	s->requests = wire_grow(s->requests, &s->request_cap, s->request_count, 1, sizeof(*s->requests));
	s->requests[s->request_count++] =
		(struct pc_request){ .block = block, .start = start, .bytes = bytes, .at_ns = clock_now_ns() };
}

/* By spec/stream.md 3: named with type 3, or the block named last with type 4. */
static void take_request(struct pc *s, const struct wire_reply *reply)
{
	bool named = reply->type == WIRE_RP_REQ_PAGES_ID;
	uint64_t start = be64_load(reply->payload), bytes = be32_load(reply->payload + 8);
	char name[256] = "";
	int block;

	if (named) {
		if (reply->len < 14 || reply->len != 13 + reply->payload[12]) {
			breach(s, "its length", reply->len, 0);
			return;
		}
		memcpy(name, reply->payload + 13, reply->payload[12]);
		if (!strcmp(name, s->last_name))
			breach(s, "named again", start, bytes);
		memcpy(s->last_name, name, sizeof(name));
	}
	s->named_requests += named;
	s->unnamed_requests += !named;
	block = find_block(s, s->last_name);
	if (block < 0)
		breach(s, "unknown block", start, bytes);
	else
		note_request(s, (unsigned)block, start, bytes);
}

unsigned pc_reply_count(const struct pc *s, uint16_t type)
{
	unsigned n = 0;

	for (unsigned i = 0; i < s->reply_count; i++)
		n += s->replies[i].type == type;
	return n;
}

static void take_reply(struct pc *s, const struct wire_reply *reply)
{
	if (pc_reply_count(s, WIRE_RP_SHUT))
		breach(s, "a message after SHUT", reply->type, 0);
	if (reply->type == WIRE_RP_REQ_PAGES || reply->type == WIRE_RP_REQ_PAGES_ID)
		take_request(s, reply);
	else if (s->reply_count < PC_REPLIES_MAX)
		s->replies[s->reply_count++] = *reply;
	else
		breach(s, "too many replies", reply->type, 0);
}

static bool read_main(struct pc *s)
{
	struct pc_line *l = &s->lines[PC_MAIN];
	size_t at = 0;
	ssize_t n;

	if (l->fd < 0 || l->broken)
		return false;
	n = recv(l->fd, s->inbuf + s->in_len, sizeof(s->inbuf) - s->in_len, MSG_DONTWAIT);
	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return false;
	if (n <= 0) {
		l->broken = true;
		return true;
	}
	s->in_len += (size_t)n;
	for (;;) {
		struct wire_reply reply;
		int bytes = wire_reply_parse(s->inbuf + at, s->in_len - at, &reply);

		if (bytes < 0)
			breach(s, "no reply", s->inbuf[at + 1], 0);
		if (bytes <= 0)
			break;
		take_reply(s, &reply);
		at += (size_t)bytes;
	}
	memmove(s->inbuf, s->inbuf + at, s->in_len - at);
	s->in_len -= at;
	return true;
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

	wire_part(&l->out, WIRE_PART, RAM_ID);
	for (unsigned i = 0; i < PUSH_UNITS && l->out.len - l->done < PUSH_BYTES && next_unit(s); i++) {
		pages_of_unit(s, s->push_block, s->push_unit, &first, &end);
		put_pages(s, l, &l->out, s->push_block, first, end);
		s->ram[s->push_block].sent[s->push_unit++] = 1;
	}
	end_section(s, &l->out);
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

	wire_part(w, WIRE_END, RAM_ID);
	end_section(s, w);
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
	put_head(s);
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

bool pc_source_step(struct pc *s)
{
	bool moved = read_main(s);

	if (s->lines[PC_MAIN].fd >= 0) {
		moved |= connect_preempt(s);
		moved |= answer_requests(s);
		moved |= push(s);
	}
	for (unsigned i = 0; i < PC_LINES; i++)
		moved |= flush_line(&s->lines[i]);
	moved |= leave(s);
	return moved;
}
