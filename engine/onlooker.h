/*
 * onlooker.h - a stream that is only looked at, for `inmigrate decode`
 *
 * A captured stream has no source that we could answer or ask for pages. So every message to the source goes nowhere,
 * RAM of postcopy lands like that of precopy, nothing is taken over, and we wait for nobody. And as we want to see
 * everything, we read what depends on a capability as the stream has it, whether the capability is on or not.
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
