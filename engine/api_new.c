/*
 * api_new.c - what the embedder makes and releases: reactors and migrations
 */
#include "inmigrate.h"

#include "base/assert.h"
#include "base/clock.h"
#include "coroutine/reactor.h"
#include "engine/inm.h"
#include "engine/last_error.h"
#include "engine/options/options_set.h"
#include "engine/sized.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/resource.h>
#include <unistd.h>

/* What a stack needs at most; a larger number is a mistake, and would overflow when it is rounded. */
#define STACK_BYTES_MAX ((size_t)1 << 30)

/* What the ring has mapped, and the kernel may charge to RLIMIT_MEMLOCK (measured on 6.18). */
#define RING_LOCKED_BYTES ((rlim_t)128 << 10)

/* ---- why there is no ring ---- */

static void no_memory(struct err *err)
{
	struct rlimit limit;

	if (getrlimit(RLIMIT_MEMLOCK, &limit) == 0 && limit.rlim_cur != RLIM_INFINITY &&
	    limit.rlim_cur < RING_LOCKED_BYTES)
		err_set(err, -ENOMEM,
		        "io_uring: no memory; the limit of locked memory (RLIMIT_MEMLOCK, ulimit -l) is "
		        "%llu KiB, and one reactor needs up to %llu KiB: raise it, or give CAP_IPC_LOCK",
		        (unsigned long long)limit.rlim_cur >> 10, (unsigned long long)RING_LOCKED_BYTES >> 10);
	else
		err_set(err, -ENOMEM,
		        "io_uring: no memory; if there is enough, raise the limit of locked memory "
		        "(RLIMIT_MEMLOCK, ulimit -l) of this user, which all of the user's rings share");
}

static int sysctl_disabled(void)
{
	FILE *f = fopen("/proc/sys/kernel/io_uring_disabled", "re");
	int value = -1;

	if (f && fscanf(f, "%d", &value) != 1)
		value = -1;
	if (f)
		fclose(f);
	return value;
}

static int ring_refused(int r, struct err *err)
{
	switch (r) {
	case -EPERM:
		if (sysctl_disabled() > 0)
			return err_set(err, r,
			               "io_uring is not permitted: sysctl kernel.io_uring_disabled is %d; set "
			               "it to 0, or to 1 and give CAP_SYS_ADMIN or the group in kernel.io_uring_group",
			               sysctl_disabled());
		return err_set(err, r,
		               "io_uring is not permitted: a policy (seccomp in a container, SELinux) refuses "
		               "it; permit io_uring_setup(2), io_uring_enter(2) and io_uring_register(2)");
	case -ENOSYS:
		return err_set(err, r,
		               "this kernel has no io_uring that is new enough (Linux 5.11 with "
		               "CONFIG_IO_URING), or a seccomp policy hides it; permit io_uring_setup(2), "
		               "io_uring_enter(2) and io_uring_register(2)");
	case -ENOMEM:
		no_memory(err);
		return r;
	case -EMFILE:
	case -ENFILE:
		return err_set(err, r,
		               "no descriptor is left for io_uring; raise the limit of open files "
		               "(RLIMIT_NOFILE, ulimit -n)");
	default:
		return err_set(err, r, "io_uring: %s", strerror(-r));
	}
}

/* ---- reactor ---- */

static int read_reactor_config(struct inm_reactor_config *ret, const struct inm_reactor_config *config, struct err *err)
{
	static const struct sized_member members[] = {
		SIZED_MEMBER(struct inm_reactor_config, size),
		SIZED_MEMBER(struct inm_reactor_config, stack_bytes),
		SIZED_MEMBER(struct inm_reactor_config, ring),
	};

	if (config && sized_copy(ret, sizeof(*ret), config, members, sizeof(members) / sizeof(members[0])) < 0)
		return err_set(err, -EINVAL,
		               "the size in struct inm_reactor_config is %zu, and must be "
		               "sizeof(struct inm_reactor_config), here %zu",
		               config->size, sizeof(*config));
	if (ret->ring && strcmp(ret->ring, ring_uring.name) != 0)
		return err_set(err, -EINVAL, "there is no such ring; known is \"%s\"", ring_uring.name);
	if (ret->stack_bytes > STACK_BYTES_MAX)
		return err_set(err, -EINVAL, "stack_bytes is %zu, more than %zu", ret->stack_bytes, STACK_BYTES_MAX);
	return 0;
}

static int make_reactor(struct inm_reactor **ret_reactor, const struct inm_reactor_config *config, struct err *err)
{
	struct inm_reactor_config own = { .size = 0 };
	struct inm_reactor *home;
	int r = read_reactor_config(&own, config, err);

	if (r < 0)
		return r;
	home = calloc(1, sizeof(*home));
	if (!home)
		return err_set(err, -ENOMEM, "no memory");
	r = reactor_new(&home->reactor, &ring_uring, own.stack_bytes);
	if (r < 0) {
		free(home);
		return ring_refused(r, err);
	}
	claim_init(&home->claim);
	*ret_reactor = home;
	return 0;
}

