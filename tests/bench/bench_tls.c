/*
 * bench_tls - decryption on one core: GnuTLS's own loop, and the TLS channel over a socket
 *
 *   bench_tls [MEGABYTES [RUNS]]
 *
 * "gnutls" decrypts records of 16 KiB from memory into memory: the library's maximum. "plain" does the same reads
 * through a channel without TLS: the socket's share. "tls" is the TLS channel. The sender is a process of its own,
 * which encrypts, so the slower of the two sets the rate; the CPU time is only the receiver's. Medians.
 */
#include "config.h"

#include <stdio.h>

#if !HAVE_GNUTLS

int main(void)
{
	puts("skipped: configured without GnuTLS");
	return 77;
}

#else

#include "base/assert.h"
#include "base/clock.h"
#include "base/err.h"
#include "coroutine/group.h"
#include "coroutine/reactor.h"
#include "engine/channel/channel.h"
#include "engine/channel/socket.h"
#include "engine/channel/tls/tls.h"
#include "engine/channel/tls/tls_creds.h"
#include "tests/support/tls_peer.h"

#include <errno.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define RUNS_MAX 99
#define READ_BYTES (512u << 10)
#define MEMORY_BYTES (64u << 20) /* where the data goes: larger than the caches that matter, touched before */
#define RECORD_BYTES 16384

static size_t total_bytes = 1024u << 20;
static unsigned runs = 5;
static uint8_t *memory;

struct result {
	double seconds, cpu_seconds;
};

static double cpu_seconds(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &ts);
	return (double)ts.tv_sec + (double)ts.tv_nsec * 1e-9;
}

static int compare(const void *a, const void *b)
{
	const double *x = a, *y = b;

	return (*x > *y) - (*x < *y);
}

static double median(double *values)
{
	qsort(values, runs, sizeof(*values), compare);
	return values[runs / 2];
}

static void print(const char *what, const char *cipher, const struct result *results)
{
	double rates[RUNS_MAX], costs[RUNS_MAX];
	double gb = (double)total_bytes / 1e9;

	for (unsigned i = 0; i < runs; i++) {
		rates[i] = gb / results[i].seconds;
		costs[i] = results[i].cpu_seconds / gb;
	}
	printf("%-12s %-18s %6.2f GB/s %8.3f CPU-s/GB\n", what, cipher, median(rates), median(costs));
	fflush(stdout);
}

/* ---- GnuTLS alone ----------------------------------------------------------------------------------------------- */

struct end {
	gnutls_session_t session;
	uint8_t *buf;
	size_t start, end, cap;
	struct end *other;
};

static ssize_t end_pull(gnutls_transport_ptr_t ptr, void *buf, size_t bytes)
{
	struct end *e = ptr;
	size_t n = e->end - e->start;

	if (n == 0) {
		gnutls_transport_set_errno(e->session, EAGAIN);
		return -1;
	}
	n = n < bytes ? n : bytes;
	memcpy(buf, e->buf + e->start, n);
	e->start += n;
	return (ssize_t)n;
}

static ssize_t end_push(gnutls_transport_ptr_t ptr, const void *buf, size_t bytes)
{
	struct end *to = ((struct end *)ptr)->other;

	ASSERT(bytes <= to->cap - to->end);
	memcpy(to->buf + to->end, buf, bytes);
	to->end += bytes;
	return (ssize_t)bytes;
}

static void end_init(struct end *e, struct end *other, unsigned flags, const char *priority, size_t cap)
{
	memset(e, 0, sizeof(*e));
	e->other = other;
	e->cap = cap;
	e->buf = malloc(cap);
	ASSERT(e->buf);
	ASSERT(gnutls_init(&e->session, flags) == 0);
	ASSERT(gnutls_priority_set_direct(e->session, priority, NULL) == 0);
	gnutls_transport_set_ptr(e->session, e);
	gnutls_transport_set_pull_function(e->session, end_pull);
	gnutls_transport_set_push_function(e->session, end_push);
}

static void end_fini(struct end *e)
{
	gnutls_deinit(e->session);
	free(e->buf);
}

static void pump(struct end *client, struct end *server)
{
	int c = GNUTLS_E_AGAIN, s = GNUTLS_E_AGAIN;

	for (int i = 0; i < 20 && (c < 0 || s < 0); i++) {
		c = c < 0 ? gnutls_handshake(client->session) : c;
		s = s < 0 ? gnutls_handshake(server->session) : s;
	}
	ASSERT(c == 0 && s == 0);
}

