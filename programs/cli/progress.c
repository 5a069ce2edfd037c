#include "programs/cli/progress.h"

#include "base/clock.h"
#include "programs/cli/human.h"
#include "programs/cli/output.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <unistd.h>

#define LIVE_NS (200 * NS_PER_MS)
#define LINE_NS NS_PER_S

void progress_init(struct progress *p, enum progress_mode mode)
{
	bool terminal = isatty(STDERR_FILENO);

	*p = (struct progress){ .live = terminal };
	p->on = mode == PROGRESS_ALWAYS || (mode == PROGRESS_AUTO && terminal);
}

uint64_t progress_interval_ns(const struct progress *p)
{
	return p->live ? LIVE_NS : LINE_NS;
}

static void update_rate(struct progress *p, uint64_t bytes, uint64_t now_ns)
{
	double rate;

	if (p->shown_ns && now_ns > p->shown_ns) {
		rate = (double)(bytes - p->shown_bytes) * 1e9 / (double)(now_ns - p->shown_ns);
		p->rate = p->rate > 0 ? 0.7 * p->rate + 0.3 * rate : rate;
	}
	p->shown_ns = now_ns;
	p->shown_bytes = bytes;
}

static bool in_postcopy(enum inm_state state)
{
	return state == INM_STATE_POSTCOPY_ACTIVE || state == INM_STATE_POSTCOPY_PAUSED;
}

bool progress_due(const struct progress *p)
{
	return p->on && (!p->shown_ns || clock_now_ns() - p->shown_ns >= progress_interval_ns(p));
}

void progress_say(struct progress *p, const char *fmt, ...)
{
	va_list ap;

	p->shown_ns = clock_now_ns();
	fputs(p->live ? "\r\033[K" : "", output_err());
	va_start(ap, fmt);
	vfprintf(output_err(), fmt, ap);
	va_end(ap);
	fputs(p->live ? "" : "\n", output_err());
	fflush(output_err());
	p->line_open = p->live;
}

void progress_stop(struct progress *p)
{
	if (p->line_open)
		fputc('\n', output_err());
	p->line_open = false;
}

void progress_show(struct progress *p, const struct inm *inm)
{
	struct inm_stats st = { .size = sizeof(st) };
	char bytes[32], rate[32], left[32];
	uint64_t received;

	if (!progress_due(p))
		return;
	inm_get_stats(inm, &st);
	received = st.main_bytes + st.multifd_bytes + st.preempt_bytes;
	update_rate(p, received, clock_now_ns());
	human_bytes(bytes, (double)received);
	human_bytes(rate, p->rate);
	human_bytes(left, (double)(st.remaining_pages * st.page_bytes));
	if (in_postcopy(st.state))
		progress_say(
		        p, "%s: %s received, %s/s, %s of RAM missing, %" PRIu64 " faults, %" PRIu64 " of them waiting",
		        inm_state_name(st.state), bytes, rate, left, st.faults, st.outstanding_faults);
	else
		progress_say(p, "%s: %s received, %s/s, %s of RAM not seen, round %" PRIu64, inm_state_name(st.state),
		             bytes, rate, left, st.rounds);
}

void progress_end(struct progress *p, const struct inm *inm)
{
	if (!p->on)
		return;
	p->shown_ns = 0;
	progress_show(p, inm);
	progress_stop(p);
}
