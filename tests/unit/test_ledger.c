/* postcopy/ledger.h: what is asked for, in which order, and who goes on. */
#include "postcopy/ledger.h"
#include "tests/support/check_main.h"

#include "base/bitmap.h"
#include "base/clock.h"
#include "coroutine/group.h"
#include "coroutine/reactor.h"
#include "memory/block.h"
#include "postcopy/blocktime.h"
#include "postcopy/pblock.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define UNITS 20000u
#define TPAGE_SHIFT 12u

static struct reactor reactor; /* without a ring: nobody waits for one */
static struct group group;
static struct blocktime blocktime;
static struct ledger ledger;
static struct block blocks[2];
static struct pblock pblocks[2];

/* What was asked for: "3+2 a7 | 9" are two messages, with units 3 and 4, unit 7 of the other block, and unit 9. */
static char said[1 << 16];
static size_t messages, requests, longest;
static uint64_t tpages;
static int answer;

/* What there is, as a plain list. */
enum { MANY = 40 };

static struct plain {
	bool there, guess;
} plain[2][MANY];

static unsigned gone_on;

static int request(void *opaque, const struct page_request *list, size_t count)
{
	char *at = said + strlen(said);

	ck_assert_ptr_eq(opaque, said);
	if (messages++)
		at += sprintf(at, " |");
	for (size_t i = 0; i < count; i++) {
		const struct block *b = list[i].block;

		ck_assert_uint_lt(strlen(said), sizeof(said) - 100);
		at += sprintf(at, "%s%s%llu", at == said ? "" : " ", b == &blocks[1] ? "a" : "",
		              (unsigned long long)(list[i].start >> b->unit_shift));
		if (list[i].bytes > block_unit_bytes(b))
			at += sprintf(at, "+%llu", (unsigned long long)(list[i].bytes >> b->unit_shift));
		ck_assert_uint_le(list[i].bytes, UINT32_MAX);
		tpages += list[i].bytes >> b->tpage_shift;
	}
	if (answer < 0) {
		sprintf(at, "!");
		return answer;
	}
	requests += count;
	longest = count > longest ? count : longest;
	return 0;
}

static void begin_units(unsigned unit_shift)
{
	memset(&reactor, 0, sizeof(reactor));
	memset(&blocktime, 0, sizeof(blocktime));
	memset(plain, 0, sizeof(plain));
	said[0] = '\0';
	messages = requests = longest = 0;
	tpages = 0;
	answer = 0;
	gone_on = 0;
	sched_init(&reactor.sched, STACK_BYTES_DEFAULT, 16);
	group_init(&group, &reactor.sched, "test");
	for (unsigned i = 0; i < 2; i++) {
		blocks[i] = (struct block){ .tpage_shift = TPAGE_SHIFT, .unit_shift = unit_shift };
		pblocks[i] = (struct pblock){ .b = &blocks[i], .units = UNITS };
		ck_assert_int_eq(bitmap_init(&pblocks[i].asked, UNITS), 0);
	}
	ledger_init(&ledger, &reactor, &blocktime, request, said);
	ck_assert_int_eq(group_spawn(&group, "sender", ledger_send, &ledger), 0);
}

static void begin(void)
{
	begin_units(TPAGE_SHIFT);
}

/* Until nobody can go on. */
static void run(void)
{
	while (sched_has_ready(&reactor.sched))
		sched_run_ready(&reactor.sched);
}

static void end(void)
{
	group_cancel(&group);
	run();
	ck_assert(group_empty(&group));
	ledger_fini(&ledger);
	ck_assert_uint_eq(reactor.eager, 0);
	for (unsigned i = 0; i < 2; i++)
		bitmap_fini(&pblocks[i].asked);
	sched_fini(&reactor.sched);
}

static struct want *want(size_t unit)
{
	struct want *w = ledger_want(&ledger, &pblocks[0], unit, 0, clock_now_ns());

	ck_assert_ptr_nonnull(w);
	return w;
}

