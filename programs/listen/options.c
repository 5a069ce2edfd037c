#include "programs/listen/options.h"

#include "inmigrate.h"
#include "programs/cli/complain.h"
#include "programs/cli/output.h"
#include "programs/cli/settings.h"
#include "programs/listen/listen.h"

#include <errno.h>
#include <getopt.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char help_text[] =
        "usage: inmigrate listen URI [OPTION]...\n"
        "\n"
        "Waits at URI for a guest that a QEMU sends, and lands it in memory.\n"
        "\n"
        "URI  tcp:HOST:PORT  unix:PATH  vsock:CID:PORT  fd:N  exec:COMMAND  file:PATH[,offset=N]\n"
        "     With port 0 the system chooses; the real one is printed.\n"
        "\n"
        "  --cap NAME             turn a capability on, by QEMU's name; `--cap help` lists them\n"
        "  --param KEY=VALUE      set a parameter, by QEMU's name; `--param help` lists them\n"
        "  --ram NAME=PATH        RAM block NAME is in the file PATH: what the source shares (x-ignore-shared) is "
        "there\n"
        "                         already, and what it sends is landed there\n"
        "  --unplugged NAME       parts of RAM block NAME may be unplugged at the source (virtio-mem): a page of it "
        "that\n"
        "                         never comes in postcopy is zeros, even where a thread waits for it\n"
        "  --ram-dir DIR          when the guest is complete, write each RAM block as DIR/<name>.raw\n"
        "  --devices FILE         write the device state, decoded, as JSON\n"
        "  --stats FILE           at the end, write numbers as one JSON object\n"
        "  --tls-creds DIR        TLS, with the certificates or keys in DIR (`--param tls-creds-type=x509|psk`)\n"
        "  --ram-backing KIND     memory of the guest: memfd (the default with postcopy-ram), thp (anonymous,\n"
        "                         huge pages where the kernel has them; the default otherwise), or hugetlb-2m\n"
        "                         (from the kernel's pool)\n"
        "  --guest WHAT           what runs in the memory that landed: none (the default), or\n"
        "                         touch=THREADS[,pattern=seq|stride:BYTES|random|hot][,access=read|write|mixed]\n"
        "                         [,block=NAME][,span=SIZE][,seconds=S][,passes=N][,seed=N]: threads that read and\n"
        "                         write it as a guest would, and check what they find\n"
        "  --touch-log FILE       what these threads have written, one JSON object per line\n"
        "  --recover-listen URI   when the network fails in postcopy, wait for the source there; without it, go on\n"
        "                         listening at the first URI\n"
        "  --timeout SECONDS      give up after this long (default: never)\n"
        "  --reactor uring        how to wait for the kernel\n"
        "  --progress WHEN        auto (on a terminal), always, or never\n"
        "  -v, --verbose          say more; twice: everything\n"
        "  --help                 this text\n"
        "\n"
        "SIGINT and SIGTERM give up. In postcopy, SIGUSR1 acts as if the network had failed.\n"
        "\n"
        "Exit status: 0 landed, 1 failed (one line on standard error says why, where and at which offset), 2 usage,\n"
        "3 landed, but something asked for failed afterwards (a line on standard error says what).\n";

enum {
	OPT_CAP = 256,
	OPT_PARAM,
	OPT_RAM,
	OPT_UNPLUGGED,
	OPT_RAM_DIR,
	OPT_RAM_BACKING,
	OPT_TLS_CREDS,
	OPT_DEVICES,
	OPT_STATS,
	OPT_GUEST,
	OPT_TOUCH_LOG,
	OPT_RECOVER_LISTEN,
	OPT_TIMEOUT,
	OPT_REACTOR,
	OPT_PROGRESS,
	OPT_HELP
};

static const struct option long_options[] = {
	{ "cap", required_argument, NULL, OPT_CAP },
	{ "param", required_argument, NULL, OPT_PARAM },
	{ "ram", required_argument, NULL, OPT_RAM },
	{ "unplugged", required_argument, NULL, OPT_UNPLUGGED },
	{ "ram-dir", required_argument, NULL, OPT_RAM_DIR },
	{ "ram-backing", required_argument, NULL, OPT_RAM_BACKING },
	{ "tls-creds", required_argument, NULL, OPT_TLS_CREDS },
	{ "devices", required_argument, NULL, OPT_DEVICES },
	{ "stats", required_argument, NULL, OPT_STATS },
	{ "guest", required_argument, NULL, OPT_GUEST },
	{ "touch-log", required_argument, NULL, OPT_TOUCH_LOG },
	{ "recover-listen", required_argument, NULL, OPT_RECOVER_LISTEN },
	{ "timeout", required_argument, NULL, OPT_TIMEOUT },
	{ "reactor", required_argument, NULL, OPT_REACTOR },
	{ "progress", required_argument, NULL, OPT_PROGRESS },
	{ "verbose", no_argument, NULL, 'v' },
	{ "help", no_argument, NULL, OPT_HELP },
	{ NULL, 0, NULL, 0 },
};

static int parse_timeout(struct listen *ln, const char *text)
{
	char *end;
	double seconds;

	errno = 0;
	seconds = strtod(text, &end);
	if (errno || *end || end == text || !(seconds > 0) || seconds > 1e9)
		return usage_error("listen", "--timeout %s: a number of seconds above 0 is expected", text);
	ln->timeout_ns = (uint64_t)(seconds * 1e9);
	return GO_ON;
}

