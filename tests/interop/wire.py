"""wire.py - between source and destination (tcp): passes everything on, counts it, and can be cut

All connections of one migration go through it, in the order in which they come. cut() ends them, in both directions, as
a network does that is lost: by a reset, by an end, or by silence. Python's standard library only.
"""

import re
import socket
import struct
import threading

PIECE_BYTES = 1 << 16
MAIN = b"QEVM"
MULTIFD = b"\x11\x22\x33\x44"

# Command PACKAGED, its four bytes of length, and the LISTEN it begins with (doc/wire/stream.md 2, 5.4).
PACKAGED = re.compile(rb"\x08\x00\x07\x00\x04(....)\x08\x00\x04\x00\x00", re.DOTALL)
PACKAGED_BYTES = 14


class Wire:
    def __init__(self, target):
        self.target = target              # (host, port) of the destination; may be changed between two connections
        self.lock = threading.Lock()
        self.pairs = []
        self.passed = 0                   # bytes to the destination
        self.connections = 0
        self.cut_at = None                # so many bytes of these, and the next cut comes by itself
        self.behind_package = None        # set to an empty Package: an end comes right behind the next package
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=64)
        threading.Thread(target=self._run, daemon=True).start()

    def uri(self):
        return "tcp:127.0.0.1:%d" % self.listener.getsockname()[1]

    def cut(self, how="reset"):
        """reset; end: both sides see an end; silence: nothing is passed on any more, and nobody is told.

        multifd channels stay: nobody connects them again.
        """
        with self.lock:
            pairs = [pair for pair in self.pairs if pair.first != MULTIFD]
            self.pairs = [pair for pair in self.pairs if pair.first == MULTIFD]
            self.cut_at = None
        for pair in pairs:
            pair.lost = True
            for s in (pair.source, pair.there):
                if how == "silence":
                    continue
                if how == "reset":
                    s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                _shut(s)
                s.close()
        return pairs

    def close(self):
        self.listener.close()
        for pair in self.cut("end"):
            pair.lost = True

    def _run(self):
        while True:
            try:
                source = self.listener.accept()[0]
                there = socket.create_connection(self.target, timeout=10)
            except OSError:
                if self.listener.fileno() < 0:
                    return
                source.close()
                continue
            there.settimeout(None)
            pair = Pair(source, there)
            with self.lock:
                self.pairs.append(pair)
                self.connections += 1
            threading.Thread(target=self._copy, args=(pair, source, there, True), daemon=True).start()
            threading.Thread(target=self._copy, args=(pair, there, source, False), daemon=True).start()

    def _copy(self, pair, source, to, forwards):
        try:
            while True:
                data = source.recv(PIECE_BYTES)
                if pair.lost:
                    return
                if not data:
                    to.shutdown(socket.SHUT_WR)
                    return
                if forwards and not pair.first:
                    pair.first = data[:4]
                if forwards and self._is_due(len(data)):
                    self.cut()
                    return
                package = self.behind_package
                if forwards and pair.first == MAIN and package and package.ends_in(data):
                    to.sendall(data[:package.left])
                    self.behind_package = None
                    self.cut("end")
                    return
                to.sendall(data)
        except OSError:
            if not pair.lost:
                _shut(source)
                _shut(to)

    def _is_due(self, count):
        with self.lock:
            self.passed += count
            return self.cut_at is not None and self.passed >= self.cut_at


class Package:
    """Where the package ends in a stream that comes in pieces."""

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


class Pair:
    def __init__(self, source, there):
        self.source, self.there, self.lost, self.first = source, there, False, b""
        for s in (source, there):
            s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


def _shut(s):
    try:
        s.shutdown(socket.SHUT_RDWR)
    except OSError:
        pass
