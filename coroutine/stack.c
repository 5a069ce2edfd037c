#include "coroutine/stack.h"

#include "base/assert.h"
#include "config.h"

#include <errno.h>
#include <stdint.h>
#include <sys/auxv.h>
#include <sys/mman.h>
#include <unistd.h>

#if HAVE_VALGRIND
#include <valgrind/valgrind.h>
#else
#define VALGRIND_STACK_REGISTER(lo, hi) 0
#define VALGRIND_STACK_DEREGISTER(id) ((void)(id))
#endif

#if defined(__SANITIZE_ADDRESS__)
#define POISON 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define POISON 1
#endif
#endif
#ifdef POISON
#include <sanitizer/asan_interface.h>
#else
#define ASAN_UNPOISON_MEMORY_REGION(addr, size) ((void)(addr), (void)(size))
#endif

#ifndef AT_MINSIGSTKSZ
#define AT_MINSIGSTKSZ 51
#endif
#ifndef MADV_GUARD_INSTALL
#define MADV_GUARD_INSTALL 102 /* Linux 6.13 */
#endif

/* An idle stack: its first bytes are the node, so the cache needs no memory of its own. */
struct idle {
	struct list node;
	struct stack stack;
};

static size_t page_bytes(void)
{
	return (size_t)sysconf(_SC_PAGESIZE);
}

void stack_cache_init(struct stack_cache *cache, size_t stack_bytes, size_t idle_max)
{
	size_t page = page_bytes(), least = STACK_BYTES_MIN + getauxval(AT_MINSIGSTKSZ);

	if (stack_bytes < least)
		stack_bytes = least;
	*cache = (struct stack_cache){
		.stack_bytes = (stack_bytes + page - 1) & ~(page - 1),
		.idle_max = idle_max,
	};
	list_init(&cache->idle);
}

static void stack_unmap(struct stack *stack)
{
	VALGRIND_STACK_DEREGISTER(stack->valgrind_id);
	munmap((char *)stack->base - page_bytes(), stack->bytes + page_bytes());
}

void stack_cache_fini(struct stack_cache *cache)
{
	struct list *node;

	ASSERT(cache->in_use == 0);
	while ((node = list_pop_head(&cache->idle))) {
		struct stack stack = container_of(node, struct idle, node)->stack;

		stack_unmap(&stack);
	}
	cache->idle_count = 0;
}

static int stack_map(struct stack *ret, size_t bytes)
{
	size_t page = page_bytes();
	char *low = mmap(NULL, bytes + page, PROT_READ | PROT_WRITE,
	                 MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_STACK, -1, 0);

	if (low == MAP_FAILED)
		return -ENOMEM;
	/* A huge page for a stack that uses 8 KiB would undo the point of cheap coroutines. Advice: may fail. */
	madvise(low, bytes + page, MADV_NOHUGEPAGE);
	if (madvise(low, page, MADV_GUARD_INSTALL) < 0 && mprotect(low, page, PROT_NONE) < 0) {
		munmap(low, bytes + page);
		return -ENOMEM;
	}
	ret->base = low + page;
	ret->bytes = bytes;
	ret->valgrind_id = VALGRIND_STACK_REGISTER(low + page, low + page + bytes);
	return 0;
}

int stack_get(struct stack_cache *cache, struct stack *ret_stack)
{
	struct list *node = list_pop_head(&cache->idle);
	int r;

	if (node) {
		*ret_stack = container_of(node, struct idle, node)->stack;
		cache->idle_count--;
	} else {
		r = stack_map(ret_stack, cache->stack_bytes);
		if (r < 0)
			return r;
	}
	if (++cache->in_use > cache->in_use_max)
		cache->in_use_max = cache->in_use;
	return 0;
}

void stack_put(struct stack_cache *cache, struct stack *stack)
{
	struct idle *idle = stack->base;

	ASSERT(cache->in_use > 0);
	cache->in_use--;
	/* The frames that ended on it left their red zones behind. */
	ASAN_UNPOISON_MEMORY_REGION(stack->base, stack->bytes);
	if (cache->idle_count >= cache->idle_max) {
		stack_unmap(stack);
		return;
	}
	idle->stack = *stack;
	list_push_head(&cache->idle, &idle->node);
	cache->idle_count++;
}
