#include "programs/listen/report.h"

#include "base/text.h"
#include "programs/cli/document.h"
#include "programs/cli/human.h"
#include "programs/cli/output.h"

#include <inttypes.h>
#include <jansson.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

/* User and system time of the process; the kernel's worker threads of the ring are part of it. */
static double cpu_ms(void)
{
	struct rusage u;

	getrusage(RUSAGE_SELF, &u);
	return (double)(u.ru_utime.tv_sec + u.ru_stime.tv_sec) * 1e3 +
	       (double)(u.ru_utime.tv_usec + u.ru_stime.tv_usec) / 1e3;
}

/* Of all threads, owned by the caller. Return: how many; 0 also when there is no memory. */
static size_t blocktime_new(const struct inm *inm, struct inm_blocktime **ret_each)
{
	size_t count = inm_get_blocktime(inm, NULL, 0);

	*ret_each = calloc(count ? count : 1, sizeof(**ret_each));
	return *ret_each ? inm_get_blocktime(inm, *ret_each, count) : 0;
}

static const char *split_word(enum inm_split split)
{
	return split == INM_SPLIT_DESCRIPTION ? "description" : "footers";
}

/* ---- for people ---- */

static void say(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
static void say(const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vfprintf(output_out(), fmt, ap);
	va_end(ap);
}

static void print_faults(const struct inm_stats *st)
{
	char mean[32], p50[32], p99[32], max[32];

	say("  faults: %" PRIu64 ", of them %" PRIu64 " answered here; %" PRIu64 " requests for %" PRIu64 " pages\n",
	    st->faults, st->faults_local, st->requests, st->requested_pages);
	if (st->engine_faults)
		say("  faults of device callbacks: %" PRIu64 "\n", st->engine_faults);
	if (!st->fault_count)
		return;
	say("  from fault to page: mean %s, median %s, p99 %s, longest %s\n",
	    human_time(mean, (double)st->fault_mean_ns), human_time(p50, (double)st->fault_p50_ns),
	    human_time(p99, (double)st->fault_p99_ns), human_time(max, (double)st->fault_max_ns));
	human_histogram(output_out(), st->fault_log2_ns, INM_LATENCY_BUCKETS);
}

static void print_blocktime(const struct inm *inm)
{
	struct inm_blocktime *each;
	size_t count = blocktime_new(inm, &each);
	uint64_t longest_ns = 0, sum_ns = 0;
	char sum[32], longest[32];

	for (size_t i = 0; i < count; i++) {
		sum_ns += each[i].blocked_ns;
		longest_ns = each[i].blocked_ns > longest_ns ? each[i].blocked_ns : longest_ns;
	}
	free(each);
	if (count)
		say("  threads that waited: %zu, %s in all, one of them %s\n", count, human_time(sum, (double)sum_ns),
		    human_time(longest, (double)longest_ns));
}

static void print_postcopy(const struct inm *inm, const struct inm_stats *st)
{
	char time[32], preempt[32];

	if (!st->postcopy_ns && !st->postcopy_pages && !st->faults)
		return;
	say("  postcopy: %s, %" PRIu64 " pages, %" PRIu64 " duplicates dropped; %s by the preempt channel\n",
	    human_time(time, (double)st->postcopy_ns), st->postcopy_pages, st->duplicate_pages,
	    human_bytes(preempt, (double)st->preempt_bytes));
	print_faults(st);
	if (st->prefetch_pages)
		say("  prefetch: %" PRIu64 " pages, %" PRIu64 " touched later, %" PRIu64 " never\n", st->prefetch_pages,
		    st->prefetch_hits, st->prefetch_waste);
	print_blocktime(inm);
	if (st->pauses)
		say("  network failures: %u, recovered: %u; %s without a network, "
		    "first page %s after the last return\n",
		    st->pauses, st->recoveries, human_time(time, (double)st->paused_ns),
		    human_time(preempt, (double)st->recover_page_ns));
}

static void print_touch(const struct touch *t)
{
	struct touch_totals sum;
	char blocked[32], mean[32], p50[32], p99[32], max[32];
	double seconds;

	if (!t->made)
		return;
	touch_totals(t, &sum);
	seconds = (double)sum.elapsed_ns / 1e9;
	say("  guest: %u threads (%s, %s), %" PRIu64 " accesses, %.0f/s, %.2f walks/s; %" PRIu64 " stamps, %" PRIu64
	    " intact\n",
	    t->made, touch_pattern_name(t->opts.pattern), touch_access_name(t->opts.access), sum.accesses,
	    seconds > 0 ? (double)sum.accesses / seconds : 0,
	    seconds > 0 ? (double)sum.accesses / (double)t->pages / seconds : 0, sum.stamps, t->intact);
	say("  guest: %" PRIu64 " first accesses above 2 us, %s in all: mean %s, median %s, p99 %s, longest %s\n",
	    sum.latency.count, human_time(blocked, (double)sum.blocked_ns),
	    human_time(mean, (double)sum.blocked_ns / (double)(sum.latency.count ? sum.latency.count : 1)),
	    human_time(p50, (double)touch_latency_ns(&sum.latency, 500)),
	    human_time(p99, (double)touch_latency_ns(&sum.latency, 990)), human_time(max, (double)sum.latency.max_ns));
}

void report_print(const struct inm *inm, const struct guest_ram *ram, const struct touch *touch)
{
	struct inm_stats st = { .size = sizeof(st) };
	char a[32], b[32];
	double seconds, bytes;

	inm_get_stats(inm, &st);
	seconds = (double)st.total_ns / 1e9;
	bytes = (double)(st.main_bytes + st.multifd_bytes + st.preempt_bytes);
	say("landed in %.3f s: %s received, %s/s, %.0f ms of CPU time\n", seconds, human_bytes(a, bytes),
	    human_bytes(b, bytes / (seconds > 0 ? seconds : 1)), cpu_ms());
	for (size_t i = 0; i < ram->count; i++)
		say("  block %-32s %10s\n", TEXT_QUOTE(ram->blocks[i].name, strlen(ram->blocks[i].name)),
		    human_bytes(a, (double)ram->blocks[i].bytes));
	say("  pages: %" PRIu64 " normal, %" PRIu64 " zero, %" PRIu64 " xbzrle, %" PRIu64 " compressed; %" PRIu64
	    " rounds\n",
	    st.normal_pages, st.zero_pages, st.xbzrle_pages, st.compressed_pages, st.rounds);
	say("  devices: %u, divided by %s\n", st.devices, split_word(st.split));
	if (st.downtime_ns)
		say("  downtime: %.1f ms\n", (double)st.downtime_ns / 1e6);
	print_postcopy(inm, &st);
	print_touch(touch);
}

/* ---- for programs ---- */

static json_t *blocks_json(const struct guest_ram *ram)
{
	json_t *list = json_array();

	for (size_t i = 0; i < ram->count; i++)
		json_array_append_new(list, json_pack("{s:s, s:I}", "name",
		                                      TEXT_QUOTE(ram->blocks[i].name, strlen(ram->blocks[i].name)),
		                                      "bytes", (json_int_t)ram->blocks[i].bytes));
	return list;
}

static json_t *pages_json(const struct inm_stats *st)
{
	return json_pack("{s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o}", "page_bytes",
	                 document_count(st->page_bytes), "normal", document_count(st->normal_pages), "zero",
	                 document_count(st->zero_pages), "xbzrle", document_count(st->xbzrle_pages), "compressed",
	                 document_count(st->compressed_pages), "received", document_count(st->received_pages),
	                 "remaining", document_count(st->remaining_pages), "postcopy",
	                 document_count(st->postcopy_pages), "duplicate", document_count(st->duplicate_pages),
	                 "discarded", document_count(st->discarded_pages));
}

/* Only the buckets that hold something: [{"from_us": 16.384, "count": 3}, ...] */
static json_t *histogram_json(const uint64_t *counts, size_t buckets)
{
	json_t *list = json_array();

	for (size_t i = 0; i < buckets; i++) {
		if (counts[i])
			json_array_append_new(list, json_pack("{s:f, s:o}", "from_us", document_us(1ull << i), "count",
			                                      document_count(counts[i])));
	}
	return list;
}

static json_t *latency_json(const struct inm_stats *st)
{
	return json_pack("{s:o, s:f, s:f, s:f, s:f, s:o}", "count", document_count(st->fault_count), "mean",
	                 document_us(st->fault_mean_ns), "p50", document_us(st->fault_p50_ns), "p99",
	                 document_us(st->fault_p99_ns), "max", document_us(st->fault_max_ns), "histogram",
	                 histogram_json(st->fault_log2_ns, INM_LATENCY_BUCKETS));
}

/* The names that QEMU has for it as QEMU spells them, in its units (doc/wire/control.md 6). */
static void add_blocktime(json_t *doc, const struct inm *inm, const struct inm_stats *st)
{
	struct inm_blocktime *each;
	size_t count = blocktime_new(inm, &each);
	json_t *threads = json_array(), *vcpus = json_array();
	uint64_t sum_ns = 0;

	for (size_t i = 0; i < count; i++) {
		sum_ns += each[i].blocked_ns;
		json_array_append_new(threads,
		                      json_pack("{s:i, s:o, s:f}", "tid", (int)each[i].tid, "faults",
		                                document_count(each[i].faults), "us", document_us(each[i].blocked_ns)));
		json_array_append_new(vcpus, document_count(each[i].blocked_ns / 1000000));
	}
	free(each);
	json_object_set_new(doc, "blocktime",
	                    json_pack("{s:f, s:o}", "total_us", document_us(sum_ns), "threads", threads));
	json_object_set_new(doc, "postcopy-blocktime", document_count(st->blocktime_ns / 1000000));
	json_object_set_new(doc, "postcopy-vcpu-blocktime", vcpus);
	json_object_set_new(doc, "postcopy-latency", document_count(st->fault_mean_ns));
}

static void add_postcopy(json_t *doc, const struct inm *inm, const struct inm_stats *st)
{
	json_object_set_new(doc, "postcopy_ms", json_real((double)st->postcopy_ns / 1e6));
	json_object_set_new(doc, "faults", document_count(st->faults));
	json_object_set_new(doc, "faults_local", document_count(st->faults_local));
	json_object_set_new(doc, "faults_engine", document_count(st->engine_faults));
	json_object_set_new(doc, "faults_outstanding", document_count(st->outstanding_faults));
	json_object_set_new(doc, "fault_latency_us", latency_json(st));
	json_object_set_new(doc, "requests",
	                    json_pack("{s:o, s:o}", "sent", document_count(st->requests), "pages",
	                              document_count(st->requested_pages)));
	json_object_set_new(doc, "place_retries", document_count(st->place_retries));
	json_object_set_new(doc, "prefetch",
	                    json_pack("{s:o, s:o, s:o}", "pages", document_count(st->prefetch_pages), "hits",
	                              document_count(st->prefetch_hits), "waste", document_count(st->prefetch_waste)));
	add_blocktime(doc, inm, st);
	json_object_set_new(doc, "recovery",
	                    json_pack("{s:o, s:o, s:f, s:f}", "pauses", document_count(st->pauses), "recoveries",
	                              document_count(st->recoveries), "paused_ms", (double)st->paused_ns / 1e6,
	                              "first_page_ms", (double)st->recover_page_ns / 1e6));
}

/* Octaves, as the library's histogram. */
static json_t *touch_latency_json(const struct touch_latency *l)
{
	double mean_us = l->count ? document_us(l->total_ns) / (double)l->count : 0;
	uint64_t octaves[TOUCH_OCTAVES] = { 0 };

	for (size_t i = 0; i < TOUCH_OCTAVES * TOUCH_STEPS; i++)
		octaves[i / TOUCH_STEPS] += l->steps[i];
	return json_pack("{s:o, s:f, s:f, s:f, s:f, s:o}", "count", document_count(l->count), "mean", mean_us, "p50",
	                 document_us(touch_latency_ns(l, 500)), "p99", document_us(touch_latency_ns(l, 990)), "max",
	                 document_us(l->max_ns), "histogram", histogram_json(octaves, TOUCH_OCTAVES));
}

static json_t *touchers_json(const struct touch *t)
{
	json_t *list = json_array();

	for (unsigned i = 0; i < t->made; i++) {
		struct touch_count c = touch_count(t, i);

		json_array_append_new(list, json_pack("{s:i, s:o, s:o, s:o, s:f}", "tid", (int)c.tid, "accesses",
		                                      document_count(c.accesses), "writes", document_count(c.writes),
		                                      "passes", document_count(c.passes), "blocked_us",
		                                      document_us(c.blocked_ns)));
	}
	return list;
}

static json_t *touch_json(const struct touch *t)
{
	const char *block = t->block ? t->block->name : "";
	struct touch_totals sum;
	double seconds;

	touch_totals(t, &sum);
	seconds = sum.elapsed_ns ? (double)sum.elapsed_ns / 1e9 : 1;
	return json_pack("{s:s, s:s, s:s, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:f, s:f, s:f, s:f, s:o, s:o}", "pattern",
	                 touch_pattern_name(t->opts.pattern), "access", touch_access_name(t->opts.access), "block",
	                 TEXT_QUOTE(block, strlen(block)), "pages", document_count(t->pages), "accesses",
	                 document_count(sum.accesses), "writes", document_count(sum.writes), "stamps",
	                 document_count(sum.stamps), "intact", document_count(t->intact), "violations",
	                 document_count(t->violations), "passes", document_count(sum.passes), "seconds",
	                 (double)sum.elapsed_ns / 1e9, "accesses_per_s", (double)sum.accesses / seconds, "walks_per_s",
	                 t->pages ? (double)sum.accesses / (double)t->pages / seconds : 0.0, "blocked_us",
	                 document_us(sum.blocked_ns), "latency_us", touch_latency_json(&sum.latency), "threads",
	                 touchers_json(t));
}

int report_write(const struct inm *inm, const struct guest_ram *ram, const struct touch *touch, struct out_file *file)
{
	struct inm_stats st = { .size = sizeof(st) };
	const char *error;
	json_t *doc;
	int r;

	inm_get_stats(inm, &st);
	/* A null where there is none. */
	error = st.state == INM_STATE_COMPLETED ? NULL : inm_error(inm);
	doc = json_pack("{s:s, s:s?, s:f, s:f, s:{s:o, s:o, s:o}, s:o, s:I, s:o, s:i, s:s}", "status",
	                inm_state_name(st.state), "error", error, "total_ms", (double)st.total_ns / 1e6, "cpu_ms",
	                cpu_ms(), "bytes", "main", document_count(st.main_bytes), "multifd",
	                document_count(st.multifd_bytes), "preempt", document_count(st.preempt_bytes), "pages",
	                pages_json(&st), "rounds", (json_int_t)st.rounds, "ram_blocks", blocks_json(ram), "devices",
	                (int)st.devices, "split", split_word(st.split));
	if (doc) {
		add_postcopy(doc, inm, &st);
		if (touch->opts.threads)
			json_object_set_new(doc, "touch", touch_json(touch));
		if (st.downtime_ns)
			json_object_set_new(doc, "downtime_ms", json_real((double)st.downtime_ns / 1e6));
	}
	r = document_write(doc, file);
	json_decref(doc);
	return r;
}
