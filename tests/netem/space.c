#include "tests/netem/space.h"

#include "base/assert.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/if_tun.h>
#include <linux/netlink.h>
#include <linux/pkt_sched.h>
#include <linux/rtnetlink.h>
#include <net/if.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

/* A TUN device drops what finds its queue full. This many packets are more than TCP windows hold. */
#define TUN_QUEUE_PACKETS 10000

int space_address_parse(const char *text, struct space_address *ret_address, struct err *err)
{
	struct space_address a = { 0 };
	const char *slash = strchr(text, '/');
	struct in_addr in;
	char *end = NULL;
	unsigned long prefix = slash ? strtoul(slash + 1, &end, 10) : 0;

	if (!slash || (size_t)(slash - text) >= sizeof a.text || end == slash + 1 || *end || prefix < 1 || prefix > 31)
		return err_set(err, -EINVAL, "'%s' is not an address such as 10.77.0.1/30", text);
	memcpy(a.text, text, (size_t)(slash - text));
	if (inet_pton(AF_INET, a.text, &in) != 1)
		return err_set(err, -EINVAL, "'%s' is not an IPv4 address", a.text);
	a.ip = in.s_addr;
	a.prefix = (unsigned int)prefix;
	a.mask = htonl(~0u << (32 - prefix));
	*ret_address = a;
	return 0;
}

static int write_file(const char *path, const char *text)
{
	int fd = open(path, O_WRONLY | O_CLOEXEC), r = 0;

	if (fd < 0)
		return -errno;
	if (write(fd, text, strlen(text)) < 0)
		r = -errno;
	close(fd);
	return r;
}

static int unshare_one(int kind)
{
	if (unshare(kind) == 0)
		return 0;
	/* So says a kernel that was built without this kind: EINVAL is for what we have asked wrongly. */
	return errno == EINVAL ? -ENOSYS : -errno;
}

/* Root there is this user here, and nobody else is anybody. */
static int become_root_of_a_space(struct err *err)
{
	char text[64];
	uid_t uid = geteuid();
	gid_t gid = getegid();
	int r = unshare_one(CLONE_NEWUSER);

	if (r < 0)
		return err_set(err, r, "may make no network namespace: this needs root, or user namespaces (%s)",
		               strerror(-r));
	/* Without this the kernel lets nobody write gid_map: user_namespaces(7). */
	write_file("/proc/self/setgroups", "deny");
	snprintf(text, sizeof text, "0 %u 1", (unsigned int)uid);
	r = write_file("/proc/self/uid_map", text);
	snprintf(text, sizeof text, "0 %u 1", (unsigned int)gid);
	if (r == 0)
		r = write_file("/proc/self/gid_map", text);
	return r < 0 ? err_set(err, r, "user namespace: cannot map the user (%s)", strerror(-r)) : 0;
}

static int device_up(int s, struct ifreq *ifr)
{
	if (ioctl(s, SIOCGIFFLAGS, ifr) < 0)
		return -errno;
	ifr->ifr_flags |= IFF_UP;
	return ioctl(s, SIOCSIFFLAGS, ifr) < 0 ? -errno : 0;
}

static int loopback_up(void)
{
	struct ifreq ifr = { .ifr_name = "lo" };
	int s = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0), r;

	if (s < 0)
		return -errno;
	r = device_up(s, &ifr);
	close(s);
	return r;
}

int space_new(struct err *err)
{
	int r = unshare_one(CLONE_NEWNET), fd;

	if (r == -EPERM) {
		r = become_root_of_a_space(err);
		if (r < 0)
			return r;
		r = unshare_one(CLONE_NEWNET);
	}
	if (r < 0)
		return err_set(err, r, "may make no network namespace (%s)", strerror(-r));
	r = loopback_up();
	if (r < 0)
		return err_set(err, r, "network namespace: cannot start its loopback (%s)", strerror(-r));
	fd = open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC);
	if (fd < 0) {
		r = -errno;
		return err_set(err, r, "cannot open /proc/self/ns/net (%s)", strerror(-r));
	}
	return fd;
}

/* A question to the kernel about the namespace this process is in, and room for what it is about. By netlink, for the
 * ioctls are for the machine's root alone: this is for whoever the namespace belongs to. */
struct question {
	struct nlmsghdr header;
	char body[256];
};

