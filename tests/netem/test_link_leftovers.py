"""A run that is ended leaves no folder and no program; the next run removes what a killed one leaves"""

import fcntl
import os
import signal
import subprocess
import tempfile
import unittest

import folder
import test_kit
from waiting import PATIENT_SECONDS, wait_until

RUN = os.path.join(os.path.dirname(os.path.abspath(__file__)), "run")


def is_free(path):
    """Nobody uses that folder."""
    fd = os.open(path, os.O_RDONLY)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return True
    except BlockingIOError:
        return False
    finally:
        os.close(fd)


class FolderTest(unittest.TestCase):
    def setUp(self):
        base = tempfile.TemporaryDirectory()
        self.addCleanup(base.cleanup)
        self.base = base.name

    def dead(self):
        path = tempfile.mkdtemp(prefix=folder.PREFIX, dir=self.base)
        os.mkdir(os.path.join(path, "case"))
        return path

    def test_goes_at_the_end(self):
        with folder.Folder(self.base) as path:
            self.assertTrue(os.path.isdir(path))
        self.assertEqual(os.listdir(self.base), [])

    def test_a_dead_run_is_swept(self):
        dead = self.dead()
        with folder.Folder(self.base) as path:
            self.assertEqual(os.listdir(self.base), [os.path.basename(path)])
        self.assertNotEqual(dead, path)

    def test_who_uses_it_keeps_it(self):
        path = self.dead()
        held = folder.hold(path)
        self.assertEqual(folder.sweep(self.base), [])
        os.close(held)
        self.assertEqual(folder.sweep(self.base), [path])
        self.assertIsNone(folder.hold(path))

    def test_nothing_else_is_swept(self):
        outside = tempfile.mkdtemp(dir=self.base)
        os.symlink(outside, os.path.join(self.base, folder.PREFIX + "link"))
        with open(os.path.join(self.base, folder.PREFIX + "file"), "w", encoding="ascii"):
            pass
        before = sorted(os.listdir(self.base))
        self.assertEqual(folder.sweep(self.base), [])
        self.assertEqual(sorted(os.listdir(self.base)), before)


class RunTest(test_kit.LinkTest):
    """A run that only does many set-ups, and cases if there is a QEMU, and is ended in the middle."""

    def setUp(self):
        super().setUp()
        self.program = os.environ.get("TEST_PROGRAM") or os.path.join(test_kit.BUILD or "", "inmigrate")
        if not os.access(self.program, os.X_OK):
            self.skipTest(f"no program {self.program}")
        base = tempfile.TemporaryDirectory()
        self.addCleanup(base.cleanup)
        self.base = base.name

    def programs(self):
        """All processes that know the run's folder: its cases, their QEMUs, links and destinations."""
        found = []
        for pid in filter(str.isdigit, os.listdir("/proc")):
            try:
                with open(f"/proc/{pid}/cmdline", "rb") as f:
                    words = f.read()
                with open(f"/proc/{pid}/stat", encoding="ascii", errors="replace") as f:
                    dead = f.read().rsplit(")", 1)[1].split()[0] in "ZX"
            except OSError:
                continue
            if self.base.encode() in words and not dead:
                found.append(words.replace(b"\0", b" ").decode(errors="replace"))
        return found

    def start(self, pattern):
        command = [RUN, "--inmigrate", self.program, "--build", test_kit.BUILD or os.path.dirname(self.program)]
        command += ["--setups", "8", "-j", "1", "-k", pattern, "--folder", self.base]
        run = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                               start_new_session=True)
        self.addCleanup(self.end, run)
        wait_until("it to be in the midst of it", lambda: run.poll() is not None or
                   any(" listen " in words for words in self.programs()))
        if run.poll() is not None and b"SKIP" in (said := run.stdout.read()):
            self.skipTest(next(line for line in said.decode().splitlines() if line.startswith("SKIP")))
        self.assertIsNone(run.poll())
        return run

    @staticmethod
    def end(run):
        try:
            os.killpg(run.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        run.wait()
        run.stdout.close()

    def test_ended_leaves_nothing(self):
        for pattern, number in (("setups", signal.SIGINT), ("set-up-plain-8$", signal.SIGTERM)):
            run = self.start(pattern)
            run.send_signal(number)
            self.assertEqual(run.wait(PATIENT_SECONDS), 128 + number)
            self.assertEqual(os.listdir(self.base), [])
            wait_until("all to end", lambda: not self.programs())

    def test_killed_is_swept_by_the_next(self):
        for pattern in ("setups", "set-up-plain-8$"):
            run = self.start(pattern)
            left = os.listdir(self.base)
            self.assertEqual(len(left), 1)
            run.kill()
            run.wait()
            wait_until("all to end", lambda: not self.programs())
            # A process loses its command line before its open files.
            wait_until("its lock to be given back", lambda: is_free(os.path.join(self.base, left[0])))
            self.assertEqual(os.listdir(self.base), left)
            with folder.Folder(self.base) as path:
                self.assertEqual(os.listdir(self.base), [os.path.basename(path)])
