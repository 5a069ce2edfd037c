#include "engine/channel/address.h"

#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/un.h>

#include "base/err.h"
#include "base/parse.h"
#include "base/text.h"

/* A piece of the URI that is not NUL-terminated. */
struct span {
	const char *p;
	size_t bytes;
};

#define QUOTE(span) TEXT_QUOTE((span).p, (span).bytes)

static struct span span_of(const char *text)
{
	return (struct span){ text, strlen(text) };
}

/* Cuts the part up to the first @c off *@rest and moves *@rest after it; without a @c that is all of it. */
static struct span span_cut(struct span *rest, char c)
{
	const char *end = memchr(rest->p, c, rest->bytes);
	struct span head = { rest->p, end ? (size_t)(end - rest->p) : rest->bytes };
	size_t used = head.bytes + (end ? 1 : 0);

	rest->p += used;
	rest->bytes -= used;
	return head;
}

static bool span_is(struct span s, const char *text)
{
	return s.bytes == strlen(text) && !memcmp(s.p, text, s.bytes);
}

static int span_dup(char **ret, struct span s, struct err *err)
{
	char *copy = strndup(s.p, s.bytes);

	if (!copy)
		return err_set(err, -ENOMEM, "no memory for the address");
	*ret = copy;
	return 0;
}

/* As parse_u64, of a span, with a limit. A number of more digits than fit here is beyond any limit. */
static int span_u64(struct span s, uint64_t max, uint64_t *ret_value)
{
	char digits[32];
	uint64_t value;
	int r;

	if (s.bytes >= sizeof(digits))
		return -EINVAL;
	memcpy(digits, s.p, s.bytes);
	digits[s.bytes] = '\0';
	r = parse_u64(digits, &value);
	if (r == 0 && value > max)
		r = -ERANGE;
	if (r == 0)
		*ret_value = value;
	return r;
}

static bool is_decimal(struct span s)
{
	for (size_t i = 0; i < s.bytes; i++)
		if (s.p[i] < '0' || s.p[i] > '9')
			return false;
	return s.bytes > 0;
}

/* ---- tcp: ---------------------------------------------------------------------------------------------------- */

static int parse_port(struct span s, uint16_t *ret_port, struct err *err)
{
	uint64_t port = 0;

	/* Refused, where QEMU wraps: 70000 would be port 4464 (doc/wire/channels.md 7.1), and the source would look for
	 * us in vain or, worse, find someone else. */
	if (!is_decimal(s) || span_u64(s, UINT16_MAX, &port) < 0)
		return err_set(err, -EINVAL, "port '%s' is not in 0..65535", QUOTE(s));
	*ret_port = (uint16_t)port;
	return 0;
}

static int tcp_flag(struct span name, struct span value, bool has_value, bool *ret_on, struct err *err)
{
	char word[8] = "on";

	if (has_value) {
		/* What does not fit is no word we know, as is nothing at all. */
		size_t bytes = value.bytes < sizeof(word) ? value.bytes : 0;

		memcpy(word, value.p, bytes);
		word[bytes] = '\0';
	}
	if (parse_on_off(word, ret_on) < 0)
		return err_set(err, -EINVAL, "option '%s' must be on or off", QUOTE(name));
	return 0;
}

static int tcp_choice(struct span name, struct span value, bool has_value, enum address_choice *ret, struct err *err)
{
	bool on;
	int r = tcp_flag(name, value, has_value, &on, err);

	if (r == 0)
		*ret = on ? ADDRESS_ON : ADDRESS_OFF;
	return r;
}

static int tcp_count(struct span name, struct span value, uint32_t max, uint32_t *ret, struct err *err)
{
	uint64_t number = 0;

	if (!is_decimal(value) || span_u64(value, max, &number) < 0 || number == 0)
		return err_set(err, -EINVAL, "option '%s' must be a number in 1..%u", QUOTE(name), max);
	*ret = (uint32_t)number;
	return 0;
}

/* The options of doc/wire/channels.md 7.1. The limits of the keepalive options are the kernel's: tcp(7). */
static int tcp_option(struct address *addr, struct span option, bool *has_to, struct err *err)
{
	struct span value = option;
	struct span name = span_cut(&value, '=');
	bool has_value = name.bytes < option.bytes;

	if (span_is(name, "to")) {
		*has_to = true;
		return parse_port(value, &addr->port_last, err);
	}
	if (span_is(name, "ipv4"))
		return tcp_choice(name, value, has_value, &addr->ipv4, err);
	if (span_is(name, "ipv6"))
		return tcp_choice(name, value, has_value, &addr->ipv6, err);
	if (span_is(name, "numeric"))
		return tcp_flag(name, value, has_value, &addr->numeric, err);
	if (span_is(name, "mptcp"))
		return tcp_flag(name, value, has_value, &addr->mptcp, err);
	if (span_is(name, "keep-alive"))
		return tcp_choice(name, value, has_value, &addr->keepalive.on, err);
	if (span_is(name, "keep-alive-count"))
		return tcp_count(name, value, 127, &addr->keepalive.count, err);
	if (span_is(name, "keep-alive-idle"))
		return tcp_count(name, value, 32767, &addr->keepalive.idle_s, err);
	if (span_is(name, "keep-alive-interval"))
		return tcp_count(name, value, 32767, &addr->keepalive.interval_s, err);
	return err_set(err, -EINVAL,
	               "unknown option '%s'; known are to, ipv4, ipv6, numeric, mptcp, keep-alive, "
	               "keep-alive-count, keep-alive-idle and keep-alive-interval",
	               QUOTE(name));
}

