#include "programs/cli/settings.h"

#include "engine/options/options.h"
#include "engine/options/options_table.h"
#include "programs/cli/complain.h"

#include <stdlib.h>
#include <string.h>

int set_capability(struct inm *inm, const char *command, const char *name)
{
	return inm_set_capability(inm, name, true) < 0 ? usage_error(command, "%s", inm_error(inm)) : 0;
}

int set_parameter(struct inm *inm, const char *command, const char *key_value)
{
	const char *equals = strchr(key_value, '=');
	char *key;
	int r;

	if (!equals)
		return usage_error(command, "--param %s: KEY=VALUE is expected", key_value);
	key = strndup(key_value, (size_t)(equals - key_value));
	if (!key)
		return fail("no memory");
	r = inm_set_parameter(inm, key, equals + 1);
	free(key);
	return r < 0 ? usage_error(command, "%s", inm_error(inm)) : 0;
}

void print_capabilities(FILE *out)
{
	const struct cap_row *row;

	fprintf(out, "%-24s %-10s %-10s %s\n", "capability", "here", "set on", "remark");
	for (unsigned i = 0; (row = options_cap_row(i)); i++)
		fprintf(out, "%-24s %-10s %-10s %s\n", row->name, support_name(row->support), side_name(row->side),
		        row->note ? row->note : "");
}

void print_parameters(FILE *out)
{
	char form[OPTIONS_TEXT_BYTES];
	const struct param_row *row;

	fprintf(out, "%-34s %-10s %-28s %s\n", "parameter", "here", "value", "default");
	for (unsigned i = 0; (row = options_param_row(i)); i++)
		fprintf(out, "%-34s %-10s %-28s %s %s\n", row->name, support_name(row->support),
		        options_param_form(row, form), row->def[0] ? row->def : "\"\"", row->unit);
}
