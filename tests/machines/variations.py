"""variations.py - ways in which machines differ; each variation changes one thing

`skips`: words of the reasons for which a test may be skipped with the change and not without. Any other test that is
skipped, fails or is missing is a failure of the variation.
"""

import os
import resource
import signal
import subprocess
from dataclasses import dataclass, field
from typing import Callable, Optional

import machine

NOBODY, NO_NAME = 65534, 54321
MIB = 1 << 20
SHMEM_HUGE = "/sys/kernel/mm/transparent_hugepage/shmem_enabled"
HUGE = "/sys/kernel/mm/transparent_hugepage/enabled"
NO_KVM = (r"no /dev/kvm", r"without KVM")
# What root may do and others may not.
ROOTS = (r"(?i)\broot\b", r"(?i)privilege", r"(?i)permi(tted|ssion)", r"(?i)huge pages?\b", r"hugetlb", r"CAP_\w+",
         r"may make no network namespace", r"for this user", r"/dev/net/tun", r"userfaultfd", *NO_KVM)


@dataclass
class Variation:
    name: str
    what: str
    inside: Optional[Callable] = None       # runs in the process that becomes make: what it changes ends with it
    machine: dict = field(default_factory=dict)    # sysctls of the whole machine
    env: dict = field(default_factory=dict)        # None: unset. {folder}: that of this run
    command: tuple = ()                      # before make
    uid: Optional[int] = None
    needs: tuple = ()                        # functions that say why it is impossible
    skips: tuple = ()
    background: bool = False
    stdin: str = "null"                      # or "closed"
    arguments: tuple = ()                    # of make
    part: str = ""                           # of the machine: only one at a time of those that change the same

    def __post_init__(self):
        machine.check_can_be_put_back(self.machine)

    def why_not(self):
        """Why this is impossible here, or None."""
        for need in self.needs:
            why = need()
            if why:
                return why
        for name in self.machine:
            if os.geteuid() != 0:
                return "only root may change " + name
            if not os.path.exists(machine.sysctl_path(name)):
                return f"this kernel has no {name}"
        if self.machine and all(machine.is_so(name, value) for name, value in self.machine.items()):
            return "this machine is so already"
        return None

    def conflict(self, other):
        """What both change, to different values; or None."""
        for mine, others in ((self.machine, other.machine), (self.env, other.env)):
            for name in mine.keys() & others.keys():
                if mine[name] != others[name]:
                    return name
        if None not in (self.uid, other.uid) and self.uid != other.uid:
            return "the user"
        if self.part and self.part == other.part:
            return self.part
        return None


# ---- needs ---------------------------------------------------------------------------------------------

def root():
    return None if os.geteuid() == 0 else "only root may do that"


def other_limit(which, soft):
    return lambda: "the limit is this already" if resource.getrlimit(which)[0] == soft else None


def has_sbin():
    return None if "sbin" in os.environ.get("PATH", "") else "PATH has none to take away"


def has_congestion_control(name):
    def need():
        known = machine.sysctl("net.ipv4.tcp_available_congestion_control").split()
        return None if name in known else f"this kernel has no {name}"
    return need


def has_locale(name):
    def need():
        said = subprocess.run(["locale", "-a"], capture_output=True, text=True, check=False).stdout.split()
        return None if name.lower().replace("-", "") in [s.lower().replace("-", "") for s in said] \
            else f"no locale {name} is installed"
    return need


def has_ipv6():
    return None if os.path.exists("/proc/sys/net/ipv6") else "this kernel has no IPv6 to take away"


def has_kvm():
    return None if os.path.exists("/dev/kvm") else "there is no /dev/kvm to take away"


def can_filter():
    return None if os.uname().machine in machine.SOCKET_CALL else "the filter is not written for this processor"


# ---- changes --------------------------------------------------------------------------------------------------

def network(**values):
    def inside(_folder):
        machine.own_network()
        for name, value in values.items():
            machine.set_sysctl("net." + name.replace("__", "."), value)
    return inside


def inherited(name):
    """Whether the network namespaces that tests make begin with the machine's settings."""
    def inside(_folder):
        here, there = machine.sysctl(name), machine.in_new_network(name)
        if here != there:
            raise machine.Refused(f"{name} is {here!r}, and {there!r} in a new network namespace")
    return inside


