"""postcopy.py - how long a guest waits for pages while it walks through memory that is still at the source

The same source and the same walk go into inmigrate and into QEMU's own destination. On QEMU's the guest walks
(tests/interop/guest), on inmigrate's a toucher does, through the same pages in the same order. Both read their own
clock before and after each access, and keep the accesses above 2 us.

(1) Before the switch the source sends almost nothing (a tiny max-bandwidth); after it there is no limit. Pages that
    nobody waits for come anyway, as fast as they can, and a walk cannot end before they have come. The walks called
    `faults-` limit that (max-postcopy-bandwidth), so what they touch is still at the source.
(2) The walked range is a RAM block of its own, filled with noise: no page is zero, and none equals another.
(3) Under tcg an access to a page that the guest has not seen before fills a TLB. That takes 1 to 4 us, and is in QEMU's
    numbers. `nothing-missing` is the same guest with all its memory present: we subtract its sum from QEMU's sum. Means
    count only accesses above FAULT_NS, on both sides, so that neither this nor a page that is mapped at once makes a
    mean look better than a fault is.
(4) kvm is used only where it runs the guest's code and does not emulate it: otherwise the walk is slower than the
    source.
(5) CPU is the destination's without the thread that walks (the JSON also has it with that), from listening to landed.
    Thread numbers tell threads apart: the vCPU's, the touchers'. The remaining one is inmigrate's.
(6) Each round has every destination, in alternating order; ratios are taken in each round, then their median.
"""

import json
import os
import re
import statistics
import struct
import subprocess
import time

import ends
import qemu
from machine import (ThreadTimes, cpu_seconds, machine_busy_seconds, set_priority, undisturbed, wait_quiet,
                     warm_free_memory)
from qemu import Failed, MIB, PAGE_BYTES, Skipped, wait_until
from variants import Variant

LOW = 64 * MIB            # the block before the walked one: firmware and the guest's program
HOLD = 0x77               # of tests/interop/guest
FAULT_NS = 8192           # an octave's beginning
TRICKLE = 2 * MIB
PUSH = 32 * MIB
PUSH_SINCE = (8, 0)       # in 7.2 the limit delays requested pages, too, by up to 0.1 s
ORDERS = {"seq": 0, "stride": 1, "random": 2}


class Walk:
    """pattern: of --guest touch=; stride in pages; preempt, or everything over the main channel; push: bytes a second
    that the source sends without a request, 0 without a limit; touchers: more than one only for inmigrate, because
    QEMU's guest has one CPU."""

    def __init__(self, name, pattern, stride=0, preempt=True, push=0, touchers=1, since=(7, 2), sides=()):
        self.name = "postcopy-" + name
        self.pattern = pattern
        self.stride = stride
        self.preempt = preempt
        self.push = push
        self.since = since
        self.touchers = touchers
        self.sides = sides
        self.caps = ("postcopy-ram",) + (("postcopy-preempt",) if preempt else ())

    def touch(self):
        pattern = f"stride:{self.stride * PAGE_BYTES}" if self.stride else self.pattern
        # Many of them take long to read everything, even after the last page has come.
        end = "passes=1" if self.touchers == 1 else "passes=1,seconds=3"
        return f"touch={self.touchers},pattern={pattern},access=read,block=n1,{end}"

    def orders(self, program, path, length, tick_ns):
        """A copy of the guest's program that holds, then walks once through n1. guest.c, struct orders."""
        with open(program, "rb") as f:
            data = bytearray(f.read())
        at = data.index(qemu.Guest.MAGIC) + len(qemu.Guest.MAGIC)
        struct.pack_into("<10I", data, at, 0, 0, 1, 0, LOW, length // PAGE_BYTES, ORDERS[self.pattern], self.stride, 1,
                         tick_ns)
        with open(path, "wb") as f:
            f.write(data)
        return path


