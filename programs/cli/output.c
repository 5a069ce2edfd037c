#include "programs/cli/output.h"

#include "base/clock.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* Standard output holds the summary of a guest of 4096 blocks. */
#define OUT_BYTES_MAX (4u << 20)
#define ERR_BYTES_MAX (256u << 10)

/* A pipe that poll(2) calls writable takes so much without waiting. */
#define PIECE_BYTES 4096u

#define WRITER_STACK_BYTES (64u << 10)

struct output {
	const char *name;
	int fd;
	size_t bytes_max;
	FILE *file;           /* NULL: not started */
	pthread_mutex_t lock; /* of what follows */
	pthread_cond_t more, less;
	char *ring; /* owned, bytes_max; NULL: text goes straight out */
	size_t head, count;
	size_t dropped; /* lines that nobody has been told of */
	uint64_t taken; /* bytes that have left the ring */
	int error;      /* the first one of a write */
	bool gone;      /* it will never take anything again */
	pthread_t thread;
	bool threaded;
	bool stop; /* the thread ends when all is written */
};

static struct output out = { .name = "standard output", .fd = STDOUT_FILENO, .bytes_max = OUT_BYTES_MAX };
static struct output err = { .name = "standard error", .fd = STDERR_FILENO, .bytes_max = ERR_BYTES_MAX };

FILE *output_out(void)
{
	return out.file ? out.file : stdout;
}

FILE *output_err(void)
{
	return err.file ? err.file : stderr;
}

/* Return: bytes written; negative errno, -EAGAIN where it would wait and may not. */
static ssize_t write_piece(int fd, const char *text, size_t bytes, int patience_ms)
{
	struct pollfd p = { .fd = fd, .events = POLLOUT };
	ssize_t n;

	if (bytes > PIECE_BYTES)
		bytes = PIECE_BYTES;
	do {
		if (poll(&p, 1, patience_ms) == 0)
			return -EAGAIN;
		n = write(fd, text, bytes);
	} while (n < 0 && (errno == EINTR || (errno == EAGAIN && patience_ms != 0)));
	return n < 0 ? -errno : n;
}

/* A full disk may have room again; a pipe without a reader, a terminal that has gone, a closed descriptor will not. */
static bool is_final(int error)
{
	return error == EPIPE || error == EIO || error == EBADF || error == ECONNRESET || error == EINVAL;
}

/* The lock is held. */
static void note_error(struct output *o, int error)
{
	if (!o->error)
		o->error = error;
	o->gone |= is_final(error);
}

static void *write_out(void *arg)
{
	struct output *o = arg;
	char piece[PIECE_BYTES];
	size_t bytes, first;
	ssize_t n;

	pthread_mutex_lock(&o->lock);
	for (;;) {
		while (o->count == 0 && !o->stop)
			pthread_cond_wait(&o->more, &o->lock);
		if (o->count == 0)
			break;
		bytes = o->count < PIECE_BYTES ? o->count : PIECE_BYTES;
		first = o->bytes_max - o->head < bytes ? o->bytes_max - o->head : bytes;
		memcpy(piece, o->ring + o->head, first);
		memcpy(piece + first, o->ring, bytes - first);
		pthread_mutex_unlock(&o->lock);
		/* No deadline: this is the wait that nobody else has to do. */
		n = write_piece(o->fd, piece, bytes, -1);
		pthread_mutex_lock(&o->lock);
		if (n < 0) {
			note_error(o, (int)-n);
			n = (ssize_t)(o->gone ? o->count : bytes);
		}
		o->head = (o->head + (size_t)n) % o->bytes_max;
		o->count -= (size_t)n;
		o->taken += (uint64_t)n;
		pthread_cond_broadcast(&o->less);
	}
	pthread_mutex_unlock(&o->lock);
	return NULL;
}

static void put(struct output *o, const char *text, size_t bytes)
{
	size_t at = (o->head + o->count) % o->bytes_max, first = o->bytes_max - at < bytes ? o->bytes_max - at : bytes;

	memcpy(o->ring + at, text, first);
	memcpy(o->ring, text + first, bytes - first);
	o->count += bytes;
}

static size_t lines_of(const char *text, size_t bytes)
{
	size_t lines = 0;

	for (size_t i = 0; i < bytes; i++)
		lines += text[i] == '\n';
	return lines;
}

