#include "tests/support/recovery_scene.h"

#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/assert.h"
#include "base/be.h"
#include "base/clock.h"
#include "engine/incoming.h"

#define END_MS 20000
#define QUIET_MS 10
#define WAITS_NS (5 * NS_PER_MS)
#define BITMAP_END_MARK 0x0123456789abcdefull
#define RESUME_ACK_BYTES 8u
/* Where thread i of the guest has its stamp, as in postcopy_scene_guest.c. */
#define STAMP_WORD(thread) (16u + (thread) * 8u)

__attribute__((format(printf, 2, 3))) static void breach(struct rec *r, const char *format, ...)
{
	va_list ap;

	if (r->s.breach[0])
		return;
	va_start(ap, format);
	vsnprintf(r->s.breach, sizeof(r->s.breach), format, ap);
	va_end(ap);
}

uint64_t rec_random(uint64_t *seed)
{
	/* splitmix64 */
	uint64_t z = *seed += 0x9e3779b97f4a7c15ull;

	z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9ull;
	z = (z ^ z >> 27) * 0x94d049bb133111ebull;
	return z ^ z >> 31;
}

/* ---- what the destination really has ----------------------------------------------------------------------------- */

static bool is_stamp(const struct pc *s, unsigned block, uint64_t tpage, unsigned word, uint64_t found)
{
	for (unsigned i = 0; i < s->o.touch.threads; i++)
		if (word == STAMP_WORD(i) && found == pc_stamp(block, tpage, i))
			return true;
	return false;
}

static bool is_content(const struct pc *s, unsigned block, uint64_t tpage, const uint64_t *words)
{
	for (unsigned i = 0; i < PC_PAGE / 8; i++)
		if (words[i] != wire_content_word(block, tpage, i) && !is_stamp(s, block, tpage, i, words[i]))
			return false;
	return true;
}

/* Of private memory: a touch of what is missing would wait for ourselves. */
static bool is_present(const uint8_t *at)
{
	int fd = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
	uint64_t entry = 0;

	ASSERT(fd >= 0);
	ASSERT(pread(fd, &entry, sizeof(entry), (off_t)((uintptr_t)at / PC_PAGE * sizeof(entry))) == sizeof(entry));
	close(fd);
	return entry >> 62; /* present, or swapped */
}

/* A page of zeros need not be there before it is touched. */
static bool has_page(const struct pc *s, unsigned block, uint64_t tpage)
{
	const struct pc_ram *ram = &s->ram[block];
	uint64_t words[PC_PAGE / 8] = { 0 };

	if (__atomic_load_n(&ram->removed[tpage], __ATOMIC_SEQ_CST) != PC_KEPT)
		return true;
	if (ram->emb->fd >= 0)
		ASSERT(pread(ram->emb->fd, words, sizeof(words),
		             (off_t)(ram->emb->canary_bytes + tpage * PC_PAGE)) == sizeof(words));
	else if (is_present(ram->emb->host + tpage * PC_PAGE))
		memcpy(words, ram->emb->host + tpage * PC_PAGE, sizeof(words));
	return is_content(s, block, tpage, words);
}

/* ---- bitmaps ----------------------------------------------------------------------------------------------------- */

static void check_unit(struct rec *r, unsigned block, uint64_t unit)
{
	struct pc_ram *ram = &r->s.ram[block];
	uint64_t first = unit * ram->unit_pages, end = first + ram->unit_pages, set = 0;

	if (end > ram->said.pages)
		end = ram->said.pages;
	for (uint64_t i = first; i < end; i++) {
		set += r->received[block][i];
		if (r->received[block][i] && !has_page(&r->s, block, i))
			breach(r, "the bitmap of '%s' has page %llu, which is not here", ram->said.name,
			       (unsigned long long)i);
	}
	if (set != 0 && set != end - first)
		breach(r, "the bitmap of '%s' has %llu pages of %llu in unit %llu", ram->said.name,
		       (unsigned long long)set, (unsigned long long)(end - first), (unsigned long long)unit);
	if (!set && ram->precopied[unit])
		breach(r, "the bitmap of '%s' lacks unit %llu, which came before the switch", ram->said.name,
		       (unsigned long long)unit);
}

