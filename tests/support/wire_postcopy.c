/* What a source sends when it switches to postcopy, honest or not (doc/wire/stream.md 5). */
#include <string.h>

#include "base/assert.h"
#include "tests/support/wire.h"

void wire_discard_n(struct wire *w, const struct wire_discard *d)
{
	struct wire payload = { 0 };

	wire_u8(&payload, d->version);
	wire_str8(&payload, d->block);
	wire_u8(&payload, d->zero);
	for (unsigned i = 0; i < d->count; i++) {
		wire_be64(&payload, d->ranges[i].start);
		wire_be64(&payload, d->ranges[i].length);
	}
	if (d->tail_bytes > 0)
		wire_fill(&payload, 0, (size_t)d->tail_bytes);
	ASSERT(payload.len <= UINT16_MAX && (d->tail_bytes >= 0 || (size_t)-d->tail_bytes <= payload.len));
	payload.len -= d->tail_bytes < 0 ? (size_t)-d->tail_bytes : 0;
	wire_command(w, WIRE_CMD_DISCARD, payload.data, (uint16_t)payload.len);
	wire_fini(&payload);
}

static bool is_zero(uint64_t tpage)
{
	return tpage % 7 == 5;
}

uint64_t wire_content_word(unsigned block, uint64_t tpage, unsigned word)
{
	if (is_zero(tpage))
		return 0;
	return ((uint64_t)(block + 1) << 56 | tpage << 16 | 0xa5) ^ (word * 0x9e3779b97f4a7c15ull);
}

bool wire_content(uint8_t *page, unsigned block, uint64_t tpage)
{
	uint64_t words[WIRE_TPAGE_BYTES / 8];

	for (unsigned i = 0; i < WIRE_TPAGE_BYTES / 8; i++)
		words[i] = wire_content_word(block, tpage, i);
	memcpy(page, words, sizeof(words));
	return is_zero(tpage);
}

void wire_content_record(struct wire *w, const char *name, unsigned block, uint64_t tpage, bool stale)
{
	uint8_t page[WIRE_TPAGE_BYTES];

	if (wire_content(page, block, tpage) && !stale) {
		wire_zero(w, name, tpage * WIRE_TPAGE_BYTES, 0);
		return;
	}
	if (stale)
		memset(page, 0xee, sizeof(page));
	wire_page(w, name, tpage * WIRE_TPAGE_BYTES, page);
}
