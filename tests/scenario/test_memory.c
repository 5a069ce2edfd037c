/*
 * The memory that the embedder provides: huge pages that may be missing, and blocks that are shared with the source
 * (include/inmigrate.h, struct inm_ram_block; memory/block.h).
 */
#include "tests/support/check_main.h"

#include <errno.h>
#include <linux/memfd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/list.h"
#include "tests/support/huge_pool.h"
#include "tests/support/scene.h"

#define POOL_PAGES 12 /* of huge pages, for all tests here */

/* A scene whose memory files have huge pages, and only the library maps them before the end. */
struct huge {
	struct scene s;
	int fds[2];
	uint64_t fd_offset;
};

static unsigned index_of(const struct huge *h, const char *name)
{
	return strcmp(h->s.image.blocks[0].name, name) ? 1 : 0;
}

static uint64_t file_bytes(uint64_t bytes)
{
	return (bytes + HUGE_POOL_BYTES - 1) / HUGE_POOL_BYTES * HUGE_POOL_BYTES;
}

static int give_huge(void *opaque, struct inm_ram_block *said)
{
	struct huge *h = container_of(opaque, struct huge, s.e);
	int fd = memfd_create("huge", MFD_CLOEXEC | MFD_HUGETLB | MFD_HUGE_2MB);

	ck_assert_int_ge(fd, 0);
	ck_assert_int_eq(ftruncate(fd, (off_t)(h->fd_offset + file_bytes(said->bytes))), 0);
	h->fds[index_of(h, said->name)] = said->fd = fd;
	said->fd_offset = h->fd_offset;
	return 0;
}

static void huge_land(struct huge *h, uint64_t bytes, uint64_t fd_offset)
{
	struct wire_block blocks[2] = { { .name = "pc.ram", .bytes = bytes },
		                        { .name = "0000:00:02.0/vga.vram", .bytes = 16 * WIRE_TPAGE_BYTES } };
	struct inm_ops ops = embedder_ops;

	*h = (struct huge){ .fds = { -1, -1 }, .fd_offset = fd_offset };
	ops.ram_block = give_huge;
	scene_begin(&h->s, &(struct honest_opts){ .return_path = true, .blocks = blocks, .block_count = 2 });
	scene_land(&h->s, &(struct land_opts){ .return_path = true, .ops = &ops });
}

static void huge_end(struct huge *h)
{
	for (unsigned i = 0; i < 2; i++)
		if (h->fds[i] >= 0)
			close(h->fds[i]);
	scene_end(&h->s);
}

/* What is in the file: the block, and zeros around it. */
static void check_file(const struct huge *h, unsigned i)
{
	uint64_t bytes = h->s.image.blocks[i].bytes, all = h->fd_offset + file_bytes(bytes), off = 0;
	uint8_t *p = mmap(NULL, all, PROT_READ, MAP_SHARED, h->fds[i], 0);

	ck_assert_ptr_ne(p, MAP_FAILED);
	ck_assert_int_eq(memcmp(p + h->fd_offset, h->s.image.blocks[i].data, bytes), 0);
	/* An assertion costs a system call. */
	for (; off < all && ((off >= h->fd_offset && off < h->fd_offset + bytes) || p[off] == 0); off++)
		;
	ck_assert_msg(off == all, "byte 0x%llx beside the block was written to", (unsigned long long)off);
	munmap(p, all);
}

/* ---- the pool of the kernel -------------------------------------------------------------------------------------- */

static void pool_fill(void)
{
	huge_pool_fill(POOL_PAGES);
}

static void need_pool(void)
{
	if (huge_pool_free() < POOL_PAGES)
		test_skip("there are no huge pages, and this process may not make any");
}

/* Held by a mapping of our own, whatever there is. Return: its length. */
static void *hold_all_pages(size_t *ret_bytes)
{
	void *p;

	*ret_bytes = (size_t)huge_pool_free() * HUGE_POOL_BYTES;
	if (*ret_bytes == 0)
		return NULL;
	p = mmap(NULL, *ret_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_HUGETLB, -1, 0);
	ck_assert_ptr_ne(p, MAP_FAILED);
	return p;
}

TEST_CASE("huge pages", 60, .unchecked = { pool_fill, huge_pool_restore });

