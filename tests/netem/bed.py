"""bed.py - the base of every loss test: a link, a program at each of its ends, and a tap on it"""

import errno
import functools
import os
import re
import shutil
import socket
import subprocess
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "interop"))

import cases_postcopy  # noqa: E402
import netem           # noqa: E402
import qemu            # noqa: E402
import tcp             # noqa: E402
from tap import Tap    # noqa: E402

PORT = 4444
PATIENT_SECONDS = 120       # for things that must come, however slow the machine is
ADDRESS = f"tcp:{netem.Link.destination}:{PORT}"

# At 50 % loss the channels take their time.
PATIENT = {"connect-deadline": 80}
# A destination that notices a loss soon: after 4 s of silence.
SOON = {**PATIENT, "keepalive-idle": 1, "keepalive-interval": 1, "keepalive-count": 3, "tcp-user-timeout": 4000}

WORDS = re.compile(r"^inmigrate: info: (main channel|multifd channel \d+|preempt channel): "
                   r"tcp:(?:10\.77\.0\.1|\[::ffff:10\.77\.0\.1\]):(\d+)", re.M)


class Bed:
    """A seeded link with settings, and with TCP at its ends as tcp.py sets it. `with` ends it."""

    def __init__(self, options, seed, congestion=tcp.CUBIC, **settings):
        self.link = netem.Link(build=options.build, seed=seed, options=("--congestion", congestion), **settings)
        self.tap = None
        self.lacking = ()

    def __enter__(self):
        self.link.__enter__()
        try:
            self.lacking = tcp.settle(self.link)
            self.tap = Tap(self.link, PORT)
            self.tap.arm()
        except BaseException:
            self.link.__exit__()
            raise
        return self

    def __exit__(self, *_):
        if self.tap:
            self.tap.disarm()
        self.link.__exit__()

    def wait_port(self):
        """Wait until nobody listens: the kernel closes the descriptors in a killed program's ring a bit later."""
        def is_free():
            with self.link.socket("destination") as s:
                s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                try:
                    s.bind((netem.Link.destination, PORT))
                except OSError as e:
                    if e.errno != errno.EADDRINUSE:
                        raise
                    return False
                return True
        qemu.wait_until("the port to be free", is_free, PATIENT_SECONDS)

    def prefix(self, where):
        """The words before a command that is to run there; the process is the command itself."""
        return ["env", *(f"{k}={v}" for k, v in self.link.environment.items()),
                self.link.environment["NETEM_LINK"], "--enter", where, "--"]


class Destination(cases_postcopy.Touched):
    """The program at its end of the link, with full output."""

    def __init__(self, folder, program, bed, guest, switched, seconds):
        super().__init__(folder, program, guest, "", switched)
        self.bed, self.seconds = bed, seconds

    def start(self, caps=(), params=None, tls=None):
        self.more = ["-v", *(["--tls-creds", tls] if tls else []), *self.more]
        super().start(ADDRESS, caps, {**PATIENT, **(params or {})}, verbose=True)
        self.address(seconds=60)
        return self

    def prefix(self):
        return self.bed.prefix("destination")

    def channels(self):
        """{port of the source: "main", "multifd" or "preempt"}, as the destination decided, and in that order."""
        return {int(port): what.split()[0] for what, port in WORDS.findall(self.errors())}

    def said(self, words):
        return self.errors().count(words)


class Source(qemu.Qemu):
    """A real QEMU at the other end."""

    QMP_SECONDS = PATIENT_SECONDS

    def __init__(self, folder, binary, bed, **more):
        super().__init__(folder, binary, **more)
        self.argv = bed.prefix("source") + self.argv

    def start(self, pass_fds=()):
        """Its monitor stands still while the network does, for example in a TLS handshake (7.2)."""
        super().start(pass_fds)
        self.qmp.command = functools.partial(self.qmp.command, _seconds=PATIENT_SECONDS)
        return self

    def be_humble(self):
        """The guest never rests. It gets the time that the others leave."""
        for cpu in self.qmp.command("query-cpus-fast"):
            os.setpriority(os.PRIO_PROCESS, cpu["thread-id"], 19)


def make_certs(folder):
    """Once for all runs."""
    script = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "scripts", "make-certs")
    made = subprocess.run([script, "--server", netem.Link.destination, folder], capture_output=True, text=True, timeout=60,
                          check=False)
    if made.returncode != 0:
        shutil.rmtree(folder, ignore_errors=True)
