#include "tests/netem/path.h"

#include "base/clock.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

void path_init(struct path *p, const char *name, uint64_t seed, unsigned int direction)
{
	*p = (struct path){ .name = name, .settings = settings_default() };
	dice_init(&p->dice, seed, direction);
}

void path_fini(struct path *p)
{
	while (p->heap_count)
		free(p->heap[--p->heap_count]);
	free(p->heap);
	p->heap = NULL;
	p->heap_room = 0;
}

void path_start(struct path *p, uint64_t now_ns)
{
	p->start_ns = now_ns;
	for (size_t n = 0; n < p->blackout_count; n++)
		p->blackouts[n].at_ns += now_ns;
}

int path_blackout(struct path *p, struct blackout window, uint64_t now_ns)
{
	size_t kept = 0;

	for (size_t n = 0; n < p->blackout_count; n++) {
		if (p->blackouts[n].at_ns + p->blackouts[n].for_ns > now_ns)
			p->blackouts[kept++] = p->blackouts[n];
	}
	p->blackout_count = kept;
	if (kept == BLACKOUTS_MAX)
		return -ENOSPC;
	p->blackouts[p->blackout_count++] = window;
	return 0;
}

static bool is_dark(const struct path *p, uint64_t now_ns)
{
	for (size_t n = 0; n < p->blackout_count; n++) {
		const struct blackout *b = &p->blackouts[n];

		if (now_ns >= b->at_ns && now_ns - b->at_ns < b->for_ns)
			return true;
	}
	return p->down;
}

static bool is_before(const struct packet *a, const struct packet *b)
{
	return a->due_ns != b->due_ns ? a->due_ns < b->due_ns : a->order < b->order;
}

static void heap_push(struct path *p, struct packet *packet)
{
	size_t at = p->heap_count++;

	while (at > 0 && is_before(packet, p->heap[(at - 1) / 2])) {
		p->heap[at] = p->heap[(at - 1) / 2];
		at = (at - 1) / 2;
	}
	p->heap[at] = packet;
}

static struct packet *heap_pop(struct path *p)
{
	struct packet *first = p->heap[0], *last = p->heap[--p->heap_count];
	size_t at = 0, child;

	while ((child = at * 2 + 1) < p->heap_count) {
		if (child + 1 < p->heap_count && is_before(p->heap[child + 1], p->heap[child]))
			child++;
		if (!is_before(p->heap[child], last))
			break;
		p->heap[at] = p->heap[child];
		at = child;
	}
	p->heap[at] = last;
	return first;
}

static bool heap_has_room(struct path *p)
{
	size_t room = p->heap_room ? p->heap_room * 2 : 256;
	struct packet **grown;

	if (p->heap_count < p->heap_room)
		return true;
	if (room > PATH_PACKETS_MAX)
		return false;
	grown = realloc(p->heap, room * sizeof *grown);
	if (!grown)
		return false;
	p->heap = grown;
	p->heap_room = room;
	return true;
}

/* When the last bit of @bytes is out, after all that wait already. False: they fill the queue. */
static bool wait_for_rate(struct path *p, size_t bytes, uint64_t now_ns, uint64_t *ret_out_ns)
{
	double ns_per_byte = p->settings.rate_bits ? 8e9 / (double)p->settings.rate_bits : 0;
	uint64_t free_ns = p->rate_free_ns > now_ns ? p->rate_free_ns : now_ns;

	if (ns_per_byte == 0) {
		/* Not ahead of those that waited for a rate that was taken away since. */
		*ret_out_ns = free_ns;
		return true;
	}
	/* An idle line takes any packet, however small the queue. */
	if (free_ns > now_ns &&
	    (double)(free_ns - now_ns) + (double)bytes * ns_per_byte > (double)p->settings.queue_bytes * ns_per_byte)
		return false;
	*ret_out_ns = p->rate_free_ns = free_ns + (uint64_t)((double)bytes * ns_per_byte + 0.5);
	return true;
}

static uint64_t on_the_wire_ns(const struct settings *s, const struct fate *fate)
{
	double ns = (double)s->delay_ns + (double)s->jitter_ns * fate->jitter;

	return fate->reordered || ns < 0 ? 0 : (uint64_t)(ns + 0.5);
}

/* One packet that survived. Return: whether there was room. */
static bool carry(struct path *p, const void *data, size_t bytes, const struct fate *fate, bool corrupt,
                  uint64_t now_ns)
{
	struct packet *packet;
	uint64_t out_ns;

	if (!heap_has_room(p) || !wait_for_rate(p, bytes, now_ns, &out_ns))
		return false;
	packet = malloc(sizeof *packet + bytes);
	if (!packet)
		return false;
	packet->due_ns = out_ns + on_the_wire_ns(&p->settings, fate);
	packet->order = p->order++;
	packet->number = p->stats.packets - 1;
	packet->bytes = bytes;
	memcpy(packet->data, data, bytes);
	if (corrupt)
		packet->data[fate->flip / 8 % bytes] ^= (unsigned char)(1u << fate->flip % 8);
	heap_push(p, packet);
	return true;
}

static void log_packet(const struct path *p, const struct fate *fate, size_t bytes, const char *end, uint64_t now_ns)
{
	uint64_t ns = now_ns - p->start_ns;

	if (!p->log)
		return;
	fprintf(p->log, "%s %" PRIu64 " %" PRIu64 ".%09" PRIu64 " %zu %s%s%s%s%s\n", p->name, p->stats.packets - 1,
	        (uint64_t)(ns / NS_PER_S), (uint64_t)(ns % NS_PER_S), bytes, end, fate->lost ? " lost" : "",
	        fate->duplicated ? " duplicated" : "", fate->corrupted ? " corrupted" : "",
	        fate->reordered ? " reordered" : "");
}

static const char *meet(struct path *p, const struct fate *fate, const void *data, size_t bytes, uint64_t now_ns)
{
	unsigned int copies = fate->duplicated ? 2 : 1;
	bool all = true;

	if (is_dark(p, now_ns)) {
		p->stats.blacked_out++;
		return "blackout";
	}
	if (fate->lost) {
		p->stats.lost++;
		return "dropped";
	}
	p->stats.duplicated += fate->duplicated;
	p->stats.corrupted += fate->corrupted;
	p->stats.reordered += fate->reordered;
	/* The copy is as it was sent: what corrupts corrupts one of them. */
	for (unsigned int n = 0; n < copies; n++) {
		if (!carry(p, data, bytes, fate, fate->corrupted && n == 0, now_ns)) {
			p->stats.overflow++;
			all = false;
		}
	}
	return all ? "carried" : "overflow";
}

void path_enter(struct path *p, const void *data, size_t bytes, uint64_t now_ns)
{
	struct fate fate;

	p->stats.packets++;
	p->stats.bytes += bytes;
	if (bytes > p->stats.largest)
		p->stats.largest = bytes;
	fate_draw(&p->dice, &p->settings, &fate);
	log_packet(p, &fate, bytes, meet(p, &fate, data, bytes, now_ns), now_ns);
}

uint64_t path_next_ns(const struct path *p)
{
	return p->heap_count ? p->heap[0]->due_ns : DEADLINE_NEVER;
}

struct packet *path_leave(struct path *p, uint64_t now_ns)
{
	struct packet *packet;

	if (path_next_ns(p) > now_ns || !p->heap_count)
		return NULL;
	packet = heap_pop(p);
	p->stats.delivered++;
	p->stats.delivered_bytes += packet->bytes;
	if (packet->number < p->newest)
		p->stats.overtaken++;
	else
		p->newest = packet->number;
	return packet;
}
