/*
 * check_main.h - what all test programs that use Check share
 *
 * A test is a function, and joins the case above it:
 *
 *   TEST_CASE("order", 60);                                  each of its tests may take so many seconds
 *   TEST(test_main_comes_last) { ... }
 *   TEST_EACH(test_main_comes_at_any_time, 4) { ... }        four tests: _i is 0 to 3
 *   TEST_ROWS(test_a_stranger_changes_nothing, strangers)    one for each row of the array: _i is its number
 *   {
 *           ... &strangers[_i] ...
 *   }
 *
 * That is all of a program. main() runs it, prints what Check reports, and tells the runner (scripts/run-tests) how
 * many tests passed, failed and were skipped. CK_RUN_CASE and the other variables of Check work as usual.
 *
 * A program with a main() of its own does not get this one, and may exit with 77 for "skipped".
 */
#ifndef TESTS_SUPPORT_CHECK_MAIN_H
#define TESTS_SUPPORT_CHECK_MAIN_H

#include <check.h>
#include <signal.h>

/* Is this a build with AddressSanitizer? */
#if defined(__has_feature)
#if __has_feature(address_sanitizer)
#define WITH_ASAN 1
#endif
#elif defined(__SANITIZE_ADDRESS__)
#define WITH_ASAN 1
#endif
#ifndef WITH_ASAN
#define WITH_ASAN 0
#endif

/* What the macros below leave behind, in the order of their lines. */
struct test_entry {
	struct test_entry *next;
	int line;
	void (*add)(TCase *t); /* of a test; NULL: a case begins */
	const char *name;
	double seconds;
	TCase *tcase; /* made of it */
	struct {
		void (*setup)(void), (*teardown)(void);
	} checked, unchecked; /* around each test; and once, in the process that outlives the tests */
};

void test_enter(struct test_entry *entry);

#define TEST_PASTE_(a, b) a##b
#define TEST_PASTE(a, b) TEST_PASTE_(a, b)
#define TEST_ENTER(id, ...) \
	static struct test_entry id; \
	__attribute__((constructor)) static void TEST_PASTE(id, _enter)(void) \
	{ \
		id = (struct test_entry){ .line = __LINE__, __VA_ARGS__ }; \
		test_enter(&id); \
	} \
	static struct test_entry id

/*
 * TEST_CASE(name, seconds): the tests that follow are of this case; each may take so many seconds; 0: any time. More
 * arguments are its fixtures: .checked = { setup, teardown }. A name that was there before goes on with that case.
 */
#define TEST_CASE(case_name, ...) TEST_CASE_(TEST_PASTE(test_case_, __LINE__), case_name, __VA_ARGS__)
#define TEST_CASE_(id, case_name, secs, ...) TEST_ENTER(id, .name = (case_name), .seconds = (secs), __VA_ARGS__)

#define TEST(name) TEST_RANGE(name, 0, 1)
#define TEST_EACH(name, count) TEST_RANGE(name, 0, count)
#define TEST_ROWS(name, rows) TEST_RANGE(name, 0, (int)(sizeof(rows) / sizeof((rows)[0])))
#define TEST_RANGE(name, from, to) TEST_(name, 0, from, to)
/* It must abort: an assertion of the library's. */
#define TEST_ABORTS(name) TEST_(name, SIGABRT, 0, 1)
#define TEST_(name, sig, from, to) \
	static void name##_body(int _i); \
	START_TEST(name) \
	{ \
		name##_body(_i); \
	} \
	END_TEST \
	TEST_ADD(name, TEST_PASTE(name##_, __LINE__), sig, from, to); \
	static void name##_body(int _i __attribute__((unused)))

/* Runs a test from above in this case, too; or with other numbers, with which it aborts. */
#define TEST_AGAIN(name, from, to) TEST_ADD(name, TEST_PASTE(name##_, __LINE__), 0, from, to)
#define TEST_AGAIN_ABORTS(name, from, to) TEST_ADD(name, TEST_PASTE(name##_, __LINE__), SIGABRT, from, to)
#define TEST_ADD(name, id, sig, from, to) \
	static void TEST_PASTE(id, _add)(TCase * t) \
	{ \
		tcase_add_loop_test_raise_signal(t, name, sig, from, to); \
	} \
	TEST_ENTER(id, .add = TEST_PASTE(id, _add))

/**
 * test_skip - end the test that runs now: it neither passed nor failed
 * @why: printed, and shown again by the runner
 * Check has no skipped tests. A test runs in a process of its own, so it notes the skip in a file, and main() counts
 * the notes at the end; Check itself sees a test that passed. Does not return.
 */
#define test_skip(why) test_skip_in(__func__, (why))

_Noreturn void test_skip_in(const char *func, const char *why);

/* Skips the test where a process may not have so many files open. */
#define test_need_files(count) test_need_files_in(__func__, (count))

void test_need_files_in(const char *func, unsigned count);

#endif
