/*
 * api.c - include/inmigrate.h: a migration is set up, carried through, and ended by its embedder
 *
 * api_new.c makes and releases, api_look.c answers questions.
 */
#include "inmigrate.h"

#include "base/clock.h"
#include "coroutine/reactor.h"
#include "engine/call.h"
#include "engine/incoming.h"
#include "engine/inm.h"
#include "engine/last_error.h"
#include "engine/options/options_check.h"
#include "engine/options/options_set.h"
#include "engine/recovery.h"
#include "engine/switchover.h"
#include "postcopy/own.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

_Static_assert((int)INM_LOG_ERROR == (int)LOG_ERROR && (int)INM_LOG_DEBUG == (int)LOG_DEBUG, "one list of levels");

#define STRING_(x) #x
#define STRING(x) STRING_(x)

const char *inm_version(void)
{
	return STRING(INM_VERSION_MAJOR) "." STRING(INM_VERSION_MINOR);
}

/* ---- options ---- */

static int not_before_listening(const struct inm *inm, const char *kind, const char *name, struct err *err)
{
	if (!name)
		return err_set(err, -EINVAL, "NULL was given for the name");
	if (inm->story.state != INM_STATE_NONE || inm->story.opening)
		return err_set(err, -EBUSY, "%s %s must be set before listening", kind, name);
	return 0;
}

int inm_set_capability(struct inm *inm, const char *name, bool on)
{
	struct call call;
	int r = call_begin(&call, inm, __func__);

	if (r < 0)
		return r;
	r = not_before_listening(inm, "capability", name, &call.err);
	if (r == 0)
		r = options_set_capability(&inm->opts, name, on, &call.err);
	return call_end(&call, r);
}

int inm_set_parameter(struct inm *inm, const char *name, const char *value)
{
	struct call call;
	int r = call_begin(&call, inm, __func__);

	if (r < 0)
		return r;
	r = not_before_listening(inm, "parameter", name, &call.err);
	if (r == 0 && !value)
		r = err_set(&call.err, -EINVAL, "parameter %s: NULL was given for the value", name);
	if (r == 0)
		r = options_set_parameter(&inm->opts, name, value, &call.err);
	return call_end(&call, r);
}

/* ---- running ---- */

static int parse_uri(struct address *ret, const char *uri, struct err *err)
{
	if (!uri)
		return err_set(err, -EINVAL, "NULL was given for the address");
	return address_parse(ret, uri, err);
}

/*
 * A descriptor in an address is ours whatever happens: a call that is refused before it has looked at its address
 * closes it.
 */
static void close_unheard(const char *uri)
{
	struct err ignored = ERR_NONE;
	struct address addr;

	if (parse_uri(&addr, uri, &ignored) < 0)
		return;
	if (addr.kind == ADDRESS_FD)
		close(addr.fd);
	address_fini(&addr);
}

static int listen_at(struct inm *inm, const char *uri, struct err *err)
{
	struct address addr;
	int r = parse_uri(&addr, uri, err);

	if (r < 0)
		return r;
	if (inm->story.state != INM_STATE_NONE || inm->story.opening)
		r = err_set(err, -EBUSY, "this migration has been listening already");
	else
		r = options_check(&inm->opts, err);
	if (r == 0)
		r = switchover_permitted(&inm->opts, err);
	if (r < 0 && addr.kind == ADDRESS_FD)
		close(addr.fd);
	if (r == 0) {
		inm->story.opening = true;
		r = incoming_start(inm, &addr, err);
		inm->story.opening = false;
		if (r < 0)
			err_up(err, r, "%s", uri);
	}
	address_fini(&addr);
	return r;
}

int inm_listen(struct inm *inm, const char *uri)
{
	struct call call;
	int r = call_begin(&call, inm, __func__);

	if (r < 0) {
		close_unheard(uri);
		return r;
	}
	r = listen_at(inm, uri, &call.err);
	/* What went wrong on the way here is mended. */
	if (r == 0)
		inm->story.text[0] = '\0';
	return call_end(&call, r);
}

const char *inm_address(const struct inm *inm, unsigned index)
{
	int claimed = call_look(inm, __func__);
	const char *text;

	if (claimed < 0)
		return NULL;
	text = arrival_address(&inm->arrival, index);
	call_unlook(inm, claimed);
	return text;
}

static int recover_at(struct inm *inm, const char *uri, struct err *err)
{
	struct address addr;
	int r = parse_uri(&addr, uri, err);

	if (r < 0)
		return r;
	if (inm->story.state != INM_STATE_POSTCOPY_PAUSED)
		r = err_set(err, -EBUSY, "nothing is paused: the state is %s", inm_state_name(inm->story.state));
	if (r < 0 && addr.kind == ADDRESS_FD)
		close(addr.fd);
	if (r == 0)
		r = recovery_reopen(inm, &addr, err);
	address_fini(&addr);
	return r < 0 ? err_up(err, r, "%s", uri) : 0;
}

int inm_recover(struct inm *inm, const char *uri)
{
	struct call call;
	int r = call_begin(&call, inm, __func__);

	if (r < 0) {
		close_unheard(uri);
		return r;
	}
	r = recover_at(inm, uri, &call.err);
	if (r == 0)
		story_wake_watch(&inm->story); /* the embedder's loop may sleep on inm_fd */
	return call_end(&call, r);
}

