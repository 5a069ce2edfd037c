"""test_kit.py - numbered datagrams from one end of a link to the other, in one process, so that both use one clock"""

import functools
import math
import select
import socket
import struct
import subprocess
import time
import unittest

import netem
from waiting import PATIENT_SECONDS

BUILD = None  # set by test_link
NUMBER = struct.Struct("!I")
PORT = 7000
SO_SNDBUFFORCE, SO_RCVBUFFORCE, SO_TIMESTAMPNS = 32, 33, 35
TIMESPEC = struct.Struct("@ll")
HEADER_BYTES = 28  # IP and UDP
TRIES = 4
BUSY_SHARE = 0.1   # of the time, in which something waited for a processor
SIGMAS = 4         # of a seeded count: once it holds, it holds


def command(*arguments):
    """The link's command line."""
    return [netem.LINK] + (["--build", BUILD] if BUILD else []) + list(arguments)


def run(*arguments, seconds=PATIENT_SECONDS, **more):
    """Run the link to its end; with its output."""
    return subprocess.run(command(*arguments), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                          timeout=seconds, check=False, text=True, **more)


@functools.lru_cache
def why_not():
    """Why there can be no link on this machine, or None."""
    done = run("--quiet", "--with", "tun", "--", "true")
    return done.stderr.strip() if done.returncode == netem.NOT_HERE_STATUS else None


class Late(AssertionError):
    """Something took too long; on a busy machine that proves nothing."""


def waited_seconds():
    """How long something has waited for a processor since the machine started; None if the kernel does not say."""
    try:
        with open("/proc/pressure/cpu", encoding="ascii") as f:
            return int(f.readline().rsplit("total=", 1)[1]) / 1e6
    except (OSError, ValueError, IndexError):
        return None


def busy_machine(test):
    """Repeat the test, up to three times, when something was late. If it was late each time, and the machine was busy
    each time, skip it, because that proves nothing; on a machine that was not busy it fails. Anything early or lost
    fails at once. Do not use subTest in these: it would swallow what is late."""
    @functools.wraps(test)
    def again(self):
        idle = False
        for _ in range(TRIES):
            before, start = waited_seconds(), time.monotonic()
            try:
                return test(self)
            except Late as e:
                late = e
            busy = before is not None and (waited_seconds() - before) / (time.monotonic() - start) > BUSY_SHARE
            idle = idle or not busy
        if idle:
            raise late
        return self.skipTest(f"the machine is too busy to time it: {late}")
    return again


class LinkTest(unittest.TestCase):
    """A test that needs a link is skipped if there can be none."""

    def setUp(self):
        if why_not():
            self.skipTest(why_not())

    def link(self, **settings):
        link = netem.Link(build=BUILD, **settings)
        self.addCleanup(lambda: self.assertTrue(link.result or not link.pid, "the link did not end well"))
        return link

    def assertShare(self, count, total, chance):
        """A count of `total` independent decisions, each with `chance`."""
        slack = SIGMAS * math.sqrt(total * chance * (1 - chance)) + 1
        self.assertLess(abs(count - total * chance), slack, f"{count} of {total}, expected {chance:.2%}")

    def assertBetween(self, value, low, high, what=""):
        self.assertTrue(low <= value <= high, f"{what} {value:.4f} is not in [{low}, {high}]")

    def assertTimely(self, value, low, high, what=""):
        """As assertBetween, for times."""
        if not low <= value <= high:
            raise Late(f"{what} {value:.4f} is not in [{low}, {high}]")


class Flow:
    """One way over a link. sent[n]; got: [(n, when)] in the order of arrival; seconds since the beginning.

    The kernel says when a datagram came: before Python reads it, Python may have waited for a processor.
    """

    def __init__(self, link, towards="destination", port=PORT):
        self._link, self._name = link, f"to-{towards}"
        other = {"destination": "source", "source": "destination"}[towards]
        self._out = link.socket(other, socket.SOCK_DGRAM)
        self._in = link.socket(towards, socket.SOCK_DGRAM)
        self._out.setsockopt(socket.SOL_SOCKET, SO_SNDBUFFORCE, 1 << 26)
        self._in.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, 1 << 26)
        self._in.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
        self._in.setblocking(False)
        self._out.bind((getattr(link, other), port))
        self._in.bind((getattr(link, towards), port))
        self._out.connect(self._in.getsockname())
        self.sent, self.got, self.damaged = [], [], 0
        self._start_ns = time.time_ns()  # the clock of those stamps
        self._before = self._stats()["packets"]  # of other flows over the same link

    def close(self):
        self._out.close()
        self._in.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    @staticmethod
    def _body(number, size):
        return (NUMBER.pack(number) * (size // NUMBER.size + 1))[:size]

    def now(self):
        return (time.time_ns() - self._start_ns) / 1e9

    def _take(self):
        while True:
            try:
                data, stamps, _, _ = self._in.recvmsg(65536, 64)
            except BlockingIOError:
                return
            seconds, ns = TIMESPEC.unpack(stamps[0][2])
            when = (seconds * 10**9 + ns - self._start_ns) / 1e9
            number = NUMBER.unpack(data[:NUMBER.size])[0]
            if data != self._body(number, len(data)):
                self.damaged += 1
            else:
                self.got.append((number, when))

    def _take_until(self, end):
        while (left := end - time.monotonic()) > 0:
            if select.select([self._in], [], [], left)[0]:
                self._take()

    def send(self, count, every=0.0, size=64):
        """every: seconds from one to the next; 0: as fast as the link accepts them."""
        start, base = time.monotonic(), len(self.sent)
        for n in range(count):
            if every:
                self._take_until(start + n * every)
            elif n % 512 == 511:
                # A TUN device drops packets when its queue is full, which is not the requested loss.
                self.wait_until(lambda: self._arrived(self._stats()))
            self.sent.append(self.now())
            self._out.send(self._body(base + n, size))
        return self

    def _stats(self):
        return self._link.stats()[self._name]

    def _arrived(self, stats):
        """Wait until the link knows everything that was sent."""
        return stats["packets"] - self._before >= len(self.sent)

    def wait_until(self, condition, seconds=20):
        end = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > end:
                raise AssertionError(f"after {seconds} s: {self._link.stats()}")
            self._take_until(time.monotonic() + 0.002)

    def finish(self):
        """Wait until nothing is on the way."""
        def is_over():
            s = self._stats()
            return self._arrived(s) and s["in_flight"] == 0
        self.wait_until(is_over)
        self._take()
        missed = self._stats()["missed"]
        if missed:
            raise AssertionError(f"the TUN device dropped {missed} packets")
        return self

    def numbers(self):
        return [n for n, _ in self.got]

    def lost(self):
        return sorted(set(range(len(self.sent))) - set(self.numbers()))

    def delays(self):
        """One way, in the order of arrival."""
        return [when - self.sent[n] for n, when in self.got]

    def longest_gap(self):
        times = [when for _, when in self.got]
        return max(b - a for a, b in zip(times, times[1:]))


def flow(link, count, towards="destination", every=0.0, size=64):
    """All of it."""
    with Flow(link, towards) as f:
        return f.send(count, every, size).finish()


def runs(numbers):
    """The lengths of unbroken runs in a sorted list."""
    lengths = []
    last = None
    for n in numbers:
        if last is not None and n == last + 1:
            lengths[-1] += 1
        else:
            lengths.append(1)
        last = n
    return lengths
