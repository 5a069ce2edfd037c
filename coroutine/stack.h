/*
 * stack.h - guarded stacks, kept warm
 *
 * A stack is an anonymous mapping whose lowest page cannot be touched. Idle ones are kept, last used first, up to the
 * cache's limit, because a fresh mapping costs microseconds and a page fault for each page used again.
 *
 * The guard is MADV_GUARD_INSTALL where the kernel has it (6.13): it splits no mapping, so the number of stacks is not
 * bounded by vm.max_map_count. Elsewhere it is mprotect(2), and the kernel's default bounds them to about 32 000.
 */
#ifndef COROUTINE_STACK_H
#define COROUTINE_STACK_H

#include "base/list.h"

#include <stddef.h>

struct stack {
	void *base;   /* lowest usable address; the guard is below */
	size_t bytes; /* usable */
	unsigned valgrind_id;
};

struct stack_cache {
	size_t stack_bytes;
	size_t idle_max;
	struct list idle; /* each idle stack holds its own list node, at its base */
	size_t idle_count;
	size_t in_use;
	size_t in_use_max; /* high-water mark */
};

/* Enough for a signal frame of this CPU (AVX-512 and AMX state: 11 KiB and more) on top of a callback's own frames;
 * what is never touched costs no memory. */
#define STACK_BYTES_DEFAULT (256u << 10)
#define STACK_BYTES_MIN (16u << 10)
#define STACK_IDLE_MAX_DEFAULT 256

/* @stack_bytes is rounded up to pages, and to the least a signal frame of this machine needs (AT_MINSIGSTKSZ). */
void stack_cache_init(struct stack_cache *cache, size_t stack_bytes, size_t idle_max);

/* None may be in use. */
void stack_cache_fini(struct stack_cache *cache);

/** stack_get - Return: 0 or -ENOMEM. Content of a reused stack is what its last user left. */
int stack_get(struct stack_cache *cache, struct stack *ret_stack);
void stack_put(struct stack_cache *cache, struct stack *stack);

#endif
