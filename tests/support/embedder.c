#include "tests/support/embedder.h"

#include <errno.h>
#include <limits.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/assert.h"
#include "base/clock.h"

#define CANARY 0xc5
#define CANARY_BYTES 4096u
#define HUGE_BYTES (2u << 20)
#define DEADLINE_MS 10000
#define POLL_SLICE_MS 100

/* ---- memory ------------------------------------------------------------------------------------------------ */

void embedder_init(struct embedder *e)
{
	*e = (struct embedder){ .result = -EINPROGRESS };
}

static void device_fini(struct emb_device *dev)
{
	free(dev->data);
	free(dev->description);
}

void embedder_fini(struct embedder *e)
{
	inm_free(e->inm);
	for (unsigned i = 0; i < e->block_count; i++) {
		struct emb_block *b = &e->blocks[i];

		if (b->guest && b->guest != b->host)
			munmap(b->guest, b->room_bytes);
		munmap(b->host - b->canary_bytes, b->room_bytes + 2 * b->canary_bytes);
		if (b->fd >= 0)
			close(b->fd);
	}
	for (unsigned i = 0; i < e->device_count; i++)
		device_fini(&e->devices[i]);
	free(e->devices);
	*e = (struct embedder){ 0 };
}

void embedder_reset(struct embedder *e)
{
	for (unsigned i = 0; i < e->device_count; i++)
		device_fini(&e->devices[i]);
	e->device_count = e->ram_block_calls = e->start_calls = e->state_count = e->log_lines = e->trace_lines = 0;
	e->device_after_start = false;
	e->result = -EINPROGRESS;
	for (unsigned i = 0; i < e->block_count; i++) {
		e->blocks[i].asked = 0;
		memset(e->blocks[i].host, 0, e->blocks[i].bytes);
	}
}

struct emb_block *embedder_add(struct embedder *e, const char *name, uint64_t bytes, enum emb_backing backing)
{
	struct emb_block *b = &e->blocks[e->block_count++];
	size_t all;
	void *p;

	ASSERT(e->block_count <= EMB_BLOCKS_MAX);
	*b = (struct emb_block){
		.bytes = bytes, .backing = backing, .fd = -1, .canary_bytes = backing == EMB_HUGETLB ? 0 : CANARY_BYTES
	};
	snprintf(b->name, sizeof(b->name), "%s", name);
	b->room_bytes = backing == EMB_HUGETLB ? (bytes + HUGE_BYTES - 1) & ~(uint64_t)(HUGE_BYTES - 1) : bytes;
	all = b->room_bytes + 2 * b->canary_bytes;
	if (backing != EMB_ANON) {
		b->fd = memfd_create("embedder", MFD_CLOEXEC | (backing == EMB_HUGETLB ? MFD_HUGETLB : 0));
		ASSERT(b->fd >= 0 && ftruncate(b->fd, (off_t)all) == 0);
	}
	p = mmap(NULL, all, PROT_READ | PROT_WRITE, b->fd < 0 ? MAP_PRIVATE | MAP_ANONYMOUS : MAP_SHARED, b->fd, 0);
	ASSERT(p != MAP_FAILED);
	b->host = (uint8_t *)p + b->canary_bytes;
	memset(p, CANARY, b->canary_bytes);
	memset(b->host + bytes, CANARY, b->canary_bytes);
	return b;
}

void embedder_map_guests(struct embedder *e)
{
	for (unsigned i = 0; i < e->block_count; i++) {
		struct emb_block *b = &e->blocks[i];
		void *p = b->host;

		if (b->fd >= 0)
			p = mmap(NULL, b->room_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, b->fd,
			         (off_t)b->canary_bytes);
		ASSERT(p != MAP_FAILED);
		b->guest = p;
	}
}

void embedder_add_image(struct embedder *e, const struct honest_image *image)
{
	for (unsigned i = 0; i < image->block_count; i++)
		embedder_add(e, image->blocks[i].name, image->blocks[i].bytes, EMB_MEMFD);
}

struct emb_block *embedder_block(struct embedder *e, const char *name)
{
	for (unsigned i = 0; i < e->block_count; i++)
		if (!strcmp(e->blocks[i].name, name))
			return &e->blocks[i];
	return NULL;
}

