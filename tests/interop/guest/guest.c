/*
 * guest.c - the guest that migrates: it changes memory forever, and reports that it does
 *
 * It is a PVH kernel (32-bit protected mode, no paging), which QEMU's -kernel boots alike on pc, q35 and microvm. The
 * harness fills its memory (-device loader). Its orders are in `orders`, which the harness patches into a copy of the
 * program (qemu.py, Guest). It speaks through port 0xe9 (isa-debugcon): 'S' when it starts, '.' every HEARTBEAT_PAGES
 * changed pages.
 *
 * Or it walks: it reads a word of each page of a range and reports how long that took. It waits at the source and
 * begins at the destination: at the source the port reads as HOLD (the property `readback` of isa-debugcon, which does
 * not migrate). It prints a line for each pass, with numbers in hexadecimal and times in nanoseconds:
 *	walk PASS reads=N all=NS slow=N sum=NS max=NS log2=INDEX:N:NS,INDEX:N:NS...
 * slow, sum, max and log2 (how many took from 2^INDEX to twice that, and how long all of these took) count only reads
 * that took more than SLOW_NS.
 *
 * The loop is as short as can be: a KVM that emulates 32-bit code runs about a million instructions a second.
 */
#include <stdint.h>

#define PAGE_BYTES 4096u
#define HEARTBEAT_PAGES 4096u

/* The order of these fields is known to qemu.py. Addresses are guest-physical; the guest itself lives below 2 MiB. */
struct orders {
	char magic[16];
	uint32_t dirty_start, dirty_end; /* changed forever; empty: the guest halts */
	uint32_t words;                  /* changed in each page, spread evenly; at least 1 */
	uint32_t pause_ticks;            /* of the TSC, after each changed page: the throttle */
	uint32_t walk_start, walk_pages; /* a power of two; 0: no walk, and the four below mean nothing */
	uint32_t walk_order;             /* enum walk_order */
	uint32_t walk_stride;            /* in pages */
	uint32_t walk_passes;
	uint32_t tick_ns; /* a tick of the TSC, in 2^-20 nanoseconds */
};

#define HOLD 0x77u
#define HOLD_TICKS 200000u
#define SLOW_NS 2000u

/* As the touchers of `inmigrate listen --guest touch=1` walk, page by page (programs/guest/touch_walk.c). */
enum walk_order { WALK_SEQ, WALK_STRIDE, WALK_RANDOM };

volatile struct orders orders __attribute__((section(".data"))) = { .magic = "inmigrate guest" };

/* XEN_ELFNOTE_PHYS32_ENTRY: where a PVH loader enters, in 32-bit mode with flat segments. */
__asm__(".pushsection .note.pvh, \"a\", @note\n"
        ".align 4\n"
        ".long 4, 4, 18\n"
        ".asciz \"Xen\"\n"
        ".long start\n"
        ".popsection\n"
        ".pushsection .text\n"
        ".globl start\n"
        "start:\n"
        "cli\n"
        "mov $stack_top, %esp\n"
        "call run\n"
        "1: hlt\n"
        "jmp 1b\n"
        ".popsection\n"
        ".pushsection .bss\n"
        ".align 16\n"
        ".skip 4096\n"
        "stack_top:\n"
        ".popsection\n");

void run(void);

static void say(char c)
{
	__asm__ volatile("outb %0, %1" : : "a"(c), "Nd"((uint16_t)0xe9));
}

static uint32_t ticks(void)
{
	uint32_t low, high;

	__asm__ volatile("rdtsc" : "=a"(low), "=d"(high));
	return low;
}

static uint8_t hear(void)
{
	uint8_t c;

	__asm__ volatile("inb %1, %0" : "=a"(c) : "Nd"((uint16_t)0xe9));
	return c;
}

static uint64_t ticks64(void)
{
	uint32_t low, high;

	__asm__ volatile("lfence; rdtsc; lfence" : "=a"(low), "=d"(high) : : "memory");
	return (uint64_t)high << 32 | low;
}

static void wait_ticks(uint32_t pause)
{
	uint32_t since = ticks();

	while (ticks() - since < pause)
		;
}

/* ---- the walk ---- */

