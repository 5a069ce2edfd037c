/*
 * wire.h - migration streams, built element by element
 *
 * These are the bytes that a source would put on the main channel (doc/wire/stream.md), honest or not: every builder
 * takes the values as given and checks nothing, so that a test can tell any lie. A wire also keeps marks, the offset at
 * which each element begins, and the JSON description of the devices in it (doc/wire/stream.md 7.2).
 *
 * Running out of memory aborts.
 */
#ifndef TESTS_SUPPORT_WIRE_H
#define TESTS_SUPPORT_WIRE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Target page size of all streams made here (x86). */
#define WIRE_TPAGE_BYTES 4096u

/* 1.4: element types. */
enum {
	WIRE_EOF = 0x00,
	WIRE_START = 0x01,
	WIRE_PART = 0x02,
	WIRE_END = 0x03,
	WIRE_FULL = 0x04,
	WIRE_SUBSECTION = 0x05,
	WIRE_VMDESC = 0x06,
	WIRE_CONFIG = 0x07,
	WIRE_COMMAND = 0x08,
	WIRE_FOOTER = 0x7e,
};

/* 4: flags of ram records. */
enum {
	WIRE_RAM_FULL = 0x001,
	WIRE_RAM_ZERO = 0x002,
	WIRE_RAM_MEM_SIZE = 0x004,
	WIRE_RAM_PAGE = 0x008,
	WIRE_RAM_EOS = 0x010,
	WIRE_RAM_CONTINUE = 0x020,
	WIRE_RAM_XBZRLE = 0x040,
	WIRE_RAM_HOOK = 0x080,
	WIRE_RAM_COMPRESS = 0x100,
	WIRE_RAM_FLUSH = 0x200,
};

/* 2: commands. */
enum {
	WIRE_CMD_OPEN_RETURN_PATH = 1,
	WIRE_CMD_PING = 2,
	WIRE_CMD_ADVISE = 3,
	WIRE_CMD_LISTEN = 4,
	WIRE_CMD_RUN = 5,
	WIRE_CMD_DISCARD = 6,
	WIRE_CMD_PACKAGED = 7,
	WIRE_CMD_ENABLE_COLO = 8,
	WIRE_CMD_RESUME = 9,
	WIRE_CMD_RECV_BITMAP = 10,
	WIRE_CMD_SWITCHOVER_START = 11,
};

/* 3: replies. */
enum {
	WIRE_RP_SHUT = 1,
	WIRE_RP_PONG = 2,
	WIRE_RP_REQ_PAGES_ID = 3,
	WIRE_RP_REQ_PAGES = 4,
	WIRE_RP_RECV_BITMAP = 5,
	WIRE_RP_RESUME_ACK = 6,
	WIRE_RP_SWITCHOVER_ACK = 7,
};

/* ---- the buffer ------------------------------------------------------------------------------------------ */

struct wire_mark {
	size_t off;
	const char *what; /* static text: "header", "command", "START", "record", "footer", ... */
};

/* Where a device's body lies in the stream, so that a test can compare it with what the library delivers. */
struct wire_body {
	char name[256];
	uint32_t instance_id;
	uint32_t version_id;
	size_t off;
	size_t bytes;
};

struct wire {
	uint8_t *data;
	size_t len, cap;
	struct wire_mark *marks;
	size_t mark_count, mark_cap;
	struct wire_body *bodies;
	size_t body_count, body_cap;
	char *json; /* the devices written, comma separated, without the brackets around them */
	size_t json_len, json_cap;
	bool no_footers; /* set before building: sections have no footer */
};

/* A struct wire of zeros is an empty one. */
void wire_fini(struct wire *w);
void wire_copy(struct wire *to, const struct wire *from); /* bytes, marks and bodies; @to is initialised */

/* Make room for @more elements of @size after @count in the array at @base. Return: the array. */
void *wire_grow(void *base, size_t *cap, size_t count, size_t more, size_t size);

void wire_mark(struct wire *w, const char *what);
/* The offset of the @nth mark (from 0) named @what; aborts if there is none. */
size_t wire_find(const struct wire *w, const char *what, unsigned nth);

void wire_bytes(struct wire *w, const void *bytes, size_t len);
void wire_fill(struct wire *w, uint8_t byte, size_t count);
void wire_u8(struct wire *w, uint8_t v);
void wire_be16(struct wire *w, uint16_t v);
void wire_be32(struct wire *w, uint32_t v);
void wire_be64(struct wire *w, uint64_t v);
void wire_str8(struct wire *w, const char *text);
void wire_str8_n(struct wire *w, const void *bytes, uint8_t len);

