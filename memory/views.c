#include "memory/views.h"

#include "coroutine/turn.h"
#include "memory/block.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* A line of /proc/self/maps: "7f00a000-7f00b000 rw-s 00001000 00:01 1234   /memfd:ram (deleted)" */
struct mapping {
	uintptr_t begin, end;
	uint64_t off;
	uint64_t device; /* major << 32 | minor */
	uint64_t inode;  /* 0: none */
	bool shared;
};

/* In the order of the addresses. */
struct mappings {
	struct mapping *at; /* owned */
	size_t count, room;
};

/* ---- the list ---- */

/* The number at *@p and the character after it. */
static bool number(char **p, int base, char behind, uint64_t *ret)
{
	char *end;

	*ret = strtoull(*p, &end, base);
	if (end == *p || *end != behind)
		return false;
	*p = end + 1;
	return true;
}

static bool parse(char *line, struct mapping *ret)
{
	uint64_t begin, end, major, minor;
	char *p = line;

	if (!number(&p, 16, '-', &begin) || !number(&p, 16, ' ', &end) || strnlen(p, 5) < 5)
		return false;
	ret->shared = p[3] == 's';
	p += 5;
	if (!number(&p, 16, ' ', &ret->off) || !number(&p, 16, ':', &major) || !number(&p, 16, ' ', &minor))
		return false;
	ret->inode = strtoull(p, NULL, 10);
	ret->begin = begin;
	ret->end = end;
	ret->device = major << 32 | minor;
	return true;
}

static int add(struct mappings *m, char *line)
{
	size_t room = m->room ? 2 * m->room : 256;
	struct mapping *at;

	if (m->count == m->room) {
		at = realloc(m->at, room * sizeof(*at));
		if (!at)
			return -ENOMEM;
		m->at = at;
		m->room = room;
	}
	/* A line of another form tells nothing. */
	m->count += parse(line, &m->at[m->count]);
	return 0;
}

/* The whole lines of text[0, bytes). Return: the bytes in them, or -ENOMEM. */
static ssize_t take_lines(struct mappings *m, char *text, size_t bytes)
{
	size_t taken = 0;
	char *end;
	int r;

	while ((end = memchr(text + taken, '\n', bytes - taken))) {
		*end = '\0';
		r = add(m, text + taken);
		if (r < 0)
			return r;
		taken = (size_t)(end - text) + 1;
	}
	return (ssize_t)taken;
}

/* A read of the kernel's gives whole lines, a page of them at most; a line is shorter than two paths. */
static may_park int read_list(struct mappings *m, struct sched *s, int fd)
{
	char text[16384];
	size_t kept = 0;
	ssize_t n, taken;
	int r;

	while ((n = read(fd, text + kept, sizeof(text) - kept)) != 0) {
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		kept += (size_t)n;
		taken = take_lines(m, text, kept);
		if (taken < 0)
			return (int)taken;
		kept -= (size_t)taken;
		memmove(text, text + taken, kept);
		if (kept == sizeof(text))
			return -EIO;
		/* Some fifty lines, a microsecond each. */
		r = turn_spend(s, TURN_LOOK);
		if (r < 0)
			return r;
	}
	return 0;
}

/* ---- comparing ---- */

static const struct mapping *find(const struct mappings *m, const void *addr)
{
	uintptr_t at = (uintptr_t)addr;
	size_t low = 0, high = m->count;

	while (low < high) {
		size_t mid = low + (high - low) / 2;

		if (m->at[mid].end <= at)
			low = mid + 1;
		else
			high = mid;
	}
	return low < m->count && m->at[low].begin <= at ? &m->at[low] : NULL;
}

/* One mapping of the guest view, which shows the block from @off on. Return: what is wrong with it, NULL: nothing. */
static const char *differs(const struct mapping *guest, const struct mapping *ours, const struct block *b, uint64_t off)
{
	uint64_t shown;

	if (!guest)
		return "nothing is mapped";
	if (!guest->shared)
		return "it is a private mapping, which does not show what lands";
	if (guest->device != ours->device || guest->inode != ours->inode)
		return "it is a mapping of another file";
	shown = guest->off + ((uintptr_t)b->guest + off - guest->begin);
	return shown == b->fd_off + off ? NULL : "it shows another part of the file";
}

