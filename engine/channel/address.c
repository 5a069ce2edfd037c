#include "engine/channel/address.h"

#include <errno.h>
#include <limits.h>
#include <linux/vm_sockets.h>
#include <netdb.h>
#include <netinet/in.h>
#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/un.h>

#include "base/assert.h"
#include "base/err.h"
#include "base/parse.h"
#include "base/text.h"

#ifndef IPPROTO_MPTCP
#define IPPROTO_MPTCP 262
#endif

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

/* Cuts the part up to the first @c off *@rest and moves *@rest behind it; without a @c that is all of it. */
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

	/* Refused, where QEMU wraps: 70000 would be port 4464 (spec/channels.md 7.1), and the source would look for us
	 * in vain or, worse, find someone else. */
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

/* The options of spec/channels.md 7.1. The limits of the keepalive options are the kernel's: tcp(7). */
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
		return tcp_choice(name, value, has_value, &addr->keepalive, err);
	if (span_is(name, "keep-alive-count"))
		return tcp_count(name, value, 127, &addr->keepalive_count, err);
	if (span_is(name, "keep-alive-idle"))
		return tcp_count(name, value, 32767, &addr->keepalive_idle_s, err);
	if (span_is(name, "keep-alive-interval"))
		return tcp_count(name, value, 32767, &addr->keepalive_interval_s, err);
	return err_set(err, -EINVAL, "unknown option '%s'; known are to, ipv4, ipv6, numeric, mptcp, keep-alive, "
		       "keep-alive-count, keep-alive-idle and keep-alive-interval", QUOTE(name));
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
		return err_set(err, -EINVAL, "'%s' is not a descriptor's number; names given with getfd exist only "
			       "behind a monitor", QUOTE(number));
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
		const char *offset = at + key_bytes; /* the URI ends behind it, so it is NUL-terminated */

		if (parse_size(offset, &addr->offset) < 0 || addr->offset > INT64_MAX)
			return err_set(err, -EINVAL, "offset '%s' is not a size below 8 EiB, such as 4096, 0x1000 "
				       "or 64M", TEXT_QUOTE(offset, strlen(offset)));
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
	return err_set(err, -EINVAL, "unknown transport '%s'; known are tcp:, unix:, vsock:, fd:, exec: and file:",
		       QUOTE(name));
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

/* ---- resolving ------------------------------------------------------------------------------------------------ */

static int resolver_errno(int eai, int saved_errno)
{
	switch (eai) {
	case EAI_MEMORY:
		return -ENOMEM;
	case EAI_AGAIN:
		return -EAGAIN;
	case EAI_SYSTEM:
		return saved_errno ? -saved_errno : -EIO;
	default: /* no such name, no such service, not of this family: the address is wrong */
		return -EINVAL;
	}
}

/* A family alone is wanted when it is switched on and the other is not, or when the other is switched off. */
static int tcp_family(const struct address *addr)
{
	bool only4 = addr->ipv6 == ADDRESS_OFF || (addr->ipv4 == ADDRESS_ON && addr->ipv6 != ADDRESS_ON);
	bool only6 = addr->ipv4 == ADDRESS_OFF || (addr->ipv6 == ADDRESS_ON && addr->ipv4 != ADDRESS_ON);

	return only4 ? AF_INET : only6 ? AF_INET6 : AF_UNSPEC;
}

static bool is_any6(const struct sockaddr_storage *sa)
{
	return sa->ss_family == AF_INET6 && IN6_IS_ADDR_UNSPECIFIED(&((const struct sockaddr_in6 *)sa)->sin6_addr);
}

static bool seen_before(const struct address_endpoint *endpoints, int count, const struct addrinfo *ai)
{
	for (int i = 0; i < count; i++)
		if (endpoints[i].sa_bytes == ai->ai_addrlen && !memcmp(&endpoints[i].sa, ai->ai_addr, ai->ai_addrlen))
			return true;
	return false;
}

/* Takes over those of @family, each once. */
static int tcp_collect(const struct address *addr, const struct addrinfo *list, int family,
		       struct address_endpoint *ret, int count, int max)
{
	for (const struct addrinfo *ai = list; ai && count < max; ai = ai->ai_next) {
		struct address_endpoint *e = &ret[count];

		if (ai->ai_family != family || ai->ai_addrlen > sizeof(e->sa) || seen_before(ret, count, ai))
			continue;
		memset(e, 0, sizeof(*e));
		memcpy(&e->sa, ai->ai_addr, ai->ai_addrlen);
		e->sa_bytes = ai->ai_addrlen;
		e->protocol = addr->mptcp ? IPPROTO_MPTCP : 0;
		/* "[::]" takes IPv4, too, unless that is switched off: observed of QEMU 7.2 and 10.0, and what
		 * management tools count on (spec/control.md 9, step 6). The pair for an empty host is v6only, or the
		 * second bind would find its port taken by the first. */
		e->v6only = !is_any6(&e->sa) || addr->ipv4 == ADDRESS_OFF || addr->host[0] == '\0';
		count++;
	}
	return count;
}