/* "w3" somebody waits, "g3" a guess, "l3" it has landed; "wa3" is the other block's. */
static void act(const char *word)
{
	struct pblock *pb = &pblocks[word[1] == 'a'];
	size_t unit = strtoul(word + 1 + (word[1] == 'a'), NULL, 10);

	if (word[0] == 'w')
		ck_assert_ptr_nonnull(ledger_want(&ledger, pb, unit, 0, clock_now_ns()));
	else if (word[0] == 'g')
		ck_assert(ledger_guess(&ledger, pb, unit, clock_now_ns()));
	else if (word[0] == 'l')
		ledger_landed(&ledger, pb, unit);
	else if (strcmp(word, "send") == 0)
		run();
	else if (strcmp(word, "offline") == 0)
		ledger_offline(&ledger, true);
	else if (strcmp(word, "online") == 0)
		ledger_offline(&ledger, false);
	else if (strcmp(word, "unsend") == 0)
		ledger_unsend(&ledger);
	else if (strcmp(word, "broken") == 0)
		answer = -EPIPE;
	else if (strcmp(word, "mended") == 0)
		answer = 0;
	else
		ck_abort_msg("%s?", word);
}

static void act_all(const char *words)
{
	char copy[256], *save, *word;

	snprintf(copy, sizeof(copy), "%s", words);
	for (word = strtok_r(copy, " ", &save); word; word = strtok_r(NULL, " ", &save))
		act(word);
}

TEST_CASE("requests", 10, .checked = { begin, end });

static const struct script {
	const char *what, *words, *said;
} scripts[] = {
	{ "nobody waits", "send", "" },
	{ "the order is that of the faults", "w5 w3 w900 w7 send", "5 3 900 7" },
	{ "each is asked for once", "w3 w3 send w3 send", "3" },
	{ "neighbours go as one", "w3 w4 w5 w7 w8 send", "3+3 7+2" },
	{ "upward only", "w5 w4 w3 send", "5 4 3" },
	{ "not those of two blocks", "w3 wa4 wa5 w4 send", "3 a4+2 4" },
	{ "the same unit of two blocks is two", "w3 wa3 send l3 send wa3 w3 send", "3 a3 | 3" },
	{ "what came before it was asked for is not", "w3 w4 w5 l4 send", "3 5" },
	{ "what has landed can be missing again", "w3 send l3 w3 send", "3 | 3" },
	{ "guesses go after what somebody waits for", "g8 g20 w3 w2 send", "3 2 8 20" },
	{ "a guess joins its neighbour", "g4 g5 w3 send", "3+3" },
	{ "a guess that is waited for goes before the others", "g8 g20 g30 w20 w3 send", "20 3 8 30" },
	{ "one that was sent is not asked for again", "g8 send w8 w20 send", "8 | 20" },
	{ "a guess lands before it was sent", "g8 g9 l8 send", "9" },
	{ "what was about to be sent waits, too", "w3 offline send w5 send online send", "3 5" },
	{ "nothing is sent while that cannot be", "offline w3 g4 send", "" },
	{ "and is sent when it can", "offline w3 send w5 g4 send online send", "3 5 4" },
	{ "what was sent is sent again, in its order and first", "w9 w3 w7 send offline w1 unsend online send",
	  "9 3 7 | 9 3 7 1" },
	{ "but not what has landed", "w9 w3 w7 send l3 offline unsend online send", "9 3 7 | 9 7" },
	{ "guesses again after what is waited for", "g5 w9 send g6 w3 offline unsend online send", "9 5 | 9 3 5+2" },
	{ "a guess that was sent, and is waited for", "g5 g8 send w8 offline unsend online send", "5 8 | 8 5" },
	{ "twice", "w9 send offline unsend online send offline unsend online send", "9 | 9 | 9" },
	{ "a message that fails is as good as none", "broken w9 w3 send w5 send mended send online send",
	  "9 3! | 9 3 5" },
	{ "and after it nothing is tried", "broken w9 send w5 send w6 send", "9!" },
};

TEST_ROWS(test_what_is_asked_for_and_when, scripts)
{
	const struct script *s = &scripts[_i];

	act_all(s->words);
	ck_assert_msg(strcmp(said, s->said) == 0, "%s: %s: '%s', not '%s'", s->what, s->words, said, s->said);
	ck_assert_uint_eq(ledger.requests, requests);
	ck_assert_uint_eq(ledger.requested_pages, tpages);
}

TEST(test_no_guess_of_what_is_asked_for)
{
	act_all("w3 g4");
	ck_assert(!ledger_guess(&ledger, &pblocks[0], 3, 1));
	ck_assert(!ledger_guess(&ledger, &pblocks[0], 4, 1));
	run();
	ck_assert(!ledger_guess(&ledger, &pblocks[0], 3, 1));
	ck_assert_uint_eq(ledger.guessed_pages, 1);
	ck_assert_uint_eq(ledger.guesses, 1);
	ledger_landed(&ledger, &pblocks[0], 3);
	ck_assert(ledger_guess(&ledger, &pblocks[0], 3, 1));
}

