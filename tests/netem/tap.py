"""tap.py - in which order did the source open connections, and in which order did they arrive at the destination?

It looks at both ends of the link, packet by packet. A connection is opened when the source sends its first SYN. The
destination's kernel queues it for accept() when the first segment after the SYN arrives. It has spoken when its first
byte has arrived. Only what a program can see counts: what the link drops does not arrive.
"""

import select
import socket
import struct
import threading
import time

from wire import MAIN, MULTIFD

ETH_P_ALL = 0x0003     # <linux/if_ether.h>: less does not show what goes out
OUTGOING = 4            # <linux/if_packet.h>
SYN, ACK, RST = 0x02, 0x10, 0x04
SEEN_BYTES = 256
CLOSE_SECONDS = 0.05
DRAIN_SECONDS = 2


class Connection:
    """One of the source's, known by its port there."""

    def __init__(self, port, start):
        self.port = port
        self.start = start          # the sequence number of the first byte
        self.first = b""            # what it began with


class Tap:
    """From arm() to disarm(). Ports are those of the source."""

    def __init__(self, link, port):
        self.link, self.port = link, port
        self.opened, self.accepted, self.spoken = [], [], []     # Connections, each in its order
        self.by_port = {}
        self._wake = self._thread = None

    def arm(self):
        sockets = [self.link.socket(where, socket.SOCK_DGRAM, socket.AF_PACKET, socket.htons(ETH_P_ALL))
                   for where in ("source", "destination")]
        self._wake = socket.socketpair()
        self._thread = threading.Thread(target=self._run, args=(*sockets, self._wake[1]), daemon=True)
        self._thread.start()

    def restart(self):
        """Forget what it has seen."""
        self.disarm()
        self.opened, self.accepted, self.spoken, self.by_port = [], [], [], {}
        self.arm()

    def disarm(self):
        """On return it has seen everything that has passed."""
        if self._thread:
            self._wake[0].close()
            self._thread.join()
            self._wake[1].close()
            self._thread = None

    def _run(self, source, destination, wake):
        # Not select(): there are many taps, and its descriptors end at 1024.
        poll = select.poll()
        for s in (source, destination, wake):
            poll.register(s, select.POLLIN)
        end = None
        with source, destination:
            while True:
                ready = {fd for fd, _ in poll.poll()}
                if wake.fileno() in ready:
                    # Look at everything that has passed, unless it never ends.
                    end = end or time.monotonic() + DRAIN_SECONDS
                    if len(ready) == 1 or time.monotonic() > end:
                        return
                # All of the source's first: nothing arrives before it was sent.
                while self._take(source, True):
                    pass
                if destination.fileno() in ready:
                    self._take(destination, False)

    def _take(self, tap, at_source):
        """One packet. Return: whether there was one."""
        try:
            data, address = tap.recvfrom(SEEN_BYTES, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return False
        self._look(data, address, at_source)
        return True

    def _look(self, data, address, at_source):
        if (address[2] == OUTGOING) != at_source or len(data) < 40 or data[0] >> 4 != 4 or data[9] != socket.IPPROTO_TCP:
            return
        header_bytes = (data[0] & 15) * 4
        here, there, sequence = struct.unpack_from(">HHI", data, header_bytes)
        offset, flags = data[header_bytes + 12] >> 4, data[header_bytes + 13]
        if there != self.port:
            return
        if at_source:
            if flags & SYN and here not in self.by_port:
                self.by_port[here] = connection = Connection(here, sequence + 1 & 0xffffffff)
                self.opened.append(connection)
            return
        connection = self.by_port.get(here)
        if not connection or flags & (SYN | RST) or not flags & ACK:
            return
        if connection not in self.accepted:
            self.accepted.append(connection)
        payload = data[header_bytes + offset * 4:]
        if payload and sequence == connection.start and connection not in self.spoken:
            connection.first = payload[:4]
            connection.spoke_at = time.monotonic()
            self.spoken.append(connection)

    # ---- conclusions -------------------------------------------------------------------------------------------

    def out_of_order(self):
        """Accepted in another order than opened."""
        return self.accepted != [c for c in self.opened if c in self.accepted]

    def main_overtaken(self):
        """A multifd channel's first bytes arrived before the main channel's (without TLS)."""
        firsts = [c.first for c in self.spoken if c.first in (MAIN, MULTIFD)]
        return firsts[:1] == [MULTIFD]

    def main_was_close(self):
        """Main's first bytes arrived before a multifd channel's, by so little that the destination may see both at
        once."""
        at = {kind: min((c.spoke_at for c in self.spoken if c.first == kind), default=None) for kind in (MAIN, MULTIFD)}
        return None not in at.values() and 0 <= at[MULTIFD] - at[MAIN] < CLOSE_SECONDS

    def misread(self, said):
        """said: {port: "main" or "multifd"} of the destination. Return: what is wrong, or None."""
        for c in self.spoken:
            is_so = {MAIN: "main", MULTIFD: "multifd"}.get(c.first)
            if is_so and said.get(c.port, is_so) != is_so:
                return f"port {c.port} began with {c.first.hex()}, and was taken for the {said[c.port]} channel"
        return None
