#include "tests/support/wire.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <zlib.h>

#include "base/assert.h"
#include "base/be.h"

/* ---- the buffer ------------------------------------------------------------------------------------------ */

void *wire_grow(void *base, size_t *cap, size_t count, size_t more, size_t size)
{
	if (count + more <= *cap)
		return base;
	while (*cap < count + more)
		*cap = *cap ? *cap * 2 : 64;
	base = realloc(base, *cap * size);
	ASSERT(base);
	return base;
}

void wire_fini(struct wire *w)
{
	free(w->data);
	free(w->marks);
	free(w->bodies);
	free(w->json);
	*w = (struct wire){ 0 };
}

void wire_copy(struct wire *to, const struct wire *from)
{
	*to = (struct wire){ .no_footers = from->no_footers };
	wire_bytes(to, from->data, from->len);
	to->marks = wire_grow(NULL, &to->mark_cap, 0, from->mark_count, sizeof(*to->marks));
	to->bodies = wire_grow(NULL, &to->body_cap, 0, from->body_count, sizeof(*to->bodies));
	to->json = wire_grow(NULL, &to->json_cap, 0, from->json_len + 1, 1);
	to->mark_count = from->mark_count;
	to->body_count = from->body_count;
	to->json_len = from->json_len;
	if (from->mark_count)
		memcpy(to->marks, from->marks, from->mark_count * sizeof(*to->marks));
	if (from->body_count)
		memcpy(to->bodies, from->bodies, from->body_count * sizeof(*to->bodies));
	if (from->json_len)
		memcpy(to->json, from->json, from->json_len);
	to->json[to->json_len] = 0;
}

void wire_mark(struct wire *w, const char *what)
{
	w->marks = wire_grow(w->marks, &w->mark_cap, w->mark_count, 1, sizeof(*w->marks));
	w->marks[w->mark_count++] = (struct wire_mark){ .off = w->len, .what = what };
}

size_t wire_find(const struct wire *w, const char *what, unsigned nth)
{
	for (size_t i = 0; i < w->mark_count; i++)
		if (!strcmp(w->marks[i].what, what) && nth-- == 0)
			return w->marks[i].off;
	fprintf(stderr, "the stream has no such %s\n", what);
	abort();
}

void wire_bytes(struct wire *w, const void *bytes, size_t len)
{
	w->data = wire_grow(w->data, &w->cap, w->len, len, 1);
	if (len)
		memcpy(w->data + w->len, bytes, len);
	w->len += len;
}

void wire_fill(struct wire *w, uint8_t byte, size_t count)
{
	w->data = wire_grow(w->data, &w->cap, w->len, count, 1);
	if (count)
		memset(w->data + w->len, byte, count);
	w->len += count;
}

void wire_u8(struct wire *w, uint8_t v)
{
	wire_bytes(w, &v, 1);
}

void wire_be16(struct wire *w, uint16_t v)
{
	uint8_t b[2];

	be16_store(b, v);
	wire_bytes(w, b, sizeof(b));
}

void wire_be32(struct wire *w, uint32_t v)
{
	uint8_t b[4];

	be32_store(b, v);
	wire_bytes(w, b, sizeof(b));
}

void wire_be64(struct wire *w, uint64_t v)
{
	uint8_t b[8];

	be64_store(b, v);
	wire_bytes(w, b, sizeof(b));
}

void wire_str8_n(struct wire *w, const void *bytes, uint8_t len)
{
	wire_u8(w, len);
	wire_bytes(w, bytes, len);
}

void wire_str8(struct wire *w, const char *text)
{
	wire_str8_n(w, text, (uint8_t)strlen(text));
}

