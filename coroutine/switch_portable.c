/*
 * switch_portable.c - switch.h on ucontext(3), for CPUs without a file of their own
 *
 * It costs two system calls a switch (the signal mask), which is why it is not the first choice.
 */
#include "coroutine/switch.h"

#include "base/assert.h"

#include <stdint.h>
#include <stdlib.h>
#include <ucontext.h>

/* makecontext passes ints, so a pointer goes over in two halves. */
static void start(unsigned fn_hi, unsigned fn_lo, unsigned arg_hi, unsigned arg_lo)
{
	ctx_entry_fn *entry = (ctx_entry_fn *)(uintptr_t)((uint64_t)fn_hi << 32 | fn_lo);

	entry((void *)(uintptr_t)((uint64_t)arg_hi << 32 | arg_lo));
}

void ctx_init(struct ctx *ctx, void *stack, size_t bytes, ctx_entry_fn *entry, void *arg)
{
	uint64_t fn = (uintptr_t)entry, a = (uintptr_t)arg;
	size_t own = (sizeof(ucontext_t) + 63) & ~(size_t)63;
	/* The ucontext lives at the low end of the stack it describes: nothing to allocate, nothing to fail. */
	ucontext_t *uc = stack;

	ASSERT(bytes > own + 4096);
	getcontext(uc);
	uc->uc_stack.ss_sp = (char *)stack + own;
	uc->uc_stack.ss_size = bytes - own;
	uc->uc_link = NULL;
	makecontext(uc, (void (*)(void))start, 4, (unsigned)(fn >> 32), (unsigned)fn, (unsigned)(a >> 32), (unsigned)a);
	ctx->sp = uc;
}

void ctx_switch(struct ctx *from, const struct ctx *to)
{
	/* The thread's own context has had no ctx_init; it gets its place at the first switch away from it. */
	if (!from->sp)
		from->sp = calloc(1, sizeof(ucontext_t));
	ASSERT(from->sp);
	swapcontext(from->sp, to->sp);
}

/* Only for the thread's own context; a coroutine's lives in its stack. */
void ctx_fini(struct ctx *ctx)
{
	free(ctx->sp);
	ctx->sp = NULL;
}
