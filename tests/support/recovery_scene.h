/*
 * recovery_scene.h - the source of a postcopy scene loses its network and comes back, as a real one does
 *
 *   struct rec r;
 *   rec_begin(&r, &(struct pc_opts){ .preempt = PC_LATE, .touch = { .threads = 3, .write = true } });
 *   pc_switch(&r.s);
 *   rec_limit(&r, PC_MAIN, r.s.package_end + 5000);
 *   rec_until(&r, rec_at_limit, 5000);
 *   rec_pause(&r, REC_BOTH, false);
 *   rec_recover(&r, &(struct rec_opts){ .old = true });
 *   rec_finish(&r);                      checks every byte, and that nothing is left
 *
 * This file plays the dialogue of a recovery up to RESUME_ACK. Then the scene's source goes on, and sends every page
 * whose bit was clear in the bitmaps and nothing else. Each bitmap is compared with what the destination's memory
 * really holds.
 *
 * Source: doc/wire/stream.md 5.8, doc/wire/channels.md 2.3
 */
#ifndef TESTS_SUPPORT_RECOVERY_SCENE_H
#define TESTS_SUPPORT_RECOVERY_SCENE_H

#include "tests/support/postcopy_scene.h"

/* How far the source has come back. */
enum rec_stage {
	REC_AWAY,      /* it is not connected, or the destination has closed */
	REC_CONNECTED, /* nothing sent yet */
	REC_ASKING,    /* RECV_BITMAP of each block, one after the other; bitmaps come in */
	REC_ASKED,     /* all of them are here */
	REC_PREEMPT,   /* and the preempt channel is connected, if there is one */
	REC_RESUMING,  /* RESUME is on its way */
	REC_BACK,      /* RESUME_ACK has been read: the scene's source goes on */
};

/* How the preempt channel comes: not at all; as up to machine type 7.2, perhaps overtaking main; as with later ones. */
enum rec_style { REC_NO_PREEMPT, REC_OLD, REC_OLD_OVERTAKES, REC_NEW, REC_STYLES };

/* Which connections break. */
enum rec_cut { REC_MAIN, REC_ONLY_PREEMPT, REC_BOTH, REC_CUTS };

struct rec_opts {
	bool old;                  /* the preempt channel connects right after main: up to machine type 7.2 */
	bool preempt_first;        /* with @old: it overtakes main */
	bool no_preempt;           /* it is never connected */
	bool unread;               /* the destination's replies stay in the socket */
	enum rec_stage stop;       /* go no further than this; 0: to the end */
	size_t allowed;            /* bytes of its commands that go out; 0: all */
	size_t chunk_bytes;        /* of them, in a turn; 0: as many as go */
	const struct wire *script; /* what main says instead of all commands; NULL: the right thing */
};

struct rec {
	struct pc s;
	struct rec_opts o;
	enum rec_stage stage;
	int fd; /* of main during the dialogue; -1: the scene's source has it */
	struct wire out;
	size_t done; /* of out, sent */
	uint8_t *in;
	size_t in_len, in_cap;
	unsigned bitmaps;                 /* read in this dialogue */
	uint8_t *received[PC_BLOCKS_MAX]; /* by tpage: the last bitmaps */
	unsigned losses, returns;         /* that happened: pauses, and RESUME_ACKs */
	bool lost_at_end;                 /* it completed although the source could not be told */
	unsigned turns, act_at;           /* rec_turn calls; and with act, at which of them it is called */
	void (*act)(struct rec *r);
	bool removes; /* pages are removed: what was sent may be dropped */

	unsigned line; /* see rec_limit */
	size_t upto;
	bool limited;
};

/* ---- the frame --------------------------------------------------------------------------------------------------- */

/* As pc_begin. */
void rec_begin(struct rec *r, const struct pc_opts *o);
/* A step of everybody. Return: whether anything moved. */
bool rec_turn(struct rec *r);
/* Until @done says so or the migration has ended, at most @ms. Return: whether @done said so. */
typedef bool rec_done_fn(struct rec *r);
bool rec_until(struct rec *r, rec_done_fn *done, unsigned ms);
/* As long as anything moves, and a little longer. */
void rec_settle(struct rec *r);
/* When the touchers are done, sends all the rest, lands, compares, and frees. */
void rec_finish(struct rec *r);
/* The embedder gives up the guest; then everything must have been released. */
void rec_give_up(struct rec *r);
/* As pc_end. Done by the two above. */
void rec_end(struct rec *r);

/* Conditions. */
bool rec_guest_runs(struct rec *r);
bool rec_at_limit(struct rec *r);
bool rec_is_paused(struct rec *r);
bool rec_is_back(struct rec *r);
bool rec_is_away(struct rec *r);
bool rec_is_stopped(struct rec *r); /* it has reached o.stop, or has sent all that may go out */
bool rec_all_wait(struct rec *r);   /* each toucher waits for a page, and has done so for some milliseconds */

/* ---- the source -------------------------------------------------------------------------------------------------- */

/* This line sends at most so many bytes in all; SIZE_MAX: no limit. */
void rec_limit(struct rec *r, unsigned line, size_t upto);
/* Moves the limit to the end of the next record or element in the line's buffer. Return: false if there is none. */
bool rec_next_record(struct rec *r);
/* The connections break; with @reset by RST, where they are TCP. */
void rec_lose(struct rec *r, enum rec_cut which, bool reset);
/* Both sides have closed: forget what was on its way. */
void rec_forget(struct rec *r);
/* rec_lose, then run until it is paused, or has completed because nothing was missing. Return: is it paused? */
bool rec_pause(struct rec *r, enum rec_cut which, bool reset);
/* Main connects, and the dialogue begins. */
void rec_return(struct rec *r, const struct rec_opts *o);
/* rec_return, then run until RESUME_ACK. Fails if that does not come. */
void rec_recover(struct rec *r, const struct rec_opts *o);
/*
 * rec_return, as far as @o says, and lost again; until it is paused. Counts in losses and returns what the library will
 * have counted.
 */
void rec_attempt(struct rec *r, const struct rec_opts *o, enum rec_cut which);
/* The migration goes on listening there. */
void rec_move(struct rec *r, const char *uri);

/* ---- the guest --------------------------------------------------------------------------------------------------- */

/* pc_remove in a thread of its own, while everything goes on here. */
void rec_remove(struct rec *r, unsigned block, uint64_t first, uint64_t end);

/* ---- the usual story --------------------------------------------------------------------------------------------- */

#define REC_THREADS 4u

/* REC_THREADS write; the source sends only what is asked for, from pc_answer on. */
struct pc_opts rec_story(const struct pc_block blocks[static 2], enum rec_style style);
/* How such a source comes back. */
struct rec_opts rec_back(enum rec_style style);
/* rec_begin, then run until all of them wait. */
void rec_begin_waiting(struct rec *r, const struct pc_opts *o);
/* That, and both connections are lost: it is paused. */
void rec_begin_paused(struct rec *r, const struct pc_opts *o);
/* pc_answer, rec_finish. */
void rec_answer_and_finish(struct rec *r);
/* rec_recover with rec_back, then the same. */
void rec_recover_and_finish(struct rec *r, enum rec_style style);
void rec_check_state(const struct rec *r, enum inm_state state);

#endif
