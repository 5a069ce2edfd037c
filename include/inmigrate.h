/*
 * inmigrate.h - the destination half of virtual-machine live migration, as a library
 *
 * An unmodified QEMU (7.2 or newer) sends a running guest; this library lands it in the embedder's memory. The
 * embedder is whatever program includes this header: a virtual machine monitor, a test, a tool.
 *
 *   struct inm *inm;
 *   inm_new(&inm, NULL, &ops, opaque);
 *   inm_set_capability(inm, "return-path", true);
 *   if (inm_listen(inm, "tcp:0.0.0.0:4444") < 0 || inm_run(inm) < 0)
 *           fprintf(stderr, "%s\n", inm_error(inm));
 *   inm_free(inm);
 *
 * Threads: a reactor and its migrations belong to one thread, the first one that calls inm_run, inm_run_until or
 * inm_dispatch. Only there do these three work, and not from a callback; elsewhere they return -EDEADLK. inm_cancel,
 * inm_pause and inm_get_state work anywhere, also in a signal handler. inmigrate(3) has a table of all calls.
 *
 * The process: the library starts no thread and writes to no standard stream. In postcopy it has a handler for SIGBUS,
 * which passes on what is not its own; before and after, the embedder's is there. Any number of migrations may run in
 * one process, on one reactor or on several. inmigrate(3) has all that is shared.
 *
 * Errors: a function that can fail returns a negative errno, and inm_error() has the story. A constructor that fails
 * leaves NULL, which every function accepts; inm_error(NULL) says why there is none. A call where it must not be made
 * is an error like any other: the library aborts only when it finds a mistake of its own, which it names on standard
 * error.
 */
#ifndef INMIGRATE_H
#define INMIGRATE_H

#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* The library is compiled with hidden symbols: what this header declares is what it exports. */
#pragma GCC visibility push(default)

#define INM_VERSION_MAJOR 0
#define INM_VERSION_MINOR 1

/* The version of the library that is linked, "0.1". */
const char *inm_version(void);

struct inm;
struct inm_reactor;

/* ---- what the embedder is told, and asked ---------------------------------------------------------------- */

/* The states a management tool may see, in QEMU's words (query-migrate, "status"). */
enum inm_state {
	INM_STATE_NONE,   /* made, not listening */
	INM_STATE_SETUP,  /* listening; no source has told its list of RAM blocks yet. If one goes away before
	                      * that, the next one may come; inm_error() then says what happened */
	INM_STATE_ACTIVE, /* the list is there, and the stream is being loaded; from here on errors are final */
	INM_STATE_POSTCOPY_ACTIVE,  /* the guest runs here, or is about to, and pages of it are still at the source */
	INM_STATE_POSTCOPY_PAUSED,  /* the network failed in postcopy; inm_error() says how. The guest runs on until it
	                            * touches a page that is missing (or is started, if its devices were still being
	                            * loaded); the source may come back: see inm_recover */
	INM_STATE_POSTCOPY_RECOVER, /* the source is back, and hears what is here */
	INM_STATE_COMPLETED,        /* landed: the guest is the embedder's */
	INM_STATE_FAILED,           /* inm_error() says why; the source still has its guest if it used a return path */
	INM_STATE_CANCELLED,        /* inm_cancel() was heard and everything is released */
};

/* "setup", "active", ... as QEMU spells them. */
const char *inm_state_name(enum inm_state state);

enum inm_log_level { INM_LOG_ERROR, INM_LOG_WARN, INM_LOG_INFO, INM_LOG_DEBUG };

/* A RAM block as the source announces it, and the embedder's answer. */
struct inm_ram_block {
	/* Said by the source. */
	const char *name;    /* idstr, NUL-terminated, valid during the call; bytes as sent: not checked for print */
	uint64_t bytes;      /* used length, a multiple of the target page size */
	uint64_t page_bytes; /* the source's backing page size where the stream says it, else 0 */
	uint64_t gpa;        /* with x-ignore-shared: guest-physical address of the block; else 0 */

