#include "programs/stress/report.h"

#include "programs/cli/complain.h"
#include "programs/cli/document.h"
#include "programs/cli/human.h"
#include "programs/stress/kinds.h"
#include "programs/stress/latency.h"
#include "programs/stress/options.h"
#include "programs/stress/result.h"

#include <errno.h>
#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <string.h>

/* ---- what was asked for ---- */

static void put_names(char *buf, size_t size, unsigned bits, const char *const *names, unsigned count)
{
	size_t len = strlen(buf), first = len;

	for (unsigned i = 0; i < count && len < size; i++)
		if (bits & 1u << i)
			len += (size_t)snprintf(buf + len, size - len, "%s%s", len > first ? "+" : "", names[i]);
}

const char *stress_words(char buf[static 200], const struct stress_options *opts)
{
	unsigned events = 0;
	size_t len;

	for (unsigned e = 0; e < EVENT_COUNT; e++)
		events |= (unsigned)(opts->event_rate[e] > 0) << e;
	buf[0] = '\0';
	put_names(buf, 200, opts->memories, memory_names, MEMORY_COUNT);
	strcat(buf, ", ");
	if (opts->places)
		put_names(buf, 200, opts->places, place_names, PLACE_COUNT);
	else
		strcat(buf, "its own placement");
	len = strlen(buf);
	snprintf(buf + len, 200 - len, ", %u %s, %s", opts->touchers, opts->kvm ? "vCPUs" : "touchers",
	         stress_pattern_names[opts->pattern]);
	if (events) {
		strcat(buf, ", ");
		put_names(buf, 200, events, event_names, EVENT_COUNT);
	}
	if (opts->own_faults > 0)
		strcat(buf, ", own faults");
	if (opts->prefetch_off)
		strcat(buf, ", no prefetch");
	return buf;
}

/* ---- for people ---- */

static double per_second(uint64_t n, uint64_t ns)
{
	return ns ? (double)n * 1e9 / (double)ns : 0;
}

static void print_latency(const struct stress_result *r)
{
	uint64_t octaves[LATENCY_OCTAVES];
	char mean[32], p50[32], p99[32], p999[32], max[32];
	const struct stress_latency *l = &r->latency;

	printf("  waits for a page: mean %s, median %s, p99 %s, p99.9 %s, longest %s\n",
	       human_time(mean, l->count ? (double)l->sum_ns / (double)l->count : 0),
	       human_time(p50, (double)latency_quantile(l, 500)), human_time(p99, (double)latency_quantile(l, 990)),
	       human_time(p999, (double)latency_quantile(l, 999)), human_time(max, (double)l->max_ns));
	for (unsigned i = 0; i < LATENCY_OCTAVES; i++)
		octaves[i] = latency_bucket(l, i);
	human_histogram(stdout, octaves, LATENCY_OCTAVES);
	printf("  of it in the library, from fault read to page placed (last round): mean %s, median %s, p99 %s\n",
	       human_time(mean, (double)r->placed_mean_ns), human_time(p50, (double)r->placed_p50_ns),
	       human_time(p99, (double)r->placed_p99_ns));
}

static void print_limits(const struct stress_options *opts, const struct stress_result *r)
{
	double rate = per_second(r->faults, r->touch_ns);
	char mean[32];

	for (unsigned m = 0; m < MEMORY_COUNT; m++)
		for (unsigned p = 0; p < PLACE_COUNT; p++) {
			const struct stress_limit *l = &r->limit[m][p];

			if (!(opts->memories & 1u << m) || l->faults_rate <= 0)
				continue;
			printf("  the kernel alone, %s by %s: %.0f faults/s, each %s; here %.0f %% of that\n",
			       memory_names[m], place_names[p], l->faults_rate, human_time(mean, (double)l->mean_ns),
			       100 * rate / l->faults_rate);
		}
}

static void print_events(const struct stress_options *opts, const struct stress_result *r)
{
	const char *before = "  events: ";

	for (unsigned e = 0; e < EVENT_COUNT; e++) {
		if (!(opts->event_rate[e] > 0))
			continue;
		printf("%s%s %" PRIu64, before, event_names[e], r->events[e]);
		before = ", ";
	}
	if (before[0] == ',')
		printf("; %" PRIu64 " missing pages were removed, %" PRIu64 " placements tried again (EAGAIN)\n",
		       r->removed, r->again);
}

