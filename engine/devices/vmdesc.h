/*
 * vmdesc.h - the description of the device state that a source sends after EOF
 *
 * A FULL section's body has no length and no tags (doc/wire/stream.md 7.1). The description is one line of JSON that
 * names, in stream order, each field with its size, and so makes bodies that we do not understand divisible. This is
 * the text made into a tree of fields with sizes that add up; it knows nothing of sections or footers (split.h).
 *
 * The text is the peer's, and so read piece by piece (stream/json_pull.h): equal keys are refused, depth is bounded,
 * and memory is at most six times the text, with a copy of it.
 *
 * Invariants of a struct vmdesc:
 * (1) Every sum fits: no size, product or sum wrapped. body_bytes of a desc is size(desc) of doc/wire/stream.md 7.3.
 * (2) A field of type struct, vstruct or tmp with a nested description has exactly that description's size.
 * (3) `deep` is true where a subsection header stands somewhere inside; walking only deep fields, every step of a walk
 *     over bytes consumes bytes, so that no walk is longer than the bytes.
 * (4) A device has exactly one entry per (name, instance_id).
 *
 * Parks: vmdesc_parse does, where it is given a scheduler; nothing else here. No input or output, no globals.
 */
#ifndef ENGINE_DEVICES_VMDESC_H
#define ENGINE_DEVICES_VMDESC_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct err;
struct sched;

/* 50 to 200 KB are normal; doc/wire/stream.md 11 calls 64 MiB generous. */
#define VMDESC_BYTES_MAX (8u << 20)
#define VMDESC_DEVICES_MAX 65536

/* What a value is; the type's name decides, and anything unknown is opaque: only its size counts. */
enum vmdesc_kind {
	VMDESC_OPAQUE, /* also qtailq, qlist, gtree: their element descriptions are not usable (duplicate keys) */
	VMDESC_BOOL,
	VMDESC_INT, /* signed, 1 to 8 bytes */
	VMDESC_UINT,
	VMDESC_TIMER,  /* be64 ns, all ones = inactive */
	VMDESC_UNUSED, /* zeros on the wire */
	VMDESC_STRUCT, /* struct, vstruct and tmp: `desc` is set */
};

struct vmdesc_field {
	const char *name;
	const char *type;
	const struct vmdesc_desc *desc; /* VMDESC_STRUCT only, else NULL */
	const struct vmdesc_field *next;
	const struct vmdesc_field *next_deep; /* of the same desc, the next one with `deep` */
	uint64_t bytes;                       /* of one element */
	uint64_t elements;                    /* array_len, or 1 */
	uint64_t off;                         /* of the first element, from the start of the desc */
	enum vmdesc_kind kind;
	bool deep; /* by (3) */
};

struct vmdesc_desc {
	const char *name; /* vmsd_name; "" for an old-style device */
	const struct vmdesc_field *fields;
	const struct vmdesc_field *fields_deep; /* first of those with `deep` */
	const struct vmdesc_desc *subsections;
	const struct vmdesc_desc *next; /* the next subsection of the same parent */
	uint64_t body_bytes;            /* fields and subsections */
	uint64_t fields_bytes;          /* fields alone */
	uint32_t version;
	uint8_t name_bytes; /* a name on the wire has one counting byte */
	bool deep;          /* has subsections here or below */
};

struct vmdesc_device {
	const char *name; /* NUL-terminated, 1 to 255 bytes */
	const struct vmdesc_desc *desc;
	uint32_t instance_id;
	uint8_t name_bytes;
	bool old_style; /* one opaque "data" field, no vmsd_name */
};

struct vmdesc;

/**
 * vmdesc_parse - make the tree
 * @json:  the text, copied
 * @bytes: exactly as announced on the wire: anything but white space after the closing brace is an error
 * Keys it does not know are skipped, so that a newer source may say more. Numbers are non-negative integers.
 * Return: 0, -EPROTO with the offset in the text, -E2BIG over a limit, -ENOMEM.
 * Source: doc/wire/stream.md 7.2, 7.3
 */
int vmdesc_parse(struct vmdesc **ret_desc, const void *json, size_t bytes, struct sched *s, struct err *err);
void vmdesc_free(struct vmdesc *d);

/** vmdesc_device_count, vmdesc_device - devices in stream order; @k must be below the count */
size_t vmdesc_device_count(const struct vmdesc *d);
const struct vmdesc_device *vmdesc_device(const struct vmdesc *d, size_t k);

/**
 * vmdesc_device_text - the device's own object of the description, as the source wrote it
 * Return: ret_bytes bytes, not NUL-terminated, living as long as @d.
 */
const char *vmdesc_device_text(const struct vmdesc *d, size_t k, size_t *ret_bytes);

#endif