static void take_bitmap(struct rec *r, const uint8_t *bits, size_t bytes)
{
	unsigned block = r->bitmaps;
	uint64_t pages = r->s.ram[block].said.pages;

	for (uint64_t i = 0; i < bytes * 8; i++) {
		bool set = bits[i / 8] >> i % 8 & 1;

		if (i < pages)
			r->received[block][i] = set;
		else if (set)
			breach(r, "the bitmap of '%s' has bit %llu of %llu", r->s.ram[block].said.name,
			       (unsigned long long)i, (unsigned long long)pages);
	}
	for (uint64_t u = 0; u < r->s.ram[block].units; u++)
		check_unit(r, block, u);
	r->bitmaps++;
}

/* Return: bytes of the message at r->in; 0 if it is not complete. A breach ends it. */
static size_t parse_bitmap(struct rec *r)
{
	const char *name = r->s.ram[r->bitmaps].said.name;
	size_t head = 4 + 1 + strlen(name), size = (r->s.ram[r->bitmaps].said.pages + 63) / 64 * 8;

	if (r->in_len < head + 8)
		return 0;
	if (be16_load(r->in) != WIRE_RP_RECV_BITMAP || be16_load(r->in + 2) != head - 4 ||
	    r->in[4] != strlen(name) || memcmp(r->in + 5, name, strlen(name)) != 0) {
		breach(r, "message %u of %u bytes where the bitmap of '%s' is expected", be16_load(r->in),
		       be16_load(r->in + 2), name);
		return 0;
	}
	if (be64_load(r->in + head) != size) {
		breach(r, "a bitmap of %llu bytes for '%s'", (unsigned long long)be64_load(r->in + head), name);
		return 0;
	}
	if (r->in_len < head + 8 + size + 8)
		return 0;
	if (be64_load(r->in + head + 8 + size) != BITMAP_END_MARK)
		breach(r, "the bitmap of '%s' has no end mark", name);
	take_bitmap(r, r->in + head + 8, size);
	return head + 8 + size + 8;
}

/* ---- the dialogue ------------------------------------------------------------------------------------------------ */

static void drop_main(struct rec *r)
{
	if (r->fd < 0)
		return;
	/* Back to its line: there may be a relay to end. */
	r->s.lines[PC_MAIN].fd = r->fd;
	r->fd = -1;
	pc_close_line(&r->s, PC_MAIN);
}

static void break_off(struct rec *r)
{
	r->stage = REC_AWAY;
	drop_main(r);
	pc_close_line(&r->s, PC_PREEMPT);
}

/* Return: whether anything moved. */
static bool read_some(struct rec *r)
{
	size_t room = r->stage == REC_RESUMING ? RESUME_ACK_BYTES - r->in_len : 1 << 16;
	ssize_t n;

	if (r->o.unread || !room)
		return false;
	r->in = wire_grow(r->in, &r->in_cap, r->in_len, room, 1);
	n = recv(r->fd, r->in + r->in_len, room, MSG_DONTWAIT);
	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return false;
	if (n <= 0)
		break_off(r);
	else
		r->in_len += (size_t)n;
	return true;
}

static bool send_some(struct rec *r)
{
	size_t end = r->o.allowed && r->o.allowed < r->out.len ? r->o.allowed : r->out.len;
	ssize_t n;

	if (r->fd < 0 || r->stage == REC_CONNECTED || r->done == end)
		return false;
	if (r->o.chunk_bytes && end > r->done + r->o.chunk_bytes)
		end = r->done + r->o.chunk_bytes;
	n = send(r->fd, r->out.data + r->done, end - r->done, MSG_DONTWAIT | MSG_NOSIGNAL);
	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return false;
	if (n < 0)
		break_off(r);
	else
		r->done += (size_t)n;
	return true;
}

static void read_bitmaps(struct rec *r)
{
	size_t bytes;

	while (r->bitmaps < r->s.ram_count && (bytes = parse_bitmap(r)) > 0) {
		memmove(r->in, r->in + bytes, r->in_len - bytes);
		r->in_len -= bytes;
	}
	if (r->bitmaps == r->s.ram_count && r->in_len > 0)
		breach(r, "message %u before RESUME", r->in_len > 1 ? be16_load(r->in) : 0);
}