	/* Answered by the embedder; zero at the call, and fd -1. Either a descriptor or an address; with capability
	 * postcopy-ram both, or an address alone. */
	uint64_t bytes_max; /* what the embedder has for this block. 0 means exactly @bytes */
	bool resizable;     /* a length up to bytes_max is right; otherwise it must be exactly bytes_max */
	int fd;             /* memory file (memfd, hugetlbfs, shm): the library maps it for itself; stays the
	                     * embedder's, and may be closed from the next callback on. -1: use @addr */
	uint64_t fd_offset; /* where the block begins in @fd; a multiple of its page size */
	void *addr;         /* with fd == -1: the memory itself, page-aligned, the embedder's, of bytes_max bytes;
	                     * it must read as zeros and stay mapped until inm_free. With postcopy-ram it is the guest
	                     * view, where vCPUs will touch the memory: private anonymous memory, or with @fd a shared
	                     * mapping of that range of it. It must not be populated (MAP_POPULATE, mlock), and in
	                     * postcopy it must not be touched by the thread that runs the migration. A madvise(2) of
	                     * it with MADV_REMOVE or MADV_DONTNEED, in postcopy, discards what is still to come there
	                     * (also where the memory is shared, and DONTNEED alone would keep what is in the file) */
	bool ignored;       /* with x-ignore-shared: the source shares this memory and sends no page of it; neither
	                     * @fd nor @addr is needed */
	bool dirty;         /* the memory may hold something other than zeros: zero pages are then written */
	bool unplugged;     /* parts of the block may be unplugged at the source (virtio-mem), which sends nothing for
	                     * them. In postcopy a page that a thread has asked for, and that has not come when the
	                     * stream ends, is zeros then; otherwise it is lost, and the migration pauses */
};

/* How the end of a device's state was found; the stream itself does not say. */
enum inm_split {
	INM_SPLIT_DESCRIPTION, /* by the stream's own description: exact */
	INM_SPLIT_FOOTERS,     /* by section footers that tile the stream exactly; a hostile guest can forge those */
};

/* The state of one device. */
struct inm_device {
	const char *name;     /* idstr: "0000:00:03.0/virtio-net", "timer"; NUL-terminated */
	uint32_t instance_id; /* tells equal names apart */
	uint32_t version_id;  /* format version of the state */
	const void *data;     /* @bytes bytes, valid during the call */
	size_t bytes;
	uint64_t stream_offset;  /* where in the stream @data begins */
	const char *description; /* this device's part of the stream's JSON description, NUL-terminated; NULL if none */
	enum inm_split split;
};

enum inm_live_part { INM_LIVE_START, INM_LIVE_PART, INM_LIVE_END };

/*
 * A piece of a live section: state of the machine, neither RAM nor a device's, that the source sends while the guest
 * still runs there. The library knows two: "spapr/htab" (the hash page table of a pseries guest) and
 * "s390-storage_attributes".
 * Each section has one START body, any number of PART bodies and one END body, as they are on the wire, without their
 * headers and footers; a body comes in one piece or more. A later body replaces what an earlier one said about the same
 * place.
 */
struct inm_live_state {
	const char *name; /* NUL-terminated */
	uint32_t instance_id, version_id;
	enum inm_live_part part;
	bool last;        /* the body ends with this piece */
	const void *data; /* @bytes bytes, at least one, valid during the call */
	size_t bytes;
	uint64_t stream_offset; /* where in the stream @data begins */
};

/*
 * The embedder's callbacks. Set size to sizeof(struct inm_ops); the structure may grow at its end. All are called on
 * the thread that runs the migration. A callback that returns int returns 0 or a negative errno, which ends the
 * migration with an error that names the callback's subject; the source keeps its guest. Any other value is a mistake,
 * and ends it with -EINVAL. What callbacks may call: see inmigrate(3). After a failure the content of guest memory is
 * unspecified: half of the guest may be there.
 */
struct inm_ops {
	size_t size;

	/* A block is announced: where does it go? -ENOENT: the embedder has no such block. Required. */
	int (*ram_block)(void *opaque, struct inm_ram_block *block);

	/* A device's state, in the stream's order, after all RAM of a precopy migration; early ones (virtio-mem) before
	 * it, without a description. NULL: states are checked and dropped. */
	int (*device)(void *opaque, const struct inm_device *device);

