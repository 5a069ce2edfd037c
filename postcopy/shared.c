#include "postcopy/shared.h"

#include "base/err.h"

#include <string.h>

int postcopy_give_up(struct postcopy *pc, int result, const char *what)
{
	struct err err = ERR_NONE;

	err_set(&err, result, "%s: %s", what, strerror(-result));
	pc->failed(pc->opaque, result, &err);
	return result;
}
