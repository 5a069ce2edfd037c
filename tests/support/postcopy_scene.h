/*
 * postcopy_scene.h - a scripted postcopy source, an embedder whose guest runs, and a census around both
 *
 *   struct pc s;
 *   pc_begin(&s, &(struct pc_opts){ .precopied = 90, .preempt = PC_LATE, .touch = { .threads = 4 } });
 *   pc_finish(&s);                       sends everything, and the migration ends
 *   pc_check_landed(&s);
 *   pc_end(&s);                          frees everything, and checks that nothing is left
 *
 * Source and library take turns in the test's own thread, so the test chooses what happens between any two bytes. Only
 * the guest's threads (touchers) run beside it. With pc_run_threaded the source has a thread of its own instead.
 *
 * What a page holds is a function of its block and its place (wire_content). So a toucher checks each access, and the
 * scene compares each byte at the end. The source checks each request by the rules of doc/wire/stream.md 3.
 */
#ifndef TESTS_SUPPORT_POSTCOPY_SCENE_H
#define TESTS_SUPPORT_POSTCOPY_SCENE_H

#include <pthread.h>
#include <stdatomic.h>

#include "tests/support/scene.h"
#include "tests/support/temp.h"

#define PC_PAGE ((uint64_t)WIRE_TPAGE_BYTES)
#define PC_HUGE_BYTES (2ul << 20)
#define PC_BLOCKS_MAX 16
#define PC_THREADS_MAX 16
#define PC_REPLIES_MAX 8
#define PC_ALL SIZE_MAX

struct pc;

struct pc_block {
	const char *name;
	uint64_t pages; /* target pages */
	enum emb_backing backing;
};

/* When the preempt channel connects. */
enum pc_preempt {
	PC_NO_PREEMPT,
	PC_BEFORE_MAIN,   /* 7.2 on a bad network */
	PC_EARLY,         /* 7.2: right after main */
	PC_LATE,          /* 8.0 on: before the switch */
	PC_WITH_PACKAGE,  /* at the moment the package is sent; the kernel connects it, and nobody has accepted it */
	PC_AFTER_PACKAGE, /* preempt_delay_ms after it */
	PC_NEVER,
};

/* Where to put something that does not belong there. */
enum pc_place {
	PC_BEFORE_ADVISE,
	PC_BEFORE_START,
	PC_BEFORE_DISCARD,
	PC_AFTER_DISCARD,
	PC_BEFORE_LISTEN, /* the first in the package */
	PC_AFTER_LISTEN,
	PC_BEFORE_RUN,
	PC_AFTER_RUN, /* the last in the package */
	PC_AFTER_PACKAGE_END,
};
typedef void pc_inject_fn(struct pc *s, struct wire *w);

/* What the guest's threads do, from start_vcpus on: each touches every page, pass by pass. */
enum pc_order { PC_UPWARDS, PC_DOWNWARDS, PC_SCATTERED, PC_SAME_PAGE, PC_ORDERS };
struct pc_touch {
	unsigned threads;
	enum pc_order order; /* SAME_PAGE: upwards, all at one page; the others begin at different places */
	bool write;          /* each thread writes a stamp into a word of its own, and checks it at the end */
	unsigned passes;     /* 0 means 1 */
	bool held;           /* they start at pc_touch */
};

/*
 * Threads of the embedder that give memory back, from start_vcpus on until the touchers are done: MADV_REMOVE for
 * shared memory, MADV_DONTNEED for anonymous memory. Each walks over the pages that are to go, again and again.
 */
struct pc_balloon {
	unsigned threads;
	unsigned percent;  /* of the units, by pc_goes */
	unsigned pause_us; /* between two calls; 0: a flood */
	bool once;         /* a single walk */
};

typedef int pc_device_fn(struct pc *s, const struct inm_device *device);

