#include "postcopy/stuck.h"

#include "base/clock.h"

#include <errno.h>
#include <sched.h>
#include <string.h>
#include <sys/timerfd.h>
#include <unistd.h>

/* The handler, which knows more, is to be first. */
#define GRACE_NS (100 * NS_PER_MS)

/* A reader that meets the writer so often in a row gives up: the writer was taken off its processor in the middle. */
#define READ_TRIES 1000u

int stuck_init(struct stuck *s)
{
	*s = STUCK_NONE;
	s->fd = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
	return s->fd < 0 ? -errno : 0;
}

void stuck_fini(struct stuck *s)
{
	if (s->fd >= 0)
		close(s->fd);
	*s = STUCK_NONE;
}

/* ---- text, made in a signal handler: nothing of stdio --------------------------------------------------------- */

struct text {
	char *buf;
	size_t bytes, len; /* len as if all of it had fitted */
};

static void put(struct text *t, const char *s)
{
	for (; *s; s++, t->len++)
		if (t->len + 1 < t->bytes)
			t->buf[t->len] = *s;
	if (t->bytes > 0)
		t->buf[t->len < t->bytes ? t->len : t->bytes - 1] = '\0';
}

static void put_number(struct text *t, uint64_t n)
{
	char digits[24];
	size_t i = sizeof(digits);

	digits[--i] = '\0';
	do {
		digits[--i] = (char)('0' + n % 10);
		n /= 10;
	} while (n > 0);
	put(t, digits + i);
}

static void put_duration(struct text *t, uint64_t ns)
{
	bool long_one = ns >= NS_PER_S;

	put_number(t, ns / (long_one ? NS_PER_S : NS_PER_MS));
	put(t, long_one ? " s" : " ms");
}

/* A place that nobody could look at is one inside the kernel: see yield.h (4). */
static size_t compose(char *buf, size_t bytes, const char *what, uint64_t lasted_ns, const char *where)
{
	struct text t = { .buf = buf, .bytes = bytes };

	put(&t, what);
	put(&t, ": stuck for ");
	put_duration(&t, lasted_ns);
	put(&t, where[0] ? where :
	                   ", inside a system call, perhaps one that was given an address in the guest view "
	                   "and waits for a missing page");
	return t.len;
}

/* ---- one writer ----------------------------------------------------------------------------------------------- */

static void begin_write(struct stuck *s)
{
	__atomic_store_n(&s->version, s->version + 1, __ATOMIC_RELAXED);
}

static void end_write(struct stuck *s)
{
	__atomic_store_n(&s->version, s->version + 1, __ATOMIC_RELEASE);
}

/*
 * Byte by byte, because others read meanwhile: by (1) they drop what they have got, but it must not be a data race.
 * Each store releases and each load acquires: a reader that has seen a new byte sees the odd version, too. (Not a
 * fence, which ThreadSanitizer does not know.)
 */
static void store_text(char *to, size_t bytes, const char *from)
{
	size_t i = 0;

	for (; from[i] && i + 1 < bytes; i++)
		__atomic_store_n(&to[i], from[i], __ATOMIC_RELEASE);
	__atomic_store_n(&to[i], '\0', __ATOMIC_RELEASE);
}

static void load_text(char *to, size_t bytes, const char *from)
{
	size_t i = 0;
	char c;

	for (; i + 1 < bytes && (c = __atomic_load_n(&from[i], __ATOMIC_ACQUIRE)); i++)
		to[i] = c;
	to[i] = '\0';
}

/* Readable at this point of the clock, and not before; 0: disarmed, and not readable. */
static void arm(const struct stuck *s, uint64_t at_ns)
{
	struct itimerspec at = { .it_value = { .tv_sec = (time_t)(at_ns / NS_PER_S),
		                               .tv_nsec = (long)(at_ns % NS_PER_S) } };

	/* Cannot fail: the descriptor is there and the time is one. */
	if (s->fd >= 0)
		timerfd_settime(s->fd, TFD_TIMER_ABSTIME, &at, NULL);
}

void stuck_enter(struct stuck *s, const char *what, uint64_t after_ns, const char *where)
{
	uint64_t now_ns = clock_now_ns();

	begin_write(s);
	store_text(s->what, sizeof(s->what), what);
	store_text(s->where, sizeof(s->where), where);
	__atomic_store_n(&s->since_ns, now_ns, __ATOMIC_RELEASE);
	__atomic_store_n(&s->after_ns, after_ns, __ATOMIC_RELEASE);
	end_write(s);
	s->notes = 0;
	if (after_ns > 0 && after_ns < (uint64_t)INT64_MAX - now_ns - GRACE_NS)
		arm(s, now_ns + after_ns + GRACE_NS);
}

void stuck_leave(struct stuck *s)
{
	uint64_t lasted_ns;

	if (s->since_ns == 0)
		return;
	arm(s, 0);
	lasted_ns = clock_now_ns() - s->since_ns;
	if (s->notes > 0 || (s->after_ns > 0 && lasted_ns > s->after_ns + GRACE_NS)) {
		compose(s->line, sizeof(s->line), s->what, lasted_ns, s->where);
		s->line_due = true;
	}
	begin_write(s);
	__atomic_store_n(&s->since_ns, 0, __ATOMIC_RELEASE);
	end_write(s);
}

void stuck_note(struct stuck *s, const char *where)
{
	begin_write(s);
	store_text(s->where, sizeof(s->where), where);
	end_write(s);
	__atomic_store_n(&s->notes, s->notes + 1, __ATOMIC_RELEASE);
	arm(s, 1); /* long ago: it is readable at once */
}

const char *stuck_line(struct stuck *s)
{
	if (!s->line_due)
		return NULL;
	s->line_due = false;
	return s->line;
}

/* ---- many readers --------------------------------------------------------------------------------------------- */

struct copy {
	uint64_t since_ns, after_ns;
	char what[STUCK_WHAT_BYTES], where[STUCK_WHERE_BYTES];
};

static bool copy_once(const struct stuck *s, struct copy *ret)
{
	unsigned before = __atomic_load_n(&s->version, __ATOMIC_ACQUIRE);

	if (before % 2)
		return false;
	ret->since_ns = __atomic_load_n(&s->since_ns, __ATOMIC_ACQUIRE);
	ret->after_ns = __atomic_load_n(&s->after_ns, __ATOMIC_ACQUIRE);
	load_text(ret->what, sizeof(ret->what), s->what);
	load_text(ret->where, sizeof(ret->where), s->where);
	return __atomic_load_n(&s->version, __ATOMIC_RELAXED) == before;
}

size_t stuck_text(struct stuck *s, char *buf, size_t bytes)
{
	uint64_t expired, now_ns;
	struct copy c;
	ssize_t ignored;

	if (bytes > 0)
		buf[0] = '\0';
	/* First: what comes after it makes the descriptor readable again. */
	ignored = read(s->fd, &expired, sizeof(expired));
	(void)ignored;
	for (unsigned i = 0; !copy_once(s, &c); i++) {
		if (i == READ_TRIES) {
			arm(s, 1); /* the news is still to be read */
			return 0;
		}
		sched_yield();
	}
	now_ns = clock_now_ns();
	if (c.since_ns == 0 || c.after_ns == 0 || now_ns - c.since_ns < c.after_ns)
		return 0;
	return compose(buf, bytes, c.what, now_ns - c.since_ns, c.where);
}
