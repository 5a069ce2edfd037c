/* A migration URI as a value: engine/channel/address.h. */
#include "engine/channel/address.h"

#include <arpa/inet.h>
#include <errno.h>
#include <linux/vm_sockets.h>
#include <netinet/in.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/err.h"
#include "tests/support/check_main.h"

#define ARRAY_COUNT(a) (sizeof(a) / sizeof((a)[0]))

/* ---- parsing -------------------------------------------------------------------------------------------------- */

static struct address must_parse(const char *uri)
{
	struct address addr;
	struct err err = ERR_NONE;

	ck_assert_msg(address_parse(&addr, uri, &err) == 0, "'%s': %s", uri, err.text);
	return addr;
}

TEST_CASE("uri", 4);

TEST(test_address_tcp_host_and_port)
{
	static const struct {
		const char *uri, *host, *service;
		uint16_t first, last;
	} rows[] = {
		{ "tcp:127.0.0.1:4444", "127.0.0.1", NULL, 4444, 4444 },
		{ "tcp:0:4444", "0", NULL, 4444, 4444 },
		{ "tcp::0", "", NULL, 0, 0 },
		{ "tcp:[::]:49152", "::", NULL, 49152, 49152 },
		{ "tcp:[fe80::1%lo]:1", "fe80::1%lo", NULL, 1, 1 },
		{ "tcp:host.example:65535", "host.example", NULL, 65535, 65535 },
		{ "tcp:localhost:http-alt", "localhost", "http-alt", 0, 0 },
		{ "tcp:localhost:http-alt,to=9000", "localhost", "http-alt", 0, 9000 },
		{ "tcp:h:100,to=200", "h", NULL, 100, 200 },
		{ "tcp:h:100,to=100", "h", NULL, 100, 100 },
		{ "tcp:h:0,to=200", "h", NULL, 0, 0 },
		{ "tcp:h:1,", "h", NULL, 1, 1 },
	};

	for (size_t i = 0; i < ARRAY_COUNT(rows); i++) {
		struct address addr = must_parse(rows[i].uri);

		ck_assert_int_eq(addr.kind, ADDRESS_TCP);
		ck_assert_str_eq(addr.host, rows[i].host);
		ck_assert_pstr_eq(addr.service, rows[i].service);
		ck_assert_msg(addr.port_first == rows[i].first && addr.port_last == rows[i].last, "'%s': %u..%u",
		              rows[i].uri, addr.port_first, addr.port_last);
		ck_assert(address_is_listening(&addr));
		address_fini(&addr);
	}
}

TEST(test_address_tcp_options)
{
	struct address addr = must_parse("tcp:h:1,ipv4=off,ipv6,numeric,mptcp=on,keep-alive=off,keep-alive-count=3,"
	                                 "keep-alive-idle=30,keep-alive-interval=7");

	ck_assert_int_eq(addr.ipv4, ADDRESS_OFF);
	ck_assert_int_eq(addr.ipv6, ADDRESS_ON);
	ck_assert(addr.numeric);
	ck_assert(addr.mptcp);
	ck_assert_int_eq(addr.keepalive.on, ADDRESS_OFF);
	ck_assert_uint_eq(addr.keepalive.count, 3);
	ck_assert_uint_eq(addr.keepalive.idle_s, 30);
	ck_assert_uint_eq(addr.keepalive.interval_s, 7);
	address_fini(&addr);

	addr = must_parse("tcp:h:1,numeric=off,ipv4=on");
	ck_assert_int_eq(addr.ipv4, ADDRESS_ON);
	ck_assert_int_eq(addr.ipv6, ADDRESS_UNSET);
	ck_assert_int_eq(addr.keepalive.on, ADDRESS_UNSET);
	ck_assert(!addr.numeric);
	ck_assert(!addr.mptcp);
	ck_assert_uint_eq(addr.keepalive.count, 0);
	address_fini(&addr);
}

