#include "tests/support/postcopy_scene.h"

#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <malloc.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/assert.h"
#include "base/clock.h"
#include "tests/support/check_main.h"
#include "tests/support/huge_pool.h"
#include "tests/support/temp.h"
#include "tests/support/tls_peer.h"

#define END_MS 20000
#define QUIET_MS 10
#define CANCEL_MS 5000
#define WAITS_NS (5 * NS_PER_MS) /* of somebody who waits in earnest */
#define LOOK_MS 10               /* between two looks at the books */

/* ---- callbacks --------------------------------------------------------------------------------------------------- */

static struct pc *scene_of(void *opaque)
{
	return (struct pc *)((char *)opaque - offsetof(struct pc, e));
}

static int on_ram_block(void *opaque, struct inm_ram_block *block)
{
	return embedder_ops.ram_block(opaque, block);
}

static int on_device(void *opaque, const struct inm_device *device)
{
	struct pc *s = scene_of(opaque);
	unsigned nth = s->e.device_count;
	int r = embedder_ops.device(opaque, device);

	if (r < 0 || nth != 1 || !s->o.device)
		return r;
	s->device_result = s->o.device(s, device);
	s->device_ended = true;
	return s->device_result;
}

static int on_ready(void *opaque, const char *run_state)
{
	scene_of(opaque)->ready_calls++;
	return embedder_ops.ready(opaque, run_state);
}

static void on_start_vcpus(void *opaque, const char *run_state)
{
	struct pc *s = scene_of(opaque);

	(void)run_state;
	s->vcpu_starts++;
	pc_guest_start(s);
}

static void on_state(void *opaque, enum inm_state state)
{
	embedder_ops.state_changed(opaque, state);
}

static void on_log(void *opaque, enum inm_log_level level, const char *text)
{
	struct pc *s = scene_of(opaque);
	size_t bytes = strlen(text);

	embedder_check_line(text);
	if (s->o.log)
		s->o.log(opaque, level, text);
	if (s->said_len + bytes + 2 > sizeof(s->said))
		return;
	memcpy(s->said + s->said_len, text, bytes);
	s->said[s->said_len + bytes] = '\n';
	s->said_len += bytes + 1;
}

static const struct inm_ops pc_ops = {
	.size = sizeof(struct inm_ops),
	.ram_block = on_ram_block,
	.device = on_device,
	.ready = on_ready,
	.start_vcpus = on_start_vcpus,
	.state_changed = on_state,
	.log = on_log,
};

/* ---- beginning --------------------------------------------------------------------------------------------------- */

void pc_need(void)
{
	int fd = open("/dev/userfaultfd", O_RDWR | O_CLOEXEC);

	if (fd < 0)
		fd = (int)syscall(SYS_userfaultfd, O_CLOEXEC);
	if (fd < 0)
		test_skip("no userfaultfd for this user");
	close(fd);
}

static void *zeroed(uint64_t count)
{
	void *p = calloc(count, 1);

	ASSERT(p);
	return p;
}

static void add_ram(struct pc *s, const struct pc_block *said)
{
	struct pc_ram *ram = &s->ram[s->ram_count++];
	struct emb_block *b;

	ASSERT(s->ram_count <= PC_BLOCKS_MAX);
	*ram = (struct pc_ram){ .said = *said,
		                .bytes = said->pages * PC_PAGE,
		                .unit_pages = said->backing == EMB_HUGETLB ? PC_HUGE_BYTES / PC_PAGE : 1 };
	ram->units = (said->pages + ram->unit_pages - 1) / ram->unit_pages;
	ram->precopied = zeroed(ram->units);
	ram->reserved = zeroed(ram->units);
	ram->sent = zeroed(ram->units);
	ram->asked = zeroed(ram->units);
	ram->removed = zeroed(said->pages);
	b = embedder_add(&s->e, said->name, ram->bytes + s->o.spare_pages * PC_PAGE, said->backing);
	b->resizable = s->o.spare_pages > 0;
	b->unplugged = s->o.unplugged;
}

