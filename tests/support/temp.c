#include "tests/support/temp.h"

#include <stdio.h>
#include <stdlib.h>

#include "base/assert.h"

void temp_name(char ret_name[static TEMP_NAME_BYTES], const char *what)
{
	const char *dir = getenv("TMPDIR");
	int n = TEMP_NAME_BYTES;

	if (dir && dir[0] == '/')
		n = snprintf(ret_name, TEMP_NAME_BYTES, "%s/inmigrate-%s-XXXXXX", dir, what);
	if (n < TEMP_NAME_BYTES)
		return;
	n = snprintf(ret_name, TEMP_NAME_BYTES, "/tmp/inmigrate-%s-XXXXXX", what);
	ASSERT(n < TEMP_NAME_BYTES);
}
