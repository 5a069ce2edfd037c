"""netem.py - an emulated network for a test: two namespaces, and a link between them that can be degraded

    with netem.Link(loss="50%", delay="20ms", seed=1) as link:
        server = link.popen("destination", [program, "listen", f"tcp:{link.destination}:4444"])
        client = link.popen("source", [...])
        link.set(loss="0%")
        link.blackout("2s")
    print(link.result["to-destination"]["lost"])

Settings are the options of tests/netem/link, with _ for -: loss, loss_burst, delay, jitter, reorder, duplicate,
corrupt, rate, queue, blackout (down=True); each also for one direction, as in to_source_loss and to_destination_loss.
If the machine does not allow a link, NotHere says why, and skips a unittest.
"""

import ctypes
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import unittest

sys.path.append(os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))

import temp  # noqa: E402

HERE = os.path.dirname(os.path.abspath(__file__))
LINK = os.path.join(HERE, "link")
CLONE_NEWNET = 0x40000000
NOT_HERE_STATUS = 77
END_SECONDS = 10

# Reports where the namespaces are, then lives until its standard input closes: so the link always ends with us.
COMMAND = r"""printf '%s\n' "$NETEM_SOURCE_NETNS" "$NETEM_DESTINATION_NETNS" "$NETEM_PID" "$NETEM_LINK"; exec cat"""

_libc = ctypes.CDLL(None, use_errno=True)


class NotHere(unittest.SkipTest):
    """The machine does not allow an emulated link, and why. In a unittest this skips the test."""


class Failed(Exception):
    """The link refused something, or is gone."""


def _setns(path):
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        if _libc.setns(fd, CLONE_NEWNET) < 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number), path)
    finally:
        os.close(fd)


def _words(settings):
    for name, value in settings.items():
        yield name.replace("_", "-"), value