TEST(test_huge_pages_that_are_not_there_are_an_error_before_the_first_page)
{
	size_t held_bytes;
	void *held;
	struct huge h;

	if (!huge_pool_exists())
		test_skip("this kernel has no huge pages of 2 MiB");
	if (huge_pool_grows())
		test_skip("this kernel makes huge pages when they are asked for");
	held = hold_all_pages(&held_bytes);
	huge_land(&h, HUGE_POOL_BYTES, 0);
	ck_assert_int_eq(h.s.e.result, -ENOMEM);
	ck_assert_msg(strstr(h.s.e.error, "block 'pc.ram'") && strstr(h.s.e.error, "cannot be used"), "%s",
	              h.s.e.error);
	ck_assert_uint_eq(h.s.e.start_calls, 0);
	ck_assert_uint_eq(source_reply_value(&h.s.report, WIRE_RP_SHUT, 0), 1);
	huge_end(&h);
	if (held)
		munmap(held, held_bytes);
}

static void lands_in_huge_pages(uint64_t bytes, uint64_t fd_offset)
{
	struct huge h;

	need_pool();
	huge_land(&h, bytes, fd_offset);
	ck_assert_msg(h.s.e.result == 0, "%s", h.s.e.error);
	check_file(&h, 0);
	check_file(&h, 1);
	huge_end(&h);
}

TEST(test_a_block_of_whole_huge_pages_lands)
{
	lands_in_huge_pages(2 * HUGE_POOL_BYTES, 0);
}

TEST(test_a_block_that_ends_inside_a_huge_page_lands_and_leaves_the_rest_alone)
{
	lands_in_huge_pages(HUGE_POOL_BYTES + 5 * WIRE_TPAGE_BYTES, 0);
	lands_in_huge_pages(WIRE_TPAGE_BYTES, 0);
}

TEST(test_a_block_that_begins_at_a_later_huge_page_lands)
{
	lands_in_huge_pages(HUGE_POOL_BYTES + WIRE_TPAGE_BYTES, HUGE_POOL_BYTES);
}

TEST(test_huge_host_pages_take_target_pages_in_any_order)
{
	const uint64_t bytes = 4u << 20;
	const struct wire_block blocks[] = { { .name = "huge", .bytes = bytes } };
	struct scene s;

	need_pool();
	scene_begin(&s, NULL);
	wire_honest(&s.wire, &(struct honest_opts){ .blocks = blocks, .block_count = 1 }, &s.image);
	embedder_add(&s.e, "huge", bytes, EMB_HUGETLB);
	scene_land(&s, &(struct land_opts){ 0 });
	scene_check_landed(&s);
	scene_end(&s);
}

/* ---- answers that cannot be -------------------------------------------------------------------------------------- */

static uint64_t odd_offset;

static int give_odd_offset(void *opaque, struct inm_ram_block *said)
{
	int r = embedder_ops.ram_block(opaque, said);

	said->fd_offset = odd_offset;
	return r;
}

TEST_CASE("answers", 60);

TEST(test_an_offset_that_does_not_fit_the_file_is_refused)
{
	static const uint64_t offsets[] = { 1,          WIRE_TPAGE_BYTES * 3, 1ull << 62, INT64_MAX - 4095,
		                            1ull << 63, UINT64_MAX - 4095,    UINT64_MAX };

	for (unsigned i = 0; i < sizeof(offsets) / sizeof(offsets[0]); i++) {
		struct inm_ops ops = embedder_ops;
		struct scene s;

		ops.ram_block = give_odd_offset;
		odd_offset = offsets[i];
		scene_begin(&s, &(struct honest_opts){ .return_path = true });
		scene_land(&s, &(struct land_opts){ .return_path = true, .ops = &ops });
		ck_assert_msg(s.e.result == -EINVAL, "0x%llx: %d", (unsigned long long)odd_offset, s.e.result);
		ck_assert_ptr_nonnull(strstr(s.e.error, "block 'pc.ram'"));
		scene_end(&s);
	}
}

/* ---- shared with the source -------------------------------------------------------------------------------------- */

#define SHARED_BYTES (1ull << 40) /* no machine has them */
#define SMALL_BYTES (16ull * WIRE_TPAGE_BYTES)
#define SHARED_GPA 0x100000000ull
#define OWN_PAGES 4u

static const char *const ignore_shared[] = { "x-ignore-shared", NULL };

