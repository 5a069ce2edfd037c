/*
 * state.h - the state of a migration that an observer may ask for
 *
 * It says nothing the code does not know better: the coroutine's place is the protocol state. There is one setter.
 *
 * What takes each edge of the table in state.c, and in brackets the function that does. scripts/draw-states draws the
 * picture of both in doc/recovery.md. The check "states" of scripts/tidy fails when one of the three is not as the
 * others.
 *
 *   none -> setup: inm_listen [incoming_start]
 *   none -> cancelled: allowed, but a cancel is heard when it listens
 *   setup -> active: a source has told its list of RAM blocks [commit]
 *   setup -> failed: no memory to begin with; a stream that is wrong [finish]
 *   setup -> cancelled: inm_cancel [finish]
 *   active -> postcopy-active: the source switches to postcopy (LISTEN) [note_listening]
 *   active -> completed: all is here, the source has been told, start_vcpus has been called [finish]
 *   active -> failed: any error; a source with a return path keeps its guest [finish]
 *   active -> cancelled: inm_cancel; likewise [finish]
 *   postcopy-active -> postcopy-paused: a lost network, any other error, inm_pause [begin_pause]
 *   postcopy-active -> completed: the last page is here [finish]
 *   postcopy-active -> failed: before start_vcpus: a device refused; any error, where the source would go on [finish]
 *   postcopy-active -> cancelled: inm_cancel; after start_vcpus it gives the guest up [finish]
 *   postcopy-paused -> postcopy-recover: the source is back [recovery_pause]
 *   postcopy-paused -> completed: nothing was missing any more [finish]
 *   postcopy-paused -> failed: before start_vcpus: a device refused [finish]
 *   postcopy-paused -> cancelled: inm_cancel gives the guest up [finish]
 *   postcopy-recover -> postcopy-active: both have told what they have (RESUME) [resume]
 *   postcopy-recover -> postcopy-paused: lost again, any other error, inm_pause [begin_pause]
 *   postcopy-recover -> completed: nothing was missing any more [finish]
 *   postcopy-recover -> failed: before start_vcpus: a device refused [finish]
 *   postcopy-recover -> cancelled: inm_cancel gives the guest up [finish]
 */
#ifndef ENGINE_STATE_H
#define ENGINE_STATE_H

#include "inmigrate.h"

#include <stdbool.h>

/** state_may_change - is there an edge in the table? */
bool state_may_change(enum inm_state from, enum inm_state to);

/** state_is_final - completed, failed, cancelled */
bool state_is_final(enum inm_state state);

#endif
