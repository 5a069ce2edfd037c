#include "engine/answer.h"

#include "base/err.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

/* The kernel's MAX_ERRNO: what is below is no errno. */
#define ERRNO_MAX 4095

void answer_name(struct answer *answer, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(answer->name, sizeof(answer->name), fmt, ap);
	va_end(ap);
}

int answer_check(const struct answer *answer, struct err *err)
{
	int code = answer->code;

	if (code == 0)
		return 0;
	if (code > 0)
		return err_set(err, -EINVAL, "%s returned %d; it must return 0 or a negative errno", answer->name,
		               code);
	if (code < -ERRNO_MAX)
		return err_set(err, -EINVAL, "%s returned %d, which is no errno; it must return 0 or a negative errno",
		               answer->name, code);
	if (code == -ECANCELED)
		code = -EIO;
	return err_set(err, code, "refused here: %s", strerror(-answer->code));
}