static void print_sent(const struct stress_result *r)
{
	printf("  sent: %" PRIu64 " pages to copy, %" PRIu64 " to continue, %" PRIu64 " to move, %" PRIu64
	       " of zeros; %" PRIu64 " pushed, %" PRIu64 " of them at the end of a round\n",
	       r->placed_by[PLACE_COPY], r->placed_by[PLACE_CONTINUE], r->placed_by[PLACE_MOVE],
	       r->placed_by[PLACE_ZERO], r->pushed, r->idle_pages);
	printf("  sent twice: %" PRIu64 " at once, %" PRIu64
	       " late and of an older version; dropped as here already: %" PRIu64 " pages\n",
	       r->sent_again, r->sent_stale, r->duplicates);
	if (r->rival_placed)
		printf("  placed by the rival without a wake: %" PRIu64 "\n", r->rival_placed);
	printf("  requests: %" PRIu64 " for %" PRIu64 " pages; guessed ahead %" PRIu64 ", right %" PRIu64
	       ", wrong %" PRIu64 "\n",
	       r->requests, r->requested_pages, r->guessed_pages, r->guess_hits, r->guess_waste);
}

void stress_print(const struct stress_options *opts, const struct stress_result *r)
{
	char words[200];

	if (r->failed)
		printf("FAILED: %s\n", r->wrong);
	printf("%s: %" PRIu64 " faults in %.1f s, %.0f/s while touched\n", stress_words(words, opts), r->faults,
	       (double)r->elapsed_ns / 1e9, per_second(r->faults, r->touch_ns));
	printf("  checked: %" PRIu64 " touches, %" PRIu64 " marks, %" PRIu64 " pages walked over in %" PRIu64
	       " rounds; wrong pages %" PRIu64 ", stranded waiters %" PRIu64 "\n",
	       r->touches, r->marks_checked, r->pages_walked, r->rounds, r->wrong_bytes_pages, r->stranded);
	print_latency(r);
	print_limits(opts, r);
	printf("  faults answered from what is here: %" PRIu64 "; own accesses %" PRIu64 ", of them faults %" PRIu64
	       "\n",
	       r->faults_local, r->own_touches, r->engine_faults);
	print_sent(r);
	print_events(opts, r);
	printf("  switches of coroutines: %" PRIu64 ", of threads %" PRIu64 "; CPU: engine %.0f ms, all %.0f ms\n",
	       r->switches, r->context_switches, r->engine_cpu_ms, r->cpu_ms);
	if (!r->failed)
		printf("nothing wrong\n");
}

/* ---- for programs ---- */

static json_t *latency_json(const struct stress_latency *l)
{
	json_t *histogram = json_array();

	for (unsigned i = 0; i < LATENCY_OCTAVES; i++)
		json_array_append_new(histogram, document_count(latency_bucket(l, i)));
	return json_pack("{s:I, s:f, s:f, s:f, s:f, s:f, s:o}", "count", (json_int_t)l->count, "mean",
	                 l->count ? document_us(l->sum_ns) / (double)l->count : 0, "p50",
	                 document_us(latency_quantile(l, 500)), "p99", document_us(latency_quantile(l, 990)), "p999",
	                 document_us(latency_quantile(l, 999)), "max", document_us(l->max_ns), "histogram", histogram);
}

static json_t *names_json(unsigned bits, const char *const *names, unsigned count)
{
	json_t *list = json_array();

	for (unsigned i = 0; i < count; i++)
		if (bits & 1u << i)
			json_array_append_new(list, json_string(names[i]));
	return list;
}

static json_t *options_json(const struct stress_options *opts)
{
	json_t *events = json_object();

	for (unsigned e = 0; e < EVENT_COUNT; e++)
		json_object_set_new(events, event_names[e], json_real(opts->event_rate[e]));
	return json_pack("{s:o, s:o, s:i, s:o, s:s, s:o, s:f, s:f, s:o, s:b, s:b}", "memory",
	                 names_json(opts->memories, memory_names, MEMORY_COUNT), "place",
	                 names_json(opts->places, place_names, PLACE_COUNT), "touchers", (int)opts->touchers, "bytes",
	                 document_count(opts->bytes), "pattern", stress_pattern_names[opts->pattern], "events", events,
	                 "own_faults", opts->own_faults, "duplicates", opts->duplicates, "seed",
	                 document_count(opts->seed), "prefetch", !opts->prefetch_off, "kvm", opts->kvm);
}

