/*
 * The embedder gives a block twice, by descriptor and by address: what lands in one must show in the other
 * (memory/views.h). The library refuses a view of other memory before a page lands, but no view of the same memory,
 * however it was made.
 */
#include "tests/support/check_main.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/list.h"
#include "tests/support/scene.h"

#define PAGE ((size_t)WIRE_TPAGE_BYTES)

/* The embedder's first block, and the views of it that a test makes. */
struct views {
	struct scene s;
	uint8_t *addr;
	size_t map_bytes;
	size_t hole_off; /* a page there is not ours: something else may be mapped in it; 0: none */
	int fd;          /* of a file of the test's own; -1: the scene's */
};

static void *map(size_t bytes, int prot, int flags, int fd, off_t off)
{
	void *p = mmap(NULL, bytes, prot, flags, fd, off);

	ck_assert_msg(p != MAP_FAILED, "%s", strerror(errno));
	return p;
}

static int give_view(void *opaque, struct inm_ram_block *said)
{
	struct views *v = container_of(opaque, struct views, s.e);
	int r = embedder_ops.ram_block(opaque, said);

	if (r == 0 && strcmp(said->name, v->s.e.blocks[0].name) == 0) {
		said->addr = v->addr;
		if (v->fd >= 0) {
			said->fd = v->fd;
			said->fd_offset = 0;
		}
	}
	return r;
}

/* ---- ways to map ------------------------------------------------------------------------------------------------- */

typedef void make_fn(struct views *v, const struct emb_block *b);

static void right(struct views *v, const struct emb_block *b)
{
	v->addr = map(b->bytes, PROT_READ | PROT_WRITE, MAP_SHARED, b->fd, (off_t)b->canary_bytes);
}

static void in_pieces(struct views *v, const struct emb_block *b)
{
	right(v, b);
	ck_assert_int_eq(mprotect(v->addr + PAGE, PAGE, PROT_READ), 0);
	ck_assert_int_eq(madvise(v->addr + 4 * PAGE, PAGE, MADV_DONTFORK), 0);
}

