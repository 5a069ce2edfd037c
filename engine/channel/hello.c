#include "engine/channel/hello.h"

#include "base/be.h"
#include "base/err.h"
#include "engine/channel/channel.h"
#include "engine/stream/wire.h"

#include <errno.h>

int hello_read(struct hello *h, uint64_t deadline_ns, struct err *err)
{
	while (h->got < HELLO_BYTES) {
		struct iovec iov = { h->first + h->got, HELLO_BYTES - h->got };
		ssize_t n = chan_readv(h->ch, &iov, 1, deadline_ns, err);

		if (n == -ETIMEDOUT)
			return err_set(err, -ETIMEDOUT, "%zu of the first %d bytes before the deadline", h->got,
				       HELLO_BYTES);
		if (n < 0)
			return (int)n;
		if (n == 0)
			return err_set(err, -ENODATA, "closed after %zu bytes", h->got);
		h->got += (size_t)n;
	}
	return 0;
}

enum hello_role hello_decide(const uint8_t first[static HELLO_BYTES], bool has_main, const char **ret_reason)
{
	switch (be32_load(first)) {
	case WIRE_MAGIC:
		*ret_reason = "a second main channel";
		return has_main ? HELLO_REFUSED : HELLO_MAIN;
	case WIRE_MAGIC_MULTIFD:
		*ret_reason = "a multifd channel, but capability multifd is off here";
		return HELLO_REFUSED;
	case WIRE_MAGIC_CPR:
		*ret_reason = "a cpr channel: mode cpr-transfer is not supported";
		return HELLO_REFUSED;
	default:
		*ret_reason = "not a migration channel";
		return HELLO_REFUSED;
	}
}