/* The lock is held. */
static void keep(struct output *o, const char *text, size_t bytes)
{
	char told[96];
	int n = 0;

	if (o->gone)
		return;
	if (o->dropped)
		n = snprintf(told, sizeof(told), "inmigrate: %zu lines were dropped here: nobody read %s\n", o->dropped,
		             o->name);
	if (bytes + (size_t)n > o->bytes_max - o->count) {
		o->dropped += lines_of(text, bytes);
		return;
	}
	put(o, told, (size_t)n);
	o->dropped = 0;
	put(o, text, bytes);
	pthread_cond_signal(&o->more);
}

/* Without a thread. */
static void write_now(struct output *o, const char *text, size_t bytes)
{
	ssize_t n;

	for (size_t done = 0; done < bytes && !o->gone; done += (size_t)n) {
		n = write_piece(o->fd, text + done, bytes - done, 0);
		if (n < 0) {
			note_error(o, (int)-n);
			return;
		}
	}
}

/* What stdio hands over is taken in any case: an error would stay with the stream, and its text with its buffer. */
static ssize_t take(void *cookie, const char *text, size_t bytes)
{
	struct output *o = cookie;

	pthread_mutex_lock(&o->lock);
	if (o->threaded)
		keep(o, text, bytes);
	else
		write_now(o, text, bytes);
	pthread_mutex_unlock(&o->lock);
	return (ssize_t)bytes;
}

static bool start_thread(struct output *o)
{
	pthread_attr_t attr;
	sigset_t all, before;
	int r;

	o->ring = malloc(o->bytes_max);
	if (!o->ring || pthread_attr_init(&attr))
		return false;
	pthread_attr_setstacksize(&attr, WRITER_STACK_BYTES);
	/* Signals are the migration's. */
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &before);
	r = pthread_create(&o->thread, &attr, write_out, o);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	pthread_attr_destroy(&attr);
	return r == 0;
}

static void start(struct output *o, int buffering)
{
	cookie_io_functions_t io = { .write = take };
	pthread_condattr_t attr;
	FILE *file = fopencookie(o, "w", io);

	if (!file)
		return;
	setvbuf(file, NULL, buffering, BUFSIZ);
	pthread_mutex_init(&o->lock, NULL);
	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(&o->more, NULL);
	pthread_cond_init(&o->less, &attr);
	pthread_condattr_destroy(&attr);
	o->threaded = start_thread(o);
	o->file = file;
}

void output_start(void)
{
	fflush(stdout);
	start(&out, _IOFBF);
	start(&err, _IOLBF);
}

/* One that still waits for its reader is left to the end of the process. */
static void end_thread(struct output *o, bool written)
{
	if (!o->threaded)
		return;
	if (!written) {
		pthread_detach(o->thread);
		return;
	}
	pthread_join(o->thread, NULL);
	o->threaded = false;
	free(o->ring);
	o->ring = NULL;
}

/* Return: the error it ended with, -ETIMEDOUT when nobody reads, 0. */
static int drain(struct output *o)
{
	uint64_t taken, end_ns;
	struct timespec ts;
	bool written;
	int r = 0;

	if (!o->file)
		return 0;
	fflush(o->file);
	pthread_mutex_lock(&o->lock);
	while (o->threaded && o->count > 0 && r == 0) {
		taken = o->taken;
		end_ns = deadline_after_ns(OUTPUT_PATIENCE_NS);
		ts = (struct timespec){ .tv_sec = (time_t)(end_ns / NS_PER_S), .tv_nsec = (long)(end_ns % NS_PER_S) };
		while (o->taken == taken && r == 0)
			r = pthread_cond_timedwait(&o->less, &o->lock, &ts);
	}
	r = o->error ? -o->error : -r;
	written = o->count == 0;
	o->stop = true;
	pthread_cond_signal(&o->more);
	pthread_mutex_unlock(&o->lock);
	end_thread(o, written);
	return r;
}

void output_end(void)
{
	int r = drain(&out);

	if (r < 0 && r != -EPIPE)
		fprintf(output_err(), "inmigrate: %s: %s\n", out.name,
		        r == -ETIMEDOUT ? "nobody reads it" : strerror(-r));
	drain(&err);
}

void output_from_signal(const char *text, size_t bytes)
{
	int saved_errno = errno;

	(void)!write_piece(STDERR_FILENO, text, bytes, 0);
	errno = saved_errno;
}
