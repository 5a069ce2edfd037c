/*
 * stress.h - `inmigrate stress`: the library's postcopy, beaten on and checked; what its parts share
 *
 * One run has a world (memory of one or several kinds, and what every byte of it must be), a source that answers
 * requests after a delay, touchers (threads, or vCPUs) that verify what they read and write marks of their own, others
 * that change the memory meanwhile (events), and a watcher that finds who waits in vain. It goes in rounds: a round
 * begins with every page missing and ends when all of them have come and have been walked over.
 *
 * Threads: the engine's (the library's coroutines, the source, own faults, the conductor), the touchers, one for
 * events, one rival when the pattern is racing, one watcher.
 *
 * What a reader may see. A page has content(seed, page, round) in a round. For one read of it:
 * (1) The content, if no removal of the page had ended when the read began.
 * (2) Zeros, if a removal of the page had begun when the read ended.
 * (3) At a toucher's own place, the mark it wrote last, unless a removal that began after the write had ended when the
 *     read began; what (1) and (2) say, unless a mark was written with no removal since. Never an older mark, and never
 *     content under a mark.
 * Anything else is a wrong byte: a page that came late, or twice, or to the wrong place, or without its bytes.
 */
#ifndef PROGRAMS_STRESS_H
#define PROGRAMS_STRESS_H

#include "memory/block.h"
#include "programs/cli/progress.h"
#include "programs/stress_result.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define TPAGE_BYTES 4096u
#define TPAGE_SHIFT 12u
#define TOUCHERS_MAX 256u /* their places are a quarter of a page */
#define BLOCKS_MAX 15u    /* each kind of memory, and what is unplugged and moved of it */
#define SLOTS 8u          /* parts of a block that are unplugged one by one */

enum stress_role { ROLE_STEADY, ROLE_UNPLUG, ROLE_MOVING };

/* A part of the guest view that may go away: who is in there keeps it. */
struct slot {
	_Atomic int users; /* SLOT_CLOSED is added while nobody may enter */
	bool gone;         /* until the next round; the events' thread */
};

#define SLOT_CLOSED (1 << 24)

/* What happened to the pages of a neighbourhood, last. Written without a lock: an entry may be torn. */
#define STORY_ENTRIES 32u
#define STORY_UNITS 16u

struct story_entry {
	uint64_t at_ns;
	uint32_t page, count;
	int32_t value;
	uint16_t round;
	uint16_t what; /* enum story */
};

struct story_ring {
	_Atomic uint32_t next;
	struct story_entry entries[STORY_ENTRIES];
};

enum story {
	STORY_ASKED,
	STORY_ANSWERS,
	STORY_ANSWERED,
	STORY_PUSHES,
	STORY_PUSHED,
	STORY_AGAIN,
	STORY_AGAIN_DONE,
	STORY_STALE,
	STORY_STALE_DONE,
	STORY_REMOVES,
	STORY_REMOVED,
	STORY_UNPLUGGED,
	STORY_MOVED,
	STORY_FORKED,
	STORY_RIVAL,
	STORY_WAITED,
	STORY_MARKED,
	STORY_OWN_WAITED,
	STORY_COUNT,
};

/* One block of the guest. The page is a tpage's index all over. */
struct sblock {
	char name[24];
	enum stress_memory memory;
	enum stress_role role;
	unsigned index;
	uint32_t pages;
	size_t hpage_bytes;
	unsigned unit_pages; /* tpages of an hpage */
	int fd;              /* owned; -1: anonymous */
	_Atomic(uint8_t *) guest;
	struct block *b; /* the library's */
	struct slot slots[SLOTS];
	unsigned slot_count;                            /* 0: nobody ever goes away from here */
	_Atomic uint32_t *removes_begun, *removes_done; /* owned; of each page, in this round */
	_Atomic uint64_t *due_ns;                       /* owned; of each unit: when it is answered; 0 not asked for */
	_Atomic uint32_t *pending;                      /* owned; of each unit: answers that are to be placed */
	_Atomic uint64_t *change_ns; /* owned; of each unit: when the engine last did something for it */
	struct story_ring *stories;  /* owned; a neighbourhood each */
	uint64_t gpa;                /* under KVM */
};

static inline bool sblock_is_anonymous(const struct sblock *sb)
{
	return sb->fd < 0;
}

static inline struct slot *sblock_slot(struct sblock *sb, uint32_t page)
{
	uint64_t unit = page / sb->unit_pages, units = sb->pages / sb->unit_pages;

	return sb->slot_count ? &sb->slots[unit * sb->slot_count / units] : NULL;
}

/* Where slot @i begins, in bytes of the block; that of slot_count is the end. */
static inline uint64_t slot_begin(const struct sblock *sb, unsigned i)
{
	uint64_t units = sb->pages / sb->unit_pages;

	return (units * i + sb->slot_count - 1) / sb->slot_count * sb->hpage_bytes;
}

/* What the watcher saw of a waiter. */
struct suspicion {
	uint64_t turn, change_ns, beat, sleeps;
	bool pending;
};

