#include "postcopy/blocktime.h"

struct fault_thread *blocktime_thread(struct blocktime *bt, uint32_t tid)
{
	uint32_t slot = tid * 2654435761u % BLOCKTIME_THREADS;

	for (size_t i = 0; tid != 0 && i < BLOCKTIME_THREADS; i++, slot = (slot + 1) % BLOCKTIME_THREADS) {
		struct fault_thread *t = &bt->threads[slot];

		if (t->tid == tid)
			return t;
		if (t->tid == 0) {
			t->tid = tid;
			t->order = (uint32_t)bt->thread_count++;
			return t;
		}
	}
	return NULL;
}

void blocktime_page(struct blocktime *bt, uint64_t ns)
{
	bt->parts[histogram_step(ns, BLOCKTIME_PARTS)]++;
	bt->count++;
	bt->sum_ns += ns;
	if (ns > bt->max_ns)
		bt->max_ns = ns;
}

void blocktime_blocks(struct blocktime *bt, uint64_t now_ns)
{
	if (++bt->blocked_now >= bt->thread_count)
		bt->all_since_ns = now_ns;
}

void blocktime_goes_on(struct blocktime *bt, struct fault_thread *t, uint64_t now_ns, uint64_t waited_ns)
{
	if (t)
		t->blocked_ns += waited_ns;
	bt->blocked_now--;
	if (bt->all_since_ns)
		bt->all_ns += now_ns - bt->all_since_ns;
	bt->all_since_ns = 0;
}

uint64_t blocktime_quantile(const struct blocktime *bt, unsigned permille)
{
	return histogram_quantile(bt->parts, BLOCKTIME_PARTS, bt->max_ns, permille);
}

uint64_t blocktime_bucket(const struct blocktime *bt, unsigned i)
{
	uint64_t n = 0;

	for (unsigned k = 0; k < BLOCKTIME_PARTS; k++)
		n += bt->parts[i * BLOCKTIME_PARTS + k];
	return n;
}
