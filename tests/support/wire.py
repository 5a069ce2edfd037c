"""wire.py - between source and destination (tcp): passes everything on, and loses it when told to

    wire = Wire(target_of(destination.address())).begin()
    source.migrate(wire.uri())
    wire.cut()

All connections of one migration go through it, in the order in which they come. A subclass can do more of what a
network may do: it may change what happens when a connection is accepted (accepted()), when bytes have arrived
(arrived()), and when they have gone on (went()).

Invariants:
(1) One thread passes everything on: that of begin(), or the one that calls run(). Any thread may call the rest.
(2) Bytes that the receiver does not take wait here, and meanwhile nothing more is read.
(3) Bytes are passed on first, and looked at afterwards.
Python's standard library only.
"""

import heapq
import itertools
import selectors
import socket
import struct
import threading
import time
from selectors import EVENT_READ, EVENT_WRITE

MAIN = b"QEVM"                     # what channels begin with (doc/wire/channels.md 3)
MULTIFD = b"\x11\x22\x33\x44"
PIECE_BYTES = 1 << 18
CONNECT_SECONDS = 10
RESET = struct.pack("ii", 1, 0)


def target_of(uri):
    """(host, port) of "tcp:HOST:PORT"."""
    host, port = uri.removeprefix("tcp:").rsplit(":", 1)
    return host, int(port)


class Way:
    """One direction of a connection."""

    def __init__(self, wire, pair, source, to):
        self.wire, self.pair, self.source, self.to = wire, pair, source, to
        self.read_ns = 0       # when its last bytes were read
        self.count = 0         # of the bytes before them
        self.waiting = b""
        self.held = None       # an iterator of what is still to be passed on: bytes, or seconds of a pause
        self.ended = False     # then nothing waits

    def is_idle(self):
        """It may be read."""
        return not (self.waiting or self.held or self.ended)

    def read(self):
        try:
            data = self.source.recv(PIECE_BYTES)
        except BlockingIOError:
            return
        self.read_ns = time.monotonic_ns()
        if not data:
            self.ended = True
            self.to.shutdown(socket.SHUT_WR)
            return
        if self is self.pair.forth and not self.count:
            self.pair.first = data[:4]
        pieces = self.wire.arrived(self, data)
        self.count += len(data)
        if isinstance(pieces, bytes):
            self.write(pieces)
        else:
            self.held = pieces
            self.go_on()

    def write(self, data):
        try:
            sent = self.to.send(data)
        except BlockingIOError:
            sent = 0
        self.wire.went(self, data[:sent], time.monotonic_ns())
        self.waiting = data[sent:]

    def go_on(self):
        """Go on with what waited or is held."""
        if self.waiting:
            self.write(self.waiting)
        while self.held and not self.waiting:
            step = next(self.held, None)
            if step is None:
                self.held = None
            elif isinstance(step, bytes):
                self.write(step)
            else:
                self.wire.later(step, self)
                return


class Pair:
    """A connection of the source's, and the one to the destination that was opened for it."""

    def __init__(self, wire, source, there):
        self.first = b""       # what it began with
        self.lost = False
        self.forth, self.back = Way(wire, self, source, there), Way(wire, self, there, source)
        self.sockets = source, there


