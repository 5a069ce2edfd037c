/*
 * switch.h - from one stack to another
 *
 * The smallest machine-dependent thing there is: the callee-saved registers and the floating-point control words go
 * onto the stack that is left, its stack pointer into @from, and the same comes back from @to. One file per CPU
 * implements it (switch_x86_64.S, switch_aarch64.S, and switch_portable.c on ucontext(3) for the rest); unwind tables
 * let a debugger walk through it.
 *
 * Signal masks, thread-locals and everything else of the thread stay as they are.
 */
#ifndef COROUTINE_SWITCH_H
#define COROUTINE_SWITCH_H

#include <stddef.h>

struct ctx {
	void *sp; /* of a context that is not running; in the portable version its ucontext_t */
};

typedef void ctx_entry_fn(void *arg);

/**
 * ctx_init - prepare @ctx so that the first switch to it calls @entry(@arg) on the given stack
 * @stack: lowest address; @bytes: its length, a multiple of 16
 * @entry never returns.
 */
void ctx_init(struct ctx *ctx, void *stack, size_t bytes, ctx_entry_fn *entry, void *arg);

/** ctx_switch - returns when somebody switches back to @from */
void ctx_switch(struct ctx *from, const struct ctx *to);

/* Frees what ctx_init allocated: nothing, except in the portable version. */
void ctx_fini(struct ctx *ctx);

#endif
