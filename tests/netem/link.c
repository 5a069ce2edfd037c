/*
 * link - two network namespaces, and a link between them that loses, delays, repeats and damages packets
 *
 * It is one process. It reads packets from a TUN device in each namespace, decides their fate (path.h), and writes them
 * into the other. tests/netem/link starts it; --help says the rest.
 */
#include "tests/netem/child.h"
#include "tests/netem/control.h"
#include "tests/netem/report.h"
#include "tests/netem/space.h"
#include "tests/netem/tc.h"

#include "base/clock.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <sched.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/random.h>
#include <sys/resource.h>
#include <unistd.h>

#define MTU_MAX 65535
/* Packets of one direction before the other has its turn. */
#define READS_MAX 64

enum { END_OWN = 125, END_USAGE = 2, END_NOT_HERE = 77 };
enum side { SOURCE, DESTINATION };
enum with { WITH_AUTO, WITH_TC, WITH_TUN };

static const char help[] =
        "link - run a command behind an emulated network\n"
        "\n"
        "usage: link [OPTION]... -- COMMAND [ARGUMENT]...\n"
        "       link --enter source|destination -- COMMAND...   run something at the other end, from within\n"
        "       link --tell SOCKET LINE...                      change the link while it runs, see --control\n"
        "\n"
        "Two network namespaces, \"source\" (10.77.0.1) and \"destination\" (10.77.0.2), are joined by a link.\n"
        "COMMAND runs in one of them; its end, by status or signal, is the end of the link and of all that it\n"
        "left running.\n"
        "\n"
        "What happens to packets; each also as --to-destination-... or --to-source-... for one direction alone:\n"
        "  --loss P%                lost, each for itself\n"
        "  --loss-burst P,R[,H[,K]] Gilbert-Elliott: from the good to the bad state P, back R; delivered in the\n"
        "                           bad state H [0%], in the good one K [100%]. A burst has 1/R packets on\n"
        "                           average\n"
        "  --delay T                20ms, 1.5s, 300us\n"
        "  --jitter T               the delay varies by this up and down, evenly; packets overtake each other\n"
        "  --reorder P%             sent without the delay, so ahead of others\n"
        "  --duplicate P%           sent twice\n"
        "  --corrupt P%             one bit flipped; IP's or TCP's checksum finds it\n"
        "  --rate R                 10Mbit, 1Gbit, in bits of IP packets a second\n"
        "  --queue BYTES            how much may wait for the rate [150kB]; what finds it full is lost\n"
        "  --blackout [AT+]FOR      nothing comes through for FOR, beginning AT after COMMAND's start; or\n"
        "                           several: 1s+200ms,5s+1s. What is on the wire arrives\n"
        "  --down                   nothing comes through until the word \"up\" of --control\n"
        "\n"
        "  --seed N                 the same packets meet the same fates. Without: a new one each time; it is\n"
        "                           printed\n"
        "  --with auto|tc|tun       by the kernel's netem (tc), or by this program over TUN devices; auto takes\n"
        "                           tc where it is and nothing is asked that it cannot (--seed --log --stats\n"
        "                           --control --blackout --down)\n"
        "  --at source|destination  where COMMAND runs [destination]\n"
        "  --source ADDRESS/BITS    [10.77.0.1/30]\n"
        "  --destination ADDRESS/BITS [10.77.0.2/30]\n"
        "  --mtu BYTES              [1500]\n"
        "  --congestion NAME        of TCP, at both ends: cubic, bbr, reno... [the machine's]\n"
        "  --control SOCKET         listen there for lines such as \"loss 0%\", \"to-source-delay 5ms\",\n"
        "                           \"blackout 2s\" (now), \"down\", \"up\", \"stats\". Each is answered with a line,\n"
        "                           and then is in effect\n"
        "  --stats FILE             statistics as JSON, not as text on standard error\n"
        "  --log FILE               a line for each packet: direction, number, second, bytes, what became of\n"
        "                           it, and why\n"
        "  --quiet, --verbose       no statistics; say what was chosen\n"
        "\n"
        "COMMAND's environment: NETEM_SOURCE, NETEM_DESTINATION (addresses), NETEM_SOURCE_NETNS,\n"
        "NETEM_DESTINATION_NETNS (for nsenter --net=...), NETEM_PID (the link), NETEM_LINK (this program),\n"
        "NETEM_CONTROL.\n"
        "\n"
        "Exit status: COMMAND's; 2 usage; 77 the machine does not allow it, and standard error says what; 125\n"
        "the link failed; 126, 127 COMMAND could not be run.\n";

