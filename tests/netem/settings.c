#include "tests/netem/settings.h"

#include "base/clock.h"

#include <ctype.h>
#include <errno.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* A day: what is longer is a slip, and sums of a few stay far from the end of the clock. */
#define TIME_NS_MAX (86400 * NS_PER_S)

enum kind { KIND_CHANCE, KIND_TIME, KIND_RATE, KIND_BYTES, KIND_BURST };

static const struct word {
	const char *name;
	enum kind kind;
	size_t at;
} words[] = {
	{ "loss", KIND_CHANCE, offsetof(struct settings, loss) },
	{ "loss-burst", KIND_BURST, 0 },
	{ "delay", KIND_TIME, offsetof(struct settings, delay_ns) },
	{ "jitter", KIND_TIME, offsetof(struct settings, jitter_ns) },
	{ "reorder", KIND_CHANCE, offsetof(struct settings, reorder) },
	{ "duplicate", KIND_CHANCE, offsetof(struct settings, duplicate) },
	{ "corrupt", KIND_CHANCE, offsetof(struct settings, corrupt) },
	{ "rate", KIND_RATE, offsetof(struct settings, rate_bits) },
	{ "queue", KIND_BYTES, offsetof(struct settings, queue_bytes) },
};

struct unit {
	const char *name;
	double factor;
};

static const struct unit percent_units[] = { { "%", 0.01 }, { NULL, 0 } };
static const struct unit time_units[] = { { "ns", 1 }, { "us", 1e3 }, { "ms", 1e6 }, { "s", 1e9 }, { NULL, 0 } };
static const struct unit rate_units[] = {
	{ "bit", 1 }, { "kbit", 1e3 }, { "mbit", 1e6 }, { "gbit", 1e9 }, { NULL, 0 }
};
static const struct unit byte_units[] = { { "", 1 },    { "b", 1 },    { "k", 1e3 }, { "kb", 1e3 },
	                                  { "m", 1e6 }, { "mb", 1e6 }, { NULL, 0 } };

struct settings settings_default(void)
{
	/* A hundred full packets: 12 ms at 100 Mbit/s, as a small router has. */
	return (struct settings){ .burst_r = 1, .burst_k = 1, .queue_bytes = 150000 };
}

/* A number and its unit up to @end. Nothing signed, no exponents, no "inf": digits and a point. */
static bool number_parse(const char *text, const char *end, const struct unit *units, double *ret_value)
{
	size_t digits = strspn(text, "0123456789."), left;
	char *stop;
	double value;

	if (!isdigit((unsigned char)text[0]) || digits > 18 || text + digits > end)
		return false;
	value = strtod(text, &stop);
	if (stop != text + digits)
		return false;
	for (left = (size_t)(end - stop); units->name; units++) {
		if (strlen(units->name) == left && !strncasecmp(units->name, stop, left)) {
			*ret_value = value * units->factor;
			return true;
		}
	}
	return false;
}

static int chance_parse(const char *name, const char *text, const char *end, double *ret_chance, struct err *err)
{
	double value;

	if (!number_parse(text, end, percent_units, &value) || value > 1)
		return err_set(err, -EINVAL, "%s: '%.*s' is not a percentage such as 2.5%%", name, (int)(end - text),
		               text);
	*ret_chance = value;
	return 0;
}

static int time_parse(const char *name, const char *text, const char *end, uint64_t *ret_ns, struct err *err)
{
	double value;

	if (!number_parse(text, end, time_units, &value) || value > (double)TIME_NS_MAX)
		return err_set(err, -EINVAL, "%s: '%.*s' is not a time such as 20ms (ns, us, ms, s)", name,
		               (int)(end - text), text);
	*ret_ns = (uint64_t)(value + 0.5);
	return 0;
}

