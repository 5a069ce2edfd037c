/*
 * toucher.h - threads, or vCPUs, that touch the guest's memory and verify what they read
 */
#ifndef PROGRAMS_STRESS_TOUCHER_H
#define PROGRAMS_STRESS_TOUCHER_H

#include "programs/stress/block.h"
#include "programs/stress/latency.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>

struct mark;
struct stress;
struct vcpu;
struct waiter;

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

int touchers_make(struct stress *s);
void touchers_free(struct stress *s);

/* The thread. @arg: struct toucher */
void *toucher_main(void *arg);

#endif