struct pc_opts {
	const struct pc_block *blocks; /* NULL: "pc.ram" of 64 pages and "vga.vram" of 16, of memfds */
	unsigned block_count;
	bool unplugged;       /* the embedder says so of all blocks */
	uint64_t spare_pages; /* that the embedder has after each block, and the source has not */
	unsigned precopied;   /* percent of the units; every third page of the others is sent, too, but goes stale */
	enum pc_preempt preempt;
	unsigned preempt_delay_ms;
	bool preempt_eos;        /* machine types up to 7.2 end the channel with a record */
	bool preempt_silent;     /* nothing comes on it: requests are answered on main */
	unsigned channels;       /* multifd */
	const char *compression; /* of multifd, which the test then sends itself; NULL: none */
	bool old_multifd;        /* 7.2: synchronised at each EOS, in postcopy, too; else 10.1 on */
	bool modern;             /* 10.2: an empty PART before the switch, SWITCHOVER_START, PING 0x42 */
	bool quiet;              /* sends only what is asked for, until pc_push */
	bool unanswered;         /* requests are noted, and answered from pc_answer on */
	unsigned answer_delay_ms;
	unsigned main_percent;  /* of the requests, this many are answered on main all the same */
	unsigned twice_percent; /* and this many on both */
	bool twice;             /* requested pages come on main, too, and everything comes once more at the end */
	bool split;             /* half of each huge page on main and half on preempt, at the same time */
	bool tls;
	bool prefetch;
	const char *connect_deadline; /* seconds; NULL: 5 */
	const char *stuck_after;      /* milliseconds; NULL: the default */
	bool kernel_faults;           /* says that the guest touches its memory in the kernel, too */
	struct pc_touch touch;
	struct pc_balloon balloon;
	void (*look)(struct pc *s); /* every few milliseconds, in the migration's thread, between two of its turns */
	pc_device_fn *device;       /* in the callback of the second device */
	enum pc_place inject_at;
	pc_inject_fn *inject;
	bool no_advise, no_listen, no_run, no_devices;
	uint64_t summary, advised_tpage_bytes; /* of ADVISE; 0: the right ones */
	uint32_t package_bytes;                /* the length that is announced, from package_lies on */
	bool package_lies;
	struct inm_config config;
	void (*log)(void *opaque, enum inm_log_level level, const char *text); /* of inm_ops; NULL: kept in said */
};

/* By the embedder: the page is zeros once the call has returned. */
enum pc_removal { PC_KEPT, PC_BEING_REMOVED, PC_REMOVED };

/* A block as the source has it, and what is known of its pages. */
struct pc_ram {
	struct pc_block said;
	uint64_t bytes;
	unsigned unit_pages; /* target pages in a page of the backing */
	uint64_t units;
	struct emb_block *emb;
	uint8_t *precopied;               /* by unit */
	uint8_t *reserved;                /* by unit: sent only when it is asked for */
	uint8_t *sent;                    /* by unit, in postcopy */
	uint8_t *asked;                   /* by unit: how often */
	uint8_t *removed;                 /* by target page: enum pc_removal */
	uint8_t *stamped[PC_THREADS_MAX]; /* by target page */
};

/* A connection: what it still has to send, and how much of that it may send. */
struct pc_line {
	int fd; /* -1: none */
	struct wire out;
	size_t done;    /* of out.data, sent */
	size_t sent;    /* in all */
	size_t allowed; /* in all */
	bool held;      /* nothing is sent while it is set */
	bool broken;    /* the destination has closed it */
	int last_block; /* named last on it, or -1 */
	struct tls_relay *relay;
};

enum { PC_MAIN, PC_PREEMPT, PC_MULTIFD, PC_LINES = PC_MULTIFD + 8 };

struct pc_request {
	unsigned block;
	uint64_t start, bytes;
	uint64_t at_ns;
};

struct pc_thread {
	pthread_t thread;
	void *stack;
	unsigned tasks_before;
};

/* A thread of the guest. */
struct pc_toucher {
	struct pc *s;
	struct pc_thread thread;
	unsigned id;
	atomic_ulong touched; /* touches to this moment */
	atomic_int tid;
	atomic_uint block; /* what it touches */
	atomic_ulong tpage;
	atomic_ulong since_ns;                  /* 0: between two touches */
	atomic_ulong worst_ns;                  /* the longest touch */
	uint64_t stuck_since_ns, stuck_seen_ns; /* see pc_stranded */
};