/* One block that stays where it is and one that is sent (doc/wire/stream.md 4.1). */
static void shared_stream(struct wire *w, uint64_t shared_bytes, bool with_gpa, bool page_of_shared)
{
	uint8_t page[WIRE_TPAGE_BYTES];

	wire_header(w);
	wire_config(w, "pc-i440fx-7.2");
	if (with_gpa)
		wire_config_capabilities(w, ignore_shared, 1);
	wire_section(w, WIRE_START, 2, "ram", 0, 4);
	wire_word(w, shared_bytes + OWN_PAGES * WIRE_TPAGE_BYTES, WIRE_RAM_MEM_SIZE);
	wire_str8(w, "pc.ram");
	wire_be64(w, shared_bytes);
	if (with_gpa)
		wire_be64(w, SHARED_GPA);
	wire_str8(w, "own");
	wire_be64(w, OWN_PAGES * WIRE_TPAGE_BYTES);
	if (with_gpa)
		wire_be64(w, 0);
	wire_ram_end(w, 2);
	wire_part(w, WIRE_END, 2);
	for (unsigned i = 0; i < OWN_PAGES; i++) {
		memset(page, (int)i + 1, sizeof(page));
		wire_page(w, page_of_shared && i == 2 ? "pc.ram" : "own", i * WIRE_TPAGE_BYTES, page);
	}
	wire_ram_end(w, 2);
	wire_device(w, 10, &wire_standard_devices[0]);
	wire_globalstate(w, 11, "running");
	wire_eof(w);
	wire_vmdesc(w);
}

struct sharer {
	struct scene s;
	uint64_t gpa;          /* said of the shared block */
	struct inm_stats then; /* when the first device came */
};

static int answer_ignored(void *opaque, struct inm_ram_block *said)
{
	struct sharer *sh = container_of(opaque, struct sharer, s.e);

	if (strcmp(said->name, "pc.ram"))
		return embedder_ops.ram_block(opaque, said);
	sh->gpa = said->gpa;
	said->ignored = true; /* and neither a descriptor nor an address */
	return 0;
}

static int look_at_numbers(void *opaque, const struct inm_device *device)
{
	struct sharer *sh = container_of(opaque, struct sharer, s.e);

	sh->then.size = sizeof(sh->then);
	inm_get_stats(sh->s.e.inm, &sh->then);
	return embedder_ops.device(opaque, device);
}

static void share(struct sharer *sh, bool capability, bool page_of_shared)
{
	struct inm_ops ops = embedder_ops;

	*sh = (struct sharer){ .gpa = 1 };
	ops.ram_block = answer_ignored;
	ops.device = look_at_numbers;
	scene_begin(&sh->s, NULL);
	shared_stream(&sh->s.wire, SHARED_BYTES, capability, page_of_shared);
	embedder_add(&sh->s.e, "own", OWN_PAGES * WIRE_TPAGE_BYTES, EMB_MEMFD);
	scene_land(&sh->s, &(struct land_opts){ .ops = &ops, .caps = capability ? ignore_shared : NULL });
}

TEST(test_a_block_that_is_shared_with_the_source_needs_no_memory_and_lands)
{
	struct sharer sh;

	share(&sh, true, false);
	ck_assert_msg(sh.s.e.result == 0, "%s", sh.s.e.error);
	ck_assert_uint_eq(sh.gpa, SHARED_GPA);
	ck_assert_uint_eq(sh.s.e.stats.ram_blocks, 2);
	ck_assert_uint_eq(sh.s.e.stats.received_pages, OWN_PAGES);
	ck_assert_uint_eq(sh.s.e.stats.remaining_pages, 0);
	ck_assert_uint_eq(sh.then.remaining_pages, 0);
	ck_assert_uint_eq(embedder_block(&sh.s.e, "own")->host[3 * WIRE_TPAGE_BYTES], 4);
	scene_end(&sh.s);
}

TEST(test_a_page_of_a_shared_block_is_refused)
{
	struct sharer sh;

	share(&sh, true, true);
	ck_assert_int_eq(sh.s.e.result, -EPROTO);
	ck_assert_ptr_nonnull(strstr(sh.s.e.error, "pc.ram"));
	scene_end(&sh.s);
}