/* ---- callbacks --------------------------------------------------------------------------------------------- */

/* Descriptors that an earlier ram_block call gave away: the library must not need them any more. */
static void close_given(struct embedder *e)
{
	for (unsigned i = 0; i < e->block_count && e->close_fds; i++) {
		if (!e->blocks[i].asked || e->blocks[i].fd < 0)
			continue;
		close(e->blocks[i].fd);
		e->blocks[i].fd = -1;
	}
}

static int on_ram_block(void *opaque, struct inm_ram_block *said)
{
	struct embedder *e = opaque;
	struct emb_block *b = embedder_block(e, said->name);

	e->device_after_start |= e->start_calls > 0;
	if (++e->ram_block_calls == e->cancel_in_ram_block)
		inm_cancel(e->inm);
	if (e->fail_ram_block)
		return e->fail_ram_block;
	if (!b)
		return -ENOENT;
	close_given(e);
	b->asked++;
	b->said_bytes = said->bytes;
	b->said_page_bytes = said->page_bytes;
	if (b->dirty)
		memset(b->host, EMB_PREFILL, b->bytes);
	said->bytes_max = b->bytes;
	said->resizable = b->resizable;
	said->dirty = b->dirty;
	said->unplugged = b->unplugged;
	said->fd = b->fd;
	said->fd_offset = b->fd < 0 ? 0 : b->canary_bytes;
	said->addr = b->fd < 0 ? b->host : b->guest;
	return 0;
}

static int on_device(void *opaque, const struct inm_device *said)
{
	struct embedder *e = opaque;
	struct emb_device *dev;

	close_given(e);
	e->device_after_start |= e->start_calls > 0;
	if (e->device_count + 1 == e->cancel_in_device)
		inm_cancel(e->inm);
	if (e->fail_device && e->device_count == e->fail_device_nth)
		return e->fail_device;
	if (e->device_count == e->device_cap) {
		e->device_cap = e->device_cap ? e->device_cap * 2 : 16;
		e->devices = realloc(e->devices, e->device_cap * sizeof(*e->devices));
		ASSERT(e->devices);
	}
	dev = &e->devices[e->device_count++];
	*dev = (struct emb_device){ .instance_id = said->instance_id,
		                    .version_id = said->version_id,
		                    .bytes = said->bytes,
		                    .stream_offset = said->stream_offset,
		                    .split = said->split };
	snprintf(dev->name, sizeof(dev->name), "%s", said->name);
	dev->data = malloc(said->bytes + 1);
	ASSERT(dev->data);
	memcpy(dev->data, said->data, said->bytes);
	dev->description = said->description ? strdup(said->description) : NULL;
	return 0;
}

static int on_start_vcpus(void *opaque, const char *run_state)
{
	struct embedder *e = opaque;

	close_given(e);
	if (++e->start_calls == e->cancel_in_start)
		inm_cancel(e->inm);
	snprintf(e->run_state, sizeof(e->run_state), "%s", run_state ? run_state : "(null)");
	return e->fail_start;
}

static void on_state(void *opaque, enum inm_state state)
{
	struct embedder *e = opaque;

	if (e->state_count < EMB_STATES_MAX)
		e->states[e->state_count] = state;
	if (++e->state_count == e->cancel_in_state)
		inm_cancel(e->inm);
}

void embedder_check_line(const char *text)
{
	for (size_t i = 0; text[i]; i++) {
		if (text[i] >= 0x20 && text[i] <= 0x7e)
			continue;
		fprintf(stderr, "byte 0x%02x at %zu of: %s\n", (unsigned)(unsigned char)text[i], i, text);
		abort();
	}
}

static void on_log(void *opaque, enum inm_log_level level, const char *text)
{
	struct embedder *e = opaque;

	(void)level;
	embedder_check_line(text);
	e->log_lines += text[0] != 0;
}

void embedder_trace(void *opaque, uint64_t stream_offset, int depth, const char *text)
{
	struct embedder *e = opaque;

	(void)stream_offset;
	embedder_check_line(text);
	e->trace_lines += depth >= 0 && text[0] != 0;
}