struct pc {
	struct census before;
	struct pc_opts o;
	struct embedder e;
	struct pc_ram ram[PC_BLOCKS_MAX];
	unsigned ram_count;
	char address[160], dir[TEMP_NAME_BYTES];
	int result; /* of the last inm_dispatch; 1: under way */

	/* The source. */
	struct wire head;                          /* everything up to the end of PING 4; its marks and bodies stay */
	size_t switch_at, package_at, package_end; /* in head */
	struct pc_line lines[PC_LINES];
	unsigned push_block;
	uint64_t push_unit;
	bool pushing, again, ended, answering;
	bool preempt_due; /* it connects as soon as the package is out, or at preempt_at_ns */
	uint64_t preempt_at_ns;
	uint8_t inbuf[1 << 16];
	size_t in_len;
	char last_name[256];         /* of the last request */
	struct pc_request *requests; /* all of them, answered up to answered_count */
	size_t request_count, request_cap, answered_count;
	unsigned named_requests, unnamed_requests;
	struct wire_reply replies[PC_REPLIES_MAX]; /* the others */
	unsigned reply_count;
	char breach[400];   /* the first rule that the destination broke; "": none */
	bool source_closed; /* pc_lose has been called, or the source has been told and has closed */
	char tls_dir[TEMP_NAME_BYTES];

	/* The embedder. */
	unsigned vcpu_starts, ready_calls;
	bool device_ended; /* the hook has returned */
	int device_result;
	char said[1 << 14]; /* logged */
	size_t said_len;

	/* The guest. */
	struct pc_toucher touchers[PC_THREADS_MAX];
	unsigned toucher_count;
	atomic_uint touchers_done;
	struct pc_toucher balloons[PC_THREADS_MAX];
	unsigned balloon_count;
	atomic_uint balloon_walks; /* of all threads, from end to end */
	atomic_ulong removals;     /* calls */
	atomic_bool go;            /* for touchers that are held */
	atomic_bool stop, lost;    /* lost: what is missing reads as zeros now */
	uint64_t looked_ns;
	atomic_ulong wrong;
	char wrong_text[200]; /* of the first one, by the thread that made wrong 1 */
};

/* Runs @o with these two blocks, and watches the books; skips the test where there are no huge pages for them. */
struct pc_opts pc_in_memory(const struct pc_block blocks[static 2], struct pc_opts o);
/* A device that waits for page 1 of block 0 (pc_opts.device). */
int pc_device_waits(struct pc *s, const struct inm_device *device);

/* ---- the frame --------------------------------------------------------------------------------------------------- */

/* The destination listens; nothing is connected. */
void pc_begin(struct pc *s, const struct pc_opts *o);
/* Makes the connections that come before the switch; sends all of precopy, and the library loads it. */
void pc_precopy(struct pc *s);
/* From the next turn on everything up to PING 4 may go out. Calls pc_precopy if the test has not. */
void pc_switch(struct pc *s);
/* A step of everybody. Return: whether anything moved. */
bool pc_turn(struct pc *s);
/* Until @done says so or the migration has ended, at most @ms. Return: whether @done said so. */
typedef bool pc_done_fn(struct pc *s);
bool pc_until(struct pc *s, pc_done_fn *done, unsigned ms);
/* pc_begin, pc_switch, and until @done says so, which it must. */
void pc_begin_until(struct pc *s, pc_done_fn *done, const struct pc_opts *o);
/* As long as anything moves, and a little longer. */
void pc_settle(struct pc *s);
/* Until it has ended, at most @ms. Return: s->result, 1 if it has not. */
int pc_run(struct pc *s, unsigned ms);
/* pc_switch; when the touchers are done, all that is left is sent. Return: the migration's result. */
int pc_finish(struct pc *s);
/* The same with the source in a thread of its own and inm_run. */
int pc_run_threaded(struct pc *s, unsigned ms);

/* Conditions. */
bool pc_vcpus_started(struct pc *s);
bool pc_touched_all(struct pc *s); /* the touchers are done */
bool pc_asked(struct pc *s);       /* there is a request that is not answered */
bool pc_paused(struct pc *s);
bool pc_all_wait(struct pc *s); /* each toucher waits for a page, and has done so for some milliseconds */

