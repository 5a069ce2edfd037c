#include "coroutine/stack.h"
#include "tests/support/check_main.h"

#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#ifndef AT_MINSIGSTKSZ
#define AT_MINSIGSTKSZ 51
#endif
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define SANITIZED 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define SANITIZED 1
#endif
#endif

TEST_CASE("stack", 60);

TEST(test_stack_is_never_too_small_for_a_signal)
{
	struct stack_cache cache;

	stack_cache_init(&cache, 1, 4);
	ck_assert_uint_ge(cache.stack_bytes, STACK_BYTES_MIN + getauxval(AT_MINSIGSTKSZ));
	ck_assert_uint_eq(cache.stack_bytes % (size_t)sysconf(_SC_PAGESIZE), 0);
	stack_cache_fini(&cache);
}

TEST(test_stack_last_used_is_first_used_again)
{
	struct stack_cache cache;
	struct stack a, b, c;

	stack_cache_init(&cache, STACK_BYTES_DEFAULT, 4);
	ck_assert_int_eq(stack_get(&cache, &a), 0);
	ck_assert_int_eq(stack_get(&cache, &b), 0);
	ck_assert_ptr_ne(a.base, b.base);
	memset(a.base, 1, a.bytes);
	memset(b.base, 2, b.bytes);
	ck_assert_int_eq(((char *)a.base)[a.bytes - 1], 1);
	stack_put(&cache, &a);
	stack_put(&cache, &b);
	ck_assert_int_eq(stack_get(&cache, &c), 0);
	ck_assert_ptr_eq(c.base, b.base);
	ck_assert_uint_eq(c.bytes, STACK_BYTES_DEFAULT);
	memset(c.base, 3, c.bytes); /* all of it is the new owner's: under the sanitizer too */
	stack_put(&cache, &c);
	stack_cache_fini(&cache);
}

TEST(test_stack_cache_keeps_no_more_than_its_limit)
{
	struct stack_cache cache;
	struct stack s[8];

	stack_cache_init(&cache, STACK_BYTES_DEFAULT, 3);
	for (int round = 0; round < 3; round++) {
		for (int i = 0; i < 8; i++)
			ck_assert_int_eq(stack_get(&cache, &s[i]), 0);
		ck_assert_uint_eq(cache.idle_count, 0);
		for (int i = 0; i < 8; i++)
			stack_put(&cache, &s[i]);
		ck_assert_uint_eq(cache.idle_count, 3);
	}
	ck_assert_uint_eq(cache.in_use, 0);
	ck_assert_uint_eq(cache.in_use_max, 8);
	stack_cache_fini(&cache);
}

TEST(test_stack_overflow_ends_the_process_and_not_its_neighbour)
{
	struct stack_cache cache;
	struct stack s;
	int status;
	pid_t pid;

	stack_cache_init(&cache, STACK_BYTES_DEFAULT, 1);
	ck_assert_int_eq(stack_get(&cache, &s), 0);
	*(volatile char *)s.base = 1;
	pid = fork();
	if (pid == 0) {
		int null = dup2(fileno(tmpfile()), STDERR_FILENO); /* a sanitizer has much to say of it */

		(void)null;
		((volatile char *)s.base)[-1] = 1;
		_exit(0);
	}
	ck_assert_int_eq(waitpid(pid, &status, 0), pid);
	ck_assert_msg(!WIFEXITED(status) || WEXITSTATUS(status) != 0, "the guard let a write through");
	stack_put(&cache, &s);
	stack_cache_fini(&cache);
}

TEST(test_stack_exhaustion_is_an_error_and_leaves_the_cache_usable)
{
	struct stack_cache cache;
	struct stack s[64];
	struct rlimit old, low;
	int n = 0, r = 0;

#ifdef SANITIZED
	test_skip("the sanitizer needs the address space itself");
#endif
	stack_cache_init(&cache, 64u << 20, 64);
	ck_assert_int_eq(getrlimit(RLIMIT_AS, &old), 0);
	low = (struct rlimit){ .rlim_cur = 1u << 30, .rlim_max = old.rlim_max };
	ck_assert_int_eq(setrlimit(RLIMIT_AS, &low), 0);
	while (n < 64 && (r = stack_get(&cache, &s[n])) == 0)
		n++;
	ck_assert_int_eq(r, -ENOMEM);
	ck_assert_int_gt(n, 0);
	ck_assert_uint_eq(cache.in_use, (size_t)n);
	stack_put(&cache, &s[--n]);
	ck_assert_int_eq(stack_get(&cache, &s[n]), 0);
	n++;
	while (n > 0)
		stack_put(&cache, &s[--n]);
	stack_cache_fini(&cache);
	setrlimit(RLIMIT_AS, &old);
}
