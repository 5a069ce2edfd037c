"""setups.py - channels are set up while the network loses packets, many times, with a source of a few lines

The source does what QEMU does: it connects the main channel, and when that stands, all others at once. Its main channel
speaks at once, so that what decides which bytes are there first is the network alone. What the destination says of each
connection must be what was sent on it; a preempt channel says nothing, and must not be taken for anything while the others
come. A set-up that does not come about before its deadline hangs.
"""

import os
import socket
import struct
import threading
import time

import bed as beds
from netem import Link

HEADER = b"QEVM" + struct.pack(">I", 3) + b"\x07" + struct.pack(">I", 13) + b"pc-i440fx-7.2"
DEADLINE_SECONDS = 60
LINKS_PER_JOB = 4       # they do little but wait for the next SYN


def multifd_hello(number):
    return b"\x11\x22\x33\x44" + struct.pack(">I", 1) + bytes(16) + bytes([number]) + bytes(39)


class Opener(threading.Thread):
    """One channel."""

    def __init__(self, link, data):
        super().__init__(daemon=True)
        self.socket = link.socket("source")
        self.data = data

    def run(self):
        try:
            self.socket.settimeout(DEADLINE_SECONDS)
            self.socket.connect((Link.destination, beds.PORT))
            self.socket.sendall(self.data)
        except OSError:
            pass  # the destination is gone, and says why itself

    def port(self):
        return self.socket.getsockname()[1]


class SetUp:
    """One; what came of it."""

    def __init__(self, bed, folder, program, channels, preempt):
        self.bed, self.channels, self.preempt = bed, channels, preempt
        self.destination = beds.Destination(folder, program, bed, "", False, DEADLINE_SECONDS)
        self.wanted = {}
        self.openers = []
        self.reordered = self.overtaken = False
        self.wrong = ""         # a channel was taken for another
        self.hang = ""

    def execute(self):
        self.destination.start(["multifd"] * bool(self.channels) + ["postcopy-ram", "postcopy-preempt"] * self.preempt,
                               {"multifd-channels": self.channels} if self.channels else None)
        tap = self.bed.tap
        tap.restart()
        self.bed.link.set(loss="50%")
        try:
            self.open()
            self.wait()
        finally:
            self.bed.link.set(loss="0%")
            self.reordered, self.overtaken = tap.out_of_order(), tap.main_overtaken()
            self.destination.close()
            for opener in self.openers:
                opener.socket.close()

    def open(self):
        main = Opener(self.bed.link, HEADER)
        self.openers.append(main)
        main.run()
        self.wanted[main.port()] = "main"
        for number in range(self.channels):
            self.openers.append(Opener(self.bed.link, multifd_hello(number)))
        if self.preempt:
            self.openers.append(Opener(self.bed.link, b""))
        for opener in self.openers[1:]:
            opener.start()

    def decided(self):
        said = self.destination.channels()
        if self.destination.process.exited() is not None or "closed:" in self.destination.errors():
            return True
        return len(said) == 1 + self.channels and len(self.bed.tap.accepted) == len(self.openers)

    def wait(self):
        """All decided, or it has ended, or it hangs."""
        end = time.monotonic() + DEADLINE_SECONDS
        while not self.decided():
            if time.monotonic() > end:
                self.hang = f"{self.destination.channels()} of {len(self.openers)}: {self.destination.errors()}"
                return
            time.sleep(0.02)
        for opener in self.openers[1:1 + self.channels]:
            self.wanted[opener.port()] = "multifd"
        said = self.destination.channels()
        if said != self.wanted:
            self.wrong = f"wanted {self.wanted}, it says {said}: {self.destination.errors()[-400:]}"


class Counts:
    def __init__(self):
        self.lock = threading.Lock()
        self.done = self.reordered = self.overtaken = self.wrong = self.hangs = self.wrong_overtaken = self.wrong_in_order = 0
        self.first_wrong = ""
        self.seconds = 0.0

    def add(self, setup, seconds):
        with self.lock:
            self.done += 1
            self.seconds += seconds
            self.reordered += setup.reordered
            self.overtaken += setup.overtaken
            self.wrong += bool(setup.wrong)
            self.wrong_overtaken += bool(setup.wrong) and setup.overtaken
            self.wrong_in_order += bool(setup.wrong) and not (setup.overtaken or setup.reordered)
            self.hangs += bool(setup.hang)
            self.first_wrong = self.first_wrong or setup.wrong or setup.hang


def run(options, name, program, count, enough=None):
    """count set-ups, on some links at the same time; fewer when enough(counts). Raises netem.NotHere."""
    counts, left, troubles = Counts(), iter(range(count)), []

    def work(number):
        folder = f"{options.shared}/{name}.{number}"
        os.makedirs(folder, exist_ok=True)
        try:
            with beds.Bed(options, seed=options.seed + number) as bed:
                for n in left_ones():
                    start = time.monotonic()
                    # 1..8 channels; with and without a preempt channel.
                    setup = SetUp(bed, folder, program, n % 8 + 1, bool(n // 8 % 2))
                    setup.execute()
                    counts.add(setup, time.monotonic() - start)
        except BaseException as e:  # to be raised by the one who waits
            troubles.append(e)

    def left_ones():
        while not troubles and not (enough and enough(counts)):
            with counts.lock:
                n = next(left, None)
            if n is None:
                return
            yield n

    # Not daemons: each ends its link and its programs before it ends.
    threads = [threading.Thread(target=work, args=(n,)) for n in range(min(options.jobs * LINKS_PER_JOB, count))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if troubles:
        raise troubles[0]
    return counts