void pc_check_landed(struct pc *s);
/* Before RUN: it failed with @code and words as in several.h, the source was told SHUT 1, no vCPU was started. */
void pc_check_failed(struct pc *s, int code, const char *words);
/* Calls inm_cancel, and the guest's threads end: missing pages then read as zeros. */
void pc_cancel(struct pc *s);
/* After inm_cancel. */
void pc_check_cancelled(struct pc *s);
/* pc_cancel and all that follows, including pc_end. */
void pc_give_up(struct pc *s);
/* Frees inm, joins threads, closes lines. The above do it, too. */
void pc_free(struct pc *s);
void pc_end(struct pc *s);

/* ---- the source -------------------------------------------------------------------------------------------------- */

void pc_source_begin(struct pc *s);
void pc_source_end(struct pc *s);
bool pc_source_step(struct pc *s);
void pc_source_connect(struct pc *s, unsigned line);
void pc_allow(struct pc *s, size_t upto); /* of main, as an offset in head; PC_ALL */
void pc_push(struct pc *s);               /* sends all the rest, END, EOF */
void pc_answer(struct pc *s);             /* answers requests from here on, the noted ones first */
void pc_reserve(struct pc *s, unsigned block, uint64_t tpage);
/* Sends this unit now, on that line, whatever was sent before. */
void pc_send_unit(struct pc *s, unsigned line, unsigned block, uint64_t unit);
void pc_send_page(struct pc *s, unsigned line, unsigned block, uint64_t tpage);
/* Sends target pages [first, end) in one piece. */
void pc_send_run(struct pc *s, unsigned line, unsigned block, uint64_t first, uint64_t end);
void pc_lose(struct pc *s); /* all connections break */
void pc_close_line(struct pc *s, unsigned line);
/* Sends what the line holds and the socket takes, up to @upto bytes in all. Return: whether anything moved. */
bool pc_flush_line(struct pc_line *l, size_t upto);
unsigned pc_asked_times(const struct pc *s, unsigned block, uint64_t tpage);
unsigned pc_reply_count(const struct pc *s, uint16_t type);

/* ---- the guest --------------------------------------------------------------------------------------------------- */

/* A thread that the census does not see once it has been joined. It must not allocate. */
void pc_thread_start(struct pc_thread *t, void *(*run)(void *arg), void *arg);
void pc_thread_join(struct pc_thread *t);
void pc_guest_begin(struct pc *s);
void pc_guest_start(struct pc *s);
/* Joins the touchers; those that wait for a page must have been released. */
void pc_guest_end(struct pc *s);
unsigned long pc_touched(const struct pc *s);
/* The held touchers start. */
void pc_touch(struct pc *s);
uint64_t pc_worst_touch_ns(const struct pc *s);
/* Whether the balloon takes this unit. */
bool pc_goes(const struct pc *s, unsigned block, uint64_t unit);
/* Gives back units [first, end) of a block, from any thread. Return: 0 or the errno of madvise(2). */
int pc_remove(struct pc *s, unsigned block, uint64_t first, uint64_t end);
/* Compares all of memory. Return: how many pages differ; the first few are printed. */
unsigned pc_compare(struct pc *s);
/* What a thread writes into a page, and in which word. */
uint64_t pc_stamp(unsigned block, uint64_t tpage, unsigned thread);
#define PC_STAMP_WORD(thread) (16u + (thread)*8u)
/* Where a page is in the guest view. */
uint8_t *pc_guest(struct pc *s, unsigned block, uint64_t tpage);

/* ---- the library's books; in the migration's thread, between two of its turns ------------------------------------ */

/*
 * Fails when a thread has waited for more than a second for a page that is here all the while; and when the ledger is
 * wrong: each unit that is asked for has one entry and each entry is in one list and owed, and each thread that waits
 * for a page that is not here has one (invariant (2) of postcopy/postcopy.h). Fits pc_opts.look.
 */
void pc_check_books(struct pc *s);

/* Skips the test where this kernel does not let us test postcopy at all. */
void pc_need(void);

#endif