	/* RAM and devices are complete. The last chance to refuse: do everything here that can fail, because the
	 * source gives its guest up when this has returned 0 and the source has been told. The guest must not run
	 * before start_vcpus.
	 * @run_state is what it was at the source: "running", "paused", ...; NULL where the stream does not say. */
	int (*ready)(void *opaque, const char *run_state);

	/* The source has been told and will not run the guest again: run it. The only place where that is safe; without
	 * this call the guest is still the source's. In postcopy this comes in the state postcopy-active (or
	 * postcopy-paused, when the network has failed meanwhile), while most pages may still be missing: a thread that
	 * touches one waits until it has come. */
	void (*start_vcpus)(void *opaque, const char *run_state);

	void (*state_changed)(void *opaque, enum inm_state state);

	/* One line of printable ASCII, no newline. Never called in a signal handler. It may be called while a callback
	 * of the same migration is parked (inm_ram_view): that one must hold no lock that is taken here. */
	void (*log)(void *opaque, enum inm_log_level level, const char *text);

	/* What is in the stream, as it is read: one call for each section, command, block and so on. @depth is the
	 * nesting, for indenting. Meant for `inmigrate decode`; costs nothing when NULL. */
	void (*trace)(void *opaque, uint64_t stream_offset, int depth, const char *text);

	/* A piece of a live section, in the stream's order, before `device` is called for any device but early ones.
	 * NULL: a guest with such a section is refused when the section begins, and goes on at its source. */
	int (*live_state)(void *opaque, const struct inm_live_state *piece);

	/* An early device (virtio-mem) again: the description after all others has its fields, too. With name,
	 * instance, version, bytes, stream_offset and description; @data is NULL. After `device` for the last device,
	 * before `ready`; not where the stream has no description, as in postcopy. */
	int (*early_described)(void *opaque, const struct inm_device *device);

	/* Each RAM block of the guest has been given its memory by ram_block, and there will be no other. The last
	 * callback before a switch to postcopy: refuse here if you know a reason now, because a source before QEMU
	 * 10.2 loses its guest if you refuse later. NULL: nothing to say. */
	int (*ram_listed)(void *opaque);
};

/* ---- one migration --------------------------------------------------------------------------------------- */

struct inm_config {
	size_t size;                  /* sizeof(struct inm_config) */
	struct inm_reactor *reactor;  /* shared; must outlive the inm. NULL: the inm makes its own */
	enum inm_log_level log_level; /* lines of a higher level are not made */
	uint8_t uuid[16];             /* of the guest, for capability validate-uuid and multifd; zeros: none */
	const char *machine;          /* machine type the stream must name ("pc-i440fx-7.2"); NULL: any */
};

/**
 * inm_new - make the destination of one migration
 * @ret_inm: NULL when it fails; inm_last_error() says why
 * @config: copied; NULL for defaults
 * @ops: copied
 * Return: 0; -EINVAL for a missing callback, a wrong size or value; -EDEADLK: another thread runs the shared reactor;
 * -ENOMEM; or why the kernel gave no ring (-EPERM, -ENOSYS).
 */
int inm_new(struct inm **ret_inm, const struct inm_config *config, const struct inm_ops *ops, void *opaque);

/*
 * Releases everything, in any state; a migration under way is cancelled first, and its callbacks that wait for a page
 * return. NULL is allowed.
 * From a callback of any migration on the reactor, or on a thread that cannot run it now, it cancels and releases
 * nothing, and inm_last_error() says so: @inm lives until inm_free is called once more, outside. Without that it keeps
 * its memory, and does no other harm.
 */
void inm_free(struct inm *inm);

/**
 * inm_set_capability - as QEMU's migrate-set-capabilities, by QEMU's names
 * Set both sides alike for those that change the stream. Before inm_listen.
 * Return: 0; -ENOENT unknown; -ENOTSUP known but not in this version, the error says why; -EBUSY too late; -EINVAL
 * conflicts.
 */
int inm_set_capability(struct inm *inm, const char *name, bool on);

/**
 * inm_set_parameter - as QEMU's migrate-set-parameters, and the compatibility properties of QEMU's machine types
 * @value: as text: numbers in decimal, sizes also with a suffix (64M), switches as on/off
 * Return: as inm_set_capability; -ERANGE for a value out of range.
 */
int inm_set_parameter(struct inm *inm, const char *name, const char *value);