WALKS = (
    Walk("seq", "seq"),
    Walk("stride", "stride", stride=16),
    Walk("random", "random"),
    Walk("seq-plain", "seq", preempt=False),
    Walk("random-plain", "random", preempt=False),
    Walk("faults-seq", "seq", push=PUSH, since=PUSH_SINCE),
    Walk("faults-stride", "stride", stride=16, push=PUSH, since=PUSH_SINCE),
    Walk("faults-random", "random", push=PUSH, since=PUSH_SINCE),
) + tuple(Walk(f"touchers-{n}", "random", touchers=n, sides=("inmigrate",)) for n in (1, 2, 4, 16, 64))


# ---- latencies: {"count", "sum_ns", "max_ns", "octaves": {index: (count, sum_ns)}, "walk_ns"} ----

def guest_latency(console):
    """What the guest has reported of its walk; None before that."""
    with open(console, errors="replace") as f:
        found = re.search(r"^walk 0 reads=(\S+) all=(\S+) slow=(\S+) sum=(\S+) max=(\S+) log2=(\S*)\n", f.read(), re.M)
    if not found:
        return None
    reads, walk, count, total, most = (int(found[i], 16) for i in range(1, 6))
    octaves = {}
    for each in found[6].split(","):
        if each:
            index, n, ns = (int(word, 16) for word in each.split(":"))
            octaves[index] = (n, ns)
    return {"reads": reads, "count": count, "sum_ns": total, "max_ns": most, "octaves": octaves, "walk_ns": walk}


def toucher_latency(touch):
    """The same from --stats. It does not give the sum of each octave: we take the middle, and share out the rest."""
    latency = touch["latency_us"]
    octaves = {round(e["from_us"] * 1000).bit_length() - 1: e["count"] for e in latency["histogram"]}
    guess = {i: n * 1.44 * 2 ** i for i, n in octaves.items()}
    total = latency["mean"] * latency["count"] * 1000
    high = sum(ns for i, ns in guess.items() if 2 ** i >= FAULT_NS)
    factor = (total - sum(ns for i, ns in guess.items() if 2 ** i < FAULT_NS)) / high if high else 1
    return {"reads": touch["accesses"], "count": latency["count"], "sum_ns": total, "max_ns": latency["max"] * 1000,
            "octaves": {i: (n, guess[i] * (factor if 2 ** i >= FAULT_NS else 1)) for i, n in octaves.items()},
            "walk_ns": touch["seconds"] * 1e9}


def above(latency, least_ns):
    """How many faults, and their mean in us."""
    picked = [each for i, each in latency["octaves"].items() if 2 ** i >= least_ns]
    count = sum(n for n, _ in picked)
    return count, sum(ns for _, ns in picked) / count / 1000 if count else 0


def quantile_us(latency, part):
    """Interpolates linearly within an octave; counts accesses above FAULT_NS."""
    octaves = {i: n for i, (n, _) in latency["octaves"].items() if 2 ** i >= FAULT_NS}
    wanted = sum(octaves.values()) * part
    for i, n in sorted(octaves.items()):
        if n >= wanted:
            return 2 ** i * (1 + wanted / n) / 1000
        wanted -= n
    return 0


# ---- both ends ----

class Machines:
    """Makes the QEMUs of one variant, which differ only where they must."""

    def __init__(self, bench, walk, folder):
        self.bench, self.walk, self.folder = bench, walk, folder
        self.length = bench.options.walk
        self.size = LOW + self.length
        program = qemu.Guest(bench.folder).program
        self.kernel = walk.orders(program, os.path.join(folder, "guest.elf"), self.length, bench.tick_ns)

    def make(self, name, incoming, backend="memory-backend-ram,share=off", more=""):
        accel = self.bench.options.accel
        args = ["-global", f"isa-debugcon.readback={0xe9 if incoming or name == 'control' else HOLD}"]
        for number, length in enumerate((LOW, self.length)):
            args += ["-object", f"{backend},id=n{number},size={length}{more}", "-numa", f"node,memdev=n{number}"]
        made = qemu.Qemu(self.folder, self.bench.options.qemu, "pc", accel, self.size // MIB, args, self.kernel,
                         name=name, incoming=incoming)
        if incoming:
            made.argv.remove("-S")   # the guest runs as soon as it has moved
        return made


