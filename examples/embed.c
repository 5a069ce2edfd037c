/*
 * embed.c - the least a program has to do to land a guest
 *
 *   cc embed.c $(pkg-config --cflags --libs inmigrate) -o embed
 *   ./embed tcp:127.0.0.1:4444
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE /* for memfd_create */
#endif

#include <inmigrate.h>

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

static int on_ram_block(void *opaque, struct inm_ram_block *block)
{
	int fd = memfd_create("guest", MFD_CLOEXEC);

	(void)opaque;
	if (fd < 0 || ftruncate(fd, (off_t)block->bytes) < 0)
		return -errno;
	/* A monitor would map it for its guest here. The library has its own mapping once this returns. */
	block->fd = fd;
	printf("block  %s: %llu bytes\n", block->name, (unsigned long long)block->bytes);
	return 0;
}

static int on_device(void *opaque, const struct inm_device *device)
{
	(void)opaque;
	printf("device %s (%u): %zu bytes of state, version %u\n", device->name, device->instance_id, device->bytes,
	       device->version_id);
	return 0;
}

/* A monitor would make sure here that its vCPUs can run, and refuse if not: the source still has its guest. */
static int on_ready(void *opaque, const char *run_state)
{
	(void)opaque;
	printf("ready  the guest was %s\n", run_state ? run_state : "in a state the stream does not tell");
	return 0;
}

/* Now the guest is ours alone. */
static void on_start_vcpus(void *opaque, const char *run_state)
{
	(void)opaque;
	(void)run_state;
	printf("start\n");
}

int main(int argc, char **argv)
{
	static const struct inm_ops ops = {
		.size = sizeof(ops),
		.ram_block = on_ram_block,
		.device = on_device,
		.ready = on_ready,
		.start_vcpus = on_start_vcpus,
	};
	struct inm *inm;
	int r;

	if (argc != 2) {
		fprintf(stderr, "usage: %s URI\n", argv[0]);
		return 2;
	}
	r = inm_new(&inm, NULL, &ops, NULL);
	if (r == 0)
		r = inm_listen(inm, argv[1]);
	if (r == 0)
		r = inm_run(inm);
	/* Also when there is no inm: why not. */
	if (r < 0)
		fprintf(stderr, "%s\n", inm_error(inm));
	inm_free(inm);
	return r < 0;
}