/**
 * inm_listen - where the guest will come from
 * @uri: tcp:HOST:PORT, unix:PATH, vsock:CID:PORT, fd:N, exec:COMMAND, file:PATH[,offset=N]; see inmigrate(1)
 * A descriptor given with fd: belongs to the library from here on, also when the call fails.
 * Return: 0; -EINVAL for an address that cannot be parsed; or the errno of the socket call that failed.
 */
int inm_listen(struct inm *inm, const char *uri);

/**
 * inm_address - the @index-th address listened on, with the real port: "tcp:127.0.0.1:40123"
 * Return: NULL when there are no more; the string lives as long as @inm, and changes with inm_recover.
 */
const char *inm_address(const struct inm *inm, unsigned index);

/**
 * inm_run - until landed, failed or cancelled
 * Return: 0 landed; -ECANCELED; -EINVAL without an inm_listen before; -EDEADLK from a callback, or on another thread
 * than the first that ran the reactor; or the negative errno of the failure, which is never -ETIMEDOUT.
 */
int inm_run(struct inm *inm);

/**
 * inm_run_until - as inm_run, but not after @deadline_ns on CLOCK_MONOTONIC
 * Return: as inm_run; -ETIMEDOUT: still under way.
 */
int inm_run_until(struct inm *inm, uint64_t deadline_ns);

/**
 * inm_fd - for your own event loop: readable when there is something to do
 * The descriptor belongs to the reactor. All migrations of a shared reactor have the same. Poll it; do not read it, and
 * do not close it: dispatch would fail once with -EBADF, and nothing would wake the loop any more.
 */
int inm_fd(const struct inm *inm);

/**
 * inm_dispatch - do what can be done without waiting
 * Must be called once after inm_listen, and then whenever inm_fd() is readable.
 * Return: 1 still under way; else as inm_run.
 */
int inm_dispatch(struct inm *inm);

/*
 * Ask for the end. From any thread and from a signal handler; the rest happens in run or dispatch.
 * In postcopy, once the guest runs here, it exists in two halves and this gives it up: stop the vCPUs first. A thread
 * that waits for a missing page goes on and reads zeros.
 */
void inm_cancel(struct inm *inm);

/**
 * inm_pause - act as if the network had failed, for one that hangs: postcopy-active becomes postcopy-paused
 * All connections are closed, and the source may come back. Before start_vcpus nothing is done where that would make
 * the source (QEMU 10.2 on) run its guest again. From any thread and from a signal handler; the rest happens in run or
 * dispatch. Return: 0 asked for; -EINVAL in another state than postcopy-active and postcopy-recover.
 */
int inm_pause(struct inm *inm);

/**
 * inm_recover - in the state postcopy-paused: wait for the source at another address
 * Not needed for a source that comes back where it came before: the library listens there all the time, until you give
 * it another address. May be called again, also after a failure, and in state_changed.
 * @uri: tcp:, unix: or vsock: as in inm_listen; or fd:N, a connection of the source's, which belongs to the library
 * from here on
 * Return: 0; -EBUSY in another state; -EINVAL for an address that cannot be parsed; or the errno of the socket call
 * that failed: then the library listens nowhere.
 */
int inm_recover(struct inm *inm, const char *uri);

/**
 * inm_ram_view - where a callback may touch guest memory although pages are missing
 * @addr: in the guest view, as ram_block answered it; @bytes: from there on, within the block
 * For blocks with a descriptor there is a second mapping, the engine view: an access to a missing page does not block
 * the thread but parks the callback until the page has come; all else goes on. Only in the callbacks device, ready and
 * start_vcpus of this inm. A system call that is given such an address fails with EFAULT where a page is missing: call
 * inm_ram_await first.
 * Return: the address in the engine view; outside postcopy, and for memory without a descriptor, @addr itself; NULL
 * when the range is not inside one block, and in postcopy outside of these callbacks.
 */
void *inm_ram_view(struct inm *inm, void *addr, size_t bytes);

/**
 * inm_ram_await - park until these pages have come
 * For memory without a descriptor, and before a system call is given guest memory. In the same callbacks. In the guest
 * view or the engine view.
 * Return: 0; -EFAULT when the range is not inside one block; -EDEADLK in postcopy outside of these callbacks, where
 * nobody could wait; -ECANCELED when the migration has failed or was cancelled
 * (the callback should return an error, which is then ignored).
 */
