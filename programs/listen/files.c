#include "programs/listen/files.h"

#include "base/err.h"
#include "engine/channel/address.h"
#include "programs/cli/complain.h"
#include "programs/listen/listen.h"

#include <stdbool.h>
#include <sys/stat.h>

static const char *const names[] = { "--devices", "--stats", "--touch-log" };

#define FILES (sizeof(names) / sizeof(names[0]))

/* The saved stream that is read. Return: false when there is none, or it cannot be had: to open it will say why. */
static bool find_stream(const struct listen *ln, struct stat *ret)
{
	struct err ignored = ERR_NONE;
	struct address addr;
	bool found;

	if (address_parse(&addr, ln->uri, &ignored) < 0)
		return false;
	found = (addr.kind == ADDRESS_FILE && stat(addr.path, ret) == 0) ||
	        (addr.kind == ADDRESS_FD && fstat(addr.fd, ret) == 0);
	address_fini(&addr);
	return found && S_ISREG(ret->st_mode);
}

static bool is_one(const struct stat *a, const struct stat *b)
{
	return a->st_dev == b->st_dev && a->st_ino == b->st_ino;
}

/* To write one would destroy the other. */
static int check_one(const struct listen *ln, const struct out_file *f, const char *name, const struct stat *stream)
{
	struct stat st;

	if (!f->path || fstat(f->fd, &st) < 0 || !S_ISREG(st.st_mode))
		return GO_ON;
	if (guest_files_have(&ln->ram.files, &st))
		return usage_error("listen", "%s %s: it holds memory of the guest (--ram)", name, f->path);
	if (stream && is_one(stream, &st))
		return usage_error("listen", "%s %s: it holds the stream", name, f->path);
	return GO_ON;
}

int listen_open_files(struct listen *ln)
{
	struct out_file *const files[FILES] = { &ln->devices_file, &ln->stats_file, &ln->touch_log };
	const char *const paths[FILES] = { ln->devices_path, ln->stats_path, ln->touch_log_path };
	struct stat stream;
	bool saved = find_stream(ln, &stream);
	int r = GO_ON;

	for (size_t i = 0; i < FILES; i++)
		if (paths[i] && out_file_open(files[i], paths[i]) < 0)
			return EXIT_FAILED;
	for (size_t i = 0; i < FILES; i++)
		for (size_t k = 0; k < i; k++)
			if (out_file_same(files[i], files[k]))
				return usage_error("listen", "--devices, --stats and --touch-log need a file each");
	for (size_t i = 0; r == GO_ON && i < FILES; i++)
		r = check_one(ln, files[i], names[i], saved ? &stream : NULL);
	if (r != GO_ON || !ln->ram_dir)
		return r;
	if (ram_dir_open(&ln->ram.dir, ln->ram_dir) < 0)
		return EXIT_FAILED;
	for (size_t i = 0; i < FILES; i++)
		if (files[i]->path && fstat(files[i]->fd, &stream) == 0)
			ram_dir_keep(&ln->ram.dir, &stream);
	if (find_stream(ln, &stream))
		ram_dir_keep(&ln->ram.dir, &stream);
	return GO_ON;
}
