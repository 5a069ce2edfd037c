#include "programs/stress/options.h"

#include "base/parse.h"
#include "programs/cli/complain.h"
#include "programs/stress/kinds.h"

#include <errno.h>
#include <getopt.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char help_text[] =
        "usage: inmigrate stress [OPTION]...\n"
        "\n"
        "  --memory anon|memfd|thp|hugetlb-2m|hugetlb-1g   the memory of the guest; may be repeated [memfd]\n"
        "  --place copy|continue|move|zero                 how pages are placed; may be repeated [as fits the memory]\n"
        "  --touchers N            threads that touch it [4]\n"
        "  --bytes SIZE            of each memory [64M; 16M of hugetlb-2m, 1G of hugetlb-1g]\n"
        "  --pattern seq|stride|random|hot|racing          [random]\n"
        "  --events NAME[=RATE],...   remove, unmap, remap, fork; RATE a second [500, 50, 50, 10]\n"
        "  --own-faults RATE       accesses a second of the engine's own thread [0]\n"
        "  --duplicates SHARE      share of answers that come twice, 0 to 1 [0.02]\n"
        "  --delay DIST            none, constant:TIME, uniform:TIME-TIME or heavy:TIME [none]\n"
        "  --prefetch on|off       ask ahead for a thread that walks [on]\n"
        "  --seconds S | --faults N   how long [10 s]\n"
        "  --seed X                of all that is random [1]\n"
        "  --kvm                   vCPUs of a small guest do the touching\n"
        "  --matrix                every combination this kernel has, in [180] seconds\n"
        "  --json FILE, --plot FILE.svg   what was found, for programs and as a picture\n"
        "  --no-limits             do not first measure what the kernel does alone\n"
        "  --progress auto|always|never\n"
        "\n"
        "TIME is a number with ns, us, ms or s. Exit status: 0 nothing is wrong; 1 something is, or this machine\n"
        "cannot do it; 2 usage.\n";

static const double event_rate_usual[EVENT_COUNT] = {
	[EVENT_REMOVE] = 500, [EVENT_UNMAP] = 50, [EVENT_REMAP] = 50, [EVENT_FORK] = 10
};

/* ---- values ---- */

static int parse_real(const char *text, double max, double *ret)
{
	char *end;
	double value = strtod(text, &end);

	if (end == text || *end || !(value >= 0) || value > max)
		return -EINVAL;
	*ret = value;
	return 0;
}

/* "100us"; @end: what may stand after it. */
static int parse_time(const char *text, const char **ret_end, uint64_t *ret_ns)
{
	static const struct {
		const char *name;
		double ns;
	} units[] = { { "ns", 1 }, { "us", 1e3 }, { "ms", 1e6 }, { "s", 1e9 } };
	char *end;
	double value = strtod(text, &end);

	if (end == text || !(value >= 0))
		return -EINVAL;
	for (size_t i = 0; i < sizeof(units) / sizeof(units[0]); i++) {
		size_t len = strlen(units[i].name);

		if (strncmp(end, units[i].name, len))
			continue;
		if (value * units[i].ns > (double)STRESS_DELAY_MAX_NS)
			return -ERANGE;
		*ret_ns = (uint64_t)(value * units[i].ns);
		*ret_end = end + len;
		return 0;
	}
	return -EINVAL;
}

static int parse_delay(const char *text, struct stress_delay *ret)
{
	static const char *const kinds[DELAY_COUNT] = { "none", "constant:", "uniform:", "heavy:" };
	struct stress_delay d = { DELAY_NONE, 0, 0 };
	const char *at = "";
	int r = 0;

	if (strcmp(text, "none") != 0)
		for (unsigned k = DELAY_CONSTANT; k < DELAY_COUNT; k++)
			if (strncmp(text, kinds[k], strlen(kinds[k])) == 0) {
				d.kind = (enum delay_kind)k;
				at = text + strlen(kinds[k]);
			}
	if (d.kind == DELAY_NONE)
		r = strcmp(text, "none") == 0 ? 0 : -EINVAL;
	else
		r = parse_time(at, &at, &d.low_ns);
	if (r == 0 && d.kind == DELAY_UNIFORM)
		r = *at == '-' ? parse_time(at + 1, &at, &d.high_ns) : -EINVAL;
	if (r < 0 || *at || (d.kind == DELAY_UNIFORM && d.high_ns < d.low_ns))
		return -EINVAL;
	*ret = d;
	return 0;
}