static void set_capability(struct pc *s, const char *name)
{
	int r = inm_set_capability(s->e.inm, name, true);

	ck_assert_msg(r == 0, "%s: %s", name, inm_error(s->e.inm));
}

static void set_parameter(struct pc *s, const char *name, const char *value)
{
	int r = inm_set_parameter(s->e.inm, name, value);

	ck_assert_msg(r == 0, "%s=%s: %s", name, value, inm_error(s->e.inm));
}

static void configure_tls(struct pc *s)
{
#if HAVE_GNUTLS
	tls_dir_make(s->tls_dir, NULL);
	set_parameter(s, "tls-creds", "t");
	set_parameter(s, "tls-creds-dir", s->tls_dir);
	set_parameter(s, "tls-creds-type", "psk");
#else
	(void)s;
	test_skip("built without GnuTLS");
#endif
}

static void configure(struct pc *s)
{
	char number[16];

	set_capability(s, "postcopy-ram");
	if (s->o.preempt != PC_NO_PREEMPT)
		set_capability(s, "postcopy-preempt");
	if (s->o.channels) {
		set_capability(s, "multifd");
		snprintf(number, sizeof(number), "%u", s->o.channels);
		set_parameter(s, "multifd-channels", number);
		if (s->o.compression)
			set_parameter(s, "multifd-compression", s->o.compression);
	}
	set_parameter(s, "postcopy-prefetch", s->o.prefetch ? "on" : "off");
	set_parameter(s, "connect-deadline", s->o.connect_deadline ? s->o.connect_deadline : "5");
	set_parameter(s, "postcopy-kernel-faults", s->o.kernel_faults ? "on" : "off");
	if (s->o.stuck_after)
		set_parameter(s, "stuck-after", s->o.stuck_after);
	if (s->o.tls)
		configure_tls(s);
}

#ifdef __SANITIZE_THREAD__
static void *do_nothing(void *arg)
{
	return arg;
}
#endif

/* ThreadSanitizer has a thread of its own from the first one on that is made: the census is to see it before. */
static void wake_the_sanitizer(void)
{
#ifdef __SANITIZE_THREAD__
	pthread_t thread;

	ASSERT(pthread_create(&thread, NULL, do_nothing, NULL) == 0);
	pthread_join(thread, NULL);
	usleep(2000);
#endif
}

void pc_begin(struct pc *s, const struct pc_opts *o)
{
	static const struct pc_block standard[] = { { "pc.ram", 64, EMB_MEMFD }, { "vga.vram", 16, EMB_MEMFD } };
	char uri[128];

	pc_need();
	memset(s, 0, sizeof(*s));
	s->o = *o;
	s->result = 1;
	if (!o->blocks) {
		s->o.blocks = standard;
		s->o.block_count = 2;
	}
	/* Another arena is address space that the census would see, and allocating in two threads makes one. */
	mallopt(M_ARENA_MAX, 1);
	wake_the_sanitizer();
	census_take(&s->before);
	embedder_init(&s->e);
	for (unsigned i = 0; i < s->o.block_count; i++)
		add_ram(s, &s->o.blocks[i]);
	for (unsigned i = 0; i < s->ram_count; i++)
		s->ram[i].emb = &s->e.blocks[i];
	embedder_map_guests(&s->e);
	pc_guest_begin(s);
	s->o.config.log_level = INM_LOG_DEBUG;
	land_new(&s->e, &(struct land_opts){ .return_path = true, .ops = &pc_ops, .config = s->o.config });
	configure(s);
	temp_name(s->dir, "test");
	ASSERT(mkdtemp(s->dir));
	snprintf(uri, sizeof(uri), "unix:%s/socket", s->dir);
	ck_assert_int_eq(inm_listen(s->e.inm, uri), 0);
	snprintf(s->address, sizeof(s->address), "%s", inm_address(s->e.inm, 0));
	pc_source_begin(s);
}

