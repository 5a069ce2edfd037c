/*
 * Postcopy on emulated kernels: this program replaces ioctl, so that placements fail as they do when somebody removes,
 * forks or unmaps, with the errors of old and new kernels, and when somebody else has placed a page without waking the
 * threads that wait for it. It also checks what we tell the kernel to watch.
 */
#include "tests/support/check_main.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <linux/userfaultfd.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "engine/inm.h"
#include "tests/support/huge_pool.h"
#include "tests/support/postcopy_scene.h"

/* ---- the kernel -------------------------------------------------------------------------------------------------- */

enum trick {
	AGAIN_OLD, /* before Linux 6.15: EAGAIN, and the field is left alone */
	AGAIN_NEW, /* EAGAIN there, too */
	PART_OLD,  /* the first page, and then as the others */
	PART_NEW,
	THERE_ASLEEP, /* it is placed, nobody is woken, and then: EEXIST */
	TRICKS,
};

static int trick = -1; /* -1: none */
static unsigned dice, played[TRICKS];

/* The placements in one shape. */
struct placement {
	uint64_t *mode, *bytes, dont_wake;
	int64_t *field;
};

static bool is_placement(unsigned long request, void *arg, struct placement *ret)
{
	struct uffdio_copy *c = arg;
	struct uffdio_zeropage *z = arg;
	struct uffdio_continue *n = arg;

	if (request == UFFDIO_COPY)
		*ret = (struct placement){ (uint64_t *)&c->mode, (uint64_t *)&c->len, UFFDIO_COPY_MODE_DONTWAKE,
			                   (int64_t *)&c->copy };
	else if (request == UFFDIO_ZEROPAGE)
		*ret = (struct placement){ (uint64_t *)&z->mode, (uint64_t *)&z->range.len,
			                   UFFDIO_ZEROPAGE_MODE_DONTWAKE, (int64_t *)&z->zeropage };
	else if (request == UFFDIO_CONTINUE)
		*ret = (struct placement){ (uint64_t *)&n->mode, (uint64_t *)&n->range.len,
			                   UFFDIO_CONTINUE_MODE_DONTWAKE, (int64_t *)&n->mapped };
	return request == UFFDIO_COPY || request == UFFDIO_ZEROPAGE || request == UFFDIO_CONTINUE;
}

static int fails(int code)
{
	errno = code;
	return -1;
}

static int play(int fd, unsigned long request, void *arg, const struct placement *p)
{
	uint64_t bytes = *p->bytes;
	int r;

	switch (trick) {
	case AGAIN_NEW:
		*p->field = -EAGAIN;
		/* fall through */
	case AGAIN_OLD:
		played[trick]++;
		return fails(EAGAIN);
	case THERE_ASLEEP:
		*p->mode |= p->dont_wake;
		r = (int)syscall(SYS_ioctl, fd, request, arg);
		if (r == 0)
			played[trick]++;
		*p->field = -EEXIST;
		return fails(r == 0 ? EEXIST : errno);
	default:
		/* Huge pages come in one piece. */
		if (bytes <= PC_PAGE || bytes % PC_HUGE_BYTES == 0)
			return (int)syscall(SYS_ioctl, fd, request, arg);
		*p->bytes = PC_PAGE;
		r = (int)syscall(SYS_ioctl, fd, request, arg);
		*p->bytes = bytes;
		if (r < 0)
			return r;
		played[trick]++;
		*p->field = (int64_t)PC_PAGE;
		return fails(EAGAIN);
	}
}

int ioctl(int fd, unsigned long request, ...)
{
	struct placement p;
	va_list ap;
	void *arg;

	va_start(ap, request);
	arg = va_arg(ap, void *);
	va_end(ap);
	/* A third of them: several in a row do happen, and no end of them does not. */
	if (trick >= 0 && is_placement(request, arg, &p) && (dice = dice * 1103515245u + 12345u) >> 16 & 1 &&
	    (dice >> 20) % 3)
		return play(fd, request, arg, &p);
	return (int)syscall(SYS_ioctl, fd, request, arg);
}

static const struct pc_block memories[][2] = {
	{ { "pc.ram", 300, EMB_MEMFD }, { "vga.vram", 33, EMB_MEMFD } },
	{ { "pc.ram", 300, EMB_ANON }, { "vga.vram", 33, EMB_ANON } },
	{ { "pc.ram", 2 * 512 + 37, EMB_HUGETLB }, { "vga.vram", 33, EMB_MEMFD } },
};
#define MEMORIES 3
#define PLAYS (TRICKS * MEMORIES)

TEST_CASE("played", 60, HUGE_POOL);

/* A toucher has to be woken, and every byte has to be right, whatever a placement says. */
TEST_EACH(test_placements_that_fail_are_read_the_same_from_every_kernel, PLAYS)
{
	struct pc s;

	for (unsigned quiet = 0; quiet < 2; quiet++) {
		struct pc_opts o = { .quiet = quiet,
			             .preempt = PC_LATE,
			             .main_percent = 30,
			             .twice_percent = 20,
			             .touch = { .threads = 4, .write = true } };

		o = pc_in_memory(memories[_i % MEMORIES], o);
		pc_begin(&s, &o);
		trick = _i / MEMORIES;
		pc_finish(&s);
		trick = -1;
		pc_check_landed(&s);
		pc_end(&s);
	}
	/* Pages of anonymous memory are copied one by one. */
	if ((_i / MEMORIES != PART_OLD && _i / MEMORIES != PART_NEW) || _i % MEMORIES == 0)
		ck_assert_uint_gt(played[_i / MEMORIES], 0);
}

/* ---- what is watched --------------------------------------------------------------------------------------------- */

