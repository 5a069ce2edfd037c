/* What ctx_switch must carry from one stack to the other: the machine's state is each coroutine's own. */
#include "config.h"
#include "coroutine/co.h"
#include "tests/support/check_main.h"
#include "tests/unit/co_world.h"

#include <execinfo.h>
#include <fenv.h>

#if HAVE_VALGRIND
#include <valgrind/valgrind.h>
#else
#define RUNNING_ON_VALGRIND 0
#endif

static struct co_world w;

static void setup(void)
{
	world_init(&w);
}

static void teardown(void)
{
	world_fini(&w);
}

struct rounding {
	int mode;
	double third;
};

static int rounds(void *arg)
{
	struct rounding *r = arg;
	volatile double one = 1, three = 3;

	ck_assert_int_eq(fegetround(), FE_TONEAREST); /* as its spawner had it */
	ck_assert_int_eq(fesetround(r->mode), 0);
	for (int i = 0; i < 5; i++) {
		ck_assert_int_eq(co_yield(&w.sched), 0);
		ck_assert_int_eq(fegetround(), r->mode);
		r->third = one / three;
	}
	return 0;
}

TEST_CASE("switch", 60, .checked = { setup, teardown });

TEST(test_switch_rounding_mode_does_not_leak)
{
	struct rounding up = { .mode = FE_UPWARD }, down = { .mode = FE_DOWNWARD }, near = { .mode = FE_TONEAREST };

	world_spawn(&w, rounds, &up);
	world_spawn(&w, rounds, &down);
	world_spawn(&w, rounds, &near);
	while (sched_has_ready(&w.sched)) {
		sched_run_ready(&w.sched);
		ck_assert_int_eq(fegetround(), FE_TONEAREST);
	}
	if (!RUNNING_ON_VALGRIND) /* which keeps the control words, and always rounds to nearest */
		ck_assert(down.third < up.third);
}

#ifdef __x86_64__
static int flushes_denormals(void *arg)
{
	unsigned on = *(unsigned *)arg ? 0x8040 : 0; /* FTZ and DAZ */
	volatile double tiny = 4.9e-324, sum;

	__builtin_ia32_ldmxcsr((__builtin_ia32_stmxcsr() & ~0x8040u) | on);
	for (int i = 0; i < 5; i++) {
		ck_assert_int_eq(co_yield(&w.sched), 0);
		ck_assert_uint_eq(__builtin_ia32_stmxcsr() & 0x8040, on);
		sum = tiny * 1.0;
		ck_assert_int_eq(sum != 0, !on);
	}
	return 0;
}

TEST(test_switch_flush_to_zero_does_not_leak)
{
	unsigned on = 1, off = 0;

	if (RUNNING_ON_VALGRIND)
		test_skip("valgrind does not carry these bits of MXCSR");
	world_spawn(&w, flushes_denormals, &on);
	world_spawn(&w, flushes_denormals, &off);
	world_settle(&w);
	ck_assert_uint_eq(__builtin_ia32_stmxcsr() & 0x8040, 0);
}
#endif

#ifdef __x86_64__
/* fesetround changes both units; this is the old one alone. */
static int sets_x87_precision(void *arg)
{
	unsigned short want = *(unsigned short *)arg, is;

	__asm__ volatile("fldcw %0" : : "m"(want));
	for (int i = 0; i < 5; i++) {
		ck_assert_int_eq(co_yield(&w.sched), 0);
		__asm__ volatile("fnstcw %0" : "=m"(is));
		ck_assert_uint_eq(is, want);
	}
	return 0;
}

TEST(test_switch_x87_control_word_does_not_leak)
{
	unsigned short extended = 0x37f, single = 0x07f, is;

	if (RUNNING_ON_VALGRIND)
		test_skip("valgrind has one precision for the x87 unit");
	world_spawn(&w, sets_x87_precision, &extended);
	world_spawn(&w, sets_x87_precision, &single);
	world_settle(&w);
	__asm__ volatile("fnstcw %0" : "=m"(is));
	ck_assert_uint_eq(is, extended);
}
#endif

/* More live values than callee-saved registers, of both kinds, over each switch. */
static int keeps_registers(void *arg)
{
	unsigned long seed = *(unsigned long *)arg, a[16];
	double f[16];

	for (int i = 0; i < 16; i++) {
		a[i] = seed * 31 + (unsigned long)i;
		f[i] = (double)seed + i / 16.0;
	}
	for (int turn = 0; turn < 50; turn++) {
		ck_assert_int_eq(co_yield(&w.sched), 0);
		for (int i = 0; i < 16; i++) {
			a[i] = a[i] * 3 + 1;
			f[i] = f[i] + 1;
		}
	}
	for (int i = 0; i < 16; i++) {
		unsigned long want = seed * 31 + (unsigned long)i;

		for (int turn = 0; turn < 50; turn++)
			want = want * 3 + 1;
		ck_assert_uint_eq(a[i], want);
		ck_assert(f[i] == (double)seed + i / 16.0 + 50);
	}
	ck_assert_uint_eq((uintptr_t)__builtin_frame_address(0) % 16, 0);
	return 0;
}

TEST(test_switch_registers_survive)
{
	unsigned long seeds[5] = { 1, 22, 333, 4444, 55555 };

	for (int i = 0; i < 5; i++)
		world_spawn(&w, keeps_registers, &seeds[i]);
	world_settle(&w);
}

static __attribute__((noinline)) int recurse(int depth)
{
	volatile char room[64];

	room[depth % 64] = (char)depth;
	if (depth > 0)
		return recurse(depth - 1) + room[depth % 64] - (char)depth + 1;
	ck_assert_int_eq(co_yield(&w.sched), 0);
	return 0;
}

static int recurses(void *arg)
{
	*(int *)arg = recurse(500);
	return 0;
}

TEST(test_switch_deep_recursion_survives)
{
	int depth[3];

	for (int i = 0; i < 3; i++)
		world_spawn(&w, recurses, &depth[i]);
	world_settle(&w);
	for (int i = 0; i < 3; i++)
		ck_assert_int_eq(depth[i], 500);
}

#if !PORTABLE_SWITCH
void ctx_start(void);

static int unwinds(void *arg)
{
	void *frames[64];
	int n;

	ck_assert_int_eq(co_yield(&w.sched), 0);
	n = backtrace(frames, 64);
	ck_assert_int_gt(n, 2);
	ck_assert_int_lt(n, 64);
	/* The outermost frame is ctx_start, just after its call: nothing is made up below it. */
	ck_assert_msg((char *)frames[n - 1] > (char *)ctx_start && (char *)frames[n - 1] < (char *)ctx_start + 32,
	              "frame %d of %d is %p, not in ctx_start", n - 1, n, frames[n - 1]);
	*(int *)arg = n;
	return 0;
}

TEST(test_switch_unwinding_ends_at_ctx_start)
{
	int n = 0;

	world_spawn(&w, unwinds, &n);
	world_settle(&w);
	ck_assert_int_gt(n, 0);
}
#endif