def mounts(change):
    def inside(folder):
        machine.own_mounts()
        change(folder)
    return inside


def limit(which, soft, hard=None):
    def inside(_folder):
        try:
            resource.setrlimit(which, (soft, soft if hard is None else hard))
        except ValueError as e:
            raise machine.Refused(str(e)) from None
    return inside


def ignoring(*names):
    def inside(_folder):
        for name in names:
            signal.signal(getattr(signal, "SIG" + name), signal.SIG_IGN)
    return inside


def blocking(_folder):
    signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())


def without_ipv6(_folder):
    machine.own_network()
    for which in ("all", "default", "lo"):
        machine.set_sysctl(f"net.ipv6.conf.{which}.disable_ipv6", "1")


def no_inet6(_folder):
    machine.no_inet6_sockets()


def temporary(flags):
    """/tmp and TMPDIR in memory. The folder of this run may be below /tmp, and TMPDIR is below that."""
    def change(folder):
        machine.mount_in_memory_but("/tmp", 512, folder, flags)
        machine.mount_in_memory(os.environ["TMPDIR"], 512, flags)
    return mounts(change)


def sysctls(prefix, values, skips=()):
    """(name, what, {sysctl: value}) each, of the whole machine."""
    return [Variation(f"{prefix}-{name}", what, machine=setting, skips=skips) for name, what, setting in values]


def ordinary():
    """Some limits do not bind root."""
    return NOBODY if os.geteuid() == 0 else None


def networks():
    # Of the whole machine: the tests about loss make network namespaces, which begin with what the first one has.
    allowed, used = "net.ipv4.tcp_allowed_congestion_control", "net.ipv4.tcp_congestion_control"
    for name in ("cubic", "reno", "bbr"):
        setting = {used: name}
        if os.path.exists(machine.sysctl_path(allowed)):
            # First, and restored last: what is in use must be allowed.
            setting = {allowed: " ".join(sorted({*machine.sysctl(allowed).split(), name})), **setting}
        yield Variation(f"tcp-{name}", f"{used} = {name}", inherited(used), machine=setting,
                        needs=(root, has_congestion_control(name)))
    for name, ways in (("small", "4096 8192 16384"), ("large", "4096 4194304 67108864")):
        def both(folder):
            inherited("net.ipv4.tcp_rmem")(folder)
            inherited("net.ipv4.tcp_wmem")(folder)
        yield Variation(f"tcp-buffers-{name}", f"net.ipv4.tcp_rmem, tcp_wmem = {ways}", both,
                        machine={"net.ipv4.tcp_rmem": ways, "net.ipv4.tcp_wmem": ways}, needs=(root,))
    yield Variation("tcp-keepalive-short", "net.ipv4.tcp_keepalive_time, intvl, probes = 1, 1, 1",
                    network(ipv4__tcp_keepalive_time="1", ipv4__tcp_keepalive_intvl="1", ipv4__tcp_keepalive_probes="1"),
                    needs=(root,), part="keepalive")
    yield Variation("tcp-keepalive-long", "net.ipv4.tcp_keepalive_time, intvl, probes = 32767, 32767, 127",
                    network(ipv4__tcp_keepalive_time="32767", ipv4__tcp_keepalive_intvl="32767",
                            ipv4__tcp_keepalive_probes="127"), needs=(root,), part="keepalive")
    # Not fewer: each closed connection holds its port for a minute, and some tests open thousands.
    yield Variation("few-ports", "net.ipv4.ip_local_port_range = 32768 40959",
                    network(ipv4__ip_local_port_range="32768 40959"), needs=(root,))
    yield Variation("no-ipv6-addresses", "net.ipv6.conf.*.disable_ipv6 = 1", without_ipv6, needs=(root, has_ipv6),
                    skips=(r"(?i)ipv6", r"::1"))
    yield Variation("no-ipv6", "socket(AF_INET6) says EAFNOSUPPORT", no_inet6, needs=(can_filter,),
                    skips=(r"(?i)ipv6", r"::1", *ROOTS))
    yield Variation("no-network", "a network namespace with nothing but lo", network(), needs=(root,))


