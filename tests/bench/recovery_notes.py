#!/usr/bin/env python3
"""recovery_notes.py - a wire (tests/support/wire.py) that notes the times of a recovery

  tests/bench/recovery_notes.py    reads orders on standard input, answers on standard output; each is a line of JSON

It is a process of its own with one thread, so that nothing waits for an interpreter's lock. Both directions use one
clock:

(1) It passes bytes on first, and looks at them afterwards. A note has two times: when its last byte was read here, and
    when it was written to the other side. From the second time of a question to the first time of its answer is the
    turn of the side that answers; this program's own time is in neither side's turn.
(2) It looks only between {"cut": ...} and the end of a recovery: a requested page has been passed on, and the next one
    is requested, so a guest has gone on. Before and afterwards it only counts bytes.
(3) The first connection after a cut is main, the second one the preempt channel (doc/wire/channels.md 2.3). A network
    may change the order of accepts, but not loopback with a source that connects one after the other.

Orders: {"target": "tcp:..."}     connect to this from now on; the answer has the URI to connect to instead
        {"cut": true}             end all connections by a reset, and look at the next ones; the answer has the time
        {"ask": true}             bytes passed since the last cut, notes, and whether (2) has been reached
Python's standard library only.
"""

import json
import os
import struct
import sys
import time

sys.dont_write_bytecode = True
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))

from wire import Wire, target_of  # noqa: E402

PAGE_BYTES = 4096
SECTIONS = (2, 3)               # PART and END
ZERO, PAGE, EOS, CONTINUE = 0x02, 0x08, 0x10, 0x20
KINDS = {1: "shut", 2: "pong", 3: "request", 4: "request", 5: "bitmap", 6: "resume-ack"}
BITMAP_MARK = 0x0123456789abcdef


class Recovery:
    """The notes between a cut and the moment when a guest goes on."""

    def __init__(self):
        self.notes = []          # [what, detail, ns when read, ns when passed on]
        self.connections = 0
        self.asked = set()       # (block, page)
        self.served = False
        self.over = False

    def note(self, what, detail, times):
        if not self.over:
            self.notes.append([what, detail, *times])

    def request(self, block, start, length, times):
        pages = {(block, at) for at in range(start, start + length, PAGE_BYTES)}
        news = pages - self.asked
        self.asked |= pages
        self.note("request", len(pages), times)
        if self.served and news:
            self.over = True

    def page(self, channel, block, at, times):
        if (block, at) in self.asked and not self.served:
            self.served = True
            self.note("asked-page", channel, times)
        elif not any(n[0] == "page" for n in self.notes):
            self.note("page", channel, times)


# ---- readers: generators that are sent bytes, and yield how many they need next ----

def records(recovery, channel, parser):
    """RAM records until EOS (doc/wire/stream.md 4)."""
    while True:
        word = struct.unpack(">Q", (yield 8))[0]
        flags, at = word & 0xfff, word & ~0xfff
        if flags & EOS:
            return
        if not flags & (ZERO | PAGE):
            raise ValueError(f"a record with flags {flags:#x}")
        if not flags & CONTINUE:
            parser.block = (yield (yield 1)[0]).decode()
        yield PAGE_BYTES if flags & PAGE else 1
        recovery.page(channel, parser.block, at, parser.times)


def main_stream(recovery, parser):
    """Of a recovery: commands, then sections (doc/wire/stream.md 5.8)."""
    while True:
        element = (yield 1)[0]
        if element == 8:
            command, length = struct.unpack(">HH", (yield 4))
            payload = (yield length) if length else b""
            if command == 10:
                recovery.note("bitmap-wanted", payload[1:].decode(), parser.times)
            elif command == 9:
                recovery.note("resume", "", parser.times)
        elif element in SECTIONS:
            yield 4
            yield from records(recovery, "main", parser)
        elif element == 0x7e:
            yield 4
        else:
            return


def preempt_stream(recovery, parser):
    while True:
        yield from records(recovery, "preempt", parser)


def return_path(recovery, parser):
    block = None
    while True:
        kind, length = struct.unpack(">HH", (yield 4))
        payload = (yield length) if length else b""
        what = KINDS.get(kind, str(kind))
        if what == "bitmap":
            yield struct.unpack(">Q", (yield 8))[0]
            if struct.unpack(">Q", (yield 8))[0] != BITMAP_MARK:
                raise ValueError("a bitmap without its end mark")
            recovery.note(what, payload[1:].decode(), parser.times)
        elif what == "request":
            start, count = struct.unpack(">QI", payload[:12])
            block = payload[13:].decode() if kind == 3 else block
            recovery.request(block, start, count, parser.times)
        else:
            recovery.note(what, "", parser.times)


class Parser:
    def __init__(self, make, recovery):
        self.recovery = recovery
        self.buffer = bytearray()
        self.times = (0, 0)
        self.block = None
        self.machine = make(recovery, self)
        self.needed = next(self.machine)

    def feed(self, data, times):
        self.times = times
        self.buffer += data
        at = 0
        try:
            while len(self.buffer) - at >= self.needed and not self.recovery.over:
                piece = bytes(self.buffer[at:at + self.needed])
                at += self.needed
                self.needed = self.machine.send(piece)
        except StopIteration:
            self.recovery.over = True
        except (ValueError, struct.error) as e:
            self.recovery.note("not understood", str(e), times)
            self.recovery.over = True
        del self.buffer[:at]


class Noting(Wire):
    def __init__(self):
        super().__init__()
        self.recovery = None
        self.parsers = {}        # of a Way
        self.orders = b""
        self.watch(sys.stdin.fileno(), self.read_orders)

    def say(self, answer):
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()

    def accepted(self, source):
        read_ns = time.monotonic_ns()
        pair = self.open(source)
        if pair and self.recovery:
            self.look_at(pair, (read_ns, time.monotonic_ns()))

    def look_at(self, pair, times):
        recovery = self.recovery
        recovery.connections += 1
        if recovery.connections == 1:
            recovery.note("main", "", times)
            self.parsers[pair.forth] = Parser(main_stream, recovery)
            self.parsers[pair.back] = Parser(return_path, recovery)
        else:
            recovery.note("preempt", "", times)
            self.parsers[pair.forth] = Parser(preempt_stream, recovery)

    def went(self, way, data, now_ns):
        super().went(way, data, now_ns)
        parser = self.parsers.get(way)
        if parser and not parser.recovery.over:
            parser.feed(data, (way.read_ns, now_ns))

    def begin_recovery(self):
        now = time.monotonic_ns()
        self.cut()
        self.passed = 0
        self.parsers = {}
        self.recovery = Recovery()
        return now

    def read_orders(self):
        data = os.read(sys.stdin.fileno(), 65536)
        if not data:
            self.close()
        self.orders += data
        while b"\n" in self.orders:
            line, self.orders = self.orders.split(b"\n", 1)
            self.obey(json.loads(line))

    def obey(self, order):
        answer = {}
        if "target" in order:
            self.target = target_of(order["target"])
            answer["uri"] = self.uri()
        elif "cut" in order:
            answer["ns"] = self.begin_recovery()
        else:
            answer = {"passed": self.passed}
            if self.recovery:
                answer.update(notes=self.recovery.notes, over=self.recovery.over, served=self.recovery.served)
        self.say(answer)


if __name__ == "__main__":
    Noting().run()
