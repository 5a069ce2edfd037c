#include "engine/ram/multifd_channel.h"

#include "base/be.h"
#include "base/clock.h"
#include "base/err.h"
#include "base/log.h"
#include "base/probe.h"
#include "base/text.h"
#include "coroutine/turn.h"
#include "engine/channel/channel.h"
#include "engine/ram/multifd.h"
#include "engine/ram/multifd_barrier.h"
#include "engine/ram/multifd_decode.h"
#include "memory/land.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

void multifd_channel_free(struct multifd_channel *c)
{
	if (!c)
		return;
	chan_close(c->ch);
	multifd_decoder_free(c->decoder);
	free(c->payload);
	free(c);
}

static size_t header_bytes(const struct multifd_channel *c)
{
	return multifd_header_bytes(c->m->ram->tpage_shift);
}

/* Of the packet's pages, normal ones first. */
static size_t tpage_at(const struct multifd_packet *p, size_t i)
{
	return be64_load(p->offsets + 8 * i) >> p->block->tpage_shift;
}

struct page {
	size_t tpage;
	const uint8_t *bytes;
};

static int by_place(const void *a, const void *b)
{
	size_t x = ((const struct page *)a)->tpage, y = ((const struct page *)b)->tpage;

	return (x > y) - (x < y);
}

/* Pages that are received straight into memory, in one call of the kernel's, lie in so few huge ones. */
#define DIRECT_REGIONS_MAX 2

/*
 * May the payload go straight to its pages? Not where memory is better landed from a buffer, nor where the pages are
 * scattered: the kernel would make a huge page for each of them (memory/land.h) while everybody waits.
 */
static bool goes_direct(const struct multifd_channel *c, const struct multifd_packet *p)
{
	unsigned regions = 0;
	uint64_t region, last = UINT64_MAX;

	if (c->decoder || land_wants_buffer(p->block))
		return false;
	for (size_t i = 0; i < p->normal_pages; i++) {
		region = be64_load(p->offsets + 8 * i) / LAND_REGION_BYTES;
		regions += region != last;
		last = region;
	}
	return regions <= DIRECT_REGIONS_MAX;
}

/* Pages side by side are landed together, so sort them first: sources from 9.0 on do not (doc/wire/multifd.md 4.1). */
static int land_buffer(struct multifd_channel *c, const struct multifd_packet *p, struct err *err)
{
	size_t page_bytes = ram_tpage_bytes(c->m->ram), n;
	struct page page[MULTIFD_PAGES_MAX];
	int e;

	for (size_t i = 0; i < p->normal_pages; i++)
		page[i] = (struct page){ tpage_at(p, i), c->payload + i * page_bytes };
	qsort(page, p->normal_pages, sizeof(page[0]), by_place);
	for (size_t i = 0; i < p->normal_pages; i += n) {
		for (n = 0; i + n < p->normal_pages && page[i + n].tpage == page[i].tpage + n; n++)
			c->pages[n] = (struct iovec){ (void *)page[i + n].bytes, page_bytes };
		/* We are inside the gate: the answer holds. */
		e = turn_spend(c->go.sched, land_wants_buffer(p->block) ? TURN_SYSCALL : TURN_LOOK);
		if (e < 0)
			return e;
		e = land_pages(p->block, page[i].tpage, c->pages, (int)n);
		if (e < 0)
			return err_set(err, e, "writing to block '%s': %s",
			               TEXT_QUOTE(p->block->name, p->block->name_bytes), strerror(-e));
	}
	return 0;
}

static int inflate_pages(struct multifd_channel *c, const struct multifd_packet *p, struct err *err)
{
	int e;

	for (size_t i = 0; i < p->normal_pages; i++)
		c->pages[i] = (struct iovec){ land_at_inside(p->block, tpage_at(p, i)), ram_tpage_bytes(c->m->ram) };
	e = multifd_decode(c->decoder, c->go.sched, c->pages, (int)p->normal_pages, c->payload, p->payload_bytes, err);
	/* One that was heard while decoding is still pending. */
	if (e == -ECANCELED)
		co_take_cancel(c->go.sched);
	for (size_t i = 0; e == 0 && i < p->normal_pages; i++)
		land_done(p->block, tpage_at(p, i), 1);
	return e;
}

static int cut(const struct multifd_channel *c, struct err *err)
{
	return err_set(err, -ENODATA, "the source closed the channel in the middle of a packet, after %llu bytes",
	               (unsigned long long)c->ch->bytes_in);
}

