#include "programs/guest_touch.h"

#include "base/clock.h"
#include "base/parse.h"
#include "base/text.h"
#include "programs/program.h"

#include <errno.h>
#include <inttypes.h>
#include <jansson.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

/* One place in one page. */
struct stamp {
	uint64_t value;    /* 0: nothing was written */
	uint64_t original; /* what was there before the first one */
};

struct toucher {
	struct touch *t;
	pthread_t thread;
	unsigned index;
	bool joined;
	uint32_t tid;
	uint64_t random;
	uint64_t sequence;    /* writes so far */
	uint64_t stamps_count; /* places that hold one */
	struct stamp *stamps; /* owned, a mapping, of each tracked page; NULL when nothing is written */
	_Atomic uint64_t accesses;
	_Atomic uint64_t page_now;
	uint64_t passes;
	uint64_t begin_ns, end_ns;
	struct touch_latency latency;
	struct touch_violation violation;
};

static const char *const pattern_names[] = {
	[TOUCH_SEQ] = "seq", [TOUCH_STRIDE] = "stride", [TOUCH_RANDOM] = "random", [TOUCH_HOT] = "hot"
};

static const char *const access_names[] = {
	[TOUCH_READ] = "read", [TOUCH_WRITE] = "write", [TOUCH_MIXED] = "mixed"
};

const char *touch_pattern_name(enum touch_pattern pattern)
{
	return pattern_names[pattern];
}

const char *touch_access_name(enum touch_access access)
{
	return access_names[access];
}

/* ---- what was asked for ---- */

static int find_name(const char *text, const char *const *names, int count)
{
	for (int i = 0; i < count; i++) {
		if (strcmp(text, names[i]) == 0)
			return i;
	}
	return -EINVAL;
}

static int parse_pattern(struct touch_options *o, const char *value)
{
	int found;

	if (strncmp(value, "stride:", 7) == 0) {
		o->pattern = TOUCH_STRIDE;
		if (parse_size(value + 7, &o->stride_bytes) < 0 || o->stride_bytes == 0 ||
		    o->stride_bytes % TOUCH_PAGE_BYTES)
			return -EINVAL;
		return 0;
	}
	found = find_name(value, pattern_names, 4);
	if (found < 0 || found == TOUCH_STRIDE)
		return -EINVAL;
	o->pattern = (enum touch_pattern)found;
	return 0;
}

static int parse_access(struct touch_options *o, const char *value)
{
	int found = find_name(value, access_names, 3);

	if (found < 0)
		return -EINVAL;
	o->access = (enum touch_access)found;
	return 0;
}

static int parse_block(struct touch_options *o, const char *value)
{
	if (!*value || strlen(value) >= sizeof(o->block))
		return -EINVAL;
	strcpy(o->block, value);
	return 0;
}

static int parse_seconds(struct touch_options *o, const char *value)
{
	char *end;
	double seconds = strtod(value, &end);

	if (*end || end == value || !(seconds > 0) || seconds > 1e9)
		return -EINVAL;
	o->duration_ns = (uint64_t)(seconds * 1e9);
	return o->duration_ns ? 0 : -EINVAL;
}

static int parse_seed(struct touch_options *o, const char *value)
{
	return parse_u64(value, &o->seed);
}

static int parse_span(struct touch_options *o, const char *value)
{
	return parse_size(value, &o->span_bytes) < 0 || o->span_bytes < TOUCH_PAGE_BYTES ? -EINVAL : 0;
}

static int parse_passes(struct touch_options *o, const char *value)
{
	return parse_u64(value, &o->passes) < 0 || o->passes == 0 ? -EINVAL : 0;
}

static const struct {
	const char *name;
	int (*parse)(struct touch_options *o, const char *value);
	const char *expected;
} settings[] = {
	{ "pattern", parse_pattern, "seq, stride:BYTES (whole pages), random or hot" },
	{ "access", parse_access, "read, write or mixed" },
	{ "block", parse_block, "the name of a RAM block" },
	{ "seconds", parse_seconds, "a number of seconds above 0" },
	{ "seed", parse_seed, "a number" },
	{ "span", parse_span, "a size of at least a page" },
	{ "passes", parse_passes, "a number above 0" },
};

