/*
 * decode.c - `inmigrate decode`: what is in a saved stream, element by element
 *
 * It lands the stream in memory that is thrown away, and prints what the engine says it reads, up to the byte where
 * something is wrong. Nobody is answered, so that what was captured from a connection can be looked at, too: see
 * onlooker.h.
 */
#include "programs/decode.h"

#include "engine/onlooker.h"
#include "inmigrate.h"
#include "programs/cli/complain.h"
#include "programs/cli/process.h"
#include "programs/cli/settings.h"
#include "programs/guest/ram.h"

#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>

static const char help_text[] =
        "usage: inmigrate decode FILE[,offset=N] [OPTION]...\n"
        "\n"
        "Prints the elements of a migration stream that was saved to FILE (`-` for standard input),\n"
        "each with its offset. If it cannot go on, it says where and why.\n"
        "\n"
        "  --cap NAME         accepted, and has no effect: all that the stream has is read\n"
        "  --param KEY=VALUE  parameter, as for listen\n"
        "  --help             this text\n"
        "\n"
        "Exit status: 0 the stream is whole, 1 it is not (one line on standard error says why), 2 usage.\n";

struct decode {
	struct inm *inm;
	struct guest_ram ram;
	int write_errno; /* of standard output, 0: all was written */
};

static int on_ram_block(void *opaque, struct inm_ram_block *block)
{
	struct decode *d = opaque;

	return guest_ram_block(&d->ram, block);
}

/* Nobody reads the rest: a disk that is full, a pager that has ended. */
static void note_write(struct decode *d, int result)
{
	if (result >= 0 || d->write_errno)
		return;
	d->write_errno = errno ? errno : EIO;
	inm_cancel(d->inm);
}

static void on_trace(void *opaque, uint64_t off, int depth, const char *text)
{
	struct decode *d = opaque;

	errno = 0;
	note_write(d, printf("%#12" PRIx64 "  %*s%s\n", off, 2 * depth, "", text));
}

static int on_live_state(void *opaque, const struct inm_live_state *piece)
{
	(void)opaque;
	(void)piece;
	return 0;
}

static const struct inm_ops ops = {
	.size = sizeof(ops),
	.ram_block = on_ram_block,
	.trace = on_trace,
	.live_state = on_live_state,
};

static const struct option long_options[] = {
	{ "cap", required_argument, NULL, 'c' },
	{ "param", required_argument, NULL, 'p' },
	{ "help", no_argument, NULL, 'h' },
	{ NULL, 0, NULL, 0 },
};

static int parse_options(struct decode *d, int argc, char **argv, const char **ret_file)
{
	int opt, r;

	while ((opt = getopt_long(argc, argv, "", long_options, NULL)) != -1) {
		r = 0;
		if (opt == 'h') {
			fputs(help_text, stdout);
			return EXIT_LANDED;
		}
		if (opt == 'c')
			r = set_capability(d->inm, "decode", optarg);
		else if (opt == 'p')
			r = set_parameter(d->inm, "decode", optarg);
		else
			r = EXIT_USAGE;
		if (r)
			return r;
	}
	if (optind + 1 != argc)
		return usage_error("decode", "one FILE is expected");
	*ret_file = argv[optind];
	return -1;
}

static int decode(struct decode *d, const char *file)
{
	char uri[4200], why[160];
	int r;

	if (strcmp(file, "-") == 0)
		snprintf(uri, sizeof(uri), "fd:0");
	else if (snprintf(uri, sizeof(uri), "file:%s", file) >= (int)sizeof(uri))
		return usage_error("decode", "the file's name is too long");
	if (strcmp(file, "-") == 0 && process_check_descriptor(uri, why) < 0)
		return fail("standard input: %s", why);
	onlooker_begin(d->inm);
	r = inm_listen(d->inm, uri);
	if (r == 0)
		r = inm_run(d->inm);
	errno = 0;
	note_write(d, fflush(stdout));
	if (d->write_errno)
		return fail("standard output: %s", strerror(d->write_errno));
	return r < 0 ? fail("%s", inm_error(d->inm)) : EXIT_LANDED;
}

int cmd_decode(int argc, char **argv)
{
	struct inm_config config = { .size = sizeof(config), .log_level = INM_LOG_WARN };
	struct decode d = { 0 };
	const char *file = NULL;
	int r;

	/* A pager that has ended is an error that is named, and not a signal. */
	signal(SIGPIPE, SIG_IGN);
	r = inm_new(&d.inm, &config, &ops, &d);

	if (r < 0)
		return fail("no migration can be made: %s", inm_last_error());
	r = parse_options(&d, argc, argv, &file);
	if (r < 0)
		r = decode(&d, file);
	inm_free(d.inm);
	guest_ram_fini(&d.ram);
	return r;
}
