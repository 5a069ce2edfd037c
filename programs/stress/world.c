#include "programs/stress/world.h"

#include "memory/block.h"
#include "postcopy/postcopy.h"
#include "programs/cli/complain.h"
#include "programs/stress/block.h"
#include "programs/stress/check.h"
#include "programs/stress/content.h"
#include "programs/stress/kinds.h"
#include "programs/stress/random.h"
#include "programs/stress/story.h"
#include "programs/stress/stress.h"

#include <errno.h>
#include <linux/memfd.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define HUGE_2M_BYTES (2ul << 20)
#define HUGE_1G_BYTES (1ul << 30)

/* Of the memory to be touched, for what is unplugged and what is moved. */
#define ASIDE_SHARE 4

/* ---- memory ---- */

static size_t hpage_bytes_of(enum stress_memory memory)
{
	return memory == MEMORY_HUGE_2M ? HUGE_2M_BYTES : memory == MEMORY_HUGE_1G ? HUGE_1G_BYTES : TPAGE_BYTES;
}

static int open_file(const struct sblock *sb, uint64_t bytes)
{
	unsigned flags = MFD_CLOEXEC;
	int fd;

	if (sb->memory == MEMORY_HUGE_2M)
		flags |= MFD_HUGETLB | MFD_HUGE_2MB;
	if (sb->memory == MEMORY_HUGE_1G)
		flags |= MFD_HUGETLB | MFD_HUGE_1GB;
	fd = memfd_create(sb->name, flags);
	if (fd < 0)
		return -errno;
	if (ftruncate(fd, (off_t)bytes) < 0) {
		int r = -errno;

		close(fd);
		return r;
	}
	return fd;
}

/* An address for @bytes, aligned as the block needs it, where nothing is. */
static uint8_t *reserve(uint64_t bytes, size_t align)
{
	uint8_t *p = mmap(NULL, bytes + align, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0), *at;

	if (p == MAP_FAILED)
		return NULL;
	at = (uint8_t *)(((uintptr_t)p + align - 1) / align * align);
	if (at > p)
		munmap(p, (size_t)(at - p));
	munmap(at + bytes, (size_t)(p + align - at));
	return at;
}

static uint64_t sblock_bytes(const struct sblock *sb)
{
	return (uint64_t)sb->pages * TPAGE_BYTES;
}

static int map_at(const struct sblock *sb, uint8_t *at, uint64_t off, uint64_t bytes)
{
	int flags = MAP_FIXED | (sblock_is_anonymous(sb) ? MAP_PRIVATE | MAP_ANONYMOUS : MAP_SHARED);

	if (mmap(at, bytes, PROT_READ | PROT_WRITE, flags, sb->fd, sblock_is_anonymous(sb) ? 0 : (off_t)off) ==
	    MAP_FAILED)
		return -errno;
	if (sb->memory == MEMORY_THP && madvise(at, bytes, MADV_HUGEPAGE) < 0)
		return -errno;
	return 0;
}

/* Tables that cost what is touched of them. */
static void *table_new(size_t bytes)
{
	void *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	return p == MAP_FAILED ? NULL : p;
}

static size_t story_count(const struct sblock *sb)
{
	return sb->pages / sb->unit_pages / STORY_UNITS + 1;
}

static int make_tables(struct sblock *sb)
{
	sb->removes_begun = table_new(sb->pages * sizeof(*sb->removes_begun));
	sb->removes_done = table_new(sb->pages * sizeof(*sb->removes_done));
	sb->due_ns = table_new(sb->pages * sizeof(*sb->due_ns));
	sb->pending = table_new(sb->pages * sizeof(*sb->pending));
	sb->change_ns = table_new(sb->pages * sizeof(*sb->change_ns));
	sb->stories = table_new(story_count(sb) * sizeof(*sb->stories));
	if (!sb->removes_begun || !sb->removes_done || !sb->due_ns || !sb->pending || !sb->change_ns || !sb->stories)
		return -ENOMEM;
	return 0;
}

static int sblock_make(struct stress *s, enum stress_memory memory, enum stress_role role, uint64_t bytes)
{
	static const char *const suffix[] = { "", "-unplug", "-moving" };
	struct sblock *sb = &s->blocks[s->block_count];
	struct block_source source = { .fd = -1 };
	bool anonymous = memory == MEMORY_ANON || memory == MEMORY_THP;
	size_t align = memory == MEMORY_THP ? HUGE_2M_BYTES : hpage_bytes_of(memory);
	uint8_t *at;
	int r;

	bytes = (bytes + align - 1) / align * align;
	*sb = (struct sblock){ .memory = memory, .role = role, .index = s->block_count++, .fd = -1 };
	snprintf(sb->name, sizeof(sb->name), "%s%s", memory_names[memory], suffix[role]);
	sb->hpage_bytes = hpage_bytes_of(memory);
	sb->unit_pages = (unsigned)(sb->hpage_bytes / TPAGE_BYTES);
	sb->pages = (uint32_t)(bytes / TPAGE_BYTES);
	sb->slot_count = role == ROLE_MOVING ? 1 : role == ROLE_UNPLUG ? SLOTS : 0;
	if (sb->slot_count > sb->pages / sb->unit_pages)
		sb->slot_count = sb->pages / sb->unit_pages;
	sb->fd = anonymous ? -1 : open_file(sb, bytes);
	if (!anonymous && sb->fd < 0) {
		r = sb->fd;
		sb->fd = -1;
		return r;
	}
	at = reserve(bytes, align);
	r = at ? map_at(sb, at, 0, bytes) : -ENOMEM;
	if (r == 0)
		r = make_tables(sb);
	if (r < 0)
		return r;
	atomic_store(&sb->guest, at);
	source.fd = sb->fd;
	source.addr = at;
	s->pages += sb->pages;
	return ram_add(&s->ram, sb->name, strlen(sb->name), bytes, &source, &sb->b);
}

