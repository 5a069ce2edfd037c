#include "engine/channel/channel.h"

ssize_t chan_readv(struct chan *ch, struct iovec *iov, int iov_count, uint64_t deadline_ns, struct err *err)
{
	ssize_t n = ch->ops->readv(ch, iov, iov_count, deadline_ns, err);

	if (n > 0)
		ch->bytes_in += (uint64_t)n;
	return n;
}

int chan_write_all(struct chan *ch, const void *buf, size_t bytes, uint64_t deadline_ns, struct err *err)
{
	int r = ch->ops->write_all(ch, buf, bytes, deadline_ns, err);

	if (r == 0)
		ch->bytes_out += bytes;
	return r;
}

void chan_close(struct chan *ch)
{
	if (ch)
		ch->ops->close(ch);
}
