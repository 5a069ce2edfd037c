"""loss_cases.py - what is lost, and when: the cases of tests/netem/run, each a script for a run (losses.py)

Connections use cubic by default. At 20 % loss it carries about 20 KB/s, at 10 % 170, at 5 % 2000 (measured, without a
delay). So cases with more loss carry less. Bbr carries everything, 70 MB/s at 20 %. A case that is named after it has
the full load: there the losses meet a guest that is sent fast.
"""

import dataclasses
import os
import re
import signal
import time

import tcp
from bed import PATIENT_SECONDS
from qemu import MIB, PAGE_BYTES, wait_until, write_content

CONTENT_AT = 16 * MIB


@dataclasses.dataclass(frozen=True)
class Load:
    """The load: bytes with content, how many of their pages the guest changes, and how long it may stand still for them
    without postcopy."""
    bytes: int
    pages: int
    downtime_ms: int

    def content(self, folder):
        return write_content(os.path.join(folder, f"content.{self.bytes}"), self.bytes)

    def dirty(self):
        return CONTENT_AT, CONTENT_AT + self.pages * PAGE_BYTES


FULL = Load(24 * MIB, 256, 500)
LIGHT = Load(4 * MIB, 16, 5000)
FEATHER = Load(MIB // 4, 2, 20000)


@dataclasses.dataclass
class Loss:
    name: str
    family: str
    script: object                      # a function of the run: from `migrate` to the network's final state
    link: dict = dataclasses.field(default_factory=dict)
    postcopy: bool = True
    preempt: bool = True
    channels: int = 0                   # multifd
    tls: str = ""                       # psk, x509
    load: Load = FULL
    congestion: str = tcp.CUBIC
    rate: int = 24 * MIB                # bytes a second that the source sends
    soon: bool = True                   # the destination notices soon
    quick: bool = False
    since: tuple = (7, 2)
    until: tuple = (99,)
    again: tuple = (99,)                # the version from which it works again
    seconds: int = 300                  # until it has ended, whatever happens

    def fits(self, version):
        return self.since <= version < self.until or version >= self.again

    def caps(self):
        return ["postcopy-ram"] * self.postcopy + ["postcopy-preempt"] * (self.postcopy and self.preempt) + \
            ["multifd"] * bool(self.channels) + (["return-path"] if not self.postcopy else []) + ["pause-before-switchover", "events"]


# ---- scripts -----------------------------------------------------------------------------------------------------

def while_set_up(run):
    """Loss while channels are set up, and none afterwards."""
    run.migrate()
    run.wait_set_up()
    run.link.set(loss="0%")
    run.carry_on()


def throughout(run):
    run.migrate()
    run.carry_on()


def blackout(phase, seconds):
    """phase: where it begins."""
    def script(run):
        PHASES[phase](run, lambda: run.darken(seconds))
    script.__doc__ = f"a black-out of {seconds} s: {phase}"
    return script


def connecting(run, dark):
    dark()
    run.migrate()
    run.carry_on()


def half_connected(run, dark):
    run.migrate()
    wait_until("the first connection", lambda: run.bed.tap.accepted, PATIENT_SECONDS, every=0.0005)
    dark()
    run.carry_on()


def precopy(run, dark):
    run.migrate()
    run.until("pages", lambda: run.source.info().get("ram", {}).get("transferred", 0) > MIB)
    dark()
    # Do not ask for postcopy during a black-out: that would be a black-out at the switch.
    run.until("light", run.is_light)
    run.carry_on()


def switchover(run, dark):
    """The source is about to stop its guest, or to send what remains."""
    run.migrate()
    if run.case.postcopy:
        run.begin_postcopy()
    run.until("the switch", lambda: run.status() == "pre-switchover")
    dark()
    run.go_on()
    if run.case.postcopy:
        run.until("the guest to run here", run.switched)


def package(run, dark):
    """Slowly, so that it has a middle."""
    run.migrate()
    run.begin_postcopy()
    run.until("the switch", lambda: run.status() == "pre-switchover")
    run.link.set(rate="4Mbit")
    run.go_on()
    time.sleep(0.1)
    dark()
    run.link.set(rate="1Gbit")
    run.until("the guest to run here", run.switched)


def postcopy(run, dark):
    run.migrate()
    run.carry_on()
    dark()


def recovery(run, dark):
    """A first loss by force; the second when the source comes back."""
    run.migrate()
    run.carry_on()
    run.destination.process.child.send_signal(signal.SIGUSR1)
    wait_until("the source to pause", lambda: run.status() in ("postcopy-paused", "completed"), PATIENT_SECONDS)
    wait_until("the destination to pause", lambda: run.destination.said("postcopy is paused with") or
               run.destination.process.exited() is not None, PATIENT_SECONDS)
    run.link.set(delay="30ms")
    run.come_back()
    # Its main channel, and the bitmaps of the blocks after it.
    time.sleep(0.1)
    dark()
    run.link.set(delay="0ms")


PHASES = {"connecting": connecting, "half-connected": half_connected, "precopy": precopy, "switchover": switchover,
          "package": package, "postcopy": postcopy, "recovery": recovery}
POSTCOPY_PHASES = ("package", "postcopy", "recovery")

# ---- the table ---------------------------------------------------------------------------------------------------

HALF = {"loss": "50%"}
SLOW = 3 * MIB
NO_POSTCOPY = {"postcopy": False}
# From 8.1 to 10.0 a source refuses both together (doc/wire/stream.md 5.6).
MULTIFD_POSTCOPY = {"channels": 2, "until": (8, 1), "again": (10, 1)}
# The losses, and what cubic can carry with them in about a minute.
MIXES = {
    "loss-5": ({"loss": "5%"}, FULL),
    "loss-10": ({"loss": "10%"}, LIGHT),
    "loss-20": ({"loss": "20%"}, FEATHER),
    "delay": ({"delay": "20ms"}, FULL),
    "jitter": ({"delay": "10ms", "jitter": "8ms"}, FULL),
    "reorder": ({"delay": "10ms", "reorder": "25%"}, FULL),
    "duplicate": ({"duplicate": "20%"}, FULL),
    "corrupt": ({"corrupt": "2%"}, FULL),
    "everything": ({"delay": "5ms", "jitter": "4ms", "loss": "2%", "duplicate": "2%", "corrupt": "1%"}, LIGHT),
    "one-way": ({"to_destination_loss": "10%", "to_source_delay": "30ms"}, FEATHER),
    "rate": ({"rate": "100Mbit", "delay": "5ms"}, FULL),
    "burst": ({"loss_burst": "2%,25%"}, LIGHT),
    "burst-long": ({"loss_burst": "0.5%,10%"}, LIGHT),
}
# Without loss and reordering, one is as good as the other.
ALIKE = ("delay", "duplicate")

# Some of everything: channels 1 to 8, plain and TLS, with a preempt channel and without; each share of loss; bursts; a
# black-out in each phase.
QUICK = set("""
    set-up-plain-1 set-up-plain-3 set-up-plain-6 set-up-plain-8 set-up-plain-postcopy
    set-up-psk-2 set-up-psk-4 set-up-psk-5 set-up-psk-7 set-up-psk-preempt set-up-x509-3
    loss-5-preempt loss-10-psk loss-20-multifd loss-20-plain loss-20-multifd-bbr loss-20-plain-bbr burst-preempt burst-long-multifd everything-preempt
    blackout-5-connecting-multifd blackout-1-half-connected-multifd
    blackout-1-precopy-plain blackout-30-precopy-multifd blackout-30-precopy-preempt
    blackout-30-switchover-preempt blackout-30-switchover-multifd blackout-5-package-plain blackout-5-package-preempt
    blackout-5-postcopy-preempt blackout-30-postcopy-plain blackout-1-postcopy-multifd
    blackout-1-recovery-preempt blackout-5-recovery-plain blackout-1-recovery-multifd
""".split())


def set_ups():
    for tls in ("", "psk"):
        word = tls or "plain"
        for channels in range(1, 9):
            yield Loss(f"set-up-{word}-{channels}", "set-up", while_set_up, HALF, channels=channels, tls=tls, soon=False,
                       **NO_POSTCOPY)
        for preempt in (True, False):
            yield Loss(f"set-up-{word}-{'preempt' if preempt else 'postcopy'}", "set-up", while_set_up, HALF, preempt=preempt,
                       tls=tls, soon=False)
    yield Loss("set-up-x509-3", "set-up", while_set_up, HALF, channels=3, tls="x509", soon=False, **NO_POSTCOPY)
    yield Loss("set-up-x509-preempt", "set-up", while_set_up, HALF, tls="x509", soon=False)


def kinds():
    return (("multifd", {"channels": 2, **NO_POSTCOPY}), ("preempt", {}), ("plain", {"preempt": False}))


def throughout_by(name, settings, load, **more):
    """With cubic and the load that it carries, and with bbr and the full load."""
    yield Loss(name, tcp.CUBIC, throughout, settings, load=load, soon=False, **more)
    if not name.startswith(ALIKE):
        yield Loss(f"{name}-bbr", tcp.BBR, throughout, settings, congestion=tcp.BBR, soon=False, **more)


def losses():
    for mix, (settings, load) in MIXES.items():
        for kind, more in kinds() if mix.startswith("loss-") else kinds()[:2]:
            yield from throughout_by(f"{mix}-{kind}", settings, load, **more)
    yield from throughout_by("loss-10-psk", *MIXES["loss-10"], tls="psk")


def kinds_of(phase):
    """Postcopy comes with multifd, and also with a preempt channel where that makes a difference."""
    if phase not in POSTCOPY_PHASES:
        return kinds()
    both = (("multifd-preempt", MULTIFD_POSTCOPY),) if phase == "recovery" else ()
    return (*kinds()[1:], ("multifd", {"preempt": False, **MULTIFD_POSTCOPY}), *both)


def blackouts():
    for seconds in (1, 5, 30):
        for phase in PHASES:
            for kind, more in kinds_of(phase):
                # With few pages in postcopy nothing would remain to lose.
                rate = SLOW if phase in ("precopy", *POSTCOPY_PHASES) else 24 * MIB
                yield Loss(f"blackout-{seconds}-{phase}-{kind}", phase, blackout(phase, seconds), rate=rate, **more)
    for phase in ("postcopy", "recovery"):
        yield Loss(f"blackout-30-{phase}-psk", phase, blackout(phase, 30), rate=SLOW, tls="psk")


# They start first.
LONG = re.compile(r"blackout-30|^loss-(10|20)|^one-way|^burst")
CASES = [*set_ups(), *losses(), *blackouts()]
for case in CASES:
    case.quick = case.name in QUICK
assert QUICK <= {case.name for case in CASES}