/* By the last bitmaps: what is to be sent, and that nothing has been asked for. */
static void plan_rest(struct rec *r)
{
	struct pc *s = &r->s;

	for (unsigned b = 0; b < s->ram_count; b++)
		for (uint64_t u = 0; u < s->ram[b].units; u++) {
			s->ram[b].sent[u] = r->received[b][u * s->ram[b].unit_pages];
			s->ram[b].asked[u] = 0;
		}
	s->answered_count = s->request_count;
	s->last_name[0] = '\0';
	s->in_len = 0;
	s->push_block = 0;
	s->push_unit = 0;
	s->ended = s->again = s->source_closed = false;
}

static void go_on(struct rec *r)
{
	static const uint8_t ack[RESUME_ACK_BYTES] = { 0, WIRE_RP_RESUME_ACK, 0, 4, 0, 0, 0, 1 };

	if (memcmp(r->in, ack, sizeof(ack)) != 0)
		breach(r, "message %u, length %u, where RESUME_ACK is expected", be16_load(r->in),
		       be16_load(r->in + 2));
	r->in_len = 0;
	r->stage = REC_BACK;
	r->returns++;
	plan_rest(r);
	r->s.lines[PC_MAIN].fd = r->fd;
	r->fd = -1;
}

static bool has_preempt(const struct rec *r)
{
	return r->s.o.preempt != PC_NO_PREEMPT && !r->o.no_preempt;
}

static bool advance(struct rec *r)
{
	enum rec_stage before = r->stage;

	if (r->stage == r->o.stop || r->o.script)
		return false;
	if (r->stage == REC_CONNECTED) {
		r->stage = REC_ASKING;
	} else if (r->stage == REC_ASKING) {
		read_bitmaps(r);
		if (r->bitmaps == r->s.ram_count)
			r->stage = REC_ASKED;
	} else if (r->stage == REC_ASKED) {
		if (has_preempt(r))
			pc_source_connect(&r->s, PC_PREEMPT); /* with the old style it is there */
		r->stage = REC_PREEMPT;
	} else if (r->stage == REC_PREEMPT) {
		if (r->in_len > 0)
			breach(r, "message %u before RESUME", r->in_len > 1 ? be16_load(r->in) : 0);
		wire_resume(&r->out);
		r->stage = REC_RESUMING;
	} else if (r->stage == REC_RESUMING && r->in_len == RESUME_ACK_BYTES) {
		go_on(r);
	}
	return r->stage != before;
}

static bool step(struct rec *r)
{
	bool moved;

	if (r->fd < 0)
		return false;
	moved = send_some(r);
	if (r->fd >= 0)
		moved |= read_some(r);
	if (r->fd >= 0)
		moved |= advance(r);
	return moved;
}

void rec_return(struct rec *r, const struct rec_opts *o)
{
	ASSERT(r->fd < 0);
	r->o = *o;
	r->in_len = 0;
	r->bitmaps = 0;
	r->done = r->out.len = r->out.mark_count = 0;
	if (o->script)
		wire_bytes(&r->out, o->script->data, o->script->len);
	for (unsigned b = 0; b < r->s.ram_count && !o->script; b++)
		wire_recv_bitmap(&r->out, r->s.ram[b].said.name);
	if (o->old && o->preempt_first && has_preempt(r))
		pc_source_connect(&r->s, PC_PREEMPT);
	pc_source_connect(&r->s, PC_MAIN);
	if (o->old && !o->preempt_first && has_preempt(r))
		pc_source_connect(&r->s, PC_PREEMPT);
	r->fd = r->s.lines[PC_MAIN].fd;
	r->s.lines[PC_MAIN].fd = -1;
	r->stage = o->script ? REC_ASKING : REC_CONNECTED;
}

void rec_recover(struct rec *r, const struct rec_opts *o)
{
	const char *error;

	rec_return(r, o);
	if (rec_until(r, rec_is_back, 5000)) {
		ck_assert_msg(!r->s.breach[0], "%s", r->s.breach);
		return;
	}
	error = inm_error(r->s.e.inm);
	ck_abort_msg("no RESUME_ACK: stage %d, state %s, %s; %s; said: %s", (int)r->stage,
	             inm_state_name(inm_get_state(r->s.e.inm)), error ? error : "", r->s.breach, r->s.said);
}

