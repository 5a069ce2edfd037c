#!/usr/bin/env python3
"""tap.py - between source and destination (tcp): passes everything on, cuts it, notes when what passes in a recovery

  tests/bench/tap.py        orders on standard input, answers on standard output, a line of JSON each

A process of its own with one thread, so that nobody waits for an interpreter's lock. One clock for both directions:

(1) Bytes are passed on first and looked at afterwards. A note has two times: when its last byte had been read here, and
    when it had been written to the other side. From the second time of a question to the first of its answer is the
    turn of whoever answers; what this program takes is in neither side's turn.
(2) It looks only between {"cut": ...} and what ends a recovery: a page that was asked for has been passed on, and the
    next one is asked for. So a guest has gone on. Before and afterwards bytes are counted and nothing else.
(3) The first connection after a cut is main, the second one the preempt channel (doc/wire/channels.md 2.3). Both orders of
    accepting them are possible on a network, not over loopback with a source that connects one behind the other.

Orders: {"target": [host, port]}  where to connect to from now on
        {"cut": true}             end all connections by a reset, and look at the next ones; the answer has the time
        {"ask": true}             bytes passed since the last cut, notes, and whether (2) has been reached
Python's standard library only.
"""

import json
import os
import selectors
import socket
import struct
import sys
import time

PIECE_BYTES = 1 << 18
PAGE_BYTES = 4096
SECTIONS = (2, 3)               # PART and END
ZERO, PAGE, EOS, CONTINUE = 0x02, 0x08, 0x10, 0x20
KINDS = {1: "shut", 2: "pong", 3: "request", 4: "request", 5: "bitmap", 6: "resume-ack"}
BITMAP_MARK = 0x0123456789abcdef


class Recovery:
    """What is noted between a cut and a guest that goes on."""

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


# ---- who reads what: generators that are sent bytes, and yield how many they need next ----

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


# ---- passing on ----

class Way:
    """One direction of a connection. What the receiver does not take waits here, and nothing is read meanwhile."""

    def __init__(self, tap, source, to, forwards):
        self.tap, self.source, self.to, self.forwards = tap, source, to, forwards
        self.waiting = b""
        self.read_ns = 0
        self.parser = None
        self.ended = False

    def readable(self):
        try:
            data = self.source.recv(PIECE_BYTES)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        self.read_ns = time.monotonic_ns()
        if not data:
            self.ended = True
            self._pass_end()
            return
        self._write(data)

    def _write(self, data):
        try:
            sent = self.to.send(data)
        except BlockingIOError:
            sent = 0
        except OSError:
            self.ended = True
            sent = len(data)
        now = time.monotonic_ns()
        if self.forwards:
            self.tap.passed += sent
        if self.parser and not self.parser.recovery.over:
            self.parser.feed(data[:sent], (self.read_ns, now))
        self.waiting = data[sent:]

    def writable(self):
        self._write(self.waiting)
        if not self.waiting and self.ended:
            self._pass_end()

    def _pass_end(self):
        if not self.waiting:
            try:
                self.to.shutdown(socket.SHUT_WR)
            except OSError:
                pass


class Tap:
    def __init__(self):
        self.target = None
        self.passed = 0
        self.recovery = None
        self.ways = {}           # of a socket: the one that reads it, and the one that writes to it
        self.selector = selectors.EpollSelector()
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=16)
        self.orders = b""
        os.set_blocking(0, False)
        self.selector.register(self.listener, selectors.EVENT_READ, self.accept)
        self.selector.register(0, selectors.EVENT_READ, self.read_orders)
        self.ended = False

    def run(self):
        self.say({"port": self.listener.getsockname()[1]})
        while not self.ended:
            for key, events in self.selector.select():
                if key.data:
                    key.data()
                elif key.fileobj in self.ways:
                    self.pass_on(self.ways[key.fileobj], events)

    def say(self, answer):
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()

    # A socket is read for the one direction and written for the other.

    def pass_on(self, ways, events):
        reads, writes = ways
        if events & selectors.EVENT_WRITE and writes.waiting:
            writes.writable()
        if events & selectors.EVENT_READ and not reads.waiting and not reads.ended:
            reads.readable()
        for way in ways:
            self.watch(way.source)

    def watch(self, sock):
        reads, writes = self.ways[sock]
        wanted = 0 if reads.waiting or reads.ended else selectors.EVENT_READ
        wanted |= selectors.EVENT_WRITE if writes.waiting else 0
        key = self.selector.get_map().get(sock)
        if key and key.events != wanted:
            self.selector.unregister(sock)
        if wanted and not (key and key.events == wanted):
            self.selector.register(sock, wanted)

    def accept(self):
        source = self.listener.accept()[0]
        read_ns = time.monotonic_ns()
        try:
            there = socket.create_connection(self.target, timeout=10)
        except OSError:
            source.close()
            return
        now = time.monotonic_ns()
        for sock in (source, there):
            sock.setblocking(False)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        forth, back = Way(self, source, there, True), Way(self, there, source, False)
        if self.recovery:
            self.look_at(forth, back, (read_ns, now))
        self.ways[source], self.ways[there] = (forth, back), (back, forth)
        for sock in (source, there):
            self.watch(sock)

    def look_at(self, forth, back, times):
        recovery = self.recovery
        recovery.connections += 1
        if recovery.connections == 1:
            recovery.note("main", "", times)
            forth.parser, back.parser = Parser(main_stream, recovery), Parser(return_path, recovery)
        else:
            recovery.note("preempt", "", times)
            forth.parser = Parser(preempt_stream, recovery)

    def cut(self):
        now = time.monotonic_ns()
        for sock in self.ways:
            if sock in self.selector.get_map():
                self.selector.unregister(sock)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            sock.close()
        self.ways = {}
        self.passed = 0
        self.recovery = Recovery()
        return now

    def read_orders(self):
        data = os.read(0, 65536)
        if not data:
            self.ended = True
        self.orders += data
        while b"\n" in self.orders:
            line, self.orders = self.orders.split(b"\n", 1)
            self.obey(json.loads(line))

    def obey(self, order):
        answer = {}
        if "target" in order:
            self.target = tuple(order["target"])
        elif "cut" in order:
            answer["ns"] = self.cut()
        else:
            answer = {"passed": self.passed}
            if self.recovery:
                answer.update(notes=self.recovery.notes, over=self.recovery.over, served=self.recovery.served)
        self.say(answer)


if __name__ == "__main__":
    Tap().run()