struct options {
	enum side at;
	enum with with;
	bool tun_only, seeded, quiet, verbose;
	uint64_t seed;
	unsigned int mtu;
	struct space_address addresses[2];
	const char *control, *stats, *log, *enter, *congestion;
	char **tell, **command;
};

struct link {
	struct options options;
	struct path paths[2]; /* paths[n] leads away from side n */
	int ns[2], tun[2];
	uint64_t refused[2];
	struct control control;
	struct child child;
};

__attribute__((format(printf, 2, 3))) _Noreturn static void stop(int status, const char *fmt, ...)
{
	va_list args;

	va_start(args, fmt);
	fputs("link: ", stderr);
	vfprintf(stderr, fmt, args);
	fputc('\n', stderr);
	va_end(args);
	exit(status);
}

/* ---- the command line ------------------------------------------------------------------------------------------ */

static int choice(const char *name, const char *value, const char *const *list)
{
	for (int n = 0; list[n]; n++) {
		if (!strcmp(list[n], value))
			return n;
	}
	stop(END_USAGE, "--%s is not '%s'; see --help", name, value);
}

static uint64_t number(const char *name, const char *value, uint64_t min, uint64_t max)
{
	char *end;
	unsigned long long n;

	errno = 0;
	n = strtoull(value, &end, 10);
	if (errno || end == value || *end || strchr(value, '-') || n < min || n > max)
		stop(END_USAGE, "--%s: '%s' is not a number from %" PRIu64 " to %" PRIu64, name, value, min, max);
	return n;
}

static struct space_address address(const char *text)
{
	struct err err = ERR_NONE;
	struct space_address found;

	if (space_address_parse(text, &found, &err) < 0)
		stop(END_USAGE, "%s", err.text);
	return found;
}

static const char *const sides[] = { "source", "destination", NULL };
static const char *const withs[] = { "auto", "tc", "tun", NULL };

static bool set_own_flag(struct options *o, const char *name)
{
	if (!strcmp(name, "quiet"))
		o->quiet = true;
	else if (!strcmp(name, "verbose"))
		o->verbose = true;
	else
		return false;
	return true;
}

/* An option of the program itself, with a value. */
static void set_own(struct options *o, const char *name, const char *value)
{
	if (!strcmp(name, "at"))
		o->at = choice(name, value, sides) ? DESTINATION : SOURCE;
	else if (!strcmp(name, "with"))
		o->with = (enum with)choice(name, value, withs);
	else if (!strcmp(name, "source"))
		o->addresses[SOURCE] = address(value);
	else if (!strcmp(name, "destination"))
		o->addresses[DESTINATION] = address(value);
	else if (!strcmp(name, "mtu"))
		o->mtu = (unsigned int)number(name, value, 68, MTU_MAX);
	else if (!strcmp(name, "congestion"))
		o->congestion = value;
	else if (!strcmp(name, "enter"))
		o->enter = sides[choice(name, value, sides)];
	else if (!strcmp(name, "seed")) {
		o->seed = number(name, value, 0, UINT64_MAX);
		o->seeded = o->tun_only = true;
	} else if (!strcmp(name, "control") || !strcmp(name, "stats") || !strcmp(name, "log")) {
		*(*name == 'c' ? &o->control : *name == 's' ? &o->stats : &o->log) = value;
		o->tun_only = true;
	} else
		stop(END_USAGE, "there is no option --%s; see --help", name);
}

static void set_path(struct link *l, const char *name, const char *value)
{
	struct err err = ERR_NONE;

	if (control_apply(l->paths, name, value, 0, &err) < 0)
		stop(END_USAGE, "--%s", err.text);
	/* Down, up and blackouts are not settings: only our own link has them. */
	if (!value || strstr(name, "blackout"))
		l->options.tun_only = true;
}

