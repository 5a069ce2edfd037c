/*
 * The library can be loaded into a running process with threads: its one thread-local variable, which a signal handler
 * reads (postcopy/yield.c), uses the initial-exec model and must fit into the room that the C library reserves for such
 * variables.
 */
#include <dlfcn.h>
#include <errno.h>
#include <libgen.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static void *waits(void *arg)
{
	pthread_barrier_wait(arg);
	pthread_barrier_wait(arg);
	return NULL;
}

int main(void)
{
	const char *program = getenv("TEST_PROGRAM");
	char folder[4096], path[4200];
	pthread_barrier_t barrier;
	pthread_t thread;
	void *library;

	snprintf(folder, sizeof(folder), "%s", program ? program : "./inmigrate");
	snprintf(path, sizeof(path), "%s/libinmigrate.so", dirname(folder));
	if (access(path, R_OK) < 0) {
		printf("%s: %s\n", path, strerror(errno));
		return 77;
	}
	pthread_barrier_init(&barrier, NULL, 2);
	if (pthread_create(&thread, NULL, waits, &barrier) != 0)
		return 1;
	pthread_barrier_wait(&barrier);
	library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
	if (!library)
		printf("%s\n", dlerror());
	pthread_barrier_wait(&barrier);
	pthread_join(thread, NULL);
	if (!library || !dlsym(library, "inm_new"))
		return 1;
	dlclose(library);
	printf("loaded\n");
	return 0;
}