static int parse_setting(struct touch_options *o, char *word, char ret_why[static 160])
{
	char *value = strchr(word, '=');

	if (value)
		*value++ = '\0';
	for (size_t i = 0; i < sizeof(settings) / sizeof(settings[0]); i++) {
		if (strcmp(word, settings[i].name))
			continue;
		if (value && settings[i].parse(o, value) == 0)
			return 0;
		snprintf(ret_why, 160, "%s: %s is expected", settings[i].name, settings[i].expected);
		return -EINVAL;
	}
	snprintf(ret_why, 160, "there is no '%.40s'; pattern, access, block, seconds, seed, span or passes is expected",
		 word);
	return -EINVAL;
}

int touch_parse(struct touch_options *ret_opts, const char *text, char ret_why[static 160])
{
	struct touch_options o = { .pattern = TOUCH_RANDOM, .access = TOUCH_MIXED, .seed = 1 };
	char *copy = strdup(text), *save = NULL, *word;
	uint64_t threads = 0;
	int r = 0;

	if (!copy) {
		snprintf(ret_why, 160, "no memory");
		return -EINVAL;
	}
	word = strtok_r(copy, ",", &save);
	if (!word || parse_u64(word, &threads) < 0 || threads == 0 || threads > TOUCH_THREADS_MAX) {
		snprintf(ret_why, 160, "a number of threads from 1 to %u is expected", TOUCH_THREADS_MAX);
		r = -EINVAL;
	}
	o.threads = (unsigned)threads;
	while (r == 0 && (word = strtok_r(NULL, ",", &save)))
		r = parse_setting(&o, word, ret_why);
	free(copy);
	if (r == 0)
		*ret_opts = o;
	return r;
}

/* ---- a toucher ---- */

/* xorshift64*, Vigna 2016: any generator would do that is short and not zero. */
static uint64_t next_random(struct toucher *tc)
{
	tc->random ^= tc->random >> 12;
	tc->random ^= tc->random << 25;
	tc->random ^= tc->random >> 27;
	return tc->random * 0x2545f4914f6cdd1dull;
}

static uint64_t next_page(struct toucher *tc, uint64_t step)
{
	const struct touch *t = tc->t;
	uint64_t pages = t->pages, hot = pages / 16 ? pages / 16 : 1, at;

	switch (t->opts.pattern) {
	case TOUCH_SEQ:
		return (pages / t->opts.threads * tc->index + step) % pages;
	case TOUCH_STRIDE:
		/* Each time round one page further, so that a pass comes by all of them. */
		at = step * (t->opts.stride_bytes / TOUCH_PAGE_BYTES);
		return (pages / t->opts.threads * tc->index + at % pages + at / pages) % pages;
	case TOUCH_HOT:
		/* Seven of eight accesses go to a sixteenth of the pages, in the middle. */
		if (next_random(tc) >> 61)
			return (pages / 2 + next_random(tc) % hot) % pages;
		/* fall through */
	case TOUCH_RANDOM:
	default:
		return next_random(tc) % pages;
	}
}

static void latency_add(struct touch_latency *l, uint64_t ns)
{
	unsigned octave = 63 - (unsigned)__builtin_clzll(ns | 1);
	unsigned step = octave >= 3 ? (unsigned)(ns >> (octave - 3)) & (TOUCH_STEPS - 1) : 0;

	if (octave >= TOUCH_OCTAVES)
		octave = TOUCH_OCTAVES - 1;
	l->count++;
	l->total_ns += ns;
	l->max_ns = ns > l->max_ns ? ns : l->max_ns;
	l->steps[octave * TOUCH_STEPS + step]++;
}