TEST(test_a_message_has_so_many_requests_and_no_more)
{
	for (size_t i = 0; i < 2 * REQUEST_BATCH_MAX + 1; i++)
		want(2 * i);
	run();
	ck_assert_uint_eq(messages, 3);
	ck_assert_uint_eq(longest, REQUEST_BATCH_MAX);
	ck_assert_uint_eq(requests, 2 * REQUEST_BATCH_MAX + 1);
	ck_assert_ptr_nonnull(strstr(said, " 126 | 128 "));
}

/* The last one of a full message may still have neighbours. */
TEST(test_a_neighbour_joins_a_full_message)
{
	for (size_t i = 0; i < REQUEST_BATCH_MAX; i++)
		want(2 * i);
	act_all("w127 w128 send");
	ck_assert_uint_eq(messages, 1);
	ck_assert_str_eq(strrchr(said, ' '), " 126+3");
}

TEST(test_units_are_taken_in_pieces)
{
	for (size_t i = 0; i < 10000; i++)
		want(i);
	run();
	ck_assert_str_eq(said, "0+4096 | 4096+4096 | 8192+1808");
}

TEST(test_what_comes_while_it_is_sent_is_not_lost)
{
	for (size_t i = 0; i < 3; i++) {
		want(100 * i);
		run();
	}
	ck_assert_str_eq(said, "0 | 100 | 200");
}

TEST_CASE("huge units", 10);

/* The length on the wire has 32 bits. */
TEST(test_neighbours_go_as_one_up_to_4_gib)
{
	begin_units(30);
	act_all("w0 w1 w2 w3 w4 w5 w6 g8 send");
	ck_assert_str_eq(said, "0+3 3+3 6 8");
	ck_assert_uint_eq(ledger.requested_pages, 8ull << (30 - TPAGE_SHIFT));
	ck_assert_uint_eq(ledger.guessed_pages, 1ull << (30 - TPAGE_SHIFT));
	end();
}

TEST_CASE("books", 30, .checked = { begin, end });

static void step(unsigned *seed)
{
	unsigned i = (unsigned)rand_r(seed) % 2;
	size_t unit = (size_t)rand_r(seed) % MANY;
	struct plain *p = &plain[i][unit];

	switch (rand_r(seed) % 12) {
	case 0 ... 3:
		ck_assert_ptr_nonnull(ledger_want(&ledger, &pblocks[i], unit, 0, 1));
		*p = (struct plain){ .there = true };
		break;
	case 4 ... 5:
		ck_assert_int_eq(ledger_guess(&ledger, &pblocks[i], unit, 1), !p->there);
		if (!p->there)
			*p = (struct plain){ .there = true, .guess = true };
		break;
	case 6 ... 8:
		if (p->there)
			ledger_landed(&ledger, &pblocks[i], unit);
		p->there = false;
		break;
	case 9:
		answer = rand_r(seed) % 4 ? 0 : -EPIPE;
		run();
		break;
	case 10:
		ledger_offline(&ledger, !ledger.offline);
		break;
	default:
		ledger_unsend(&ledger);
	}
}

static void check_counts(void)
{
	size_t wants = 0, guesses = 0;

	for (unsigned i = 0; i < 2; i++)
		for (size_t unit = 0; unit < MANY; unit++) {
			const struct plain *p = &plain[i][unit];

			wants += p->there && !p->guess;
			guesses += p->there && p->guess;
			if (bitmap_test(&pblocks[i].asked, unit) != p->there)
				ck_abort_msg("unit %zu", unit);
		}
	if (ledger.outstanding != wants || ledger.guesses != guesses || reactor.eager != (wants > 0 && !ledger.offline))
		ck_abort_msg("%zu outstanding of %zu, %zu guesses of %zu, eager: %u", ledger.outstanding, wants,
		             ledger.guesses, guesses, reactor.eager);
}

TEST_EACH(test_counts_are_those_of_a_plain_list, 8)
{
	unsigned seed = (unsigned)_i + 1;

	for (unsigned i = 0; i < 20000; i++) {
		step(&seed);
		check_counts();
		said[0] = '\0';
		messages = 0;
	}
	/* In the end each that is there is asked for once more, and nothing else. */
	answer = 0;
	ledger_offline(&ledger, false);
	ledger_unsend(&ledger);
	tpages = 0;
	run();
	ck_assert_uint_eq(tpages, ledger.outstanding + ledger.guesses);
}

