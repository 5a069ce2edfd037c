/*
 * A main() for fuzzers without libFuzzer: it runs files again, and mutates them blindly.
 *
 *   fuzz_x FILE|DIR...          once each; this is how `make check` runs past crashes
 *   fuzz_x -r RUNS FILE|DIR...  then RUNS random changes of them; SEED in the environment repeats a series
 */
#include <dirent.h>
#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { INPUT_BYTES_MAX = 1 << 20, INPUTS_MAX = 4096 };

static struct input {
	uint8_t *data;
	size_t size;
} inputs[INPUTS_MAX];
static size_t input_count;

static void die(const char *what)
{
	fprintf(stderr, "%s: %s\n", what, strerror(errno));
	exit(2);
}

static void run_file(const char *path)
{
	FILE *f = fopen(path, "rb");
	uint8_t *data = malloc(INPUT_BYTES_MAX);
	size_t size;

	if (!f || !data)
		die(path);
	size = fread(data, 1, INPUT_BYTES_MAX, f);
	fclose(f);
	/* Exactly as large as it is, so that a sanitizer sees the first byte too many. */
	data = realloc(data, size ? size : 1);
	printf("%s: %zu bytes\n", path, size);
	fflush(stdout); /* the last line before a crash names the file */
	LLVMFuzzerTestOneInput(data, size);
	if (input_count < INPUTS_MAX)
		inputs[input_count++] = (struct input){ data, size };
	else
		free(data);
}

static void run_path(const char *path)
{
	struct dirent **entries;
	struct stat st;
	int count;

	if (stat(path, &st) < 0)
		die(path);
	if (!S_ISDIR(st.st_mode)) {
		run_file(path);
		return;
	}
	count = scandir(path, &entries, NULL, alphasort);
	if (count < 0)
		die(path);
	for (int i = 0; i < count; i++) {
		char *name = NULL;

		if (entries[i]->d_name[0] != '.' && asprintf(&name, "%s/%s", path, entries[i]->d_name) > 0)
			run_path(name);
		free(name);
		free(entries[i]);
	}
	free(entries);
}

/* Changes a few bytes, with a liking for the values that lengths and flags break at; sometimes cuts the end off. */
static void mutate(const struct input *input)
{
	static const uint8_t borders[] = { 0x00, 0x01, 0x7f, 0x80, 0xff };
	size_t size = input->size;
	uint8_t *data;

	if (size && random() % 4 == 0)
		size = (size_t)random() % size;
	data = malloc(size ? size : 1);
	if (!data)
		die("mutate");
	memcpy(data, input->data, size);
	for (long n = random() % 8; size && n >= 0; n--) {
		uint8_t *at = data + (size_t)random() % size;

		if (random() % 2)
			*at = borders[(size_t)random() % sizeof(borders)];
		else
			*at = (uint8_t)(*at ^ 1u << (random() % 8));
	}
	LLVMFuzzerTestOneInput(data, size);
	free(data);
}

int main(int argc, char **argv)
{
	const char *seed_text = getenv("SEED");
	unsigned seed = seed_text ? (unsigned)atoi(seed_text) : (unsigned)time(NULL);
	long runs = 0;
	int first = 1;

	if (argc > 2 && strcmp(argv[1], "-r") == 0) {
		runs = atol(argv[2]);
		first = 3;
	}
	for (int i = first; i < argc; i++)
		run_path(argv[i]);
	if (input_count == 0)
		LLVMFuzzerTestOneInput((const uint8_t *)"", 0);
	if (input_count && runs) {
		printf("%ld runs, SEED=%u\n", runs, seed);
		fflush(stdout);
		srandom(seed);
		while (runs-- > 0)
			mutate(&inputs[(size_t)random() % input_count]);
	}
	while (input_count)
		free(inputs[--input_count].data);
	return 0;
}