TEST(test_address_other_transports)
{
	struct address addr = must_parse("unix:/run/a,b:c.sock");

	ck_assert_int_eq(addr.kind, ADDRESS_UNIX);
	ck_assert_str_eq(addr.path, "/run/a,b:c.sock");
	ck_assert(address_is_listening(&addr));
	address_fini(&addr);

	addr = must_parse("vsock:4294967295:7000");
	ck_assert_int_eq(addr.kind, ADDRESS_VSOCK);
	ck_assert_uint_eq(addr.cid, VMADDR_CID_ANY);
	ck_assert_uint_eq(addr.vsock_port, 7000);
	ck_assert(address_is_listening(&addr));
	address_fini(&addr);

	addr = must_parse("fd:17");
	ck_assert_int_eq(addr.kind, ADDRESS_FD);
	ck_assert_int_eq(addr.fd, 17);
	ck_assert(!address_is_listening(&addr));
	address_fini(&addr);

	addr = must_parse("exec:gzip -dc < /a:b,offset=3");
	ck_assert_int_eq(addr.kind, ADDRESS_EXEC);
	ck_assert_str_eq(addr.path, "gzip -dc < /a:b,offset=3");
	ck_assert(!address_is_listening(&addr));
	address_fini(&addr);
}

TEST(test_address_file_offset)
{
	static const struct {
		const char *uri, *path;
		uint64_t offset;
	} rows[] = {
		{ "file:/a", "/a", 0 },
		{ "file:/a,offset=0", "/a", 0 },
		{ "file:/a,offset=0x1000", "/a", 4096 },
		{ "file:/a,offset=3k", "/a", 3072 },
		{ "file:/a,offset=2G", "/a", 2ull << 30 },
		{ "file:/a,offset=9223372036854775807", "/a", INT64_MAX },
		{ "file:/dev/fdset/3,offset=64M", "/dev/fdset/3", 64ull << 20 },
		{ "file:/a,b=c", "/a,b=c", 0 },
		{ "file:/a,offset=1,offset=2", "/a,offset=1", 2 },
		{ "file:relative", "relative", 0 },
	};

	for (size_t i = 0; i < ARRAY_COUNT(rows); i++) {
		struct address addr = must_parse(rows[i].uri);

		ck_assert_int_eq(addr.kind, ADDRESS_FILE);
		ck_assert_str_eq(addr.path, rows[i].path);
		ck_assert_msg(addr.offset == rows[i].offset, "'%s'", rows[i].uri);
		address_fini(&addr);
	}
}

