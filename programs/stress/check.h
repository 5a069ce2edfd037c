/*
 * check.h - is what was read one of the things it may be? See stress.h
 */
#ifndef PROGRAMS_STRESS_CHECK_H
#define PROGRAMS_STRESS_CHECK_H

#include <stdbool.h>
#include <stdint.h>

/* What a toucher has left in a page. */
struct mark {
	uint32_t value; /* 0: nothing */
	uint32_t round;
	uint32_t done_before, begun_after; /* removals of the page, around the write */
};

struct sblock;
struct stress;

/**
 * check_page - is what was read of a page one of the things it may be? The touchers' places are passed over.
 * @copy: of the page; @done: removals_done before it was read, @begun: removals_begun after it
 * Return: false if not; it has been reported, and the run stops.
 */
bool check_page(struct stress *s, struct sblock *sb, uint32_t page, const uint64_t *copy, uint32_t done, uint32_t begun,
                const char *who);

/** check_place - the same for a toucher's own place. @m: what it has left there */
bool check_place(struct stress *s, struct sblock *sb, uint32_t page, unsigned place, uint32_t found,
                 const struct mark *m, uint32_t done, uint32_t begun, const char *who);

/* Somebody waits for a page that nobody will bring; or (@starved) that is brought again and again in vain. */
void check_stranded(struct stress *s, struct sblock *sb, uint32_t page, const char *who, uint64_t waited_ns,
                    bool starved);

/* Something went wrong that is no wrong byte. */
void check_failed(struct stress *s, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

#endif
