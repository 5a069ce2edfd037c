"""program.py - the program under test as a child, and the folder of a test"""

import ctypes
import functools
import os
import re
import shutil
import signal
import subprocess
import sys
import unittest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))

import temp  # noqa: E402
from waiting import PATIENT_SECONDS, wait_until  # noqa: E402,F401 (for the tests, which have it from here)

PROGRAM = os.environ.get("TEST_PROGRAM", "build/inmigrate")
PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None)


def has_sanitizer():
    """Built with AddressSanitizer or ThreadSanitizer, which take memory and address space for themselves."""
    with open(PROGRAM, "rb") as f:
        return bool(re.search(rb"__[at]san_init", f.read()))


def _die_with_parent():
    _libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def run(*args, data=None, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, seconds=PATIENT_SECONDS, text=True):
    """The program to its end. data: bytes for a pipe to its standard input."""
    done = subprocess.run([PROGRAM, *args], input=data, stdin=None if data is not None else stdin, stdout=stdout,
                          stderr=subprocess.PIPE, timeout=seconds, preexec_fn=_die_with_parent)
    if text:
        done.stdout, done.stderr = (done.stdout or b"").decode(errors="replace"), done.stderr.decode(errors="replace")
    return done


class Listen:
    """`inmigrate listen`, under way."""

    def __init__(self, uri, *args, preexec=None):
        self.child = subprocess.Popen([PROGRAM, "listen", uri, *args], stdin=subprocess.DEVNULL,
                                      stdout=subprocess.PIPE, stderr=subprocess.PIPE, preexec_fn=_die_with_parent)
        self.out = self.err = b""

    def address(self):
        """The first one it says it listens on."""
        line = self.child.stdout.readline()
        self.out += line
        found = re.fullmatch(rb"listening on (.+)\n", line)
        if not found:
            self.end()
            raise AssertionError(f"it said {line!r} and {self.err!r}")
        return found[1].decode()

    def end(self, seconds=PATIENT_SECONDS):
        """Exit status; out and err are then what it printed."""
        try:
            out, self.err = self.child.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            self.close()
            raise AssertionError(f"it did not end within {seconds} s, or left somebody with its output") from None
        self.out += out
        return self.child.returncode

    def close(self):
        # Not to the end of its output: what it has started may have that, too.
        self.child.kill()
        self.child.wait()
        self.child.stdout.close()
        self.child.stderr.close()


@functools.lru_cache
def why_no_ring():
    """What an ordinary user who may lock too little memory is told."""
    found = re.search(r"^io_uring +no .*RLIMIT_MEMLOCK.*$", run("probe").stdout, re.M)
    return found and found[0]


class Case(unittest.TestCase):
    """A test with a folder of its own."""

    def setUp(self):
        if why_no_ring():
            self.skipTest(why_no_ring())
        self.folder = temp.folder("inmigrate-program-")
        self.addCleanup(shutil.rmtree, self.folder, ignore_errors=True)

    def path(self, name):
        return os.path.join(self.folder, name)

    def write(self, name, data):
        with open(self.path(name), "wb") as f:
            f.write(data)
        return self.path(name)

    def read(self, name):
        with open(self.path(name), "rb") as f:
            return f.read()

    def listen(self, uri, *args):
        listen = Listen(uri, *args)
        self.addCleanup(listen.close)
        return listen

    def assert_ends(self, listen, status, pattern=b""):
        """With that exit status, and a line on standard error that matches."""
        got = listen.end()
        self.assertEqual(got, status, listen.err)
        if status:
            self.assertRegex(listen.err, rb"(?m)^inmigrate: .*" + pattern)
