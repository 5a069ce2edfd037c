/*
 * inmigrate - land a guest that a QEMU sends; see inmigrate(1)
 */
#include "programs/program.h"

#include "engine/options/options.h"
#include "programs/output.h"
#include "programs/process.h"

#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

static const char help_text[] =
        "usage: inmigrate listen URI [OPTION]...   land a guest that a QEMU sends to URI\n"
        "       inmigrate decode FILE [OPTION]...  print a saved migration stream readably\n"
        "       inmigrate probe [--json]           say what this machine offers, and whether postcopy can be had\n"
        "       inmigrate stress [OPTION]...       beat on userfaultfd as a guest would, and check every byte\n"
        "       inmigrate --version | --help\n"
        "\n"
        "Each command has its own --help. The whole story is in inmigrate(1).\n";

static const struct {
	const char *name;
	int (*run)(int argc, char **argv);
} commands[] = {
	{ "listen", cmd_listen },
	{ "decode", cmd_decode },
	{ "probe", cmd_probe },
	{ "stress", cmd_stress },
};

const char *human_bytes(char buf[static 32], double bytes)
{
	static const char *const units[] = { "B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB" };
	size_t u = 0;

	while (bytes >= 1024 && u < sizeof(units) / sizeof(units[0]) - 1) {
		bytes /= 1024;
		u++;
	}
	snprintf(buf, 32, u > 0 && bytes < 100 ? "%.1f %s" : "%.0f %s", bytes, units[u]);
	return buf;
}

int fail(const char *fmt, ...)
{
	FILE *err = output_err();
	va_list ap;

	fputs("inmigrate: ", err);
	va_start(ap, fmt);
	vfprintf(err, fmt, ap);
	va_end(ap);
	fputc('\n', err);
	return EXIT_FAILED;
}

int usage_error(const char *command, const char *fmt, ...)
{
	FILE *err = output_err();
	va_list ap;

	fprintf(err, "inmigrate %s: ", command);
	va_start(ap, fmt);
	vfprintf(err, fmt, ap);
	va_end(ap);
	fprintf(err, "; see 'inmigrate %s --help'\n", command);
	return EXIT_USAGE;
}

int set_capability(struct inm *inm, const char *command, const char *name)
{
	return inm_set_capability(inm, name, true) < 0 ? usage_error(command, "%s", inm_error(inm)) : 0;
}

int set_parameter(struct inm *inm, const char *command, const char *key_value)
{
	const char *equals = strchr(key_value, '=');
	char *key;
	int r;

	if (!equals)
		return usage_error(command, "--param %s: KEY=VALUE is expected", key_value);
	key = strndup(key_value, (size_t)(equals - key_value));
	if (!key)
		return fail("no memory");
	r = inm_set_parameter(inm, key, equals + 1);
	free(key);
	return r < 0 ? usage_error(command, "%s", inm_error(inm)) : 0;
}

void print_capabilities(FILE *out)
{
	const struct cap_row *row;

	fprintf(out, "%-24s %-10s %-10s %s\n", "capability", "here", "set on", "remark");
	for (unsigned i = 0; (row = options_cap_row(i)); i++)
		fprintf(out, "%-24s %-10s %-10s %s\n", row->name, support_name(row->support), side_name(row->side),
		        row->note ? row->note : "");
}

void print_parameters(FILE *out)
{
	char form[OPTIONS_TEXT_BYTES];
	const struct param_row *row;

	fprintf(out, "%-34s %-10s %-28s %s\n", "parameter", "here", "value", "default");
	for (unsigned i = 0; (row = options_param_row(i)); i++)
		fprintf(out, "%-34s %-10s %-28s %s %s\n", row->name, support_name(row->support),
		        options_param_form(row, form), row->def[0] ? row->def : "\"\"", row->unit);
}

int main(int argc, char **argv)
{
	process_start();
	if (argc < 2) {
		fputs(help_text, stderr);
		return EXIT_USAGE;
	}
	if (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0 || strcmp(argv[1], "help") == 0) {
		fputs(help_text, stdout);
		return EXIT_LANDED;
	}
	if (strcmp(argv[1], "--version") == 0) {
		printf("inmigrate %s\n", inm_version());
		return EXIT_LANDED;
	}
	for (size_t i = 0; i < sizeof(commands) / sizeof(commands[0]); i++) {
		if (strcmp(argv[1], commands[i].name) == 0)
			return commands[i].run(argc - 1, argv + 1);
	}
	fprintf(stderr, "inmigrate: there is no command '%s'\n%s", argv[1], help_text);
	return EXIT_USAGE;
}
