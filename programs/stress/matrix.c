#include "programs/stress/matrix.h"

#include "base/clock.h"
#include "programs/cli/complain.h"
#include "programs/cli/human.h"
#include "programs/cli/progress.h"
#include "programs/stress/can.h"
#include "programs/stress/kinds.h"
#include "programs/stress/latency.h"
#include "programs/stress/options.h"
#include "programs/stress/report.h"
#include "programs/stress/result.h"
#include "programs/stress/run.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <jansson.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

/* Columns: without events, under each, under all. */
#define COLUMNS (EVENT_COUNT + 2u)
#define ROWS_MAX (MEMORY_COUNT * PLACE_COUNT + MEMORY_COUNT)
#define MATRIX_BYTES (8u << 20)
/* A case that takes so much longer than it should does not end. */
#define OVERTIME_NS (90 * NS_PER_S)

static const char *const column_names[COLUMNS] = { "none", "remove", "unmap", "remap", "fork", "all" };

/* Often, for a run that is short. */
static const double rates[EVENT_COUNT] = {
	[EVENT_REMOVE] = 1000, [EVENT_UNMAP] = 200, [EVENT_REMAP] = 200, [EVENT_FORK] = 20
};

struct cell {
	uint64_t faults;
	unsigned done, failed;
	char *skipped; /* owned; why nothing was tried */
};

struct row {
	enum stress_memory memory;
	enum stress_place place;
	bool kvm;
	struct cell cells[COLUMNS];
	struct stress_latency latency;
	uint64_t faults, touch_ns;
};

struct matrix {
	const struct stress_options *base;
	struct row rows[ROWS_MAX];
	unsigned row_count, cases, cases_done, failed;
	struct progress progress;
	json_t *list; /* owned */
};

/* ---- cases ---- */

static struct stress_options options_of(const struct matrix *m, const struct row *row, unsigned column,
                                        enum stress_pattern pattern, unsigned number)
{
	static const struct stress_delay delays[] = {
		{ DELAY_NONE, 0, 0 },
		{ DELAY_NONE, 0, 0 },
		{ DELAY_CONSTANT, 50 * NS_PER_US, 0 },
		{ DELAY_UNIFORM, 10 * NS_PER_US, 300 * NS_PER_US },
		{ DELAY_HEAVY, 10 * NS_PER_US, 0 },
	};
	struct stress_options o = *m->base;

	o.memories = 1u << row->memory;
	o.places = 1u << row->place;
	o.kvm = row->kvm;
	o.pattern = pattern;
	o.bytes = row->memory == MEMORY_HUGE_1G ? 1u << 30 : m->base->bytes;
	for (unsigned e = 0; e < EVENT_COUNT; e++)
		o.event_rate[e] = column == e + 1 || column == COLUMNS - 1 ? rates[e] : 0;
	o.duplicates = number % 3 ? 0.1 : 0;
	o.delay = delays[number % (sizeof(delays) / sizeof(delays[0]))];
	o.own_faults = row->memory == MEMORY_ANON || row->memory == MEMORY_THP || number % 2 ? 0 : 500;
	o.prefetch_off = number % 4 == 3;
	o.seed = m->base->seed + number;
	o.progress = PROGRESS_NEVER;
	return o;
}

/* A guest's vCPUs get by with two patterns: the rest differs in user mode only. */
static bool has_pattern(const struct row *row, enum stress_pattern pattern)
{
	return !row->kvm || pattern == PATTERN_RANDOM || pattern == PATTERN_RACING;
}

/* ---- a case in a process ---- */

static int result_fd = -1; /* in the child */

static void send_result(const struct stress_options *opts, struct stress_result *r)
{
	const char *at = (const char *)r;
	size_t left = sizeof(*r);

	(void)opts;
	while (left > 0) {
		ssize_t n = write(result_fd, at, left);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			_exit(EXIT_FAILED);
		at += n;
		left -= (size_t)n;
	}
}