static json_t *limits_json(const struct stress_result *r)
{
	json_t *list = json_array();

	for (unsigned m = 0; m < MEMORY_COUNT; m++)
		for (unsigned p = 0; p < PLACE_COUNT; p++)
			if (r->limit[m][p].faults_rate > 0)
				json_array_append_new(list, json_pack("{s:s, s:s, s:f, s:f}", "memory", memory_names[m],
				                                      "place", place_names[p], "faults_per_second",
				                                      r->limit[m][p].faults_rate, "mean_us",
				                                      document_us(r->limit[m][p].mean_ns)));
	return list;
}

static json_t *intervals_json(const struct stress_result *r)
{
	json_t *list = json_array();

	for (uint32_t i = 0; i < r->interval_count; i++) {
		const struct stress_interval *v = &r->intervals[i];

		json_array_append_new(list, json_pack("{s:I, s:I, s:I, s:f, s:f, s:f, s:f}", "ms", (json_int_t)v->at_ms,
		                                      "faults_per_second", (json_int_t)v->faults_rate, "count",
		                                      (json_int_t)v->count, "p50", document_us(v->p50_ns), "p99",
		                                      document_us(v->p99_ns), "p999", document_us(v->p999_ns), "max",
		                                      document_us(v->max_ns)));
	}
	return list;
}

struct number {
	const char *name;
	uint64_t value;
};

static json_t *numbers_json(const struct number *numbers, size_t count)
{
	json_t *object = json_object();

	for (size_t i = 0; i < count; i++)
		json_object_set_new(object, numbers[i].name, document_count(numbers[i].value));
	return object;
}

#define NUMBERS(...) \
	numbers_json((const struct number[]){ __VA_ARGS__ }, \
	             sizeof((const struct number[]){ __VA_ARGS__ }) / sizeof(struct number))

json_t *stress_json(const struct stress_options *opts, const struct stress_result *r)
{
	json_t *counts = NUMBERS(
	        { "faults", r->faults }, { "faults_local", r->faults_local }, { "engine_faults", r->engine_faults },
	        { "own_accesses", r->own_touches }, { "touches", r->touches }, { "waits", r->waits },
	        { "marks_checked", r->marks_checked }, { "pages_walked", r->pages_walked }, { "rounds", r->rounds },
	        { "requests", r->requests }, { "requested_pages", r->requested_pages },
	        { "guessed_pages", r->guessed_pages }, { "guess_hits", r->guess_hits },
	        { "guess_waste", r->guess_waste }, { "placed", r->placed }, { "duplicates", r->duplicates },
	        { "removed", r->removed }, { "again", r->again }, { "sent_again", r->sent_again },
	        { "sent_stale", r->sent_stale }, { "pushed", r->pushed }, { "rival_placed", r->rival_placed },
	        { "switches", r->switches }, { "context_switches", r->context_switches },
	        { "wrong_pages", r->wrong_bytes_pages }, { "stranded", r->stranded });
	json_t *sent = json_object(), *events = json_object();

	for (unsigned p = 0; p < PLACE_COUNT; p++)
		json_object_set_new(sent, place_names[p], document_count(r->placed_by[p]));
	for (unsigned e = 0; e < EVENT_COUNT; e++)
		json_object_set_new(events, event_names[e], document_count(r->events[e]));
	return json_pack("{s:s, s:s, s:o, s:f, s:f, s:f, s:f, s:f, s:o, s:o, s:o, s:o, s:o, s:o}", "status",
	                 r->failed ? "failed" : "sound", "wrong", r->wrong, "options", options_json(opts), "seconds",
	                 (double)r->elapsed_ns / 1e9, "touching_seconds", (double)r->touch_ns / 1e9,
	                 "faults_per_second", per_second(r->faults, r->touch_ns), "engine_cpu_ms", r->engine_cpu_ms,
	                 "cpu_ms", r->cpu_ms, "counts", counts, "sent", sent, "events", events, "latency_us",
	                 latency_json(&r->latency), "limits", limits_json(r), "intervals", intervals_json(r));
}

int stress_dump(json_t *root, const char *path)
{
	int r = root ? json_dump_file(root, path, JSON_INDENT(2) | JSON_ENSURE_ASCII) : -1;

	json_decref(root);
	if (r < 0)
		fail("stress: --json %s: %s", path, root ? strerror(errno) : "no memory");
	return r;
}

int stress_write_json(const struct stress_options *opts, const struct stress_result *r, const char *path)
{
	return stress_dump(stress_json(opts, r), path);
}
