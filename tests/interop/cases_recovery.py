"""cases_recovery.py - more cases of tests/interop/run: the network is lost while the guest is in two halves

A wire between source and destination is cut three times in one migration. Each time both sides pause, and the source is
told to come back (`migrate` with resume, HMP's `migrate -r`). In the end every page is there, and so is what the
touchers wrote.
"""

import re
import signal

import cases_postcopy
from cases_postcopy import IN_HUGE, Touched, pages_were_asked_for, postcopy, start_postcopy
from qemu import Failed, MIB, PATIENT_SECONDS, wait_until
from wire import MAIN, Wire, target_of

# So slow that there is time to cut it; with preempt requests are still served at once.
SLOW = {"max-bandwidth": 2 * MIB, "max-postcopy-bandwidth": 24 * MIB}
# With so short a downtime the source begins its last section late, so that all three cuts come before that.
HUGE_AND_SLOW = {**IN_HUGE, "params": {"max-bandwidth": 64 * MIB, "downtime-limit": 1}}
CUTS = 3

# Command PACKAGED, its four bytes of length, and the LISTEN it begins with (doc/wire/stream.md 2, 5.4).
PACKAGED = re.compile(rb"\x08\x00\x07\x00\x04(....)\x08\x00\x04\x00\x00", re.DOTALL)
PACKAGED_BYTES = 14


class Losing(Wire):
    """Cuts itself at a given place."""

    def __init__(self, target):
        super().__init__(target)
        self.cut_at = None                # when so many bytes have passed; the rest is lost
        self.behind_package = None        # set to an empty Package: by an end right after the next package

    def arrived(self, way, data):
        if way is not way.pair.forth:
            return data
        if self.cut_at is not None and self.passed + len(data) >= self.cut_at:
            return self.to_the_cut(b"", "reset")
        if way.pair.first == MAIN and self.behind_package and self.behind_package.ends_in(data):
            return self.to_the_cut(data[:self.behind_package.left], "end")
        return data

    def to_the_cut(self, data, how):
        yield data
        self.cut(how)
        self.cut_at = self.behind_package = None


class Package:
    """Finds the end of the package in a stream that comes in pieces."""

    def __init__(self):
        self.tail, self.left = b"", None  # left: bytes of the package, and what is before it, in the piece to come

    def ends_in(self, data):
        if self.left is None:
            found = PACKAGED.search(self.tail + data)
            if found:
                self.left = found.end(1) - len(self.tail) + int.from_bytes(found[1], "big")
            self.tail = (self.tail + data)[-PACKAGED_BYTES:]
        if self.left is not None and self.left > len(data):
            self.left -= len(data)
            return False
        return self.left is not None


def by_wire(run):
    run.listen("tcp:127.0.0.1:0", verbose=True)
    run.wire = Losing(target_of(run.destination.address())).begin()
    run.migrate(run.wire.uri())


def paused(run, times):
    """Both sides; the destination says so."""
    run.source.wait_status("postcopy-paused", seconds=PATIENT_SECONDS, also=run.destination.check_alive)
    wait_until("the destination to pause", lambda: run.destination.errors().count("postcopy is paused") >= times,
               PATIENT_SECONDS)


def come_back(run):
    run.source.come_back(run.wire.uri(), run.destination.check_alive)


def resumed(run, times):
    def goes_on():
        run.destination.check_alive()
        return run.destination.errors().count("postcopy goes on") >= times or run.destination.process.exited() == 0
    try:
        wait_until("postcopy to go on", goes_on, PATIENT_SECONDS)
    except Failed as e:
        raise Failed(f"{e}; the source: {run.source.info()}; the destination: {run.destination.errors()}") from None


def begun(run):
    start_postcopy(run)
    # The source reports it when it has sent the package; a loss before that is loaded fails the migration.
    wait_until("the guest to run here", lambda: "the guest runs here" in run.destination.errors(), PATIENT_SECONDS,
               every=0.002)


def some_pages(run, count=MIB):
    before = run.wire.passed
    wait_until("pages to come", lambda: run.wire.passed > before + count, PATIENT_SECONDS)


