/*
 * command.c - `inmigrate listen`: wait for a guest, land it, say how it went
 */
#include "programs/listen/command.h"

#include "base/clock.h"
#include "base/err.h"
#include "base/text.h"
#include "engine/channel/address.h"
#include "programs/cli/complain.h"
#include "programs/cli/output.h"
#include "programs/cli/process.h"
#include "programs/listen/callbacks.h"
#include "programs/listen/files.h"
#include "programs/listen/listen.h"
#include "programs/listen/options.h"
#include "programs/listen/report.h"

#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/sysinfo.h>

/* A signal handler has no argument of ours, so this one pointer is global; inm_cancel is made for it. */
static struct listen *volatile signal_target;

/* The touchers first: what they see after a cancel is not the guest any more. */
static void give_up(struct listen *ln)
{
	ln->given_up = true;
	touch_ask_stop(&ln->touch);
	inm_cancel(ln->inm);
}

static void on_signal(int sig)
{
	if (sig == SIGUSR1)
		inm_pause(signal_target->inm);
	else
		give_up(signal_target);
}

/* The terminal has gone. Somebody who waits for a guest has lost interest; a guest that runs here has not. */
static void on_hangup(int sig)
{
	static const char text[] = "inmigrate: SIGHUP: the guest runs here and pages of it are missing; going on\n";
	enum inm_state state = inm_get_state(signal_target->inm);

	(void)sig;
	if (state == INM_STATE_POSTCOPY_ACTIVE || state == INM_STATE_POSTCOPY_PAUSED ||
	    state == INM_STATE_POSTCOPY_RECOVER)
		output_from_signal(text, sizeof(text) - 1);
	else
		give_up(signal_target);
}

static void catch_signals(struct listen *ln)
{
	signal_target = ln;
	process_catch(SIGINT, on_signal);
	process_catch(SIGTERM, on_signal);
	process_catch(SIGUSR1, on_signal);
	process_catch(SIGHUP, on_hangup);
}

/* The migration is about to be freed. */
static void let_signals_go(void)
{
	process_catch(SIGINT, SIG_DFL);
	process_catch(SIGTERM, SIG_DFL);
	signal(SIGUSR1, SIG_IGN);
	signal(SIGHUP, SIG_IGN);
}

/* What is wrong with it must not be found out when the network has failed, and half of the guest is here. */
static int check_recover_address(const char *uri)
{
	struct err err = ERR_NONE;
	struct address addr;
	bool answers;

	if (address_parse(&addr, uri, &err) < 0)
		return usage_error("listen", "--recover-listen: %s", err.text);
	answers = address_is_listening(&addr) || addr.kind == ADDRESS_FD;
	address_fini(&addr);
	return answers ? GO_ON :
	                 usage_error("listen",
	                             "--recover-listen %s: a source that is back needs answers: tcp:, unix:, "
	                             "vsock: or fd: is expected",
	                             uri);
}

static int check_addresses(const struct listen *ln)
{
	char why[160];

	if (process_check_descriptor(ln->uri, why) < 0)
		return fail("%s: %s", ln->uri, why);
	if (ln->recover_uri && check_recover_address(ln->recover_uri) != GO_ON)
		return EXIT_USAGE;
	if (ln->recover_uri && process_check_descriptor(ln->recover_uri, why) < 0)
		return fail("--recover-listen %s: %s", ln->recover_uri, why);
	return GO_ON;
}

/* All that can be known to go wrong is known before a source is listened to. */
static int prepare(struct listen *ln)
{
	char why[320];
	int r = check_addresses(ln);

	if (r == GO_ON && ln->ram.postcopy && guest_files_check_postcopy(&ln->ram.files, why) < 0)
		r = usage_error("listen", "--ram: %s", why);
	if (r == GO_ON)
		r = listen_open_files(ln);
	if (r == GO_ON && ln->touch.opts.threads && touch_init(&ln->touch, &ln->touch.opts) < 0)
		r = fail("--guest touch: no semaphore");
	return r;
}

/* With --timeout the clock is looked at so often; what it has jumped by more than that was not ours. */
#define TIMEOUT_LOOK_NS NS_PER_S

