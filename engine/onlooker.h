/*
 * onlooker.h - a stream that is only looked at, for `inmigrate decode`
 *
 * What was captured from a connection has nobody behind it who could be answered, and no pages are to be asked for. So
 * every word to the source goes nowhere, RAM of postcopy lands as that of precopy does, nothing is taken over and
 * nobody is waited for. And as all is to be seen, what depends on a capability is read as the stream has it, whether
 * the capability was turned on or not.
 *
 * With options.looking set, before inm_listen; no embedder can ask for it.
 */
#ifndef ENGINE_ONLOOKER_H
#define ENGINE_ONLOOKER_H

struct inm;
struct load_ops;
struct options;

/** onlooker_begin - @inm is going to look, and not to land; before inm_listen */
void onlooker_begin(struct inm *inm);

/** onlooker_options - the capabilities under which all that a stream can have is read; when listening begins */
void onlooker_options(struct options *opts);

/** onlooker_ops - in place of the switchover's and the recovery's */
void onlooker_ops(struct load_ops *ops);

#endif
