#include "engine/load/early.h"

#include "base/err.h"
#include "base/text.h"
#include "engine/load/device.h"
#include "engine/load/load.h"
#include "engine/options/options.h"
#include "engine/stream/element.h"

#include <errno.h>
#include <inttypes.h>

static int find_end(struct load *l, uint32_t section_id, size_t *ret_body_bytes, struct err *err)
{
	struct reader *r = &l->reader;
	struct sections_split how;
	size_t scan_off = 0;
	ssize_t n = 1;
	int e = sections_split_begin(&how, &l->sections, true, r->sched, err);

	if (e < 0)
		return e;
	while (e == 0 && n > 0) {
		e = split_early_end(ret_body_bytes, &scan_off, reader_data(r), reader_buffered(r), section_id,
		                    &how.opts, err);
		if (e == 0)
			n = reader_fill(r, err);
	}
	sections_split_end(&how, e);
	if (e == 0)
		e = n < 0 ? (int)n :
		            err_set(err, -ENODATA, "the source closed the stream at 0x%" PRIx64 ", inside",
		                    reader_off(r) + reader_buffered(r));
	return e < 0 ? e : 0;
}

int early_read(struct load *l, uint32_t *ret_section_id, struct err *err)
{
	struct section_head head;
	struct section *known;
	size_t body_bytes = 0;
	char name[256];
	int e = element_read_section(&head, name, &l->reader, err);

	if (e < 0)
		return e;
	if (!l->opts->send_section_footer)
		e = err_set(err, -EPROTO, "without section footers its end cannot be found");
	if (e == 0)
		e = find_end(l, head.section_id, &body_bytes, err);
	if (e < 0)
		return err_up(err, e, "early section '%s'", TEXT_QUOTE(name, head.name_bytes));
	e = sections_add(&l->sections, SECTION_EARLY_DEVICE, name, head.instance_id, head.section_id, &known);
	if (e < 0)
		return err_set(err, e == -ENOMEM ? e : -EPROTO, "early section '%s': %s",
		               TEXT_QUOTE(name, head.name_bytes),
		               e == -EEXIST ? "its id or name was used before" : "too many sections");
	known->version_id = head.version_id;
	known->body_bytes = body_bytes;
	known->body_off = reader_off(&l->reader);
	e = device_deliver_early(l, known, reader_data(&l->reader), err);
	reader_skip(&l->reader, body_bytes);
	*ret_section_id = head.section_id;
	return e;
}
