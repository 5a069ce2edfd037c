#include "programs/stress/command.h"

#include "base/clock.h"
#include "programs/cli/complain.h"
#include "programs/cli/progress.h"
#include "programs/stress/can.h"
#include "programs/stress/kinds.h"
#include "programs/stress/limit.h"
#include "programs/stress/matrix.h"
#include "programs/stress/options.h"
#include "programs/stress/plot.h"
#include "programs/stress/report.h"
#include "programs/stress/result.h"
#include "programs/stress/run.h"

#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#define MATRIX_SECONDS 180
#define SECONDS 10

/* Set by a signal, seen by every thread. */
static atomic_int interrupted;

static void on_interrupt(int sig)
{
	(void)sig;
	interrupted = 1;
}

static void set_defaults(struct stress_arguments *a)
{
	struct stress_options *o = &a->opts;
	unsigned huge_2m = 1u << MEMORY_HUGE_2M, huge_1g = 1u << MEMORY_HUGE_1G;

	if (!a->seconds_given)
		o->duration_ns = (a->matrix ? MATRIX_SECONDS : SECONDS) * NS_PER_S;
	/* The matrix has defaults of its own. */
	if (a->matrix)
		return;
	if (!o->memories)
		o->memories = 1u << MEMORY_MEMFD;
	if (!o->bytes)
		o->bytes = o->memories & huge_1g ? 1ull << 30 : o->memories & huge_2m ? 16u << 20 : 64u << 20;
}

/* ---- a run ---- */

static int write_results(const struct stress_options *opts, const struct stress_result *r)
{
	int failed = 0;

	stress_print(opts, r);
	fflush(stdout);
	if (opts->json && stress_write_json(opts, r, opts->json) < 0)
		failed = 1;
	if (opts->plot && stress_plot(opts, r, opts->plot) < 0)
		failed = 1;
	return r->failed || failed ? EXIT_FAILED : 0;
}

static void report_and_exit(const struct stress_options *opts, struct stress_result *r)
{
	write_results(opts, r);
	_exit(EXIT_FAILED);
}

static void measure_limits(const struct stress_options *opts, struct stress_result *r)
{
	for (unsigned m = 0; m < MEMORY_COUNT; m++)
		for (unsigned p = 0; p < PLACE_COUNT; p++)
			if (opts->memories & 1u << m)
				limit_measure(opts, (enum stress_memory)m, (enum stress_place)p, &r->limit[m][p]);
}

static int run(struct stress_options *opts)
{
	struct stress_result *r = calloc(1, sizeof(*r));
	char why[200];
	int status = EXIT_FAILED;

	if (!r)
		return fail("stress: no memory");
	opts->report_and_exit = report_and_exit;
	opts->interrupted = &interrupted;
	signal(SIGINT, on_interrupt);
	signal(SIGTERM, on_interrupt);
	if (!stress_can(opts, why))
		fail("stress: this cannot be done here: %s", why);
	else {
		if (!opts->quiet_limit)
			measure_limits(opts, r);
		if (stress_run(opts, r) == 0)
			status = write_results(opts, r);
	}
	free(r);
	return status;
}

int cmd_stress(int argc, char **argv)
{
	struct stress_arguments a = { .opts = { .touchers = 4,
		                                .pattern = PATTERN_RANDOM,
		                                .duplicates = 0.02,
		                                .seed = 1,
		                                .progress = PROGRESS_AUTO } };
	int r = options_parse(&a, argc, argv);

	if (r != 0)
		return r < 0 ? EXIT_LANDED : r;
	set_defaults(&a);
	if (a.matrix) {
		a.opts.interrupted = &interrupted;
		signal(SIGINT, on_interrupt);
		signal(SIGTERM, on_interrupt);
		return stress_matrix(&a.opts);
	}
	return run(&a.opts);
}