/* Of what no toucher writes; never 0. */
static uint64_t sum_page(const struct touch *t, const char *page)
{
	size_t first = t->opts.access == TOUCH_READ ? 0 : (t->opts.threads + 3) / 4 * 4;
	const uint64_t *words = (const uint64_t *)page;
	uint64_t a = 1, b = 2, c = 3, d = 4;

	for (size_t i = first; i < TOUCH_PAGE_BYTES / 8; i += 4) {
		a = (a ^ words[i]) * 0x9e3779b97f4a7c15ull;
		b = (b ^ words[i + 1]) * 0xc2b2ae3d27d4eb4full;
		c = (c ^ words[i + 2]) * 0x165667b19e3779f9ull;
		d = (d ^ words[i + 3]) * 0x85ebca77c2b2ae63ull;
	}
	a ^= (b << 13 | b >> 51) ^ (c << 29 | c >> 35) ^ (d << 47 | d >> 17);
	return a ? a : 1;
}

static void violate(struct toucher *tc, enum touch_wrong wrong, uint64_t off, uint64_t expected, uint64_t found)
{
	/* Behind a stop the migration may have been given up, and then missing pages read as zeros. */
	if (atomic_load(&tc->t->stop) || tc->violation.wrong)
		return;
	tc->violation = (struct touch_violation){ wrong, off, expected, found };
}

static void check_content(struct toucher *tc, uint64_t page, const char *addr)
{
	uint64_t sum = sum_page(tc->t, addr), known = 0;

	/* By (1); whoever sees the page first says what it is. */
	if (!atomic_compare_exchange_strong(&tc->t->sums[page], &known, sum) && known != sum)
		violate(tc, TOUCH_CONTENT_CHANGED, page * TOUCH_PAGE_BYTES, known, sum);
}

static uint64_t load_word(const char *at)
{
	return __atomic_load_n((const uint64_t *)at, __ATOMIC_RELAXED);
}

/* A load, or one instruction that also stores: so the first access to a page that is missing is of that sort. */
static uint64_t access_page(struct toucher *tc, uint64_t page, char *addr, bool write)
{
	uint64_t *place = (uint64_t *)(addr + 8ull * tc->index), value, before, begin_ns, end_ns;
	struct stamp *s = tc->stamps && page < tc->t->tracked_pages ? &tc->stamps[page] : NULL;
	bool is_new = page >= tc->t->tracked_pages || atomic_load(&tc->t->sums[page]) == 0;

	value = (uint64_t)(tc->index + 1) << 48 | (tc->sequence + 1);
	begin_ns = clock_now_ns();
	before = write && s ? __atomic_exchange_n(place, value, __ATOMIC_RELAXED) : load_word((const char *)place);
	end_ns = clock_now_ns();
	if (is_new && end_ns - begin_ns > TOUCH_SLOW_NS)
		latency_add(&tc->latency, end_ns - begin_ns);
	/* By (2). */
	if (s && s->value && before != s->value)
		violate(tc, TOUCH_STAMP_LOST, page * TOUCH_PAGE_BYTES + 8ull * tc->index, s->value, before);
	if (write && s) {
		if (!s->value) {
			s->original = before;
			tc->stamps_count++;
		}
		s->value = value;
		tc->sequence++;
	}
	return end_ns;
}

static bool touch_one(struct toucher *tc, uint64_t step)
{
	struct touch *t = tc->t;
	uint64_t page = next_page(tc, step), now_ns;
	char *addr = t->block->addr + page * TOUCH_PAGE_BYTES;
	bool write = t->opts.access == TOUCH_WRITE || (t->opts.access == TOUCH_MIXED && next_random(tc) >> 63);

	atomic_store_explicit(&tc->page_now, page, memory_order_relaxed);
	now_ns = access_page(tc, page, addr, write);
	if (page < t->tracked_pages)
		check_content(tc, page, addr);
	atomic_fetch_add_explicit(&tc->accesses, 1, memory_order_relaxed);
	return !tc->violation.wrong && !atomic_load(&t->stop) &&
	       (!t->opts.duration_ns || now_ns - tc->begin_ns < t->opts.duration_ns);
}

