/*
 * Streams of a real QEMU, cut and damaged: whatever comes, the library ends with a named error, in time, in bounded
 * memory, and runs the guest only if all of it has come.
 *
 * The QEMUs that CAPTURED_QEMU names (separated by colons) make the streams here; without one the tests are skipped.
 * Some tests cut at a prime stride; with CAPTURED_STEP=1 they cut at every byte. Others cut at every byte; with
 * CAPTURED_EVERY=N they cut only at every N-th. MUTATIONS is the number of damaged streams, and MUTATION_SEED plays one
 * of them again.
 */
#include "tests/support/check_main.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/be.h"
#include "tests/support/chance.h"
#include "tests/support/mutations.h"
#include "tests/support/scene.h"
#include "tests/support/temp.h"

#define RUN_MS_MAX 5000u
#define CENSUS_EVERY 4096u
#define HEAD_BYTES (64u << 10) /* of which every prefix is played */
#define CAPTURES_MAX 8
#define BLOCKS_MAX 32
#define DEVICES_MAX 256

/* ---- the streams ------------------------------------------------------------------------------------------------ */

struct block {
	char name[256];
	uint64_t bytes;
	void *host;
};

struct capture {
	char name[120];
	struct wire wire; /* bytes only */
	/* Learned by landing it. */
	struct block blocks[BLOCKS_MAX];
	unsigned block_count;
	size_t devices[DEVICES_MAX]; /* where the state of each begins */
	unsigned device_count;
};

static struct capture captures[CAPTURES_MAX];
static unsigned capture_count;

/* A guest that has not run: the firmware in its RAM, and all its devices. */
static void make_stream(const char *qemu, const char *machine, const char *path)
{
	char command[600];
	FILE *monitor;

	snprintf(command, sizeof(command),
	         "timeout 60 %s -machine %s -accel tcg -m 16 -nodefaults -no-user-config -display none -S "
	         "-monitor stdio >/dev/null 2>&1",
	         qemu, machine);
	monitor = popen(command, "we");
	if (!monitor)
		return;
	fprintf(monitor, "migrate \"exec:cat > '%s'\"\nquit\n", path);
	pclose(monitor);
}

static void read_stream(struct capture *c, const char *path)
{
	FILE *f = fopen(path, "re");
	struct stat st;

	if (!f)
		return;
	if (fstat(fileno(f), &st) == 0 && st.st_size > 0) {
		c->wire.data = malloc((size_t)st.st_size);
		c->wire.len = c->wire.cap = fread(c->wire.data, 1, (size_t)st.st_size, f);
	}
	fclose(f);
}

static void capture(const char *qemu, const char *machine)
{
	struct capture *c = &captures[capture_count];
	char path[TEMP_NAME_BYTES];
	int fd;

	temp_name(path, "captured");
	fd = mkstemp(path);
	if (fd < 0 || capture_count == CAPTURES_MAX)
		return;
	close(fd);
	make_stream(qemu, machine, path);
	read_stream(c, path);
	unlink(path);
	snprintf(c->name, sizeof(c->name), "%.80s %s", qemu, machine);
	capture_count += c->wire.len > 0;
}

/* Once, in the process that outlives the tests. */
static void capture_all(void)
{
	const char *list = getenv("CAPTURED_QEMU");
	char *copy = strdup(list && list[0] ? list : "qemu-system-x86_64"), *rest = copy, *qemu;

	while ((qemu = strsep(&rest, ":"))) {
		capture(qemu, "pc");
		capture(qemu, "microvm");
	}
	free(copy);
}

static void need_captures(void)
{
	if (!capture_count)
		test_skip("there is no QEMU that sends a stream: see CAPTURED_QEMU");
}

/* ---- an embedder with room for them ----------------------------------------------------------------------------- */

static struct capture *now; /* the one that is played */
static bool learning;       /* its content is not yet known */
static unsigned ready_calls;