class Wire:
    def __init__(self, target=None):
        self.target = target              # (host, port) of the destination; may be changed between two connections
        self.passed = 0                   # bytes to the destination
        self.lock = threading.RLock()
        self._ended = False
        self._pairs, self._silent, self._pauses, self._number = [], [], [], itertools.count()
        self._selector = selectors.EpollSelector()
        self._wake = socket.socketpair()
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.watch(self._listener, lambda: self.accepted(self._listener.accept()[0]))
        self.watch(self._wake[0], lambda: None)

    # ---- what a subclass may override -----------------------------------------------------------

    def accepted(self, source):
        """The source has opened a connection."""
        self.open(source)

    def arrived(self, way, data):
        """Return: what is passed on in their place, bytes or an iterator of bytes and of pauses in seconds."""
        return data

    def went(self, way, data, now_ns):
        """They have been written, and nobody has looked at them yet."""
        if way is way.pair.forth:
            self.passed += len(data)

    # ---- for everybody -------------------------------------------------------------------------------------------

    def uri(self):
        return "tcp:127.0.0.1:%d" % self._listener.getsockname()[1]

    def begin(self):
        threading.Thread(target=self.run, daemon=True).start()
        return self

    def cut(self, how="reset"):
        """reset; end: both sides see an end; silence: nothing more is passed on, and nobody is told.

        multifd channels stay, because nobody connects them again.
        """
        with self.lock:
            for pair in [pair for pair in self._pairs if pair.first != MULTIFD]:
                self._lose(pair, how)

    def close(self):
        with self.lock:
            if self._ended:
                return
            self._ended = True
            for pair in list(self._pairs):
                self._lose(pair, "end")
            for s in itertools.chain([self._listener], *(pair.sockets for pair in self._silent)):
                s.close()
            self._wake[1].close()

    # ---- for subclasses ------------------------------------------------------------------------------

    def watch(self, file, function):
        """Call function when there is something to read."""
        self._selector.register(file, EVENT_READ, lambda _events: function())

    def open(self, source):
        """Connect to the destination. Return: the Pair, or None."""
        try:
            there = socket.create_connection(self.target, timeout=CONNECT_SECONDS)
        except OSError:
            source.close()
            return None
        pair = Pair(self, source, there)
        for s in pair.sockets:
            s.setblocking(False)
            s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._pairs.append(pair)
        self._watch(pair)
        return pair

    def later(self, seconds, way):
        heapq.heappush(self._pauses, (time.monotonic() + seconds, next(self._number), way))

    def run(self):
        """Pass on until close()."""
        while not self._ended:
            ready = self._selector.select(max(self._pauses[0][0] - time.monotonic(), 0) if self._pauses else None)
            with self.lock:
                for key, events in () if self._ended else ready:
                    key.data(events)
                while self._pauses and self._pauses[0][0] <= time.monotonic():
                    way = heapq.heappop(self._pauses)[2]
                    self._do(way.pair, way.go_on)
        self._selector.close()

    def _watch(self, pair):
        """A socket is read for one direction, and written for the other."""
        for reads, writes in (pair.forth, pair.back), (pair.back, pair.forth):
            wanted = EVENT_READ * reads.is_idle() | EVENT_WRITE * bool(writes.waiting)
            key = self._selector.get_map().get(reads.source)
            if key and not wanted:
                self._selector.unregister(reads.source)
            elif key and key.events != wanted:
                self._selector.modify(reads.source, wanted, key.data)
            elif wanted and not key:
                self._selector.register(reads.source, wanted,
                                        lambda events, r=reads, w=writes: self._do(pair, self._pass_on, r, w, events))

    @staticmethod
    def _pass_on(reads, writes, events):
        if events & EVENT_WRITE and writes.waiting:
            writes.go_on()
        if events & EVENT_READ and reads.is_idle():
            reads.read()

    def _do(self, pair, function, *args):
        """The pair may have been lost since it was ready, or the function may lose it."""
        try:
            if not pair.lost:
                function(*args)
        except OSError:
            if not pair.lost:
                self._lose(pair, "end")
        if not pair.lost:
            if pair.forth.ended and pair.back.ended:
                self._lose(pair, "end")
            else:
                self._watch(pair)

    def _lose(self, pair, how):
        pair.lost = True
        self._pairs.remove(pair)
        for s in pair.sockets:
            if s in self._selector.get_map():
                self._selector.unregister(s)
        if how == "silence":
            self._silent.append(pair)
            return
        for s in pair.sockets:
            if how == "reset":
                s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
            else:
                _shut(s)
            s.close()


def _shut(s):
    try:
        s.shutdown(socket.SHUT_RDWR)
    except OSError:
        pass