void rec_attempt(struct rec *r, const struct rec_opts *o, enum rec_cut which)
{
	enum inm_state state;

	rec_return(r, o);
	ck_assert_msg(rec_until(r, rec_is_stopped, 5000), "stage %d; said: %s", (int)r->stage, r->s.said);
	rec_settle(r);
	state = inm_get_state(r->s.e.inm);
	ck_assert_msg(!r->s.breach[0], "%s", r->s.breach);
	rec_lose(r, which, false);
	rec_settle(r);
	rec_forget(r);
	rec_settle(r);
	ck_assert_msg(rec_until(r, rec_is_paused, 5000), "state %s; said: %s",
	              inm_state_name(inm_get_state(r->s.e.inm)), r->s.said);
	r->losses += state != INM_STATE_POSTCOPY_PAUSED;
	/* It was acknowledged, and nobody has read that. */
	r->returns += state == INM_STATE_POSTCOPY_ACTIVE && o->unread;
}

void rec_move(struct rec *r, const char *uri)
{
	int e = inm_recover(r->s.e.inm, uri);

	ck_assert_msg(e == 0, "inm_recover(%s): %s", uri, inm_error(r->s.e.inm));
	snprintf(r->s.address, sizeof(r->s.address), "%s", inm_address(r->s.e.inm, 0));
}

/* ---- losses ------------------------------------------------------------------------------------------------------ */

static void reset_fd(int fd)
{
	static const struct linger at_once = { .l_onoff = 1, .l_linger = 0 };

	if (fd >= 0)
		setsockopt(fd, SOL_SOCKET, SO_LINGER, &at_once, sizeof(at_once));
}

void rec_lose(struct rec *r, enum rec_cut which, bool reset)
{
	struct pc *s = &r->s;

	s->source_closed = true;
	if (reset) {
		reset_fd(r->fd);
		reset_fd(s->lines[PC_MAIN].fd);
		reset_fd(s->lines[PC_PREEMPT].fd);
	}
	if (which != REC_ONLY_PREEMPT) {
		drop_main(r);
		pc_close_line(s, PC_MAIN);
	}
	if (which != REC_MAIN)
		pc_close_line(s, PC_PREEMPT);
}

static void reset_line(struct pc_line *l)
{
	l->out.len = l->out.mark_count = l->done = l->sent = 0;
	l->allowed = PC_ALL;
	l->held = l->broken = false;
	l->last_block = -1;
}

void rec_forget(struct rec *r)
{
	drop_main(r);
	pc_lose(&r->s);
	for (unsigned i = 0; i < PC_LINES; i++)
		reset_line(&r->s.lines[i]);
	r->stage = REC_AWAY;
	r->limited = false;
	r->s.in_len = 0;
}

static bool nothing_missing(const struct rec *r)
{
	struct inm_stats stats = { .size = sizeof(stats) };

	inm_get_stats(r->s.e.inm, &stats);
	return stats.remaining_pages == 0;
}

static bool is_noticed(struct rec *r)
{
	return rec_is_paused(r) || nothing_missing(r);
}

bool rec_pause(struct rec *r, enum rec_cut which, bool reset)
{
	bool paused;

	rec_lose(r, which, reset);
	/* Without a page to come a lost preempt channel is none here; the source closes main then. */
	if (which == REC_ONLY_PREEMPT && rec_until(r, is_noticed, 5000) && !rec_is_paused(r))
		rec_lose(r, REC_MAIN, reset);
	paused = rec_until(r, rec_is_paused, 5000);
	rec_forget(r);
	ck_assert_msg(paused || r->s.result != 1, "no pause: state %s; said: %s",
	              inm_state_name(inm_get_state(r->s.e.inm)), r->s.said);
	r->losses += paused;
	r->lost_at_end = !paused;
	return paused;
}

/* ---- limits ------------------------------------------------------------------------------------------------------ */

void rec_limit(struct rec *r, unsigned line, size_t upto)
{
	r->line = line;
	r->upto = upto;
	r->limited = upto != SIZE_MAX;
	r->s.lines[line].held = r->limited;
}

bool rec_at_limit(struct rec *r)
{
	const struct pc_line *l = &r->s.lines[r->line];

	return !r->limited || (l->sent >= r->upto && l->out.len > l->done);
}