static int run(struct listen *ln)
{
	uint64_t end_ns = ln->timeout_ns ? deadline_after_ns(ln->timeout_ns) : DEADLINE_NEVER, wake_ns, late_ns;
	int r;

	for (;;) {
		wake_ns = ln->progress.on ? deadline_after_ns(progress_interval_ns(&ln->progress)) : DEADLINE_NEVER;
		if (end_ns != DEADLINE_NEVER && deadline_after_ns(TIMEOUT_LOOK_NS) < wake_ns)
			wake_ns = deadline_after_ns(TIMEOUT_LOOK_NS);
		wake_ns = wake_ns < end_ns ? wake_ns : end_ns;
		r = inm_run_until(ln->inm, wake_ns);
		if (r != -ETIMEDOUT)
			return r;
		/* Stopped, or frozen: the source's bytes lie unread, and it is not late for that. */
		late_ns = clock_now_ns() - wake_ns;
		if (late_ns > TIMEOUT_LOOK_NS && end_ns != DEADLINE_NEVER)
			end_ns += late_ns;
		progress_show(&ln->progress, ln->inm);
		if (clock_now_ns() >= end_ns) {
			ln->timed_out = true;
			ln->timeout_state = inm_get_state(ln->inm);
			end_ns = DEADLINE_NEVER; /* what is cancelled ends by itself */
			give_up(ln);
		}
	}
}

/* Longer than a page can take to come that is there already. */
#define STALL_NS (10 * NS_PER_S)

/* The guest has landed: the touchers come to their end, and what they have written must be there. */
static int end_touch(struct listen *ln)
{
	struct touch *t = &ln->touch;
	uint64_t off = 0;

	if (!t->running)
		return 0;
	touch_landed(t);
	if (touch_join(t, STALL_NS, &off) < 0)
		return fail("guest: block %s, offset 0x%" PRIx64 ": the guest has landed, and a thread waits for this "
		            "page for ever",
		            TEXT_QUOTE(t->block->name, strlen(t->block->name)), off);
	touch_check(t);
	if (t->violations)
		return fail("guest: block %s, offset 0x%" PRIx64 ": %s (0x%" PRIx64 ", was 0x%" PRIx64 "); %" PRIu64
		            " such places were found",
		            TEXT_QUOTE(t->block->name, strlen(t->block->name)), t->first.off,
		            t->first.wrong == TOUCH_STAMP_LOST ? "what the guest had written was overwritten" :
		                                                 "the page has changed under the guest; checksum",
		            t->first.found, t->first.expected, t->violations);
	return 0;
}

/* Not landed. What the touchers wait for will not come, or has been given up, so do not wait forever. */
static void abandon_touch(struct listen *ln)
{
	uint64_t off;

	touch_ask_stop(&ln->touch);
	touch_join(&ln->touch, NS_PER_S, &off);
}

/* Landed, and the source knows. Return: EXIT_LANDED, or EXIT_LANDED_BUT after saying why. */
static int finish(struct listen *ln)
{
	int r = end_touch(ln);

	/* Also when a touch was wrong: it helps to look into it. */
	if (ln->ram_later && guest_ram_write(&ln->ram) < 0)
		r = EXIT_FAILED;
	if (ln->touch_log_path && ln->touch.made && touch_write_log(&ln->touch, &ln->touch_log) < 0)
		r = EXIT_FAILED;
	return r || ln->too_late ? EXIT_LANDED_BUT : EXIT_LANDED;
}

/*
 * A process that was killed while it listened leaves its address taken for some 10 ms after it has been reaped: the
 * kernel lets go of its ring, and of the sockets in it, a little later. A user who starts this one again at once would
 * be turned away for that.
 */
#define TAKEN_NS (2 * NS_PER_S)
#define TAKEN_LOOK_NS (10 * NS_PER_MS)

static int start_listening(struct listen *ln)
{
	const struct timespec pause = { .tv_nsec = TAKEN_LOOK_NS };
	uint64_t end_ns = deadline_after_ns(TAKEN_NS);
	int r;

	while ((r = inm_listen(ln->inm, ln->uri)) == -EADDRINUSE && clock_now_ns() < end_ns) {
		nanosleep(&pause, NULL);
		if (ln->given_up)
			return -ECANCELED;
	}
	return r;
}