static int parse_progress(struct listen *ln, const char *text)
{
	static const char *const words[] = { "auto", "always", "never" };

	for (int i = 0; i < 3; i++) {
		if (strcmp(text, words[i]) == 0) {
			ln->progress_mode = (enum progress_mode)i;
			return GO_ON;
		}
	}
	return usage_error("listen", "--progress %s: auto, always or never is expected", text);
}

static int expect_word(const char *option, const char *text, const char *word)
{
	return strcmp(text, word) == 0 ? GO_ON : usage_error("listen", "%s %s: %s is expected", option, text, word);
}

static int set_cap_or_help(struct listen *ln, const char *text)
{
	int r;

	if (strcmp(text, "help") == 0) {
		print_capabilities(output_out());
		return EXIT_LANDED;
	}
	r = set_capability(ln->inm, "listen", text);
	if (r == 0 && strcmp(text, "postcopy-ram") == 0)
		ln->ram.postcopy = true;
	return r ? r : GO_ON;
}

static int set_guest(struct listen *ln, const char *text)
{
	struct touch_options opts = { 0 };
	char why[160];

	if (strncmp(text, "touch=", 6) == 0) {
		if (touch_parse(&opts, text + 6, why) < 0)
			return usage_error("listen", "--guest %s: %s", text, why);
	} else if (strcmp(text, "none") != 0) {
		return usage_error("listen", "--guest %s: touch=THREADS or none is expected", text);
	}
	ln->touch.opts = opts;
	ln->ram.touched = opts.threads > 0;
	return GO_ON;
}

static int set_param_or_help(struct listen *ln, const char *text)
{
	int r;

	if (strcmp(text, "help") == 0) {
		print_parameters(output_out());
		return EXIT_LANDED;
	}
	r = set_parameter(ln->inm, "listen", text);
	return r ? r : GO_ON;
}

/* QEMU's parameter names an object that holds the directory; here there is one object, and its name does not matter. */
static int set_tls(struct listen *ln, const char *dir)
{
	if (inm_set_parameter(ln->inm, "tls-creds", "tls0") < 0 || inm_set_parameter(ln->inm, "tls-creds-dir", dir) < 0)
		return usage_error("listen", "--tls-creds: %s", inm_error(ln->inm));
	return GO_ON;
}

static int add_ram(struct listen *ln, const char *text)
{
	char why[320];

	if (guest_files_add(&ln->ram.files, text, why) < 0)
		return usage_error("listen", "--ram %s: %s", text, why);
	return GO_ON;
}

static int add_unplugged(struct listen *ln, const char *name)
{
	return guest_unplugged_add(&ln->ram.unplugged, name) < 0 ? fail("no memory") : GO_ON;
}

static int take_option(struct listen *ln, int opt)
{
	switch (opt) {
	case OPT_CAP:
		return set_cap_or_help(ln, optarg);
	case OPT_PARAM:
		return set_param_or_help(ln, optarg);
	case OPT_RAM:
		return add_ram(ln, optarg);
	case OPT_UNPLUGGED:
		return add_unplugged(ln, optarg);
	case OPT_RAM_DIR:
		ln->ram_dir = optarg;
		return GO_ON;
	case OPT_RAM_BACKING:
		if (guest_ram_set_backing(&ln->ram, optarg) < 0)
			return usage_error("listen", "--ram-backing %s: memfd, thp or hugetlb-2m is expected", optarg);
		return GO_ON;
	case OPT_TLS_CREDS:
		return set_tls(ln, optarg);
	case OPT_DEVICES:
		ln->devices_path = optarg;
		return GO_ON;
	case OPT_STATS:
		ln->stats_path = optarg;
		return GO_ON;
	case OPT_GUEST:
		return set_guest(ln, optarg);
	case OPT_TOUCH_LOG:
		ln->touch_log_path = optarg;
		return GO_ON;
	case OPT_RECOVER_LISTEN:
		ln->recover_uri = optarg;
		return GO_ON;
	case OPT_TIMEOUT:
		return parse_timeout(ln, optarg);
	case OPT_REACTOR:
		return expect_word("--reactor", optarg, "uring");
	case OPT_PROGRESS:
		return parse_progress(ln, optarg);
	case 'v':
		return GO_ON; /* counted before, see count_verbose */
	case OPT_HELP:
		fputs(help_text, output_out());
		return EXIT_LANDED;
	default:
		fprintf(output_err(), "see 'inmigrate listen --help'\n");
		return EXIT_USAGE;
	}
}

void listen_count_verbose(struct listen *ln, int argc, char **argv)
{
	int opt;

	opterr = 0;
	/* "-": without it the arguments would be sorted here, and an option at the end would then find a value. */
	while ((opt = getopt_long(argc, argv, "-v", long_options, NULL)) != -1) {
		if (opt == 'v' && ln->log_level < INM_LOG_DEBUG)
			ln->log_level++;
	}
	opterr = 1;
	optind = 0; /* all over again */
}

int listen_parse(struct listen *ln, int argc, char **argv)
{
	int opt, r;

	while ((opt = getopt_long(argc, argv, "v", long_options, NULL)) != -1) {
		r = take_option(ln, opt);
		if (r != GO_ON)
			return r;
	}
	if (optind >= argc)
		return usage_error("listen", "a URI is missing");
	if (optind + 1 < argc)
		return usage_error("listen", "'%s' is one argument too many", argv[optind + 1]);
	if (ln->touch_log_path && !ln->touch.opts.threads)
		return usage_error("listen", "--touch-log needs --guest touch=THREADS");
	ln->uri = argv[optind];
	return GO_ON;
}