/* ---- playing ----------------------------------------------------------------------------------------------------- */

static void look(struct pc *s)
{
	if (!s->o.look || s->result != 1 || clock_now_ns() < s->looked_ns + LOOK_MS * NS_PER_MS)
		return;
	s->looked_ns = clock_now_ns();
	s->o.look(s);
}

bool pc_turn(struct pc *s)
{
	bool moved;

	if (s->result == 1)
		s->result = inm_dispatch(s->e.inm);
	look(s);
	moved = pc_source_step(s);
	return moved;
}

static void wait_a_little(struct pc *s, int ms)
{
	struct pollfd pfd = { .fd = inm_fd(s->e.inm), .events = POLLIN };

	poll(&pfd, 1, ms);
}

bool pc_until(struct pc *s, pc_done_fn *done, unsigned ms)
{
	uint64_t deadline_ns = deadline_after_ns(ms * NS_PER_MS);

	while (!done(s) && s->result == 1 && clock_now_ns() < deadline_ns)
		if (!pc_turn(s) && s->result == 1)
			wait_a_little(s, 1);
	return done(s);
}

static bool never(struct pc *s)
{
	(void)s;
	return false;
}

int pc_run(struct pc *s, unsigned ms)
{
	pc_until(s, never, ms);
	return s->result;
}

void pc_settle(struct pc *s)
{
	struct pollfd pfd = { .fd = inm_fd(s->e.inm), .events = POLLIN };

	do {
		while (pc_turn(s))
			;
	} while (s->result == 1 && poll(&pfd, 1, QUIET_MS) > 0);
}

void pc_precopy(struct pc *s)
{
	if (s->o.preempt == PC_BEFORE_MAIN) {
		pc_source_connect(s, PC_PREEMPT);
		pc_settle(s);
	}
	pc_source_connect(s, PC_MAIN);
	for (unsigned i = 0; i < s->o.channels; i++)
		pc_source_connect(s, PC_MULTIFD + i);
	if (s->o.preempt == PC_EARLY)
		pc_source_connect(s, PC_PREEMPT);
	pc_allow(s, s->switch_at);
	pc_settle(s);
}

void pc_switch(struct pc *s)
{
	if (s->lines[PC_MAIN].fd < 0)
		pc_precopy(s);
	if (s->o.preempt == PC_LATE) {
		pc_source_connect(s, PC_PREEMPT);
		pc_settle(s);
	}
	if (s->o.preempt == PC_WITH_PACKAGE)
		pc_source_connect(s, PC_PREEMPT);
	s->preempt_due = s->o.preempt == PC_AFTER_PACKAGE;
	pc_allow(s, PC_ALL);
}

int pc_finish(struct pc *s)
{
	pc_switch(s);
	if (s->o.quiet && s->o.touch.threads)
		pc_until(s, pc_touched_all, END_MS);
	pc_push(s);
	return pc_run(s, END_MS);
}

bool pc_vcpus_started(struct pc *s)
{
	return s->vcpu_starts > 0;
}

bool pc_touched_all(struct pc *s)
{
	return s->vcpu_starts > 0 && atomic_load(&s->touchers_done) == s->o.touch.threads;
}

bool pc_asked(struct pc *s)
{
	return s->answered_count < s->request_count;
}

bool pc_paused(struct pc *s)
{
	return inm_get_state(s->e.inm) == INM_STATE_POSTCOPY_PAUSED;
}

bool pc_all_wait(struct pc *s)
{
	for (unsigned i = 0; i < s->o.touch.threads; i++) {
		uint64_t since_ns = atomic_load(&s->touchers[i].since_ns);

		if (!since_ns || clock_now_ns() < since_ns + WAITS_NS)
			return false;
	}
	return s->vcpu_starts > 0;
}

