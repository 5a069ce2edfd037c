/*
 * state.h - the state of a migration that an observer may ask for
 *
 *   none ──inm_listen──> setup ──main channel──> active ──guest complete──> completed
 *                          │                       │
 *                          ├──listening fails──> failed <──any error──┤
 *                          └──inm_cancel──> cancelled <──inm_cancel───┘
 *
 * It says nothing the code does not know better: the coroutine's place is the protocol state. There is one setter.
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
