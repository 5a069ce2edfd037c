#include "programs/cli/document.h"

#include "programs/cli/complain.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

json_t *document_count(uint64_t n)
{
	return json_integer((json_int_t)n);
}

double document_us(uint64_t ns)
{
	return (double)ns / 1e3;
}

int document_write(const json_t *doc, struct out_file *file)
{
	FILE *stream;

	if (!doc) {
		fail("%s: %s", file->path, strerror(ENOMEM));
		return -ENOMEM;
	}
	stream = out_file_stream(file);
	if (!stream)
		return -EIO;
	json_dumpf(doc, stream, JSON_INDENT(2) | JSON_ENSURE_ASCII);
	return out_file_done(file, stream);
}