bool rec_next_record(struct rec *r)
{
	const struct pc_line *l = &r->s.lines[r->line];
	size_t next = l->out.len;

	if (next == l->done)
		return false;
	for (size_t i = 0; i < l->out.mark_count; i++)
		if (l->out.marks[i].off > l->done && l->out.marks[i].off < next)
			next = l->out.marks[i].off;
	r->upto = l->sent + (next - l->done);
	return true;
}

/* As the scene does it for a line that is not held; its buffer is emptied only when the line may go on for ever. */
static bool flush_limited(struct rec *r)
{
	struct pc_line *l = &r->s.lines[r->line];
	size_t piece = l->out.len - l->done;
	ssize_t n;

	if (!r->limited || l->fd < 0 || l->broken || l->sent >= r->upto)
		return false;
	if (piece > r->upto - l->sent)
		piece = r->upto - l->sent;
	if (!piece)
		return false;
	n = send(l->fd, l->out.data + l->done, piece, MSG_DONTWAIT | MSG_NOSIGNAL);
	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return false;
	if (n < 0) {
		l->broken = true;
		return true;
	}
	l->done += (size_t)n;
	l->sent += (size_t)n;
	if (l->done == l->out.len)
		l->done = l->out.len = l->out.mark_count = 0;
	return true;
}

/* ---- playing ----------------------------------------------------------------------------------------------------- */

void rec_begin(struct rec *r, const struct pc_opts *o)
{
	memset(r, 0, sizeof(*r));
	r->fd = -1;
	r->act_at = UINT32_MAX;
	pc_begin(&r->s, o);
	for (unsigned b = 0; b < r->s.ram_count; b++) {
		r->received[b] = calloc(1, r->s.ram[b].units * r->s.ram[b].unit_pages);
		ASSERT(r->received[b]);
	}
}

bool rec_turn(struct rec *r)
{
	bool moved;

	if (r->turns++ == r->act_at && r->act)
		r->act(r);
	if (r->s.o.quiet && !r->s.pushing && r->s.result == 1 && pc_touched_all(&r->s))
		pc_push(&r->s);
	moved = pc_turn(&r->s);
	moved |= flush_limited(r);
	moved |= step(r);
	return moved;
}

bool rec_until(struct rec *r, rec_done_fn *done, unsigned ms)
{
	uint64_t deadline_ns = deadline_after_ns(ms * NS_PER_MS);

	while (!done(r) && r->s.result == 1 && clock_now_ns() < deadline_ns) {
		struct pollfd pfd = { .fd = inm_fd(r->s.e.inm), .events = POLLIN };

		if (!rec_turn(r) && r->s.result == 1)
			poll(&pfd, 1, 1);
	}
	return done(r);
}

void rec_settle(struct rec *r)
{
	struct pollfd pfd = { .fd = inm_fd(r->s.e.inm), .events = POLLIN };

	do {
		while (rec_turn(r))
			;
	} while (r->s.result == 1 && poll(&pfd, 1, QUIET_MS) > 0);
}

bool rec_guest_runs(struct rec *r)
{
	return r->s.vcpu_starts > 0;
}

bool rec_is_paused(struct rec *r)
{
	return pc_paused(&r->s);
}

bool rec_is_back(struct rec *r)
{
	return r->stage == REC_BACK;
}

bool rec_is_away(struct rec *r)
{
	return r->stage == REC_AWAY;
}

bool rec_is_stopped(struct rec *r)
{
	return r->stage == REC_AWAY || r->stage == r->o.stop || (r->o.allowed && r->done == r->o.allowed);
}

bool rec_all_wait(struct rec *r)
{
	for (unsigned i = 0; i < r->s.o.touch.threads; i++) {
		uint64_t since_ns = atomic_load(&r->s.touchers[i].since_ns);

		if (!since_ns || clock_now_ns() < since_ns + WAITS_NS)
			return false;
	}
	return r->s.vcpu_starts > 0;
}

/* ---- the guest --------------------------------------------------------------------------------------------------- */

struct removal {
	struct rec *r;
	unsigned block;
	uint64_t first, end;
	int result;
	atomic_bool done;
};

static void *run_removal(void *arg)
{
	struct removal *m = arg;

	m->result = pc_remove(&m->r->s, m->block, m->first, m->end);
	atomic_store(&m->done, true);
	return NULL;
}

