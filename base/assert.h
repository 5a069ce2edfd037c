/*
 * assert.h - "we are wrong"
 *
 * ASSERT is for our own mistakes only: it is always compiled in, and bytes from the wire never reach it. A failed one
 * prints where and what to stderr and aborts: the state of the process can no longer be trusted with a guest.
 */
#ifndef BASE_ASSERT_H
#define BASE_ASSERT_H

#define ASSERT(cond) (__builtin_expect(!!(cond), 1) ? (void)0 : assert_failed(__FILE__, __LINE__, __func__, #cond))

_Noreturn void assert_failed(const char *file, int line, const char *func, const char *cond);

#endif
