#include "engine/devices/vmdesc.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "base/text.h"
#include "coroutine/turn.h"
#include "engine/devices/vmdesc_parts.h"
#include "engine/stream/json_pull.h"

struct device_entry {
	struct vmdesc_device device;
	size_t text_off, text_bytes;
};

struct vmdesc {
	char *text;
	struct json_pull_chunk *chunks;
	struct device_entry *devices;
	size_t device_count, device_room;
};

struct device_build {
	struct vmdesc_device device;
	struct vmdesc_build inside;
	unsigned seen;
	uint64_t bytes; /* old style */
};

static int device_name(struct json_pull *p, struct vmdesc_device *device)
{
	struct json_pull_str s;
	int r = json_pull_string(p, &s);

	if (r < 0)
		return r;
	if (s.bytes < 1 || s.bytes > 255)
		return JSON_PULL_FAIL(p, "a device name of %zu bytes, 1 to 255 are possible", s.bytes);
	device->name = s.s;
	device->name_bytes = (uint8_t)s.bytes;
	return 0;
}

static int device_member(struct json_pull *p, struct device_build *b, const struct json_pull_str *k)
{
	uint64_t v = 0;
	int r;

	if (vmdesc_is(k, "name")) {
		if (vmdesc_mark(&b->seen, M_NAME))
			return JSON_PULL_FAIL(p, "the same key twice in a device");
		return device_name(p, &b->device);
	}
	if (vmdesc_is(k, "instance_id")) {
		if (vmdesc_mark(&b->seen, M_INSTANCE))
			return JSON_PULL_FAIL(p, "the same key twice in a device");
		r = json_pull_number(p, UINT32_MAX, &v);
		if (r == 0)
			b->device.instance_id = (uint32_t)v;
		return r;
	}
	if (vmdesc_is(k, "size")) {
		if (vmdesc_mark(&b->seen, M_SIZE))
			return JSON_PULL_FAIL(p, "the same key twice in a device");
		return json_pull_number(p, INT64_MAX, &b->bytes);
	}
	r = vmdesc_desc_member(p, &b->inside, k);
	if (r == 0)
		r = json_pull_skip(p);
	return r < 0 ? r : 0;
}

static int device_finish(struct json_pull *p, struct device_build *b)
{
	const unsigned need = 1u << M_NAME | 1u << M_INSTANCE;
	const struct vmdesc_desc *desc = b->inside.desc;
	int r;

	if ((b->seen & need) != need || !desc)
		return JSON_PULL_FAIL(p, "a device without name, instance_id or fields");
	/* Old style is a list of fields without a name and version of their own. */
	b->device.old_style = !(b->inside.seen & 1u << M_VMSD_NAME);
	if (b->device.old_style)
		b->inside.seen |= 1u << M_VMSD_NAME | 1u << M_VERSION;
	r = vmdesc_desc_finish(p, &b->inside);
	if (r < 0)
		return r;
	if ((b->seen & 1u << M_SIZE) && b->bytes != desc->body_bytes)
		return JSON_PULL_FAIL(p, "device '%s' has size %llu, its fields add up to %llu",
		                      TEXT_QUOTE(b->device.name, b->device.name_bytes), (unsigned long long)b->bytes,
		                      (unsigned long long)desc->body_bytes);
	b->device.desc = desc;
	return 0;
}

static int device_push(struct json_pull *p, struct vmdesc *d, const struct vmdesc_device *device, size_t text_off)
{
	if (d->device_count == VMDESC_DEVICES_MAX)
		return err_set(p->err, -E2BIG, "description: more than %d devices", VMDESC_DEVICES_MAX);
	if (d->device_count == d->device_room) {
		size_t room = d->device_room ? 2 * d->device_room : 64;
		struct device_entry *devices = reallocarray(d->devices, room, sizeof(*devices));

		if (!devices)
			return json_pull_no_memory(p);
		d->devices = devices;
		d->device_room = room;
	}
	d->devices[d->device_count++] = (struct device_entry){ *device, text_off, p->at - text_off };
	return 0;
}

static int parse_device(struct json_pull *p, struct vmdesc *d)
{
	struct device_build b = { 0 };
	bool first = true;
	size_t text_off;
	struct json_pull_str k;
	int r;

	json_pull_peek(p);
	text_off = p->at;
	r = json_pull_enter(p, '{');
	while (r == 0 && (r = json_pull_more(p, &first, '}')) > 0) {
		r = json_pull_key(p, &k);
		if (r == 0)
			r = device_member(p, &b, &k);
	}
	if (r == 0)
		r = device_finish(p, &b);
	return r < 0 ? r : device_push(p, d, &b.device, text_off);
}