/* One option; @argv moves over its value. */
static char **parse_option(struct link *l, char **argv)
{
	char *name = *argv + 2, *value = strchr(name, '=');
	bool bare = false;

	if (!strcmp(*argv, "--help") || !strcmp(*argv, "-h")) {
		fputs(help, stdout);
		exit(0);
	}
	if (strncmp(*argv, "--", 2) != 0)
		stop(END_USAGE, "'%s' is no option, and before a command comes --; see --help", *argv);
	if (value)
		*value++ = 0;
	if (!strcmp(name, "tell") && !value && argv[1]) {
		l->options.tell = argv + 1;
		return NULL;
	}
	if (!value && set_own_flag(&l->options, name))
		return argv;
	if (control_known(name, &bare) && bare) {
		set_path(l, name, value);
		return argv;
	}
	if (!value)
		value = *++argv;
	if (!value)
		stop(END_USAGE, "--%s needs a value", name);
	if (control_known(name, &bare))
		set_path(l, name, value);
	else
		set_own(&l->options, name, value);
	return argv;
}

static void parse(struct link *l, char **argv)
{
	struct options *o = &l->options;

	*o = (struct options){ .at = DESTINATION, .mtu = 1500 };
	o->addresses[SOURCE] = address("10.77.0.1/30");
	o->addresses[DESTINATION] = address("10.77.0.2/30");
	while (*++argv && strcmp(*argv, "--") != 0) {
		argv = parse_option(l, argv);
		if (!argv)
			return;
	}
	o->command = *argv ? argv + 1 : argv;
	if (!*o->command)
		stop(END_USAGE, "no command; usage: link [OPTION]... -- COMMAND, see --help");
	for (int n = 0; n < 2; n++) {
		struct err err = ERR_NONE;

		if (settings_check(&l->paths[n].settings, &err) < 0)
			stop(END_USAGE, "%s: %s", l->paths[n].name, err.text);
	}
	if (o->with == WITH_TC && o->tun_only)
		stop(END_USAGE, "--with tc has no --seed, --log, --stats, --control, --blackout, --down; see --help");
}

/* ---- the other uses: --enter, --tell --------------------------------------------------------------------------- */

/* The user namespace of the link, where it had to make one. */
static int enter_user(void)
{
	const char *pid = getenv("NETEM_PID");
	char path[64];
	int fd, r;

	snprintf(path, sizeof path, "/proc/%.20s/ns/user", pid ? pid : "self");
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	r = setns(fd, CLONE_NEWUSER) < 0 ? -errno : 0;
	close(fd);
	return r;
}

_Noreturn static void enter(const struct options *o)
{
	const char *name = !strcmp(o->enter, "source") ? "NETEM_SOURCE_NETNS" : "NETEM_DESTINATION_NETNS";
	const char *path = getenv(name);
	int fd;

	if (!path)
		stop(END_OWN, "$%s is not set: --enter is for what a link runs", name);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		stop(END_OWN, "%s does not open: has the link ended? (%s)", path, strerror(errno));
	if (setns(fd, CLONE_NEWNET) < 0 && (errno != EPERM || enter_user() < 0 || setns(fd, CLONE_NEWNET) < 0))
		stop(END_OWN, "cannot enter %s (%s)", path, strerror(errno));
	execvp(o->command[0], o->command);
	stop(errno == ENOENT ? 127 : 126, "%s: %s", o->command[0], strerror(errno));
}

static int tell(char **words)
{
	struct err err = ERR_NONE;
	int r = control_tell(words[0], words + 1, &err);

	if (r < 0)
		stop(END_OWN, "%s", err.text);
	return r;
}

/* ---- the link -------------------------------------------------------------------------------------------------- */

static struct report report_of(const struct link *l)
{
	struct report report = { .seed = l->options.seed, .now_ns = clock_now_ns() };

	for (int n = 0; n < 2; n++) {
		report.missed[n] = space_missed(l->ns[n]);
		report.refused[n] = l->refused[n];
	}
	return report;
}

static void stats(void *opaque, FILE *f)
{
	struct link *l = opaque;
	struct report report = report_of(l);

	report_json(f, l->paths, &report);
}

/* What has come out of the device on @side goes onto the path that leads away from it. */
static void take(struct link *l, enum side side)
{
	static unsigned char data[MTU_MAX];

	for (int n = 0; n < READS_MAX; n++) {
		ssize_t bytes = read(l->tun[side], data, sizeof data);

		if (bytes <= 0)
			return;
		path_enter(&l->paths[side], data, (size_t)bytes, clock_now_ns());
	}
}