static int parse_events(char *text, double rate[static EVENT_COUNT])
{
	char *save = NULL, *word = strtok_r(text, ",", &save), *value;
	int e = -EINVAL;

	for (; word; word = strtok_r(NULL, ",", &save)) {
		value = strchr(word, '=');
		if (value)
			*value++ = '\0';
		e = parse_name(word, event_names, EVENT_COUNT);
		if (e < 0)
			return -EINVAL;
		rate[e] = event_rate_usual[e];
		if (value && (parse_real(value, 1e6, &rate[e]) < 0 || rate[e] <= 0))
			return -EINVAL;
	}
	return e < 0 ? -EINVAL : 0;
}

/* ---- options ---- */

enum {
	OPT_MEMORY = 256,
	OPT_PLACE,
	OPT_TOUCHERS,
	OPT_BYTES,
	OPT_PATTERN,
	OPT_EVENTS,
	OPT_OWN_FAULTS,
	OPT_DUPLICATES,
	OPT_DELAY,
	OPT_PREFETCH,
	OPT_SECONDS,
	OPT_FAULTS,
	OPT_SEED,
	OPT_KVM,
	OPT_MATRIX,
	OPT_JSON,
	OPT_PLOT,
	OPT_NO_LIMITS,
	OPT_PROGRESS,
	OPT_HELP,
};

static const struct option long_options[] = {
	{ "memory", required_argument, NULL, OPT_MEMORY },
	{ "place", required_argument, NULL, OPT_PLACE },
	{ "touchers", required_argument, NULL, OPT_TOUCHERS },
	{ "bytes", required_argument, NULL, OPT_BYTES },
	{ "pattern", required_argument, NULL, OPT_PATTERN },
	{ "events", required_argument, NULL, OPT_EVENTS },
	{ "own-faults", required_argument, NULL, OPT_OWN_FAULTS },
	{ "duplicates", required_argument, NULL, OPT_DUPLICATES },
	{ "delay", required_argument, NULL, OPT_DELAY },
	{ "prefetch", required_argument, NULL, OPT_PREFETCH },
	{ "seconds", required_argument, NULL, OPT_SECONDS },
	{ "faults", required_argument, NULL, OPT_FAULTS },
	{ "seed", required_argument, NULL, OPT_SEED },
	{ "kvm", no_argument, NULL, OPT_KVM },
	{ "matrix", no_argument, NULL, OPT_MATRIX },
	{ "json", required_argument, NULL, OPT_JSON },
	{ "plot", required_argument, NULL, OPT_PLOT },
	{ "no-limits", no_argument, NULL, OPT_NO_LIMITS },
	{ "progress", required_argument, NULL, OPT_PROGRESS },
	{ "help", no_argument, NULL, OPT_HELP },
	{ 0 },
};

static int set_name(const char *value, const char *const *names, unsigned count, unsigned *bits)
{
	int found = parse_name(value, names, count);

	if (found >= 0)
		*bits |= 1u << found;
	return found < 0 ? found : 0;
}

static int set_number(const char *value, uint64_t min, uint64_t max, uint64_t *ret)
{
	uint64_t n;

	if (parse_u64(value, &n) < 0 || n < min || n > max)
		return -EINVAL;
	*ret = n;
	return 0;
}

static int set_seconds(const char *value, struct stress_arguments *a)
{
	double seconds;

	if (parse_real(value, 1e7, &seconds) < 0 || seconds <= 0)
		return -EINVAL;
	a->opts.duration_ns = (uint64_t)(seconds * 1e9);
	a->seconds_given = true;
	return 0;
}

