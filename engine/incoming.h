/*
 * incoming.h - the story of one migration, from listening to landed
 *
 * One coroutine tells it. Beside it live: an acceptor for each listening socket, a coroutine for each connection that
 * has not said what it is, the watch for inm_cancel, and the command of exec:. All are children of groups that the
 * story closes before it ends, so nothing is left when it has ended.
 */
#ifndef ENGINE_INCOMING_H
#define ENGINE_INCOMING_H

struct address;
struct err;
struct inm;

/** incoming_start - listen at @addr and set the story going. Return: 0, or why not; then nothing has begun. */
int incoming_start(struct inm *inm, const struct address *addr, struct err *err);

#endif