int inm_ram_await(struct inm *inm, const void *addr, size_t bytes);

/**
 * inm_stuck_fd - readable while a callback holds the thread that runs the migration, and nobody has read about it
 * In postcopy a callback (device, ready, start_vcpus, state_changed, log) must not hold it for long: that thread brings
 * the pages that the guest waits for. After parameter stuck-after (5 s) this descriptor becomes readable, and after 2,
 * 4, ... times as long it does again. It is for another thread, because the held one may be held forever, for example
 * when it touches a missing page in the guest view. Poll it, do not read it: inm_stuck_text does. It belongs to
 * @inm, and is the same from inm_new to inm_free. From any thread. Return: the descriptor; -EINVAL for NULL.
 */
int inm_stuck_fd(const struct inm *inm);

/**
 * inm_stuck_text - which callback holds the thread now, and where it is: one line, printable ASCII
 * "the callback for device 'x' instance 0: stuck for 5 s at pc 0x401234, registers point into block 'pc.ram' at ...".
 * From any thread, but not while another one is in inm_free; it never waits. When the callback has returned, the
 * same line goes to the callback log, as an error.
 * @buf: of @bytes bytes, gets as much as fits, and a NUL
 * Return: the length of the whole line; 0: nothing is held now; -EINVAL for NULL.
 */
int inm_stuck_text(struct inm *inm, char *buf, size_t bytes);

enum inm_state inm_get_state(const struct inm *inm);

/**
 * inm_error - the last failure, one line: what, where in the stream, why; "no error" if there was none, never NULL
 * Of a migration that has failed or was cancelled, how it ended, whatever fails later. The text is replaced by the next
 * failure, and goes with @inm. NULL: as inm_last_error.
 */
const char *inm_error(const struct inm *inm);

/**
 * inm_last_error - the last call that failed on this thread, and why; "no error" if none has
 * For what has no inm to ask: inm_new and inm_reactor_new that failed (one that works clears it), calls that were given
 * NULL, calls that may not touch the migration on this thread, inm_free and inm_reactor_free that released nothing.
 */
const char *inm_last_error(void);

#define INM_LATENCY_BUCKETS 40

/* The current numbers. The structure may grow at its end: set size first. */
struct inm_stats {
	size_t size;
	enum inm_state state;
	uint64_t total_ns;        /* from the main channel's first bytes to the end, or to now */
	uint64_t downtime_ns;     /* from the source's stop, where the stream tells (QEMU 10.0 on), to landed; else 0 */
	uint64_t main_bytes;      /* read from the main channel */
	uint64_t multifd_bytes;   /* read from all multifd channels */
	uint64_t ram_bytes;       /* length of all RAM blocks */
	uint64_t received_pages;  /* distinct target pages received */
	uint64_t remaining_pages; /* of all blocks, not received yet */
	uint64_t normal_pages;    /* page records by kind, repeats included */
	uint64_t zero_pages;
	uint64_t xbzrle_pages;
	uint64_t compressed_pages;
	uint64_t page_bytes; /* target page size */
	uint64_t rounds;     /* scans over all RAM that the stream shows; 0 where it does not */
	uint32_t ram_blocks;
	uint32_t devices;     /* device states delivered */
	enum inm_split split; /* how they were found */

	/* Postcopy; zeros when there was none. */
	uint64_t postcopy_ns;     /* from the guest's start here to its last page, or to now; 0 before the start */
	uint64_t preempt_bytes;   /* read from the preempt channel */
	uint64_t postcopy_pages;  /* placed since the switch */
	uint64_t duplicate_pages; /* came although they were here, and were dropped */
	uint64_t discarded_pages; /* by the source's discards */
	uint64_t requests;        /* page requests sent, and the target pages in them */
	uint64_t requested_pages;
	uint64_t faults;             /* of the guest's threads, read from the userfaultfd */
	uint64_t faults_local;       /* of those, answered here: the page had come, or is zeros */
	uint64_t engine_faults;      /* of device callbacks, in the engine view */
	uint64_t outstanding_faults; /* pages that a thread waits for at this moment */
	uint64_t place_retries;      /* placements that had to wait for an event to be read */
	uint64_t prefetch_pages;     /* asked for ahead; of those, touched later, and never touched */
	uint64_t prefetch_hits;
	uint64_t prefetch_waste;
	/* From a fault read to its page placed, for pages that had to be asked for. */
	uint64_t fault_count, fault_mean_ns, fault_p50_ns, fault_p99_ns, fault_max_ns;
	uint64_t fault_log2_ns[INM_LATENCY_BUCKETS]; /* [i]: of 2^i up to 2^(i+1) ns */
	uint64_t blocktime_ns; /* all threads of the guest that have faulted were blocked at once: QEMU's
	                               * postcopy-blocktime */