/* A bug of ours, if it ever happens: coroutines that wait for each other. Each is named. */
static void report_deadlock(void *opaque, const struct co *co)
{
	struct inm *inm = opaque;

	log_write(&inm->log, LOG_ERROR, "deadlock: coroutine '%s' waits for %s '%s', and nothing will come", co->name,
	          co->wait_kind ? co->wait_kind : "?", co->wait_name ? co->wait_name : "?");
}

static void listen_for_deadlocks(struct inm *inm)
{
	inm->reactor->deadlock = report_deadlock;
	inm->reactor->deadlock_opaque = inm;
}

/* Where a migration has ended, its own story is told. @r: of the reactor; 0: that ran. */
static int end_run(struct call *call, int r)
{
	struct inm *inm = call->inm;

	if (r < 0 && r != -ETIMEDOUT) {
		err_set(&call->err, r, "the reactor does not run: %s", strerror(-r));
		return call_end(call, r);
	}
	if (r == 0)
		r = story_under_way(&inm->story) ? 1 : story_result(&inm->story);
	if (r < 0 && r != -ETIMEDOUT)
		last_error_copy(call->name, inm->story.text);
	claim_leave(&inm->home->claim, call->claimed);
	return r;
}

static int begin_run(struct call *call, struct inm *inm, const char *name)
{
	int r = call_begin_run(call, inm, name);

	if (r < 0)
		return r;
	if (inm->story.state == INM_STATE_NONE) {
		err_set(&call->err, -EINVAL, "nothing has been listened to: inm_listen comes first");
		return call_end(call, -EINVAL);
	}
	listen_for_deadlocks(inm);
	return 0;
}

static int run_until(struct inm *inm, uint64_t deadline_ns, const char *name)
{
	struct call call;
	int r = begin_run(&call, inm, name);

	return r < 0 ? r : end_run(&call, reactor_run(inm->reactor, &inm->story.root, deadline_ns));
}

int inm_run_until(struct inm *inm, uint64_t deadline_ns)
{
	return run_until(inm, deadline_ns, __func__);
}

int inm_run(struct inm *inm)
{
	/* No deadline: that is the difference to inm_run_until. */
	return run_until(inm, DEADLINE_NEVER, __func__);
}

int inm_dispatch(struct inm *inm)
{
	struct call call;
	int r = begin_run(&call, inm, __func__);

	return r < 0 ? r : end_run(&call, reactor_dispatch(inm->reactor));
}

int inm_fd(const struct inm *inm)
{
	int claimed = call_look(inm, __func__), fd;

	if (claimed < 0)
		return claimed;
	fd = reactor_fd(inm->reactor);
	call_unlook(inm, claimed);
	return fd;
}

void inm_cancel(struct inm *inm)
{
	if (!inm)
		return;
	atomic_store(&inm->story.cancel_asked, true);
	story_wake_watch(&inm->story);
}

int inm_pause(struct inm *inm)
{
	if (!inm || !recovery_may_pause(__atomic_load_n(&inm->story.state, __ATOMIC_RELAXED)))
		return -EINVAL;
	atomic_store(&inm->story.pause_asked, true);
	story_wake_watch(&inm->story);
	return 0;
}

/* ---- guest memory, in a callback ---- */

static struct block *find_range(const struct inm *inm, const void *addr, size_t bytes, uint64_t *ret_off)
{
	struct block *b = own_find(&inm->postcopy, addr, ret_off);

	return b && *ret_off <= b->used_bytes && bytes <= b->used_bytes - *ret_off ? b : NULL;
}

/* In postcopy a page may be missing, and only the callbacks of this migration that are watched for that can wait. */
static int check_place(const struct inm *inm, struct err *err)
{
	if (!inm->postcopy.listening || yield_may_park(&inm->postcopy.yield))
		return 0;
	return err_set(err, -EDEADLK,
	               "only the callbacks device, ready and start_vcpus of this migration can wait for "
	               "pages of it");
}

void *inm_ram_view(struct inm *inm, void *addr, size_t bytes)
{
	struct call call;
	struct block *b;
	uint64_t off = 0;
	int r = call_begin(&call, inm, __func__);

	if (r < 0)
		return NULL;
	/* Before a block was announced there is nothing to find it in. */
	b = inm->story.state == INM_STATE_NONE ? NULL : find_range(inm, addr, bytes, &off);
	if (!b)
		r = err_set(&call.err, -EFAULT, "%zu bytes at %p are not inside one block", bytes, addr);
	else
		r = check_place(inm, &call.err);
	if (r == 0 && inm->postcopy.listening && b->engine)
		addr = b->engine + off;
	return call_end(&call, r) < 0 ? NULL : addr;
}

int inm_ram_await(struct inm *inm, const void *addr, size_t bytes)
{
	struct call call;
	struct block *b;
	uint64_t off = 0;
	int r = call_begin(&call, inm, __func__);

	if (r < 0)
		return r;
	b = inm->story.state == INM_STATE_NONE ? NULL : find_range(inm, addr, bytes, &off);
	if (!b)
		r = err_set(&call.err, -EFAULT, "%zu bytes at %p are not inside one block", bytes, addr);
	else
		r = check_place(inm, &call.err);
	/* The claim is nested in that of the call that runs the callback: nothing is held over the park. */
	if (r == 0 && inm->postcopy.listening && bytes > 0)
		r = own_await(&inm->postcopy, b, off, bytes);
	return call_end(&call, r);
}