/*
 * Where the payload goes: into the pages themselves, side by side ones as one entry; or into the channel's buffer, to
 * be landed or inflated from there.
 */
static int payload_iov(struct multifd_channel *c, const struct multifd_packet *p, struct iovec *iov)
{
	size_t page_bytes = ram_tpage_bytes(c->m->ram);
	int n = 0;

	if (!goes_direct(c, p)) {
		iov[0] = (struct iovec){ c->payload, p->payload_bytes };
		return 1;
	}
	for (size_t i = 0; i < p->normal_pages; i++) {
		uint8_t *page = land_at_inside(p->block, tpage_at(p, i));

		if (n > 0 && (uint8_t *)iov[n - 1].iov_base + iov[n - 1].iov_len == page)
			iov[n - 1].iov_len += page_bytes;
		else
			iov[n++] = (struct iovec){ page, page_bytes };
	}
	return n;
}

static int land_payload(struct multifd_channel *c, const struct multifd_packet *p, struct err *err)
{
	if (c->decoder)
		return inflate_pages(c, p, err);
	if (!goes_direct(c, p))
		return land_buffer(c, p, err);
	for (size_t i = 0; i < p->normal_pages; i++)
		land_done(p->block, tpage_at(p, i), 1);
	return 0;
}

/*
 * The payload, and with it the next packet's prefix: another packet is certain to follow, unless this one is a SYNC.
 * Return: 1 the prefix is in @next, 0 it is not, or the error.
 */
static int read_payload(struct multifd_channel *c, const struct multifd_packet *p, uint8_t *next, struct err *err)
{
	int e, n_iov = payload_iov(c, p, c->pages);
	size_t whole = p->payload_bytes;
	ssize_t n;

	if (!p->sync) {
		c->pages[n_iov++] = (struct iovec){ next, MULTIFD_PREFIX_BYTES };
		whole += MULTIFD_PREFIX_BYTES;
	}
	/* No deadline: the network takes as long as it takes; keepalive finds a dead peer, multifd_sync a stall. */
	n = chan_read_full(c->ch, c->pages, n_iov, DEADLINE_NEVER, err);
	if (n < 0)
		return (int)n;
	if ((size_t)n < p->payload_bytes || ((size_t)n > p->payload_bytes && (size_t)n < whole))
		return cut(c, err);
	/* Many channels may be at this point at once. */
	e = turn_spend(c->go.sched, TURN_LOOK);
	if (e == 0)
		e = land_payload(c, p, err);
	return e < 0 ? e : !p->sync && (size_t)n == whole;
}

static void zero_pages(const struct multifd_packet *p)
{
	for (size_t i = p->normal_pages; i < p->normal_pages + p->zero_pages; i++)
		land_zero(p->block, tpage_at(p, i));
}

/* Exactly @bytes. No deadline: see read_payload. Return: 1, 0 the channel has ended before the first, or the error. */
static int read_bytes(struct multifd_channel *c, uint8_t *dst, size_t bytes, struct err *err)
{
	struct iovec iov = { dst, bytes };
	ssize_t n = chan_read_full(c->ch, &iov, 1, DEADLINE_NEVER, err);

	if (n <= 0)
		return (int)n;
	return (size_t)n < bytes ? cut(c, err) : 1;
}

static int read_prefix(struct multifd_channel *c, uint8_t *header, struct err *err)
{
	return read_bytes(c, header, MULTIFD_PREFIX_BYTES, err);
}

int multifd_channel_read_first(struct multifd_channel *c, uint64_t deadline_ns, struct err *err)
{
	struct iovec iov;
	ssize_t n;

	while (c->first_bytes < MULTIFD_PREFIX_BYTES) {
		iov = (struct iovec){ c->headers[0] + c->first_bytes, MULTIFD_PREFIX_BYTES - c->first_bytes };
		n = chan_readv(c->ch, &iov, 1, deadline_ns, err);
		if (n < 0)
			return (int)n;
		if (n == 0)
			return c->first_bytes > 0 ? cut(c, err) : 0;
		c->first_bytes += (size_t)n;
	}
	return 1;
}

static int read_rest(struct multifd_channel *c, uint8_t *header, size_t header_bytes, struct err *err)
{
	int e = read_bytes(c, header + MULTIFD_PREFIX_BYTES, header_bytes - MULTIFD_PREFIX_BYTES, err);

	return e == 0 ? cut(c, err) : e;
}