static void side_by_side(struct views *v, const struct emb_block *b)
{
	v->addr = map(b->bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	for (size_t off = 0; off < b->bytes; off += PAGE)
		ck_assert_ptr_eq(mmap(v->addr + off, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, b->fd,
		                      (off_t)(b->canary_bytes + off)),
		                 v->addr + off);
}

static void by_another_name(struct views *v, const struct emb_block *b)
{
	char path[64];
	int fd;

	snprintf(path, sizeof(path), "/proc/self/fd/%d", b->fd);
	fd = open(path, O_RDWR | O_CLOEXEC);
	ck_assert_int_ge(fd, 0);
	v->addr = map(b->bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, (off_t)b->canary_bytes);
	close(fd);
}

static void on_disk(struct views *v, const struct emb_block *b)
{
	FILE *f = tmpfile();

	ck_assert_ptr_nonnull(f);
	v->fd = dup(fileno(f));
	fclose(f);
	ck_assert_int_eq(ftruncate(v->fd, (off_t)b->bytes), 0);
	v->addr = map(b->bytes, PROT_READ | PROT_WRITE, MAP_SHARED, v->fd, 0);
}

static void off_by_a_page(struct views *v, const struct emb_block *b)
{
	v->addr = map(b->bytes, PROT_READ | PROT_WRITE, MAP_SHARED, b->fd, (off_t)(b->canary_bytes - PAGE));
}

static void private_one(struct views *v, const struct emb_block *b)
{
	v->addr = map(b->bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE, b->fd, (off_t)b->canary_bytes);
}

static void anonymous_one(struct views *v, const struct emb_block *b)
{
	v->addr = map(b->bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
}

static void another_file(struct views *v, const struct emb_block *b)
{
	int fd = memfd_create("another", MFD_CLOEXEC);

	ck_assert_int_eq(ftruncate(fd, (off_t)(b->canary_bytes + b->bytes)), 0);
	v->addr = map(b->bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, (off_t)b->canary_bytes);
	close(fd);
}

static void hole(struct views *v, const struct emb_block *b)
{
	right(v, b);
	v->hole_off = 2 * PAGE;
	ck_assert_int_eq(munmap(v->addr + v->hole_off, PAGE), 0);
}

static void private_page(struct views *v, const struct emb_block *b)
{
	right(v, b);
	ck_assert_ptr_ne(mmap(v->addr + b->bytes - PAGE, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_FIXED, b->fd,
	                      (off_t)(b->canary_bytes + b->bytes - PAGE)),
	                 MAP_FAILED);
}

static void pages_swapped(struct views *v, const struct emb_block *b)
{
	right(v, b);
	ck_assert_ptr_ne(mmap(v->addr + 3 * PAGE, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, b->fd,
	                      (off_t)(b->canary_bytes + 4 * PAGE)),
	                 MAP_FAILED);
}

static const struct {
	make_fn *make;
	const char *words; /* NULL: it lands */
} ways[] = {
	{ right, NULL },
	{ in_pieces, NULL },
	{ side_by_side, NULL },
	{ by_another_name, NULL },
	{ on_disk, NULL },
	{ off_by_a_page, "at 0x0 of its address, it shows another part of the file" },
	{ private_one, "at 0x0 of its address, it is a private mapping" },
	{ anonymous_one, "at 0x0 of its address, it is a mapping of another file" },
	{ another_file, "at 0x0 of its address, it is a mapping of another file" },
	{ hole, "at 0x2000 of its address, " }, /* something else may have been mapped there meanwhile */
	{ private_page, "at 0xf000 of its address, it is a private mapping" },
	{ pages_swapped, "at 0x3000 of its address, it shows another part of the file" },
};
#define WAYS ((int)(sizeof(ways) / sizeof(ways[0])))

/* ---- tests ------------------------------------------------------------------------------------------------------- */

static void begin(struct views *v, make_fn *make)
{
	struct emb_block *b;

	*v = (struct views){ .fd = -1 };
	scene_begin(&v->s, &(struct honest_opts){ .return_path = true });
	b = &v->s.e.blocks[0];
	make(v, b);
	v->map_bytes = b->bytes;
}

static void land_it(struct views *v)
{
	struct inm_ops ops = embedder_ops;

	ops.ram_block = give_view;
	scene_land(&v->s,
	           &(struct land_opts){ .return_path = true, .ops = &ops, .config = { .log_level = INM_LOG_WARN } });
}

static void end(struct views *v)
{
	size_t behind = v->hole_off ? v->hole_off + PAGE : 0;

	if (v->hole_off)
		munmap(v->addr, v->hole_off);
	munmap(v->addr + behind, v->map_bytes - behind);
	if (v->fd >= 0)
		close(v->fd);
	scene_end(&v->s);
}

TEST_CASE("ways", 60);

TEST_EACH(test_a_view_lands_if_and_only_if_it_is_the_same_memory, WAYS)
{
	struct views v;

	begin(&v, ways[_i].make);
	land_it(&v);
	if (ways[_i].words) {
		ck_assert_int_eq(v.s.e.result, -EINVAL);
		ck_assert_msg(strstr(v.s.e.error, ways[_i].words), "no '%s' in: %s", ways[_i].words, v.s.e.error);
		ck_assert_ptr_nonnull(strstr(v.s.e.error, "block 'pc.ram'"));
		ck_assert_uint_eq(source_reply_value(&v.s.report, WIRE_RP_SHUT, 0), 1);
	} else {
		ck_assert_msg(v.s.e.result == 0, "%s", v.s.e.error);
		ck_assert_uint_eq(source_reply_value(&v.s.report, WIRE_RP_SHUT, 0), 0);
		ck_assert_mem_eq(v.addr, v.s.image.blocks[0].data, v.s.image.blocks[0].bytes);
	}
	end(&v);
}

/* In a mount namespace of its own, so that /proc is not there. */
static void land_without_proc(struct views *v)
{
	pid_t child = fork();
	int status;

	ck_assert_int_ge(child, 0);
	if (child == 0) {
		if (unshare(CLONE_NEWNS) < 0 || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0 ||
		    mount("none", "/proc", "tmpfs", 0, NULL) < 0)
			_exit(2);
		land_it(v);
		_exit(v->s.e.result == 0 && v->s.e.log_lines > 0 ? 0 : 1);
	}
	ck_assert_int_eq(waitpid(child, &status, 0), child);
	if (WIFEXITED(status) && WEXITSTATUS(status) == 2)
		test_skip("no mount namespace for this user");
	ck_assert_msg(WIFEXITED(status) && WEXITSTATUS(status) == 0, "status 0x%x", (unsigned)status);
}

static struct views *overlapping;

/* All blocks from one file, each a page before the end of the one before it. */
static int give_overlapping(void *opaque, struct inm_ram_block *said)
{
	struct views *v = overlapping;
	int r = embedder_ops.ram_block(opaque, said);

	if (r == 0 && v->fd >= 0) {
		said->fd = v->fd;
		said->fd_offset = v->map_bytes;
	} else {
		said->fd = -1;
		said->addr = v->addr + v->map_bytes;
	}
	v->map_bytes += said->bytes - (_Bool)v->s.e.fail_device_nth * PAGE;
	return r;
}

/* In a file or in anonymous memory; one page in common, or none. */
TEST_EACH(test_two_blocks_of_one_memory_are_refused, 4)
{
	struct inm_ops ops = embedder_ops;
	bool overlap = _i % 2, file = _i / 2;
	struct views v = { .fd = -1 };

	scene_begin(&v.s, &(struct honest_opts){ .return_path = true });
	overlapping = &v;
	v.s.e.fail_device_nth = overlap ? 1000 : 0;
	ops.ram_block = give_overlapping;
	if (file)
		v.fd = memfd_create("both", MFD_CLOEXEC);
	if (file)
		ck_assert_int_eq(ftruncate(v.fd, 1 << 20), 0);
	v.addr = map(1 << 20, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	scene_land(&v.s, &(struct land_opts){ .return_path = true, .ops = &ops });
	ck_assert_msg(v.s.e.result == (overlap ? -EINVAL : 0), "%d: %s", v.s.e.result, v.s.e.error);
	ck_assert(!overlap || strstr(v.s.e.error, "memory of another block"));
	v.map_bytes = 1 << 20;
	end(&v);
}

TEST(test_without_proc_nothing_is_refused)
{
	struct views v;

	begin(&v, right);
	land_without_proc(&v);
	end(&v);
}
