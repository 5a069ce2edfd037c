/*
 * address.h - where the guest comes from: a migration URI as a value
 *
 * Parsing is pure and does no I/O. Finding the socket addresses of a host name is a function of its own, because it may
 * block on a name server.
 *
 * Invariants:
 * (1) A parsed address is complete: nothing in it has to be checked again, except that a name may not resolve and a
 *     path may not exist.
 * (2) Every string in it is owned by it, NUL-terminated and without a NUL inside.
 *
 * Source: doc/wire/channels.md 7.1
 */
#ifndef ENGINE_CHANNEL_ADDRESS_H
#define ENGINE_CHANNEL_ADDRESS_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/socket.h>

struct err;

enum address_kind {
	ADDRESS_TCP,
	ADDRESS_UNIX,
	ADDRESS_VSOCK,
	ADDRESS_FD,
	ADDRESS_EXEC,
	ADDRESS_FILE,
};

/* An option that may be left out of the URI. */
enum address_choice { ADDRESS_UNSET, ADDRESS_ON, ADDRESS_OFF };

/* TCP keepalive, where an address says something of it; what it does not say is as the parameters say. */
struct address_keepalive {
	enum address_choice on;
	uint32_t count; /* 0: unset, as are the next two */
	uint32_t idle_s;
	uint32_t interval_s;
};

struct address {
	enum address_kind kind;

	/* ADDRESS_TCP */
	char *host;          /* owned; without brackets; "": all addresses, IPv6 and IPv4 */
	char *service;       /* owned; the port's name, to be looked up; NULL: port_first and port_last say it */
	uint16_t port_first; /* 0: the system chooses */
	uint16_t port_last;  /* with to=LAST: ports port_first..port_last are tried in turn; else as port_first.
	                      * With a service name: LAST, or 0 where there is none */
	enum address_choice ipv4;
	enum address_choice ipv6;
	bool numeric; /* host must not be looked up */
	bool mptcp;
	struct address_keepalive keepalive; /* of the connections that are accepted there */

	/* ADDRESS_VSOCK */
	uint32_t cid; /* 4294967295 (VMADDR_CID_ANY): any */
	uint32_t vsock_port;

	/* ADDRESS_UNIX, ADDRESS_FILE: a path; ADDRESS_EXEC: a command for /bin/sh -c */
	char *path;      /* owned */
	uint64_t offset; /* ADDRESS_FILE: where in the file the stream begins, at most INT64_MAX */

	/* ADDRESS_FD */
	int fd; /* not owned: parsing does not look at it */
};

/**
 * address_parse - of a URI as QEMU spells it
 * @ret: written on success; release it with address_fini
 * Return: 0; -EINVAL, the text says which part of the URI is wrong and what is expected; -ENOTSUP for a transport that
 * exists and is not to be had (rdma:, defer), -ENAMETOOLONG for a socket path that does not fit, -ENOMEM.
 */
int address_parse(struct address *ret, const char *uri, struct err *err);
void address_fini(struct address *addr);

/** address_is_listening - a socket that can accept any number of connections; the others are one main channel each */
bool address_is_listening(const struct address *addr);

/* One socket to be made: socket(sa.ss_family, SOCK_STREAM, protocol), then bind. */
struct address_endpoint {
	struct sockaddr_storage sa;
	socklen_t sa_bytes;
	int protocol; /* 0, or IPPROTO_MPTCP */
	bool v6only;  /* AF_INET6: what IPV6_V6ONLY must be set to; false takes IPv4 connections, too */
};

/* More than any host name in use resolves to. */
#define ADDRESS_ENDPOINTS_MAX 16

/**
 * address_resolve - the sockets of a listening address, each with the first port
 * @ret: @max of them; an address with more is cut
 *
 * BLOCKS on the name server when host is a name (never when it is a number or empty), for as long as the resolver's
 * configuration says. That is why it is called before the migration begins and never from a coroutine.
 *
 * An empty host makes two endpoints, IPv6 and IPv4, v6only: two sockets, with two different ports if the port is 0. On
 * a machine without IPv6 making the first will fail with EAFNOSUPPORT or EADDRNOTAVAIL; one that works is enough. Of a
 * name that resolves to several addresses all are returned.
 *
 * Return: how many, at least 1; -EINVAL a kind without sockets, or a service or host that is not there; -ERANGE to=
 * below the service's port; -EAGAIN the name server does not answer; -ENOMEM or another errno of the resolver.
 * Source: getaddrinfo(3); doc/wire/channels.md 7.1
 */
int address_resolve(const struct address *addr, struct address_endpoint *ret, int max, struct err *err);

/** address_set_port - of an endpoint of AF_INET or AF_INET6, for to=LAST; others are left alone */
void address_set_port(struct address_endpoint *endpoint, uint16_t port);

/** address_get_port - of a socket address of AF_INET, AF_INET6 (in host order) or AF_VSOCK; else 0 */
uint32_t address_get_port(const struct sockaddr *sa);

/* Room for "unix:" and a path of sun_path with every byte escaped. */
#define ADDRESS_TEXT_BYTES 448

/**
 * address_format - a socket address as a URI: "tcp:127.0.0.1:4444", "tcp:[::1]:4444", "unix:/run/m", "vsock:3:7000"
 * @sa, @sa_bytes: as getsockname(2), accept(2) give them. An IPv4 address mapped into IPv6 is written as IPv4; an
 * unnamed unix socket is "unix:"; an unknown family is "family N". The text is printable ASCII.
 * Return: @buf.
 */
const char *address_format(char buf[static ADDRESS_TEXT_BYTES], const struct sockaddr *sa, socklen_t sa_bytes);

#endif