static _Noreturn void run_child(struct stress_options *opts, int fd, pid_t parent)
{
	struct stress_result *r = calloc(1, sizeof(*r));

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (getppid() != parent || !r)
		_exit(EXIT_FAILED);
	result_fd = fd;
	opts->report_and_exit = send_result;
	if (stress_run(opts, r) < 0)
		_exit(EXIT_FAILED);
	send_result(opts, r);
	_exit(r->failed ? EXIT_FAILED : 0);
}

/* Return: whether all of it came in time. */
static bool receive_result(int fd, uint64_t deadline_ns, struct stress_result *ret)
{
	struct pollfd pfd = { .fd = fd, .events = POLLIN };
	size_t have = 0;

	while (have < sizeof(*ret)) {
		uint64_t now_ns = clock_now_ns();
		ssize_t n;

		if (now_ns >= deadline_ns)
			return false;
		if (poll(&pfd, 1, (int)((deadline_ns - now_ns) / NS_PER_MS) + 1) < 0 && errno != EINTR)
			return false;
		if (!pfd.revents)
			continue;
		n = read(fd, (char *)ret + have, sizeof(*ret) - have);
		if (n <= 0)
			return false;
		have += (size_t)n;
	}
	return true;
}

static void say_end(struct stress_result *r, int status, bool in_time)
{
	r->failed = true;
	if (!in_time)
		snprintf(r->wrong, sizeof(r->wrong), "it did not end");
	else if (WIFSIGNALED(status))
		snprintf(r->wrong, sizeof(r->wrong), "it ended by signal %d (%s)", WTERMSIG(status),
		         strsignal(WTERMSIG(status)));
	else
		snprintf(r->wrong, sizeof(r->wrong), "it ended with status %d and said no more", WEXITSTATUS(status));
}

static void run_case(struct stress_options *opts, struct stress_result *ret)
{
	uint64_t deadline_ns = deadline_after_ns(opts->duration_ns + OVERTIME_NS);
	int fds[2], status = 0;
	pid_t pid, self = getpid();
	bool whole;

	memset(ret, 0, sizeof(*ret));
	if (pipe2(fds, O_CLOEXEC) < 0 || (pid = fork()) < 0) {
		say_end(ret, 0, true);
		return;
	}
	if (pid == 0)
		run_child(opts, fds[1], self);
	close(fds[1]);
	whole = receive_result(fds[0], deadline_ns, ret);
	close(fds[0]);
	if (!whole && clock_now_ns() >= deadline_ns)
		kill(pid, SIGKILL);
	while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
		;
	if (!whole)
		say_end(ret, status, clock_now_ns() < deadline_ns);
}

/* ---- what came of it ---- */

static void say_failure(struct matrix *m, const struct stress_options *opts, const struct stress_result *r)
{
	char words[200];

	progress_stop(&m->progress);
	printf("FAILED: %s, seed %" PRIu64 ": %s\n", stress_words(words, opts), opts->seed, r->wrong);
	fflush(stdout);
}

static void note_case(struct matrix *m, struct row *row, unsigned column, const struct stress_options *opts,
                      const struct stress_result *r)
{
	struct cell *cell = &row->cells[column];
	char words[200];

	cell->faults += r->faults;
	cell->done++;
	cell->failed += r->failed;
	row->faults += r->faults;
	row->touch_ns += r->touch_ns;
	latency_merge(&row->latency, &r->latency);
	m->cases_done++;
	m->failed += r->failed;
	json_array_append_new(
	        m->list, json_pack("{s:s, s:I, s:s, s:s, s:I, s:f, s:f, s:f, s:I}", "case", stress_words(words, opts),
	                           "seed", (json_int_t)opts->seed, "status", r->failed ? "failed" : "sound", "wrong",
	                           r->wrong, "faults", (json_int_t)r->faults, "seconds", (double)r->elapsed_ns / 1e9,
	                           "p50_us", (double)latency_quantile(&r->latency, 500) / 1e3, "p99_us",
	                           (double)latency_quantile(&r->latency, 990) / 1e3, "rounds", (json_int_t)r->rounds));
	if (r->failed)
		say_failure(m, opts, r);
}