static int resolve_tcp(const struct address *addr, struct address_endpoint *ret, int max, struct err *err)
{
	struct addrinfo hints = { .ai_family = tcp_family(addr), .ai_socktype = SOCK_STREAM, .ai_flags = AI_PASSIVE };
	struct addrinfo *list = NULL;
	char port[8];
	int count, r, saved_errno;

	if (addr->numeric)
		hints.ai_flags |= AI_NUMERICHOST;
	if (!addr->service)
		hints.ai_flags |= AI_NUMERICSERV;
	snprintf(port, sizeof(port), "%u", addr->port_first);
	errno = 0;
	r = getaddrinfo(addr->host[0] ? addr->host : NULL, addr->service ? addr->service : port, &hints, &list);
	saved_errno = errno;
	if (r != 0)
		return err_set(err, resolver_errno(r, saved_errno), "host '%s', port '%s': %s",
			       TEXT_QUOTE(addr->host, strlen(addr->host)),
			       addr->service ? TEXT_QUOTE(addr->service, strlen(addr->service)) : port,
			       gai_strerror(r));
	/* IPv6 first: that is the order QEMU reports its two sockets in. */
	count = tcp_collect(addr, list, AF_INET6, ret, 0, max);
	count = tcp_collect(addr, list, AF_INET, ret, count, max);
	freeaddrinfo(list);
	if (count == 0)
		return err_set(err, -EINVAL, "host '%s' has no IP address", TEXT_QUOTE(addr->host, strlen(addr->host)));
	if (addr->service && addr->port_last && addr->port_last < address_get_port((struct sockaddr *)&ret[0].sa))
		return err_set(err, -ERANGE, "to=%u is below port %u of service '%s'", addr->port_last,
			       address_get_port((struct sockaddr *)&ret[0].sa),
			       TEXT_QUOTE(addr->service, strlen(addr->service)));
	return count;
}

static int resolve_unix(const struct address *addr, struct address_endpoint *ret)
{
	struct sockaddr_un *un = (struct sockaddr_un *)&ret->sa;
	size_t path_bytes = strlen(addr->path);

	ASSERT(path_bytes < sizeof(un->sun_path)); /* by (1): parse_unix has measured it */
	memset(ret, 0, sizeof(*ret));
	un->sun_family = AF_UNIX;
	memcpy(un->sun_path, addr->path, path_bytes);
	ret->sa_bytes = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + path_bytes + 1);
	return 1;
}

static int resolve_vsock(const struct address *addr, struct address_endpoint *ret)
{
	struct sockaddr_vm *vm = (struct sockaddr_vm *)&ret->sa;

	memset(ret, 0, sizeof(*ret));
	vm->svm_family = AF_VSOCK;
	vm->svm_cid = addr->cid;
	vm->svm_port = addr->vsock_port;
	ret->sa_bytes = sizeof(*vm);
	return 1;
}

int address_resolve(const struct address *addr, struct address_endpoint *ret, int max, struct err *err)
{
	ASSERT(max >= 1);
	switch (addr->kind) {
	case ADDRESS_TCP:
		return resolve_tcp(addr, ret, max, err);
	case ADDRESS_UNIX:
		return resolve_unix(addr, ret);
	case ADDRESS_VSOCK:
		return resolve_vsock(addr, ret);
	case ADDRESS_FD:
	case ADDRESS_EXEC:
	case ADDRESS_FILE:
		break;
	}
	return err_set(err, -EINVAL, "not an address to listen on");
}

void address_set_port(struct address_endpoint *endpoint, uint16_t port)
{
	if (endpoint->sa.ss_family == AF_INET)
		((struct sockaddr_in *)&endpoint->sa)->sin_port = htons(port);
	else if (endpoint->sa.ss_family == AF_INET6)
		((struct sockaddr_in6 *)&endpoint->sa)->sin6_port = htons(port);
}

uint32_t address_get_port(const struct sockaddr *sa)
{
	switch (sa->sa_family) {
	case AF_INET:
		return ntohs(((const struct sockaddr_in *)sa)->sin_port);
	case AF_INET6:
		return ntohs(((const struct sockaddr_in6 *)sa)->sin6_port);
	case AF_VSOCK:
		return ((const struct sockaddr_vm *)sa)->svm_port;
	default:
		return 0;
	}
}

/* ---- text ------------------------------------------------------------------------------------------------------ */

static void format_in(char *buf, const struct in_addr *in, in_port_t port)
{
	char host[INET_ADDRSTRLEN];

	inet_ntop(AF_INET, in, host, sizeof(host));
	snprintf(buf, ADDRESS_TEXT_BYTES, "tcp:%s:%u", host, ntohs(port));
}

