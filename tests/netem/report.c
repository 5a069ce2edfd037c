#include "tests/netem/report.h"

#include <inttypes.h>

static void text_of(FILE *f, const struct path *p, uint64_t refused, uint64_t missed)
{
	const struct path_stats *s = &p->stats;
	const struct {
		const char *what;
		uint64_t count;
	} rest[] = {
		{ "lost", s->lost },           { "blacked out", s->blacked_out },
		{ "overflow", s->overflow },   { "duplicated", s->duplicated },
		{ "reordered", s->reordered }, { "overtaken", s->overtaken },
		{ "corrupted", s->corrupted }, { "refused", refused },
		{ "missed", missed },          { "in flight", p->heap_count },
	};

	fprintf(f, "link: %s: %" PRIu64 " packets (%" PRIu64 " bytes), %" PRIu64 " delivered", p->name, s->packets,
	        s->bytes, s->delivered);
	for (size_t n = 0; n < sizeof rest / sizeof *rest; n++) {
		if (rest[n].count)
			fprintf(f, ", %" PRIu64 " %s", rest[n].count, rest[n].what);
	}
	fputc('\n', f);
}

void report_text(FILE *f, const struct path paths[static 2], const struct report *report)
{
	text_of(f, &paths[0], report->refused[0], report->missed[0]);
	text_of(f, &paths[1], report->refused[1], report->missed[1]);
	fprintf(f, "link: --seed %" PRIu64 "\n", report->seed);
}

static void json_of(FILE *f, const struct path *p, uint64_t refused, uint64_t missed)
{
	const struct path_stats *s = &p->stats;

	fprintf(f, "\"%s\": {\"packets\": %" PRIu64 ", \"bytes\": %" PRIu64 ", \"delivered\": %" PRIu64, p->name,
	        s->packets, s->bytes, s->delivered);
	fprintf(f, ", \"delivered_bytes\": %" PRIu64 ", \"lost\": %" PRIu64 ", \"blacked_out\": %" PRIu64,
	        s->delivered_bytes, s->lost, s->blacked_out);
	fprintf(f, ", \"overflow\": %" PRIu64 ", \"duplicated\": %" PRIu64 ", \"reordered\": %" PRIu64, s->overflow,
	        s->duplicated, s->reordered);
	fprintf(f, ", \"overtaken\": %" PRIu64 ", \"corrupted\": %" PRIu64 ", \"refused\": %" PRIu64, s->overtaken,
	        s->corrupted, refused);
	fprintf(f, ", \"missed\": %" PRIu64 ", \"in_flight\": %zu, \"largest\": %" PRIu64 "}", missed, p->heap_count,
	        s->largest);
}

void report_json(FILE *f, const struct path paths[static 2], const struct report *report)
{
	fputc('{', f);
	json_of(f, &paths[0], report->refused[0], report->missed[0]);
	fputs(", ", f);
	json_of(f, &paths[1], report->refused[1], report->missed[1]);
	fprintf(f, ", \"seed\": %" PRIu64 ", \"seconds\": %.6f}\n", report->seed,
	        (double)(report->now_ns - paths[0].start_ns) / 1e9);
}
