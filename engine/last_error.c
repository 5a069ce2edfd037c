#include "engine/last_error.h"

#include "base/err.h"

#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

static __thread struct {
	char text[sizeof(((struct err *)0)->text) + 300];
	bool of_constructor;
} last;

static bool is_constructor(const char *call)
{
	return strcmp(call, "inm_new") == 0 || strcmp(call, "inm_reactor_new") == 0;
}

int last_error_set(const char *call, int result, const struct err *err)
{
	snprintf(last.text, sizeof(last.text), "%s: %s (%s)", call, err->text, err_name(result));
	last.of_constructor = is_constructor(call);
	return result;
}

void last_error_copy(const char *call, const char *text)
{
	snprintf(last.text, sizeof(last.text), "%s: %s", call, text);
	last.of_constructor = false;
}

void last_error_clear(void)
{
	last.text[0] = '\0';
	last.of_constructor = false;
}

int last_error_null(const char *call)
{
	struct err err = ERR_NONE;

	if (last.of_constructor)
		return -EINVAL;
	err_set(&err, -EINVAL, "NULL was given for the object");
	return last_error_set(call, -EINVAL, &err);
}

const char *last_error_text(void)
{
	return last.text[0] ? last.text : LAST_ERROR_NONE;
}
