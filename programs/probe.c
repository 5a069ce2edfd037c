/*
 * probe.c - `inmigrate probe`: what this machine offers to a migration, and what would offer more
 *
 * The library asks (inm_probe), here it is printed.
 */
#include "programs/probe.h"

#include "inmigrate.h"
#include "programs/cli/complain.h"

#include <errno.h>
#include <getopt.h>
#include <jansson.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

static const char help_text[] =
        "usage: inmigrate probe [OPTION]...\n"
        "\n"
        "Says what the kernel offers here, to this user. Each line says yes, or no with the reason and what\n"
        "would change it. The last line says how postcopy would be done.\n"
        "\n"
        "  --json  one JSON object instead\n"
        "  --help  this text\n"
        "\n"
        "Exit status: 0 postcopy is possible, 1 it is not, 2 usage.\n";

/* ---- saying it ---------------------------------------------------------------------------------------------- */

static int print_text(const struct inm_probe *p)
{
	if (!p->door[0])
		printf("%-20s %-4s %s\n", "userfaultfd", "no", p->error);
	else
		printf("%-20s %-4s through %s\n", "userfaultfd", "yes", p->door);
	for (size_t i = 0; i < p->finding_count; i++) {
		const struct inm_finding *f = &p->findings[i];

		printf("%-20s %s%s%s\n", f->name, f->there ? "yes" : "no", f->there ? "" : "   ", f->why_not);
	}
	printf("postcopy: %s\n", p->verdict);
	return ferror(stdout) || fflush(stdout) ? -1 : 0;
}

static json_t *finding_json(const struct inm_finding *f)
{
	return f->there ? json_pack("{s:b}", "there", 1) : json_pack("{s:b, s:s}", "there", 0, "why", f->why_not);
}

static int print_json(const struct inm_probe *p)
{
	json_t *doc, *list = json_object();
	int r = -1;

	for (size_t i = 0; i < p->finding_count; i++)
		json_object_set_new(list, p->findings[i].name, finding_json(&p->findings[i]));
	doc = json_pack("{s:b, s:s, s:s?, s:s?, s:o}", "postcopy", p->postcopy, "verdict", p->verdict, "door",
	                !p->door[0] ? NULL : p->door, "error", !p->door[0] ? p->error : NULL, "features", list);
	if (doc && json_dumpf(doc, stdout, JSON_INDENT(2) | JSON_ENSURE_ASCII) == 0 && putchar('\n') != EOF)
		r = fflush(stdout);
	json_decref(doc);
	return r;
}

static const struct option long_options[] = {
	{ "json", no_argument, NULL, 'j' },
	{ "help", no_argument, NULL, 'h' },
	{ NULL, 0, NULL, 0 },
};

int cmd_probe(int argc, char **argv)
{
	struct inm_probe p = { .size = sizeof(p) };
	bool json = false;
	int opt, r;

	while ((opt = getopt_long(argc, argv, "", long_options, NULL)) != -1) {
		if (opt == 'h') {
			fputs(help_text, stdout);
			return EXIT_LANDED;
		}
		if (opt != 'j')
			return EXIT_USAGE;
		json = true;
	}
	if (optind < argc)
		return usage_error("probe", "one argument too many: '%s'", argv[optind]);
	inm_probe(&p);
	r = json ? print_json(&p) : print_text(&p);
	if (r < 0)
		return fail("standard output: %s", strerror(errno));
	return p.postcopy ? EXIT_LANDED : EXIT_FAILED;
}
