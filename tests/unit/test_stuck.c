/* What one thread notes about a callback, and others read: postcopy/stuck.h */
#include "tests/support/check_main.h"

#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>
#include <string.h>
#include <unistd.h>

#include "postcopy/stuck.h"

#define LONG_AGO 1 /* ns: it is stuck at once */

static struct stuck s;
static char text[STUCK_TEXT_BYTES];

static bool is_readable(void)
{
	return poll(&(struct pollfd){ .fd = s.fd, .events = POLLIN }, 1, 0) == 1;
}

/* However long it has taken by now. */
static bool says(const char *line, const char *place)
{
	static const char begin[] = "the callback ready: stuck for ";
	size_t at = strlen(begin);

	if (strncmp(line, begin, at) != 0)
		return false;
	at += strspn(line + at, "0123456789");
	at += line[at] == ' ' && line[at + 1] == 'm' ? 3 : 2; /* " ms", " s" */
	return strcmp(line + at, place) == 0;
}

static void setup(void)
{
	ck_assert_int_eq(stuck_init(&s), 0);
}

static void teardown(void)
{
	stuck_fini(&s);
	stuck_fini(&s);
}

TEST_CASE("note", 60, .checked = { setup, teardown });

TEST(test_stuck_is_readable_from_the_note_to_the_reading)
{
	stuck_enter(&s, "the callback ready", LONG_AGO, "");
	ck_assert(!is_readable());
	stuck_note(&s, " at pc 0x1: busy");
	ck_assert(is_readable());
	ck_assert_uint_eq(stuck_text(&s, text, sizeof(text)), strlen(text));
	ck_assert(says(text, " at pc 0x1: busy"));
	ck_assert(!is_readable());
	/* A second question gets the same answer; there is no news until the next note. */
	ck_assert_uint_gt(stuck_text(&s, text, sizeof(text)), 0);
	stuck_note(&s, " at pc 0x2: busy");
	ck_assert(is_readable());
	stuck_leave(&s);
	ck_assert(!is_readable());
	ck_assert_uint_eq(stuck_text(&s, text, sizeof(text)), 0);
	ck_assert(says(stuck_line(&s), " at pc 0x2: busy"));
	ck_assert_ptr_null(stuck_line(&s));
}

TEST(test_stuck_without_a_note_is_told_by_the_clock)
{
	struct pollfd p = { .fd = s.fd, .events = POLLIN };

	stuck_enter(&s, "the callback log", LONG_AGO, ": busy or blocked");
	ck_assert_int_eq(poll(&p, 1, 20000), 1);
	ck_assert_uint_gt(stuck_text(&s, text, sizeof(text)), 0);
	ck_assert_ptr_nonnull(strstr(text, " ms: busy or blocked"));
	stuck_leave(&s);
	ck_assert_ptr_nonnull(stuck_line(&s));
	stuck_enter(&s, "a device", LONG_AGO, "");
	ck_assert_int_eq(poll(&p, 1, 20000), 1);
	ck_assert_uint_gt(stuck_text(&s, text, sizeof(text)), 0);
	ck_assert_ptr_nonnull(strstr(text, "inside a system call"));
	stuck_leave(&s);
}

TEST(test_stuck_says_nothing_of_what_is_short_or_not_timed)
{
	stuck_enter(&s, "short", 1000000000ull * 3600, "");
	ck_assert_uint_eq(stuck_text(&s, text, sizeof(text)), 0);
	stuck_leave(&s);
	stuck_enter(&s, "not timed", 0, "");
	usleep(1000);
	ck_assert_uint_eq(stuck_text(&s, text, sizeof(text)), 0);
	stuck_leave(&s);
	stuck_leave(&s);
	ck_assert_ptr_null(stuck_line(&s));
	ck_assert(!is_readable());
}

TEST(test_stuck_text_fits_any_buffer)
{
	char what[STUCK_WHAT_BYTES + 50], where[STUCK_WHERE_BYTES + 50], whole[STUCK_TEXT_BYTES];
	size_t bytes;

	memset(what, 'w', sizeof(what));
	memset(where, 'p', sizeof(where));
	what[sizeof(what) - 1] = where[sizeof(where) - 1] = '\0';
	stuck_enter(&s, what, LONG_AGO, "");
	stuck_note(&s, where);
	bytes = stuck_text(&s, whole, sizeof(whole));
	ck_assert_uint_eq(bytes, strlen(whole)); /* the longest there is */
	for (size_t n = 0; n <= bytes + 1; n++) {
		memset(text, 0x5a, sizeof(text));
		ck_assert_uint_gt(stuck_text(&s, text, n), 0);
		if (n > 0)
			ck_assert_uint_eq(strlen(text), n - 1 < bytes ? n - 1 : bytes);
		ck_assert(n == 0 || strncmp(text, whole, 190) == 0 || n < 191);
		ck_assert(n == sizeof(text) || (uint8_t)text[n] == 0x5a);
	}
	stuck_leave(&s);
}

/* ---- a reader beside the writer ---- */

static atomic_bool over;
static unsigned long whole_count, torn_count;

static bool is_whole(const char *line)
{
	char c = line[0];
	size_t n = strspn(line, (char[2]){ c });
	const char *place = strstr(line, " at ");

	return n == 40 && (!place || (strlen(place + 4) == 40 && strspn(place + 4, (char[2]){ c }) == 40));
}

static void *reads(void *arg)
{
	static char line[STUCK_TEXT_BYTES];

	while (!atomic_load(&over)) {
		if (stuck_text(&s, line, sizeof(line)) == 0)
			continue;
		whole_count += is_whole(line);
		torn_count += !is_whole(line);
	}
	return arg;
}

TEST(test_stuck_text_is_never_half_of_two)
{
	char what[41] = "", where[45] = " at ";
	pthread_t thread;

	atomic_store(&over, false);
	ck_assert_int_eq(pthread_create(&thread, NULL, reads, NULL), 0);
	for (unsigned i = 0; i < 20000; i++) {
		memset(what, 'A' + (int)(i % 26), 40);
		memset(where + 4, 'A' + (int)(i % 26), 40);
		stuck_enter(&s, what, LONG_AGO, "");
		stuck_note(&s, where);
		stuck_leave(&s);
	}
	atomic_store(&over, true);
	pthread_join(thread, NULL);
	ck_assert_uint_eq(torn_count, 0);
}