static void *question_init(struct question *q, uint16_t type, uint16_t flags, size_t body_bytes)
{
	*q = (struct question){ .header = { .nlmsg_len = NLMSG_LENGTH((uint32_t)body_bytes),
		                            .nlmsg_type = type,
		                            .nlmsg_flags = (uint16_t)(NLM_F_REQUEST | NLM_F_ACK | flags) } };
	return NLMSG_DATA(&q->header);
}

/* Return: the attribute, so that one that has others in it can be ended (question_end). */
static struct rtattr *question_add(struct question *q, uint16_t type, const void *data, size_t bytes)
{
	struct rtattr *attribute = (struct rtattr *)((char *)q + NLMSG_ALIGN(q->header.nlmsg_len));

	ASSERT(NLMSG_ALIGN(q->header.nlmsg_len) + RTA_SPACE(bytes) <= sizeof *q);
	attribute->rta_type = type;
	attribute->rta_len = (uint16_t)RTA_LENGTH(bytes);
	if (bytes)
		memcpy(RTA_DATA(attribute), data, bytes);
	q->header.nlmsg_len = NLMSG_ALIGN(q->header.nlmsg_len) + (uint32_t)RTA_LENGTH(bytes);
	return attribute;
}

static void question_end(struct question *q, struct rtattr *attribute)
{
	attribute->rta_len = (uint16_t)((char *)q + q->header.nlmsg_len - (char *)attribute);
}

/* It is there, we have made it: the machine does not lack it, but we have asked for another. */
static int of_device(int r)
{
	ASSERT(r != -ENODEV);
	return r;
}

static int question_ask(const struct question *q)
{
	struct {
		struct nlmsghdr header;
		struct nlmsgerr error;
		char quoted[sizeof *q];
	} answer;
	int s = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE), r = 0;

	if (s < 0)
		return -errno;
	if (send(s, q, q->header.nlmsg_len, 0) < 0 || recv(s, &answer, sizeof answer, 0) < 0)
		r = -errno;
	else if (answer.header.nlmsg_type == NLMSG_ERROR)
		r = answer.error.error;
	close(s);
	return of_device(r);
}

/* Not by if_nametoindex, which keeps no errno of a socket that it does not get. */
static int device_index(void)
{
	struct ifreq ifr = { .ifr_name = SPACE_DEVICE };
	int s = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0), r;

	if (s < 0)
		return -errno;
	r = ioctl(s, SIOCGIFINDEX, &ifr) < 0 ? -errno : ifr.ifr_ifindex;
	close(s);
	return of_device(r);
}

static int queue_length(int device, unsigned int packets)
{
	struct question q;
	struct ifinfomsg *info = question_init(&q, RTM_NEWLINK, 0, sizeof *info);

	info->ifi_index = device;
	question_add(&q, IFLA_TXQLEN, &packets, sizeof packets);
	return question_ask(&q);
}

/* The machine's default (net.core.default_qdisc) may drop what waits here: fq after 100 packets of a connection. */
static int queue_discipline(int device)
{
	static const char name[] = "pfifo_fast";
	struct question q;
	struct tcmsg *tc = question_init(&q, RTM_NEWQDISC, NLM_F_CREATE | NLM_F_REPLACE, sizeof *tc);

	tc->tcm_ifindex = device;
	tc->tcm_parent = TC_H_ROOT;
	question_add(&q, TCA_KIND, name, sizeof name);
	return question_ask(&q);
}

static int route_congestion(int device, const struct space_address *address, const char *name)
{
	uint32_t net = address->ip & address->mask;
	struct question q;
	struct rtattr *metrics;
	struct rtmsg *route = question_init(&q, RTM_NEWROUTE, NLM_F_CREATE | NLM_F_REPLACE, sizeof *route);

	/* The route that came with the address, and this added. */
	*route = (struct rtmsg){ .rtm_family = AF_INET,
		                 .rtm_dst_len = (unsigned char)address->prefix,
		                 .rtm_table = RT_TABLE_MAIN,
		                 .rtm_protocol = RTPROT_KERNEL,
		                 .rtm_scope = RT_SCOPE_LINK,
		                 .rtm_type = RTN_UNICAST };
	question_add(&q, RTA_DST, &net, sizeof net);
	question_add(&q, RTA_OIF, &device, sizeof device);
	question_add(&q, RTA_PREFSRC, &address->ip, sizeof address->ip);
	metrics = question_add(&q, RTA_METRICS, NULL, 0);
	question_add(&q, RTAX_CC_ALGO, name, strlen(name) + 1);
	question_end(&q, metrics);
	return question_ask(&q);
}