/* Each is refused, leaves the output alone, and the text has the word that helps. */
TEST(test_address_refuses_and_says_why)
{
	static const struct {
		const char *uri;
		int r;
		const char *says;
	} rows[] = {
		{ "", -EINVAL, "unknown transport" },
		{ "tcp", -EINVAL, "no port" },
		{ "TCP:a:1", -EINVAL, "unknown transport 'TCP'" },
		{ "bogus:1", -EINVAL, "'bogus'" },
		{ "rdma:h:1", -ENOTSUP, "RDMA" },
		{ "defer", -ENOTSUP, "deferred" },
		{ "tcp:", -EINVAL, "tcp:HOST:PORT" },
		{ "tcp:h", -EINVAL, "tcp:HOST:PORT" },
		{ "tcp:h:", -EINVAL, "no port" },
		{ "tcp:h:,to=4", -EINVAL, "no port" },
		{ "tcp:h:65536", -EINVAL, "0..65535" }, /* QEMU listens on port 0 */
		{ "tcp:h:70000", -EINVAL, "'70000'" },
		{ "tcp:h:99999999999999999999999999999999999999999", -EINVAL, "0..65535" },
		{ "tcp:::1:4444", -EINVAL, "brackets" },
		{ "tcp:[::1:4444", -EINVAL, "']'" },
		{ "tcp:[::1]4444", -EINVAL, "tcp:[ADDRESS]:PORT" },
		{ "tcp:[::1]", -EINVAL, "tcp:[ADDRESS]:PORT" },
		{ "tcp:[]:1", -EINVAL, "not an IPv6 address" },
		{ "tcp:[127.0.0.1]:1", -EINVAL, "not an IPv6 address" },
		{ "tcp:h,ipv4:1", -EINVAL, "'h,ipv4'" },
		{ "tcp:h:1,foo", -EINVAL, "unknown option 'foo'" },
		{ "tcp:h:1,foo=1", -EINVAL, "unknown option 'foo'" },
		{ "tcp:h:1,ipv4=maybe", -EINVAL, "'ipv4' must be on or off" },
		{ "tcp:h:1,ipv4=", -EINVAL, "'ipv4' must be on or off" },
		{ "tcp:h:1,ipv4=offoffoffoff", -EINVAL, "'ipv4' must be on or off" },
		{ "tcp:h:1,ipv4=off,ipv6=off", -EINVAL, "nothing to listen on" },
		{ "tcp:h:1,numeric=2", -EINVAL, "'numeric'" },
		{ "tcp:h:200,to=100", -EINVAL, "below port 200" },
		{ "tcp:h:200,to=65536", -EINVAL, "0..65535" },
		{ "tcp:h:200,to", -EINVAL, "0..65535" },
		{ "tcp:h:200,to=0x1000", -EINVAL, "0..65535" },
		{ "tcp:h:1,keep-alive-count=0", -EINVAL, "1..127" },
		{ "tcp:h:1,keep-alive-count=128", -EINVAL, "1..127" },
		{ "tcp:h:1,keep-alive-idle=32768", -EINVAL, "1..32767" },
		{ "tcp:h:1,keep-alive-interval", -EINVAL, "1..32767" },
		{ "unix:", -EINVAL, "unix:PATH" },
		{ "vsock:", -EINVAL, "vsock:CID:PORT" },
		{ "vsock:3", -EINVAL, "vsock:CID:PORT" },
		{ "vsock:x:1", -EINVAL, "CID 'x'" },
		{ "vsock:0x3:1", -EINVAL, "CID '0x3'" },
		{ "vsock:4294967296:1", -EINVAL, "CID" },
		{ "vsock:3:", -EINVAL, "port ''" },
		{ "vsock:3:4294967296", -EINVAL, "port" },
		{ "vsock:3:1,a=b", -EINVAL, "'1,a=b'" },
		{ "fd:", -EINVAL, "number" },
		{ "fd:mig0", -EINVAL, "getfd" },
		{ "fd:-1", -EINVAL, "number" },
		{ "fd:2147483648", -EINVAL, "0..2147483647" },
		{ "exec:", -EINVAL, "exec:COMMAND" },
		{ "file:", -EINVAL, "file:PATH" },
		{ "file:,offset=3", -EINVAL, "file:PATH" },
		{ "file:/a,offset=", -EINVAL, "offset ''" },
		{ "file:/a,offset=-1", -EINVAL, "offset '-1'" },
		{ "file:/a,offset=1.5K", -EINVAL, "offset '1.5K'" },
		{ "file:/a,offset=8E", -EINVAL, "offset '8E'" },
		{ "file:/a,offset=16E", -EINVAL, "offset '16E'" },
		{ "file:/a,offset=9223372036854775808", -EINVAL, "below 8 EiB" },
	};

	for (size_t i = 0; i < ARRAY_COUNT(rows); i++) {
		struct address addr = { .cid = 4711 };
		struct err err = ERR_NONE;
		char *exact = strdup(rows[i].uri);
		int r = address_parse(&addr, exact, &err);

		free(exact);
		ck_assert_msg(r == rows[i].r, "'%s': %d, %s", rows[i].uri, r, err.text);
		ck_assert_msg(strstr(err.text, rows[i].says) != NULL, "'%s': %s", rows[i].uri, err.text);
		ck_assert_int_eq(err.code, r);
		ck_assert_uint_eq(addr.cid, 4711);
	}
}

TEST(test_address_unix_path_has_room_for_107_bytes)
{
	char uri[5 + 108 + 1] = "unix:";
	struct address addr;
	struct err err = ERR_NONE;

	memset(uri + 5, 'p', 107);
	ck_assert_int_eq(address_parse(&addr, uri, &err), 0);
	address_fini(&addr);
	uri[5 + 107] = 'p';
	ck_assert_int_eq(address_parse(&addr, uri, &err), -ENAMETOOLONG);
	ck_assert_ptr_nonnull(strstr(err.text, "at most 107"));
}