static void format_in6(char *buf, const struct sockaddr_in6 *in6)
{
	char host[INET6_ADDRSTRLEN];
	struct in_addr in;

	if (IN6_IS_ADDR_V4MAPPED(&in6->sin6_addr)) {
		memcpy(&in, in6->sin6_addr.s6_addr + 12, sizeof(in));
		format_in(buf, &in, in6->sin6_port);
		return;
	}
	inet_ntop(AF_INET6, &in6->sin6_addr, host, sizeof(host));
	/* A link-local address means nothing without its interface; the number needs no look-up. */
	if (in6->sin6_scope_id)
		snprintf(buf, ADDRESS_TEXT_BYTES, "tcp:[%s%%%u]:%u", host, in6->sin6_scope_id, ntohs(in6->sin6_port));
	else
		snprintf(buf, ADDRESS_TEXT_BYTES, "tcp:[%s]:%u", host, ntohs(in6->sin6_port));
}

/* As text_quote, without its limit: an address of our own must come out whole. @buf holds prefix and 4 bytes a byte. */
static void quote_path(char *buf, const char *prefix, const char *path, size_t path_bytes)
{
	char *p = buf + sprintf(buf, "%s", prefix);

	for (size_t i = 0; i < path_bytes; i++) {
		unsigned char c = (unsigned char)path[i];

		if (c < 0x20 || c > 0x7e || c == '\\')
			p += sprintf(p, "\\x%02x", c);
		else
			*p++ = (char)c;
	}
	*p = '\0';
}

static void format_un(char *buf, const struct sockaddr_un *un, socklen_t sa_bytes)
{
	size_t path_bytes = sa_bytes > offsetof(struct sockaddr_un, sun_path) ?
				    sa_bytes - offsetof(struct sockaddr_un, sun_path) : 0;

	_Static_assert(ADDRESS_TEXT_BYTES >= sizeof("unix:") + 4 * sizeof(un->sun_path), "room for every escape");
	if (path_bytes > sizeof(un->sun_path))
		path_bytes = sizeof(un->sun_path);
	/* An abstract name begins with a NUL, which is part of it; a path ends at one (unix(7)). */
	if (path_bytes && un->sun_path[0])
		path_bytes = strnlen(un->sun_path, path_bytes);
	quote_path(buf, "unix:", un->sun_path, path_bytes);
}

const char *address_format(char buf[static ADDRESS_TEXT_BYTES], const struct sockaddr *sa, socklen_t sa_bytes)
{
	const struct sockaddr_in *in = (const struct sockaddr_in *)sa;
	const struct sockaddr_vm *vm = (const struct sockaddr_vm *)sa;

	if (sa_bytes < sizeof(sa->sa_family))
		snprintf(buf, ADDRESS_TEXT_BYTES, "unnamed");
	else if (sa->sa_family == AF_INET && sa_bytes >= sizeof(*in))
		format_in(buf, &in->sin_addr, in->sin_port);
	else if (sa->sa_family == AF_INET6 && sa_bytes >= sizeof(struct sockaddr_in6))
		format_in6(buf, (const struct sockaddr_in6 *)sa);
	else if (sa->sa_family == AF_VSOCK && sa_bytes >= sizeof(*vm))
		snprintf(buf, ADDRESS_TEXT_BYTES, "vsock:%u:%u", vm->svm_cid, vm->svm_port);
	else if (sa->sa_family == AF_UNIX)
		format_un(buf, (const struct sockaddr_un *)sa, sa_bytes);
	else
		snprintf(buf, ADDRESS_TEXT_BYTES, "family %u", sa->sa_family);
	return buf;
}

const char *address_print(char buf[static ADDRESS_TEXT_BYTES], const struct address *addr)
{
	/* Brackets where the host holds colons: an IPv6 address was written in them. */
	bool v6 = addr->host && strchr(addr->host, ':');
	char port[8];

	switch (addr->kind) {
	case ADDRESS_TCP:
		snprintf(port, sizeof(port), "%u", addr->port_first);
		snprintf(buf, ADDRESS_TEXT_BYTES, "tcp:%s%s%s:%s", v6 ? "[" : "",
			 TEXT_QUOTE(addr->host, strlen(addr->host)), v6 ? "]" : "",
			 addr->service ? TEXT_QUOTE(addr->service, strlen(addr->service)) : port);
		break;
	case ADDRESS_UNIX:
		snprintf(buf, ADDRESS_TEXT_BYTES, "unix:%s", TEXT_QUOTE(addr->path, strlen(addr->path)));
		break;
	case ADDRESS_VSOCK:
		snprintf(buf, ADDRESS_TEXT_BYTES, "vsock:%u:%u", addr->cid, addr->vsock_port);
		break;
	case ADDRESS_FD:
		snprintf(buf, ADDRESS_TEXT_BYTES, "fd:%d", addr->fd);
		break;
	case ADDRESS_EXEC:
		snprintf(buf, ADDRESS_TEXT_BYTES, "exec:%s", TEXT_QUOTE(addr->path, strlen(addr->path)));
		break;
	case ADDRESS_FILE:
		snprintf(buf, ADDRESS_TEXT_BYTES, "file:%s,offset=%llu", TEXT_QUOTE(addr->path, strlen(addr->path)),
			 (unsigned long long)addr->offset);
		break;
	}
	return buf;
}
