#include "engine/channel/channel.h"

#include "base/err.h"

#include <errno.h>
#include <string.h>

int chan_failed(const struct chan *ch, const char *doing, int code, struct err *err)
{
	if (code == -ECONNABORTED)
		return err_set(err, code, "the connection was lost: %s %s: the other end does not answer", doing,
		               ch->name);
	return err_set(err, code, "%s %s: %s", doing, ch->name, strerror(-code));
}

ssize_t chan_readv(struct chan *ch, struct iovec *iov, int iov_count, uint64_t deadline_ns, struct err *err)
{
	ssize_t n = ch->ops->readv(ch, iov, iov_count, deadline_ns, err);

	if (n > 0)
		ch->bytes_in += (uint64_t)n;
	return n;
}

/* Drop the first @bytes of an array of buffers. Return: the first entry that is left. */
static int iov_advance(struct iovec *iov, int iov_count, size_t bytes)
{
	int i = 0;

	while (i < iov_count && bytes >= iov[i].iov_len)
		bytes -= iov[i++].iov_len;
	if (i < iov_count) {
		iov[i].iov_base = (char *)iov[i].iov_base + bytes;
		iov[i].iov_len -= bytes;
	}
	return i;
}

ssize_t chan_read_full(struct chan *ch, struct iovec *iov, int iov_count, uint64_t deadline_ns, struct err *err)
{
	ssize_t n, total = 0;
	int i = 0;

	while (i < iov_count) {
		n = ch->ops->read_full ? ch->ops->read_full(ch, iov + i, iov_count - i, deadline_ns, err) :
		                         ch->ops->readv(ch, iov + i, iov_count - i, deadline_ns, err);
		if (n < 0)
			return n;
		if (n == 0)
			break;
		ch->bytes_in += (uint64_t)n;
		total += n;
		i += iov_advance(iov + i, iov_count - i, (size_t)n);
	}
	return total;
}

int chan_write_all(struct chan *ch, const void *buf, size_t bytes, uint64_t deadline_ns, struct err *err)
{
	int r = ch->ops->write_all(ch, buf, bytes, deadline_ns, err);

	if (r == 0)
		ch->bytes_out += bytes;
	return r;
}

bool chan_hung_up(const struct chan *ch)
{
	return ch->ops->hung_up && ch->ops->hung_up(ch);
}

size_t chan_pending(const struct chan *ch)
{
	return ch->ops->pending ? ch->ops->pending(ch) : SIZE_MAX;
}

/* "tcp:192.0.2.1", "tcp:[2001:db8::1]", "vsock:3"; the name of a unix socket's peer is the socket's. */
static size_t peer_bytes(const char *name)
{
	const char *colon = strncmp(name, "unix:", 5) == 0 ? NULL : strrchr(name, ':');

	return colon ? (size_t)(colon - name) : strlen(name);
}

bool chan_same_peer(const char *a, const char *b)
{
	size_t bytes = peer_bytes(a);

	return bytes == peer_bytes(b) && memcmp(a, b, bytes) == 0;
}

void chan_shut_down(struct chan *ch)
{
	if (ch && ch->ops->shut_down)
		ch->ops->shut_down(ch);
}

void chan_close(struct chan *ch)
{
	if (ch)
		ch->ops->close(ch);
}
