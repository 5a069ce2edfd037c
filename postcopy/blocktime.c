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

static unsigned log2_of(uint64_t ns)
{
	unsigned i = ns ? 63u - (unsigned)__builtin_clzll(ns) : 0;

	return i < BLOCKTIME_BUCKETS ? i : BLOCKTIME_BUCKETS - 1;
}

void blocktime_page(struct blocktime *bt, uint64_t ns)
{
	unsigned i = log2_of(ns);
	uint64_t part = ((ns - (ns ? 1ull << i : 0)) * BLOCKTIME_PARTS) >> i;

	bt->parts[i * BLOCKTIME_PARTS + (part < BLOCKTIME_PARTS ? part : BLOCKTIME_PARTS - 1)]++;
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
	uint64_t due = (bt->count * permille + 999) / 1000, sum = 0, end;

	if (bt->count == 0)
		return 0;
	for (unsigned i = 0; i < BLOCKTIME_BUCKETS * BLOCKTIME_PARTS; i++) {
		sum += bt->parts[i];
		if (sum >= due) {
			end = (1ull << (i / BLOCKTIME_PARTS)) +
			      (((uint64_t)(i % BLOCKTIME_PARTS + 1) << (i / BLOCKTIME_PARTS)) / BLOCKTIME_PARTS);
			return end < bt->max_ns ? end : bt->max_ns;
		}
	}
	return bt->max_ns;
}

uint64_t blocktime_bucket(const struct blocktime *bt, unsigned i)
{
	uint64_t n = 0;

	for (unsigned k = 0; k < BLOCKTIME_PARTS; k++)
		n += bt->parts[i * BLOCKTIME_PARTS + k];
	return n;
}