static const char *row_name(char buf[static 64], const struct row *row)
{
	snprintf(buf, 64, "%s %s%s", memory_names[row->memory], place_names[row->place], row->kvm ? " kvm" : "");
	return buf;
}

/* Why nothing at all of a row was tried; NULL: something was, or not all for the same reason. */
static const char *all_skipped(const struct row *row)
{
	const char *why = row->cells[0].skipped;

	for (unsigned c = 0; why && c < COLUMNS; c++)
		if (!row->cells[c].skipped || strcmp(row->cells[c].skipped, why))
			return NULL;
	return why;
}

static void print_table(const struct matrix *m)
{
	char name[64], word[32], p50[32], p99[32];

	printf("%-24s", "faults, under events:");
	for (unsigned c = 0; c < COLUMNS; c++)
		printf(" %8s", column_names[c]);
	printf(" %10s %8s %8s\n", "faults/s", "median", "p99");
	for (unsigned i = 0; i < m->row_count; i++) {
		const struct row *row = &m->rows[i];

		if (all_skipped(row))
			continue;
		printf("%-24s", row_name(name, row));
		for (unsigned c = 0; c < COLUMNS; c++) {
			const struct cell *cell = &row->cells[c];

			snprintf(word, sizeof(word), "%" PRIu64, cell->faults);
			printf(" %8s", cell->failed ? "FAILED" : cell->skipped ? "skipped" : cell->done ? word : "-");
		}
		printf(" %10.0f %8s %8s\n", row->touch_ns ? (double)row->faults * 1e9 / (double)row->touch_ns : 0,
		       human_time(p50, (double)latency_quantile(&row->latency, 500)),
		       human_time(p99, (double)latency_quantile(&row->latency, 990)));
	}
}

/* A reason is said once, for all that it keeps from being tried. */
static void print_skipped(const struct matrix *m)
{
	char name[64];

	for (unsigned i = 0; i < m->row_count; i++) {
		const struct row *row = &m->rows[i];
		const char *before = NULL, *all = all_skipped(row);

		if (all)
			printf("skipped: %s: %s\n", row_name(name, row), all);
		for (unsigned c = 0; !all && c < COLUMNS; c++) {
			const char *why = row->cells[c].skipped;

			if (why && (!before || strcmp(before, why)))
				printf("skipped: %s, events %s: %s\n", row_name(name, row), column_names[c], why);
			before = why ? why : before;
		}
	}
}

static int write_json(struct matrix *m, uint64_t faults)
{
	json_t *skipped = json_array();
	char name[64];

	for (unsigned i = 0; i < m->row_count; i++)
		for (unsigned c = 0; c < COLUMNS; c++)
			if (m->rows[i].cells[c].skipped)
				json_array_append_new(skipped,
				                      json_pack("{s:s, s:s, s:s}", "row", row_name(name, &m->rows[i]),
				                                "events", column_names[c], "why",
				                                m->rows[i].cells[c].skipped));
	return stress_dump(json_pack("{s:s, s:i, s:i, s:I, s:o, s:O}", "status", m->failed ? "failed" : "sound",
	                             "cases", (int)m->cases_done, "failed", (int)m->failed, "faults",
	                             (json_int_t)faults, "skipped", skipped, "results", m->list),
	                   m->base->json);
}

/* ---- all of them ---- */

