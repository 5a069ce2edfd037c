"""program.py - the program under test as a child, and the folder of a test"""

import functools
import glob
import os
import re
import shutil
import subprocess
import sys
import unittest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))

import stream  # noqa: E402
import temp  # noqa: E402
from signals import die_with_parent  # noqa: E402
from waiting import PATIENT_SECONDS, wait_until  # noqa: E402,F401 (for the tests, which have it from here)

PROGRAM = os.environ.get("TEST_PROGRAM", "build/inmigrate")
NOBODY = 65534


def has_sanitizer():
    """Built with AddressSanitizer or ThreadSanitizer, which take memory and address space for themselves."""
    with open(PROGRAM, "rb") as f:
        return bool(re.search(rb"__[at]san_init", f.read()))


def run(*args, data=None, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, seconds=PATIENT_SECONDS, text=True,
        program=PROGRAM, preexec=lambda: None, **how):
    """Run the program to its end. data: bytes for a pipe to its standard input."""
    def prepare():
        die_with_parent()
        preexec()
    done = subprocess.run([program, *args], input=data, stdin=None if data is not None else stdin, stdout=stdout,
                          stderr=subprocess.PIPE, timeout=seconds, preexec_fn=prepare, check=False, **how)
    if text:
        done.stdout, done.stderr = (done.stdout or b"").decode(errors="replace"), done.stderr.decode(errors="replace")
    return done


class Listen:
    """`inmigrate listen`, running."""

    def __init__(self, uri, *args, preexec=None):
        self.child = subprocess.Popen([PROGRAM, "listen", uri, *args], stdin=subprocess.DEVNULL,
                                      stdout=subprocess.PIPE, stderr=subprocess.PIPE, preexec_fn=die_with_parent)
        self.out = self.err = b""

    def address(self):
        """The first address that it reports."""
        line = self.child.stdout.readline()
        self.out += line
        found = re.fullmatch(rb"listening on (.+)\n", line)
        if not found:
            self.end()
            raise AssertionError(f"it said {line!r} and {self.err!r}")
        return found[1].decode()

    def end(self, seconds=PATIENT_SECONDS):
        """The exit status; out and err then have what it printed."""
        try:
            out, self.err = self.child.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            self.close()
            raise AssertionError(f"it did not end within {seconds} s, or left somebody with its output") from None
        self.out += out
        return self.child.returncode

    def memory_file(self, length):
        """The file of a RAM block of that length, held by somebody else."""
        return wait_until("a memory file", lambda: self._open_memory(length))

    def _open_memory(self, length):
        for path in glob.glob(f"/proc/{self.child.pid}/fd/*"):
            try:
                if "guest-ram" in os.readlink(path) and os.stat(path).st_size == length:
                    return open(path, "r+b", buffering=0)
            except FileNotFoundError:
                continue
        return None

    def close(self):
        # Not to the end of its output: a process that it has started may hold that, too.
        self.child.kill()
        self.child.wait()
        self.child.stdout.close()
        self.child.stderr.close()


@functools.lru_cache
def why_no_ring():
    """What the program tells an ordinary user who may lock too little memory."""
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

    def land(self, blocks, *args, uri="tcp:127.0.0.1:0"):
        """A source with a return path sends everything. Return the ended Listen, and the status of SHUT."""
        listen = self.listen(uri, "--cap", "return-path", *args)
        source = stream.Source(listen.address()).send(stream.whole(blocks, return_path=True))
        shut = source.shut()
        source.close()
        listen.end()
        return listen, shut

    def run_as_nobody(self, *args):
        """Like run(), as a user for whom this kernel serves no faults inside the kernel."""
        if os.geteuid() != 0:
            self.skipTest("only root can become somebody else")
        with open("/proc/sys/vm/unprivileged_userfaultfd", encoding="ascii") as f:
            if f.read().strip() != "0":
                self.skipTest("vm.unprivileged_userfaultfd permits everybody")
        # Other users may not enter the build folder, so root opens the program, and it runs by its descriptor.
        with open(PROGRAM, "rb") as program:
            return run(*args, program=f"/proc/self/fd/{program.fileno()}", pass_fds=[program.fileno()], user=NOBODY,
                       group=NOBODY, extra_groups=[])

    def assert_ends(self, listen, status, pattern=b""):
        """It ended with that exit status, and a line on standard error that matches."""
        got = listen.end()
        self.assertEqual(got, status, listen.err)
        if status:
            self.assertRegex(listen.err, rb"(?m)^inmigrate: .*" + pattern)
