#include "tests/support/several.h"
#include "tests/support/temp.h"

#include <check.h>
#include <dirent.h>
#include <errno.h>
#include <limits.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/assert.h"
#include "base/clock.h"

#define QUIET_MS 5
#define END_MS 10000

unsigned several_fds(void)
{
	DIR *dir = opendir("/proc/self/fd");
	unsigned count = 0;

	ASSERT(dir);
	while (readdir(dir))
		count++;
	closedir(dir);
	return count - 3; /* ".", ".." and the directory itself */
}

static void must(struct several *s, int r, const char *what)
{
	const char *error = s->scene.e.inm ? inm_error(s->scene.e.inm) : NULL;

	ck_assert_msg(r >= 0, "%s: %s (%s)", what, strerror(-r), error ? error : "no text");
}

static void set_number(struct several *s, const char *name, unsigned value)
{
	char text[16];

	snprintf(text, sizeof(text), "%u", value);
	must(s, inm_set_parameter(s->scene.e.inm, name, text), name);
}

static void configure(struct several *s, const struct multifd_opts *m, const struct several_opts *o)
{
	struct inm *inm = s->scene.e.inm;
	const char *method = m->method == WIRE_MULTIFD_ZLIB ? "zlib" : m->method == WIRE_MULTIFD_ZSTD ? "zstd" : "none";

	must(s, inm_set_capability(inm, "multifd", true), "multifd");
	set_number(s, "multifd-channels", o->channels_here ? o->channels_here : s->h.count);
	must(s, inm_set_parameter(inm, "multifd-compression", method), "multifd-compression");
	must(s, inm_set_parameter(inm, "connect-deadline", o->deadline_s ? o->deadline_s : "5"), "connect-deadline");
	for (unsigned i = 0; o->params && o->params[i]; i += 2)
		must(s, inm_set_parameter(inm, o->params[i], o->params[i + 1]), o->params[i]);
}

void several_begin(struct several *s, const struct multifd_opts *m, const struct several_opts *o)
{
	static const struct several_opts none;
	char uri[128] = "tcp:127.0.0.1:0";

	o = o ? o : &none;
	memset(s, 0, sizeof(*s));
	s->lines = calloc(SEVERAL_LINES_MAX, sizeof(*s->lines));
	ASSERT(s->lines);
	scene_begin(&s->scene, NULL);
	multifd_honest(&s->h, m);
	for (unsigned i = 0; i < s->h.image.block_count; i++)
		embedder_add(&s->scene.e, s->h.image.blocks[i].name, s->h.image.blocks[i].bytes,
		             o->anon ? EMB_ANON : EMB_MEMFD);
	s->return_path = m->return_path;
	s->cancel_at = UINT_MAX;
	s->result = 1;
	land_new(&s->scene.e, &(struct land_opts){ .return_path = m->return_path, .ops = o->ops, .config = o->config });
	configure(s, m, o);
	if (!o->tcp) {
		temp_name(s->dir, "test");
		ASSERT(mkdtemp(s->dir));
		snprintf(uri, sizeof(uri), "unix:%s/socket", s->dir);
	}
	must(s, inm_listen(s->scene.e.inm, uri), uri);
	snprintf(s->address, sizeof(s->address), "%s", inm_address(s->scene.e.inm, 0));
}

unsigned several_connect(struct several *s, const struct wire *w)
{
	struct pump *p = &s->lines[s->line_count];
	uint64_t deadline_ns = deadline_after_ns(5 * NS_PER_S);
	int e;

	ASSERT(s->line_count < SEVERAL_LINES_MAX);
	while ((e = pump_connect(p, w, s->address)) == -EAGAIN && clock_now_ns() < deadline_ns)
		several_turn(s); /* the backlog is full */
	ck_assert_msg(s->result == 1, "did not land: it ended before all had connected");
	ck_assert_msg(e == 0, "connecting to %s: %s", s->address, strerror(-e));
	p->stop_at = 0;
	p->end = PUMP_HOLD;
	p->return_path = s->return_path && s->line_count == SEVERAL_MAIN;
	return s->line_count++;
}

const struct wire *several_wire(const struct several *s, unsigned line)
{
	return line == SEVERAL_MAIN ? &s->h.main : &s->h.channels[line - 1];
}

void several_connect_all(struct several *s)
{
	for (unsigned i = 0; i <= s->h.count; i++)
		several_connect(s, several_wire(s, i));
}

void several_allow(struct several *s, unsigned line, size_t upto)
{
	struct pump *p = &s->lines[line];

	p->stop_at = upto < p->wire->len ? upto : p->wire->len;
}

void several_close(struct several *s, unsigned line)
{
	struct pump *p = &s->lines[line];

	while (p->written < p->stop_at && several_turn(s))
		;
	pump_close(p);
}

