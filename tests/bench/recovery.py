"""recovery.py - the network fails in postcopy and comes back: how long until the guest has the page it waits for

The source, the guest and the walk are those of postcopy.py, at random, into inmigrate and into QEMU's own destination.
Everything passes through tests/bench/recovery_notes.py, which resets all connections CUTS times in a migration and
notes what passes when the source is back. Both use one clock.

(1) The clock starts when the new main connection exists. Before that, destination and source are paused and the
    destination listens; a destination that must be told where (QEMU: migrate-recover) has been told.
(2) It stops when the wire has passed on a page that the destination requested on the new connection: somebody waits for
    it. "first page" is the first one of all, pushed or requested. "goes on" is when the destination requests the next
    one: the guest has got its page, has run, and has touched another. That is as much of the guest's view as a wire
    shows; under tcg QEMU's guest may take about 10 us longer for it than a thread.
(3) In between, the sides take turns. A turn begins when this side has been sent the question, ends when its answer has
    come, and contains one wake-up. "here" is the sum of the destination's turns. The wire's own time is in no turn, but
    in all sums.
(4) Pages that nobody waits for come at PUSH bytes a second: a source counts by tenths of a second, and sends all of one
    tenth at its beginning. Without preempt a request that it reads after that waits for the next tenth. The cases
    called `unlimited` have no limit. There a page comes after everything that is in the sockets, and four busy threads
    share the processors. SOME bytes pass before each cut.
(5) The guest's own clock has only its longest wait, and QEMU's blocktime only sums. Both include the pause, which lasts
    as long as this program wants. So there is no column for them.
(6) `floor` is the least that the protocol needs: five messages one after the other (bitmaps requested; bitmaps; RESUME;
    RESUME_ACK and request; page), each half of a round trip through the wire between processes that only answer. It
    does not include the additional connection after the bitmaps that preempt needs.
(7) inmigrate itself reports (--stats, recovery.first_page_ms) how long the last recovery took, until the page was
    placed; QEMU does not. It runs with -v here, and writing that output is in its numbers.
(8) QEMU's destination does not turn off Nagle's algorithm: the second of two small writes waits until the source's
    kernel has acknowledged the first, up to 40 ms when the source has nothing to send. A line of its own says how often
    bitmaps waited, because that depends on how fast they are read: 6 of 64 through this wire, 8 of 24 without a wire,
    and more than half through a wire with realtime priority, which is why it has none. A request waits in the same way,
    for the first page that is pushed.
(9) The median of a migration's recoveries is one number; ratios are taken in each round, then their median.
"""

import json
import os
import socket
import statistics
import subprocess
import sys
import time

import ends
import qemu
from machine import set_priority, wait_quiet, warm_free_memory
from postcopy import LOW, Machines, PostcopyBench, Walk, WalkInmigrate, WalkQemu, WalkSource
from qemu import Failed, MIB, Skipped, wait_until
from signals import die_with_parent
from wire import target_of

CUTS = 8
PUSH = 32 * MIB
SOME = 2 * MIB
WALK_MAX = 2048 * MIB
HALF_TRIPS = 5
STALL_US = 30000
NOTES = os.path.join(os.path.dirname(os.path.abspath(__file__)), "recovery_notes.py")


class Recovery(Walk):
    """times: how many times the requested memory; push: 0 without a limit."""

    def __init__(self, name, preempt, times=1, push=PUSH):
        super().__init__(name, "random", preempt=preempt, push=push)
        self.name = "recovery-" + name
        self.times = times


RECOVERIES = (
    Recovery("preempt", True),
    Recovery("plain", False),
    Recovery("preempt-double", True, times=2),
    Recovery("preempt-unlimited", True, times=2, push=0),
    Recovery("plain-unlimited", False, times=2, push=0),
)