/* Edits for mutations; marks and bodies after the place move along. */
void wire_insert(struct wire *w, size_t off, const void *bytes, size_t len);
void wire_delete(struct wire *w, size_t off, size_t len);

/* ---- header and configuration (doc/wire/stream.md 1.2, 1.3) --------------------------------------------------- */

void wire_header(struct wire *w);
void wire_config(struct wire *w, const char *machine);
void wire_config_n(struct wire *w, uint32_t len, const void *name, size_t name_bytes);
void wire_subsection(struct wire *w, const char *name, uint32_t version); /* its head only */
void wire_config_page_bits(struct wire *w, uint32_t bits);
void wire_config_capabilities(struct wire *w, const char *const *names, uint32_t count);
void wire_config_uuid(struct wire *w, const uint8_t uuid[static 16]);

/* ---- sections (doc/wire/stream.md 1.4) ------------------------------------------------------------------------ */

void wire_section(struct wire *w, uint8_t type, uint32_t id, const char *idstr, uint32_t instance, uint32_t version);
void wire_part(struct wire *w, uint8_t type, uint32_t id);
void wire_footer(struct wire *w, uint32_t id); /* nothing when w->no_footers */
void wire_eof(struct wire *w);

/* ---- commands (2) ----------------------------------------------------------------------------------------- */

void wire_command(struct wire *w, uint16_t id, const void *payload, uint16_t len);
void wire_open_return_path(struct wire *w);
void wire_ping(struct wire *w, uint32_t value);
void wire_advise(struct wire *w, uint64_t summary, uint64_t tpage_bytes);
void wire_advise_empty(struct wire *w);
void wire_listen(struct wire *w);
void wire_run(struct wire *w);
struct wire_range {
	uint64_t start, length;
};
void wire_discard(struct wire *w, const char *block, const struct wire_range *ranges, unsigned count);
/* The same with every field as given; @tail_bytes are written after the ranges, or cut off if negative. */
struct wire_discard {
	uint8_t version, zero;
	const char *block;
	const struct wire_range *ranges;
	unsigned count;
	int tail_bytes;
};
void wire_discard_n(struct wire *w, const struct wire_discard *d);
/* PACKAGED: begin writes the command without n, end fills n in. */
size_t wire_package_begin(struct wire *w);
void wire_package_end(struct wire *w, size_t begun);
void wire_enable_colo(struct wire *w);
void wire_resume(struct wire *w);
void wire_recv_bitmap(struct wire *w, const char *block);
void wire_switchover_start(struct wire *w);

/* ---- ram records (4) -------------------------------------------------------------------------------------- */

struct wire_block {
	const char *name;
	uint64_t bytes;
	uint64_t page_bytes; /* written if not 0 */
};
void wire_mem_size(struct wire *w, const struct wire_block *blocks, unsigned count);
/* The word, and the name unless @block is NULL: then CONTINUE is added. */
void wire_record(struct wire *w, uint64_t addr, uint32_t flags, const char *block);
void wire_word(struct wire *w, uint64_t addr, uint32_t flags); /* only the word */
void wire_page(struct wire *w, const char *block, uint64_t addr, const void *bytes);
void wire_zero(struct wire *w, const char *block, uint64_t addr, uint8_t fill);
void wire_xbzrle_n(struct wire *w, const char *block, uint64_t addr, uint8_t encoding, uint16_t n, const void *bytes,
                   size_t len);
void wire_compress_n(struct wire *w, const char *block, uint64_t addr, uint32_t n, const void *bytes, size_t len);
void wire_compress(struct wire *w, const char *block, uint64_t addr, const void *page);
void wire_eos(struct wire *w);
void wire_ram_end(struct wire *w, uint32_t id); /* of a section: EOS and its footer */
void wire_flush(struct wire *w);

/**
 * wire_xbzrle - the record that turns @old into @fresh (doc/wire/stream.md 4.3)
 * Return: payload length; 0 when nothing differs; -1 when the payload would exceed a page: nothing is written then.
 */
int wire_xbzrle(struct wire *w, const char *block, uint64_t addr, const uint8_t *old, const uint8_t *fresh);

/* The payload alone, into @buf of a page. Return: as wire_xbzrle. */
int wire_xbzrle_encode(uint8_t *buf, const uint8_t *old, const uint8_t *fresh);