static void add_row(struct matrix *m, enum stress_memory memory, enum stress_place place, bool kvm)
{
	struct row *row = &m->rows[m->row_count++];
	char why[200];

	*row = (struct row){ .memory = memory, .place = place, .kvm = kvm };
	for (unsigned c = 0; c < COLUMNS; c++) {
		struct stress_options o = options_of(m, row, c, PATTERN_RANDOM, 0);

		if (!stress_can(&o, why))
			row->cells[c].skipped = strdup(why);
		for (unsigned p = 0; p < PATTERN_COUNT && !row->cells[c].skipped; p++)
			m->cases += has_pattern(row, (enum stress_pattern)p);
	}
}

static void make_rows(struct matrix *m)
{
	for (unsigned mem = 0; mem < MEMORY_COUNT; mem++) {
		if (m->base->memories && !(m->base->memories & 1u << mem))
			continue;
		for (unsigned p = 0; p < PLACE_COUNT; p++)
			if (!m->base->places || m->base->places & 1u << p)
				add_row(m, (enum stress_memory)mem, (enum stress_place)p, false);
	}
	for (unsigned mem = 0; mem < MEMORY_COUNT; mem++)
		if (!m->base->memories || m->base->memories & 1u << mem)
			add_row(m, (enum stress_memory)mem,
			        mem == MEMORY_ANON || mem == MEMORY_THP ? PLACE_COPY : PLACE_CONTINUE, true);
}

static void run_cell(struct matrix *m, struct row *row, unsigned column, unsigned *number, uint64_t end_ns,
                     struct stress_result *r)
{
	struct stress_options o;
	uint64_t now_ns;
	char words[200];

	for (unsigned p = 0; p < PATTERN_COUNT; p++, ++*number) {
		if (row->cells[column].skipped || !has_pattern(row, (enum stress_pattern)p) || *m->base->interrupted)
			continue;
		o = options_of(m, row, column, (enum stress_pattern)p, *number);
		now_ns = clock_now_ns();
		/* Each its share of the time that is left: one that took longer is made up for by the others. */
		o.duration_ns = now_ns < end_ns ? (end_ns - now_ns) / (m->cases - m->cases_done) : NS_PER_MS;
		if (progress_due(&m->progress))
			progress_say(&m->progress, "case %u of %u: %s; %u failed", m->cases_done + 1, m->cases,
			             stress_words(words, &o), m->failed);
		run_case(&o, r);
		note_case(m, row, column, &o, r);
	}
}

int stress_matrix(const struct stress_options *base)
{
	struct stress_options o = *base;
	struct matrix *m = calloc(1, sizeof(*m));
	struct stress_result *r = calloc(1, sizeof(*r));
	uint64_t begin_ns = clock_now_ns(), faults = 0;
	unsigned number = 0;
	int status;

	if (!m || !r)
		return fail("stress: no memory");
	o.bytes = o.bytes ? o.bytes : MATRIX_BYTES;
	m->base = &o;
	m->list = json_array();
	progress_init(&m->progress, (enum progress_mode)base->progress);
	make_rows(m);
	for (unsigned i = 0; i < m->row_count; i++)
		for (unsigned c = 0; c < COLUMNS; c++)
			run_cell(m, &m->rows[i], c, &number, begin_ns + base->duration_ns, r);
	progress_stop(&m->progress);
	print_table(m);
	print_skipped(m);
	for (unsigned i = 0; i < m->row_count; i++)
		faults += m->rows[i].faults;
	printf("%u cases, %" PRIu64 " faults in %.0f s: %u failed\n", m->cases_done, faults,
	       (double)(clock_now_ns() - begin_ns) / 1e9, m->failed);
	status = m->failed || m->cases_done == 0 ? EXIT_FAILED : 0;
	if (base->json && write_json(m, faults) < 0)
		status = EXIT_FAILED;
	json_decref(m->list);
	for (unsigned i = 0; i < m->row_count; i++)
		for (unsigned c = 0; c < COLUMNS; c++)
			free(m->rows[i].cells[c].skipped);
	free(m);
	free(r);
	return status;
}