class NotingWire:
    """tests/bench/recovery_notes.py, and what it has seen."""

    def __init__(self):
        self.child = subprocess.Popen([sys.executable, NOTES], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
                                      start_new_session=True, preexec_fn=die_with_parent)

    def order(self, **order):
        try:
            self.child.stdin.write(json.dumps(order) + "\n")
            self.child.stdin.flush()
            return json.loads(self.child.stdout.readline())
        except (OSError, ValueError) as e:
            raise Failed(f"the wire has ended: {e}") from None

    def target(self, uri):
        """Returns where to connect to instead."""
        return self.order(target=uri)["uri"]

    def close(self):
        self.child.stdin.close()
        self.child.stdout.close()
        self.child.kill()
        self.child.wait()


# ---- both ends ----

class RecoverySource(WalkSource):
    def again(self):
        super().again()
        self.qemu.set(params={"max-postcopy-bandwidth": self.machines.walk.push})

    def begin(self, uri):
        self.since = time.time()
        self.qemu.migrate(uri)
        wait_until("the source to begin", self.qemu.start_postcopy, 20, every=0.001)

    def paused(self, check):
        self.qemu.wait_status("postcopy-paused", seconds=20, also=check)

    def come_back(self, uri, check):
        self.qemu.come_back(uri, check, 20)

    def finish(self, check):
        self.qemu.set(params={"max-postcopy-bandwidth": 0})
        ends.wait_completed(self.qemu, self.since, check)


class RecoveryQemu(WalkQemu):
    def runs(self):
        return self.qemu.info().get("status") == "postcopy-active"

    def paused(self):
        self.qemu.wait_status("postcopy-paused", seconds=20, also=self.check)

    def listen_again(self):
        self.qemu.qmp.command("migrate-recover", uri="tcp:127.0.0.1:0")
        return f"tcp:127.0.0.1:{self.qemu.info()['socket-address'][0]['port']}"

    @staticmethod
    def own_ms():
        return None


class RecoveryInmigrate(WalkInmigrate):
    pauses = 0

    def __init__(self, machines, program, name):
        super().__init__(machines, program, name, ("-v",))

    def runs(self):
        return "the guest runs here" in self.process.errors()

    def paused(self):
        def said():
            self.check()
            return self.process.errors().count("postcopy is paused") > self.pauses
        wait_until("inmigrate to pause", said, 20)
        self.pauses += 1

    def listen_again(self):
        return self._address()

    def own_ms(self):
        with open(self.stats_path) as f:
            return json.load(f)["recovery"]["first_page_ms"]


# ---- what was seen ----

def read_notes(notes):
    """The times of one recovery, in us from the new main connection."""
    first, last = {}, {}
    for what, detail, read, passed in notes:
        first.setdefault(what, (detail, read, passed))
        last[what] = (detail, read, passed)
    zero = first["main"][2]
    served = first["asked-page"]
    found = {what: (first[what][2] - zero) / 1e3 for what in ("preempt", "resume", "resume-ack", "request")
             if what in first}
    found["bitmaps"] = (last["bitmap"][2] - zero) / 1e3
    found["page"] = (min(served[2], first.get("page", served)[2]) - zero) / 1e3
    found["asked"] = (served[2] - zero) / 1e3
    # The source's turn ends when something comes from it; the destination's begins when that has been passed on.
    found["t_bitmaps"] = (last["bitmap"][1] - last["bitmap-wanted"][2]) / 1e3
    found["t_ack"] = (first["resume-ack"][1] - first["resume"][2]) / 1e3
    found["t_request"] = (first["request"][1] - first["resume"][2]) / 1e3
    found["here"] = found["t_bitmaps"] + found["t_request"]
    found["s_wanted"] = (first["bitmap-wanted"][1] - zero) / 1e3
    found["s_resume"] = (first["resume"][1] - last["bitmap"][2]) / 1e3
    found["s_page"] = (served[1] - first["request"][2]) / 1e3
    later = [n for n in notes if n[0] == "request" and n[2] > served[2]]
    found["goes_on"] = (later[0][2] - zero) / 1e3 if later else None
    found["t_goes_on"] = (later[0][2] - served[2]) / 1e3 if later else None
    return found