static int set_choice(const char *value, const char *const *names, unsigned count, int *ret)
{
	int found = parse_name(value, names, count);

	if (found < 0)
		return found;
	*ret = found;
	return 0;
}

static int set_pattern(const char *value, struct stress_options *o)
{
	int found = parse_name(value, stress_pattern_names, PATTERN_COUNT);

	o->pattern = found < 0 ? o->pattern : (enum stress_pattern)found;
	return found < 0 ? found : 0;
}

static int set_prefetch(const char *value, struct stress_options *o)
{
	bool on;
	int r = parse_on_off(value, &on);

	o->prefetch_off = r == 0 && !on;
	return r;
}

static int set_bytes(const char *value, struct stress_options *o)
{
	/* A page's number has 32 bits, of all blocks together. */
	return parse_size(value, &o->bytes) < 0 || o->bytes < 1 << 16 || o->bytes > 1ull << 40 ? -EINVAL : 0;
}

static int set_touchers(const char *value, struct stress_options *o)
{
	uint64_t n;
	int r = set_number(value, 1, 256, &n);

	o->touchers = r == 0 ? (unsigned)n : o->touchers;
	return r;
}

static int set_option(int option, char *value, struct stress_arguments *a)
{
	static const char *const progress_names[] = { "auto", "always", "never" };
	struct stress_options *o = &a->opts;

	switch (option) {
	case OPT_MEMORY:
		return set_name(value, memory_names, MEMORY_COUNT, &o->memories);
	case OPT_PLACE:
		return set_name(value, place_names, PLACE_COUNT, &o->places);
	case OPT_TOUCHERS:
		return set_touchers(value, o);
	case OPT_BYTES:
		return set_bytes(value, o);
	case OPT_PATTERN:
		return set_pattern(value, o);
	case OPT_EVENTS:
		return parse_events(value, o->event_rate);
	case OPT_OWN_FAULTS:
		return parse_real(value, 1e6, &o->own_faults);
	case OPT_DUPLICATES:
		return parse_real(value, 1, &o->duplicates);
	case OPT_DELAY:
		return parse_delay(value, &o->delay);
	case OPT_PREFETCH:
		return set_prefetch(value, o);
	case OPT_SECONDS:
		return set_seconds(value, a);
	case OPT_FAULTS:
		return set_number(value, 1, UINT64_MAX, &o->faults);
	case OPT_SEED:
		return parse_u64(value, &o->seed);
	case OPT_PROGRESS:
		return set_choice(value, progress_names, 3, &o->progress);
	case OPT_JSON:
		o->json = value;
		break;
	case OPT_PLOT:
		o->plot = value;
		break;
	case OPT_KVM:
		o->kvm = true;
		break;
	case OPT_MATRIX:
		a->matrix = true;
		break;
	default:
		o->quiet_limit = true;
	}
	return 0;
}

static const char *name_of(int option)
{
	for (const struct option *o = long_options; o->name; o++)
		if (o->val == option)
			return o->name;
	return "?";
}

int options_parse(struct stress_arguments *a, int argc, char **argv)
{
	char why[160];
	int option;

	optind = 1;
	opterr = 0;
	while ((option = getopt_long(argc, argv, ":", long_options, NULL)) != -1) {
		if (option == '?')
			return usage_error("stress", "there is no option '%s', or it takes no value", argv[optind - 1]);
		if (option == ':')
			return usage_error("stress", "%s needs a value", argv[optind - 1]);
		if (option == OPT_HELP) {
			fputs(help_text, stdout);
			return -1;
		}
		snprintf(why, sizeof(why), "%s", optarg ? optarg : "");
		if (set_option(option, optarg, a) < 0)
			return usage_error("stress", "--%s: '%s' is not one of what it takes", name_of(option), why);
	}
	if (optind < argc)
		return usage_error("stress", "there is an argument too many, '%s'", argv[optind]);
	if (a->matrix && (a->opts.plot || a->opts.faults))
		return usage_error("stress", "--plot and --faults are for one run, not for the matrix");
	if (a->seconds_given && a->opts.faults)
		return usage_error("stress", "--seconds and --faults exclude each other");
	return 0;
}