const struct inm_ops embedder_ops = {
	.size = sizeof(struct inm_ops),
	.ram_block = on_ram_block,
	.device = on_device,
	.ready = on_start_vcpus,
	.state_changed = on_state,
	.log = on_log,
};

/* ---- comparing --------------------------------------------------------------------------------------------- */

unsigned embedder_compare(struct embedder *e, const struct honest_image *image)
{
	unsigned bad = 0;

	for (unsigned i = 0; i < image->block_count; i++) {
		struct emb_block *b = embedder_block(e, image->blocks[i].name);

		ASSERT(b && image->blocks[i].bytes <= b->bytes);
		for (uint64_t off = 0; off < image->blocks[i].bytes; off += WIRE_TPAGE_BYTES) {
			if (!memcmp(b->host + off, image->blocks[i].data + off, WIRE_TPAGE_BYTES))
				continue;
			if (bad++ < 5)
				fprintf(stderr, "%s+0x%llx: begins %02x %02x, not %02x %02x\n", b->name,
				        (unsigned long long)off, b->host[off], b->host[off + 1],
				        image->blocks[i].data[off], image->blocks[i].data[off + 1]);
		}
	}
	return bad;
}

size_t embedder_canaries(const struct embedder *e)
{
	size_t bad = 0;

	for (unsigned i = 0; i < e->block_count; i++) {
		const struct emb_block *b = &e->blocks[i];

		for (size_t k = 0; k < b->canary_bytes; k++)
			bad += (b->host[b->bytes + k] != CANARY) + ((b->host - b->canary_bytes)[k] != CANARY);
	}
	return bad;
}

bool embedder_block_is(const struct emb_block *b, uint8_t byte)
{
	for (uint64_t i = 0; i < b->bytes; i++)
		if (b->host[i] != byte)
			return false;
	return true;
}

unsigned embedder_compare_devices(const struct embedder *e, const struct wire *w)
{
	unsigned bad = e->device_count != w->body_count;

	if (bad)
		fprintf(stderr, "%u devices came, %zu were sent\n", e->device_count, w->body_count);
	for (unsigned i = 0; i < e->device_count && i < w->body_count; i++) {
		const struct emb_device *dev = &e->devices[i];
		const struct wire_body *body = &w->bodies[i];

		if (strcmp(dev->name, body->name) == 0 && dev->instance_id == body->instance_id &&
		    dev->version_id == body->version_id && dev->stream_offset == body->off &&
		    dev->bytes == body->bytes && memcmp(dev->data, w->data + body->off, body->bytes) == 0)
			continue;
		fprintf(stderr, "device %u: '%s' %u v%u at 0x%llx, %zu bytes; sent '%s' %u v%u at 0x%zx, %zu bytes\n",
		        i, dev->name, dev->instance_id, dev->version_id, (unsigned long long)dev->stream_offset,
		        dev->bytes, body->name, body->instance_id, body->version_id, body->off, body->bytes);
		bad++;
	}
	return bad;
}

const char *embedder_states(const struct embedder *e, char *buf, size_t buf_bytes)
{
	size_t at = 0;

	buf[0] = 0;
	for (unsigned i = 0; i < e->state_count && i < EMB_STATES_MAX && at < buf_bytes; i++)
		at += (size_t)snprintf(buf + at, buf_bytes - at, "%s%s", i ? " " : "", inm_state_name(e->states[i]));
	return buf;
}

/* ---- the common run ---------------------------------------------------------------------------------------- */

static void must(struct embedder *e, int r, const char *what)
{
	if (r >= 0)
		return;
	fprintf(stderr, "%s: %s (%s)\n", what, strerror(-r), inm_error(e->inm));
	abort();
}

void land_new(struct embedder *e, const struct land_opts *o)
{
	struct inm_config config = o->config;

	config.size = sizeof(config);
	must(e, inm_new(&e->inm, &config, o->ops ? o->ops : &embedder_ops, e), "inm_new");
	if (o->return_path)
		must(e, inm_set_capability(e->inm, "return-path", true), "return-path");
	for (unsigned i = 0; o->caps && o->caps[i]; i++)
		must(e, inm_set_capability(e->inm, o->caps[i], true), o->caps[i]);
	for (unsigned i = 0; o->params && o->params[i]; i += 2)
		must(e, inm_set_parameter(e->inm, o->params[i], o->params[i + 1]), o->params[i]);
}

