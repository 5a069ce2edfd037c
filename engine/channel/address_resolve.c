/* From an address to the sockets that are to be made, and their ports. */
#include "engine/channel/address.h"

#include <errno.h>
#include <linux/vm_sockets.h>
#include <netdb.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>
#include <sys/un.h>

#include "base/assert.h"
#include "base/err.h"
#include "base/text.h"

#ifndef IPPROTO_MPTCP
#define IPPROTO_MPTCP 262
#endif

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
		 * management tools count on (doc/wire/control.md 9 item 6). The pair for an empty host is v6only, or
		 * the second bind would find its port taken by the first. */
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