/* Who may be found waiting. Written by itself, read by the watcher. */
struct waiter {
	_Atomic uint64_t since_ns; /* 0: it does not wait */
	_Atomic uint64_t turn;
	_Atomic uint32_t block, page;
	_Atomic uint32_t tid; /* 0: a coroutine of the engine's thread */
	char name[24];
	struct stress *stress;

	/* The watcher's. */
	struct suspicion suspicion;
};

/* What a toucher has left in a page. */
struct mark {
	uint32_t value; /* 0: nothing */
	uint32_t round;
	uint32_t done_before, begun_after; /* removals of the page, around the write */
};

struct group;
struct vcpu;
struct stress;

struct toucher {
	struct stress *s;
	unsigned index;
	pthread_t thread;
	struct waiter *waiter;
	struct vcpu *vcpu; /* owned; NULL: the thread touches by itself */
	uint64_t random;
	uint32_t value;                 /* of the last mark */
	struct mark *marks[BLOCKS_MAX]; /* owned, mappings */
	_Atomic uint64_t touches, waits, marks_checked;
	struct stress_latency latency; /* of accesses longer than WAIT_NS */
	uint8_t bounce[TPAGE_BYTES] __attribute__((aligned(64)));
};

/* An access that took longer has waited for a page, or for a CPU. */
#define WAIT_NS 1500u

enum stress_phase { PHASE_REST, PHASE_TOUCH, PHASE_WALK, PHASE_END };

struct source;

struct stress {
	struct stress_options opts;
	struct sblock blocks[BLOCKS_MAX];
	unsigned block_count;
	uint32_t pages;          /* of all blocks */
	struct ram ram;          /* the library's */
	struct postcopy *pc;     /* owned; of the round under way */
	struct reactor *reactor; /* owned */
	struct source *source;   /* owned */
	uint32_t round;          /* the version of all content; changes between rounds only */

	struct toucher *touchers; /* owned */
	struct waiter waiters[TOUCHERS_MAX + 16];
	unsigned waiter_count;
	unsigned own_first, own_count; /* waiters of own faults */
	struct waiter *remover;
	pthread_mutex_t rival_lock; /* removals of a page begin, and the rival places, one after the other */
	int kvm_fd, vm_fd;          /* -1: none */
	uint8_t *code;              /* owned; the vCPUs' own pages */

	pthread_mutex_t phase_lock;
	pthread_cond_t phase_changed;
	enum stress_phase phase;
	unsigned phase_number;
	unsigned participants, arrived;
	_Atomic unsigned touching; /* touchers in the touching phase; the others go on until there are none */
	int arrived_fd;            /* an eventfd: all participants have */

	_Atomic bool stop;       /* enough, or something is wrong */
	_Atomic bool over;       /* for the watcher */
	_Atomic bool given_up;   /* what is missing reads as zeros from now on, and says nothing */
	_Atomic uint64_t beat;   /* the engine's thread runs */
	_Atomic uint64_t faults; /* so far; from the library's counter */
	uint64_t begin_ns;
	uint64_t touch_ns;      /* spent in touching phases */
	uint64_t idle_pages;    /* pushed when nobody touched any more */
	uint64_t faults_before; /* of the rounds before */
	struct group *beats;

	pthread_mutex_t wrong_lock;
	struct stress_result result;
	struct progress progress;
};

/* ---- stress_world.c ---- */

int world_make(struct stress *s);
void world_free(struct stress *s);

/** world_begin_round - everything is missing again, and mapped. While nobody touches and nothing is registered. */
int world_begin_round(struct stress *s);

/* After postcopy_end. */
void world_end_round(struct stress *s);

/* splitmix64, Steele and others 2014. */
static inline uint64_t mix64(uint64_t x)
{
	x += 0x9e3779b97f4a7c15ull;
	x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9ull;
	x = (x ^ x >> 27) * 0x94d049bb133111ebull;
	return x ^ x >> 31;
}

static inline uint64_t random_next(uint64_t *state)
{
	return mix64(*state += 0x9e3779b97f4a7c15ull);
}

static inline double random_unit(uint64_t *state)
{
	return (double)(random_next(state) >> 11) * 0x1p-53;
}

#define CONTENT_STEP 0x9e3779b97f4a7c15ull

/* Word i of a page is base + i * CONTENT_STEP: cheap to make, and to recognise when it is found elsewhere. */
static inline uint64_t content_base(const struct stress *s, const struct sblock *sb, uint32_t page, uint32_t version)
{
	return mix64(mix64(s->opts.seed ^ (uint64_t)sb->index << 56 ^ (uint64_t)version << 32) ^ page);
}

/** content_place - how the page comes in this round; PLACE_ZERO pages hold zeros */
enum stress_place content_place(const struct stress *s, const struct sblock *sb, uint32_t page);

/** content_make - what the source sends of @version */
void content_make(const struct stress *s, const struct sblock *sb, uint32_t page, uint32_t version, void *ret_page);

/* In the story of the page's neighbourhood. */
void story_add(struct stress *s, struct sblock *sb, uint32_t page, uint32_t count, enum story what, int32_t value);

/** story_tell - the neighbourhood's last events, a line each. @ret_text is cut where it ends. */
void story_tell(const struct stress *s, const struct sblock *sb, uint32_t page, char *ret_text, size_t size);

