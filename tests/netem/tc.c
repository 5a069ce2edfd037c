#include "tests/netem/tc.h"

#include "tests/netem/child.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define WORDS_MAX 48

/* A command line of words, made with printf and split at spaces. */
struct line {
	char text[512];
	size_t used;
};

__attribute__((format(printf, 2, 3))) static void line_add(struct line *l, const char *fmt, ...)
{
	va_list args;
	int n;

	va_start(args, fmt);
	n = vsnprintf(l->text + l->used, sizeof l->text - l->used, fmt, args);
	va_end(args);
	if (n > 0)
		l->used = l->used + (size_t)n < sizeof l->text ? l->used + (size_t)n : sizeof l->text - 1;
}

static int line_run(struct line *l, int ns, bool quiet)
{
	const char *words[WORDS_MAX + 1];
	char *rest = l->text;
	size_t n = 0;

	while (n < WORDS_MAX && (words[n] = strtok_r(rest, " ", &rest)))
		n++;
	words[n] = NULL;
	return child_run(words, ns, quiet);
}

bool tc_have(int ns)
{
	struct line add = { 0 }, del = { 0 };

	line_add(&add, "tc qdisc add dev lo root netem delay 0ms");
	if (line_run(&add, ns, true) != 0)
		return false;
	line_add(&del, "tc qdisc del dev lo root");
	return line_run(&del, ns, true) == 0;
}

/* netem counts what is on the wire, too; ours counts what waits for the rate. */
static uint64_t limit_packets(const struct settings *s, unsigned int mtu)
{
	double wire_bytes = (double)(s->delay_ns + s->jitter_ns) * (double)s->rate_bits / 8e9;

	return s->rate_bits ? (uint64_t)(((double)s->queue_bytes + wire_bytes) / mtu) + 1 : 65536;
}

/* Source: tc-netem(8) */
static void netem(struct line *l, const struct settings *s, unsigned int mtu)
{
	line_add(l, "tc qdisc add dev " SPACE_DEVICE " root netem limit %llu",
	         (unsigned long long)limit_packets(s, mtu));
	if (s->delay_ns || s->jitter_ns)
		line_add(l, " delay %.3fus %.3fus", (double)s->delay_ns / 1e3, (double)s->jitter_ns / 1e3);
	if (s->loss > 0)
		line_add(l, " loss random %.6f%%", s->loss * 100);
	if (s->burst_p > 0)
		line_add(l, " loss gemodel %.6f%% %.6f%% %.6f%% %.6f%%", s->burst_p * 100, s->burst_r * 100,
		         (1 - s->burst_h) * 100, (1 - s->burst_k) * 100);
	if (s->duplicate > 0)
		line_add(l, " duplicate %.6f%%", s->duplicate * 100);
	if (s->corrupt > 0)
		line_add(l, " corrupt %.6f%%", s->corrupt * 100);
	if (s->reorder > 0)
		line_add(l, " reorder %.6f%%", s->reorder * 100);
	if (s->rate_bits)
		line_add(l, " rate %llubit", (unsigned long long)s->rate_bits);
}

static int must(const struct line *l, int ns, struct err *err)
{
	struct line copy = *l; /* running one takes it apart */
	int r = line_run(&copy, ns, false);

	return r == 0 ? 0 : err_set(err, -EIO, "'%s' failed (status %d)", l->text, r);
}

static int end_build(int ns, const struct space_address *a, unsigned int mtu, const struct settings *s, struct err *err)
{
	struct line address = { 0 }, up = { 0 }, queue = { 0 };
	int r;

	line_add(&address, "ip address add %s/%u dev " SPACE_DEVICE, a->text, a->prefix);
	/* One segment at a time: what is lost is one packet, not the sixty-four kilobytes a veth would take at once.
	 * No ARP: its packets would be lost, too, and draw. It needs both ends to have the same hardware address. */
	line_add(&up, "ip link set dev " SPACE_DEVICE " mtu %u gso_max_segs 1 arp off up", mtu);
	netem(&queue, s, mtu);
	r = must(&address, ns, err);
	if (r == 0)
		r = must(&up, ns, err);
	return r < 0 ? r : must(&queue, ns, err);
}

int tc_build(const int ns[static 2], const struct space_address addresses[static 2], unsigned int mtu,
             const struct settings settings[static 2], struct err *err)
{
	struct line pair = { 0 };
	int r;

	for (int n = 0; n < 2; n++) {
		if (settings[n].loss > 0 && settings[n].burst_p > 0)
			return err_set(err, -EINVAL, "netem has loss or loss-burst, not both: --with tun has");
	}
	line_add(&pair,
	         "ip link add " SPACE_DEVICE " address 02:00:00:00:00:01 type veth peer name " SPACE_DEVICE
	         " address 02:00:00:00:00:01 netns %d",
	         (int)getpid());
	r = must(&pair, ns[0], err);
	for (int n = 0; n < 2 && r == 0; n++)
		r = end_build(ns[n], &addresses[n], mtu, &settings[n], err);
	return r;
}
