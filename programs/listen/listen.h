/*
 * listen.h - what `inmigrate listen` knows of its migration, and of its command line; its parts share it
 */
#ifndef PROGRAMS_LISTEN_LISTEN_H
#define PROGRAMS_LISTEN_LISTEN_H

#include "base/log.h"
#include "inmigrate.h"
#include "programs/cli/out_file.h"
#include "programs/cli/progress.h"
#include "programs/guest/ram.h"
#include "programs/guest/touch.h"
#include "programs/listen/device_file.h"

#include <stdbool.h>
#include <stdint.h>

struct listen {
	struct inm *inm;
	struct guest_ram ram;
	struct touch touch;
	struct device_file devices;
	struct log_limit limit; /* of lines about recoveries that fail */
	struct progress progress;
	const char *uri, *recover_uri, *ram_dir, *devices_path, *stats_path, *touch_log_path;
	struct out_file devices_file, stats_file, touch_log;
	enum inm_state timeout_state;
	uint64_t timeout_ns;
	enum inm_log_level log_level;
	enum progress_mode progress_mode;
	bool timed_out;
	volatile bool given_up;
	bool ram_later; /* --ram-dir is written when no page is missing any more */
	bool too_late;  /* something failed when the source had given its guest up: that costs the exit status only */
	bool paused;
};

/* As an exit status: there is none yet. */
#define GO_ON (-1)

#endif