/* ---- stress_check.c ---- */

/* Before the access. */
static inline uint32_t removals_done(const struct sblock *sb, uint32_t page)
{
	return atomic_load_explicit(&sb->removes_done[page], memory_order_acquire);
}

/* After it. */
static inline uint32_t removals_begun(const struct sblock *sb, uint32_t page)
{
	/* No load: nothing keeps what was read before one from being read after it. */
	return atomic_fetch_add_explicit(&sb->removes_begun[page], 0, memory_order_acq_rel);
}

/**
 * check_page - is what was read of a page one of the things it may be? The touchers' places are passed over.
 * @copy: of the page; @done: removals_done before it was read, @begun: removals_begun after it
 * Return: false if not; it has been reported, and the run stops.
 */
bool check_page(struct stress *s, struct sblock *sb, uint32_t page, const uint64_t *copy, uint32_t done, uint32_t begun,
                const char *who);

/** check_place - the same for a toucher's own place. @m: what it has left there */
bool check_place(struct stress *s, struct sblock *sb, uint32_t page, unsigned place, uint32_t found,
                 const struct mark *m, uint32_t done, uint32_t begun, const char *who);

/* Somebody waits for a page that nobody will bring; or (@starved) that is brought again and again in vain. */
void check_stranded(struct stress *s, struct sblock *sb, uint32_t page, const char *who, uint64_t waited_ns,
                    bool starved);

/* Something went wrong that is no wrong byte. */
void check_failed(struct stress *s, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* ---- stress_watch.c ---- */

/** watcher_main - the thread that finds who waits in vain, keeps the time, shows how it goes. @arg: struct stress */
void *watcher_main(void *arg);

static inline void waiter_begins(struct waiter *w, const struct sblock *sb, uint32_t page, uint64_t now_ns)
{
	atomic_store_explicit(&w->block, sb->index, memory_order_relaxed);
	atomic_store_explicit(&w->page, page, memory_order_relaxed);
	atomic_fetch_add_explicit(&w->turn, 1, memory_order_relaxed);
	atomic_store_explicit(&w->since_ns, now_ns, memory_order_release);
}

static inline void waiter_ends(struct waiter *w)
{
	atomic_store_explicit(&w->since_ns, 0, memory_order_release);
}

/** waiter_new - the next one, by name */
struct waiter *waiter_new(struct stress *s, const char *fmt, unsigned number);

/* ---- stress_run.c ---- */

/* A thread waits for the phase after @seen, and says when it is through with it. Return: the phase. */
enum stress_phase phase_next(struct stress *s, unsigned *seen);
void phase_done(struct stress *s);

/** run_give_up - pages will not come any more, by a fault of ours or the library's: nobody is to wait for them */
void run_give_up(struct stress *s);

/** run_sum_up - the result so far, for a run that cannot end in order */
void run_sum_up(struct stress *s);

/* ---- stress_source.c ---- */

struct page_request;

int source_make(struct stress *s);
void source_free(struct stress *s);

/** source_start - the coroutines that answer. @g: struct group */
int source_start(struct stress *s, struct group *g);

/* struct postcopy's request. */
int source_request(void *opaque, const struct page_request *list, size_t count);

/** source_push_rest - what nobody has asked for; then until nothing is under way. Parks. Return: 0 or the errno. */
int source_push_rest(struct stress *s);

/* ---- stress_own.c ---- */

/* Coroutines that touch the engine view while the touchers run. */
int own_start(struct stress *s, struct group *g);

/* ---- stress_touch.c ---- */

int touchers_make(struct stress *s);
void touchers_free(struct stress *s);
void *toucher_main(void *arg);

/** rival_main - the thread that places what others wait for, without waking them. @arg: struct stress */
void *rival_main(void *arg);

/* ---- stress_events.c ---- */

void *events_main(void *arg);
bool events_any(const struct stress *s);

/* ---- stress_kvm.c ---- */

/** kvm_can - whether there can be a guest of ours on this machine, or why not */
bool kvm_can(char ret_why[static 200]);
/** kvm_make - a machine whose memory the steady blocks are. Return: 0, or the errno after saying why */
int kvm_make(struct stress *s);
void kvm_free(struct stress *s);

/** vcpu_make - the toucher's of that number; called on the thread that will run it. NULL after check_failed */
struct vcpu *vcpu_make(struct stress *s, unsigned index);
void vcpu_free(struct vcpu *v);

/**
 * vcpu_touch - the guest accesses a place in a page of a steady block
 * @mark: 0: it reads; else it exchanges what is there for this
 * @ret_ns: how long KVM_RUN took. Return: false after check_failed, when KVM says no.
 */
bool vcpu_touch(struct vcpu *v, const struct sblock *sb, uint32_t page, unsigned place, uint32_t mark,
                uint32_t *ret_found, uint64_t *ret_ns);

/** vcpu_copy - the page as the guest has read it, right after a touch; NULL after check_failed */
const uint64_t *vcpu_copy(struct vcpu *v, const struct sblock *sb, uint32_t page);

#endif
