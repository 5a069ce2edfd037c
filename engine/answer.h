/*
 * answer.h - what a callback of the embedder's has returned
 *
 * 0, or a negative errno that refuses. All else is a mistake (`return errno`, a forgotten return) and must not be taken
 * for success: nothing would be loaded, and the source would let its guest go.
 */
#ifndef ENGINE_ANSWER_H
#define ENGINE_ANSWER_H

struct err;

struct answer {
	int code;       /* what it has returned */
	char name[160]; /* "the callback for device 'x'" */
};

void answer_name(struct answer *answer, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/**
 * answer_check - Return: 0; the embedder's refusal; -EINVAL: what it has returned means nothing; -EIO for -ECANCELED,
 * which is a failure like others: nobody has asked for a cancel
 */
int answer_check(const struct answer *answer, struct err *err);

#endif