/* A batch that stays in the second level of caches, as in the channel; encryption is not measured. */
#define BATCH_RECORDS 16

static void decrypt_batches(struct end *client, struct end *server, struct result *ret)
{
	static uint8_t plain[RECORD_BYTES];
	size_t got = 0;

	*ret = (struct result){ 0, 0 };
	while (got < total_bytes) {
		double begun;

		server->start = server->end = 0;
		for (int i = 0; i < BATCH_RECORDS; i++)
			ASSERT(gnutls_record_send(client->session, plain, RECORD_BYTES) == RECORD_BYTES);
		begun = cpu_seconds();
		for (int i = 0; i < BATCH_RECORDS; i++, got += RECORD_BYTES)
			ASSERT(gnutls_record_recv(server->session, memory + got % MEMORY_BYTES, RECORD_BYTES) ==
			       RECORD_BYTES);
		ret->cpu_seconds += cpu_seconds() - begun;
	}
	ret->seconds = ret->cpu_seconds;
}

static void bench_gnutls(const char *cipher)
{
	struct result results[RUNS_MAX];
	gnutls_certificate_credentials_t client_cred;
	struct tls_options o = { .type = TLS_CREDS_X509 };
	char dir[64], priority[128];
	struct tls_creds *creds;
	struct tls_seen seen;
	struct end client, server;
	struct err err;

	tls_dir_make(dir, NULL);
	snprintf(priority, sizeof(priority), "NORMAL:-CIPHER-ALL:+%s", cipher);
	o.dir = dir;
	o.priority = priority;
	ASSERT(tls_creds_load(&creds, &o, &err) == 0);
	end_init(&server, &client, GNUTLS_SERVER | GNUTLS_NO_TICKETS, priority, 1 << 20);
	end_init(&client, &server, GNUTLS_CLIENT, priority, 1 << 20);
	ASSERT(tls_creds_attach(creds, server.session, &seen, &err) == 0);
	ASSERT(gnutls_certificate_allocate_credentials(&client_cred) == 0);
	ASSERT(gnutls_credentials_set(client.session, GNUTLS_CRD_CERTIFICATE, client_cred) == 0);
	pump(&client, &server);
	for (unsigned i = 0; i < runs; i++)
		decrypt_batches(&client, &server, &results[i]);
	print("gnutls", cipher, results);
	end_fini(&client);
	end_fini(&server);
	gnutls_certificate_free_credentials(client_cred);
	tls_creds_free(creds);
	tls_dir_remove(dir);
}

/* ---- the channel ------------------------------------------------------------------------------------------------ */

static void act_send(struct tls_peer *peer)
{
	static uint8_t plain[RECORD_BYTES];
	size_t left = *(const size_t *)peer->plan->arg;

	for (; left > 0; left -= RECORD_BYTES) {
		if (peer->session)
			tls_peer_send(peer, plain, RECORD_BYTES);
		else
			tls_peer_send_raw(peer, plain, RECORD_BYTES);
	}
}

struct receiver {
	struct chan *plain;
	const struct tls_creds *creds; /* NULL: no TLS */
	struct tls_options *o;
	struct result result;
};

static int receive(void *arg)
{
	struct receiver *rc = arg;
	struct chan *ch = rc->plain;
	struct err err = ERR_NONE;
	double cpu;
	uint64_t begun_ns;
	size_t got = 0;

	if (rc->creds && tls_chan_wrap(&ch, rc->plain, rc->creds, rc->o, deadline_after_ns(10 * NS_PER_S), &err) < 0) {
		fprintf(stderr, "bench_tls: %s\n", err.text);
		exit(1);
	}
	cpu = cpu_seconds();
	begun_ns = clock_now_ns();
	while (got < total_bytes) {
		size_t off = got % (MEMORY_BYTES - READ_BYTES);
		struct iovec iov = { memory + off, READ_BYTES };
		ssize_t n = chan_readv(ch, &iov, 1, deadline_after_ns(60 * NS_PER_S), &err);

		ASSERT(n > 0);
		got += (size_t)n;
	}
	rc->result.cpu_seconds = cpu_seconds() - cpu;
	rc->result.seconds = (double)(clock_now_ns() - begun_ns) / 1e9;
	chan_close(ch);
	return 0;
}