struct walk {
	uint64_t random;
	uint64_t sum, max;
	uint32_t slow;
	struct {
		uint32_t count;
		uint64_t sum;
	} log2[64];
};

static struct walk walk;

static void say_text(const char *text)
{
	while (*text)
		say(*text++);
}

static void say_number(const char *name, uint64_t n)
{
	int digit = 15;

	say_text(name);
	while (digit > 0 && !(n >> 4 * digit))
		digit--;
	for (; digit >= 0; digit--)
		say("0123456789abcdef"[n >> 4 * digit & 15]);
}

static uint32_t next_page(uint32_t order, uint32_t step)
{
	uint32_t mask = orders.walk_pages - 1;
	uint64_t at;

	switch (order) {
	case WALK_SEQ:
		return step & mask;
	case WALK_STRIDE:
		at = (uint64_t)step * orders.walk_stride;
		return (uint32_t)(at + (at >> __builtin_ctz(orders.walk_pages))) & mask;
	default:
		walk.random ^= walk.random >> 12;
		walk.random ^= walk.random << 25;
		walk.random ^= walk.random >> 27;
		return (uint32_t)(walk.random * 0x2545f4914f6cdd1dull) & mask;
	}
}

static void note_slow(uint64_t ns)
{
	unsigned octave = 63 - (unsigned)__builtin_clzll(ns);

	walk.slow++;
	walk.sum += ns;
	if (ns > walk.max)
		walk.max = ns;
	walk.log2[octave].count++;
	walk.log2[octave].sum += ns;
}

/* Return: how long it took. */
static uint64_t walk_once(void)
{
	uint32_t start = orders.walk_start, pages = orders.walk_pages, order = orders.walk_order;
	uint32_t tick_ns = orders.tick_ns;
	uint64_t begin = ticks64();

	walk.slow = 0;
	walk.sum = walk.max = 0;
	for (int i = 0; i < 64; i++)
		walk.log2[i].count = walk.log2[i].sum = 0;
	for (uint32_t step = 0; step < pages; step++) {
		volatile uint32_t *word = (uint32_t *)(uintptr_t)(start + next_page(order, step) * PAGE_BYTES);
		uint64_t before = ticks64(), ns;

		(void)*word;
		ns = (ticks64() - before) * tick_ns >> 20;
		if (ns > SLOW_NS)
			note_slow(ns);
	}
	return (ticks64() - begin) * tick_ns >> 20;
}

static void report(uint32_t pass, uint64_t all)
{
	const char *before = "";

	say_number("\nwalk ", pass);
	say_number(" reads=", orders.walk_pages);
	say_number(" all=", all);
	say_number(" slow=", walk.slow);
	say_number(" sum=", walk.sum);
	say_number(" max=", walk.max);
	say_text(" log2=");
	for (unsigned i = 0; i < 64; i++) {
		if (!walk.log2[i].count)
			continue;
		say_number(before, i);
		say_number(":", walk.log2[i].count);
		say_number(":", walk.log2[i].sum);
		before = ",";
	}
	say('\n');
}

static void run_walk(void)
{
	while (hear() == HOLD)
		wait_ticks(HOLD_TICKS);
	/* Of the toucher 0 with seed=1. */
	walk.random = 2 * 0x9e3779b97f4a7c15ull | 1;
	for (uint32_t pass = 0; pass < orders.walk_passes; pass++)
		report(pass, walk_once());
}

void run(void)
{
	uint32_t start = orders.dirty_start, end = orders.dirty_end, pause = orders.pause_ticks;
	uint32_t step = PAGE_BYTES / (orders.words ? orders.words : 1);
	uint32_t page = start, quiet = HEARTBEAT_PAGES;

	say('S');
	if (orders.walk_pages) {
		run_walk();
		return;
	}
	while (start < end) {
		for (uint32_t a = page; a < page + PAGE_BYTES; a += step)
			*(volatile uint32_t *)(uintptr_t)a += 0x01010101u;
		page += PAGE_BYTES;
		if (page == end)
			page = start;
		if (--quiet == 0) {
			quiet = HEARTBEAT_PAGES;
			say('.');
		}
		if (pause) {
			uint32_t since = ticks();

			while (ticks() - since < pause)
				;
		}
	}
}