struct range {
	uintptr_t begin, end;
};

static bool is_inside(const struct range *r, uintptr_t begin, uintptr_t end)
{
	return begin >= r->begin && end <= r->end;
}

/* Ranges that a userfaultfd watches, by the kernel's list. Return: how many. */
static unsigned watched(struct range *ret, unsigned max)
{
	FILE *f = fopen("/proc/self/smaps", "r");
	unsigned n = 0;
	struct range now = { 0, 0 };
	char line[512];

	ck_assert_ptr_nonnull(f);
	while (fgets(line, sizeof(line), f)) {
		unsigned long begin, end;

		if (sscanf(line, "%lx-%lx ", &begin, &end) == 2)
			now = (struct range){ begin, end };
		else if (!strncmp(line, "VmFlags:", 8) && (strstr(line, " um") || strstr(line, " ui"))) {
			ck_assert_uint_lt(n, max);
			ret[n++] = now;
		}
	}
	fclose(f);
	return n;
}

/*
 * The guest view as the embedder has it, as far as the source has anything for it, and the library's own view; not a
 * byte of what lies around them.
 */
static void check_watched(struct pc *s)
{
	const struct postcopy *pc = &s->e.inm->postcopy;
	struct range found[32], may[2 * PC_BLOCKS_MAX];
	unsigned count = watched(found, 32), n = 0;
	uint64_t bytes = 0, owed = 0;

	for (size_t i = 0; i < s->ram_count; i++) {
		const struct pc_ram *ram = &s->ram[i];
		uintptr_t guest = (uintptr_t)ram->emb->guest, engine = (uintptr_t)pc->blocks[i].b->engine;
		uint64_t unit_bytes = ram->unit_pages * PC_PAGE;

		may[n++] = (struct range){ guest, guest + ram->units * unit_bytes };
		owed += ram->units * unit_bytes;
		if (!engine)
			continue;
		may[n++] = (struct range){ engine, engine + ram->units * unit_bytes };
		owed += ram->units * unit_bytes;
	}
	for (unsigned i = 0; i < count; i++) {
		bool inside = false;

		for (unsigned k = 0; k < n; k++)
			inside |= is_inside(&may[k], found[i].begin, found[i].end);
		ck_assert_msg(inside, "%lx-%lx is watched", (unsigned long)found[i].begin, (unsigned long)found[i].end);
		bytes += found[i].end - found[i].begin;
	}
	ck_assert_uint_eq(bytes, owed);
}

static bool lists_flags(void)
{
	char line[512];
	FILE *f = fopen("/proc/self/smaps", "r");
	bool there = false;

	while (f && !there && fgets(line, sizeof(line), f))
		there = !strncmp(line, "VmFlags:", 8);
	if (f)
		fclose(f);
	return there;
}

TEST_CASE("watched", 60, HUGE_POOL);

/* Of what the source says only what fits reaches the kernel: the ranges are the embedder's. */
TEST_EACH(test_only_what_the_embedder_gave_is_watched, MEMORIES)
{
	struct range none[1];
	struct pc s;

	if (!lists_flags())
		test_skip("this kernel does not list what is watched");
	for (unsigned spare = 0; spare <= 600; spare += 300) {
		struct pc_opts o = { .quiet = true, .spare_pages = spare };

		o = pc_in_memory(memories[_i], o);
		pc_begin(&s, &o);
		pc_switch(&s);
		ck_assert_uint_eq(watched(none, 1), 0);
		ck_assert(pc_until(&s, pc_vcpus_started, 5000));
		check_watched(&s);
		pc_finish(&s);
		pc_check_landed(&s);
		ck_assert_uint_eq(watched(none, 1), 0);
		pc_end(&s);
	}
}

static struct inm_ops before;
static int disk = -1;
static void *on_disk_addr;

/* A file that is no memory: it can be mapped, and be written to, and the kernel watches no page of it. */
static int on_disk(void *opaque, struct inm_ram_block *block)
{
	int r = before.ram_block(opaque, block);

	if (r < 0 || strcmp(block->name, "vga.vram") != 0)
		return r;
	block->fd = disk;
	block->fd_offset = 0;
	block->addr = mmap(NULL, block->bytes_max, PROT_READ | PROT_WRITE, MAP_SHARED, disk, 0);
	on_disk_addr = block->addr;
	return block->addr == MAP_FAILED ? -errno : 0;
}

/* Not at LISTEN: there the source has already stopped its guest. */
TEST(test_memory_that_cannot_be_watched_is_refused_before_the_switch)
{
	char path[] = "/var/tmp/inmigrate-test-XXXXXX";
	struct statfs fs;
	struct pc s;

	disk = mkostemp(path, O_CLOEXEC);
	if (disk < 0 || fstatfs(disk, &fs) < 0 || fs.f_type == TMPFS_MAGIC)
		test_skip("no file on a disk to be had");
	unlink(path);
	ck_assert_int_eq(ftruncate(disk, 16 * PC_PAGE), 0);
	pc_begin(&s, &(struct pc_opts){ 0 });
	before = s.e.inm->callbacks.ops;
	s.e.inm->callbacks.ops.ram_block = on_disk;
	pc_precopy(&s); /* and no further */
	ck_assert_int_eq(s.result, -EINVAL);
	ck_assert_msg(strstr(inm_error(s.e.inm), "block 'vga.vram'"), "%s", inm_error(s.e.inm));
	ck_assert_msg(strstr(inm_error(s.e.inm), "memory file"), "%s", inm_error(s.e.inm));
	ck_assert_int_eq(munmap(on_disk_addr, 16 * PC_PAGE), 0);
	pc_end(&s);
	close(disk);
}
