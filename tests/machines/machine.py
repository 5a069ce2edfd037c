"""machine.py - what the kernel lets a process change about its machine, for itself and its children

Namespaces, limits and a filter of system calls end with the process. Only sysctl_global() and its like do not.
"""

import contextlib
import ctypes
import errno
import fcntl
import os
import platform
import re
import signal
import socket
import struct
import subprocess
import tempfile

CLONE_NEWNS, CLONE_NEWNET = 0x00020000, 0x40000000                    # <linux/sched.h>
MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_REMOUNT = 1, 2, 4, 8, 32      # <linux/mount.h>
MS_BIND, MS_REC, MS_PRIVATE, MNT_DETACH = 4096, 16384, 1 << 18, 2
SIOCGIFFLAGS, SIOCSIFFLAGS, IFF_UP = 0x8913, 0x8914, 1                      # <linux/sockios.h>, <linux/if.h>
PR_SET_CHILD_SUBREAPER, PR_SET_NO_NEW_PRIVS, PR_SET_SECCOMP, SECCOMP_MODE_FILTER = 36, 38, 22, 2        # <linux/prctl.h>, <linux/seccomp.h>
SOCKET_CALL = {"x86_64": (0xc000003e, 41), "aarch64": (0xc00000b7, 198)}    # <linux/audit.h>, <asm/unistd.h>

# What sysctl_global() may change, and to what. Some switches of the kernel cannot be reverted before it boots again
# (kernel.yama.ptrace_scope = 3, kernel.modules_disabled = 1, ...), so a name that is not here is refused.
CAN_BE_PUT_BACK = {
    "kernel.yama.ptrace_scope": "[012]",
    "net.ipv4.tcp_allowed_congestion_control": ".*", "net.ipv4.tcp_congestion_control": ".*",
    "net.ipv4.tcp_rmem": ".*", "net.ipv4.tcp_wmem": ".*",
    "vm.overcommit_memory": "[012]", "vm.overcommit_ratio": ".*", "vm.unprivileged_userfaultfd": "[01]",
    "/sys/kernel/mm/transparent_hugepage/enabled": ".*", "/sys/kernel/mm/transparent_hugepage/shmem_enabled": ".*",
}

_libc = ctypes.CDLL(None, use_errno=True)
_unshared = set()


class Refused(Exception):
    """This change is impossible on this machine."""


class NotPutBack(Exception):
    """The machine is not as it was."""


def _check(result, what):
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")


def unshare(flags, what):
    """Only once: a second change goes to the same namespace."""
    if flags in _unshared:
        return
    _unshared.add(flags)
    _check(_libc.unshare(flags), f"unshare ({what})")


def mount(source, target, kind, flags, data=None):
    words = [w.encode() if w is not None else None for w in (source, target, kind)]
    _check(_libc.mount(*words, ctypes.c_ulong(flags), data.encode() if data else None), f"mount {target}")


# ---- processes ------------------------------------------------------------------------------------------------------

def adopt_orphans():
    """A process below us that loses its parent becomes our child."""
    _check(_libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0), "prctl")


def end_children():
    """End all processes below us: the children of those that end become ours, until there are none."""
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
    """Like a kernel without IPv6: socket(2) fails with EAFNOSUPPORT."""
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
    with contextlib.suppress(OSError), socket.socket(socket.AF_INET6):
        raise Refused("there are IPv6 sockets all the same")


# ---- a tree of files of its own ------------------------------------------------------------------------------------

def own_mounts():
    unshare(CLONE_NEWNS, "mounts")
    mount(None, "/", None, MS_REC | MS_PRIVATE)


def mount_in_memory(path, mebibytes, flags=MS_NOSUID | MS_NODEV):
    mount("tmpfs", path, "tmpfs", flags, f"size={mebibytes}m,mode=1777")
    size = os.statvfs(path)
    if size.f_blocks * size.f_frsize != mebibytes << 20:
        raise Refused(f"{path} is not of {mebibytes} MiB")


