/* The bitmaps of a recovery: each is compared with what the destination's memory really holds. See recovery_scene.h. */
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "base/assert.h"
#include "base/be.h"
#include "tests/support/recovery_scene_parts.h"

#define BITMAP_END_MARK 0x0123456789abcdefull

/* ---- what the destination really has ----------------------------------------------------------------------------- */

static bool is_stamp(const struct pc *s, unsigned block, uint64_t tpage, unsigned word, uint64_t found)
{
	for (unsigned i = 0; i < s->o.touch.threads; i++)
		if (word == PC_STAMP_WORD(i) && found == pc_stamp(block, tpage, i))
			return true;
	return false;
}

static bool is_content(const struct pc *s, unsigned block, uint64_t tpage, const uint64_t *words)
{
	for (unsigned i = 0; i < PC_PAGE / 8; i++)
		if (words[i] != wire_content_word(block, tpage, i) && !is_stamp(s, block, tpage, i, words[i]))
			return false;
	return true;
}

/* Of private memory: a touch of what is missing would wait for ourselves. */
static bool is_present(const uint8_t *at)
{
	int fd = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
	uint64_t entry = 0;

	ASSERT(fd >= 0);
	ASSERT(pread(fd, &entry, sizeof(entry), (off_t)((uintptr_t)at / PC_PAGE * sizeof(entry))) == sizeof(entry));
	close(fd);
	return entry >> 62; /* present, or swapped */
}

/* A page of zeros need not be there before it is touched. */
static bool has_page(const struct pc *s, unsigned block, uint64_t tpage)
{
	const struct pc_ram *ram = &s->ram[block];
	uint64_t words[PC_PAGE / 8] = { 0 };

	if (__atomic_load_n(&ram->removed[tpage], __ATOMIC_SEQ_CST) != PC_KEPT)
		return true;
	if (ram->emb->fd >= 0)
		ASSERT(pread(ram->emb->fd, words, sizeof(words), (off_t)(ram->emb->canary_bytes + tpage * PC_PAGE)) ==
		       sizeof(words));
	else if (is_present(ram->emb->host + tpage * PC_PAGE))
		memcpy(words, ram->emb->host + tpage * PC_PAGE, sizeof(words));
	return is_content(s, block, tpage, words);
}

/* ---- bitmaps ----------------------------------------------------------------------------------------------------- */

static void check_unit(struct rec *r, unsigned block, uint64_t unit)
{
	struct pc_ram *ram = &r->s.ram[block];
	uint64_t first = unit * ram->unit_pages, end = first + ram->unit_pages, set = 0;

	if (end > ram->said.pages)
		end = ram->said.pages;
	for (uint64_t i = first; i < end; i++) {
		set += r->received[block][i];
		if (r->received[block][i] && !has_page(&r->s, block, i))
			rec_breach(r, "the bitmap of '%s' has page %llu, which is not here", ram->said.name,
			           (unsigned long long)i);
	}
	if (set != 0 && set != end - first)
		rec_breach(r, "the bitmap of '%s' has %llu pages of %llu in unit %llu", ram->said.name,
		           (unsigned long long)set, (unsigned long long)(end - first), (unsigned long long)unit);
	if (!set && ram->precopied[unit])
		rec_breach(r, "the bitmap of '%s' lacks unit %llu, which came before the switch", ram->said.name,
		           (unsigned long long)unit);
}

static void take_bitmap(struct rec *r, const uint8_t *bits, size_t bytes)
{
	unsigned block = r->bitmaps;
	uint64_t pages = r->s.ram[block].said.pages;

	for (uint64_t i = 0; i < bytes * 8; i++) {
		bool set = bits[i / 8] >> i % 8 & 1;

		if (i < pages)
			r->received[block][i] = set;
		else if (set)
			rec_breach(r, "the bitmap of '%s' has bit %llu of %llu", r->s.ram[block].said.name,
			           (unsigned long long)i, (unsigned long long)pages);
	}
	for (uint64_t u = 0; u < r->s.ram[block].units; u++)
		check_unit(r, block, u);
	r->bitmaps++;
}

/* Return: bytes of the message at r->in; 0 if it is not complete. A breach ends it. */
static size_t parse_bitmap(struct rec *r)
{
	const char *name = r->s.ram[r->bitmaps].said.name;
	size_t head = 4 + 1 + strlen(name), size = (r->s.ram[r->bitmaps].said.pages + 63) / 64 * 8;

	if (r->in_len < head + 8)
		return 0;
	if (be16_load(r->in) != WIRE_RP_RECV_BITMAP || be16_load(r->in + 2) != head - 4 || r->in[4] != strlen(name) ||
	    memcmp(r->in + 5, name, strlen(name)) != 0) {
		rec_breach(r, "message %u of %u bytes where the bitmap of '%s' is expected", be16_load(r->in),
		           be16_load(r->in + 2), name);
		return 0;
	}
	if (be64_load(r->in + head) != size) {
		rec_breach(r, "a bitmap of %llu bytes for '%s'", (unsigned long long)be64_load(r->in + head), name);
		return 0;
	}
	if (r->in_len < head + 8 + size + 8)
		return 0;
	if (be64_load(r->in + head + 8 + size) != BITMAP_END_MARK)
		rec_breach(r, "the bitmap of '%s' has no end mark", name);
	take_bitmap(r, r->in + head + 8, size);
	return head + 8 + size + 8;
}

void rec_read_bitmaps(struct rec *r)
{
	size_t bytes;

	while (r->bitmaps < r->s.ram_count && (bytes = parse_bitmap(r)) > 0) {
		memmove(r->in, r->in + bytes, r->in_len - bytes);
		r->in_len -= bytes;
	}
	if (r->bitmaps == r->s.ram_count && r->in_len > 0)
		rec_breach(r, "message %u before RESUME", r->in_len > 1 ? be16_load(r->in) : 0);
}