/* ---- devices and their description (7) --------------------------------------------------------------------- */

enum wire_kind { WIRE_U8, WIRE_U16, WIRE_U32, WIRE_U64, WIRE_BUFFER, WIRE_STRUCT };

struct wire_vmsd;
struct wire_field {
	const char *name;
	enum wire_kind kind;
	uint32_t array;               /* elements; 0 is a scalar */
	uint64_t value;               /* of element 0; each next one is 1 more */
	size_t bytes;                 /* of a buffer */
	const void *data;             /* of a buffer; NULL: @bytes times @value */
	const struct wire_vmsd *desc; /* of a struct */
};
struct wire_vmsd {
	const char *name;
	uint32_t version;
	const struct wire_field *fields;
	size_t field_count;
	const struct wire_vmsd *subsections;
	size_t subsection_count;
};
struct wire_device {
	const char *name;
	uint32_t instance_id, version_id;
	const struct wire_vmsd *desc; /* NULL: old style, the bytes below */
	const void *data;
	size_t bytes;
};

/* A FULL section with its footer; its description joins w->json. */
void wire_device(struct wire *w, uint32_t section_id, const struct wire_device *dev);
/* globalstate (doc/wire/stream.md 7.5). */
void wire_globalstate(struct wire *w, uint32_t section_id, const char *run_state);
/* VMDESCRIPTION of the devices written; nothing else may follow. */
void wire_vmdesc(struct wire *w);
void wire_vmdesc_n(struct wire *w, uint32_t len, const void *json, size_t bytes);

/* ---- replies (3) ------------------------------------------------------------------------------------------- */

struct wire_reply {
	uint16_t type, len;
	uint8_t payload[512];
};

/* Return: the length of the message at @buf, 0 if it is incomplete, -1 if it breaks doc/wire/stream.md 3. */
int wire_reply_parse(const uint8_t *buf, size_t len, struct wire_reply *ret_reply);

/* ---- a whole honest stream --------------------------------------------------------------------------------- */

enum wire_how {
	WIRE_SEND_NOT, /* leave this page out of this round */
	WIRE_SEND_PAGE,
	WIRE_SEND_ZERO,
	WIRE_SEND_XBZRLE, /* falls back to PAGE where a delta would be longer, to nothing where nothing changed */
	WIRE_SEND_COMPRESS,
};

/* The content of @tpage of block @block in @round (from 0) goes to @page; how is it sent? */
typedef enum wire_how wire_fill_fn(void *opaque, unsigned block, uint64_t tpage, unsigned round, uint8_t *page);

/* Every fourth page zero, each other one distinct; in later rounds every third page changes. */
wire_fill_fn wire_fill_default;

struct honest_opts {
	const struct wire_block *blocks; /* NULL: "pc.ram" of 16 pages and "vga.vram" of 4 */
	unsigned block_count;
	unsigned rounds;    /* the last one is the END section; 0 means 2 */
	wire_fill_fn *fill; /* NULL: wire_fill_default */
	void *opaque;
	bool return_path;
	bool no_config, no_footers, no_vmdesc;
	bool name_every_page; /* never CONTINUE */
	bool switchover_start;
	const char *machine;             /* NULL: "pc-i440fx-7.2" */
	const uint8_t *uuid;             /* NULL: none */
	const char *const *capabilities; /* validated ones, for the configuration */
	uint32_t capability_count;
	const struct wire_device *devices; /* NULL with count 0: a small standard set, see wire_standard_devices */
	unsigned device_count;
	const struct wire_device *early; /* sent in the set-up phase, after START ram; NULL: none */
	const char *run_state;           /* of globalstate; NULL: "running"; "" leaves the section out */
};

/* What the destination must hold afterwards: one array of pages for each block. */
struct honest_image {
	unsigned block_count;
	struct {
		char name[256];
		uint64_t bytes;
		uint8_t *data;
	} blocks[8];
	uint64_t page_records, zero_records, xbzrle_records, compress_records;
};

extern const struct wire_block wire_standard_blocks[2];
extern const struct wire_device wire_standard_devices[5];

/* @w must be empty; @ret_image may be NULL. */
void wire_honest(struct wire *w, const struct honest_opts *opts, struct honest_image *ret_image);
void honest_image_fini(struct honest_image *image);

/* ---- multifd channels (doc/wire/multifd.md 3, 4) --------------------------------------------------------------- */