int space_congestion(const struct space_address *address, const char *name, struct err *err)
{
	int device = device_index(), r = device < 0 ? device : route_congestion(device, address, name);

	/* So it answers to a name that it does not know, and to all else that is wrong. Every kernel has reno. */
	if (r == -EINVAL && route_congestion(device, address, "reno") == 0)
		return err_set(err, -ENOENT, "this kernel has no congestion control '%s'", name);
	return r < 0 ? err_set(err, r, "cannot set the congestion control (%s)", strerror(-r)) : 0;
}

static int tun_configure(struct ifreq *ifr, int s, const struct space_address *address, unsigned int mtu)
{
	struct sockaddr_in *in = (struct sockaddr_in *)&ifr->ifr_addr;
	int device, r;

	*in = (struct sockaddr_in){ .sin_family = AF_INET, .sin_addr.s_addr = address->ip };
	if (ioctl(s, SIOCSIFADDR, ifr) < 0)
		return -errno;
	*in = (struct sockaddr_in){ .sin_family = AF_INET, .sin_addr.s_addr = address->mask };
	if (ioctl(s, SIOCSIFNETMASK, ifr) < 0)
		return -errno;
	ifr->ifr_mtu = (int)mtu;
	if (ioctl(s, SIOCSIFMTU, ifr) < 0)
		return -errno;
	device = device_index();
	r = device < 0 ? device : queue_length(device, TUN_QUEUE_PACKETS);
	if (r == 0)
		r = queue_discipline(device);
	if (r < 0)
		return r;
	/* IPv6 would send packets of its own at any time, and use up fates. A kernel without it is fine. */
	write_file("/proc/sys/net/ipv6/conf/" SPACE_DEVICE "/disable_ipv6", "1");
	return device_up(s, ifr);
}

int space_tun(const struct space_address *address, unsigned int mtu, struct err *err)
{
	struct ifreq ifr = { .ifr_name = SPACE_DEVICE, .ifr_flags = IFF_TUN | IFF_NO_PI };
	int fd = open("/dev/net/tun", O_RDWR | O_NONBLOCK | O_CLOEXEC), s, r;

	if (fd < 0) {
		r = -errno;
		return err_set(err, r,
		               "/dev/net/tun does not open (%s): the kernel module 'tun' is needed, and the right "
		               "to use it",
		               strerror(-r));
	}
	s = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	r = s < 0 || ioctl(fd, TUNSETIFF, &ifr) < 0 || ioctl(fd, TUNSETOFFLOAD, 0ul) < 0 ? -errno : 0;
	if (r == 0)
		r = tun_configure(&ifr, s, address, mtu);
	if (s >= 0)
		close(s);
	if (r < 0) {
		close(fd);
		return err_set(err, r, "cannot set up TUN device " SPACE_DEVICE " with %s/%u (%s)", address->text,
		               address->prefix, strerror(-r));
	}
	return fd;
}

bool space_is_lacking(int code)
{
	static const int codes[] = {
		EPERM,  EACCES,             /* forbidden */
		ENOSPC, EUSERS,             /* so many namespaces are allowed, and there are */
		ENOSYS, EOPNOTSUPP, ENOTTY, /* not built in */
		ENOENT, ENODEV,     ENXIO,  /* no such device, no module for it, no such algorithm */
	};

	for (size_t n = 0; n < sizeof codes / sizeof codes[0]; n++) {
		if (code == -codes[n])
			return true;
	}
	return false;
}

uint64_t space_missed(int ns)
{
	uint64_t drops = 0;
	char line[512];
	FILE *f;

	if (setns(ns, CLONE_NEWNET) < 0)
		return 0;
	f = fopen("/proc/thread-self/net/dev", "re");
	if (!f)
		return 0;
	/* Eight columns received, then bytes, packets, errs, drop sent: proc_pid_net(5). */
	while (fgets(line, sizeof line, f)) {
		char *at = line + strspn(line, " ");

		if (!strncmp(at, SPACE_DEVICE ":", strlen(SPACE_DEVICE) + 1))
			sscanf(at + strlen(SPACE_DEVICE) + 1, "%*u %*u %*u %*u %*u %*u %*u %*u %*u %*u %*u %" SCNu64,
			       &drops);
	}
	fclose(f);
	return drops;
}
