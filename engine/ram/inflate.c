#include "engine/ram/inflate.h"

#include "base/err.h"

#include <errno.h>
#include <stdlib.h>
#include <zlib.h>

struct inflater {
	z_stream z;
};

int inflater_get(struct inflater **inf, struct err *err)
{
	struct inflater *new;

	if (*inf)
		return 0;
	new = calloc(1, sizeof(*new));
	if (!new || inflateInit(&new->z) != Z_OK) {
		free(new);
		return err_set(err, -ENOMEM, "no memory for zlib");
	}
	*inf = new;
	return 0;
}

void inflater_free(struct inflater *inf)
{
	if (inf)
		inflateEnd(&inf->z);
	free(inf);
}

int inflate_page(struct inflater *inf, void *page, size_t page_bytes, const void *src, size_t src_bytes,
                 struct err *err)
{
	int r;

	inflateReset(&inf->z);
	inf->z.next_in = (Bytef *)src;
	inf->z.avail_in = (uInt)src_bytes;
	inf->z.next_out = page;
	inf->z.avail_out = (uInt)page_bytes;
	r = inflate(&inf->z, Z_FINISH);
	if (r != Z_STREAM_END)
		return err_set(err, -EPROTO, "compressed page: %s", inf->z.msg ? inf->z.msg : zError(r));
	if (inf->z.avail_out > 0 || inf->z.avail_in > 0)
		return err_set(err, -EPROTO, "compressed page: %u of %zu bytes missing, %u bytes left over",
		               inf->z.avail_out, page_bytes, inf->z.avail_in);
	return 0;
}