/* HOST: of "HOST:PORT,...", without brackets; *@rest is then "PORT,...". */
static int tcp_host(struct span *rest, struct span *ret_host, struct err *err)
{
	struct span host;
	const char *end;

	if (rest->bytes && rest->p[0] == '[') {
		end = memchr(rest->p, ']', rest->bytes);
		if (!end)
			return err_set(err, -EINVAL, "'[' without ']' around an IPv6 address");
		host = (struct span){ rest->p + 1, (size_t)(end - rest->p) - 1 };
		rest->bytes -= (size_t)(end + 1 - rest->p);
		rest->p = end + 1;
		/* In brackets stands an address: an empty or other host there is a mistake, not "all". */
		if (!memchr(host.p, ':', host.bytes))
			return err_set(err, -EINVAL, "'%s' in brackets is not an IPv6 address", QUOTE(host));
		if (!rest->bytes || rest->p[0] != ':')
			return err_set(err, -EINVAL, "expected tcp:[ADDRESS]:PORT");
		rest->p++;
		rest->bytes--;
	} else {
		if (!memchr(rest->p, ':', rest->bytes))
			return err_set(err, -EINVAL, "no port: expected tcp:HOST:PORT");
		host = span_cut(rest, ':');
	}
	/* A name of DNS has at most 253 characters; what is longer can only fail, and in the resolver's words. */
	if (host.bytes > 253 || memchr(host.p, ',', host.bytes))
		return err_set(err, -EINVAL, "host '%s' is not a name or an address", QUOTE(host));
	*ret_host = host;
	return 0;
}

static int tcp_check(const struct address *addr, bool has_to, struct err *err)
{
	if (addr->ipv4 == ADDRESS_OFF && addr->ipv6 == ADDRESS_OFF)
		return err_set(err, -EINVAL, "both ipv4=off and ipv6=off leave nothing to listen on");
	if (has_to && !addr->service && addr->port_first && addr->port_last < addr->port_first)
		return err_set(err, -EINVAL, "to=%u is below port %u", addr->port_last, addr->port_first);
	return 0;
}

static int parse_tcp(struct address *addr, struct span rest, struct err *err)
{
	struct span host = { 0 }, port;
	bool has_to = false;
	int r = tcp_host(&rest, &host, err);

	if (r < 0)
		return r;
	r = span_dup(&addr->host, host, err);
	if (r < 0)
		return r;

	port = span_cut(&rest, ',');
	if (!port.bytes)
		return err_set(err, -EINVAL, "no port: expected tcp:HOST:PORT");
	if (memchr(port.p, ':', port.bytes))
		return err_set(err, -EINVAL, "'%s' is not a port; an IPv6 address needs brackets, tcp:[::1]:4444",
		               QUOTE(port));
	if (is_decimal(port))
		r = parse_port(port, &addr->port_first, err);
	else
		r = span_dup(&addr->service, port, err);
	while (r == 0 && rest.bytes)
		r = tcp_option(addr, span_cut(&rest, ','), &has_to, err);
	if (r < 0)
		return r;
	r = tcp_check(addr, has_to, err);
	/* With port 0 the system chooses and there is nothing to try in turn. */
	if (!has_to || (!addr->service && addr->port_first == 0))
		addr->port_last = addr->port_first;
	return r;
}

/* ---- the others ---------------------------------------------------------------------------------------------- */

static int parse_unix(struct address *addr, struct span path, struct err *err)
{
	const size_t max = sizeof(((struct sockaddr_un *)NULL)->sun_path) - 1;

	if (!path.bytes)
		return err_set(err, -EINVAL, "no path: expected unix:PATH");
	if (path.bytes > max)
		return err_set(err, -ENAMETOOLONG, "the path has %zu bytes, and a unix socket's at most %zu",
		               path.bytes, max);
	return span_dup(&addr->path, path, err);
}