static int parse_devices(struct json_pull *p, struct vmdesc *d)
{
	bool first = true;
	int r = json_pull_enter(p, '[');

	while (r == 0 && (r = json_pull_more(p, &first, ']')) > 0) {
		r = parse_device(p, d);
		if (r < 0)
			return err_up(p->err, r, "device %zu", d->device_count);
	}
	return r;
}

static int device_compare(const void *a, const void *b, void *sched)
{
	const struct vmdesc_device *x = *(const struct vmdesc_device *const *)a;
	const struct vmdesc_device *y = *(const struct vmdesc_device *const *)b;
	int r = strcmp(x->name, y->name);

	turn_spend_pending(sched, TURN_STEP); /* a cancel waits for the end of the sort */
	return r ? r : (x->instance_id > y->instance_id) - (x->instance_id < y->instance_id);
}

/* By (4) of the header. */
static int check_devices_differ(struct json_pull *p, struct vmdesc *d)
{
	size_t count = d->device_count;
	const struct vmdesc_device **sorted = reallocarray(NULL, count + 1, sizeof(void *));
	int r = 0;

	if (!sorted)
		return json_pull_no_memory(p);
	for (size_t i = 0; i < count; i++)
		sorted[i] = &d->devices[i].device;
	qsort_r(sorted, count, sizeof(void *), device_compare, p->sched);
	for (size_t i = 1; r == 0 && i < count; i++) {
		if (!device_compare(&sorted[i - 1], &sorted[i], p->sched))
			r = err_set(p->err, -EPROTO, "description: device '%s' instance %u occurs twice",
			            TEXT_QUOTE(sorted[i]->name, sorted[i]->name_bytes), sorted[i]->instance_id);
	}
	free(sorted);
	return r;
}

static int parse_top(struct json_pull *p, struct vmdesc *d)
{
	bool first = true, page_seen = false, devices_seen = false;
	uint64_t tpage_bytes;
	struct json_pull_str k;
	int r = json_pull_enter(p, '{');

	while (r == 0 && (r = json_pull_more(p, &first, '}')) > 0) {
		bool *seen;

		r = json_pull_key(p, &k);
		if (r < 0)
			return r;
		seen = vmdesc_is(&k, "page_size") ? &page_seen : vmdesc_is(&k, "devices") ? &devices_seen : NULL;
		if (seen && *seen)
			return JSON_PULL_FAIL(p, "the key '%s' twice", k.s);
		if (seen)
			*seen = true;
		/* "configuration" is not a device and has no section: it is only skipped. */
		if (!seen)
			r = json_pull_skip(p);
		else if (seen == &page_seen)
			r = json_pull_number(p, UINT32_MAX, &tpage_bytes); /* the stream has said it before */
		else
			r = parse_devices(p, d);
	}
	if (r < 0)
		return r;
	if (!devices_seen)
		return JSON_PULL_FAIL(p, "no \"devices\"");
	if (json_pull_peek(p) != -1)
		return JSON_PULL_FAIL(p, "data after the closing brace");
	return check_devices_differ(p, d);
}

static char *memdup(const void *p, size_t bytes)
{
	char *copy = malloc(bytes);

	return copy ? memcpy(copy, p, bytes) : NULL;
}

int vmdesc_parse(struct vmdesc **ret_desc, const void *json, size_t bytes, struct sched *s, struct err *err)
{
	struct json_pull p = { .text = json, .bytes = bytes, .err = err, .sched = s };
	struct vmdesc *d;
	int r;

	if (bytes > VMDESC_BYTES_MAX)
		return err_set(err, -E2BIG, "description of %zu bytes, the limit is %u", bytes, VMDESC_BYTES_MAX);
	d = calloc(1, sizeof(*d));
	if (!d)
		return json_pull_no_memory(&p);
	r = parse_top(&p, d);
	d->chunks = p.chunks;
	/* Copied only now: split_tail_end tries many places, and most fail at once. */
	if (r == 0 && !(d->text = memdup(json, bytes)))
		r = json_pull_no_memory(&p);
	if (r < 0)
		vmdesc_free(d);
	else
		*ret_desc = d;
	return r;
}

void vmdesc_free(struct vmdesc *d)
{
	if (!d)
		return;
	json_pull_free(d->chunks);
	free(d->devices);
	free(d->text);
	free(d);
}

size_t vmdesc_device_count(const struct vmdesc *d)
{
	return d->device_count;
}

const struct vmdesc_device *vmdesc_device(const struct vmdesc *d, size_t k)
{
	return &d->devices[k].device;
}

const char *vmdesc_device_text(const struct vmdesc *d, size_t k, size_t *ret_bytes)
{
	*ret_bytes = d->devices[k].text_bytes;
	return d->text + d->devices[k].text_off;
}