/* After a pass: is it the last one? */
static bool has_had_enough(const struct toucher *tc)
{
	const struct touch_options *o = &tc->t->opts;

	if (o->passes)
		return tc->passes >= o->passes;
	return !o->duration_ns && atomic_load(&tc->t->landed);
}

static void *toucher_main(void *arg)
{
	struct toucher *tc = arg;
	struct touch *t = tc->t;
	bool on = true;

	while (sem_wait(&t->gate) < 0)
		continue;
	tc->tid = (uint32_t)gettid();
	tc->begin_ns = clock_now_ns();
	while (on && !atomic_load(&t->stop)) {
		for (uint64_t step = 0; on && step < t->pages; step++)
			on = touch_one(tc, step);
		tc->passes += on;
		on = on && !has_had_enough(tc);
	}
	tc->end_ns = clock_now_ns();
	return NULL;
}

/* ---- all of them ---- */

int touch_init(struct touch *t, const struct touch_options *opts)
{
	t->opts = *opts;
	if (sem_init(&t->gate, 0, 0) < 0)
		return -errno;
	t->gate_made = true;
	return 0;
}

static const struct guest_block *choose_block(const struct touch *t, const struct guest_ram *ram)
{
	const struct guest_block *found = NULL;

	for (size_t i = 0; i < ram->count; i++) {
		const struct guest_block *b = &ram->blocks[i];

		if (t->opts.block[0] ? strcmp(b->name, t->opts.block) == 0 : !found || b->bytes > found->bytes)
			found = b;
	}
	return found;
}

/* Memory that costs what is touched of it. */
static void *table_new(uint64_t bytes)
{
	void *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	return p == MAP_FAILED ? NULL : p;
}

static int make_tables(struct touch *t)
{
	uint64_t page_cost = sizeof(*t->sums) + t->opts.threads * sizeof(struct stamp);

	t->tracked_pages = TOUCH_MEMORY_MAX / page_cost < t->pages ? TOUCH_MEMORY_MAX / page_cost : t->pages;
	t->sums = table_new(t->tracked_pages * sizeof(*t->sums));
	t->touchers = calloc(t->opts.threads, sizeof(*t->touchers));
	if (!t->sums || !t->touchers)
		return -ENOMEM;
	for (unsigned i = 0; i < t->opts.threads; i++) {
		struct toucher *tc = &t->touchers[i];

		*tc = (struct toucher){ .t = t, .index = i };
		tc->random = (t->opts.seed + i + 1) * 0x9e3779b97f4a7c15ull | 1;
		if (t->opts.access == TOUCH_READ)
			continue;
		tc->stamps = table_new(t->tracked_pages * sizeof(*tc->stamps));
		if (!tc->stamps)
			return -ENOMEM;
	}
	return 0;
}

static int make_threads(struct touch *t)
{
	sigset_t all, before;
	int r = 0;

	/* A signal that a toucher took would wait with it for its page. */
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &before);
	while (r == 0 && t->made < t->opts.threads) {
		r = -pthread_create(&t->touchers[t->made].thread, NULL, toucher_main, &t->touchers[t->made]);
		t->made += r == 0;
	}
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	return r;
}

int touch_prepare(struct touch *t, const struct guest_ram *ram)
{
	uint64_t bytes;
	int r;

	t->block = choose_block(t, ram);
	if (!t->block || !t->block->addr || t->block->bytes < TOUCH_PAGE_BYTES) {
		fail("--guest touch: there is no RAM block %s",
		     t->opts.block[0] ? TEXT_QUOTE(t->opts.block, strlen(t->opts.block)) : "of at least a page");
		return -ENOENT;
	}
	bytes = t->opts.span_bytes && t->opts.span_bytes < t->block->bytes ? t->opts.span_bytes : t->block->bytes;
	t->pages = bytes / TOUCH_PAGE_BYTES;
	r = make_tables(t);
	if (r == 0)
		r = make_threads(t);
	if (r < 0)
		fail("--guest touch: %s", strerror(-r));
	return r;
}

