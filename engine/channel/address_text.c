/* Addresses as text: of the system's, and of ours. */
#include "engine/channel/address.h"

#include <arpa/inet.h>
#include <linux/vm_sockets.h>
#include <netinet/in.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/un.h>

#include "base/text.h"

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
	                            sa_bytes - offsetof(struct sockaddr_un, sun_path) :
	                            0;

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