void wire_insert(struct wire *w, size_t off, const void *bytes, size_t len)
{
	uint8_t *copy = malloc(len ? len : 1); /* @bytes may lie in the buffer that moves */

	ASSERT(copy && off <= w->len);
	memcpy(copy, bytes, len);
	w->data = wire_grow(w->data, &w->cap, w->len, len, 1);
	memmove(w->data + off + len, w->data + off, w->len - off);
	memcpy(w->data + off, copy, len);
	w->len += len;
	free(copy);
	for (size_t i = 0; i < w->mark_count; i++)
		w->marks[i].off += w->marks[i].off >= off ? len : 0;
	for (size_t i = 0; i < w->body_count; i++)
		w->bodies[i].off += w->bodies[i].off >= off ? len : 0;
}

/* Where @at stands after @len bytes at @off are gone. */
static size_t after_delete(size_t at, size_t off, size_t len)
{
	if (at <= off)
		return at;
	return at - off < len ? off : at - len;
}

void wire_delete(struct wire *w, size_t off, size_t len)
{
	ASSERT(off <= w->len && len <= w->len - off);
	memmove(w->data + off, w->data + off + len, w->len - off - len);
	w->len -= len;
	for (size_t i = 0; i < w->mark_count; i++)
		w->marks[i].off = after_delete(w->marks[i].off, off, len);
	for (size_t i = 0; i < w->body_count; i++)
		w->bodies[i].off = after_delete(w->bodies[i].off, off, len);
}

/* ---- header and configuration ------------------------------------------------------------------------------ */

void wire_header(struct wire *w)
{
	wire_mark(w, "header");
	wire_be32(w, 0x5145564d);
	wire_be32(w, 3);
}

void wire_config_n(struct wire *w, uint32_t len, const void *name, size_t name_bytes)
{
	wire_mark(w, "configuration");
	wire_u8(w, WIRE_CONFIG);
	wire_be32(w, len);
	wire_bytes(w, name, name_bytes);
}

void wire_config(struct wire *w, const char *machine)
{
	wire_config_n(w, (uint32_t)strlen(machine), machine, strlen(machine));
}

void wire_subsection(struct wire *w, const char *name, uint32_t version)
{
	wire_mark(w, "subsection");
	wire_u8(w, WIRE_SUBSECTION);
	wire_str8(w, name);
	wire_be32(w, version);
}

void wire_config_page_bits(struct wire *w, uint32_t bits)
{
	wire_subsection(w, "configuration/target-page-bits", 1);
	wire_be32(w, bits);
}

void wire_config_capabilities(struct wire *w, const char *const *names, uint32_t count)
{
	wire_subsection(w, "configuration/capabilities", 1);
	wire_be32(w, count);
	for (uint32_t i = 0; i < count; i++)
		wire_str8(w, names[i]);
}

void wire_config_uuid(struct wire *w, const uint8_t uuid[static 16])
{
	wire_subsection(w, "configuration/uuid", 1);
	wire_bytes(w, uuid, 16);
}

/* ---- sections ---------------------------------------------------------------------------------------------- */

void wire_section(struct wire *w, uint8_t type, uint32_t id, const char *idstr, uint32_t instance, uint32_t version)
{
	wire_mark(w, type == WIRE_START ? "START" : "FULL");
	wire_u8(w, type);
	wire_be32(w, id);
	wire_str8(w, idstr);
	wire_be32(w, instance);
	wire_be32(w, version);
}

void wire_part(struct wire *w, uint8_t type, uint32_t id)
{
	wire_mark(w, type == WIRE_PART ? "PART" : "END");
	wire_u8(w, type);
	wire_be32(w, id);
}

void wire_footer(struct wire *w, uint32_t id)
{
	if (w->no_footers)
		return;
	wire_mark(w, "footer");
	wire_u8(w, WIRE_FOOTER);
	wire_be32(w, id);
}

void wire_eof(struct wire *w)
{
	wire_mark(w, "EOF");
	wire_u8(w, WIRE_EOF);
}

/* ---- commands ---------------------------------------------------------------------------------------------- */

void wire_command(struct wire *w, uint16_t id, const void *payload, uint16_t len)
{
	wire_mark(w, "command");
	wire_u8(w, WIRE_COMMAND);
	wire_be16(w, id);
	wire_be16(w, len);
	wire_bytes(w, payload, len);
}

