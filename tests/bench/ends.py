"""ends.py - the ends of a migration that is measured: one source, and a destination of each kind"""

import json
import os
import re
import shlex
import time

import qemu
from machine import cpu_seconds, peak_bytes
from qemu import Failed, MIB, PAGE_BYTES, wait_until

MIGRATION_SECONDS = 60
NO_LIMIT = 64 << 30       # bytes a second
SIZE_MIN = 64 * MIB
UNTOUCHED = 16 * MIB      # below: firmware and the guest's program
PIECE = 32 * MIB          # content is made once, for this much


def tls_args(variant, certs, endpoint, **more):
    """Arguments of object-add for QEMU's credentials."""
    return {"qom-type": "tls-creds-" + variant.tls, "id": "tls0", "endpoint": endpoint,
            "dir": os.path.join(certs, endpoint), **more}


def inmigrate_cipher():
    """The cipher that inmigrate chooses, by GnuTLS's name: AES where the CPU has instructions for it."""
    with open("/proc/cpuinfo") as f:
        flags = set(re.search(r"^(?:flags|Features)\s*:(.*)$", f.read(), re.M)[1].split())
    return "AES-128-GCM" if {"aes", "pclmulqdq"} <= flags or {"aes", "pmull"} <= flags else "CHACHA20-POLY1305"


# ---- the source ----