static void give(struct link *l, enum side from)
{
	struct packet *packet;

	while ((packet = path_leave(&l->paths[from], clock_now_ns()))) {
		/* A header with a flipped bit is refused at once: that is one way of being lost. */
		if (write(l->tun[!from], packet->data, packet->bytes) < 0)
			l->refused[from]++;
		free(packet);
	}
}

static void wait_for_news(const struct link *l, struct pollfd *polls, size_t count)
{
	uint64_t a = path_next_ns(&l->paths[0]), b = path_next_ns(&l->paths[1]), next = a < b ? a : b;
	uint64_t now = clock_now_ns(), left = next > now ? next - now : 0;
	struct timespec ts = { .tv_sec = (time_t)(left / NS_PER_S), .tv_nsec = (long)(left % NS_PER_S) };

	/* No deadline: nothing is on the wire. The end of COMMAND comes through the signals. */
	if (ppoll(polls, (nfds_t)count, next == DEADLINE_NEVER ? NULL : &ts, NULL) < 0 && errno != EINTR)
		stop(END_OWN, "ppoll: %s", strerror(errno));
}

static void carry_on(struct link *l)
{
	struct pollfd polls[3 + CONTROL_POLLS];

	while (!l->child.ended) {
		polls[0] = (struct pollfd){ .fd = l->tun[SOURCE], .events = POLLIN };
		polls[1] = (struct pollfd){ .fd = l->tun[DESTINATION], .events = POLLIN };
		polls[2] = (struct pollfd){ .fd = l->child.signals, .events = POLLIN };
		control_polls(&l->control, polls + 3);
		wait_for_news(l, polls, 3 + CONTROL_POLLS);
		if (polls[0].revents & POLLIN)
			take(l, SOURCE);
		if (polls[1].revents & POLLIN)
			take(l, DESTINATION);
		give(l, SOURCE);
		give(l, DESTINATION);
		if (polls[2].revents & POLLIN)
			child_serve(&l->child);
		control_serve(&l->control, polls + 3, clock_now_ns());
	}
}

static bool use_tc(struct link *l)
{
	const struct options *o = &l->options;
	bool have;

	if (o->with == WITH_TUN || o->tun_only)
		return false;
	have = tc_have(l->ns[SOURCE]);
	if (!have && o->with == WITH_TC)
		stop(END_NOT_HERE, "--with tc: this kernel has no netem, or there is no program tc (iproute2)");
	if (o->verbose && o->with == WITH_AUTO)
		fprintf(stderr, "link: %s\n", have ? "by the kernel's netem" : "by TUN: the kernel has no netem");
	return have;
}

/* A test is skipped for what the machine lacks, and for nothing else. */
_Noreturn static void stop_by(const struct err *err)
{
	stop(space_is_lacking(err->code) ? END_NOT_HERE : END_OWN, "%s", err->text);
}

static void make_spaces(struct link *l)
{
	struct err err = ERR_NONE;

	for (int n = 0; n < 2; n++) {
		l->ns[n] = space_new(&err);
		if (l->ns[n] < 0)
			stop_by(&err);
	}
}

/* Where a process is decides where its device is made. */
static void make_tuns(struct link *l)
{
	struct err err = ERR_NONE;

	for (int n = 0; n < 2; n++) {
		if (setns(l->ns[n], CLONE_NEWNET) < 0)
			stop(END_OWN, "setns: %s", strerror(errno));
		l->tun[n] = space_tun(&l->options.addresses[n], l->options.mtu, &err);
		if (l->tun[n] < 0)
			stop_by(&err);
	}
}

/* When there are devices. */
static void set_congestion(const struct link *l)
{
	const struct options *o = &l->options;
	struct err err = ERR_NONE;

	for (int n = 0; n < 2 && o->congestion; n++) {
		if (setns(l->ns[n], CLONE_NEWNET) < 0)
			stop(END_OWN, "setns: %s", strerror(errno));
		if (space_congestion(&o->addresses[n], o->congestion, &err) < 0)
			stop_by(&err);
	}
}

