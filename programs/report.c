#include "programs/report.h"

#include "base/text.h"
#include "programs/program.h"

#include <errno.h>
#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
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

static const char *split_word(enum inm_split split)
{
	return split == INM_SPLIT_DESCRIPTION ? "description" : "footers";
}

void report_print(const struct inm *inm, const struct guest_ram *ram)
{
	struct inm_stats st = { .size = sizeof(st) };
	char a[32], b[32];
	double seconds, bytes;

	inm_get_stats(inm, &st);
	seconds = (double)st.total_ns / 1e9;
	bytes = (double)(st.main_bytes + st.multifd_bytes);
	printf("landed in %.3f s: %s received, %s/s, %.0f ms of CPU time\n", seconds,
	       human_bytes(a, bytes), human_bytes(b, bytes / (seconds > 0 ? seconds : 1)), cpu_ms());
	for (size_t i = 0; i < ram->count; i++)
		printf("  block %-32s %10s\n", TEXT_QUOTE(ram->blocks[i].name, strlen(ram->blocks[i].name)),
		       human_bytes(a, (double)ram->blocks[i].bytes));
	printf("  pages: %" PRIu64 " normal, %" PRIu64 " zero, %" PRIu64 " xbzrle, %" PRIu64 " compressed; %" PRIu64
	       " rounds\n",
	       st.normal_pages, st.zero_pages, st.xbzrle_pages, st.compressed_pages, st.rounds);
	printf("  devices: %u, divided by %s\n", st.devices, split_word(st.split));
	if (st.downtime_ns)
		printf("  downtime: %.1f ms\n", (double)st.downtime_ns / 1e6);
}

static json_t *blocks_json(const struct guest_ram *ram)
{
	json_t *list = json_array();

	for (size_t i = 0; i < ram->count; i++)
		json_array_append_new(
			list, json_pack("{s:s, s:I}", "name",
					TEXT_QUOTE(ram->blocks[i].name, strlen(ram->blocks[i].name)), "bytes",
					(json_int_t)ram->blocks[i].bytes));
	return list;
}

static json_t *pages_json(const struct inm_stats *st)
{
	return json_pack("{s:I, s:I, s:I, s:I, s:I, s:I, s:I}", "page_bytes", (json_int_t)st->page_bytes, "normal",
			 (json_int_t)st->normal_pages, "zero", (json_int_t)st->zero_pages, "xbzrle",
			 (json_int_t)st->xbzrle_pages, "compressed", (json_int_t)st->compressed_pages, "received",
			 (json_int_t)st->received_pages, "remaining", (json_int_t)st->remaining_pages);
}

int report_write(const struct inm *inm, const struct guest_ram *ram, const char *path)
{
	struct inm_stats st = { .size = sizeof(st) };
	const char *error = inm_error(inm);
	json_t *doc;
	int r;

	inm_get_stats(inm, &st);
	doc = json_pack("{s:s, s:s?, s:f, s:f, s:{s:I, s:I}, s:o, s:I, s:o, s:i, s:s}", "status",
	                inm_state_name(st.state), "error", error, "total_ms", (double)st.total_ns / 1e6, "cpu_ms",
	                cpu_ms(), "bytes", "main", (json_int_t)st.main_bytes, "multifd", (json_int_t)st.multifd_bytes,
	                "pages", pages_json(&st), "rounds", (json_int_t)st.rounds, "ram_blocks", blocks_json(ram),
	                "devices", (int)st.devices, "split", split_word(st.split));
	if (doc && st.downtime_ns)
		json_object_set_new(doc, "downtime_ms", json_real((double)st.downtime_ns / 1e6));
	r = doc ? json_dump_file(doc, path, JSON_INDENT(2)) : -1;
	json_decref(doc);
	if (r < 0)
		fail("%s: %s", path, strerror(errno));
	return r;
}