	/* Losses of the network. */
	uint32_t pauses, recoveries;
	uint64_t paused_ns;       /* in all, to now */
	uint64_t recover_page_ns; /* the last time: from the new main channel to the first page after it */
};

/* How long one thread of the guest was blocked (QEMU's postcopy-vcpu-blocktime). */
struct inm_blocktime {
	uint32_t tid; /* gettid(2) */
	uint64_t faults, blocked_ns;
};

/** inm_get_blocktime - the first @count threads, in the order of their first fault. Return: how many there are. */
size_t inm_get_blocktime(const struct inm *inm, struct inm_blocktime *ret, size_t count);

/**
 * inm_get_stats - @ret_stats: with its size set; all else in it is written
 * Return: 0; -EINVAL, with nothing written, for a size that cannot be; -EDEADLK or, for NULL, -EINVAL with zeros.
 */
int inm_get_stats(const struct inm *inm, struct inm_stats *ret_stats);

/* ---- a reactor for several migrations ---------------------------------------------------------------------- */

struct inm_reactor_config {
	size_t size;
	size_t stack_bytes; /* of a coroutine; 0: enough for a signal frame of this CPU and a callback, 256 KiB */
	const char *ring;   /* "uring", or NULL for the best there is */
};

/** inm_reactor_new - @ret_reactor: NULL when it fails; inm_last_error() says why. Return: as inm_new. */
int inm_reactor_new(struct inm_reactor **ret_reactor, const struct inm_reactor_config *config);

/* While one of its migrations is not freed, and from a callback, nothing is released; inm_last_error() says so. */
void inm_reactor_free(struct inm_reactor *reactor);

/* ---- what this machine offers ------------------------------------------------------------------------------ */

/* One thing that a migration can make use of. */
struct inm_finding {
	char name[32]; /* "kernel-faults", "minor-shmem", "io_uring", "huge-2m", ...: see inm_probe(3) */
	bool there;
	char why_not[192]; /* "" where it is there; else what is missing, and what would change that */
};

#define INM_FINDINGS_MAX 64

/* The structure may grow at its end: set size first. */
struct inm_probe {
	size_t size;
	bool migration;         /* there is io_uring, without which inm_new fails */
	bool postcopy;          /* capability postcopy-ram can be used */
	bool kernel_faults;     /* also where KVM or vhost touch guest memory; else see postcopy-kernel-faults */
	bool shared_memory;     /* in postcopy, blocks may be given with a descriptor of a memory file */
	bool huge_pages;        /* or with one on hugetlbfs */
	bool callbacks_park;    /* in the engine view (inm_ram_view); else they must call inm_ram_await */
	uint64_t uffd_features; /* UFFD_FEATURE_... (userfaultfd(2)) that the kernel has; some may need a privilege */
	char kernel[72];        /* its release, "6.12.9" */
	char door[48];          /* how the process gets a userfaultfd: "/dev/userfaultfd"; "": it gets none */
	char error[256];        /* why it gets none, and what would change that; else "" */
	char verdict[400];      /* how postcopy would be done, or why it cannot; in words */
	uint32_t finding_count;
	struct inm_finding findings[INM_FINDINGS_MAX];
};

/**
 * inm_probe - what the kernel offers here, and to this process, now
 * It tries: userfaultfds and a ring are opened and closed again. From any thread; no migration is needed.
 * @ret: size is set by the caller; the rest is written as far as it goes
 * Return: 0; -EINVAL for NULL or a size that holds nothing.
 */
int inm_probe(struct inm_probe *ret);

#pragma GCC visibility pop

#ifdef __cplusplus
}
#endif

#endif
