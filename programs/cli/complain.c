#include "programs/cli/complain.h"

#include "programs/cli/output.h"

#include <stdarg.h>
#include <stdio.h>

int fail(const char *fmt, ...)
{
	FILE *err = output_err();
	va_list ap;

	fputs("inmigrate: ", err);
	va_start(ap, fmt);
	vfprintf(err, fmt, ap);
	va_end(ap);
	fputc('\n', err);
	return EXIT_FAILED;
}

int usage_error(const char *command, const char *fmt, ...)
{
	FILE *err = output_err();
	va_list ap;

	fprintf(err, "inmigrate %s: ", command);
	va_start(ap, fmt);
	vfprintf(err, fmt, ap);
	va_end(ap);
	fprintf(err, "; see 'inmigrate %s --help'\n", command);
	return EXIT_USAGE;
}