static const char *compare(const struct mappings *m, const struct block *b, uint64_t *ret_off)
{
	const struct mapping *ours = find(m, b->landing), *guest;
	const char *what;

	/* Ours is shared, and of a file. A list that says otherwise does not know. */
	if (!ours || !ours->shared || ours->inode == 0)
		return NULL;
	for (*ret_off = 0; *ret_off < b->used_bytes; *ret_off = guest->end - (uintptr_t)b->guest) {
		guest = find(m, b->guest + *ret_off);
		what = differs(guest, ours, b, *ret_off);
		if (what)
			return what;
	}
	return NULL;
}

/*
 * Memory that was given by its address alone: what a discard takes back must be gone (MADV_DONTNEED), and in a shared
 * mapping it is still in the file behind it. The guest would see what it held before.
 */
static const char *is_shared(const struct mappings *m, const struct block *b, uint64_t *ret_off)
{
	const struct mapping *at;

	for (*ret_off = 0; *ret_off < b->used_bytes; *ret_off = at->end - (uintptr_t)b->guest) {
		at = find(m, b->guest + *ret_off);
		if (!at)
			return NULL; /* watching it finds that out */
		if (at->shared)
			return "it is a shared mapping, which in postcopy must be given with its descriptor";
	}
	return NULL;
}

static may_park int compare_all(const struct mappings *m, const struct ram *ram, bool postcopy, struct sched *s,
                                struct view_fault *ret)
{
	uint64_t off = 0;
	const char *what;
	int r = 0;

	for (size_t i = 0; r == 0 && i < ram->count; i++) {
		const struct block *b = ram->blocks[i];

		if (b->kind == BLOCK_IGNORED || !b->guest || (b->kind == BLOCK_ANONYMOUS && !postcopy))
			continue;
		what = b->kind == BLOCK_ANONYMOUS ? is_shared(m, b, &off) : compare(m, b, &off);
		if (what) {
			*ret = (struct view_fault){ .block = b, .off = off, .what = what };
			return -EINVAL;
		}
		r = turn_spend(s, 8 * TURN_STEP);
	}
	return r;
}

/* ---- two blocks, one memory ---- */

/* Memory of a block: a range of a file, or of addresses (inode and device all ones). */
struct claim {
	uint64_t device, inode, off;
	const struct block *block;
};

static int order(const void *a, const void *b)
{
	const struct claim *x = a, *y = b;

	if (x->inode != y->inode)
		return x->inode < y->inode ? -1 : 1;
	if (x->device != y->device)
		return x->device < y->device ? -1 : 1;
	return (x->off > y->off) - (x->off < y->off);
}

static bool claim_of(const struct mappings *m, const struct block *b, struct claim *ret)
{
	const struct mapping *ours;

	*ret = (struct claim){ .device = UINT64_MAX, .inode = UINT64_MAX, .off = (uintptr_t)b->landing, .block = b };
	if (b->kind == BLOCK_IGNORED)
		return false;
	ours = find(m, b->landing);
	if (!ours || !ours->shared || ours->inode == 0)
		return b->kind == BLOCK_ANONYMOUS;
	*ret = (struct claim){ .device = ours->device,
		               .inode = ours->inode,
		               .off = ours->off + ((uintptr_t)b->landing - ours->begin),
		               .block = b };
	return true;
}

/* One block's pages would land on the other's. */
static int check_overlaps(const struct mappings *m, const struct ram *ram, struct view_fault *ret)
{
	struct claim *claims = calloc(ram->count, sizeof(*claims));
	size_t n = 0;
	int r = 0;

	if (!claims)
		return -ENOMEM;
	for (size_t i = 0; i < ram->count; i++)
		n += claim_of(m, ram->blocks[i], &claims[n]);
	qsort(claims, n, sizeof(*claims), order);
	for (size_t i = 1; r == 0 && i < n; i++) {
		const struct claim *a = &claims[i - 1], *b = &claims[i];

		if (a->inode != b->inode || a->device != b->device || b->off - a->off >= a->block->used_bytes)
			continue;
		*ret = (struct view_fault){ .block = b->block, .what = "it is memory of another block, too" };
		r = -EINVAL;
	}
	free(claims);
	return r;
}

int views_compare(const struct ram *ram, bool postcopy, struct sched *s, struct view_fault *ret)
{
	struct mappings m = { .count = 0 };
	int fd, r;

	fd = open("/proc/self/maps", O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	r = read_list(&m, s, fd);
	close(fd);
	if (r == 0)
		r = compare_all(&m, ram, postcopy, s, ret);
	if (r == 0)
		r = check_overlaps(&m, ram, ret);
	free(m.at);
	return r;
}
