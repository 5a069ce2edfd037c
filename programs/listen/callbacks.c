/* What the library asks the embedder, and tells it: struct inm_ops of `inmigrate listen`. */
#include "programs/listen/callbacks.h"

#include "base/text.h"
#include "programs/cli/complain.h"
#include "programs/cli/output.h"
#include "programs/listen/listen.h"

#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int on_ram_block(void *opaque, struct inm_ram_block *block)
{
	struct listen *ln = opaque;

	return guest_ram_block(&ln->ram, block);
}

/* Is it too late to refuse the guest? In a package of postcopy the source may not be able to run it again. */
static bool has_switched(const struct listen *ln)
{
	return inm_get_state(ln->inm) != INM_STATE_ACTIVE;
}

/* @r: of something that the guest can do without. */
static int unless_too_late(struct listen *ln, int r)
{
	if (r == 0 || !has_switched(ln))
		return r;
	ln->too_late = true;
	return 0;
}

static int on_device(void *opaque, const struct inm_device *device)
{
	struct listen *ln = opaque;

	return ln->devices_path ? unless_too_late(ln, device_file_add(&ln->devices, device)) : 0;
}

/* All blocks are known: whatever the command line wants of them is there, or is refused in time. */
static int on_ram_listed(void *opaque)
{
	struct listen *ln = opaque;
	const struct guest_file *unused = guest_files_unused(&ln->ram.files);
	const char *whole = guest_unplugged_unused(&ln->ram.unplugged);

	if (unused) {
		fail("--ram %s: the guest has no such RAM block", TEXT_QUOTE(unused->name, strlen(unused->name)));
		return -ENOENT;
	}
	if (whole) {
		fail("--unplugged %s: the guest has no such RAM block", TEXT_QUOTE(whole, strlen(whole)));
		return -ENOENT;
	}
	return ln->touch.opts.threads ? touch_prepare(&ln->touch, &ln->ram) : 0;
}

static int on_early_described(void *opaque, const struct inm_device *device)
{
	struct listen *ln = opaque;

	return ln->devices_path ? unless_too_late(ln, device_file_describe(&ln->devices, device)) : 0;
}

/* There is no machine here that it could be of use to: as with device state, what can be said of it is in a file. */
static int on_live_state(void *opaque, const struct inm_live_state *piece)
{
	struct listen *ln = opaque;

	return ln->devices_path ? unless_too_late(ln, device_file_live(&ln->devices, piece)) : 0;
}

/*
 * Whatever can fail is done while the source still has its guest: a disk that is full must not cost it. In postcopy
 * most of RAM is missing now, and this thread is the one that brings it: it must not touch it.
 */
static int on_ready(void *opaque, const char *run_state)
{
	struct listen *ln = opaque;
	int r = 0;

	(void)run_state;
	ln->ram_later = has_switched(ln);
	if (!ln->ram_later)
		r = guest_ram_write(&ln->ram);
	if (r == 0 && ln->devices_path)
		r = unless_too_late(ln, device_file_write(&ln->devices, &ln->devices_file));
	return r;
}

/* Also for a guest that was paused at the source: a user who asks for touchers wants them to touch. */
static void on_start_vcpus(void *opaque, const char *run_state)
{
	struct listen *ln = opaque;

	(void)run_state;
	if (!ln->touch.made)
		return;
	/* In precopy all of it is there: a short walk. */
	if (inm_get_state(ln->inm) == INM_STATE_ACTIVE)
		touch_landed(&ln->touch);
	touch_run(&ln->touch);
}

static void clear_line(const struct listen *ln)
{
	if (ln->progress.line_open)
		fputs("\r\033[K", output_err());
}

void listen_say_where(const struct inm *inm)
{
	const char *address;

	for (unsigned i = 0; (address = inm_address(inm, i)); i++)
		fprintf(output_out(), "listening on %s\n", address);
	fflush(output_out());
}

static void say_it(void *opaque, enum log_level level, const char *text)
{
	(void)level;
	clear_line(opaque);
	fail("%s", text);
}

/* A source can come and go, and a recovery that fails may be anybody's: there are as many as there are connections. */
static struct log pauses(struct listen *ln)
{
	return (struct log){ .write = say_it, .opaque = ln, .level_max = LOG_ERROR, .limit = &ln->limit };
}

static void say_paused(struct listen *ln)
{
	struct log log = pauses(ln);

	log_often(&log, ln->paused ? LOG_RECOVERIES : LOG_LOSSES, LOG_ERROR,
	          "postcopy is paused, the guest waits for pages that are missing: %s", inm_error(ln->inm));
}

static void say_on(struct listen *ln)
{
	struct log log = pauses(ln);

	log_often(&log, LOG_LOSSES, LOG_ERROR, "postcopy goes on");
}

/* At an address that cannot be had, because somebody has it by now, nobody would come: then at the first one again. */
static void listen_for_source_that_is_back(struct listen *ln)
{
	const char *now = inm_address(ln->inm, 0);
	char *first = now ? strdup(now) : NULL;
	int r = inm_recover(ln->inm, ln->recover_uri);

	if (r < 0) {
		fail("--recover-listen: %s", inm_error(ln->inm));
		if (first && (r = inm_recover(ln->inm, first)) < 0)
			fail("%s", inm_error(ln->inm));
	}
	if (r == 0)
		listen_say_where(ln->inm);
	free(first);
}

static void on_pause(struct listen *ln)
{
	say_paused(ln);
	if (!ln->recover_uri)
		return;
	listen_for_source_that_is_back(ln);
}

static void on_state_changed(void *opaque, enum inm_state state)
{
	struct listen *ln = opaque;
	const struct log log = pauses(ln);

	if (state == INM_STATE_POSTCOPY_PAUSED)
		on_pause(ln);
	else if (state == INM_STATE_POSTCOPY_ACTIVE && ln->paused)
		say_on(ln);
	else if (state != INM_STATE_POSTCOPY_RECOVER)
		log_held_back(&log);
	ln->paused = state == INM_STATE_POSTCOPY_PAUSED || state == INM_STATE_POSTCOPY_RECOVER;
	if (state == INM_STATE_COMPLETED)
		touch_landed(&ln->touch);
}

static void on_log(void *opaque, enum inm_log_level level, const char *text)
{
	static const char *const names[] = { "error", "warning", "info", "debug" };
	struct listen *ln = opaque;

	clear_line(ln);
	fprintf(output_err(), "inmigrate: %s: %s\n", names[level], text);
}

const struct inm_ops listen_ops = {
	.size = sizeof(listen_ops),
	.ram_block = on_ram_block,
	.device = on_device,
	.ready = on_ready,
	.start_vcpus = on_start_vcpus,
	.state_changed = on_state_changed,
	.log = on_log,
	.live_state = on_live_state,
	.early_described = on_early_described,
	.ram_listed = on_ram_listed,
};
