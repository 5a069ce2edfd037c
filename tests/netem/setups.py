"""setups.py - many times, set up channels while the network loses packets, with a source of a few lines

The source does what QEMU does: it connects the main channel, and once that is connected, all others at once. Its main
channel speaks at once, so that only the network decides which bytes arrive first. What the destination reports about
each connection must be what was sent on it. A preempt channel says nothing, and must not be classified while the others
come. With TLS every connection begins with a handshake (certificates), and then says inside TLS what it is.

After LOSS_SECONDS the loss ends. A set-up that succeeds only then is late, and the network is the cause; one that does
not succeed even then hangs. So the time that a set-up takes does not count.
"""

import os
import re
import socket
import ssl
import struct
import threading
import time

import bed as beds
from netem import Link

# Up to the beginning of the first section, which a source sends in one piece: less does not identify a source.
HEADER = b"QEVM" + struct.pack(">I", 3) + b"\x07" + struct.pack(">I", 13) + b"pc-i440fx-7.2" + b"\x01"
LOSS_SECONDS = 60
CALM_SECONDS = 180      # without tcp_rto_max_ms a kernel repeats what was lost after up to two minutes
LINKS_PER_JOB = 4       # they do little but wait for the next SYN
LINKS_MAX = 32
CLOSED = re.compile(r"connection from tcp:\S*:(\d+) closed: ")


def multifd_hello(number):
    return b"\x11\x22\x33\x44" + struct.pack(">I", 1) + bytes(16) + bytes([number]) + bytes(39)


class Stopped(Exception):
    """Nobody is interested any more."""


class Opener(threading.Thread):
    """One channel. tls: the context of its session."""

    def __init__(self, link, data, tls=None):
        super().__init__(daemon=True)
        self.tls, self.data, self.port = tls, data, None
        self.socket = link.socket("source")
        if tls:
            self.socket = tls.wrap_socket(self.socket, do_handshake_on_connect=False, server_hostname=Link.destination)

    def run(self):
        try:
            self.socket.settimeout(LOSS_SECONDS + CALM_SECONDS)
            self.socket.connect((Link.destination, beds.PORT))
            self.port = self.socket.getsockname()[1]
            if self.tls:
                self.socket.do_handshake()
            self.socket.sendall(self.data)
        except (OSError, ValueError):
            pass  # the destination is gone, and says why itself; or the set-up is over

    def close(self):
        """Nothing of it may reach the next set-up: a socket that is closed while a thread waits for it would keep
        trying."""
        try:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            socket.socket.shutdown(self.socket, socket.SHUT_RDWR)
        except OSError:
            pass
        if self.ident:
            self.join()
        self.socket.close()


def tls_of(certs):
    """A client's side, with the files that QEMU uses."""
    folder = os.path.join(certs, "client")
    context = ssl.create_default_context(cafile=os.path.join(folder, "ca-cert.pem"))
    context.load_cert_chain(os.path.join(folder, "client-cert.pem"), os.path.join(folder, "client-key.pem"))
    return context


