#include "engine/ram/multifd.h"

#include "base/assert.h"
#include "base/clock.h"
#include "base/err.h"
#include "engine/channel/channel.h"
#include "engine/options/options.h"
#include "engine/ram/multifd_barrier.h"
#include "engine/ram/multifd_channel.h"
#include "engine/ram/multifd_claims.h"
#include "memory/block.h"

#include <errno.h>

void multifd_init(struct multifd *m, struct sched *s)
{
	static const unsigned flags[] = {
		[MULTIFD_COMPRESSION_ZLIB] = MULTIFD_ZLIB,
		[MULTIFD_COMPRESSION_ZSTD] = MULTIFD_ZSTD,
		[MULTIFD_COMPRESSION_QATZIP] = 0,
	};

	m->channels = options_has(m->opts, CAP_MULTIFD) ? (unsigned)m->opts->multifd_channels : 0;
	m->compression = flags[m->opts->multifd_compression];
	m->windows.bytes_max = m->opts->multifd_window_limit_bytes;
	list_init(&m->claims);
	event_init(&m->arrived, s, "multifd channels");
	event_init(&m->changed, s, "multifd sync");
	event_init(&m->started, s, "list of RAM blocks");
}

int multifd_drain(struct multifd *m)
{
	int e = 0;

	for (unsigned i = 0; e == 0 && i < m->channels; i++)
		if (m->slots[i] && !m->slots[i]->over)
			e = group_spawn(m->readers, "multifd channel", multifd_channel_drain, m->slots[i]);
	return e;
}

void multifd_fini(struct multifd *m)
{
	for (unsigned i = 0; i < m->channels; i++)
		multifd_channel_free(m->slots[i]);
	m->channels = 0;
}

bool multifd_has_ended(const struct multifd *m)
{
	for (unsigned i = 0; i < m->channels; i++)
		if (multifd_channel_has_ended(m->slots[i]))
			return true;
	return false;
}

int multifd_sync(struct multifd *m, struct err *err)
{
	uint64_t begin_ns = clock_now_ns();
	int e = 0;

	if (m->channels == 0 || m->switched)
		return 0;
	e = multifd_claims_await(m, err);
	if (e == 0)
		e = multifd_barrier_await(m, err);
	if (e < 0)
		return err_up(err, e, "multifd sync point");
	multifd_barrier_open(m);
	m->counts.syncs++;
	m->counts.sync_wait_ns += clock_now_ns() - begin_ns;
	return 0;
}

int multifd_check_whole(const struct multifd *m, struct err *err)
{
	if (gate_is_whole(&m->ram->gate))
		return 0;
	for (unsigned i = 0; i < m->channels; i++) {
		const struct multifd_channel *c = m->slots[i];

		if (c && c->inside)
			return err_set(err, -EPROTO,
			               "multifd channel %u (%s) is in the middle of a packet with pages of block '%s'",
			               i, c->ch->name, c->inside->block->label);
	}
	if (m->missed)
		return err_set(err, -EPROTO, "pages came by multifd after the switch to postcopy, and were not taken");
	return err_set(err, -EPROTO, "a multifd channel has ended in the middle of a packet with pages");
}

int multifd_switch(struct multifd *m, struct err *err)
{
	struct err ignored = ERR_NONE;
	int shut, e = multifd_check_whole(m, err);

	if (e < 0)
		return err_up(err, e, "the switch to postcopy");
	shut = gate_shut(&m->ram->gate);
	ASSERT(shut == 0);
	m->switched = true;
	/* A channel without memory is not needed any more. */
	multifd_claims_settle(m, &ignored);
	multifd_barrier_open(m);
	return 0;
}
