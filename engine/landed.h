/*
 * landed.h - may the source be told that the guest has landed?
 *
 * The last word to the source makes it give up its guest. This is the one place that decides whether it may be said:
 * guest memory is whole, and in postcopy nothing is missing that was there to be sent. It is asked when the main stream
 * has ended, where a "no" is an error like others (in postcopy a pause), and again right before the word goes out.
 */
#ifndef ENGINE_LANDED_H
#define ENGINE_LANDED_H

struct err;
struct multifd;
struct postcopy;

/** landed_check - Return: 0 the guest is whole; -EPROTO, -ENODATA: the text says what is missing. */
int landed_check(const struct multifd *m, const struct postcopy *pc, struct err *err);

#endif