static int land(struct listen *ln)
{
	char hint[160];
	int r, e = 0;

	/* First: the command of exec: must not stay behind. */
	catch_signals(ln);
	r = start_listening(ln);
	if (r == -ECANCELED)
		return fail("cancelled");
	if (r == -EINVAL || r == -ENOTSUP || r == -ENAMETOOLONG)
		return usage_error("listen", "%s", inm_error(ln->inm));
	if (r < 0)
		return fail("%s%s", inm_error(ln->inm), process_limit_hint(hint, r));
	listen_say_where(ln->inm);
	r = run(ln);
	progress_end(&ln->progress, ln->inm);
	if (r == -ECANCELED && ln->timed_out)
		fail("timed out after %.3g s in state '%s'", (double)ln->timeout_ns / 1e9,
		     inm_state_name(ln->timeout_state));
	else if (r == -ECANCELED)
		fail("cancelled");
	else if (r < 0)
		fail("%s", inm_error(ln->inm));
	if (r == 0)
		e = finish(ln);
	else
		abandon_touch(ln);
	if (ln->stats_path && report_write(ln->inm, &ln->ram, &ln->touch, &ln->stats_file) < 0)
		e = EXIT_LANDED_BUT;
	if (r < 0)
		return EXIT_FAILED;
	report_print(ln->inm, &ln->ram, &ln->touch);
	return e;
}

/*
 * We agree to whatever is announced, and then bitmaps cost a ten thousandth of it. Without a word of the user's no more
 * is taken than makes sense here, some of the guest never being touched: four times this machine's memory and swap.
 */
static int set_ram_limit(struct inm *inm)
{
	const uint64_t most = 16ull << 40, least = 64ull << 30;
	struct sysinfo info;
	uint64_t bytes = least;
	char text[32];

	if (sysinfo(&info) == 0)
		bytes = 4 * ((uint64_t)info.totalram + info.totalswap) * info.mem_unit;
	bytes = bytes < least ? least : bytes > most ? most : bytes;
	snprintf(text, sizeof(text), "%" PRIu64, bytes / 4096 * 4096);
	return inm_set_parameter(inm, "ram-limit", text);
}

/* Return: GO_ON, or EXIT_FAILED after saying why. */
static int make(struct listen *ln)
{
	struct inm_config config = { .size = sizeof(config), .log_level = ln->log_level };
	int r = inm_new(&ln->inm, &config, &listen_ops, ln);
	char hint[160];

	if (r < 0)
		return fail("no migration can be made: %s%s", inm_last_error(),
		            strstr(inm_last_error(), "RLIMIT") ? "" : process_limit_hint(hint, r));
	/* Only threads of ours touch the guest's memory, in user mode; --param may say otherwise. */
	r = inm_set_parameter(ln->inm, "postcopy-kernel-faults", "off");
	r = r < 0 ? r : set_ram_limit(ln->inm);
	return r < 0 ? fail("%s", inm_error(ln->inm)) : GO_ON;
}

int cmd_listen(int argc, char **argv)
{
	struct listen ln = { .log_level = INM_LOG_WARN };
	int r;

	process_hold_guest();
	output_start();
	listen_count_verbose(&ln, argc, argv);
	r = make(&ln);
	if (r == GO_ON)
		r = listen_parse(&ln, argc, argv);
	if (r == GO_ON)
		r = prepare(&ln);
	if (r == GO_ON) {
		progress_init(&ln.progress, ln.progress_mode);
		r = land(&ln);
	}
	let_signals_go();
	/* In this order: a toucher that waits for a page is let go by the library's end. */
	touch_ask_stop(&ln.touch);
	inm_free(ln.inm);
	touch_fini(&ln.touch);
	guest_ram_fini(&ln.ram);
	device_file_fini(&ln.devices);
	out_file_close(&ln.devices_file);
	out_file_close(&ln.stats_file);
	out_file_close(&ln.touch_log);
	output_end();
	return r;
}