static void open_gate(struct touch *t)
{
	for (unsigned i = 0; i < t->opts.threads; i++)
		sem_post(&t->gate);
}

void touch_run(struct touch *t)
{
	if (t->running)
		return;
	t->running = true;
	open_gate(t);
}

void touch_landed(struct touch *t)
{
	atomic_store(&t->landed, true);
}

void touch_ask_stop(struct touch *t)
{
	if (!t->gate_made || atomic_exchange(&t->stop, true))
		return;
	open_gate(t); /* they may not have begun */
}

/* Return: 0 joined, -ETIMEDOUT when it has not come further for so long. */
static int join_one(struct toucher *tc, uint64_t stall_ns)
{
	uint64_t seen = UINT64_MAX, seen_ns = 0, accesses;
	struct timespec ts;

	for (;;) {
		accesses = atomic_load_explicit(&tc->accesses, memory_order_relaxed);
		if (accesses != seen)
			seen_ns = clock_now_ns();
		seen = accesses;
		clock_gettime(CLOCK_REALTIME, &ts);
		ts.tv_nsec += 100 * (long)NS_PER_MS;
		ts.tv_sec += ts.tv_nsec / (long)NS_PER_S;
		ts.tv_nsec %= (long)NS_PER_S;
		if (pthread_timedjoin_np(tc->thread, NULL, &ts) == 0)
			return 0;
		if (stall_ns != DEADLINE_NEVER && clock_now_ns() - seen_ns > stall_ns)
			return -ETIMEDOUT;
	}
}

int touch_join(struct touch *t, uint64_t stall_ns, uint64_t *ret_off)
{
	for (unsigned i = 0; i < t->made; i++) {
		struct toucher *tc = &t->touchers[i];

		if (!tc->joined && join_one(tc, stall_ns) < 0) {
			*ret_off = atomic_load(&tc->page_now) * TOUCH_PAGE_BYTES;
			return -ETIMEDOUT;
		}
		tc->joined = true;
	}
	return 0;
}

static void count_violation(struct touch *t, const struct touch_violation *v)
{
	if (!t->first.wrong)
		t->first = *v;
	t->violations++;
}

static void check_stamps(struct touch *t, const struct toucher *tc)
{
	uint64_t off, found;

	for (uint64_t page = 0; page < t->tracked_pages && tc->stamps; page++) {
		if (!tc->stamps[page].value)
			continue;
		off = page * TOUCH_PAGE_BYTES + 8ull * tc->index;
		found = load_word(t->block->addr + off);
		if (found == tc->stamps[page].value)
			t->intact++;
		else
			count_violation(t, &(struct touch_violation){ TOUCH_STAMP_LOST, off, tc->stamps[page].value,
								      found });
	}
}

void touch_check(struct touch *t)
{
	for (unsigned i = 0; i < t->made; i++) {
		if (t->touchers[i].violation.wrong)
			count_violation(t, &t->touchers[i].violation);
	}
	for (unsigned i = 0; i < t->made; i++)
		check_stamps(t, &t->touchers[i]);
}

static void print_hex(FILE *f, uint64_t word)
{
	const uint8_t *bytes = (const uint8_t *)&word;

	for (size_t i = 0; i < sizeof(word); i++)
		fprintf(f, "%02x", bytes[i]);
}

static void print_log(const struct touch *t, FILE *f, const char *quoted)
{
	for (unsigned i = 0; i < t->made; i++) {
		const struct toucher *tc = &t->touchers[i];

		for (uint64_t page = 0; page < t->tracked_pages && tc->stamps; page++) {
			if (!tc->stamps[page].value)
				continue;
			fprintf(f, "{\"block\": %s, \"offset\": %" PRIu64 ", \"value\": \"", quoted,
				page * TOUCH_PAGE_BYTES + (uint64_t)8 * i);
			print_hex(f, tc->stamps[page].value);
			fprintf(f, "\", \"original\": \"");
			print_hex(f, tc->stamps[page].original);
			fprintf(f, "\"}\n");
		}
	}
}