class Source:
    """A QEMU with a stopped guest full of content, which can be migrated again and again."""

    def __init__(self, bench, variant, folder):
        kernel = qemu.Guest(bench.folder).with_orders(os.path.join(folder, "guest.elf"))
        self.make = lambda name, incoming, machine="pc", args=(): qemu.Qemu(
            folder, bench.options.qemu, machine, "kvm" if qemu.have_kvm() else "tcg",
            self.size // MIB, args, kernel, name=name, incoming=incoming)
        self.size = max(SIZE_MIN, bench.options.size // variant.part)
        self.folder = folder
        self.certs = bench.certs
        self.variant = variant
        self.qemu = self.make("source", False)

    def start(self):
        self.qemu.start()
        self.qemu.wait_guest()
        self.qemu.qmp.command("stop")
        self._fill()
        params = {"max-bandwidth": NO_LIMIT, "downtime-limit": 1000, **self.variant.params}
        if self.variant.tls:
            self.qemu.qmp.command("object-add", **tls_args(self.variant, self.certs, "client"))
            params.update({"tls-creds": "tls0", "tls-hostname": "localhost"})
        self.qemu.set(caps=("events",) + self.variant.caps, params=params)

    def _fill(self):
        block = next(b for b in self.qemu.blocks() if b.name == "pc.ram")
        fill = getattr(self, "_" + self.variant.content)()
        with open(f"/proc/{self.qemu.process.child.pid}/mem", "r+b", buffering=0) as mem:
            for at in range(UNTOUCHED, self.size, PIECE):
                for off, data in fill(at, min(PIECE, self.size - at)):
                    mem.seek(block.hosts[0] + at + off)
                    write_all(mem, data)

    # Each returns a function of place and length, which returns what to write: pairs of offset and bytes.

    def _noise(self):
        """Random bytes: the same piece again and again from different odd places, so that no page equals another."""
        noise = os.urandom(PIECE) * 2

        def fill(at, length):
            shift = at // PIECE * 37 + 1
            return [(0, noise[shift:shift + length])]
        return fill

    def _holes(self):
        noise = os.urandom(PIECE)
        pages = [noise[at:at + PAGE_BYTES] for at in range(0, PIECE, PAGE_BYTES)]

        def fill(at, length):
            length = min(length, max(0, self.size // 2 - at))
            return [(off, pages[(off // PAGE_BYTES + at // PIECE) % len(pages)])
                    for off in range(0, length, 2 * PAGE_BYTES)]
        return fill

    def _mixed(self):
        """The same piece again and again from different pages: no compressor looks back that far."""
        with open(qemu.write_content(os.path.join(self.folder, "content"), PIECE), "rb") as f:
            mixed = f.read() * 2

        def fill(at, length):
            shift = at // PIECE * 37 * PAGE_BYTES % PIECE
            return [(0, mixed[shift:shift + length])]
        return fill

    def again(self):
        """Makes it ready for the next migration, as at the first."""
        if not self.qemu.running() and self.qemu.info().get("status"):
            self.qemu.qmp.command("cont")
            self.qemu.qmp.command("stop")

    def migrate(self, uri, check):
        """Migrate, and return the seconds it took and what query-migrate says of it."""
        start = time.time()
        self.qemu.migrate(uri)
        return wait_completed(self.qemu, start, check) - start, self.qemu.info()

    def close(self):
        self.qemu.close()


def write_all(file, data):
    view = memoryview(data)
    while view:
        view = view[file.write(view):]


def wait_completed(machine, since, check=lambda: None):
    """Wait for the event that a migration has completed, and return the time that QEMU put into it."""
    end = time.monotonic() + MIGRATION_SECONDS
    while True:
        while machine.qmp.events:
            event = machine.qmp.events.pop(0)
            stamp = event["timestamp"]["seconds"] + event["timestamp"]["microseconds"] / 1e6
            status = event.get("data", {}).get("status") if event["event"] == "MIGRATION" else None
            if stamp < since or not status:
                continue
            if status == "completed":
                return stamp
            if status in machine.ENDS:
                why = machine.info().get("error-desc", "no reason given")
                raise Failed(f"{machine.name}: migration {status}: {why}")
        check()
        # Events come by themselves; a short time-out lets check() look at the destination.
        try:
            machine.qmp.events.append(machine.qmp._receive(time.monotonic() + 1))
        except Failed:
            if time.monotonic() > end or machine.process.exited() is not None:
                raise


# ---- the destinations: start() returns the URI for the source, landed() the CPU seconds used since ----

class QemuSide:
    """QEMU's own destination. memfd: its memory is a shared memfd. cipher: the only one it accepts."""

    def __init__(self, source, variant, folder, memfd=False, cipher=None):
        self.name = "qemu-memfd" if memfd else "qemu-cipher" if cipher else "qemu"
        # The name of the backend is that of the RAM block.
        backend = f"memory-backend-memfd,id=pc.ram,size={source.size},share=on"
        self.qemu = (source.make(self.name, True, "pc,memory-backend=pc.ram", ("-object", backend)) if memfd
                     else source.make(self.name, True))
        self.variant = variant
        self.certs = source.certs
        self.priority = {"priority": "NORMAL:-CIPHER-ALL:+" + cipher} if cipher else {}
        self.folder = folder

    def start(self):
        self.qemu.start()
        params = dict(self.variant.params)
        if self.variant.tls:
            self.qemu.qmp.command("object-add", **tls_args(self.variant, self.certs, "server", **self.priority))
            params["tls-creds"] = "tls0"
        self.qemu.set(caps=("events",) + self.variant.caps, params=params)
        self.begin = time.time()
        uri = "tcp:127.0.0.1:0" if self.variant.transport == "tcp" else f"unix:{self.folder}/in"
        self.qemu.qmp.command("migrate-incoming", uri=uri)
        if self.variant.transport == "tcp":
            uri = f"tcp:127.0.0.1:{self.qemu.info()['socket-address'][0]['port']}"
        self.before = cpu_seconds(self.pid())
        return uri

    def pid(self):
        return self.qemu.process.child.pid

    def check(self):
        if self.qemu.process.exited() is not None:
            raise Failed(f"the destination QEMU ended: {self.qemu.process.errors().strip()[-300:]}")

    def landed(self):
        wait_completed(self.qemu, self.begin, self.check)
        return cpu_seconds(self.pid()) - self.before, peak_bytes(self.pid())

    def close(self):
        self.qemu.close()


class InmigrateSide:
    def __init__(self, bench, program, name, variant, folder):
        self.program = program
        self.name = name
        self.variant = variant
        self.folder = folder
        self.certs = bench.certs
        self.args = shlex.split(bench.options.inmigrate_args)
        self.process = None

    def start(self):
        uri = "tcp:127.0.0.1:0" if self.variant.transport == "tcp" else f"unix:{self.folder}/in"
        self.stats_path = os.path.join(self.folder, "stats.json")
        if os.path.exists(self.stats_path):
            os.unlink(self.stats_path)
        argv = [self.program, "listen", uri, "--stats", self.stats_path, "--timeout", MIGRATION_SECONDS,
                "--progress", "never"]
        argv += qemu.listen_args(self.variant.caps, self.variant.params)
        if self.variant.tls:
            argv += ["--tls-creds", os.path.join(self.certs, "server"), "--param", "tls-creds-type=" + self.variant.tls]
        self.process = qemu.Process(self.name, argv + self.args, self.folder)
        uri = wait_until("inmigrate to listen", self._address, 5)
        self.before = cpu_seconds(self.process.child.pid)
        return uri

    def pid(self):
        return self.process.child.pid

    def _address(self):
        said = self.process.output() + self.process.errors()
        found = re.search(r"^(?:inmigrate: )?listening on (.+)$", said, re.M)
        if not found and self.process.exited() is not None:
            raise Failed(f"inmigrate ended before it listened: {self.process.errors().strip()}")
        return found and found[1]

    def _ended(self):
        # Without reaping it: only its reaper, landed(), learns its peak of memory.
        return os.waitid(os.P_PID, self.pid(), os.WEXITED | os.WNOHANG | os.WNOWAIT)

    def check(self):
        ended = self._ended()
        if ended and ended.si_status != 0:
            raise Failed(f"inmigrate ended with {ended.si_status}: {self.process.errors().strip()[-300:]}")

    def landed(self):
        wait_until("inmigrate to end", self._ended, MIGRATION_SECONDS)
        self.check()
        _, status, usage = os.wait4(self.pid(), 0)
        self.process.child.returncode = os.waitstatus_to_exitcode(status)
        with open(self.stats_path) as f:
            stats = json.load(f)
        return stats["cpu_ms"] / 1000 - self.before, usage.ru_maxrss * 1024

    def close(self):
        if self.process:
            self.process.close()


class SinkSide:
    """bench_limits: receives into what `into` says, until the end of the stream."""

    def __init__(self, program, into, variant, folder, size):
        self.argv = [program, "--sink", variant.transport if variant.transport == "tcp" else f"unix:{folder}/in",
                     "--into", into, "--bytes", str(size), "--parallel", str(variant.connections)]
        self.name = "sink-" + into
        self.folder = folder
        self.process = None

    def start(self):
        self.process = qemu.Process(self.name, self.argv, self.folder)
        return wait_until("the sink to listen", lambda: self._line(r"^listening on (.+)$"), 10)

    def pid(self):
        return self.process.child.pid

    def _line(self, pattern):
        found = re.search(pattern, self.process.output(), re.M)
        if not found and self.process.exited() is not None:
            raise Failed(f"the sink has ended: {self.process.errors().strip()}")
        return found and found[1]

    def check(self):
        if self.process.exited() not in (None, 0):
            raise Failed(f"the sink has ended: {self.process.errors().strip()}")

    def landed(self):
        cpu = float(wait_until("the sink's end", lambda: self._line(r"^cpu_seconds ([0-9.]+)$"), 10))
        return cpu, 0

    def close(self):
        if self.process:
            self.process.close()