void wire_open_return_path(struct wire *w)
{
	wire_command(w, WIRE_CMD_OPEN_RETURN_PATH, "", 0);
}

void wire_ping(struct wire *w, uint32_t value)
{
	uint8_t b[4];

	be32_store(b, value);
	wire_command(w, WIRE_CMD_PING, b, sizeof(b));
}

void wire_advise(struct wire *w, uint64_t summary, uint64_t tpage_bytes)
{
	uint8_t b[16];

	be64_store(b, summary);
	be64_store(b + 8, tpage_bytes);
	wire_command(w, WIRE_CMD_ADVISE, b, sizeof(b));
}

void wire_advise_empty(struct wire *w)
{
	wire_command(w, WIRE_CMD_ADVISE, "", 0);
}

void wire_listen(struct wire *w)
{
	wire_command(w, WIRE_CMD_LISTEN, "", 0);
}

void wire_run(struct wire *w)
{
	wire_command(w, WIRE_CMD_RUN, "", 0);
}

void wire_discard(struct wire *w, const char *block, const struct wire_range *ranges, unsigned count)
{
	struct wire payload = { 0 };

	wire_u8(&payload, 0);
	wire_str8(&payload, block);
	wire_u8(&payload, 0);
	for (unsigned i = 0; i < count; i++) {
		wire_be64(&payload, ranges[i].start);
		wire_be64(&payload, ranges[i].length);
	}
	wire_command(w, WIRE_CMD_DISCARD, payload.data, (uint16_t)payload.len);
	wire_fini(&payload);
}

size_t wire_package_begin(struct wire *w)
{
	wire_command(w, WIRE_CMD_PACKAGED, "\0\0\0", 4);
	return w->len;
}

void wire_package_end(struct wire *w, size_t begun)
{
	be32_store(w->data + begun - 4, (uint32_t)(w->len - begun));
}

void wire_enable_colo(struct wire *w)
{
	wire_command(w, WIRE_CMD_ENABLE_COLO, "", 0);
}

void wire_resume(struct wire *w)
{
	wire_command(w, WIRE_CMD_RESUME, "", 0);
}

void wire_recv_bitmap(struct wire *w, const char *block)
{
	struct wire payload = { 0 };

	wire_str8(&payload, block);
	wire_command(w, WIRE_CMD_RECV_BITMAP, payload.data, (uint16_t)payload.len);
	wire_fini(&payload);
}

void wire_switchover_start(struct wire *w)
{
	wire_command(w, WIRE_CMD_SWITCHOVER_START, "", 0);
}

/* ---- ram records ------------------------------------------------------------------------------------------- */

void wire_word(struct wire *w, uint64_t addr, uint32_t flags)
{
	wire_mark(w, "record");
	wire_be64(w, addr | flags);
}

void wire_record(struct wire *w, uint64_t addr, uint32_t flags, const char *block)
{
	wire_word(w, addr, block ? flags : flags | WIRE_RAM_CONTINUE);
	if (block)
		wire_str8(w, block);
}

void wire_mem_size(struct wire *w, const struct wire_block *blocks, unsigned count)
{
	uint64_t total = 0;

	for (unsigned i = 0; i < count; i++)
		total += blocks[i].bytes;
	wire_word(w, total, WIRE_RAM_MEM_SIZE);
	for (unsigned i = 0; i < count; i++) {
		wire_mark(w, "block");
		wire_str8(w, blocks[i].name);
		wire_be64(w, blocks[i].bytes);
		if (blocks[i].page_bytes)
			wire_be64(w, blocks[i].page_bytes);
	}
}

void wire_page(struct wire *w, const char *block, uint64_t addr, const void *bytes)
{
	wire_record(w, addr, WIRE_RAM_PAGE, block);
	wire_bytes(w, bytes, WIRE_TPAGE_BYTES);
}

void wire_zero(struct wire *w, const char *block, uint64_t addr, uint8_t fill)
{
	wire_record(w, addr, WIRE_RAM_ZERO, block);
	wire_u8(w, fill);
}