static void make_pair(bool tcp, int sv[2])
{
	struct sockaddr_in sa = { .sin_family = AF_INET, .sin_addr = { htonl(INADDR_LOOPBACK) } };
	socklen_t sa_bytes = sizeof(sa);
	int listener;

	if (!tcp) {
		ASSERT(socketpair(AF_UNIX, SOCK_STREAM, 0, sv) == 0);
		return;
	}
	listener = socket(AF_INET, SOCK_STREAM, 0);
	ASSERT(bind(listener, (struct sockaddr *)&sa, sizeof(sa)) == 0 && listen(listener, 1) == 0);
	ASSERT(getsockname(listener, (struct sockaddr *)&sa, &sa_bytes) == 0);
	sv[1] = socket(AF_INET, SOCK_STREAM, 0);
	ASSERT(connect(sv[1], (struct sockaddr *)&sa, sizeof(sa)) == 0);
	sv[0] = accept(listener, NULL, NULL);
	ASSERT(sv[0] >= 0);
	close(listener);
}

static struct result receive_once(struct reactor *r, bool tcp, const struct tls_peer_plan *plan,
                                  const struct tls_creds *creds, struct tls_options *o)
{
	struct receiver rc = { .creds = creds, .o = o };
	struct tls_peer peer;
	struct group g;
	int sv[2];

	make_pair(tcp, sv);
	tls_peer_start(&peer, plan, sv[1]);
	ASSERT(socket_chan_new(&rc.plain, r, sv[0], "bench") == 0);
	group_init(&g, &r->sched, "bench");
	ASSERT(group_spawn(&g, "receiver", receive, &rc) == 0);
	ASSERT(reactor_run(r, &g, DEADLINE_NEVER) == 0); /* the reads have deadlines */
	tls_peer_wait(&peer, NULL);
	return rc.result;
}

/* @cipher NULL: without TLS */
static void bench_channel(struct reactor *r, bool tcp, const char *cipher)
{
	struct tls_peer_plan plan = {
		.kind = cipher ? TLS_PEER_X509 : TLS_PEER_RAW, .cert_name = "", .act = act_send, .arg = &total_bytes
	};
	struct tls_options o = { .type = TLS_CREDS_X509 }; /* with PSK, TLS 1.3 has no AES-256 */
	struct result results[RUNS_MAX];
	struct tls_creds *creds = NULL;
	char dir[64], priority[128];
	struct err err;

	tls_dir_make(dir, NULL);
	if (cipher) {
		snprintf(priority, sizeof(priority), "NORMAL:-CIPHER-ALL:+%s", cipher);
		o.dir = dir;
		o.priority = priority;
		ASSERT(tls_creds_load(&creds, &o, &err) == 0);
	}
	for (unsigned i = 0; i < runs; i++)
		results[i] = receive_once(r, tcp, &plan, creds, &o);
	print(cipher ? (tcp ? "tls tcp" : "tls unix") : (tcp ? "plain tcp" : "plain unix"), cipher ? cipher : "-",
	      results);
	tls_creds_free(creds);
	tls_dir_remove(dir);
}

int main(int argc, char **argv)
{
	static const char *const ciphers[] = { "AES-128-GCM", "AES-256-GCM", "CHACHA20-POLY1305" };
	struct reactor *r;

	if (argc > 1)
		total_bytes = (size_t)strtoul(argv[1], NULL, 10) << 20;
	if (argc > 2)
		runs = (unsigned)strtoul(argv[2], NULL, 10);
	if (argc > 3 || total_bytes == 0 || runs == 0 || runs > RUNS_MAX) {
		fprintf(stderr, "usage: bench_tls [MEGABYTES [RUNS]]\n");
		return 2;
	}
	memory = malloc(MEMORY_BYTES);
	ASSERT(memory);
	memset(memory, 1, MEMORY_BYTES);
	if (reactor_new(&r, &ring_uring, 0) < 0) {
		puts("skipped: the kernel permits no io_uring");
		return 77;
	}
	for (int i = 0; i < 3; i++)
		bench_gnutls(ciphers[i]);
	for (int tcp = 0; tcp < 2; tcp++) {
		bench_channel(r, tcp, NULL);
		for (int i = 0; i < 3; i++)
			bench_channel(r, tcp, ciphers[i]);
	}
	reactor_free(r);
	free(memory);
	return 0;
}

#endif