enum {
	WIRE_MULTIFD_SYNC = 0x01,
	WIRE_MULTIFD_ZLIB = 0x02,
	WIRE_MULTIFD_ZSTD = 0x04,
	WIRE_MULTIFD_DEVICE = 0x40,
};

#define WIRE_MULTIFD_HELLO_BYTES 64u
#define WIRE_MULTIFD_PAGES_MAX 128u
#define WIRE_MULTIFD_HEADER_BYTES (320u + 8u * WIRE_MULTIFD_PAGES_MAX)

/* Every field as it is written; builders check nothing. */
struct wire_packet {
	uint32_t magic, version; /* 0: the right ones */
	uint32_t flags, pages_alloc, normal_pages, payload_bytes;
	uint64_t packet_num;
	uint32_t zero_pages;
	const char *block; /* NULL: empty */
	const uint64_t *offsets;
	unsigned offset_count; /* of @offsets; the rest of the header is zeros */
};

/* The 64 bytes a channel begins with; @uuid NULL: zeros. */
void wire_multifd_hello(struct wire *w, const uint8_t *uuid, uint8_t id);
/* A header, without the payload. */
void wire_multifd_header(struct wire *w, const struct wire_packet *p);
/* An empty SYNC packet as a new source sends it. */
void wire_multifd_sync(struct wire *w);
void wire_multifd_device(struct wire *w, const char *name, uint32_t instance_id, const void *data, uint32_t bytes);

/* One compressed stream a channel; @method 0 copies. */
struct wire_encoder;
struct wire_encoder *wire_encoder_new(uint32_t method);
struct wire_encoder *wire_encoder_new_at(uint32_t method, int level);
void wire_encoder_free(struct wire_encoder *enc);
/* The next piece of the stream, flushed. Return: its length; at most @cap or it aborts. */
size_t wire_encode(struct wire_encoder *enc, const void *src, size_t bytes, void *ret_piece, size_t cap);

/* Which channel carries this page in this round? WIRE_ON_MAIN: none does, it is a record in the main stream. */
#define WIRE_ON_MAIN (-1)
typedef int wire_route_fn(void *opaque, unsigned block, uint64_t tpage, unsigned round);

struct multifd_opts {
	unsigned channels;     /* 0 means 2 */
	uint32_t method;       /* 0, WIRE_MULTIFD_ZLIB, WIRE_MULTIFD_ZSTD */
	int level;             /* of it; 0: 1 */
	bool per_section;      /* each EOS is a sync point; else a 0x200 once in a round (doc/wire/multifd.md 5.1) */
	bool old;              /* 7.2 to 8.2: SYNC with pages, a phantom, stale fields (doc/wire/multifd.md 4.4) */
	bool no_phantom;       /* with @old: nothing after a SYNC packet with pages */
	bool zero_in_main;     /* zero pages are records of the main stream, and not in packets (6) */
	unsigned packet_pages; /* at most so many in a packet; 0: as many as fit */
	const struct wire_block *blocks; /* as in honest_opts, to the end */
	unsigned block_count;
	unsigned rounds;
	wire_fill_fn *fill;
	wire_route_fn *route; /* NULL: (page + round) modulo channels */
	void *opaque;
	bool return_path;
	const char *machine;
	const uint8_t *uuid;
};

/*
 * A whole honest migration over several connections. Marks: "sync point" in the main stream, after whose bytes the next
 * interval begins; "SYNC" at each SYNC packet and "interval" after it (and after its phantom) in the channels.
 */
struct multifd_honest {
	struct wire main;
	struct wire *channels; /* each from its 64 bytes on */
	unsigned count;
	unsigned syncs;
	struct honest_image image;
};

void multifd_honest(struct multifd_honest *ret, const struct multifd_opts *opts);
void multifd_honest_fini(struct multifd_honest *h);

/* ---- postcopy (5) ------------------------------------------------------------------------------------------------ */

/* What a page holds, a function of its place: distinct bytes; every seventh page is zeros. Return: is it zeros? */
bool wire_content(uint8_t *page, unsigned block, uint64_t tpage);
/* The 64-bit word at @word of it. */
uint64_t wire_content_word(unsigned block, uint64_t tpage, unsigned word);

/* PAGE or ZERO, as wire_content has it; @stale: its earlier content, which is never zeros. */
void wire_content_record(struct wire *w, const char *name, unsigned block, uint64_t tpage, bool stale);

#endif