class WalkSource(ends.Source):
    """A QEMU whose guest holds, with one block of noise; can be migrated again and again."""

    def __init__(self, machines):
        self.machines = machines
        self.size = machines.length
        self.folder = machines.folder
        self.qemu = machines.make("source", False)

    def start(self):
        self.qemu.start()
        self.qemu.wait_guest(seconds=60)
        self.qemu.qmp.command("stop")
        block = next(b for b in self.qemu.blocks() if b.name == "n1")
        if len(block.hosts) != 1:
            raise Failed("where the block n1 is cannot be told")
        fill = self._noise()
        with open(f"/proc/{self.qemu.process.child.pid}/mem", "r+b", buffering=0) as mem:
            for at in range(0, self.size, ends.PIECE):
                for off, data in fill(at, min(ends.PIECE, self.size - at)):
                    mem.seek(block.hosts[0] + at + off)
                    ends.write_all(mem, data)
        self.qemu.set(caps=("events",) + self.machines.walk.caps, params={
            "max-bandwidth": TRICKLE, "max-postcopy-bandwidth": self.machines.walk.push})

    def again(self):
        if not self.qemu.running():
            self.qemu.qmp.command("cont")

    def migrate(self, uri, check):
        start = time.time()
        self.qemu.migrate(uri)
        wait_until("the source to begin", self.qemu.start_postcopy, 20, every=0.001)
        switched = time.time()
        return ends.wait_completed(self.qemu, start, check) - switched, self.qemu.info()


class WalkQemu(ends.QemuSide):
    def __init__(self, machines, memfd):
        self.name = "qemu-memfd" if memfd else "qemu"
        self.machines, self.folder = machines, machines.folder
        backend = "memory-backend-memfd,share=on" if memfd else "memory-backend-ram,share=off"
        self.qemu = machines.make(self.name, True, backend)

    def start(self):
        self.qemu.start()
        self.qemu.set(caps=("events", "postcopy-blocktime") + self.machines.walk.caps)
        self.begin = time.time()
        self.qemu.qmp.command("migrate-incoming", uri="tcp:127.0.0.1:0")
        self.vcpu = self.qemu.qmp.command("query-cpus-fast")[0]["thread-id"]
        self.before = cpu_seconds(self.pid())
        self.vcpu_before = ThreadTimes(self.pid()).end()[self.vcpu]
        self.times = ThreadTimes(self.pid())
        return f"tcp:127.0.0.1:{self.qemu.info()['socket-address'][0]['port']}"

    def landed(self):
        ends.wait_completed(self.qemu, self.begin, self.check)
        latency = wait_until("the guest's walk to end", lambda: guest_latency(self.qemu.console), 120)
        cpu = cpu_seconds(self.pid()) - self.before
        walker = (self.times.end()[self.vcpu] - self.vcpu_before) / 1e9
        info = self.qemu.info()
        own = {k: v for k, v in info.items() if k.startswith("postcopy-")}
        return cpu, walker, latency, own


class WalkInmigrate(ends.InmigrateSide):
    def __init__(self, machines, program, name, args=()):
        super().__init__(machines.bench, program, name, Variant(name, caps=machines.walk.caps), machines.folder)
        self.args = ["--guest", machines.walk.touch()] + list(args) + self.args

    def start(self):
        uri = super().start()
        self.times = ThreadTimes(self.pid())
        return uri

    def landed(self):
        wait_until("inmigrate to end", self._ended, ends.MIGRATION_SECONDS)
        self.check()
        threads = self.times.end()
        os.waitpid(self.pid(), 0)
        self.process.child.returncode = 0
        with open(self.stats_path) as f:
            stats = json.load(f)
        touchers = {t["tid"] for t in stats["touch"]["threads"]}
        walker = sum(ns for tid, ns in threads.items() if tid in touchers) / 1e9
        own = {key: stats[key] for key in ("faults", "faults_local", "fault_latency_us", "requests", "prefetch",
                                           "postcopy-blocktime", "postcopy-vcpu-blocktime")}
        own["blocked_ms"] = stats["blocktime"]["total_us"] / 1000
        return stats["cpu_ms"] / 1000 - self.before, walker, toucher_latency(stats["touch"]), own


# ---- the runs ----

