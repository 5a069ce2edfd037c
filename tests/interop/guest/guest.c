/*
 * guest.c - the guest that is migrated: it changes memory for ever, and says that it does
 *
 * It is a PVH kernel (32-bit protected mode, no paging), which QEMU's -kernel boots alike on pc, q35 and microvm. What
 * it finds in memory was put there by the harness (-device loader); its orders are in `orders`, which the harness
 * patches into a copy of the program (qemu.py, Guest). It speaks through port 0xe9 (isa-debugcon): 'S' when it starts,
 * '.' every HEARTBEAT_PAGES changed pages.
 *
 * The loop is as short as can be: a KVM that emulates 32-bit code runs about a million instructions a second.
 */
#include <stdint.h>

#define PAGE_BYTES 4096u
#define HEARTBEAT_PAGES 4096u

/* The order of these fields is known to qemu.py. Addresses are guest-physical; the guest itself lives below 2 MiB. */
struct orders {
	char magic[16];
	uint32_t dirty_start, dirty_end; /* changed for ever; empty: the guest halts */
	uint32_t words;                  /* changed in each page, spread evenly; at least 1 */
	uint32_t pause_ticks;            /* of the TSC, after each changed page: the throttle */
};

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

void run(void)
{
	uint32_t start = orders.dirty_start, end = orders.dirty_end, pause = orders.pause_ticks;
	uint32_t step = PAGE_BYTES / (orders.words ? orders.words : 1);
	uint32_t page = start, quiet = HEARTBEAT_PAGES;

	say('S');
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
