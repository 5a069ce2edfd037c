#include "tests/support/stall.h"

#include <check.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "coroutine/co.h"
#include "coroutine/switch.h"
#include "tests/support/check_main.h"

#if defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define WITH_TSAN 1
#endif
#elif defined(__SANITIZE_THREAD__)
#define WITH_TSAN 1
#endif

static struct stall seen;
static uint64_t began_ns, turn_began_ns, round_began_ns;
static bool measuring;

/* The linker's --wrap: see BUDGET in the Makefile. */
void __wrap_ctx_switch(struct ctx *from, const struct ctx *to);
void __real_ctx_switch(struct ctx *from, const struct ctx *to);

uint64_t stall_cpu_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &ts);
	return (uint64_t)ts.tv_sec * NS_PER_S + (uint64_t)ts.tv_nsec;
}

/* The thread's own context leaves: a round begins. */
static void round_ends(uint64_t now_ns)
{
	if (round_began_ns && now_ns - round_began_ns > seen.round_ns)
		seen.round_ns = now_ns - round_began_ns;
	round_began_ns = now_ns;
}

static void turn_ends(const struct co *co, uint64_t now_ns)
{
	bool is_main = co == &co->sched->main;

	seen.switches++;
	if (now_ns - turn_began_ns > seen.turn_ns) {
		seen.turn_ns = now_ns - turn_began_ns;
		snprintf(seen.turn_of, sizeof(seen.turn_of), "%s", is_main ? "the reactor" : co->name);
	}
	turn_began_ns = now_ns;
	if (is_main)
		round_ends(now_ns);
}

void __wrap_ctx_switch(struct ctx *from, const struct ctx *to)
{
	if (measuring)
		turn_ends(container_of(from, struct co, ctx), stall_cpu_ns());
	__real_ctx_switch(from, to);
}

void stall_begin(void)
{
	memset(&seen, 0, sizeof(seen));
	began_ns = turn_began_ns = stall_cpu_ns();
	round_began_ns = 0;
	measuring = true;
}

void stall_end(struct stall *ret_seen)
{
	uint64_t now_ns = stall_cpu_ns();

	measuring = false;
	if (round_began_ns)
		round_ends(now_ns);
	ck_assert_msg(seen.switches > 0, "no switch was seen: is the program linked with --wrap=ctx_switch?");
	seen.cpu_ns = now_ns - began_ns;
	*ret_seen = seen;
}

void stall_check_beside(const struct stall *s, const char *what, uint64_t step_ns)
{
	printf("%s: longest round %.2f ms, longest turn %.2f ms (%s), %.1f ms of CPU in %" PRIu64 " switches\n", what,
	       (double)s->round_ns / 1e6, (double)s->turn_ns / 1e6, s->turn_of, (double)s->cpu_ns / 1e6, s->switches);
	ck_assert_msg(s->round_ns <= STALL_BUDGET_NS + step_ns,
	              "%s: others waited for %.1f ms of CPU; '%s' took %.1f of them", what, (double)s->round_ns / 1e6,
	              s->turn_of, (double)s->turn_ns / 1e6);
}

void stall_check(const struct stall *s, const char *what)
{
	stall_check_beside(s, what, 0);
}

void stall_check_cpu(const struct stall *s, const char *what, uint64_t bytes, uint64_t ns_max)
{
	printf("%s: %.1f ms of CPU for %" PRIu64 " bytes, %.1f ns a byte; at most %" PRIu64 "\n", what,
	       (double)s->cpu_ns / 1e6, bytes, (double)s->cpu_ns / (double)bytes, ns_max);
	ck_assert_msg(s->cpu_ns / ns_max <= bytes, "%s: a byte costs %.1f ns, and may cost %" PRIu64, what,
	              (double)s->cpu_ns / (double)bytes, ns_max);
}

void stall_need_figures(void)
{
#ifdef WITH_TSAN
	test_skip("CPU time says nothing under ThreadSanitizer");
#elif !defined(__OPTIMIZE__)
	test_skip("CPU time says nothing without optimisation");
#else
	if (WITH_ASAN)
		test_skip("CPU time says nothing under AddressSanitizer");
#endif
}
