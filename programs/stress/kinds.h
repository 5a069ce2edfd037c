/*
 * kinds.h - what a run can be made of: memory, placements, patterns, events and delays, and their names
 */
#ifndef PROGRAMS_STRESS_KINDS_H
#define PROGRAMS_STRESS_KINDS_H

enum stress_memory { MEMORY_ANON, MEMORY_MEMFD, MEMORY_THP, MEMORY_HUGE_2M, MEMORY_HUGE_1G, MEMORY_COUNT };
enum stress_place { PLACE_COPY, PLACE_CONTINUE, PLACE_MOVE, PLACE_ZERO, PLACE_COUNT };
enum stress_pattern { PATTERN_SEQ, PATTERN_STRIDE, PATTERN_RANDOM, PATTERN_HOT, PATTERN_RACING, PATTERN_COUNT };
enum stress_event { EVENT_REMOVE, EVENT_UNMAP, EVENT_REMAP, EVENT_FORK, EVENT_COUNT };
enum delay_kind { DELAY_NONE, DELAY_CONSTANT, DELAY_UNIFORM, DELAY_HEAVY, DELAY_COUNT };

/* Names, by the enums. */
extern const char *const memory_names[MEMORY_COUNT];
extern const char *const place_names[PLACE_COUNT];
extern const char *const stress_pattern_names[PATTERN_COUNT];
extern const char *const event_names[EVENT_COUNT];

#endif
