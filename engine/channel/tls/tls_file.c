/* A file of the directory of credentials, whole, and overwritten after use: by (1) and (2) of tls_creds.h. */
#include "engine/channel/tls/tls_creds_parts.h"

#if HAVE_GNUTLS

#include "base/err.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* Certificates and keys are a few KiB; a list of revoked ones may be long. */
#define FILE_BYTES_MAX (4u << 20)

void tls_file_fini(struct tls_file *f)
{
	if (f->data)
		explicit_bzero(f->data, f->bytes);
	free(f->data);
	f->data = NULL;
}

static int file_read_fd(struct tls_file *f, int fd, struct err *err)
{
	struct stat st;
	ssize_t n = 0;

	if (fstat(fd, &st) < 0)
		return err_set(err, -errno, "%s: %m", f->path);
	if (!S_ISREG(st.st_mode))
		return err_set(err, -EINVAL, "%s: is not a file", f->path);
	if (st.st_size > (off_t)FILE_BYTES_MAX)
		return err_set(err, -EFBIG, "%s: is longer than %u bytes", f->path, FILE_BYTES_MAX);
	f->data = malloc((size_t)st.st_size + 1);
	if (!f->data)
		return err_set(err, -ENOMEM, "no memory for %s", f->path);
	while (f->bytes < (size_t)st.st_size) {
		n = read(fd, f->data + f->bytes, (size_t)st.st_size - f->bytes);
		if (n < 0)
			return err_set(err, -errno, "%s: %m", f->path);
		if (n == 0)
			break;
		f->bytes += (size_t)n;
	}
	f->data[f->bytes] = '\0';
	return f->bytes > 0 ? 0 : err_set(err, -EINVAL, "%s: is empty", f->path);
}

int tls_file_read(struct tls_file *f, const char *dir, const char *name, bool may_be_missing, struct err *err)
{
	int fd, r;

	f->data = NULL;
	f->bytes = 0;
	if ((size_t)snprintf(f->path, sizeof(f->path), "%s/%s", dir, name) >= sizeof(f->path))
		return err_set(err, -ENAMETOOLONG, "the path of %s is too long", name);
	fd = open(f->path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY); /* not even a FIFO may hold us */
	if (fd < 0 && errno == ENOENT && may_be_missing)
		return 0;
	if (fd < 0)
		return err_set(err, -errno, "%s: %m", f->path);
	r = file_read_fd(f, fd, err);
	close(fd);
	if (r < 0)
		tls_file_fini(f);
	return r;
}

gnutls_datum_t tls_file_datum(const struct tls_file *f)
{
	return (gnutls_datum_t){ (unsigned char *)f->data, (unsigned)f->bytes };
}

/* The words of GnuTLS name kinds of mistakes, never content. */
int tls_file_bad(const struct tls_file *f, int gnutls_code, struct err *err)
{
	if (gnutls_code == GNUTLS_E_MEMORY_ERROR)
		return err_set(err, -ENOMEM, "no memory for %s", f->path);
	return err_set(err, -EINVAL, "%s: %s", f->path, gnutls_strerror(gnutls_code));
}

#endif