/* They are older than the switch, so a source that is back does not send them again. */
static int miss_pages(struct multifd_channel *c, struct err *err)
{
	gate_miss(&c->m->ram->gate);
	c->m->missed = true;
	return err_set(err, -EPROTO, "pages after the switch to postcopy");
}

/*
 * The payload goes to guest memory, or from a buffer of the channel's to there, and the channel parks until all of it
 * has come. It is inside the gate meanwhile: the switch to postcopy finds it there, and is not carried out.
 */
static int apply_pages(struct multifd_channel *c, const struct multifd_packet *p, uint8_t *next, struct err *err)
{
	struct gate *gate = &c->m->ram->gate;
	int e = 0;

	if (!gate_enter(gate))
		return miss_pages(c, err);
	c->inside = p;
	if (p->zero_pages > 0)
		zero_pages(p);
	if (p->payload_bytes > 0)
		e = read_payload(c, p, next, err);
	c->inside = NULL;
	gate_leave(gate, e >= 0);
	return e;
}

static int apply_packet(struct multifd_channel *c, const struct multifd_packet *p, uint8_t *next, struct err *err)
{
	struct multifd_counts *counts = &c->m->counts;
	int e = p->block ? apply_pages(c, p, next, err) : 0;

	counts->packets++;
	counts->normal_pages += p->normal_pages;
	counts->zero_pages += p->zero_pages;
	counts->bytes += header_bytes(c) + p->payload_bytes;
	return e;
}

static int refuse_device_state(struct multifd_channel *c, uint8_t *header, struct err *err)
{
	const char *name = (const char *)header + MULTIFD_PREFIX_BYTES; /* doc/wire/multifd.md 7 */
	int e = read_rest(c, header, MULTIFD_PREFIX_BYTES + 256, err);

	if (e < 0)
		return e;
	return err_set(err, -EPROTO, "state of device '%s', which nobody here can load over multifd",
	               TEXT_QUOTE(name, strnlen(name, 256)));
}

int multifd_channel_read(struct multifd_channel *c, struct err *err)
{
	struct multifd_packet p;
	int at = 0, have = 1, e;

	for (;;) {
		if (!have)
			have = read_prefix(c, c->headers[at], err);
		if (have <= 0)
			return have;
		if (be32_load(c->headers[at] + 8) & MULTIFD_DEVICE_STATE)
			return refuse_device_state(c, c->headers[at], err);
		e = read_rest(c, c->headers[at], header_bytes(c), err);
		if (e < 0)
			return e;
		e = multifd_packet_check(&p, c->headers[at], c->m->ram, c->m->compression, err);
		if (e == 0)
			e = have = apply_packet(c, &p, c->headers[!at], err);
		if (e >= 0 && p.sync)
			e = multifd_barrier_wait(c);
		if (e < 0)
			return e;
		at = !at;
	}
}

int multifd_channel_end(struct multifd_channel *c, int e, struct err *err)
{
	struct multifd *m = c->m;

	if (e < 0 && e != -ECANCELED && e != -EPROTO && m->switched) {
		/* It carries nothing any more; a lost network shows where pages come. A lie is an error at any time. */
		log_often(m->log, LOG_CHANNELS, LOG_INFO, "multifd channel %u has ended: %s", c->id, err->text);
		e = 0;
	}
	c->over = e != -ECANCELED;
	if (e < 0 && e != -ECANCELED) {
		err_up(err, e, "multifd channel %u (%s)", c->id, c->ch->name);
		m->failed(m->failed_opaque, e, err);
	}
	/* Main judges an end between packets: it knows whether all pages have come (doc/wire/multifd.md 9.1). */
	c->ended = true;
	event_set(&m->arrived);
	event_set(&m->changed);
	PROBE2(engine__multifd_end, c->id, e);
	return e;
}

/* Its former reader may have been stopped inside a packet. */
int multifd_channel_drain(void *arg)
{
	struct multifd_channel *c = arg;
	struct err ignored = ERR_NONE;
	uint8_t scrap[4096];
	struct iovec iov;
	ssize_t n;

	do {
		iov = (struct iovec){ scrap, sizeof(scrap) };
		/* No deadline: it may be silent to the end. */
		n = chan_readv(c->ch, &iov, 1, DEADLINE_NEVER, &ignored);
	} while (n > 0);
	/* Its end is no error: see multifd_channel_end. */
	if (n != -ECANCELED)
		c->over = true;
	return n == -ECANCELED ? -ECANCELED : 0;
}
