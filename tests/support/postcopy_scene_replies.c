/* What a postcopy scene's source hears: it checks each request by the rules. See postcopy_scene.h. */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

#include "base/be.h"
#include "base/clock.h"
#include "tests/support/postcopy_scene_source.h"

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

/* By doc/wire/stream.md 3: named with type 3, or the block named last with type 4. */
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

bool pc_read_main(struct pc *s)
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