TEST(test_address_error_text_is_printable)
{
	struct address addr;
	struct err err = ERR_NONE;

	ck_assert_int_eq(address_parse(&addr, "tcp:h:\033[2J\n", &err), 0); /* a service, however odd */
	address_fini(&addr);
	ck_assert_int_eq(address_parse(&addr, "\033[2J\n:x", &err), -EINVAL);
	for (const char *p = err.text; *p; p++)
		ck_assert_msg(*p >= 0x20 && *p <= 0x7e, "%s", err.text);
}

/* ---- resolving ------------------------------------------------------------------------------------------------ */

static int resolve(const char *uri, struct address_endpoint *ret, int max, struct err *err)
{
	struct address addr = must_parse(uri);
	int r = address_resolve(&addr, ret, max, err);

	address_fini(&addr);
	return r;
}

TEST_CASE("resolve", 4);

TEST(test_address_resolves_numbers)
{
	static const struct {
		const char *uri, *text;
		bool v6only;
	} rows[] = {
		{ "tcp:127.0.0.1:4444", "tcp:127.0.0.1:4444", true },
		{ "tcp:0:4444", "tcp:0.0.0.0:4444", true },
		{ "tcp:0.0.0.0:0", "tcp:0.0.0.0:0", true },
		{ "tcp:[::1]:4444", "tcp:[::1]:4444", true },
		{ "tcp:[::]:4444", "tcp:[::]:4444", false }, /* dual, as QEMU's */
		{ "tcp:[::]:4444,ipv4=off", "tcp:[::]:4444", true },
		{ "tcp:[::]:4444,ipv4=on,ipv6=on", "tcp:[::]:4444", false },
		{ "tcp::4444,ipv6=off", "tcp:0.0.0.0:4444", true },
		{ "tcp::4444,ipv4", "tcp:0.0.0.0:4444", true },
		{ "tcp::4444,ipv4=off", "tcp:[::]:4444", true },
		{ "tcp:127.0.0.1:5,numeric", "tcp:127.0.0.1:5", true },
		{ "unix:/run/m", "unix:/run/m", false },
		{ "vsock:3:7000", "vsock:3:7000", false },
	};

	for (size_t i = 0; i < ARRAY_COUNT(rows); i++) {
		struct address_endpoint e[4];
		char buf[ADDRESS_TEXT_BYTES];
		struct err err = ERR_NONE;
		int n = resolve(rows[i].uri, e, 4, &err);

		ck_assert_msg(n == 1, "'%s': %d, %s", rows[i].uri, n, err.text);
		ck_assert_str_eq(address_format(buf, (struct sockaddr *)&e[0].sa, e[0].sa_bytes), rows[i].text);
		ck_assert_int_eq(e[0].protocol, 0);
		if (e[0].sa.ss_family == AF_INET6)
			ck_assert_msg(e[0].v6only == rows[i].v6only, "'%s'", rows[i].uri);
	}
}

TEST(test_address_empty_host_is_two_sockets_ipv6_first)
{
	struct address_endpoint e[4];
	struct err err = ERR_NONE;

	ck_assert_int_eq(resolve("tcp::4444,mptcp", e, 4, &err), 2);
	ck_assert_int_eq(e[0].sa.ss_family, AF_INET6);
	ck_assert_int_eq(e[1].sa.ss_family, AF_INET);
	ck_assert(e[0].v6only); /* or the second would find its port taken */
	ck_assert_uint_eq(address_get_port((struct sockaddr *)&e[0].sa), 4444);
	ck_assert_uint_eq(address_get_port((struct sockaddr *)&e[1].sa), 4444);
	ck_assert_int_eq(e[0].protocol, IPPROTO_MPTCP);
	ck_assert_int_eq(resolve("tcp::4444", e, 1, &err), 1);
}

/* Binds as a listener has to. Return: the socket, which a test's process takes with it, or a negative errno. */
static int bind_endpoint(const struct address_endpoint *e)
{
	int v6only = e->v6only, fd = socket(e->sa.ss_family, SOCK_STREAM | SOCK_CLOEXEC, e->protocol);

	if (fd < 0)
		return -errno;
	if (e->sa.ss_family == AF_INET6)
		ck_assert_int_eq(setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &v6only, sizeof(v6only)), 0);
	if (bind(fd, (const struct sockaddr *)&e->sa, e->sa_bytes) < 0 || listen(fd, 1) < 0) {
		int r = -errno;

		close(fd);
		return r;
	}
	return fd;
}