int touch_write_log(const struct touch *t, const char *path)
{
	const char *name = t->block ? t->block->name : "";
	json_t *text = json_string(TEXT_QUOTE(name, strlen(name)));
	char *quoted = json_dumps(text, JSON_ENCODE_ANY);
	FILE *f = quoted ? fopen(path, "we") : NULL;
	int r = f ? 0 : -errno;

	if (f) {
		print_log(t, f, quoted);
		r = ferror(f) ? -EIO : 0;
		if (fclose(f) != 0)
			r = -errno;
	}
	free(quoted);
	json_decref(text);
	if (r < 0)
		fail("%s: %s", path, strerror(-r));
	return r;
}

void touch_fini(struct touch *t)
{
	uint64_t off;

	if (t->made) {
		touch_ask_stop(t);
		touch_join(t, DEADLINE_NEVER, &off);
	}
	for (unsigned i = 0; t->touchers && i < t->opts.threads; i++) {
		if (t->touchers[i].stamps)
			munmap(t->touchers[i].stamps, t->tracked_pages * sizeof(struct stamp));
	}
	free(t->touchers);
	if (t->sums)
		munmap((void *)t->sums, t->tracked_pages * sizeof(*t->sums));
	if (t->gate_made)
		sem_destroy(&t->gate);
	*t = (struct touch){ 0 };
}

/* ---- numbers ---- */

struct touch_count touch_count(const struct touch *t, unsigned index)
{
	const struct toucher *tc = &t->touchers[index];

	return (struct touch_count){
		.tid = tc->tid,
		.accesses = atomic_load(&tc->accesses),
		.writes = tc->sequence,
		.passes = tc->passes,
		.blocked_ns = tc->latency.total_ns,
	};
}

static void latency_merge(struct touch_latency *into, const struct touch_latency *from)
{
	into->count += from->count;
	into->total_ns += from->total_ns;
	into->max_ns = from->max_ns > into->max_ns ? from->max_ns : into->max_ns;
	for (size_t i = 0; i < TOUCH_OCTAVES * TOUCH_STEPS; i++)
		into->steps[i] += from->steps[i];
}

void touch_totals(const struct touch *t, struct touch_totals *ret)
{
	*ret = (struct touch_totals){ 0 };
	for (unsigned i = 0; i < t->made; i++) {
		const struct toucher *tc = &t->touchers[i];

		ret->accesses += atomic_load(&tc->accesses);
		ret->writes += tc->sequence;
		ret->stamps += tc->stamps_count;
		ret->passes += tc->passes;
		if (tc->end_ns - tc->begin_ns > ret->elapsed_ns)
			ret->elapsed_ns = tc->end_ns - tc->begin_ns;
		latency_merge(&ret->latency, &tc->latency);
	}
	ret->blocked_ns = ret->latency.total_ns;
}

static uint64_t step_end_ns(size_t index)
{
	unsigned octave = (unsigned)(index / TOUCH_STEPS), step = index % TOUCH_STEPS;

	return octave >= 3 ? (uint64_t)(TOUCH_STEPS + step + 1) << (octave - 3) : 2ull << octave;
}

uint64_t touch_latency_ns(const struct touch_latency *l, unsigned per_mille)
{
	uint64_t wanted = (l->count * per_mille + 999) / 1000, seen = 0, end_ns;

	for (size_t i = 0; i < TOUCH_OCTAVES * TOUCH_STEPS && l->count; i++) {
		seen += l->steps[i];
		if (seen >= wanted && l->steps[i]) {
			end_ns = step_end_ns(i);
			return end_ns < l->max_ns ? end_ns : l->max_ns;
		}
	}
	return 0;
}
