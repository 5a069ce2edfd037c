"""proxy.py - between source and destination (tcp): holds connections back, permutes them, delays and splits bytes

What a network may do to a migration of several connections, on purpose (doc/wire/channels.md 3): the destination accepts
them in another order than the source has made them, and their first bytes come in a third order and in pieces.
Python's standard library only.
"""

import socket
import threading
import time

MAGIC_MAIN = b"QEVM"
SPLIT_BYTES = 12        # so many of a connection's first bytes come one by one
SPLIT_PAUSE_S = 0.003
MAIN_DELAY_S = 0.3      # behind the last of the others
PIECE_BYTES = 1 << 18


class Proxy:
    """Accepts `count` connections, then opens them to the destination in `order` (indexes in the order of arrival, 0 is
    the one that came first: main).

    main_last: nothing of main is passed on before every other connection has had bytes passed on, and a while longer.
    split: the first bytes of every connection are passed on one by one.
    """

    def __init__(self, target, count, order=None, main_last=False, split=False, seconds=60):
        self.target = target
        self.count = count
        self.order = list(range(count)) if order is None else list(order)
        self.main_last = main_last
        self.split = split
        self.seconds = seconds
        self.problem = ""
        self.opened = []                  # first bytes of the connections, in the order in which they were opened
        self.others_spoke = threading.Semaphore(0)
        self.sockets = []
        self.lock = threading.Lock()
        self.closing = False
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=count + 2)
        threading.Thread(target=self._run, daemon=True).start()

    def uri(self):
        return "tcp:127.0.0.1:%d" % self.listener.getsockname()[1]

    def close(self):
        with self.lock:
            self.closing = True
            for s in self.sockets + [self.listener]:
                _end(s)

    def check(self):
        """The order was what it was to be: main is where its index says. Raises ValueError."""
        if self.problem:
            raise ValueError("proxy: " + self.problem)
        if sorted(self.order) != list(range(self.count)) or len(self.opened) != self.count:
            raise ValueError(f"proxy: {len(self.opened)} of {self.count} connections were passed on")

    def _keep(self, s):
        with self.lock:
            if self.closing:
                s.close()
                raise OSError("closing")
            self.sockets.append(s)
        s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return s

    def _run(self):
        try:
            self.listener.settimeout(self.seconds)
            sources = [self._keep(self.listener.accept()[0]) for _ in range(self.count)]
            for place in self.order:
                there = self._keep(socket.create_connection(self.target, timeout=self.seconds))
                there.settimeout(None)
                sources[place].settimeout(None)
                self.opened.append(place)
                self._start(self._forward, sources[place], there, place == 0)
                self._start(self._back, there, sources[place])
            # More than were expected: as they come.
            while True:
                more = self._keep(self.listener.accept()[0])
                there = self._keep(socket.create_connection(self.target, timeout=self.seconds))
                self._start(self._back, more, there)
                self._start(self._back, there, more)
        except OSError as e:
            if len(self.opened) < self.count:
                self.problem = f"{len(self.sockets)} connections came, {len(self.opened)} were passed on: {e}"

    def _start(self, function, *args):
        threading.Thread(target=function, args=args, daemon=True).start()

    def _forward(self, source, there, is_main):
        """From the source, with all that is to happen to first bytes."""
        try:
            data = source.recv(PIECE_BYTES)
            if is_main and data and not MAGIC_MAIN.startswith(data[:4]):
                self.problem = f"the first connection begins with {data[:4].hex()} and is not main"
            if is_main and self.main_last:
                for _ in range(self.count - 1):
                    self.others_spoke.acquire(timeout=self.seconds)
                time.sleep(MAIN_DELAY_S)
            if self.split:
                for i in range(min(SPLIT_BYTES, len(data))):
                    there.sendall(data[i:i + 1])
                    time.sleep(SPLIT_PAUSE_S)
                data_left = data[SPLIT_BYTES:]
            else:
                data_left = data
            if data_left:
                there.sendall(data_left)
            if not is_main:
                self.others_spoke.release()
            if data:
                _copy(source, there)
            else:
                there.shutdown(socket.SHUT_WR)
        except OSError:
            _end(source)
            _end(there)

    def _back(self, there, source):
        try:
            _copy(there, source)
        except OSError:
            _end(source)
            _end(there)


def _copy(source, to):
    buffer = bytearray(PIECE_BYTES)
    view = memoryview(buffer)
    while True:
        n = source.recv_into(buffer)
        if not n:
            to.shutdown(socket.SHUT_WR)
            return
        to.sendall(view[:n])


def _end(s):
    """For both directions, also while another thread waits in it."""
    try:
        s.shutdown(socket.SHUT_RDWR)
    except OSError:
        pass
    s.close()