TEST(test_a_block_is_not_ignored_without_the_capability)
{
	struct sharer sh;

	share(&sh, false, false);
	ck_assert_int_eq(sh.s.e.result, -EINVAL);
	ck_assert_msg(strstr(sh.s.e.error, "block 'pc.ram'") && strstr(sh.s.e.error, "x-ignore-shared"), "%s",
	              sh.s.e.error);
	ck_assert_uint_eq(sh.s.e.start_calls, 0);
	scene_end(&sh.s);
}

/* The embedder has memory of its own for the block that the source shares: zeros, or whatever it says. */
static int answer_own(void *opaque, struct inm_ram_block *said)
{
	return embedder_ops.ram_block(opaque, said);
}

static int answer_dirty(void *opaque, struct inm_ram_block *said)
{
	int r = embedder_ops.ram_block(opaque, said);

	said->dirty = true;
	return r;
}

static void own_shared(struct sharer *sh, int (*answer)(void *opaque, struct inm_ram_block *said))
{
	struct inm_ops ops = embedder_ops;

	*sh = (struct sharer){ .gpa = 1 };
	ops.ram_block = answer;
	scene_begin(&sh->s, NULL);
	shared_stream(&sh->s.wire, SMALL_BYTES, true, false);
	embedder_add(&sh->s.e, "own", OWN_PAGES * WIRE_TPAGE_BYTES, EMB_MEMFD);
	embedder_add(&sh->s.e, "pc.ram", SMALL_BYTES, EMB_MEMFD);
	scene_land(&sh->s, &(struct land_opts){ .ops = &ops, .caps = ignore_shared });
}

TEST(test_memory_that_is_shared_and_that_nobody_gave_is_no_zeros)
{
	struct sharer sh;

	own_shared(&sh, answer_own);
	ck_assert_int_eq(sh.s.e.result, -EINVAL);
	ck_assert_msg(strstr(sh.s.e.error, "block 'pc.ram': the source shares this memory"), "%s", sh.s.e.error);
	ck_assert_uint_eq(sh.s.e.start_calls, 0);
	scene_end(&sh.s);
}

TEST(test_memory_that_is_shared_and_holds_something_lands)
{
	struct sharer sh;

	own_shared(&sh, answer_dirty);
	ck_assert_msg(sh.s.e.result == 0, "%s", sh.s.e.error);
	scene_end(&sh.s);
}

/* ---- the list of blocks is complete ---- */

static struct inm_stats listed_stats;
static unsigned listed_calls;
static int listed_answer;

static int note_listed(void *opaque)
{
	struct embedder *e = opaque;

	listed_calls++;
	listed_stats = (struct inm_stats){ .size = sizeof(listed_stats) };
	inm_get_stats(e->inm, &listed_stats);
	return listed_answer;
}

static void land_listed(struct scene *s, int answer)
{
	struct inm_ops ops = embedder_ops;

	listed_calls = 0;
	listed_answer = answer;
	ops.ram_listed = note_listed;
	scene_begin(s, NULL);
	shared_stream(&s->wire, SMALL_BYTES, true, true);
	embedder_add(&s->e, "own", OWN_PAGES * WIRE_TPAGE_BYTES, EMB_MEMFD);
	embedder_add(&s->e, "pc.ram", SMALL_BYTES, EMB_MEMFD);
	scene_land(s, &(struct land_opts){ .ops = &ops, .caps = ignore_shared });
}

TEST(test_the_embedder_is_told_once_that_all_blocks_are_known_before_the_first_page)
{
	struct scene s;

	land_listed(&s, 0);
	ck_assert_msg(s.e.result == 0, "%s", s.e.error);
	ck_assert_uint_eq(listed_calls, 1);
	ck_assert_uint_eq(listed_stats.ram_blocks, 2);
	ck_assert_uint_eq(listed_stats.received_pages, 0);
	scene_end(&s);
}

TEST(test_a_list_that_the_embedder_refuses_ends_the_migration_before_the_first_page)
{
	struct scene s;

	land_listed(&s, -ENOENT);
	ck_assert_int_eq(s.e.result, -ENOENT);
	ck_assert_msg(strstr(s.e.error, "section 'ram' START"), "%s", s.e.error);
	ck_assert_uint_eq(s.e.start_calls, 0);
	ck_assert_uint_eq(s.e.stats.received_pages, 0);
	scene_end(&s);
}