void wire_xbzrle_n(struct wire *w, const char *block, uint64_t addr, uint8_t encoding, uint16_t n, const void *bytes,
                   size_t len)
{
	wire_record(w, addr, WIRE_RAM_XBZRLE, block);
	wire_u8(w, encoding);
	wire_be16(w, n);
	wire_bytes(w, bytes, len);
}

void wire_compress_n(struct wire *w, const char *block, uint64_t addr, uint32_t n, const void *bytes, size_t len)
{
	wire_record(w, addr, WIRE_RAM_COMPRESS, block);
	wire_be32(w, n);
	wire_bytes(w, bytes, len);
}

void wire_compress(struct wire *w, const char *block, uint64_t addr, const void *page)
{
	uint8_t buf[WIRE_TPAGE_BYTES * 2];
	uLongf len = sizeof(buf);

	ASSERT(compress2(buf, &len, page, WIRE_TPAGE_BYTES, 1) == Z_OK);
	wire_compress_n(w, block, addr, (uint32_t)len, buf, len);
}

void wire_eos(struct wire *w)
{
	wire_word(w, 0, WIRE_RAM_EOS);
}

void wire_ram_end(struct wire *w, uint32_t id)
{
	wire_eos(w);
	wire_footer(w, id);
}

void wire_flush(struct wire *w)
{
	wire_word(w, 0, WIRE_RAM_FLUSH);
}

/* 4.3: one byte below 128, else two with the high bit of the first set. */
static int put_len(uint8_t *buf, unsigned v)
{
	if (v < 128) {
		buf[0] = (uint8_t)v;
		return 1;
	}
	buf[0] = (uint8_t)((v & 0x7f) | 0x80);
	buf[1] = (uint8_t)(v >> 7);
	return 2;
}

int wire_xbzrle_encode(uint8_t *buf, const uint8_t *old, const uint8_t *fresh)
{
	unsigned at = 0, len = 0;

	for (;;) {
		unsigned same = at, end;

		while (at < WIRE_TPAGE_BYTES && old[at] == fresh[at])
			at++;
		if (at == WIRE_TPAGE_BYTES)
			return (int)len; /* a trailing unchanged run is not sent */
		for (end = at; end < WIRE_TPAGE_BYTES && old[end] != fresh[end];)
			end++;
		if (len + 4 + (end - at) > WIRE_TPAGE_BYTES)
			return -1;
		len += (unsigned)put_len(buf + len, at - same);
		len += (unsigned)put_len(buf + len, end - at);
		memcpy(buf + len, fresh + at, end - at);
		len += end - at;
		at = end;
	}
}

int wire_xbzrle(struct wire *w, const char *block, uint64_t addr, const uint8_t *old, const uint8_t *fresh)
{
	uint8_t buf[WIRE_TPAGE_BYTES];
	int n = wire_xbzrle_encode(buf, old, fresh);

	if (n > 0)
		wire_xbzrle_n(w, block, addr, 1, (uint16_t)n, buf, (size_t)n);
	return n;
}

/* ---- replies ----------------------------------------------------------------------------------------------- */

int wire_reply_parse(const uint8_t *buf, size_t len, struct wire_reply *ret_reply)
{
	static const int lens[] = { 0, 4, 4, -1, 12, -1, 4, 0 }; /* by type; -1: variable */
	struct wire_reply reply = { 0 };                         /* a whole one crosses a pipe */

	if (len < 4)
		return 0;
	reply.type = be16_load(buf);
	reply.len = be16_load(buf + 2);
	if (reply.type < WIRE_RP_SHUT || reply.type > WIRE_RP_SWITCHOVER_ACK || reply.len > sizeof(reply.payload))
		return -1;
	if (lens[reply.type] >= 0 && reply.len != lens[reply.type])
		return -1;
	if (len < 4u + reply.len)
		return 0;
	memcpy(reply.payload, buf + 4, reply.len);
	*ret_reply = reply;
	return 4 + reply.len;
}