def memories():
    yield from sysctls("overcommit", (
        ("always", "vm.overcommit_memory = 1", {"vm.overcommit_memory": "1"}),
        ("never", "vm.overcommit_memory = 2, ratio 80", {"vm.overcommit_ratio": "80", "vm.overcommit_memory": "2"})),
        skips=(r"(?i)overcommit",))
    yield from sysctls("huge", (
        ("always", "transparent huge pages: always", {HUGE: "always"}), ("never", "never", {HUGE: "never"}),
        ("shmem-always", "and those of shared memory: always", {SHMEM_HUGE: "always"}),
        ("shmem-never", "never", {SHMEM_HUGE: "never"})), skips=(r"(?i)transparent huge",))
    # Neither works for root, who may do everything.
    for name, value, skips in (("all", "1", tuple(w for w in ROOTS if w != "userfaultfd")), ("root", "0", ROOTS)):
        yield Variation(f"userfaultfd-for-{name}", f"vm.unprivileged_userfaultfd = {value}, an ordinary user",
                        machine={"vm.unprivileged_userfaultfd": value}, uid=NOBODY, needs=(root,), skips=skips)
    # Not 3: that lasts until the machine boots again.
    yield Variation("ptrace-of-nobody", "kernel.yama.ptrace_scope = 2, an ordinary user",
                    machine={"kernel.yama.ptrace_scope": "2"}, uid=NOBODY, needs=(root,), skips=(r"gdb", r"ptrace", *ROOTS))


def limits():
    yield Variation("64-files", "64 open files, soft and hard", limit(resource.RLIMIT_NOFILE, 64), part="open files",
                    skips=(r"(?i)open files|descriptors", ))
    yield Variation("64-files-soft", "64 open files, and more for whoever asks",
                    limit(resource.RLIMIT_NOFILE, 64,
                          4096 if resource.getrlimit(resource.RLIMIT_NOFILE)[1] > 4096 else 1024), part="open files")
    for name, size in (("8-mib", 8 * MIB), ("64-kib", 65536), ("none", 0)):
        yield Variation(f"locked-{name}", f"{size} bytes of locked memory, an ordinary user",
                        limit(resource.RLIMIT_MEMLOCK, size), uid=ordinary(),
                        needs=(other_limit(resource.RLIMIT_MEMLOCK, size),),
                        skips=(r"RLIMIT_MEMLOCK|locked memory", *ROOTS), part="locked memory")
    for name, what, size in (("cores", "core files without a limit", resource.RLIM_INFINITY),
                             ("no-cores", "no core files", 0)):
        yield Variation(name, what, limit(resource.RLIMIT_CORE, size), needs=(other_limit(resource.RLIMIT_CORE, size),),
                        part="core files")


def words():
    yield Variation("lc-c", "LC_ALL=C", env={"LC_ALL": "C", "LANG": None, "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"})
    yield Variation("lc-c-utf8", "LC_ALL=C.UTF-8", env={"LC_ALL": "C.UTF-8"}, needs=(has_locale("C.UTF-8"),))
    for name in ("de_DE.UTF-8", "tr_TR.UTF-8"):
        yield Variation("lc-" + name[:2], f"LC_ALL={name}", env={"LC_ALL": name}, needs=(has_locale(name),))
    yield Variation("lc-missing", "LC_ALL names a locale that is not installed", env={"LC_ALL": "xx_XX.UTF-8"})
    yield Variation("no-lang", "neither LANG nor LC_*", env={"LANG": None, "LC_ALL": None, "LC_CTYPE": None})
    yield Variation("time-zone", "TZ=Asia/Kathmandu", env={"TZ": "Asia/Kathmandu"})
    yield Variation("no-home", "HOME unset, USER and LOGNAME too", env={"HOME": None, "USER": None, "LOGNAME": None})
    yield Variation("cdpath", "CDPATH, GREP_OPTIONS, GREP_COLORS, POSIXLY_CORRECT are set",
                    env={"CDPATH": "/usr:/", "GREP_OPTIONS": "--color=always", "GREP_COLORS": "mt=01;31",
                         "POSIXLY_CORRECT": "1"})
    yield Variation("python-options", "PYTHONPATH, PYTHONOPTIMIZE, PYTHONWARNINGS are set",
                    env={"PYTHONPATH": "/nonexistent", "PYTHONOPTIMIZE": "1", "PYTHONWARNINGS": "error::SyntaxWarning"})
    yield Variation("short-path", "PATH without sbin folders",
                    env={"PATH": ":".join(p for p in os.environ.get("PATH", "").split(":") if "sbin" not in p)},
                    needs=(has_sbin,))
    yield Variation("jobs", "make -j3, and MAKEFLAGS says -k", env={"MAKEFLAGS": "k"}, arguments=("-j3",))


