/* How much connections that have not shown what they are make us hold, in the worst case. */
#include "tests/support/check_main.h"
#include "tests/support/held.h"

#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/clock.h"
#include "config.h"
#include "engine/channel/tls/tls.h"
#include "engine/inm.h"
#include "tests/support/said.h"
#include "tests/support/several.h"
#include "tests/support/tls_peer.h"

#define STRANGERS (CONNECTIONS_UNKNOWN_MAX + 16u)

/* Their sockets' own buffers are the kernel's and are not counted: net.ipv4.tcp_rmem bounds them. */
static int strangers[STRANGERS];

/* Return: the bytes that went; less where it is full, or closed. */
static size_t offer(int fd, const void *buf, size_t bytes)
{
	ssize_t n = send(fd, buf, bytes, MSG_DONTWAIT | MSG_NOSIGNAL);

	return n < 0 ? 0 : (size_t)n;
}

static void meet(struct several *s)
{
	for (unsigned i = 0; i < STRANGERS; i++)
		strangers[i] = source_connect(s->address, 0);
	for (unsigned i = 0; i < 50; i++)
		several_run(s, 1);
}

static void part(void)
{
	for (unsigned i = 0; i < STRANGERS; i++)
		close(strangers[i]);
}

TEST_CASE("strangers", 120);

TEST(test_silent_strangers_hold_little)
{
	struct held held;
	struct several s;

	test_need_files(2 * STRANGERS + 32);
	several_begin(&s, &(struct multifd_opts){ .channels = 1 }, &(struct several_opts){ .tcp = true });
	held_begin(&held);
	meet(&s);
	for (unsigned i = 0; i < STRANGERS; i++)
		offer(strangers[i], "QEV", 3);
	for (unsigned i = 0; i < 50; i++)
		several_run(&s, 1);
	held_within(&held, (CONNECTIONS_UNKNOWN_MAX + 1) * UNKNOWN_CHAN_BYTES_MAX, "connections that are silent");
	part();
	several_end(&s);
}

/* Each says that it is multifd channel 0, and waits: more than may do so. */
TEST(test_connections_that_claim_to_be_a_channel_hold_little)
{
	const struct multifd_opts m = { .channels = 1, .method = WIRE_MULTIFD_ZSTD };
	struct wire hello = { 0 };
	struct held held;
	struct several s;

	test_need_files(2 * STRANGERS + 32);
	wire_multifd_hello(&hello, NULL, 0);
	several_begin(&s, &m, &(struct several_opts){ .tcp = true, SAID });
	held_begin(&held);
	for (unsigned i = 0; i < STRANGERS; i++) {
		strangers[i] = source_connect(s.address, 0);
		ck_assert_uint_eq(offer(strangers[i], hello.data, hello.len), hello.len);
		several_run(&s, 1);
	}
	ck_assert_msg(strstr(said, "connections claim to be one"), "%s", said);
	held_within(&held, (CONNECTIONS_UNKNOWN_MAX + 64 + 2 + 1) * UNKNOWN_CHAN_BYTES_MAX,
	            "connections that claim to be a multifd channel");
	part();
	wire_fini(&hello);
	several_end(&s);
}

#if HAVE_GNUTLS

/* The beginning of a message of 16 MiB, in records as large as there are: kept while it comes. */
static void send_hellos(struct several *s, unsigned rounds)
{
	static uint8_t record[5 + 16384] = { 22, 3, 1, 0x40, 0 };
	size_t sent = 0;

	for (unsigned r = 0; r < rounds; r++) {
		memset(record + 5, 'y', 16384);
		if (r == 0)
			memcpy(record + 5, (uint8_t[]){ 1, 0xff, 0xff, 0xff }, 4);
		for (unsigned i = 0; i < STRANGERS; i++)
			sent += offer(strangers[i], record, sizeof(record));
		for (unsigned i = 0; i < 10; i++)
			several_run(s, 1);
	}
	printf("%zu bytes sent on %u connections\n", sent, STRANGERS);
}

TEST_EACH(test_strangers_inside_tls_hold_no_more_than_a_connection_may, 2)
{
	/* One round less than the limit, so that all stay; and without an end, so that none does. */
	unsigned rounds = _i ? 200 : 7;
	struct held held;
	struct several s;
	char dir[64];
	const char *const params[] = { "tls-creds", "t", "tls-creds-dir", dir, "tls-creds-type", "x509", NULL };

	test_need_files(2 * STRANGERS + 32);
	tls_dir_make(dir, NULL);
	several_begin(&s, &(struct multifd_opts){ .channels = 1 },
	              &(struct several_opts){ .tcp = true, .params = params, SAID });
	held_begin(&held);
	meet(&s);
	send_hellos(&s, rounds);
	ck_assert_int_eq(!!strstr(said, "bytes or 512 records of handshake"), _i);
	held_within(&held, (CONNECTIONS_UNKNOWN_MAX + 1) * TLS_CHAN_BYTES_MAX,
	            _i ? "hellos without end" : "hellos below the limit");
	part();
	several_end(&s);
	tls_dir_remove(dir);
}

#endif