TEST(test_address_pair_of_an_empty_host_shares_one_port)
{
	struct address_endpoint e[2];
	struct sockaddr_storage sa;
	socklen_t sa_bytes = sizeof(sa);
	struct err err = ERR_NONE;
	char buf[ADDRESS_TEXT_BYTES];
	int fd, second = -1;

	ck_assert_int_eq(resolve("tcp::0", e, 2, &err), 2);
	fd = bind_endpoint(&e[0]);
	if (fd == -EAFNOSUPPORT || fd == -EADDRNOTAVAIL)
		test_skip("no IPv6 here");
	/* Were the first not v6only, it would have this port already. Once in a while somebody else has it. */
	for (unsigned i = 0; i < 20 && second < 0; i++) {
		if (i > 0)
			fd = bind_endpoint(&e[0]);
		ck_assert_msg(fd >= 0, "%s", err_name(fd));
		ck_assert_int_eq(getsockname(fd, (struct sockaddr *)&sa, &sa_bytes), 0);
		address_set_port(&e[1], (uint16_t)address_get_port((struct sockaddr *)&sa));
		second = bind_endpoint(&e[1]);
	}
	ck_assert_int_ge(second, 0);

	/* What is printed is an address that can be parsed again, with the real port. */
	address_format(buf, (struct sockaddr *)&sa, sa_bytes);
	ck_assert_int_eq(resolve(buf, e, 2, &err), 1);
	ck_assert_uint_eq(address_get_port((struct sockaddr *)&e[0].sa), address_get_port((struct sockaddr *)&sa));
}

TEST(test_address_double_colon_takes_ipv4_too)
{
	struct address_endpoint e[1], v4[1];
	struct sockaddr_storage sa;
	socklen_t sa_bytes = sizeof(sa);
	struct err err = ERR_NONE;
	char buf[ADDRESS_TEXT_BYTES];
	int fd, to;

	ck_assert_int_eq(resolve("tcp:[::]:0", e, 1, &err), 1);
	fd = bind_endpoint(&e[0]);
	if (fd == -EAFNOSUPPORT || fd == -EADDRNOTAVAIL)
		test_skip("no IPv6 here");
	ck_assert_int_ge(fd, 0);
	ck_assert_int_eq(getsockname(fd, (struct sockaddr *)&sa, &sa_bytes), 0);
	ck_assert_int_eq(resolve("tcp:127.0.0.1:0", v4, 1, &err), 1);
	address_set_port(&v4[0], (uint16_t)address_get_port((struct sockaddr *)&sa));
	to = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	ck_assert_int_eq(connect(to, (struct sockaddr *)&v4[0].sa, v4[0].sa_bytes), 0);
	sa_bytes = sizeof(sa);
	ck_assert_int_ge(accept4(fd, (struct sockaddr *)&sa, &sa_bytes, SOCK_CLOEXEC), 0);
	ck_assert_int_eq(strncmp(address_format(buf, (struct sockaddr *)&sa, sa_bytes), "tcp:127.0.0.1:", 14), 0);
}

TEST(test_address_resolve_errors_name_host_and_port)
{
	static const struct {
		const char *uri;
		int r;
		const char *says;
	} rows[] = {
		{ "tcp:localhost:1,numeric", -EINVAL, "'localhost'" },
		{ "tcp:[::1]:1,ipv6=off", -EINVAL, "'::1'" },
		{ "tcp:127.0.0.1:1,ipv6=on", -EINVAL, "'127.0.0.1'" },
		{ "tcp:127.0.0.1:no-such-service", -EINVAL, "'no-such-service'" },
		{ "fd:3", -EINVAL, "listen" },
		{ "exec:true", -EINVAL, "listen" },
		{ "file:/a", -EINVAL, "listen" },
	};

	for (size_t i = 0; i < ARRAY_COUNT(rows); i++) {
		struct address_endpoint e[2];
		struct err err = ERR_NONE;
		int r = resolve(rows[i].uri, e, 2, &err);

		ck_assert_msg(r == rows[i].r, "'%s': %d", rows[i].uri, r);
		ck_assert_msg(strstr(err.text, rows[i].says) != NULL, "'%s': %s", rows[i].uri, err.text);
	}
}

