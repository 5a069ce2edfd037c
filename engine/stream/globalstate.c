#include "engine/stream/globalstate.h"

#include "base/be.h"
#include "base/err.h"
#include "base/text.h"

#include <errno.h>
#include <string.h>

/* be32 size; a name, and zeros. Two of those bytes have got a second meaning, which means nothing here. */
#define NAME_BYTES 100u

int globalstate_parse(char ret_run_state[static GLOBALSTATE_NAME_MAX + 1], const uint8_t *body, size_t bytes,
                      struct err *err)
{
	const uint8_t *name = body + 4;
	uint32_t size;
	size_t n;

	if (bytes != 4 + NAME_BYTES)
		return err_set(err, -EPROTO, "globalstate of %zu bytes, %u expected", bytes, 4 + NAME_BYTES);
	size = be32_load(body);
	n = strnlen((const char *)name, NAME_BYTES);
	if (n == 0 || n == NAME_BYTES || size != n + 1)
		return err_set(err, -EPROTO, "globalstate: run state of %zu bytes, announced with %u", n, size);
	for (size_t i = 0; i < n; i++) {
		if (name[i] < 0x21 || name[i] > 0x7e)
			return err_set(err, -EPROTO, "globalstate: run state '%s'", TEXT_QUOTE(name, n));
	}
	memcpy(ret_run_state, name, n + 1);
	return 0;
}
