/*
 * stress.h - `inmigrate stress`: the library's postcopy, beaten on and checked; the run that its parts share
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
#ifndef PROGRAMS_STRESS_STRESS_H
#define PROGRAMS_STRESS_STRESS_H

#include "coroutine/wait.h"
#include "memory/block.h"
#include "programs/cli/progress.h"
#include "programs/stress/block.h"
#include "programs/stress/options.h"
#include "programs/stress/phases.h"
#include "programs/stress/result.h"
#include "programs/stress/waiter.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

struct group;
struct postcopy;
struct reactor;
struct source;
struct toucher;

struct stress {
	struct stress_options opts;
	struct sblock blocks[BLOCKS_MAX];
	unsigned block_count;
	uint32_t pages;          /* of all blocks */
	struct ram ram;          /* the library's */
	struct postcopy *pc;     /* owned; of the round under way */
	struct event whole;      /* its last page is here */
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
	_Atomic uint64_t faults; /* to this moment; from the library's counter */
	uint64_t begin_ns;
	uint64_t touch_ns;      /* spent in touching phases */
	uint64_t idle_pages;    /* pushed when nobody touched any more */
	uint64_t faults_before; /* of the rounds before */
	struct group *beats;

	pthread_mutex_t wrong_lock;
	struct stress_result result;
	struct progress progress;
};

#endif