TEST(test_address_service_name_is_looked_up)
{
	struct address_endpoint e[2];
	struct err err = ERR_NONE;

	if (access("/etc/services", R_OK) < 0)
		test_skip("no /etc/services here");
	ck_assert_msg(resolve("tcp:127.0.0.1:http", e, 2, &err) == 1, "%s", err.text);
	ck_assert_uint_eq(address_get_port((struct sockaddr *)&e[0].sa), 80);
	ck_assert_int_eq(resolve("tcp:127.0.0.1:http,to=79", e, 2, &err), -ERANGE);
	ck_assert_ptr_nonnull(strstr(err.text, "below port 80"));
}

TEST(test_address_set_port_of_both_families)
{
	struct address_endpoint e[2];
	struct err err = ERR_NONE;

	ck_assert_int_eq(resolve("tcp::1", e, 2, &err), 2);
	for (int i = 0; i < 2; i++) {
		address_set_port(&e[i], 60000);
		ck_assert_uint_eq(address_get_port((struct sockaddr *)&e[i].sa), 60000);
	}
	ck_assert_int_eq(resolve("vsock:1:2", e, 1, &err), 1);
	address_set_port(&e[0], 60000);
	ck_assert_uint_eq(address_get_port((struct sockaddr *)&e[0].sa), 2);
}

/* ---- text ------------------------------------------------------------------------------------------------------ */

TEST(test_address_format_of_every_family)
{
	struct sockaddr_in in = { .sin_family = AF_INET, .sin_port = htons(4444) };
	struct sockaddr_in6 in6 = { .sin6_family = AF_INET6, .sin6_port = htons(1) };
	struct sockaddr_un un = { .sun_family = AF_UNIX };
	struct sockaddr odd = { .sa_family = AF_NETLINK };
	char buf[ADDRESS_TEXT_BYTES];

	inet_pton(AF_INET, "192.0.2.7", &in.sin_addr);
	ck_assert_str_eq(address_format(buf, (struct sockaddr *)&in, sizeof(in)), "tcp:192.0.2.7:4444");
	inet_pton(AF_INET6, "fe80::1", &in6.sin6_addr);
	in6.sin6_scope_id = 2;
	ck_assert_str_eq(address_format(buf, (struct sockaddr *)&in6, sizeof(in6)), "tcp:[fe80::1%2]:1");
	inet_pton(AF_INET6, "::ffff:192.0.2.7", &in6.sin6_addr);
	ck_assert_str_eq(address_format(buf, (struct sockaddr *)&in6, sizeof(in6)), "tcp:192.0.2.7:1");

	ck_assert_str_eq(address_format(buf, (struct sockaddr *)&un, offsetof(struct sockaddr_un, sun_path)), "unix:");
	memcpy(un.sun_path, "/a\n", 4);
	ck_assert_str_eq(address_format(buf, (struct sockaddr *)&un, sizeof(un)), "unix:/a\\x0a");
	memset(un.sun_path, 0xff, sizeof(un.sun_path)); /* no NUL, every byte escaped */
	address_format(buf, (struct sockaddr *)&un, sizeof(un));
	ck_assert_uint_eq(strlen(buf), 5 + 4 * sizeof(un.sun_path));
	memcpy(un.sun_path, "\0abc", 4);
	ck_assert_str_eq(address_format(buf, (struct sockaddr *)&un, offsetof(struct sockaddr_un, sun_path) + 4),
	                 "unix:\\x00abc");

	ck_assert_str_eq(address_format(buf, &odd, sizeof(odd)), "family 16");
	ck_assert_str_eq(address_format(buf, (struct sockaddr *)&in, 4), "family 2"); /* cut: not read beyond */
	ck_assert_str_eq(address_format(buf, &odd, 0), "unnamed");
}
