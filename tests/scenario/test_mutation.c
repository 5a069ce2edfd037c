/*
 * Honest streams with random damage: whatever comes, the library ends, in time, in bounded memory, without a write
 * outside the blocks. MUTATIONS is the number of runs; MUTATION_SEED plays one of them again, in this process.
 */
#include "tests/support/check_main.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/be.h"
#include "base/clock.h"
#include "tests/support/scene.h"

#define RUN_MS_MAX 5000u
#define STUCK_NS (30 * NS_PER_S) /* the whole of a run, on a machine that does much else */
#define RSS_GROWTH_KIB_MAX (96 * 1024)
#define CENSUS_EVERY 256u

static const char *const caps[] = { "xbzrle", "compress", NULL };

static uint64_t draw(uint64_t *state)
{
	uint64_t z = *state += 0x9e3779b97f4a7c15ull; /* splitmix64 */

	z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9ull;
	z = (z ^ z >> 27) * 0x94d049bb133111ebull;
	return z ^ z >> 31;
}

static size_t below(uint64_t *state, size_t limit)
{
	return limit ? draw(state) % limit : 0;
}

static enum wire_how fill_small(void *opaque, unsigned block, uint64_t tpage, unsigned round, uint8_t *page)
{
	(void)opaque;
	memset(page, (int)(1 + block), 64 + tpage);
	page[50] = (uint8_t)round;
	if (round)
		return tpage % 2 ? WIRE_SEND_XBZRLE : WIRE_SEND_NOT;
	if (tpage == 0)
		return WIRE_SEND_PAGE;
	return tpage % 3 == 1 ? WIRE_SEND_ZERO : WIRE_SEND_COMPRESS;
}

/* ---- damage ------------------------------------------------------------------------------------------------ */

/* Near an element's head more often than in the middle of a page. */
static size_t somewhere(const struct wire *w, uint64_t *rng)
{
	size_t off;

	if (below(rng, 4) == 0)
		return below(rng, w->len);
	off = w->marks[below(rng, w->mark_count)].off + below(rng, 12);
	return off < w->len ? off : w->len - 1;
}

static void interesting(struct wire *w, size_t off, uint64_t *rng)
{
	static const uint64_t values[] = {
		0,
		1,
		2,
		3,
		0x10,
		0x7f,
		0x80,
		0xff,
		0x100,
		0xfff,
		0x1000,
		0x1001,
		0x7fff,
		0x8000,
		0xffff,
		0x10000,
		0x7fffffff,
		0x80000000,
		0xffffffff,
		0x100000000,
		0x7fffffffffffffff,
		0x8000000000000000,
		0xfffffffffffff000,
		0xffffffffffffffff,
	};
	static const size_t widths[] = { 1, 2, 4, 8 };
	uint64_t value = values[below(rng, sizeof(values) / sizeof(values[0]))];
	size_t width = widths[below(rng, 4)];
	uint8_t be[8];

	be64_store(be, value);
	if (width > w->len - off)
		width = w->len - off;
	memcpy(w->data + off, be + 8 - width, width);
}

static void damage(struct wire *w, uint64_t *rng)
{
	size_t off = somewhere(w, rng), from = somewhere(w, rng), len = 1 + below(rng, below(rng, 3) ? 16 : 5000);
	uint8_t noise[16];

	if (len > w->len - off)
		len = w->len - off;
	for (unsigned i = 0; i < sizeof(noise); i++)
		noise[i] = (uint8_t)draw(rng);
	switch (below(rng, 7)) {
	case 0:
		w->data[off] ^= (uint8_t)(1u << below(rng, 8));
		break;
	case 1:
		memcpy(w->data + off, noise, len < sizeof(noise) ? len : sizeof(noise));
		break;
	case 2:
		wire_insert(w, off, noise, 1 + below(rng, sizeof(noise)));
		break;
	case 3:
		if (w->len > len + 64)
			wire_delete(w, off, len);
		break;
	case 4: /* a range twice, or somewhere else as well */
		if (len > w->len - from)
			len = w->len - from;
		wire_insert(w, below(rng, 2) ? from : off, w->data + from, len);
		break;
	default:
		interesting(w, off, rng);
	}
}

/* ---- runs -------------------------------------------------------------------------------------------------- */

struct bench {
	struct scene scene; /* its wire is the honest one */
	struct wire with_return_path;
};

static void bench_begin(struct bench *b)
{
	scene_begin(&b->scene, &(struct honest_opts){ .rounds = 3, .fill = fill_small });
	b->with_return_path = (struct wire){ 0 };
	wire_honest(&b->with_return_path, &(struct honest_opts){ .rounds = 3, .fill = fill_small, .return_path = true },
	            NULL);
	census_free(&b->scene.before);
	census_take(&b->scene.before);
}