/* ---- the source in a thread of its own --------------------------------------------------------------------------- */

struct source_thread {
	struct pc *s;
	atomic_bool stop;
};

static void wait_for_lines(struct pc *s)
{
	struct pollfd fds[2] = { { .fd = s->lines[PC_MAIN].fd, .events = POLLIN } };

	if (s->lines[PC_MAIN].out.len > s->lines[PC_MAIN].done && s->lines[PC_MAIN].allowed == PC_ALL)
		fds[0].events |= POLLOUT;
	fds[1] = (struct pollfd){ .fd = s->lines[PC_PREEMPT].fd,
		                  .events = s->lines[PC_PREEMPT].out.len > s->lines[PC_PREEMPT].done ? POLLOUT : 0 };
	poll(fds, 2, 2);
}

static void *run_source(void *arg)
{
	struct source_thread *t = arg;
	struct pc *s = t->s;

	while (!atomic_load(&t->stop)) {
		if (s->o.quiet && !s->pushing && atomic_load(&s->touchers_done) == s->o.touch.threads)
			pc_push(s);
		if (!pc_source_step(s))
			wait_for_lines(s);
	}
	return NULL;
}

int pc_run_threaded(struct pc *s, unsigned ms)
{
	uint64_t deadline_ns = deadline_after_ns(ms * NS_PER_MS);
	struct source_thread t = { .s = s };
	struct pc_thread thread;

	pc_switch(s);
	pc_thread_start(&thread, run_source, &t);
	do {
		uint64_t slice_ns = deadline_after_ns(LOOK_MS * NS_PER_MS);

		s->result = inm_run_until(s->e.inm, s->o.look && slice_ns < deadline_ns ? slice_ns : deadline_ns);
		if (s->result == -ETIMEDOUT)
			s->result = 1;
		look(s);
	} while (s->result == 1 && clock_now_ns() < deadline_ns);
	atomic_store(&t.stop, true);
	pc_thread_join(&thread);
	return s->result;
}

/* ---- the end ----------------------------------------------------------------------------------------------------- */

void pc_free(struct pc *s)
{
	const char *error;

	if (!s->e.inm)
		return;
	while (pc_source_step(s)) /* what the destination said last */
		;
	s->e.result = s->result;
	error = inm_error(s->e.inm);
	snprintf(s->e.error, sizeof(s->e.error), "%s", error ? error : "");
	s->e.stats.size = sizeof(s->e.stats);
	inm_get_stats(s->e.inm, &s->e.stats);
	atomic_store(&s->stop, true);
	if (s->result != 0)
		atomic_store(&s->lost, true);
	inm_free(s->e.inm);
	s->e.inm = NULL;
	pc_guest_end(s);
	pc_lose(s);
}

static const char *state_text(const struct pc *s)
{
	static char text[400];

	snprintf(text, sizeof(text), "it hangs in state %s: %u requests, %zu answered, %lu touched, %u touchers done",
	         s->e.inm ? inm_state_name(inm_get_state(s->e.inm)) : "?", (unsigned)s->request_count,
	         s->answered_count, pc_touched(s), atomic_load(&s->touchers_done));
	return text;
}

static uint32_t shut_value(const struct pc *s)
{
	for (unsigned i = 0; i < s->reply_count; i++)
		if (s->replies[i].type == WIRE_RP_SHUT)
			return s->replies[i].payload[3];
	return UINT32_MAX;
}

/* Landed: nobody waits for a page any more. */
static void await_touchers(struct pc *s)
{
	uint64_t deadline_ns = deadline_after_ns(10 * NS_PER_S);

	while (s->result == 0 && !pc_touched_all(s) && clock_now_ns() < deadline_ns)
		usleep(500);
	ck_assert_msg(s->result != 0 || pc_touched_all(s), "a thread of the guest is stranded: %s", state_text(s));
}