def cut_three_times(how="reset", elsewhere=False):
    def during(run):
        begun(run)
        for time_of in range(1, CUTS + 1):
            some_pages(run)
            run.wire.cut(how)
            if how == "silence":
                # Nothing notices the loss, so the operator must say so.
                run.destination.process.child.send_signal(signal.SIGUSR1)
                run.source.qmp.command("migrate-pause")
            paused(run, time_of)
            if elsewhere:
                listening = run.destination.process.output().split("listening on ")
                run.wire.target = target_of(listening[-1].split()[0])
            come_back(run)
            resumed(run, time_of)
        run.source.wait_status("completed", seconds=run.case.seconds, also=run.destination.check_alive)
    return during


def lost_again(run):
    """The second network fails, too, before anything has come over it."""
    begun(run)
    some_pages(run)
    run.wire.cut()
    paused(run, 1)
    for at in (1, 40, 200, 4000):
        run.wire.cut_at = run.wire.passed + at
        come_back(run)
        wait_until("the network to fail again", lambda: run.wire.cut_at is None, PATIENT_SECONDS)
        run.source.wait_status("postcopy-paused", seconds=PATIENT_SECONDS, also=run.destination.check_alive)
    come_back(run)
    run.source.wait_status("completed", seconds=run.case.seconds, also=run.destination.check_alive)


def behind_the_package(run):
    """The only device state is here: a source up to 10.1 has sent it, and cannot go on itself."""
    run.wire.behind_package = Package()
    start_postcopy(run)
    wait_until("the package to pass", lambda: run.wire.behind_package is None, PATIENT_SECONDS, every=0.002)
    paused(run, 1)
    come_back(run)
    resumed(run, 1)
    run.source.wait_status("completed", seconds=run.case.seconds, also=run.destination.check_alive)


def came_back(run):
    if run.options.reference:
        return
    stats = run.destination.stats()
    if stats["recovery"]["recoveries"] == 0:
        raise Failed(f"there was no recovery: {stats['recovery']}")
    if run.case.touch:
        pages_were_asked_for(run)
    run.remark += "; %d losses, first page %.1f ms after the last" % (
        stats["recovery"]["pauses"], stats["recovery"]["first_page_ms"])


class Waiting(cases_postcopy.Postcopy):
    """The destination is told where to listen after a loss."""

    def make_destination(self, folder, program):
        made = Touched(folder, program, self.touch, self.backing, self.switched)
        made.more += ["--recover-listen", "tcp:127.0.0.1:0"]
        return made


def recovery(name, preempt=True, during=None, kind=None, **more):
    more.setdefault("params", {})
    more["params"] = {**SLOW, **more["params"]}
    case = postcopy(name, "at-once", preempt, transport=by_wire, **{"during": during or cut_three_times(), **more})
    case.name = "recovery-" + name
    case.after = came_back
    if kind:
        case.__class__ = kind
    return case


CASES = [
    recovery("three-times", quick=True),
    recovery("three-times-plain", preempt=False, quick=True),
    recovery("by-an-end", during=cut_three_times("end")),
    recovery("by-an-end-plain", preempt=False, during=cut_three_times("end")),
    recovery("elsewhere", during=cut_three_times(elsewhere=True), kind=Waiting),
    recovery("forced", during=cut_three_times("silence")),
    # QEMU 7.2 waits forever for an answer on a connection that was lost before the first answer.
    recovery("lost-again", during=lost_again, since=(8, 0)),
    recovery("lost-again-plain", preempt=False, during=lost_again, since=(8, 0)),
    recovery("behind-the-package", during=behind_the_package, quick=True, until=(10, 2)),
    recovery("behind-the-package-plain", preempt=False, during=behind_the_package, until=(10, 2)),
    recovery("psk", secrecy="psk"),
    recovery("psk-plain", secrecy="psk", preempt=False),
    recovery("x509", secrecy="x509"),
    recovery("thp", backing="thp"),
    recovery("hugetlb", **HUGE_AND_SLOW),
    recovery("hugetlb-plain", preempt=False, **HUGE_AND_SLOW),
    recovery("eight-touchers", touch="touch=8"),
    recovery("multifd", caps=("multifd",), preempt=False, until=(8, 0)),
    recovery("machine-7.2", machine="pc-i440fx-7.2", since=(8, 0)),
    recovery("nothing-runs", touch=""),
]
