/*
 * last_error.h - the last call that failed on this thread, in words
 *
 * An inm keeps the story of its migration (inm_error). Some calls have no inm to keep theirs in: a constructor that
 * failed, a call that was given NULL, one on a thread that may not touch the migration. Their story is the thread's.
 *
 * Not for signal handlers.
 */
#ifndef ENGINE_LAST_ERROR_H
#define ENGINE_LAST_ERROR_H

struct err;

/* What inm_error and inm_last_error say when nothing has failed. */
#define LAST_ERROR_NONE "no error"

/** last_error_set - @call has failed: "inm_listen: text (EINVAL)". Return: @result, a negative errno. */
int last_error_set(const char *call, int result, const struct err *err);

/* The same with a complete text. */
void last_error_copy(const char *call, const char *text);

/* A constructor has worked: what came before it is history. */
void last_error_clear(void);

/**
 * last_error_null - @call was given NULL instead of what a constructor makes
 * If a constructor failed on this thread before, that is the reason, and its story stays. Return: -EINVAL.
 */
int last_error_null(const char *call);

/* The text, or LAST_ERROR_NONE. It lives as long as the thread, and changes with the next failure. */
const char *last_error_text(void);

#endif