static void unmake_reactor(struct inm_reactor *home)
{
	reactor_free(home->reactor);
	claim_fini(&home->claim);
	free(home);
}

int inm_reactor_new(struct inm_reactor **ret_reactor, const struct inm_reactor_config *config)
{
	struct err err = ERR_NONE;
	int r;

	if (ret_reactor)
		*ret_reactor = NULL;
	r = ret_reactor ? make_reactor(ret_reactor, config, &err) :
	                  err_set(&err, -EINVAL, "NULL was given for the result");
	if (r < 0)
		return last_error_set(__func__, r, &err);
	last_error_clear();
	return 0;
}

static int may_free_reactor(struct inm_reactor *home, struct err *err)
{
	int claimed = claim_look(&home->claim, err), r;

	if (claimed < 0)
		return claimed;
	if (claimed == CLAIMED_NESTED)
		r = err_set(err, -EDEADLK, "called from a callback: nothing is released");
	else
		r = home->migrations == 0 ? 0 :
		                            err_set(err, -EBUSY,
		                                    "%zu of its migrations have not been freed: nothing "
		                                    "is released",
		                                    home->migrations);
	claim_leave(&home->claim, claimed);
	return r;
}

void inm_reactor_free(struct inm_reactor *reactor)
{
	struct err err = ERR_NONE;
	int r;

	if (!reactor)
		return;
	r = may_free_reactor(reactor, &err);
	if (r < 0)
		last_error_set(__func__, r, &err);
	else
		unmake_reactor(reactor);
}

/* ---- a migration ---- */

static void write_log(void *opaque, enum log_level level, const char *text)
{
	struct inm *inm = opaque;

	ASSERT(!inm->reactor || !inm->reactor->sched.current->in_handler); /* by (5) of yield.h */
	callbacks_log(&inm->callbacks, (enum inm_log_level)level, text);
}

static void set_up_voice(struct inm *inm, const struct inm_config *config)
{
	inm->log.level_max = (enum log_level)config->log_level;
	if (inm->callbacks.ops.log) {
		inm->log.write = write_log;
		inm->log.limit = &inm->log_limit;
		inm->log.opaque = inm;
	}
	if (inm->callbacks.ops.trace) {
		inm->trace.line = inm->callbacks.ops.trace;
		inm->trace.opaque = inm->callbacks.opaque;
	}
}

static int read_config(struct inm_config *ret, const struct inm_config *config, struct err *err)
{
	static const struct sized_member members[] = {
		SIZED_MEMBER(struct inm_config, size),      SIZED_MEMBER(struct inm_config, reactor),
		SIZED_MEMBER(struct inm_config, log_level), SIZED_MEMBER(struct inm_config, uuid),
		SIZED_MEMBER(struct inm_config, machine),
	};

	if (config && sized_copy(ret, sizeof(*ret), config, members, sizeof(members) / sizeof(members[0])) < 0)
		return err_set(err, -EINVAL,
		               "the size in struct inm_config is %zu, and must be "
		               "sizeof(struct inm_config), here %zu",
		               config->size, sizeof(*config));
	if ((int)ret->log_level < INM_LOG_ERROR || (int)ret->log_level > INM_LOG_DEBUG)
		return err_set(err, -EINVAL, "log_level is %d, and none of INM_LOG_", (int)ret->log_level);
	return 0;
}

static int read_ops(struct inm_ops *ret, const struct inm_ops *ops, struct err *err)
{
	static const struct sized_member members[] = {
		SIZED_MEMBER(struct inm_ops, size),        SIZED_MEMBER(struct inm_ops, ram_block),
		SIZED_MEMBER(struct inm_ops, device),      SIZED_MEMBER(struct inm_ops, ready),
		SIZED_MEMBER(struct inm_ops, start_vcpus), SIZED_MEMBER(struct inm_ops, state_changed),
		SIZED_MEMBER(struct inm_ops, log),         SIZED_MEMBER(struct inm_ops, trace),
		SIZED_MEMBER(struct inm_ops, live_state),  SIZED_MEMBER(struct inm_ops, early_described),
		SIZED_MEMBER(struct inm_ops, ram_listed),
	};

	if (!ops)
		return err_set(err, -EINVAL, "NULL was given for the callbacks");
	if (sized_copy(ret, sizeof(*ret), ops, members, sizeof(members) / sizeof(members[0])) < 0)
		return err_set(err, -EINVAL,
		               "the size in struct inm_ops is %zu, and must be sizeof(struct inm_ops), "
		               "here %zu",
		               ops->size, sizeof(*ops));
	return ret->ram_block ? 0 : err_set(err, -EINVAL, "there must be a callback ram_block");
}

static int apply_config(struct inm *inm, const struct inm_config *config, struct err *err)
{
	static const uint8_t none[16];

	if (memcmp(config->uuid, none, sizeof(none)) != 0) {
		memcpy(inm->opts.uuid, config->uuid, sizeof(inm->opts.uuid));
		inm->opts.has_uuid = true;
	}
	if (config->machine)
		return options_set_parameter(&inm->opts, "machine", config->machine, err);
	return 0;
}

