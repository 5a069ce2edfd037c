/*
 * move.h - moving a page in, by UFFDIO_MOVE: a placement the library does not have
 */
#ifndef PROGRAMS_STRESS_MOVE_H
#define PROGRAMS_STRESS_MOVE_H

#include "coroutine/co.h"

#include <stddef.h>
#include <stdint.h>

struct sblock;
struct stress;

/** move_ioctl - UFFDIO_MOVE, which older kernels' headers do not have. Return: 0 or the errno. */
int move_ioctl(int uffd, void *dst, void *src, size_t bytes);

/**
 * move_page - @bytes become the page of anonymous memory
 * @src: a page of anonymous memory to move away
 * Return: 0 or the errno.
 */
may_park int move_page(struct stress *s, struct sblock *sb, uint32_t page, const uint8_t *bytes, uint8_t *src);

#endif