bool several_turn(struct several *s)
{
	bool moved = false;

	if (s->dispatches == s->cancel_at)
		inm_cancel(s->scene.e.inm);
	if (s->result == 1) {
		s->result = inm_dispatch(s->scene.e.inm);
		s->dispatches++;
	}
	for (unsigned i = 0; i < s->line_count; i++)
		moved |= pump_step(&s->lines[i]);
	return moved;
}

/* Return: whether the library had something to do within @ms. */
static bool wait_for_work(struct several *s, unsigned ms)
{
	struct pollfd pfd = { .fd = inm_fd(s->scene.e.inm), .events = POLLIN };

	return poll(&pfd, 1, (int)ms) > 0;
}

void several_settle(struct several *s)
{
	do {
		while (several_turn(s))
			;
	} while (s->result == 1 && wait_for_work(s, s->quiet_ms ? s->quiet_ms : QUIET_MS));
}

int several_run(struct several *s, unsigned ms)
{
	uint64_t deadline_ns = deadline_after_ns(ms * NS_PER_MS);

	while (s->result == 1 && clock_now_ns() < deadline_ns) {
		if (!several_turn(s) && s->result == 1)
			wait_for_work(s, 1);
	}
	return s->result;
}

int several_finish(struct several *s)
{
	for (unsigned i = 0; i <= s->h.count && i < s->line_count; i++) {
		several_allow(s, i, SEVERAL_ALL);
		/* With a return path a source keeps all of them until it has been told (doc/wire/multifd.md 9.1). */
		s->lines[i].end = i == SEVERAL_MAIN ? PUMP_HONEST : s->return_path ? PUMP_HOLD : PUMP_CLOSE;
	}
	return several_run(s, END_MS);
}

void several_free(struct several *s)
{
	struct embedder *e = &s->scene.e;
	const char *error;

	if (!e->inm)
		return;
	for (unsigned i = 0; i < s->line_count; i++) {
		while (pump_step(&s->lines[i])) /* what the destination said last */
			;
		pump_close(&s->lines[i]);
	}
	e->result = s->result;
	error = inm_error(e->inm);
	snprintf(e->error, sizeof(e->error), "%s", error ? error : "");
	e->stats.size = sizeof(e->stats);
	inm_get_stats(e->inm, &e->stats);
	inm_free(e->inm);
	e->inm = NULL;
}

static unsigned device_differences(const struct several *s)
{
	return embedder_compare_devices(&s->scene.e, &s->h.main);
}

void several_check_landed(struct several *s)
{
	struct embedder *e = &s->scene.e;

	ck_assert_msg(s->result != 1, "it hangs");
	several_free(s);
	ck_assert_msg(e->result == 0, "did not land: %d: %s", e->result, e->error);
	ck_assert_msg(embedder_compare(e, &s->h.image) == 0, "pages are not what was sent last");
	ck_assert_uint_eq(device_differences(s), 0);
	ck_assert_uint_eq(e->start_calls, 1);
	ck_assert(!e->device_after_start);
	ck_assert_uint_eq(e->stats.remaining_pages, 0);
	for (unsigned i = 0; i < s->line_count; i++)
		if (s->lines[i].return_path && s->lines[i].wire == &s->h.main)
			ck_assert_uint_eq(source_reply_value(&s->lines[i].report, WIRE_RP_SHUT, 0), 0);
}

static bool has_one_of(const char *text, const char *words)
{
	char copy[512], *save = NULL;

	snprintf(copy, sizeof(copy), "%s", words);
	for (char *w = strtok_r(copy, "|", &save); w; w = strtok_r(NULL, "|", &save))
		if (strcasestr(text, w))
			return true;
	return false;
}

void several_check_failed(struct several *s, int code, const char *words)
{
	struct embedder *e = &s->scene.e;

	ck_assert_msg(s->result != 1, "it hangs");
	several_free(s);
	ck_assert_msg(e->result == code, "%d instead of %d: %s", e->result, code, e->error);
	ck_assert_msg(!words || has_one_of(e->error, words), "no '%s' in: %s", words, e->error);
	/* It counts the calls of ready: a cancel may come between that and the last word, in another dispatch. */
	ck_assert_uint_le(e->start_calls, code == -ECANCELED);
	ck_assert_int_eq(e->stats.state, code == -ECANCELED ? INM_STATE_CANCELLED : INM_STATE_FAILED);
}

void several_end(struct several *s)
{
	several_free(s);
	if (s->dir[0]) {
		ck_assert_msg(rmdir(s->dir) == 0, "the socket is left behind: %s", strerror(errno));
	}
	multifd_honest_fini(&s->h);
	free(s->lines);
	scene_end(&s->scene);
}