/* ---- who goes on ---- */

static int wait_for_unit_3(void *arg)
{
	int r = co_park(&reactor.sched, &want(3)->waiters, DEADLINE_NEVER, "unit", "3");

	(void)arg;
	ck_assert_int_eq(r, 0);
	gone_on++;
	return 0;
}

TEST(test_all_that_wait_for_a_unit_go_on_when_it_lands)
{
	for (unsigned i = 0; i < 3; i++)
		ck_assert_int_eq(group_spawn(&group, "waits", wait_for_unit_3, NULL), 0);
	want(4);
	run();
	ck_assert_uint_eq(ledger.outstanding, 2);
	ledger_landed(&ledger, &pblocks[0], 4);
	run();
	ck_assert_uint_eq(gone_on, 0);
	ledger_landed(&ledger, &pblocks[0], 3);
	run();
	ck_assert_uint_eq(gone_on, 3);
	ck_assert_uint_eq(reactor.soon_ns, 0);
}

TEST(test_threads_of_the_guest_are_told_by_how_long_they_waited)
{
	uint64_t now = clock_now_ns();
	struct fault_thread *t[3];

	for (uint32_t i = 0; i < 3; i++)
		t[i] = blocktime_thread(&blocktime, 100 + i);
	ledger_want(&ledger, &pblocks[0], 3, 100, now - 50 * NS_PER_MS);
	ledger_want(&ledger, &pblocks[0], 3, 101, now - 20 * NS_PER_MS);
	/* A signal has made it fault again. */
	ledger_want(&ledger, &pblocks[0], 3, 100, now - 10 * NS_PER_MS);
	ledger_want(&ledger, &pblocks[0], 4, 102, now - 90 * NS_PER_MS);
	ck_assert_uint_eq(blocktime.blocked_now, 3);
	ledger_landed(&ledger, &pblocks[0], 3);
	ck_assert_uint_eq(blocktime.blocked_now, 1);
	ck_assert_uint_eq(blocktime.count, 1);
	ck_assert_uint_eq(t[0]->blocked_ns - t[1]->blocked_ns, 30 * NS_PER_MS);
	ck_assert_uint_ge(t[1]->blocked_ns, 20 * NS_PER_MS);
	ck_assert_uint_eq(blocktime.sum_ns, t[0]->blocked_ns);
	ck_assert_uint_eq(t[2]->blocked_ns, 0);
	ck_assert_uint_eq(reactor.soon_ns, LEDGER_SOON_NS);
}

/* Nobody waited while it was a guess. */
TEST(test_a_guess_waits_from_the_touch_on)
{
	uint64_t now = clock_now_ns();

	ck_assert(ledger_guess(&ledger, &pblocks[0], 3, now - 3600 * NS_PER_S));
	ck_assert(ledger_guess(&ledger, &pblocks[0], 4, now - 3600 * NS_PER_S));
	ledger_want(&ledger, &pblocks[0], 3, 100, now - NS_PER_MS);
	ledger_landed(&ledger, &pblocks[0], 3);
	ledger_landed(&ledger, &pblocks[0], 4);
	ck_assert_uint_eq(blocktime.count, 1);
	ck_assert_uint_ge(blocktime.max_ns, NS_PER_MS);
	ck_assert_uint_lt(blocktime.max_ns, 3600 * NS_PER_S);
}

/* By the first page that somebody waited for, not by a guess. */
TEST(test_the_first_page_after_a_loss_is_timed)
{
	uint64_t back_ns = clock_now_ns() - 70 * NS_PER_MS;

	act_all("w3 w4 g5 send offline unsend");
	ledger.back_ns = back_ns;
	act_all("online send l5");
	ck_assert_uint_ne(ledger.back_ns, 0);
	act("l3");
	ck_assert_uint_ge(ledger.served_ns, 70 * NS_PER_MS);
	ck_assert_uint_le(ledger.served_ns, clock_now_ns() - back_ns);
	ck_assert_uint_eq(ledger.back_ns, 0);
	ledger.served_ns = 1;
	act("l4");
	ck_assert_uint_eq(ledger.served_ns, 1);
}