class PostcopyBench:
    def __init__(self, options, folder):
        self.options = options
        self.folder = folder
        self.certs = None
        self.tick_ns = None

    def _tsc_hz(self):
        program = os.path.join(self.options.programs, "bench_postcopy_floor")
        try:
            said = subprocess.run([program, "--tsc"], capture_output=True, text=True, timeout=10, check=True)
        except (OSError, subprocess.SubprocessError) as e:
            raise Skipped(f"how fast the guest's clock is: {e}") from None
        if not float(said.stdout):
            raise Skipped("this is not an x86")
        return float(said.stdout)

    def sides(self, machines):
        program = self.options.inmigrate[0]
        made = {
            "qemu": lambda: WalkQemu(machines, False),
            "qemu-memfd": lambda: WalkQemu(machines, True),
            "inmigrate": lambda: WalkInmigrate(machines, program, "inmigrate"),
            "no-prefetch": lambda: WalkInmigrate(machines, program, "no-prefetch",
                                                 ("--param", "postcopy-prefetch=off")),
        }
        for number, other in enumerate(self.options.inmigrate[1:]):
            name = f"inmigrate-{number + 2}"
            made[name] = lambda p=other, n=name: WalkInmigrate(machines, p, n)
        wanted = machines.walk.sides
        return [make for name, make in made.items() if not wanted or name.startswith(wanted)]

    def once(self, source, side):
        source.again()
        try:
            uri = side.start()
            pid = source.qemu.process.child.pid
            for each in (pid, side.pid()):
                set_priority(each, self.options.nice)
            wait_quiet(self.options.patience, below=1.2)   # the guest on hold takes a CPU
            if not self.options.cold:
                warm_free_memory((LOW + source.size) * 5 // 4, small=True)
            busy, source_cpu, begin = machine_busy_seconds(), cpu_seconds(pid), time.monotonic()
            try:
                seconds, info = source.migrate(uri, side.check)
            except Failed:
                time.sleep(0.5)
                side.check()
                raise
            cpu, walker, latency, own = side.landed()
            source_cpu = cpu_seconds(pid) - source_cpu
            wall = time.monotonic() - begin
            others = max(0, machine_busy_seconds() - busy - source_cpu - cpu) / wall
        finally:
            side.close()
        faults, mean_us = above(latency, FAULT_NS)
        return {"side": side.name, "seconds": seconds, "faults": faults, "slow": latency["count"], "mean_us": mean_us,
                "p50_us": quantile_us(latency, 0.5), "p99_us": quantile_us(latency, 0.99),
                "max_us": latency["max_ns"] / 1000, "blocked_ms": latency["sum_ns"] / 1e6,
                "walk_ms": latency["walk_ns"] / 1e6, "cpu_s": cpu - walker, "cpu_with_walker_s": cpu,
                "source_cpu_s": source_cpu, "others_cpus": others, "precopy_bytes": info["ram"].get("precopy-bytes"),
                "postcopy_requests": info["ram"].get("postcopy-requests"), "octaves": latency["octaves"], "own": own}

    def control(self, machines):
        """The guest when nothing is missing."""
        made = machines.make("control", False, more=",prealloc=on")
        try:
            made.start()
            latency = wait_until("the walk to end", lambda: os.path.exists(made.console) and
                                 guest_latency(made.console), 120)
        finally:
            made.close()
        return {"slow": latency["count"], "blocked_ms": latency["sum_ns"] / 1e6, "walk_ms": latency["walk_ns"] / 1e6,
                "faults": above(latency, FAULT_NS)[0]}

    def variant(self, walk):
        if qemu.version_of(self.options.qemu) < walk.since:
            raise Skipped(f"QEMU before {'.'.join(map(str, walk.since))}")
        folder = os.path.join(self.folder, walk.name)
        os.makedirs(folder)
        # In 2^-20 ns.
        self.tick_ns = self.tick_ns or round((1 << 20) * 1e9 / self._tsc_hz())
        machines = Machines(self, walk, folder)
        alone = walk.sides == ("inmigrate",)
        control = None if alone else statistics_of([self.control(machines) for _ in range(3)])
        source = WalkSource(machines)
        rounds = []
        try:
            source.start()
            sides = self.sides(machines)
            self.once(source, sides[-1]())
            for number in range(self.options.pairs if not alone else (self.options.pairs + 1) // 2):
                turn = sides if number % 2 == 0 else sides[::-1]
                runs = [undisturbed(self.options, lambda m=make: self.once(source, m())) for make in turn]
                for r in runs:
                    if r["side"].startswith("qemu"):
                        r["blocked_ms"] = max(0, r["blocked_ms"] - control["blocked_ms"])
                    if self.options.runs:
                        print_run(r)
                rounds.append({r["side"]: r for r in runs})
        finally:
            source.close()
        return {"rounds": rounds, "nothing-missing": control}


# ---- the table ----

COLUMNS = (("faults", "faults", 8, 0), ("mean_us", "mean us", 8, 1), ("p50_us", "p50", 7, 1), ("p99_us", "p99", 8, 1),
           ("blocked_ms", "blocked ms", 11, 1), ("walk_ms", "walk ms", 9, 1), ("seconds", "postcopy s", 11, 3),
           ("cpu_s", "CPU s", 7, 3), ("source_cpu_s", "source", 7, 2), ("others_cpus", "others", 7, 2))
RATIOS = (("mean_us", "mean"), ("blocked_ms", "blocked"), ("walk_ms", "walk"), ("cpu_s", "CPU"))


def statistics_of(runs):
    return {key: statistics.median(r[key] for r in runs) for key in runs[0]}


def print_run(run):
    print(f"  {run['side']:12}" + "".join(f"{run[key]:{width}.{digits}f}" for key, _, width, digits in COLUMNS),
          flush=True)


def ratios(rounds, side, base):
    """One for each round; None where there was nothing to compare with."""
    return {name: statistics.median([r[side][key] / r[base][key] for r in rounds if r[base][key]] or [0])
            for key, name in RATIOS}


def print_own(side, runs):
    """What a destination itself reports: its clock starts when it has read the fault, and stops when the page is
    placed. QEMU has a mean in query-migrate from 10.1 on (postcopy-latency, ns)."""
    blocked = statistics.median(r["own"].get("blocked_ms", sum(r["own"].get("postcopy-vcpu-blocktime", [0])))
                                for r in runs)
    means = [r["own"]["fault_latency_us"]["mean"] if "fault_latency_us" in r["own"]
             else r["own"]["postcopy-latency"] / 1000 for r in runs
             if "fault_latency_us" in r["own"] or "postcopy-latency" in r["own"]]
    mean = f", mean fault {statistics.median(means):.1f} us" if means else ""
    print(f"  {side + ' says itself':26}  blocked {blocked:.1f} ms{mean}")


def print_walk(walk, result, length):
    rounds, control = result["rounds"], result["nothing-missing"]
    print(f"\n{walk.name}: {walk.touchers} x {length // MIB} MiB, {', '.join(walk.caps)}; {len(rounds)} rounds;"
          " medians")
    if control:
        print(f"  nothing missing (taken off QEMU's blocked ms): {control['blocked_ms']:.1f} ms in"
              f" {control['slow']:.0f} accesses, {control['faults']:.0f} of them as long as a fault,"
              f" walk {control['walk_ms']:.1f} ms")
    print(f"  {'':12}" + "".join(f"{title:>{width}}" for _, title, width, _ in COLUMNS))
    for side in rounds[0]:
        runs = [r[side] for r in rounds]
        print_run({"side": side, **{key: statistics.median(r[key] for r in runs) for key, *_ in COLUMNS}})
    for side in rounds[0]:
        print_own(side, [r[side] for r in rounds])
    pairs = [(side, base) for base in ("qemu", "qemu-memfd") for side in rounds[0] if not side.startswith("qemu")
             and base in rounds[0]]
    if "no-prefetch" in rounds[0]:
        pairs.append(("inmigrate", "no-prefetch"))
    result["ratios"] = {}
    for side, base in pairs:
        found = result["ratios"][f"{side} to {base}"] = ratios(rounds, side, base)
        print(f"  {side + ' to ' + base:26}" + "".join(f"  {name} {value:.2f}" for name, value in found.items()))