void pc_check_landed(struct pc *s)
{
	char states[256];

	ck_assert_msg(s->result != 1, "%s; said: %s", state_text(s), s->said);
	await_touchers(s);
	pc_free(s);
	ck_assert_msg(s->e.result == 0, "did not land: %d: %s", s->e.result, s->e.error);
	ck_assert_msg(!s->breach[0], "%s", s->breach);
	ck_assert_msg(atomic_load(&s->wrong) == 0, "%lu wrong touches: %s", atomic_load(&s->wrong), s->wrong_text);
	ck_assert_msg(pc_compare(s) == 0, "pages are not what was sent");
	ck_assert_uint_eq(embedder_compare_devices(&s->e, &s->head), 0);
	ck_assert_uint_eq(s->vcpu_starts, 1);
	ck_assert_uint_eq(s->ready_calls, 1);
	ck_assert_uint_eq(s->e.stats.remaining_pages, 0);
	ck_assert_uint_eq(pc_reply_count(s, WIRE_RP_SHUT), 1);
	ck_assert_uint_eq(shut_value(s), 0);
	ck_assert_uint_eq(pc_reply_count(s, WIRE_RP_PONG), s->o.modern ? 5 : 4);
	ck_assert_str_eq(embedder_states(&s->e, states, sizeof(states)), "setup active postcopy-active completed");
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

void pc_check_failed(struct pc *s, int code, const char *words)
{
	ck_assert_msg(s->result != 1, "%s; said: %s", state_text(s), s->said);
	pc_free(s);
	ck_assert_msg(s->e.result == code, "%d instead of %d: %s", s->e.result, code, s->e.error);
	ck_assert_msg(has_one_of(s->e.error, words), "no '%s' in: %s", words, s->e.error);
	ck_assert_uint_eq(s->vcpu_starts, 0);
	ck_assert_int_eq(s->e.stats.state, INM_STATE_FAILED);
	ck_assert_msg(!s->breach[0], "%s", s->breach);
	ck_assert_uint_eq(pc_reply_count(s, WIRE_RP_SHUT), 1);
	ck_assert_uint_eq(shut_value(s), 1);
}

void pc_cancel(struct pc *s)
{
	atomic_store(&s->lost, true);
	atomic_store(&s->stop, true);
	inm_cancel(s->e.inm);
}

void pc_check_cancelled(struct pc *s)
{
	ck_assert_msg(s->result != 1, "%s; said: %s", state_text(s), s->said);
	pc_free(s);
	ck_assert_msg(s->e.result == -ECANCELED, "%d: %s", s->e.result, s->e.error);
	ck_assert_int_eq(s->e.stats.state, INM_STATE_CANCELLED);
	ck_assert_msg(!s->breach[0], "%s", s->breach);
}

static void free_ram(struct pc *s)
{
	for (unsigned b = 0; b < s->ram_count; b++) {
		struct pc_ram *ram = &s->ram[b];

		free(ram->precopied);
		free(ram->reserved);
		free(ram->sent);
		free(ram->asked);
		free(ram->removed);
		for (unsigned i = 0; i < s->o.touch.threads; i++)
			free(ram->stamped[i]);
	}
}

void pc_end(struct pc *s)
{
	pc_free(s);
	pc_source_end(s);
	ck_assert_uint_eq(embedder_canaries(&s->e), 0);
	embedder_fini(&s->e);
	free_ram(s);
	wire_fini(&s->head);
#if HAVE_GNUTLS
	if (s->o.tls)
		tls_dir_remove(s->tls_dir);
#endif
	ck_assert_msg(rmdir(s->dir) == 0, "the socket is left behind: %s", strerror(errno));
	ck_assert_msg(census_differs(&s->before) == 0, "something is left behind, see above");
	census_free(&s->before);
}

void pc_give_up(struct pc *s)
{
	pc_cancel(s);
	pc_run(s, CANCEL_MS);
	pc_check_cancelled(s);
	pc_end(s);
}
