"""machine.py - what the kernel lets a process change about its machine, for itself and what it starts

All of it but sysctl_global() and what is like it ends with the process: namespaces, limits, and a filter of system calls.
"""

import contextlib
import ctypes
import errno
import fcntl
import os
import platform
import signal
import socket
import struct

CLONE_NEWNS, CLONE_NEWNET = 0x00020000, 0x40000000                    # <linux/sched.h>
MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_REMOUNT = 1, 2, 4, 8, 32      # <linux/mount.h>
MS_BIND, MS_REC, MS_PRIVATE = 4096, 16384, 1 << 18
SIOCGIFFLAGS, SIOCSIFFLAGS, IFF_UP = 0x8913, 0x8914, 1                      # <linux/sockios.h>, <linux/if.h>
PR_SET_CHILD_SUBREAPER, PR_SET_NO_NEW_PRIVS, PR_SET_SECCOMP, SECCOMP_MODE_FILTER = 36, 38, 22, 2        # <linux/prctl.h>, <linux/seccomp.h>
SOCKET_CALL = {"x86_64": (0xc000003e, 41), "aarch64": (0xc00000b7, 198)}    # <linux/audit.h>, <asm/unistd.h>

_libc = ctypes.CDLL(None, use_errno=True)
_unshared = set()


def _check(result, what):
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")


def unshare(flags, what):
    """Once: a second change goes to the same namespace."""
    if flags in _unshared:
        return
    _unshared.add(flags)
    _check(_libc.unshare(flags), f"unshare ({what})")


def mount(source, target, kind, flags, data=None):
    words = [w.encode() if w is not None else None for w in (source, target, kind)]
    _check(_libc.mount(*words, ctypes.c_ulong(flags), data.encode() if data else None), f"mount {target}")


# ---- processes ------------------------------------------------------------------------------------------------------

def adopt_orphans():
    """Who loses his parent below us becomes our child."""
    _check(_libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0), "prctl")


def end_children():
    """All that is below us: the children of those that end become ours, until there are none."""
    while True:
        with open(f"/proc/self/task/{os.getpid()}/children", encoding="ascii") as f:
            children = [int(word) for word in f.read().split()]
        if not children:
            return
        for pid in children:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        for pid in children:
            with contextlib.suppress(ChildProcessError):
                os.waitpid(pid, 0)


# ---- a network of its own ------------------------------------------------------------------------------------------

def own_network():
    unshare(CLONE_NEWNET, "network")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
        request = struct.pack("16sH14x", b"lo", 0)
        flags = struct.unpack_from("H", fcntl.ioctl(s, SIOCGIFFLAGS, request), 16)[0]
        fcntl.ioctl(s, SIOCSIFFLAGS, struct.pack("16sH14x", b"lo", flags | IFF_UP))


def no_inet6_sockets():
    """As on a kernel without IPv6: socket(2) says EAFNOSUPPORT."""
    arch, call = SOCKET_CALL[platform.machine()]
    load, equal, ret = 0x20, 0x15, 0x06                   # BPF_LD | BPF_W | BPF_ABS, BPF_JMP | BPF_JEQ, BPF_RET
    allow, refuse = 0x7fff0000, 0x00050000 | errno.EAFNOSUPPORT
    # struct seccomp_data: the number at 0, the architecture at 4, the first argument at 16.
    steps = ((load, 0, 0, 4), (equal, 0, 4, arch), (load, 0, 0, 0), (equal, 0, 2, call), (load, 0, 0, 16),
             (equal, 1, 0, int(socket.AF_INET6)), (ret, 0, 0, allow), (ret, 0, 0, refuse))
    code = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *s) for s in steps))
    program = ctypes.create_string_buffer(struct.pack("H6xP", len(steps), ctypes.addressof(code)))
    _check(_libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "prctl")
    _check(_libc.prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, program, 0, 0), "seccomp")


# ---- a tree of files of its own ------------------------------------------------------------------------------------

def own_mounts():
    unshare(CLONE_NEWNS, "mounts")
    mount(None, "/", None, MS_REC | MS_PRIVATE)


def mount_in_memory(path, mebibytes, flags=MS_NOSUID | MS_NODEV):
    mount("tmpfs", path, "tmpfs", flags, f"size={mebibytes}m,mode=1777")


def make_read_only(path):
    mount(path, path, None, MS_BIND | MS_REC)
    mount(None, path, None, MS_REMOUNT | MS_BIND | MS_RDONLY)


def hide(path):
    """What is there is a device that does not exist."""
    mount("/dev/null", path, None, MS_BIND)


# ---- sysctls -------------------------------------------------------------------------------------------------------

def sysctl_path(name):
    return name if name.startswith("/") else "/proc/sys/" + name.replace(".", "/")


def sysctl(name, value=None):
    if value is None:
        with open(sysctl_path(name), encoding="ascii") as f:
            return f.read().strip()
    try:
        with open(sysctl_path(name), "w", encoding="ascii") as f:
            f.write(value)
    except OSError as e:
        raise OSError(e.errno, f"{name} = {value}: {e.strerror}") from None
    return value


def chosen(text):
    """Of "always [madvise] never", the one in brackets; what has none is itself."""
    return text.partition("[")[2].partition("]")[0] or text


@contextlib.contextmanager
def sysctl_global(values):
    """Those of the whole machine, and back again."""
    before = {name: chosen(sysctl(name)) for name in values}
    try:
        for name, value in values.items():
            sysctl(name, value)
        yield
    finally:
        # In the other direction: a ratio is back after what needs it has gone.
        for name, value in reversed(before.items()):
            sysctl(name, value)