def starts():
    yield Variation("ignored", "HUP, INT, QUIT, TERM, PIPE, CHLD, ALRM, USR1 are ignored at the start",
                    ignoring("HUP", "INT", "QUIT", "TERM", "PIPE", "CHLD", "ALRM", "USR1"))
    yield Variation("blocked", "all signals are blocked at the start", blocking)
    yield Variation("nohup", "below nohup(1)", command=("nohup",))
    yield Variation("background", "a background job of a shell", background=True)
    yield Variation("setsid", "below setsid(1)", command=("setsid", "--wait"))
    yield Variation("no-input", "standard input is closed", stdin="closed")
    yield Variation("umask-077", "umask 077", lambda _: os.umask(0o077), part="umask")
    yield Variation("umask-000", "umask 000", lambda _: os.umask(0), part="umask")
    yield Variation("user", "an ordinary user", uid=NOBODY, needs=(root,), skips=ROOTS)
    yield Variation("user-without-name", "a user that /etc/passwd does not know", uid=NO_NAME, needs=(root,), skips=ROOTS)


def places():
    yield Variation("space", "TMPDIR with a space in it", env={"TMPDIR": "{folder}/a folder with  spaces"},
                    skips=("with a space in its name",))
    yield Variation("long-tmpdir", "TMPDIR of 120 characters", env={"TMPDIR": "{folder}/" + "long-name-" * 9})
    yield Variation("read-only", "the source folder cannot be written to",
                    mounts(lambda folder: machine.make_read_only(os.path.join(folder, "source"))), needs=(root,))
    yield Variation("small-shm", "/dev/shm of 64 MiB", mounts(lambda _: machine.mount_in_memory("/dev/shm", 64)),
                    needs=(root,))
    yield Variation("no-kvm", "no /dev/kvm", mounts(lambda _: machine.take_away("/dev/kvm")), needs=(root, has_kvm),
                    skips=NO_KVM, part="/dev/kvm")
    yield Variation("kvm-is-none", "/dev/kvm opens, and is no KVM", mounts(lambda _: machine.hide("/dev/kvm")),
                    needs=(root, has_kvm), skips=NO_KVM, part="/dev/kvm")
    yield Variation("no-tun", "no /dev/net/tun", mounts(lambda _: machine.take_away("/dev/net/tun")),
                    needs=(root, lambda: None if os.path.exists("/dev/net/tun") else "there is none to take away"),
                    skips=(r"/dev/net/tun", r"tun\b"))
    for name, what, flags in (("in-memory", "/tmp and TMPDIR in memory", machine.MS_NOSUID | machine.MS_NODEV),
                              ("noexec", "nothing in /tmp and TMPDIR can be executed",
                               machine.MS_NOSUID | machine.MS_NODEV | machine.MS_NOEXEC)):
        yield Variation("tmp-" + name, what, temporary(flags), needs=(root,), part="/tmp",
                        skips=(r"below TMPDIR can be executed",) if flags & machine.MS_NOEXEC else ())


def all_variations():
    return [v for group in (networks, memories, limits, words, starts, places) for v in group()]


def together(parts):
    """All of them at once."""
    def inside(folder):
        for part in parts:
            if part.inside:
                part.inside(folder)
    one = Variation("+".join(p.name for p in parts), "; ".join(p.what for p in parts), inside)
    for part in parts:
        one.machine.update(part.machine)
        one.env.update(part.env)
        one.command += part.command
        one.uid = part.uid if part.uid is not None else one.uid
        one.needs += part.needs
        one.skips += part.skips
        one.background |= part.background
        one.stdin = part.stdin if part.stdin != "null" else one.stdin
        one.arguments += part.arguments
    return one