class SetUp:
    """One set-up and its outcome. certs: the folder of the certificates, or None without TLS."""

    def __init__(self, bed, folder, program, channels, preempt, certs, stop):
        self.bed, self.channels, self.preempt, self.certs, self.stop = bed, channels, preempt, certs, stop
        self.destination = beds.Destination(folder, program, bed, "", False, 2 * (LOSS_SECONDS + CALM_SECONDS))
        self.openers = []
        self.started = time.monotonic()
        self.reordered = self.overtaken = self.close = self.late = False
        self.wrong = ""         # a channel was taken for another
        self.hang = ""

    def execute(self):
        patience = LOSS_SECONDS + CALM_SECONDS
        params = {"connect-deadline": patience, "tcp-user-timeout": patience * 1000, **({"tls-creds-type": "x509"} if self.certs else {}),
                  **({"multifd-channels": self.channels} if self.channels else {})}
        self.bed.wait_port()
        self.destination.start(["multifd"] * bool(self.channels) + ["postcopy-ram", "postcopy-preempt"] * self.preempt,
                               params, os.path.join(self.certs, "server") if self.certs else None)
        tap = self.bed.tap
        tap.restart()
        self.bed.link.set(loss="50%")
        try:
            self.open()
            self.wait()
        finally:
            self.bed.link.set(loss="0%")
            tap.disarm()
            self.reordered, self.close = tap.out_of_order(), tap.main_was_close()
            # Inside TLS only the destination sees who speaks.
            self.overtaken = self.spoke_first() == "multifd" if self.certs else tap.main_overtaken()
            self.destination.close()
            for opener in self.openers:
                opener.close()

    def spoke_first(self):
        return next(iter(self.destination.channels().values()), None)

    def open(self):
        """Main first. The others come once it is connected, as with QEMU; its bytes may not have arrived then."""
        client = tls_of(self.certs) if self.certs else None
        main = Opener(self.bed.link, HEADER, client)
        self.openers = [main]
        for number in range(self.channels):
            self.openers.append(Opener(self.bed.link, multifd_hello(number), client))
        if self.preempt:
            self.openers.append(Opener(self.bed.link, b"", client))
        main.start()
        while main.is_alive() and not self.is_late() and not self.stop.is_set():
            main.join(0.05)
        for opener in self.openers[1:]:
            opener.start()

    def wanted(self):
        """The type of each, by its port at the source."""
        speaking = self.openers[:1 + self.channels]
        return {opener.port: "multifd" if number else "main" for number, opener in enumerate(speaking)}

    def decided(self):
        said = self.destination.channels()
        closed = {int(port) for port in CLOSED.findall(self.destination.errors())}
        if self.destination.process.exited() is not None or closed & {opener.port for opener in self.openers}:
            return True
        # Not silent ones: if the last packet of its beginning is lost, a minute may pass until the next try.
        return len(said) == 1 + self.channels

    def is_late(self):
        """From now on the network is good."""
        if not self.late and time.monotonic() > self.started + LOSS_SECONDS:
            self.late = True
            self.bed.link.set(loss="0%")
        return self.late

    def wait(self):
        """All decided, or it has ended, or it hangs."""
        while not self.decided():
            if self.stop.is_set():
                raise Stopped
            if self.is_late() and time.monotonic() > self.started + LOSS_SECONDS + CALM_SECONDS:
                self.hang = f"{self.destination.channels()} of {len(self.openers)}: {self.destination.errors()}"
                return
            time.sleep(0.02)
        said = self.destination.channels()
        if said != self.wanted():
            self.wrong = f"wanted {self.wanted()}, it says {said}: {self.destination.errors()[-400:]}"


class Counts:
    def __init__(self):
        self.lock = threading.Lock()
        self.done = self.reordered = self.overtaken = self.wrong = self.hangs = self.late = 0
        self.wrong_overtaken = self.wrong_in_order = self.in_order = 0
        self.first_wrong = ""
        self.seconds = self.longest = 0.0

    def add(self, setup, seconds):
        with self.lock:
            self.done += 1
            self.seconds += seconds
            self.longest = max(self.longest, seconds)
            self.reordered += setup.reordered
            self.overtaken += setup.overtaken
            self.late += setup.late
            self.wrong += bool(setup.wrong)
            self.wrong_overtaken += bool(setup.wrong) and setup.overtaken
            in_order = not (setup.overtaken or setup.reordered or setup.close)
            self.in_order += in_order
            self.wrong_in_order += bool(setup.wrong) and in_order
            self.hangs += bool(setup.hang)
            self.first_wrong = self.first_wrong or setup.wrong or setup.hang

    def text(self):
        each = self.seconds / max(self.done, 1)
        return f"{self.done} at 50 % loss: {self.wrong} wrong, {self.hangs} hang; {self.reordered} accepted out of order, " \
            f"in {self.overtaken} the main channel was overtaken, {self.late} late; {each:.1f} s each, " \
            f"{self.longest:.1f} s at most"


def run(options, name, program, count, enough=None, certs=None):
    """Do count set-ups, on some links at the same time; fewer when enough(counts). certs: with TLS. Raises
    netem.NotHere."""
    counts, left, troubles = Counts(), iter(range(count)), []

    def work(number):
        folder = f"{options.shared}/{name}.{number}"
        os.makedirs(folder, exist_ok=True)
        try:
            with beds.Bed(options, seed=options.seed + number) as bed:
                for n in left_ones():
                    start = time.monotonic()
                    # 1..8 channels; with and without a preempt channel.
                    setup = SetUp(bed, folder, program, n % 8 + 1, bool(n // 8 % 2), certs, options.stop)
                    setup.execute()
                    counts.add(setup, time.monotonic() - start)
        except BaseException as e:  # the thread that waits raises it
            troubles.append(e)

    def left_ones():
        while not troubles and not options.stop.is_set() and not (enough and enough(counts)):
            with counts.lock:
                n = next(left, None)
            if n is None:
                return
            yield n

    # Not daemons: each ends its link and its programs before it ends.
    threads = [threading.Thread(target=work, args=(n,)) for n in range(min(options.jobs * LINKS_PER_JOB, LINKS_MAX, count))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if troubles:
        raise troubles[0]
    return counts