/* The kernel keeps the thread until we have read the event. */
void rec_remove(struct rec *r, unsigned block, uint64_t first, uint64_t end)
{
	struct removal m = { .r = r, .block = block, .first = first, .end = end };
	struct pc_thread thread;

	r->removes = true;
	pc_thread_start(&thread, run_removal, &m);
	while (!atomic_load(&m.done))
		if (!rec_turn(r))
			usleep(100);
	pc_thread_join(&thread);
	ck_assert_int_eq(m.result, 0);
}

/* ---- the end ----------------------------------------------------------------------------------------------------- */

static bool never(struct rec *r)
{
	(void)r;
	return false;
}

void rec_end(struct rec *r)
{
	drop_main(r);
	for (unsigned b = 0; b < PC_BLOCKS_MAX; b++)
		free(r->received[b]);
	free(r->in);
	wire_fini(&r->out);
	pc_end(&r->s);
}

static void await_touchers(struct rec *r)
{
	uint64_t deadline_ns = deadline_after_ns(10 * NS_PER_S);

	while (!pc_touched_all(&r->s) && clock_now_ns() < deadline_ns)
		usleep(500);
	ck_assert_msg(pc_touched_all(&r->s), "a thread of the guest is stranded");
}

static void check_hang(struct rec *r)
{
	struct pc *s = &r->s;
	const char *error = inm_error(s->e.inm);

	ck_assert_msg(s->result != 1, "it hangs in state %s, stage %d: %zu requests, %zu answered, %u of %u touchers "
	              "done, %s; %s; said: %s", inm_state_name(inm_get_state(s->e.inm)), (int)r->stage,
	              s->request_count, s->answered_count, atomic_load(&s->touchers_done), s->o.touch.threads,
	              error ? error : "no error", s->breach, s->said);
}

static void check_numbers(struct rec *r)
{
	struct pc *s = &r->s;
	const struct inm_stats *st = &s->e.stats;

	ck_assert_uint_eq(s->vcpu_starts, 1);
	ck_assert_uint_eq(s->ready_calls, 1);
	ck_assert_uint_eq(st->remaining_pages, 0);
	ck_assert_uint_eq(st->outstanding_faults, 0);
	ck_assert_uint_eq(st->pauses, r->losses);
	ck_assert_uint_eq(st->recoveries, r->returns);
	/* The bitmaps were exact: nothing came that was here. */
	if (!r->removes && !s->o.twice && !s->o.twice_percent)
		ck_assert_uint_eq(st->duplicate_pages, 0);
	/* Where the preempt channel alone was lost behind the last page, main is still there to be told. */
	if (!r->lost_at_end)
		ck_assert_uint_eq(pc_reply_count(s, WIRE_RP_SHUT), 1);
}

static void check_states(struct rec *r)
{
	char states[400];

	embedder_states(&r->s.e, states, sizeof(states));
	ck_assert_msg(!strncmp(states, "setup active postcopy-active", 28), "%s", states);
	ck_assert_msg(r->s.e.state_count > EMB_STATES_MAX || strstr(states, " completed"), "%s", states);
}

void rec_finish(struct rec *r)
{
	struct pc *s = &r->s;

	rec_until(r, never, END_MS);
	check_hang(r);
	ck_assert_msg(s->result == 0, "did not land: %d: %s; said: %s", s->result, inm_error(s->e.inm), s->said);
	await_touchers(r);
	pc_free(s);
	ck_assert_msg(!s->breach[0], "%s", s->breach);
	ck_assert_msg(atomic_load(&s->wrong) == 0, "%lu wrong touches: %s", atomic_load(&s->wrong), s->wrong_text);
	ck_assert_msg(pc_compare(s) == 0, "pages are not what was sent");
	ck_assert_uint_eq(embedder_compare_devices(&s->e, &s->head), 0);
	check_numbers(r);
	check_states(r);
	rec_end(r);
}

void rec_give_up(struct rec *r)
{
	atomic_store(&r->s.lost, true);
	atomic_store(&r->s.stop, true);
	inm_cancel(r->s.e.inm);
	rec_until(r, never, 5000);
	drop_main(r);
	pc_check_cancelled(&r->s);
	rec_end(r);
}