def mount_in_memory_but(path, mebibytes, kept, flags=MS_NOSUID | MS_NODEV):
    """A folder that is below it stays visible."""
    folder = os.open(kept, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        mount_in_memory(path, mebibytes, flags)
        if os.path.commonpath([os.path.realpath(path), os.path.realpath(kept)]) == os.path.realpath(path):
            os.makedirs(kept)
            mount(f"/proc/self/fd/{folder}", kept, None, MS_BIND | MS_REC)
    finally:
        os.close(folder)


def make_read_only(path):
    mount(path, path, None, MS_BIND | MS_REC)
    mount(None, path, None, MS_REMOUNT | MS_BIND | MS_RDONLY)
    if not os.statvfs(path).f_flag & os.ST_RDONLY:
        raise Refused(f"{path} can be written to all the same")


def hide(path):
    """Opening it opens /dev/null."""
    mount("/dev/null", path, None, MS_BIND)


def take_away(path):
    """It is missing: its folder is another one, with everything else that was in it."""
    folder, gone = os.path.split(path)
    before = tempfile.mkdtemp()
    mount(folder, before, None, MS_BIND | MS_REC)
    try:
        mount("tmpfs", folder, "tmpfs", MS_NOSUID, "mode=755")
        for name in set(os.listdir(before)) - {gone}:
            old, new = os.path.join(before, name), os.path.join(folder, name)
            # The kernel finds the terminals beside the file that is opened, not beside its mount point.
            if os.path.islink(old) or name == "ptmx":
                os.symlink(os.readlink(old) if os.path.islink(old) else "pts/ptmx", new)
                continue
            if os.path.isdir(old):
                os.mkdir(new)
            else:
                os.close(os.open(new, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC))
            mount(old, new, None, MS_BIND | MS_REC)
    finally:
        _check(_libc.umount2(before.encode(), MNT_DETACH), f"umount {before}")
        os.rmdir(before)
    if os.path.lexists(path):
        raise Refused(f"{path} is there all the same")


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
    """The word in brackets of "always [madvise] never"; without brackets the text itself."""
    return text.partition("[")[2].partition("]")[0] or text


def is_so(name, value):
    """Whether it reads as it was written: the kernel chooses the order of a list, and its blanks."""
    return sorted(chosen(sysctl(name)).split()) == sorted(value.split())


def set_sysctl(name, value):
    sysctl(name, value)
    if not is_so(name, value):
        raise Refused(f"{name} = {value}: it is {sysctl(name)!r}")


def in_new_network(name):
    """A sysctl's value in a new network namespace."""
    def unshare_network():
        unshare(CLONE_NEWNET, "network")
    return subprocess.run(["cat", sysctl_path(name)], preexec_fn=unshare_network, stdin=subprocess.DEVNULL,
                          capture_output=True, text=True, check=True).stdout.strip()


def check_can_be_put_back(values):
    for name, value in values.items():
        if not re.fullmatch(CAN_BE_PUT_BACK.get(name, "(?!)"), value):
            raise ValueError(f"{name} = {value} is not among what can be put back")


def _put_back(before):
    """All of them, whatever happens to one, and without a signal in between."""
    wrong = []
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    try:
        # In the other direction: a ratio is restored after the setting that needs it.
        for name, value in reversed(before.items()):
            try:
                set_sysctl(name, value)
            except (OSError, Refused) as e:
                wrong.append(str(e))
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
    if wrong:
        raise NotPutBack("not put back: " + "; ".join(wrong))


def _change(name, value, before):
    try:
        before[name] = chosen(sysctl(name))
        set_sysctl(name, value)
    except OSError as e:
        # What was not written need not be restored, and may not be writable at all.
        if name in before and is_so(name, before[name]):
            del before[name]
        raise Refused(str(e)) from None


@contextlib.contextmanager
def sysctl_global(values):
    """Sets those of the whole machine, and restores them. Refused: it is impossible, and nothing has changed."""
    check_can_be_put_back(values)
    before = {}
    try:
        for name, value in values.items():
            _change(name, value, before)
        yield
    finally:
        _put_back(before)
