/*
 * uffd.h - userfaultfd(2), with its corners rounded off
 *
 * What the kernel does when a page is missing, and how one is put there. Each function is one ioctl, or the few that
 * belong together; none parks. Only ranges the embedder itself gave reach the kernel.
 *
 * Source: userfaultfd(2), ioctl_userfaultfd(2); each claim in here has a program in tests/platform.
 */
#ifndef POSTCOPY_UFFD_H
#define POSTCOPY_UFFD_H

#include <linux/userfaultfd.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/types.h>

struct err;

/* How the descriptor was had. The device needs only its own permission; the system call needs a privilege for faults
 * inside the kernel (KVM, vhost), or the sysctl vm.unprivileged_userfaultfd. */
enum uffd_door {
	UFFD_DOOR_DEVICE, /* /dev/userfaultfd */
	UFFD_DOOR_SYSCALL,
	UFFD_DOOR_USER_MODE, /* the system call, for faults of user mode only: KVM would get EFAULT */
	UFFD_DOOR_COUNT,
};

struct uffd {
	int fd;            /* -1: none */
	uint64_t features; /* that were asked for and are there */
	enum uffd_door door;
};

#define UFFD_NONE ((struct uffd){ .fd = -1 })

/**
 * uffd_open - a descriptor, not blocking, close-on-exec
 * @needed: UFFD_FEATURE_* without which nothing works; @wanted: those that are taken where the kernel has them
 * Return: 0; -EPERM when every door is closed, the text says which and what would open it; -ENOSYS not in this kernel;
 * -ENOTSUP a needed feature is missing, named.
 */
int uffd_open(struct uffd *ret, uint64_t needed, uint64_t wanted, struct err *err);

/**
 * uffd_check_doors - can a userfaultfd be had?
 * @kernel_faults: one that also serves faults inside the kernel, which KVM and vhost take
 * Return: 0; or the code of uffd_open for closed doors, with a text that says what would open one.
 */
int uffd_check_doors(bool kernel_faults, struct err *err);

/* Never while pages are missing and the guest may run: it would read zeros. UFFD_NONE is allowed. */
void uffd_close(struct uffd *u);

/** uffd_register - @modes: UFFDIO_REGISTER_MODE_*. Return: 0 or the errno. */
int uffd_register(const struct uffd *u, void *addr, size_t bytes, uint64_t modes);
int uffd_unregister(const struct uffd *u, void *addr, size_t bytes);

/**
 * uffd_read - events that are there, at most @count
 * Reading a UFFD_EVENT_FORK makes a descriptor, which is the caller's from then on.
 * Return: how many; 0 none; or the errno.
 */
ssize_t uffd_read(const struct uffd *u, struct uffd_msg *ret, size_t count);

/*
 * How far a placement came, and why no further: 0 all of it; -EEXIST the next page is there; -EAGAIN an event has to be
 * read first; -EFAULT (continue) the next page is not in the file; -ENOENT the mapping has changed; -ESRCH its process
 * is gone; -EINVAL not aligned; -ENOMEM; -ENOSPC. What came before the reason is placed, and its waiters are woken.
 *
 * Reading the event does not end the EAGAIN at once: the thread that caused it does, when it gets to run. And a removal
 * is carried out only after that, so a page placed in between may be removed again (tests/platform/uffd_remove_eagain).
 */
struct uffd_done {
	size_t bytes;
	int error;
};

/* @dst and @bytes are multiples of the range's page; @src need not be aligned. Threads that wait for it are woken. */
struct uffd_done uffd_copy(const struct uffd *u, void *dst, const void *src, size_t bytes);
struct uffd_done uffd_zeropage(const struct uffd *u, void *dst, size_t bytes);
/* The page is in the file, and now also in this mapping of it. */
struct uffd_done uffd_continue(const struct uffd *u, void *dst, size_t bytes);
/* Placed, and perhaps not by us: that it is there does not prove that its waiters were woken. */
int uffd_wake(const struct uffd *u, void *dst, size_t bytes);

/* ---- what this kernel offers ---- */

/* One line of `inmigrate probe`. */
struct uffd_finding {
	const char *name; /* "missing", "minor-shmem", ... */
	bool there;
	char why_not[160]; /* and what would change that: a sysctl, a permission, a kernel release */
};

#define UFFD_FINDINGS_MAX 24

struct uffd_probe {
	enum uffd_door door;
	int error; /* 0, or why no descriptor can be had; then nothing else is known */
	char error_text[240];
	uint64_t features;
	struct uffd_finding findings[UFFD_FINDINGS_MAX];
	size_t count;
};

/* Opens and closes what it needs; leaves nothing behind. */
void uffd_probe(struct uffd_probe *ret);

const char *uffd_door_name(enum uffd_door door);

#endif
