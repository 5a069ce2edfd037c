#include "programs/stress/check.h"

#include "postcopy/postcopy.h"
#include "programs/stress/block.h"
#include "programs/stress/content.h"
#include "programs/stress/kinds.h"
#include "programs/stress/result.h"
#include "programs/stress/story.h"
#include "programs/stress/stress.h"

#include <inttypes.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#define WORDS (TPAGE_BYTES / 8)

/* ---- what went wrong ---- */

static const char *unit_state(struct stress *s, const struct sblock *sb, uint32_t page)
{
	struct pblock *pb = s->pc->blocks ? postcopy_block(s->pc, sb->b) : NULL;
	uint32_t unit = page / sb->unit_pages;

	/* The engine's thread may be at work on these: a hint, not a proof. */
	if (pb && pblock_complete(pb, unit))
		return bitmap_test(&pb->asked, unit) ? "received, and still in the ledger" : "received";
	if (pb && bitmap_test(&pb->asked, unit))
		return "missing, in the ledger";
	return "missing, and nobody has asked for it";
}

static const char *mapped(const struct sblock *sb, uint32_t page)
{
	uintptr_t addr = (uintptr_t)atomic_load(&sb->guest) + (uint64_t)page * TPAGE_BYTES;
	FILE *f = fopen("/proc/self/pagemap", "re");
	uint64_t entry = 0;

	if (!f || fseeko(f, (off_t)(addr / TPAGE_BYTES * 8), SEEK_SET) < 0 || fread(&entry, 8, 1, f) != 1)
		entry = UINT64_MAX;
	if (f)
		fclose(f);
	return entry == UINT64_MAX ? "of unknown presence" : entry >> 63 ? "present" : "not present";
}

/* The first one stays; all are counted. */
static void report(struct stress *s, struct sblock *sb, uint32_t page, const char *text, uint64_t *count)
{
	struct stress_result *r = &s->result;

	if (sb && atomic_load(&s->given_up))
		return;
	pthread_mutex_lock(&s->wrong_lock);
	if (count)
		++*count;
	if (!r->failed) {
		size_t len;

		snprintf(r->wrong, sizeof(r->wrong), "%s%s", text, sb ? "" : "\n");
		len = strlen(r->wrong);
		if (sb) {
			len += (size_t)snprintf(r->wrong + len, sizeof(r->wrong) - len,
			                        "\n  round %" PRIu32 "; the page is %s; in the guest view it is %s; "
			                        "removals begun %" PRIu32 ", ended %" PRIu32 "\n  its neighbourhood:",
			                        s->round, unit_state(s, sb, page), mapped(sb, page),
			                        atomic_load(&sb->removes_begun[page]),
			                        atomic_load(&sb->removes_done[page]));
			story_tell(s, sb, page, r->wrong + len, sizeof(r->wrong) - len);
		}
	}
	r->failed = true;
	pthread_mutex_unlock(&s->wrong_lock);
	atomic_store(&s->stop, true);
}

void check_failed(struct stress *s, const char *fmt, ...)
{
	char text[600];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	report(s, NULL, 0, text, NULL);
}

void check_stranded(struct stress *s, struct sblock *sb, uint32_t page, const char *who, uint64_t waited_ns,
                    bool starved)
{
	char text[300];

	snprintf(text, sizeof(text),
	         "%s waiter: %s has waited %.0f ms for page %" PRIu32 " of '%s' (offset 0x%" PRIx64 "), %s",
	         starved ? "starved" : "stranded", who, (double)waited_ns / 1e6, page, sb->name,
	         (uint64_t)page * TPAGE_BYTES,
	         starved ? "and is woken in vain, or its answer cannot be placed" : "and nothing is under way");
	report(s, sb, page, text, &s->result.stranded);
}

/* ---- pages ---- */

/* Whose word is it? Each word says which page and version it belongs to. */
static const char *whose(const struct stress *s, const struct sblock *sb, uint32_t page, size_t i, uint64_t found,
                         char buf[static 96])
{
	for (uint32_t back = 0; back <= 2 && back <= s->round; back++) {
		if (found == content_base(s, sb, page, s->round - back) + i * CONTENT_STEP) {
			snprintf(buf, 96,
			         back == 0 ? "the content of this round" :
			                     "the content of %" PRIu32 " rounds ago: it came late",
			         back);
			return buf;
		}
	}
	for (uint32_t other = 0; other < sb->pages; other++) {
		if (found == content_base(s, sb, other, s->round) + i * CONTENT_STEP) {
			snprintf(buf, 96, "the content of page %" PRIu32, other);
			return buf;
		}
	}
	return found ? "nobody's" : "zeros";
}

