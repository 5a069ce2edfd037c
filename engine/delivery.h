/*
 * delivery.h - the guest, piece by piece, from the stream to the embedder: what a load asks for in precopy and after
 */
#ifndef ENGINE_DELIVERY_H
#define ENGINE_DELIVERY_H

struct inm;
struct load_ops;

/* The delivery's part of what a load asks for. */
void delivery_ops(const struct inm *inm, struct load_ops *ops);

#endif