static void sblock_free(struct sblock *sb)
{
	uint8_t *at = atomic_load(&sb->guest);

	if (at)
		munmap(at, sblock_bytes(sb));
	if (sb->fd >= 0)
		close(sb->fd);
	if (sb->removes_begun)
		munmap(sb->removes_begun, sb->pages * sizeof(*sb->removes_begun));
	if (sb->removes_done)
		munmap(sb->removes_done, sb->pages * sizeof(*sb->removes_done));
	if (sb->due_ns)
		munmap(sb->due_ns, sb->pages * sizeof(*sb->due_ns));
	if (sb->pending)
		munmap(sb->pending, sb->pages * sizeof(*sb->pending));
	if (sb->change_ns)
		munmap(sb->change_ns, sb->pages * sizeof(*sb->change_ns));
	if (sb->stories)
		munmap(sb->stories, story_count(sb) * sizeof(*sb->stories));
}

int world_make(struct stress *s)
{
	uint64_t aside = s->opts.bytes / ASIDE_SHARE;
	int r = 0;

	ram_init(&s->ram, TPAGE_SHIFT);
	for (unsigned m = 0; r == 0 && m < MEMORY_COUNT; m++) {
		if (!(s->opts.memories & 1u << m))
			continue;
		r = sblock_make(s, (enum stress_memory)m, ROLE_STEADY, s->opts.bytes);
		if (r == 0 && s->opts.event_rate[EVENT_UNMAP] > 0)
			r = sblock_make(s, (enum stress_memory)m, ROLE_UNPLUG, aside);
		if (r == 0 && s->opts.event_rate[EVENT_REMAP] > 0)
			r = sblock_make(s, (enum stress_memory)m, ROLE_MOVING, aside);
	}
	if (r < 0)
		fail("stress: memory '%s': %s", s->blocks[s->block_count - 1].name, strerror(-r));
	return r;
}

void world_free(struct stress *s)
{
	ram_fini(&s->ram);
	for (unsigned i = 0; i < s->block_count; i++)
		sblock_free(&s->blocks[i]);
}

/* ---- a round ---- */

static int plug_in_again(struct sblock *sb)
{
	int r = 0;

	for (unsigned i = 0; r == 0 && i < sb->slot_count; i++) {
		struct slot *slot = &sb->slots[i];
		uint64_t off = slot_begin(sb, i);

		if (!slot->gone)
			continue;
		r = map_at(sb, atomic_load(&sb->guest) + off, off, slot_begin(sb, i + 1) - off);
		slot->gone = false;
		atomic_store(&slot->users, 0);
	}
	return r;
}

/* Huge pages form only where a precopy has filled them before. Of every second one all pages come again, of the others
 * a quarter, which splits them. */
static bool comes_again(const struct stress *s, uint32_t page)
{
	return page / 512 % 2 == 0 || mix64(s->opts.seed ^ (uint64_t)s->round << 32 ^ page) % 4 == 0;
}

static int precopy_and_discard(struct stress *s, struct sblock *sb)
{
	uint8_t *at = atomic_load(&sb->guest);
	uint32_t run;
	int r = 0;

	for (uint32_t page = 0; page < sb->pages; page++) {
		content_make(s, sb, page, s->round, at + (uint64_t)page * TPAGE_BYTES);
		block_mark_received(sb->b, page, 1);
	}
	for (uint32_t page = 0; r == 0 && page < sb->pages; page += run) {
		bool again = comes_again(s, page);

		for (run = 1; page + run < sb->pages && comes_again(s, page + run) == again; run++)
			;
		if (again)
			r = postcopy_discard(s->pc, sb->b, page, run);
	}
	return r;
}

int world_begin_round(struct stress *s)
{
	int r = 0;

	for (unsigned i = 0; r == 0 && i < s->block_count; i++) {
		struct sblock *sb = &s->blocks[i];

		r = plug_in_again(sb);
		memset((void *)sb->removes_begun, 0, sb->pages * sizeof(*sb->removes_begun));
		memset((void *)sb->removes_done, 0, sb->pages * sizeof(*sb->removes_done));
		memset((void *)sb->due_ns, 0, sb->pages / sb->unit_pages * sizeof(*sb->due_ns));
		memset((void *)sb->pending, 0, sb->pages / sb->unit_pages * sizeof(*sb->pending));
		if (r == 0 && sb->memory == MEMORY_THP)
			r = precopy_and_discard(s, sb);
		else if (r == 0)
			r = postcopy_discard(s->pc, sb->b, 0, sb->pages);
	}
	if (r < 0)
		check_failed(s, "a round cannot begin: %s", strerror(-r));
	return r;
}

void world_end_round(struct stress *s)
{
	for (unsigned i = 0; i < s->block_count; i++) {
		struct block *b = s->blocks[i].b;

		/* A migration makes its engine views once, and here comes the next one. */
		if (b->engine)
			munmap(b->engine, b->mapped_bytes);
		b->engine = NULL;
	}
}
