"""qemu.py - the two ends of a migration as processes: a real QEMU as the source, inmigrate as the destination

Invariants:
(1) Every wait has a deadline; when it passes, Failed says why.
(2) No process outlives its owner: each one leads a process group, which close() kills; and the kernel kills it when
    this interpreter dies without closing it.
(3) The output of both sides stays in the case's folder.
Python's standard library only.
"""

import fcntl
import functools
import json
import os
import re
import random
import shutil
import signal
import socket
import struct
import subprocess
import time

import waiting
from signals import die_with_parent
from waiting import PATIENT_SECONDS

MIB = 1 << 20
PAGE_BYTES = 4096
HEARTBEAT_PAGES = 4096      # guest/guest.c
HERE = os.path.dirname(os.path.abspath(__file__))
KVM_GET_API_VERSION, KVM_CREATE_VM, KVM_API_VERSION = 0xae00, 0xae01, 12     # linux/kvm.h
# Under tcg 7.2 loses what its guest writes while it looks for changed pages, one page at a time and rarely (in one of
# 60 migrations of guests that write all the time). With a QEMU at the other end the page differs, too. 10.0 does not do
# it; about the releases between them nothing is known.
TCG_KEEPS_CHANGES_SINCE = (10, 0)


class Failed(Exception):
    """The case fails, and why."""


class Skipped(Exception):
    """The case cannot run here, and why."""


# waiting.wait_until(), by which a case fails.
wait_until = functools.partial(waiting.wait_until, failure=Failed)


class Process:
    """A child that leads a process group; its output goes to files: folder/name.out and folder/name.err.

    shown: it prints to the same place as this program, and the files stay empty.
    """

    def __init__(self, name, argv, folder, pass_fds=(), shown=False):
        self.name = name
        self.argv = [str(a) for a in argv]
        self.out_path = os.path.join(folder, name + ".out")
        self.err_path = os.path.join(folder, name + ".err")
        with open(os.path.join(folder, name + ".cmd"), "w") as f:
            f.write(" ".join(self.argv) + "\n")
        with open(self.out_path, "wb") as out, open(self.err_path, "wb") as err:
            self.child = subprocess.Popen(
                self.argv, stdin=subprocess.DEVNULL, stdout=None if shown else out, stderr=None if shown else err,
                pass_fds=pass_fds, start_new_session=True, preexec_fn=die_with_parent)

    def exited(self):
        """The exit status; None while it runs."""
        return self.child.poll()

    def wait(self, seconds):
        try:
            return self.child.wait(seconds)
        except subprocess.TimeoutExpired:
            raise Failed(f"{self.name} did not end within {seconds:g} s") from None

    def output(self):
        with open(self.out_path, errors="replace") as f:
            return f.read()

    def errors(self):
        with open(self.err_path, errors="replace") as f:
            return f.read()

    def close(self):
        # The group, not only the child, and even after the child's end: exec: starts a shell in the same group.
        try:
            os.killpg(self.child.pid, signal.SIGKILL)
        except (ProcessLookupError, PermissionError):
            pass
        self.child.wait()


class Qmp:
    """A QMP connection: one command at a time; keeps events in the order in which they come."""

    def __init__(self, path, alive, seconds=PATIENT_SECONDS):
        self.events = []
        self.buffer = b""
        self.sock = socket.socket(socket.AF_UNIX)
        wait_until("QMP to listen", lambda: self._connect(path, alive), seconds)
        self._receive(time.monotonic() + seconds)
        self.command("qmp_capabilities")

    def _connect(self, path, alive):
        if not alive():
            raise Failed("QEMU ended at once")
        try:
            self.sock.connect(path)
            return True
        except (FileNotFoundError, ConnectionRefusedError):
            return False

    def _receive(self, end):
        while b"\n" not in self.buffer:
            left = end - time.monotonic()
            if left <= 0:
                raise Failed("QMP does not answer")
            self.sock.settimeout(left)
            try:
                got = self.sock.recv(65536)
            except socket.timeout:
                continue
            except OSError as e:
                raise Failed(f"QMP: {e}") from None
            if not got:
                raise Failed("QEMU closed its QMP connection")
            self.buffer += got
        line, self.buffer = self.buffer.split(b"\n", 1)
        return json.loads(line)

    def command(self, name, _seconds=PATIENT_SECONDS, _fd=None, **arguments):
        """Run a command; underscores in argument names become hyphens. Raises QmpError for QEMU's error."""
        request = {"execute": name}
        if arguments:
            request["arguments"] = {k.replace("_", "-"): v for k, v in arguments.items()}
        data = json.dumps(request).encode() + b"\n"
        try:
            if _fd is None:
                self.sock.sendall(data)
            else:
                socket.send_fds(self.sock, [data], [_fd])
        except OSError as e:
            raise Failed(f"QMP: {e}") from None
        end = time.monotonic() + _seconds
        while True:
            answer = self._receive(end)
            if "event" in answer:
                self.events.append(answer)
            elif "error" in answer:
                raise QmpError(f"{name}: {answer['error']['desc']}")
            else:
                return answer["return"]

    def hmp(self, line):
        return self.command("human-monitor-command", command_line=line).replace("\r", "")

    def close(self):
        self.sock.close()


