/* Cases of a suite. See check_main.h and huge_pool.h. */
#include "tests/support/check_main.h"
#include "tests/support/huge_pool.h"

TCase *suite_case(Suite *s, const char *name, double seconds)
{
	TCase *t = tcase_create(name);

	tcase_set_timeout(t, seconds);
	suite_add_tcase(s, t);
	return t;
}

static void fill_pool(void)
{
	huge_pool_fill(HUGE_POOL_PAGES);
}

TCase *huge_pool_case(Suite *s, const char *name, double seconds)
{
	TCase *t = suite_case(s, name, seconds);

	tcase_add_unchecked_fixture(t, fill_pool, huge_pool_restore);
	return t;
}

void huge_pool_need(uint64_t pages)
{
	long there = huge_pool_free();

	if (there < 0 || (uint64_t)there < pages)
		test_skip("no huge pages of 2 MiB");
}