static int join_reactor(struct inm *inm, struct inm_reactor *shared, struct err *err)
{
	int claimed, r;

	if (!shared) {
		r = make_reactor(&inm->home, NULL, err);
		if (r < 0)
			return r;
		inm->reactor_is_ours = true;
		shared = inm->home;
	}
	claimed = claim_look(&shared->claim, err);
	if (claimed < 0)
		return err_up(err, claimed, "the shared reactor");
	shared->migrations++;
	claim_leave(&shared->claim, claimed);
	inm->home = shared;
	inm->reactor = shared->reactor;
	return 0;
}

/* What it has, complete or half-built, but its reactor. Nothing of it is under way. */
static void release(struct inm *inm)
{
	ram_fini(&inm->ram);
	if (inm->reactor && inm->reactor->deadlock_opaque == inm)
		inm->reactor->deadlock = NULL;
	if (inm->story.wish_fd >= 0)
		close(inm->story.wish_fd);
	stuck_fini(&inm->callbacks.stuck);
	if (inm->reactor)
		inm->home->migrations--;
}

static int set_up(struct inm *inm, const struct inm_config *config, struct err *err)
{
	int r;

	options_init(&inm->opts);
	set_up_voice(inm, config);
	inm->story.wish_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (inm->story.wish_fd < 0)
		return err_set(err, -errno, "no eventfd: %s", strerror(errno));
	r = stuck_init(&inm->callbacks.stuck);
	if (r < 0)
		return err_set(err, r, "no timerfd: %s", strerror(-r));
	r = apply_config(inm, config, err);
	return r < 0 ? r : join_reactor(inm, config->reactor, err);
}

static int make(struct inm **ret_inm, const struct inm_config *config, const struct inm_ops *ops, void *opaque,
                struct err *err)
{
	/* What a shorter structure does not have is zero; but that would be the level of an error. */
	struct inm_config own = { .log_level = INM_LOG_INFO };
	struct inm_ops own_ops = { .size = 0 };
	struct inm *inm;
	int r = read_ops(&own_ops, ops, err);

	if (r == 0)
		r = read_config(&own, config, err);
	if (r < 0)
		return r;
	inm = calloc(1, sizeof(*inm));
	if (!inm)
		return err_set(err, -ENOMEM, "no memory");
	inm->callbacks = (struct callbacks){ .ops = own_ops,
		                             .opaque = opaque,
		                             .inm = inm,
		                             .log = &inm->log,
		                             .postcopy = &inm->postcopy,
		                             .cancel_asked = &inm->story.cancel_asked,
		                             .stuck = STUCK_NONE };
	inm->story.callbacks = &inm->callbacks;
	r = set_up(inm, &own, err);
	if (r < 0) {
		release(inm);
		free(inm);
		return r;
	}
	*ret_inm = inm;
	return 0;
}

int inm_new(struct inm **ret_inm, const struct inm_config *config, const struct inm_ops *ops, void *opaque)
{
	struct err err = ERR_NONE;
	int r;

	if (ret_inm)
		*ret_inm = NULL;
	r = ret_inm ? make(ret_inm, config, ops, opaque, &err) :
	              err_set(&err, -EINVAL, "NULL was given for the result");
	if (r < 0)
		return last_error_set(__func__, r, &err);
	last_error_clear();
	return 0;
}

/* ---- the end of one ---- */

/*
 * With the claim, not nested. A migration under way is cancelled and run to its end. Return: 0; -EDEADLK when this is
 * not the thread that may run it; the ring's error.
 */
static int end_it(struct inm *inm, struct err *err)
{
	int r;

	if (!story_under_way(&inm->story))
		return 0;
	r = claim_to_run(&inm->home->claim, err);
	if (r < 0)
		return r;
	atomic_store(&inm->story.cancel_asked, true);
	group_cancel(&inm->story.root);
	/* No deadline: cancelled children end. Other migrations of a shared reactor go on meanwhile. */
	r = reactor_run(inm->reactor, &inm->story.root, DEADLINE_NEVER);
	/* The kernel may hold memory of ours and does not answer: it must not be released. */
	return r < 0 ? err_set(err, r, "the reactor does not run: %s", strerror(-r)) : 0;
}

static int free_now(struct inm *inm, struct err *err)
{
	struct claim *claim = &inm->home->claim;
	int claimed = claim_look(claim, err), r;

	if (claimed < 0)
		return claimed;
	if (claimed == CLAIMED_NESTED)
		return err_set(err, -EDEADLK, "called from a callback");
	r = end_it(inm, err);
	if (r == 0)
		release(inm);
	claim_leave(claim, claimed);
	return r;
}

void inm_free(struct inm *inm)
{
	struct err err = ERR_NONE;
	int r;

	if (!inm)
		return;
	r = free_now(inm, &err);
	if (r < 0) {
		inm_cancel(inm);
		err_up(&err, r, "cancelled, and to be freed once more");
		last_error_set(__func__, r, &err);
		return;
	}
	if (inm->reactor_is_ours)
		unmake_reactor(inm->home);
	free(inm);
}
