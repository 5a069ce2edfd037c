#include "tests/support/said.h"

#include <stdio.h>
#include <string.h>

#include "tests/support/embedder.h"

char said[1 << 16];
static size_t said_bytes;

static void on_log(void *opaque, enum inm_log_level level, const char *text)
{
	(void)opaque;
	(void)level;
	if (said_bytes + strlen(text) + 2 < sizeof(said))
		said_bytes += (size_t)snprintf(said + said_bytes, sizeof(said) - said_bytes, "%s\n", text);
}

const struct inm_ops *said_ops(void)
{
	static struct inm_ops ops;

	ops = embedder_ops;
	ops.log = on_log;
	said_bytes = 0;
	said[0] = 0;
	return &ops;
}