static int rate_parse(const char *name, const char *text, uint64_t *ret_bits, struct err *err)
{
	size_t length = strlen(text);
	double value;

	if (length > 2 && !strcmp(text + length - 2, "/s"))
		length -= 2;
	/* Below 1 kbit/s a packet takes minutes, above 1 Tbit/s no time at all: both are slips. */
	if (!number_parse(text, text + length, rate_units, &value) || (value != 0 && (value < 1e3 || value > 1e12)))
		return err_set(err, -EINVAL,
		               "%s: '%s' is not a rate such as 10Mbit (bit, kbit, Mbit, Gbit; 0bit: none)", name, text);
	*ret_bits = (uint64_t)(value + 0.5);
	return 0;
}

static int bytes_parse(const char *name, const char *text, uint64_t *ret_bytes, struct err *err)
{
	double value;

	if (!number_parse(text, text + strlen(text), byte_units, &value) || value > 1e9)
		return err_set(err, -EINVAL, "%s: '%s' is not a number of bytes such as 150kB (B, kB, MB)", name, text);
	*ret_bytes = (uint64_t)(value + 0.5);
	return 0;
}

static int burst_parse(struct settings *s, const char *name, const char *text, struct err *err)
{
	double *const parts[] = { &s->burst_p, &s->burst_r, &s->burst_h, &s->burst_k };
	const char *at = text;
	size_t n;
	int r;

	s->burst_h = 0;
	s->burst_k = 1;
	for (n = 0; n < 4; n++) {
		const char *end = strchrnul(at, ',');

		r = chance_parse(name, at, end, parts[n], err);
		if (r < 0)
			return r;
		if (!*end)
			break;
		at = end + 1;
	}
	if (n == 0 || n == 4)
		return err_set(err, -EINVAL, "%s: '%s' is not P,R[,H[,K]] such as 1%%,25%%", name, text);
	return 0;
}

static const struct word *word_find(const char *name)
{
	for (size_t n = 0; n < sizeof words / sizeof *words; n++) {
		if (!strcmp(words[n].name, name))
			return &words[n];
	}
	return NULL;
}

bool settings_known(const char *name)
{
	return word_find(name);
}

int settings_set(struct settings *s, const char *name, const char *text, struct err *err)
{
	const struct word *word = word_find(name);
	struct settings changed = *s;
	void *field;
	int r = 0;

	if (!word)
		return err_set(err, -EINVAL, "there is no setting '%s'", name);
	field = (char *)&changed + word->at;
	switch (word->kind) {
	case KIND_CHANCE:
		r = chance_parse(name, text, text + strlen(text), field, err);
		break;
	case KIND_TIME:
		r = time_parse(name, text, text + strlen(text), field, err);
		break;
	case KIND_RATE:
		r = rate_parse(name, text, field, err);
		break;
	case KIND_BYTES:
		r = bytes_parse(name, text, field, err);
		break;
	case KIND_BURST:
		r = burst_parse(&changed, name, text, err);
		break;
	}
	if (r == 0)
		*s = changed;
	return r;
}

int settings_check(const struct settings *s, struct err *err)
{
	if (s->reorder > 0 && s->delay_ns == 0)
		return err_set(err, -EINVAL,
		               "reorder needs a delay: a packet comes out of order by not waiting for it");
	return 0;
}

static int blackout_parse(const char *text, const char *end, struct blackout *ret_blackout, struct err *err)
{
	const char *plus = memchr(text, '+', (size_t)(end - text));
	struct blackout found = { 0 };
	int r = 0;

	if (plus)
		r = time_parse("blackout", text, plus, &found.at_ns, err);
	if (r == 0)
		r = time_parse("blackout", plus ? plus + 1 : text, end, &found.for_ns, err);
	if (r == 0)
		*ret_blackout = found;
	return r;
}

int blackouts_parse(const char *text, struct blackout *list, struct err *err)
{
	int count = 0, r;

	while (true) {
		const char *end = strchrnul(text, ',');

		if (count == BLACKOUTS_MAX)
			return err_set(err, -EINVAL, "blackout: more than %d", BLACKOUTS_MAX);
		r = blackout_parse(text, end, &list[count], err);
		if (r < 0)
			return r;
		count++;
		if (!*end)
			return count;
		text = end + 1;
	}
}