class Link:
    """build: the folder of the link's build (default: as tests/netem/link finds it). log: keep a line for each
    packet."""

    source, destination = "10.77.0.1", "10.77.0.2"

    def __init__(self, build=None, seed=None, log=False, options=(), **settings):
        self._command = [LINK] + (["--build", build] if build else []) + ["--quiet", *options]
        if seed is not None:
            self._command += ["--seed", str(seed)]
        for name, value in _words(settings):
            self._command += [f"--{name}"] if value is True else [f"--{name}", value]
        self._keep_log = log
        self._folder = self._process = self._control = None
        self._children = []
        self.pid = None     # of the link
        self.result = None   # the statistics, after the end
        self.log = []        # [(direction, number, second, bytes, its fate, why...)], after the end

    def __enter__(self):
        self._folder = temp.folder("netem.")
        try:
            self._start()
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(self, *_):
        self._end()

    def _path(self, name):
        return os.path.join(self._folder, name)

    def _start(self):
        command = self._command + ["--control", self._path("control"), "--stats", self._path("stats")]
        if self._keep_log:
            command += ["--log", self._path("log")]
        with open(self._path("errors"), "wb") as errors:
            # A group of its own: Ctrl-C is for the test, which then ends the link.
            self._process = subprocess.Popen(command + ["--", "sh", "-c", COMMAND], stdin=subprocess.PIPE,
                                             stdout=subprocess.PIPE, stderr=errors, text=True, process_group=0)
        lines = [self._process.stdout.readline().strip() for _ in range(4)]
        if not all(lines):
            self._not_started()
        self.netns = {"source": lines[0], "destination": lines[1]}
        self.pid = int(lines[2])
        self.environment = {"NETEM_SOURCE_NETNS": lines[0], "NETEM_DESTINATION_NETNS": lines[1], "NETEM_PID": lines[2],
                             "NETEM_LINK": lines[3], "NETEM_CONTROL": self._path("control"),
                             "NETEM_SOURCE": self.source, "NETEM_DESTINATION": self.destination}
        self._control = socket.socket(socket.AF_UNIX)
        self._control.connect(self._path("control"))
        self._answers = self._control.makefile("r")

    def _not_started(self):
        status = self._process.wait(END_SECONDS)
        with open(self._path("errors"), encoding="utf-8") as f:
            text = f.read().strip()
        raise (NotHere if status == NOT_HERE_STATUS else Failed)(text or f"the link ended with status {status}")

    def _end(self):
        try:
            self._end_children()
            if self._control:
                self._answers.close()
                self._control.close()
            if self._process:
                self._end_process()
            self._read_results()
        finally:
            shutil.rmtree(self._folder, ignore_errors=True)

    def _end_children(self):
        for child in self._children:
            if child.poll() is None:
                child.kill()
            child.wait()

    def _end_process(self):
        try:
            self._process.stdin.close()
            self._process.wait(END_SECONDS)
        except (subprocess.TimeoutExpired, BrokenPipeError):
            self._process.send_signal(signal.SIGKILL)
            self._process.wait()
        self._process.stdout.close()

    def _read_results(self):
        if self._process and self._process.returncode == 0:
            with open(self._path("stats"), encoding="utf-8") as f:
                self.result = json.load(f)
        if self._keep_log and os.path.exists(self._path("log")):
            with open(self._path("log"), encoding="utf-8") as f:
                self.log = [(d, int(n), float(s), int(b), *rest) for d, n, s, b, *rest in map(str.split, f)]

    # ---- programs and sockets at either end --------------------------------------------------------------------

    def popen(self, where, command, **more):
        """A program at "source" or "destination". It ends with the link at the latest."""
        environment = {**(more.pop("env", None) or os.environ), **self.environment}
        child = subprocess.Popen([self.environment["NETEM_LINK"], "--enter", where, "--", *command], env=environment,
                                 **more)
        self._children.append(child)
        return child

    def run(self, where, command, data=None, seconds=30, **more):
        """Run such a program to its end, like subprocess.run."""
        more.setdefault("stdout", subprocess.PIPE)
        more.setdefault("stderr", subprocess.PIPE)
        child = self.popen(where, command, stdin=subprocess.PIPE if data is not None else subprocess.DEVNULL, **more)
        try:
            out, err = child.communicate(data, timeout=seconds)
        except subprocess.TimeoutExpired:
            child.kill()
            child.communicate()
            raise
        return subprocess.CompletedProcess(command, child.returncode, out, err)

    def socket(self, where, kind=socket.SOCK_STREAM, family=socket.AF_INET, protocol=0):
        """A socket of this process at one end of the link: a socket belongs to the namespace in which it was made."""
        back = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        try:
            _setns(self.netns[where])
            try:
                return socket.socket(family, kind, protocol)
            finally:
                _setns(f"/proc/self/fd/{back}")
        except PermissionError as e:
            raise NotHere(f"may not enter a network namespace: {e.strerror}") from None
        finally:
            os.close(back)

    # ---- changes while it runs ---------------------------------------------------------------------------------

    def tell(self, line):
        """Send a line to --control. Return: its answer."""
        self._control.sendall(line.encode() + b"\n")
        answer = self._answers.readline().strip()
        if not answer or answer.startswith("error"):
            raise Failed(answer or "the link is gone")
        return answer

    def set(self, **settings):
        """Takes effect before it returns, for packets that enter from then on."""
        for name, value in _words(settings):
            self.tell(f"{name} {value}")

    @staticmethod
    def _prefix(towards):
        return f"to-{towards}-" if towards else ""

    def blackout(self, seconds, after="0s", towards=None):
        """Starts now, or after some time. towards: "source", "destination", or both."""
        self.tell(f"{self._prefix(towards)}blackout {after}+{seconds}")

    def down(self, towards=None):
        self.tell(f"{self._prefix(towards)}down")

    def up(self, towards=None):
        self.tell(f"{self._prefix(towards)}up")

    def stats(self):
        """To this moment: {"to-destination": {...}, "to-source": {...}, "seed": ..., "seconds": ...}"""
        return json.loads(self.tell("stats"))
