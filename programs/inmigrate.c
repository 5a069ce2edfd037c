/*
 * inmigrate - land a guest that a QEMU sends; see inmigrate(1)
 */
#include "inmigrate.h"
#include "programs/cli/complain.h"
#include "programs/cli/process.h"
#include "programs/decode.h"
#include "programs/listen/command.h"
#include "programs/probe.h"
#include "programs/stress/command.h"

#include <stdio.h>
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