class QmpError(Failed):
    """QEMU refused a command."""


def version_of(binary):
    """A QEMU's version, such as (7, 2, 22); None if there is none."""
    try:
        text = subprocess.run([binary, "--version"], capture_output=True, text=True, timeout=10).stdout
    except (OSError, subprocess.TimeoutExpired):
        return None
    found = re.search(r"version (\d+)\.(\d+)\.(\d+)", text)
    return tuple(int(n) for n in found.groups()) if found else None


def have_kvm():
    """Whether a guest can run in it: some containers show the device and do not allow its use.

    With INTEROP_ACCEL=tcg in the environment the answer is no.
    """
    if os.environ.get("INTEROP_ACCEL") == "tcg":
        return False
    try:
        device = os.open("/dev/kvm", os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        if fcntl.ioctl(device, KVM_GET_API_VERSION, 0) != KVM_API_VERSION:
            return False
        os.close(fcntl.ioctl(device, KVM_CREATE_VM, 0))
        return True
    except OSError:
        return False
    finally:
        os.close(device)


def keeps_changes(version, kvm):
    """Whether a source of this version sends everything that its guest changes during the migration."""
    return kvm or version >= TCG_KEEPS_CHANGES_SINCE


def told(version, kvm):
    """For people: a source, and what runs its guest."""
    return f"QEMU {'.'.join(str(n) for n in version)} with {'kvm' if kvm else 'tcg'}"


def own(path):
    """Several processes may make it at the same time, so each makes it in a place of its own."""
    return f"{path}.{os.getpid()}"


class Guest:
    """The program in guest/, made once per folder, and orders for it."""

    MAGIC = b"inmigrate guest\0"

    def __init__(self, folder, cc=os.environ.get("CC", "cc")):
        self.program = os.path.join(folder, "guest.elf")
        if os.path.exists(self.program):
            return
        source = os.path.join(HERE, "guest")
        argv = cc.split() + [
            "-m32", "-march=i686", "-O2", "-Wall", "-Wextra", "-ffreestanding", "-fno-pic", "-fno-pie",
            "-fno-stack-protector", "-fcf-protection=none", "-mno-sse", "-nostdlib", "-static",
            "-Wl,--build-id=none,-z,noexecstack", "-Wl,-T," + os.path.join(source, "guest.ld"),
            "-o", own(self.program), os.path.join(source, "guest.c")]
        try:
            made = subprocess.run(argv, capture_output=True, text=True, timeout=60)
        except OSError as e:
            raise Skipped(f"no compiler for the guest: {e}") from None
        if made.returncode != 0:
            raise Skipped("the compiler makes no 32-bit x86 program: " + made.stderr.strip()[:200])
        os.rename(own(self.program), self.program)

    def with_orders(self, path, dirty=(0, 0), words=1, pause_ticks=0):
        """Write a copy that changes the guest-physical range `dirty` forever (empty: it halts)."""
        with open(self.program, "rb") as f:
            data = bytearray(f.read())
        at = data.index(self.MAGIC) + len(self.MAGIC)
        struct.pack_into("<4I", data, at, dirty[0], dirty[1], words, pause_ticks)
        with open(path, "wb") as f:
            f.write(data)
        return path


def write_content(path, length, seed=1):
    """Memory in which no page equals another: of eight pages one is zero, three compress well, four not at all."""
    if os.path.exists(path) and os.path.getsize(path) == length:
        return path
    numbers = random.Random(seed)
    with open(own(path), "wb") as f:
        for number in range(0, length // PAGE_BYTES, 8):
            f.write(bytes(PAGE_BYTES))
            for k in (1, 2):
                f.write(struct.pack("<I", number + k) * (PAGE_BYTES // 4))
            f.write(b"".join(struct.pack("<II", number + 3, i // 64) for i in range(PAGE_BYTES // 8)))
            f.write(numbers.randbytes(4 * PAGE_BYTES))
        f.truncate(length)
    os.rename(own(path), path)
    return path


class Block:
    """A RAM block of a source: idstr, bytes used and bytes at most, and the places where its first byte may be in
    QEMU's address space: one, several that cannot be told apart, or none."""

    def __init__(self, name, used, most, host=None):
        self.name = name
        self.used = used
        self.most = most
        self.hosts = [host] if host else []

    @property
    def file_name(self):
        return self.name.replace("/", "_") + ".raw"


class Qemu:
    """A QEMU with a guest in it. Make it, start() it, close() it in a finally."""

    ENDS = ("completed", "failed", "cancelled")
    QMP_SECONDS = 10    # until its first answer

    def __init__(self, folder, binary, machine="pc", accel="kvm", memory_mib=128, args=(), kernel=None, content=None,
                 content_at=16 * MIB, name="source", incoming=False):
        self.folder = folder
        self.name = name
        self.process = None
        self.qmp = None
        self.console = os.path.join(folder, name + ".console")
        self.qmp_path = os.path.join(folder, name + ".qmp")
        self.argv = [binary, "-machine", machine, "-accel", accel, "-m", str(memory_mib), "-nodefaults",
                     "-no-user-config", "-display", "none", "-qmp", f"unix:{self.qmp_path},server=on,wait=off",
                     "-chardev", f"file,id=console,path={self.console}",
                     "-device", "isa-debugcon,iobase=0xe9,chardev=console"]
        if kernel:
            self.argv += ["-kernel", kernel]
        if content:
            self.argv += ["-device", f"loader,file={content},addr={content_at:#x},force-raw=on"]
        if incoming:
            self.argv += ["-S", "-incoming", "defer"]
        self.argv += list(args)

    def start(self, pass_fds=()):
        self.process = Process(self.name, self.argv, self.folder, pass_fds)
        try:
            self.qmp = Qmp(self.qmp_path, lambda: self.process.exited() is None, self.QMP_SECONDS)
        except Failed as e:
            said = self.process.errors().strip()
            missing = re.search(r"'[^']+' is not a valid device model name", said)
            if missing:
                raise Skipped(f"this QEMU: {missing[0]}") from None
            raise Failed(f"{self.name}: {e}: {said[-300:]}") from None
        return self

    def close(self):
        if self.qmp:
            self.qmp.close()
        if self.process:
            self.process.close()

    # ---- the guest ----

    def heartbeats(self):
        try:
            return os.path.getsize(self.console)
        except FileNotFoundError:
            return 0

    def wait_guest(self, heartbeats=1, seconds=PATIENT_SECONDS):
        wait_until(f"the guest's heartbeat {heartbeats}", lambda: self.heartbeats() >= heartbeats, seconds)

    def running(self):
        return self.qmp.command("query-status")["running"]

    # ---- migration ----

    def set(self, caps=(), params=None):
        if caps:
            self.qmp.command("migrate-set-capabilities",
                             capabilities=[{"capability": c, "state": True} for c in caps])
        if params:
            self.qmp.command("migrate-set-parameters", **params)

    def migrate(self, uri):
        self.qmp.command("migrate", uri=uri)

    def start_postcopy(self):
        """Return: whether QEMU accepts it. It does not before the migration has begun."""
        try:
            self.qmp.command("migrate-start-postcopy")
            return True
        except QmpError:
            return False

    def come_back(self, uri, check, seconds=PATIENT_SECONDS):
        """After a loss in postcopy. A source that is still busy with the loss refuses for a while. check(): called
        meanwhile, may raise."""
        def accepted():
            try:
                self.qmp.command("migrate", uri=uri, resume=True)
                return True
            except QmpError as e:
                check()
                if "paused" not in str(e) and "Cannot resume" not in str(e):
                    raise
                return False
        wait_until("the source to come back", accepted, seconds)

    def info(self):
        return self.qmp.command("query-migrate")

    def wait_status(self, *wanted, seconds=PATIENT_SECONDS, also=None):
        """Wait for one of the statuses. also(): called each time, may raise."""
        def reached():
            info = self.info()
            status = info.get("status")
            if status in wanted:
                return info
            if status in self.ENDS:
                raise Failed(f"{self.name}: migration {status}, expected {' or '.join(wanted)}"
                             f" ({info.get('error-desc', 'no reason given')})")
            if also:
                also()
            return None
        return wait_until(f"the {self.name} to be {' or '.join(wanted)}", reached, seconds, every=0.02)

    # ---- memory ----

    def blocks(self):
        """All RAM blocks, and where they are."""
        found = []
        for line in self.qmp.hmp("info ramblock").splitlines():
            m = re.match(r"\s*(\S.*?)\s+\d+ [KMG]iB +0x[0-9a-f]+ +0x([0-9a-f]+) +0x([0-9a-f]+)(?: +0x([0-9a-f]+))?",
                         line)
            if m:
                found.append(Block(m[1], int(m[2], 16), int(m[3], 16), int(m[4], 16) if m[4] else None))
        if not found:
            raise Failed("'info ramblock' lists nothing")
        # 10.0 reports the addresses, 7.2 does not.
        if not all(b.hosts for b in found):
            self._locate_by_guest_view([b for b in found if not b.hosts])
            self._locate_by_size(found)
        return found

    def _locate_by_guest_view(self, blocks):
        """From the flat view of guest-physical memory: it names regions, which is the end of a block's name."""
        flat = re.search(r'AS "memory".*?\n((?: +[0-9a-f]{16}-.*\n)+)', self.qmp.hmp("info mtree -f"), re.S)
        for line in flat[1].splitlines() if flat else ():
            m = re.match(r" +([0-9a-f]{16})-[0-9a-f]{16} \(prio -?\d+, (?:ram|rom|romd)\): (.*?)"
                         r"(?: @([0-9a-f]+))?(?: KVM)?$", line)
            named = [b for b in blocks if b.name.split("/")[-1] == m[2]] if m else []
            if len(named) != 1 or named[0].hosts:
                continue
            host = re.search(r"is 0x([0-9a-f]+)", self.qmp.hmp(f"gpa2hva 0x{m[1]}"))
            if host:
                named[0].hosts = [int(host[1], 16) - int(m[3] or "0", 16)]

    def _locate_by_size(self, blocks):
        """Blocks that the guest does not see (option ROMs, firmware tables): QEMU maps each block by itself, between
        guard pages, so its mapping has exactly the block's length."""
        known = {h for b in blocks for h in b.hosts}
        with open(f"/proc/{self.process.child.pid}/maps") as f:
            maps = [re.match(r"([0-9a-f]+)-([0-9a-f]+) rw", line) for line in f]
        spans = [(int(m[1], 16), int(m[2], 16)) for m in maps if m]
        for block in blocks:
            if not block.hosts:
                block.hosts = [s for s, e in spans if e - s == block.most and s not in known]

    def read(self, host, length):
        """Bytes at an address in QEMU's own space. This includes the part that the guest cannot see: pmemsave would
        miss what VGA and the firmware shadow."""
        with open(f"/proc/{self.process.child.pid}/mem", "rb", buffering=0) as mem:
            mem.seek(host)
            got = b""
            while len(got) < length:
                more = mem.read(length - len(got))
                if not more:
                    raise Failed(f"{self.name}: no memory at {host + len(got):#x}")
                got += more
            return got


def listen_args(caps, params):
    """For `inmigrate listen`."""
    return [word for cap in caps for word in ("--cap", cap)] + \
        [word for key, value in (params or {}).items() for word in ("--param", f"{key}={value}")]


class Inmigrate:
    """The program under test, listening."""

    def __init__(self, folder, program, name="inmigrate", seconds=2 * PATIENT_SECONDS):
        self.folder = folder
        self.program = program
        self.name = name
        self.seconds = seconds
        self.process = None
        self.more = []      # arguments
        self.ram_dir = os.path.join(folder, "ram")
        self.devices_path = os.path.join(folder, "devices.json")
        self.stats_path = os.path.join(folder, "stats.json")

    def start(self, uri, caps=(), params=None, pass_fds=(), shown=False, progress="never", verbose=False, ram=()):
        os.makedirs(self.ram_dir, exist_ok=True)
        argv = [*self.prefix(), self.program, "listen", uri, "--ram-dir", self.ram_dir, "--devices", self.devices_path,
                "--stats", self.stats_path, "--timeout", str(self.seconds), "--progress", progress, *self.more]
        argv += ["-v"] * verbose + listen_args(caps, params)
        for name, path in ram:
            argv += ["--ram", f"{name}={path}"]
        self.process = Process(self.name, argv, self.folder, pass_fds, shown)
        return self

    def prefix(self):
        """The words before the program."""
        return []

    def address(self, seconds=PATIENT_SECONDS):
        """The address it listens on, with the real port."""
        def said():
            m = re.search(r"^listening on (.+)$", self.process.output(), re.M)
            if not m and self.process.exited() is not None:
                raise Failed(f"inmigrate ended before it listened: {self.errors()}")
            return m
        return wait_until("inmigrate to listen", said, seconds)[1]

    def errors(self):
        return self.process.errors().strip() if self.process else ""

    def check_alive(self):
        status = self.process.exited()
        if status not in (None, 0):
            raise Failed(f"inmigrate ended with {status}: {self.errors()}")

    def wait_landed(self, seconds=PATIENT_SECONDS):
        status = self.process.wait(seconds)
        if status != 0:
            raise Failed(f"inmigrate ended with {status}: {self.errors()}")

    def wait_failed(self, pattern, seconds=PATIENT_SECONDS):
        """It must end with 1 and one line that matches pattern; warnings about refused connections may come before
        it."""
        status = self.process.wait(seconds)
        text = self.errors()
        if status != 1:
            raise Failed(f"inmigrate ended with {status}, expected 1: {text}")
        last = re.sub(r"^(inmigrate: warning: connection from \S+ closed: .*\n)*", "", text)
        if "\n" in last or not re.search(pattern, last):
            raise Failed(f"inmigrate says '{text}', expected one line with '{pattern}'")

    def refused(self, pattern, seconds=PATIENT_SECONDS):
        """Whether it ended with 1 and a reason that matches: for guests that may be landed or refused."""
        return self.process.wait(seconds) == 1 and re.search(pattern, self.errors()) is not None

    def stats(self):
        return _load(self.stats_path)

    def devices(self):
        found = _load(self.devices_path)
        return found["devices"] if isinstance(found, dict) else found

    def open_block(self, block):
        """A reader for a landed block: read(offset, length); None if there is no such block."""
        path = os.path.join(self.ram_dir, block.file_name)
        if not os.path.exists(path):
            return None
        length = os.path.getsize(path)

        def read(offset, count):
            with open(path, "rb") as f:
                f.seek(offset)
                return f.read(count)
        return read, length

    def close(self):
        if self.process:
            self.process.close()


def _load(path):
    try:
        with open(path) as f:
            return json.load(f)
    except (OSError, ValueError) as e:
        raise Failed(f"{os.path.basename(path)}: {e}") from None


class Compared:
    """What compare() found: lists of (name, bytes)."""

    def __init__(self):
        self.equal = []
        self.out_of_reach = []
        self.ignored = []


def compare(source, destination, ignore=(), ignored_are_empty=True, chunk=8 * MIB):
    """Compare each RAM block of the stopped source with the landed one, byte for byte.

    ignore: names of blocks that were not sent: they must be absent, or read as zeros.
    """
    result = Compared()
    for block in source.blocks():
        landed = destination.open_block(block)
        if block.name in ignore:
            if landed and ignored_are_empty and not all_zero(*landed, chunk):
                raise Failed(f"RAM block '{block.name}' was not to be sent, and is not empty")
            result.ignored.append((block.name, block.used))
            continue
        if not landed:
            raise Failed(f"RAM block '{block.name}' is missing at the destination")
        if landed[1] < block.used:
            raise Failed(f"RAM block '{block.name}' has {landed[1]:#x} bytes at the destination, not {block.used:#x}")
        if not block.hosts:
            result.out_of_reach.append((block.name, block.used))
            continue
        _compare_block(source, block, landed[0], chunk)
        result.equal.append((block.name, block.used))
    return result


def _compare_block(source, block, read, chunk):
    hosts = block.hosts
    for offset in range(0, block.used, chunk):
        ours = read(offset, min(chunk, block.used - offset))
        theirs = [source.read(host + offset, len(ours)) for host in hosts]
        hosts = [host for host, bytes_there in zip(hosts, theirs) if bytes_there == ours]
        if not hosts:
            _report_difference(block, offset, ours, theirs[0])


def all_zero(read, length, chunk):
    return all(not any(read(at, min(chunk, length - at))) for at in range(0, length, chunk))


def _report_difference(block, base, ours, theirs):
    wrong = [at for at in range(0, len(theirs), PAGE_BYTES) if ours[at:at + PAGE_BYTES] != theirs[at:at + PAGE_BYTES]]
    a, b = ours[wrong[0]:wrong[0] + PAGE_BYTES], theirs[wrong[0]:wrong[0] + PAGE_BYTES]
    byte = next(i for i in range(PAGE_BYTES) if a[i:i + 1] != b[i:i + 1])
    raise Failed(f"RAM block '{block.name}' differs in {len(wrong)} pages of the {len(theirs)} bytes at {base:#x},"
                 f" first at {base + wrong[0] + byte:#x}: source {b[byte:byte + 16].hex()},"
                 f" destination {a[byte:byte + 16].hex()}")


def remove(path):
    shutil.rmtree(path, ignore_errors=True)