static int give_block(void *opaque, struct inm_ram_block *said)
{
	struct block *b;

	(void)opaque;
	for (unsigned i = 0; i < now->block_count; i++) {
		b = &now->blocks[i];
		if (strcmp(b->name, said->name))
			continue;
		said->addr = b->host;
		said->bytes_max = b->bytes;
		return 0;
	}
	if (!learning || now->block_count == BLOCKS_MAX)
		return -ENOENT;
	b = &now->blocks[now->block_count++];
	snprintf(b->name, sizeof(b->name), "%s", said->name);
	b->bytes = said->bytes;
	b->host = mmap(NULL, b->bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	ck_assert_ptr_ne(b->host, MAP_FAILED);
	said->addr = b->host;
	return 0;
}

static int see_device(void *opaque, const struct inm_device *device)
{
	(void)opaque;
	if (learning && now->device_count < DEVICES_MAX)
		now->devices[now->device_count++] = (size_t)device->stream_offset;
	return 0;
}

static int on_ready(void *opaque, const char *run_state)
{
	(void)opaque;
	(void)run_state;
	ready_calls++;
	return 0;
}

static const struct inm_ops ops = {
	.size = sizeof(ops), .ram_block = give_block, .device = see_device, .ready = on_ready
};

/* All runs of a test share the reactor: one is made in a fraction of the time. */
struct stage {
	struct inm_reactor *reactor;
	struct embedder e;
	struct census before;
};

static void stage_begin(struct stage *st)
{
	*st = (struct stage){ .reactor = NULL };
	ck_assert_int_eq(inm_reactor_new(&st->reactor, NULL), 0);
	embedder_init(&st->e);
}

static void stage_end(struct stage *st)
{
	embedder_fini(&st->e);
	census_free(&st->before);
	inm_reactor_free(st->reactor);
}

/* Return: of inm_dispatch at the end. */
static int play(struct stage *st, const struct wire *w, size_t stop_at, size_t chunk_bytes, enum pump_end end)
{
	const struct land_opts o = { .ops = &ops, .deadline_ms = RUN_MS_MAX, .config = { .reactor = st->reactor } };
	struct pump p;
	int fd = pump_open(&p, w);

	p.stop_at = stop_at;
	p.chunk_bytes = chunk_bytes;
	p.end = end;
	ready_calls = 0;
	return land_pump(&st->e, &p, fd, &o, UINT32_MAX, NULL);
}

/* The whole stream; from then on its blocks and devices are known, and mapped. */
static void learn(struct stage *st, struct capture *c)
{
	int r;

	now = c;
	learning = true;
	r = play(st, &c->wire, c->wire.len, 0, PUMP_HONEST);
	learning = false;
	ck_assert_msg(r == 0 && ready_calls == 1, "%s: %d: %s", c->name, r, st->e.error);
	ck_assert_uint_gt(c->device_count, 5);
	census_free(&st->before);
	census_take(&st->before);
}

TEST_CASE("captured", 3600, .unchecked = { .setup = capture_all });

TEST(test_the_whole_stream_lands)
{
	struct stage st;

	need_captures();
	stage_begin(&st);
	for (unsigned i = 0; i < capture_count; i++) {
		learn(&st, &captures[i]);
		printf("%s: %zu bytes, %u blocks, %u devices from 0x%zx on\n", captures[i].name, captures[i].wire.len,
		       captures[i].block_count, captures[i].device_count, captures[i].devices[0]);
	}
	stage_end(&st);
}

/* ---- cuts ------------------------------------------------------------------------------------------------------- */

static void cut(struct stage *st, size_t at)
{
	/* The end of the connection, or of the stream only. */
	int r = play(st, &now->wire, at, 0, at % 2 ? PUMP_CLOSE : PUMP_SHUTDOWN);

	ck_assert_msg(r < 0 && r != -ETIMEDOUT && !ready_calls, "%s cut at 0x%zx: %d", now->name, at, r);
	ck_assert_msg(st->e.error[0] && st->e.stats.state == INM_STATE_FAILED, "%s cut at 0x%zx: no story", now->name,
	              at);
	ck_assert_msg(r != -ENODATA || strstr(st->e.error, "the source closed the stream at"), "%s", st->e.error);
}

static void cuts(struct stage *st, size_t from, size_t to, size_t step)
{
	unsigned count = 0;

	if (to > now->wire.len)
		to = now->wire.len;
	for (size_t at = from; at < to; at += step) {
		cut(st, at);
		if (++count % CENSUS_EVERY == 0)
			ck_assert_uint_eq(census_differs(&st->before), 0);
	}
	ck_assert_uint_eq(census_differs(&st->before), 0);
}

/* Of a stream, in the order in which they come: HEAD, BETWEEN, STATE, DESCRIPTION. */
enum part { HEAD, BETWEEN, STATE, DESCRIPTION };

static void cut_all(enum part part, size_t step)
{
	struct stage st;

	need_captures();
	stage_begin(&st);
	for (unsigned i = 0; i < capture_count; i++) {
		struct capture *c = &captures[i];
		size_t tail, last;

		learn(&st, c);
		tail = c->devices[0] - 64;
		last = c->devices[c->device_count - 1];
		if (part == HEAD)
			cuts(&st, 0, HEAD_BYTES < tail ? HEAD_BYTES : tail, step);
		else if (part == BETWEEN)
			cuts(&st, HEAD_BYTES, tail, step);
		else if (part == STATE)
			cuts(&st, tail, last + 200, step);
		else
			cuts(&st, last + 200, SIZE_MAX, step);
	}
	stage_end(&st);
}

TEST(test_every_prefix_of_the_first_64_kib_is_refused)
{
	cut_all(HEAD, scene_env("CAPTURED_EVERY", 1));
}

TEST(test_every_prefix_that_ends_in_the_device_state_is_refused)
{
	cut_all(STATE, scene_env("CAPTURED_EVERY", 1));
}

/* Of a text in which nothing but its end matters, and of pages. */
TEST(test_a_prefix_that_ends_in_the_description_is_refused)
{
	cut_all(DESCRIPTION, scene_env("CAPTURED_STEP", 31));
}

TEST(test_a_prefix_that_ends_in_the_pages_is_refused)
{
	cut_all(BETWEEN, scene_env("CAPTURED_STEP", 241));
}

/* ---- damage ----------------------------------------------------------------------------------------------------- */

/* The heads of the stream, of a device or of its description more often than the middle of a page. */
static size_t somewhere(const struct wire *w, uint64_t *rng)
{
	size_t off, last = now->devices[now->device_count - 1];

	switch (chance_below(rng, 5)) {
	case 0:
		off = chance_below(rng, w->len);
		break;
	case 1:
		off = chance_below(rng, 700);
		break;
	case 2:
		off = last + chance_below(rng, w->len > last ? w->len - last : 1);
		break;
	case 3:
		off = now->devices[0] + chance_below(rng, last - now->devices[0]);
		break;
	default:
		off = now->devices[chance_below(rng, now->device_count)] - chance_below(rng, 40) + 4;
	}
	return off < w->len ? off : w->len - 1;
}

static void damage(struct wire *w, uint64_t *rng)
{
	static const uint64_t values[] = { 0,          1,           0x7f,       0x80,       0xff,
		                           0x1000,     0x7fff,      0xffff,     0x7fffffff, 0x80000000,
		                           0xffffffff, 0x100000000, 1ull << 63, UINT64_MAX };
	size_t off = somewhere(w, rng), from = somewhere(w, rng),
	       len = 1 + chance_below(rng, chance_below(rng, 3) ? 16 : 5000);
	uint8_t noise[16], be[8];

	for (unsigned i = 0; i < sizeof(noise); i++)
		noise[i] = (uint8_t)chance_draw(rng);
	be64_store(be, values[chance_below(rng, sizeof(values) / sizeof(values[0]))]);
	if (len > w->len - off)
		len = w->len - off;
	switch (chance_below(rng, 6)) {
	case 0:
		w->data[off] ^= (uint8_t)(1u << chance_below(rng, 8));
		break;
	case 1:
		memcpy(w->data + off, noise, len < sizeof(noise) ? len : sizeof(noise));
		break;
	case 2:
		wire_insert(w, off, noise, 1 + chance_below(rng, sizeof(noise)));
		break;
	case 3:
		wire_delete(w, off, len < w->len ? len : 0);
		break;
	case 4:
		wire_insert(w, off, w->data + from, len < w->len - from ? len : w->len - from);
		break;
	default:
		from = (size_t)1 << chance_below(rng, 4);
		from = from < w->len - off ? from : w->len - off;
		memcpy(w->data + off, be + 8 - from, from);
	}
}

static struct stage runs; /* of the child that runs */

static void begin_runs(void)
{
	stage_begin(&runs);
	for (unsigned i = 0; i < capture_count; i++)
		learn(&runs, &captures[i]);
}

static const char *run(uint64_t seed, bool *ret_landed)
{
	struct stage *st = &runs;
	uint64_t rng = seed;
	struct wire w = { 0 };
	size_t chunk_bytes;
	int r;

	now = &captures[chance_below(&rng, capture_count)];
	wire_copy(&w, &now->wire);
	for (size_t i = 1 + chance_below(&rng, 3); i--;)
		damage(&w, &rng);
	chunk_bytes = chance_below(&rng, 3) ? 0 : 1000 + chance_below(&rng, 30000);
	r = play(st, &w, w.len, chunk_bytes, chance_below(&rng, 2) ? PUMP_CLOSE : PUMP_SHUTDOWN);
	wire_fini(&w);
	*ret_landed = r == 0;
	if (r == -ETIMEDOUT)
		return "does not end";
	if (r > 0 || (r < 0 && !st->e.error[0]))
		return "failed without a story";
	if (r < 0 && ready_calls)
		return "failed after the guest was accepted";
	return NULL;
}

static const char *look(void)
{
	return census_differs(&runs.before) ? "something is left behind" : NULL;
}

static const char *story(void)
{
	static char text[1200];

	snprintf(text, sizeof(text), "%s: %s", now->name, runs.e.error);
	return text;
}

TEST(test_no_mutation_crashes_hangs_or_takes_memory)
{
	need_captures();
	mutations_play(&(struct mutations){ .count = 5000,
	                                    .landed_percent_max = 90,
	                                    .look_every = CENSUS_EVERY,
	                                    .begin = begin_runs,
	                                    .run = run,
	                                    .look = look,
	                                    .story = story });
}