static int parse_vsock(struct address *addr, struct span rest, struct err *err)
{
	uint64_t cid = 0, port = 0;
	struct span head;

	if (!memchr(rest.p, ':', rest.bytes))
		return err_set(err, -EINVAL, "expected vsock:CID:PORT");
	head = span_cut(&rest, ':');
	if (!is_decimal(head) || span_u64(head, UINT32_MAX, &cid) < 0)
		return err_set(err, -EINVAL, "CID '%s' is not in 0..4294967295", QUOTE(head));
	if (!is_decimal(rest) || span_u64(rest, UINT32_MAX, &port) < 0)
		return err_set(err, -EINVAL, "vsock port '%s' is not in 0..4294967295", QUOTE(rest));
	addr->cid = (uint32_t)cid;
	addr->vsock_port = (uint32_t)port;
	return 0;
}

static int parse_fd(struct address *addr, struct span number, struct err *err)
{
	uint64_t fd = 0;

	if (!is_decimal(number))
		return err_set(err, -EINVAL,
		               "'%s' is not a descriptor's number; names given with getfd exist only "
		               "in a monitor",
		               QUOTE(number));
	if (span_u64(number, INT_MAX, &fd) < 0)
		return err_set(err, -EINVAL, "descriptor '%s' is not in 0..%d", QUOTE(number), INT_MAX);
	addr->fd = (int)fd;
	return 0;
}

static int parse_exec(struct address *addr, struct span command, struct err *err)
{
	if (!command.bytes)
		return err_set(err, -EINVAL, "no command: expected exec:COMMAND");
	return span_dup(&addr->path, command, err);
}

/* PATH[,offset=N]. A path may hold commas, even ",offset=": the last one counts. */
static int parse_file(struct address *addr, struct span path, struct err *err)
{
	static const char key[] = ",offset=";
	const size_t key_bytes = sizeof(key) - 1;
	const char *at = NULL;

	for (size_t i = 0; i + key_bytes <= path.bytes; i++)
		if (!memcmp(path.p + i, key, key_bytes))
			at = path.p + i;
	if (at) {
		const char *offset = at + key_bytes; /* the URI ends after it, so it is NUL-terminated */

		if (parse_size(offset, &addr->offset) < 0 || addr->offset > INT64_MAX)
			return err_set(err, -EINVAL,
			               "offset '%s' is not a size below 8 EiB, such as 4096, 0x1000 "
			               "or 64M",
			               TEXT_QUOTE(offset, strlen(offset)));
		path.bytes = (size_t)(at - path.p);
	}
	if (!path.bytes)
		return err_set(err, -EINVAL, "no path: expected file:PATH[,offset=N]");
	return span_dup(&addr->path, path, err);
}

static const struct transport {
	const char *name;
	enum address_kind kind;
	int (*parse)(struct address *addr, struct span rest, struct err *err);
	const char *refused;
} transports[] = {
	{ "tcp", ADDRESS_TCP, parse_tcp, NULL },
	{ "unix", ADDRESS_UNIX, parse_unix, NULL },
	{ "vsock", ADDRESS_VSOCK, parse_vsock, NULL },
	{ "fd", ADDRESS_FD, parse_fd, NULL },
	{ "exec", ADDRESS_EXEC, parse_exec, NULL },
	{ "file", ADDRESS_FILE, parse_file, NULL },
	{ "rdma", 0, NULL, "RDMA is another protocol, which this library does not speak" },
	{ "defer", 0, NULL, "nothing is deferred here: call listen when the address is known" },
};

#define TRANSPORTS (sizeof(transports) / sizeof(transports[0]))

static int parse_transport(struct address *addr, const char *uri, struct err *err)
{
	struct span rest = span_of(uri);
	struct span name = span_cut(&rest, ':');

	for (size_t i = 0; i < TRANSPORTS; i++) {
		const struct transport *t = &transports[i];

		if (!span_is(name, t->name))
			continue;
		if (t->refused)
			return err_set(err, -ENOTSUP, "%s", t->refused);
		addr->kind = t->kind;
		return t->parse(addr, rest, err);
	}
	return err_set(err, -EINVAL,
	               "unknown transport '%s'; known are tcp:, unix:, vsock:, fd:, exec: and file:", QUOTE(name));
}

int address_parse(struct address *ret, const char *uri, struct err *err)
{
	struct address addr = { .fd = -1 };
	int r = parse_transport(&addr, uri, err);

	if (r < 0) {
		address_fini(&addr);
		return err_up(err, r, "address '%s'", TEXT_QUOTE(uri, strlen(uri)));
	}
	*ret = addr;
	return 0;
}

void address_fini(struct address *addr)
{
	if (!addr)
		return;
	free(addr->host);
	free(addr->service);
	free(addr->path);
	addr->host = addr->service = addr->path = NULL;
}

bool address_is_listening(const struct address *addr)
{
	return addr->kind == ADDRESS_TCP || addr->kind == ADDRESS_UNIX || addr->kind == ADDRESS_VSOCK;
}