static const char *may_be(bool content, bool zeros)
{
	return content && zeros ? "its content or zeros" : content ? "its content" : "zeros, for it was removed";
}

/* Is a half of the word neither what is expected nor zeros? A guest of 32 bits reads halves, and a removal may come
 * between them. */
static bool halves_wrong(uint64_t found, uint64_t expected)
{
	uint64_t differs = found ^ expected, low = UINT32_MAX;

	return (differs & low && found & low) || (differs & ~low && found & ~low);
}

static void report_page(struct stress *s, struct sblock *sb, uint32_t page, const uint64_t *copy, uint64_t base,
                        bool content, bool zeros, const char *who)
{
	char text[500], buf[96];
	size_t first = s->opts.touchers / 2 + s->opts.touchers % 2, wrong = 0, at = 0;
	bool is_zero = base == 0;

	for (size_t i = first; i < WORDS; i++) {
		uint64_t expected = is_zero ? 0 : base + i * CONTENT_STEP;

		if ((content && copy[i] == expected) || (zeros && copy[i] == 0) ||
		    (content && zeros && !halves_wrong(copy[i], expected)))
			continue;
		if (wrong++ == 0)
			at = i;
	}
	snprintf(text, sizeof(text),
	         "wrong bytes: %s found in page %" PRIu32 " of '%s' (offset 0x%" PRIx64 "), at byte %zu, "
	         "0x%016" PRIx64 ", which is %s; it may be %s; %zu of %zu words are wrong",
	         who, page, sb->name, (uint64_t)page * TPAGE_BYTES, at * 8, copy[at],
	         whose(s, sb, page, at, copy[at], buf), may_be(content, zeros), wrong, (size_t)WORDS - first);
	report(s, sb, page, text, &s->result.wrong_bytes_pages);
}

bool check_page(struct stress *s, struct sblock *sb, uint32_t page, const uint64_t *copy, uint32_t done, uint32_t begun,
                const char *who)
{
	bool is_zero = content_place(s, sb, page) == PLACE_ZERO;
	uint64_t base = is_zero ? 0 : content_base(s, sb, page, s->round), step = is_zero ? 0 : CONTENT_STEP;
	/* By (1) and (2) of stress.h. */
	bool content = done == 0, zeros = begun > 0;
	uint64_t differs = 0, any = 0, neither = 0;

	for (size_t i = s->opts.touchers / 2 + s->opts.touchers % 2; i < WORDS; i++) {
		uint64_t d = copy[i] ^ (base + i * step);

		differs |= d;
		any |= copy[i];
		neither |= halves_wrong(copy[i], base + i * step);
	}
	if ((content && !differs) || (zeros && !any) || (content && zeros && !neither))
		return true;
	report_page(s, sb, page, copy, base, content, zeros, who);
	return false;
}

/* ---- marks ---- */

static uint32_t content_at(const struct stress *s, const struct sblock *sb, uint32_t page, unsigned place)
{
	uint64_t word;

	if (content_place(s, sb, page) == PLACE_ZERO)
		return 0;
	word = content_base(s, sb, page, s->round) + (place / 2) * CONTENT_STEP;
	/* Little-endian: the lower half comes first. */
	return (uint32_t)(word >> (place % 2 * 32));
}

bool check_place(struct stress *s, struct sblock *sb, uint32_t page, unsigned place, uint32_t found,
                 const struct mark *m, uint32_t done, uint32_t begun, const char *who)
{
	bool marked = m->value && m->round == s->round;
	uint32_t expected = marked ? m->value : content_at(s, sb, page, place);
	/* By (3): a removal that began after the write and ended before the read takes the mark away; one that was
	 * under way at any time since the write began may have. */
	bool there = marked ? done <= m->begun_after : done == 0;
	bool zeros = marked ? begun > m->done_before : begun > 0;
	char text[400];

	if ((there && found == expected) || (zeros && found == 0))
		return true;
	snprintf(text, sizeof(text),
	         "%s: %s found 0x%08" PRIx32 " at its place, byte %u of page %" PRIu32 " of '%s' (offset 0x%" PRIx64
	         "), where %s 0x%08" PRIx32 " %s%s",
	         marked ? "a mark is lost" : "wrong bytes", who, found, place * 4, page, sb->name,
	         (uint64_t)page * TPAGE_BYTES, marked ? "it has written" : "the content is", expected,
	         there ? "must be" : "was before it was removed", zeros ? ", or zeros" : "");
	report(s, sb, page, text, &s->result.wrong_bytes_pages);
	return false;
}