/* Return: what went wrong, or NULL. */
static const char *run(struct bench *b, uint64_t seed)
{
	uint64_t rng = seed;
	bool return_path = below(&rng, 2);
	const struct land_opts o = { .return_path = return_path, .caps = caps, .deadline_ms = RUN_MS_MAX };
	struct wire w;
	struct pump p;
	int r, fd;

	wire_copy(&w, return_path ? &b->with_return_path : &b->scene.wire);
	for (size_t i = 1 + below(&rng, 3); i--;)
		damage(&w, &rng);
	fd = pump_open(&p, &w);
	/* A source that reads replies must live until they are written: otherwise the first PONG ends it all. */
	p.end = return_path || below(&rng, 2) ? PUMP_SHUTDOWN : PUMP_CLOSE;
	p.chunk_bytes = below(&rng, 3) ? 0 : 1 + below(&rng, 3000);
	embedder_reset(&b->scene.e);
	r = land_pump(&b->scene.e, &p, fd, &o, UINT32_MAX, NULL);
	wire_fini(&w);
	if (r == -ETIMEDOUT)
		return "does not end";
	if (r > 0 || (r < 0 && !b->scene.e.error[0]))
		return "failed without a story";
	if (r < 0 && b->scene.e.start_calls)
		return "failed after the guest was started";
	return NULL;
}

static const char *check_around(struct bench *b)
{
	if (embedder_canaries(&b->scene.e))
		return "memory outside a block was written to";
	if (census_differs(&b->scene.before))
		return "something is left behind";
	return NULL;
}

static size_t rss_max_kib(void)
{
	struct rusage usage;

	getrusage(RUSAGE_SELF, &usage);
	return (size_t)usage.ru_maxrss;
}

/* Written by the child that runs, read by the parent: a crash must not take the seed along. */
struct shared {
	uint64_t at; /* the seed of the run that goes on */
	uint64_t landed;
};

_Noreturn static void runs(uint64_t first, unsigned long count, volatile struct shared *ret)
{
	size_t rss_kib = 0;
	struct bench b;

	bench_begin(&b);
	for (unsigned long i = 0; i < count; i++) {
		const char *wrong;

		ret->at = first + i;
		wrong = run(&b, first + i);
		ret->landed += b.scene.e.result == 0;
		if (!wrong && (i % CENSUS_EVERY == 0 || i + 1 == count))
			wrong = check_around(&b);
		if (i == 100)
			rss_kib = rss_max_kib();
		if (!wrong && rss_kib && rss_max_kib() > rss_kib + RSS_GROWTH_KIB_MAX)
			wrong = "takes too much memory";
		if (wrong) {
			fprintf(stderr, "%s: %d: %s\n", wrong, b.scene.e.result, b.scene.e.error);
			_exit(1);
		}
	}
	_exit(0);
}

/* Return: as waitpid's status; a child that makes no progress is killed. */
static int wait_with_progress(pid_t pid, const volatile struct shared *shared)
{
	uint64_t seen = 0, since_ns = clock_now_ns();
	int status;

	while (waitpid(pid, &status, WNOHANG) == 0) {
		if (shared->at != seen) {
			seen = shared->at;
			since_ns = clock_now_ns();
		} else if (clock_now_ns() - since_ns > STUCK_NS) {
			kill(pid, SIGKILL);
		}
		usleep(5000);
	}
	return status;
}

TEST_CASE("mutation", 1800);

TEST(test_no_mutation_crashes_hangs_or_takes_memory)
{
	unsigned long count = scene_env("MUTATIONS", 2000), first = scene_env("MUTATION_FIRST", 1);
	volatile struct shared *shared = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	int status;
	pid_t pid;

	ck_assert_ptr_ne((void *)shared, MAP_FAILED);
	if (getenv("MUTATION_SEED")) {
		first = scene_env("MUTATION_SEED", 1);
		count = 1;
	}
	fflush(NULL);
	pid = fork();
	ck_assert_int_ge(pid, 0);
	if (pid == 0)
		runs(first, count, shared);
	status = wait_with_progress(pid, shared);
	ck_assert_msg(status == 0, "MUTATION_SEED=%llu: status 0x%x", (unsigned long long)shared->at, status);
	/* Damage that is never noticed, or always at once, would be damage to this test. */
	if (count >= 500)
		ck_assert_msg(shared->landed > count / 100 && shared->landed < count / 2, "%llu of %lu landed",
		              (unsigned long long)shared->landed, count);
	printf("%lu mutations, of which %llu landed\n", count, (unsigned long long)shared->landed);
	munmap((void *)shared, 4096);
}

TEST(test_without_damage_the_same_streams_land)
{
	struct bench b;

	bench_begin(&b);
	scene_land(&b.scene, &(struct land_opts){ .caps = caps });
	scene_check_landed(&b.scene);
	embedder_reset(&b.scene.e);
	ck_assert_int_eq(
	        land(&b.scene.e, &b.with_return_path, &(struct land_opts){ .caps = caps, .return_path = true }, NULL),
	        0);
	ck_assert_uint_eq(embedder_compare(&b.scene.e, &b.scene.image), 0);
	wire_fini(&b.with_return_path);
	ck_assert_uint_eq(census_differs(&b.scene.before), 0);
	embedder_fini(&b.scene.e);
	honest_image_fini(&b.scene.image);
	wire_fini(&b.scene.wire);
	census_free(&b.scene.before);
}