class RecoveryBench(PostcopyBench):
    def sides(self, machines):
        program = self.options.inmigrate[0]
        made = [lambda: RecoveryQemu(machines, False)]
        if self.options.qemu_memfd:
            made.append(lambda: RecoveryQemu(machines, True))
        made.append(lambda: RecoveryInmigrate(machines, program, "inmigrate"))
        for number, other in enumerate(self.options.inmigrate[1:]):
            made.append(lambda p=other, n=f"inmigrate-{number + 2}": RecoveryInmigrate(machines, p, n))
        return made

    def recover(self, source, side, wire):
        """One loss, and back. Returns what was seen, and seconds from the cut to the new connection."""
        check = side.check
        wait_until("pages to come", lambda: check() or wire.order(ask=True)["passed"] > SOME, 20)
        cut_ns = wire.order(cut=True)["ns"]
        source.paused(check)
        side.paused()
        uri = wire.target(side.listen_again())
        time.sleep(0.05)          # all that had to be closed is closed by now
        source.come_back(uri, check)

        def over():
            check()
            seen = wire.order(ask=True)
            return seen["over"] and seen["notes"]
        try:
            notes = wait_until("the guest to go on", over, 10, every=0.02)
            found = read_notes(notes)
        except (Failed, KeyError) as e:
            raise Failed(f"{side.name}: {e!r}: {wire.order(ask=True)}; the source: {source.qemu.info()}") from None
        found["notes"] = notes
        found["away_ms"] = (notes[0][3] - cut_ns) / 1e6
        return found

    def once(self, source, side):
        wire = NotingWire()
        source.again()
        try:
            uri = wire.target(side.start())
            for each in (source.qemu.process.child.pid, side.pid()):
                set_priority(each, self.options.nice)
            wait_quiet(self.options.patience, below=1.2)   # the guest on hold takes a CPU
            if not self.options.cold:
                warm_free_memory((LOW + source.size) * 5 // 4, small=True)
            source.begin(uri)
            wait_until("the guest to run there", lambda: side.check() or side.runs(), 20, every=0.002)
            recoveries = [self.recover(source, side, wire) for _ in range(CUTS)]
            source.finish(side.check)
            side.landed()
        except Failed:
            time.sleep(0.5)
            side.check()
            raise
        finally:
            side.close()
            wire.close()
        return {"side": side.name, "recoveries": recoveries, "own_ms": side.own_ms()}

    def variant(self, walk):
        if self.options.walk * walk.times > WALK_MAX:
            raise Skipped("the guest reaches no memory above 4 GiB")
        folder = os.path.join(self.folder, walk.name)
        os.makedirs(folder)
        self.tick_ns = self.tick_ns or round((1 << 20) * 1e9 / self._tsc_hz())
        machines = RecoveryMachines(self, walk, folder)
        source = RecoverySource(machines)
        rounds = []
        try:
            source.start()
            sides = self.sides(machines)
            for number in range((self.options.pairs + 1) // 2):
                turn = sides if number % 2 == 0 else sides[::-1]
                rounds.append({r["side"]: r for r in (self.once(source, make()) for make in turn)})
                if self.options.runs:
                    for r in rounds[-1].values():
                        print_run(r)
        finally:
            source.close()
        return {"rounds": rounds, "round_trip_us": round_trip_us()}


class RecoveryMachines(Machines):
    def __init__(self, bench, walk, folder):
        super().__init__(bench, walk, folder)
        self.length *= walk.times
        self.size = LOW + self.length
        program = qemu.Guest(bench.folder).program
        self.kernel = walk.orders(program, os.path.join(folder, "guest.elf"), self.length, bench.tick_ns)


def round_trip_us(count=500):
    """Of a few bytes, directly and through the wire: medians."""
    def answer(listener):
        conn = listener.accept()[0]
        conn.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        while data := conn.recv(64):
            conn.sendall(data)

    wire = NotingWire()
    found = {}
    try:
        for name in ("direct", "wire"):
            with socket.create_server(("127.0.0.1", 0)) as listener:
                pid = os.fork()
                if pid == 0:
                    answer(listener)
                    os._exit(0)
                port = listener.getsockname()[1]
                if name == "wire":
                    port = target_of(wire.target(f"tcp:127.0.0.1:{port}"))[1]
                found[name] = statistics.median(ask_often(port, count))
            os.waitpid(pid, 0)
    finally:
        wire.close()
    return found


def ask_often(port, count):
    took = []
    with socket.create_connection(("127.0.0.1", port)) as conn:
        conn.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for _ in range(count):
            time.sleep(0.0005)    # both sleep, as in a recovery, where each question comes after a while
            begin = time.monotonic_ns()
            conn.sendall(b"x" * 20)
            conn.recv(64)
            took.append((time.monotonic_ns() - begin) / 1e3)
    return took


# ---- the table ----

COLUMNS = (("s_wanted", "source", 8), ("t_bitmaps", "bitmaps", 9), ("s_resume", "source", 8),
           ("t_request", "ack+ask", 9),
           ("s_page", "source", 8), ("t_goes_on", "goes on", 9), ("here", "here", 8), ("page", "first", 8),
           ("asked", "asked", 8))
RATIOS = (("here", "here"), ("page", "first page"), ("asked", "asked page"), ("goes_on", "goes on"))


def medians(recoveries, key):
    known = [r[key] for r in recoveries if r.get(key) is not None]
    return statistics.median(known) if known else 0


def line_of(name, recoveries):
    return f"  {name:12}" + "".join(f"{medians(recoveries, key):{width}.0f}" for key, _, width in COLUMNS)


def print_run(run):
    own = f"   says itself {run['own_ms'] * 1000:.0f}" if run["own_ms"] is not None else ""
    print(line_of(run["side"], run["recoveries"]) + own, flush=True)


def print_recovery(walk, result, length):
    rounds, trip = result["rounds"], result["round_trip_us"]
    print(f"\n{walk.name}: {length * walk.times // MIB} MiB, {', '.join(walk.caps)}; {len(rounds)} rounds of {CUTS}"
          " recoveries; medians in us")
    print(f"  {'':12}" + "".join(f"{title:>{width}}" for _, title, width in COLUMNS))
    for side in rounds[0]:
        runs = [r[side] for r in rounds]
        every = [each for r in runs for each in r["recoveries"]]
        print(line_of(side, every))
        asked = sorted(each["asked"] for each in every)
        stalled = sum(each["t_bitmaps"] > STALL_US for each in every)
        own = [r["own_ms"] for r in runs if r["own_ms"] is not None]
        said = f"; says itself {statistics.median(own) * 1000:.0f}" if own else ""
        print(f"  {'':12}asked page: {asked[0]:.0f} to {asked[-1]:.0f}; goes on"
              f" {medians(every, 'goes_on'):.0f}; bitmaps stalled {stalled} of {len(every)}{said}")
    print(f"  floor: {HALF_TRIPS} half round trips {HALF_TRIPS * trip['wire'] / 2:.0f} through the wire,"
          f" {HALF_TRIPS * trip['direct'] / 2:.0f} without it")
    result["ratios"] = {}
    for side in rounds[0]:
        for base in ("qemu", "qemu-memfd"):
            if side.startswith("qemu") or base not in rounds[0]:
                continue
            found = {name: [medians(r[side]["recoveries"], key) / medians(r[base]["recoveries"], key) for r in rounds
                            if medians(r[base]["recoveries"], key)] for key, name in RATIOS}
            result["ratios"][f"{side} to {base}"] = {n: statistics.median(v) for n, v in found.items() if v}
            print(f"  {side + ' to ' + base:26}" + "".join(
                f"  {n} {statistics.median(v):.2f} ({min(v):.2f}-{max(v):.2f})" for n, v in found.items() if v),
                flush=True)
