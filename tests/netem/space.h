/*
 * space.h - the two network namespaces, and a TUN device in each
 *
 * A namespace here has no name and no process: it is a descriptor, and is gone with the last one and the last process
 * in it. To enter it, open /proc/PID/fd/N.
 *
 * Invariant:
 * (1) A packet read from a TUN device is one packet with right checksums: no offload, so that a bit that is flipped on
 *     the way is found by the checksum as on a real wire.
 */
#ifndef TESTS_NETEM_SPACE_H
#define TESTS_NETEM_SPACE_H

#include "base/err.h"

#include <stdbool.h>
#include <stdint.h>

#define SPACE_DEVICE "link0"

/* What one end is to have. */
struct space_address {
	char text[16];     /* dotted */
	uint32_t ip, mask; /* network order */
	unsigned int prefix;
};

/** space_address_parse - "10.77.0.1/30". Return: 0 or -EINVAL. */
int space_address_parse(const char *text, struct space_address *ret_address, struct err *err);

/**
 * space_new - the calling process moves into a new network namespace, with its loopback up
 * Without the right to, it first becomes root of a user namespace of its own, where that is allowed.
 * Return: a descriptor of the namespace; or negative, see space_is_lacking
 */
int space_new(struct err *err);

/**
 * space_tun - a TUN device, up, in the namespace this process is in
 * Return: its descriptor, non-blocking; or negative, see space_is_lacking
 */
int space_tun(const struct space_address *address, unsigned int mtu, struct err *err);

/**
 * space_congestion - connections over the device, in the namespace this process is in, take this congestion control
 * By the route: a namespace's own setting (tcp_congestion_control) allows only what the machine's administrator permits
 * (tcp_allowed_congestion_control), which is not always cubic.
 * Return: 0; or negative, see space_is_lacking. -ENOENT: the kernel has none of this name
 */
int space_congestion(const struct space_address *address, const char *name, struct err *err);

/** space_is_lacking - this error of a function above: the machine lacks something, or forbids it. Others are ours. */
bool space_is_lacking(int code);

/** space_missed - packets the device dropped because we did not read in time; the process is in @ns afterwards */
uint64_t space_missed(int ns);

#endif