int land_listen_fd(struct embedder *e, int fd)
{
	char uri[32];

	snprintf(uri, sizeof(uri), "fd:%d", fd);
	return inm_listen(e->inm, uri);
}

/* What the migration was, kept; then it goes. */
static int land_free(struct embedder *e, int result)
{
	e->result = result;
	embedder_check_line(inm_error(e->inm));
	snprintf(e->error, sizeof(e->error), "%s", inm_error(e->inm));
	e->stats.size = sizeof(e->stats);
	inm_get_stats(e->inm, &e->stats);
	inm_free(e->inm);
	e->inm = NULL;
	return result;
}

static uint64_t land_deadline_ns(const struct land_opts *o)
{
	return deadline_after_ns((o->deadline_ms ? o->deadline_ms : DEADLINE_MS) * NS_PER_MS);
}

/*
 * A descriptor that becomes readable must end a poll that sleeps on it. One that is found readable only when the poll
 * looks again at its very end has not done so; with a longer timeout the embedder would have slept on.
 */
static void poll_slice(struct embedder *e, struct pollfd *pfds, nfds_t count)
{
	uint64_t began_ns = clock_now_ns();

	if (poll(pfds, count, POLL_SLICE_MS) > 0 && clock_now_ns() - began_ns >= POLL_SLICE_MS * NS_PER_MS)
		e->lost_wakeups++;
}

static int run_by_dispatch(struct embedder *e, uint64_t deadline_ns)
{
	for (;;) {
		struct pollfd pfd = { .fd = inm_fd(e->inm), .events = POLLIN };
		int r = inm_dispatch(e->inm);

		if (r != 1)
			return r;
		if (clock_now_ns() >= deadline_ns)
			return -ETIMEDOUT;
		poll_slice(e, &pfd, 1);
	}
}

int land(struct embedder *e, const struct wire *w, const struct land_opts *o, struct source_report *ret_report)
{
	const struct source_plan plan = {
		.wire = w,
		.stop_at = o->stop_at,
		.chunk_bytes = o->chunk_bytes,
		.pauses = o->pauses,
		.pause_count = o->pause_count,
		.return_path = o->return_path,
		.end = o->end,
	};
	uint64_t deadline_ns = land_deadline_ns(o);
	struct source_report report;
	struct source src;
	int r;

	land_new(e, o);
	if (o->uri) {
		must(e, inm_listen(e->inm, o->uri), o->uri);
		source_play_uri(&src, &plan, inm_address(e->inm, 0));
	} else {
		must(e, land_listen_fd(e, source_play_pair(&src, &plan, o->kind)), "fd:");
	}
	r = o->by_dispatch ? run_by_dispatch(e, deadline_ns) : inm_run_until(e->inm, deadline_ns);
	land_free(e, r);
	source_wait(&src, &report);
	if (ret_report)
		*ret_report = report;
	return r;
}

int land_pump(struct embedder *e, struct pump *p, int fd, const struct land_opts *o, unsigned cancel_after,
              unsigned *ret_dispatches)
{
	uint64_t deadline_ns = land_deadline_ns(o);
	unsigned dispatches = 0;
	int r;

	land_new(e, o);
	p->return_path = o->return_path;
	must(e, land_listen_fd(e, fd), "fd:");
	if (cancel_after == 0)
		inm_cancel(e->inm);
	for (;;) {
		struct pollfd pfds[2] = { { .fd = inm_fd(e->inm), .events = POLLIN } };

		r = inm_dispatch(e->inm);
		if (r != 1)
			break;
		if (++dispatches == cancel_after)
			inm_cancel(e->inm);
		if (clock_now_ns() >= deadline_ns) {
			r = -ETIMEDOUT;
			break;
		}
		if (pump_step(p))
			continue;
		pfds[1] = (struct pollfd){ .fd = p->fd,
			                   .events = (short)(POLLIN | (p->written < p->stop_at ? POLLOUT : 0)) };
		poll_slice(e, pfds, 2);
	}
	pump_step(p); /* what the destination said last */
	land_free(e, r);
	pump_step(p);
	pump_close(p);
	if (ret_dispatches)
		*ret_dispatches = dispatches;
	return r;
}