static void make_environment(const struct link *l)
{
	const struct options *o = &l->options;
	char text[64], self[4096];
	ssize_t n = readlink("/proc/self/exe", self, sizeof self - 1);

	self[n > 0 ? n : 0] = 0;
	setenv("NETEM_LINK", self, 1);
	setenv("NETEM_SOURCE", o->addresses[SOURCE].text, 1);
	setenv("NETEM_DESTINATION", o->addresses[DESTINATION].text, 1);
	snprintf(text, sizeof text, "%d", (int)getpid());
	setenv("NETEM_PID", text, 1);
	snprintf(text, sizeof text, "/proc/%d/fd/%d", (int)getpid(), l->ns[SOURCE]);
	setenv("NETEM_SOURCE_NETNS", text, 1);
	snprintf(text, sizeof text, "/proc/%d/fd/%d", (int)getpid(), l->ns[DESTINATION]);
	setenv("NETEM_DESTINATION_NETNS", text, 1);
	if (o->control)
		setenv("NETEM_CONTROL", o->control, 1);
	else
		unsetenv("NETEM_CONTROL");
}

static FILE *create(const char *path)
{
	FILE *f = fopen(path, "we");

	if (!f)
		stop(END_OWN, "%s: %s", path, strerror(errno));
	return f;
}

static void start(struct link *l)
{
	struct err err = ERR_NONE;
	uint64_t now = clock_now_ns();

	if (child_signals(&l->child, &err) < 0)
		stop(END_OWN, "%s", err.text);
	path_start(&l->paths[0], now);
	path_start(&l->paths[1], now);
	if (child_start(&l->child, l->options.command, l->ns[l->options.at], &err) < 0) {
		control_close(&l->control);
		stop(END_OWN, "%s", err.text);
	}
	/* After the fork, so that COMMAND runs like any other. We are on time to some microseconds, if we may. */
	prctl(PR_SET_TIMERSLACK, 1ul);
	if (setpriority(PRIO_PROCESS, 0, -10) < 0)
		return;
}

static void say_how_it_went(struct link *l, FILE *file)
{
	struct report report = report_of(l);

	if (file)
		report_json(file, l->paths, &report);
	else if (!l->options.quiet)
		report_text(stderr, l->paths, &report);
	if (file && fclose(file) != 0)
		stop(END_OWN, "%s: %s", l->options.stats, strerror(errno));
}

/* The kernel does the rest. */
static void run_with_tc(struct link *l)
{
	const struct settings settings[2] = { l->paths[0].settings, l->paths[1].settings };
	struct err err = ERR_NONE;

	if (tc_build(l->ns, l->options.addresses, l->options.mtu, settings, &err) < 0)
		stop(END_OWN, "%s", err.text);
	set_congestion(l);
	l->tun[SOURCE] = l->tun[DESTINATION] = -1;
	start(l);
	carry_on(l);
	child_end_all();
}

static void run_with_tun(struct link *l)
{
	const struct options *o = &l->options;
	FILE *stats_file, *log;
	struct err err = ERR_NONE;

	make_tuns(l);
	set_congestion(l);
	stats_file = o->stats ? create(o->stats) : NULL;
	log = o->log ? create(o->log) : NULL;
	l->paths[0].log = l->paths[1].log = log;
	if (control_open(&l->control, o->control, l->paths, &err) < 0)
		stop(END_OWN, "%s", err.text);
	l->control.stats = stats;
	l->control.opaque = l;
	start(l);
	carry_on(l);
	child_end_all();
	say_how_it_went(l, stats_file);
	control_close(&l->control);
	if (log)
		fclose(log);
}

int main(int argc, char **argv)
{
	static struct link l; /* its control has buffers */
	struct err err = ERR_NONE;

	(void)argc;
	path_init(&l.paths[0], "to-destination", 0, 0);
	path_init(&l.paths[1], "to-source", 0, 1);
	parse(&l, argv);
	if (l.options.tell)
		return tell(l.options.tell);
	if (l.options.enter)
		enter(&l.options);
	if (!l.options.seeded && getrandom(&l.options.seed, 4, 0) != 4)
		l.options.seed = clock_now_ns();
	dice_init(&l.paths[0].dice, l.options.seed, 0);
	dice_init(&l.paths[1].dice, l.options.seed, 1);
	control_open(&l.control, NULL, l.paths, &err);
	make_spaces(&l);
	make_environment(&l);
	if (use_tc(&l))
		run_with_tc(&l);
	else
		run_with_tun(&l);
	path_fini(&l.paths[0]);
	path_fini(&l.paths[1]);
	child_repeat_end(&l.child);
}
