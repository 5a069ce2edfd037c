"""The test runners start programs with the signals that programs expect, however the runner was started"""

import os
import re
import signal
import subprocess
import sys
import tempfile
import time
import unittest

import hugepages
from program import PROGRAM
from waiting import wait_until

SRC = os.path.abspath(os.environ.get("TEST_SRCDIR", "."))
SUPPORT = os.path.join(SRC, "tests/support")
PROCESSORS = os.path.join(SRC, "scripts/processors")
THE_C_LIBRARYS = 3 << 31  # two that a program cannot set
STATUS = "grep -E '^Sig(Ign|Blk):' /proc/self/status"


def ignore_and_block_all():
    for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_SETMASK, signal.valid_signals())


def run_tests(script):
    command = [os.path.join(SRC, "scripts/run-tests"), "--once", "--live", "--name", "it", "--", "/bin/sh", "-c", script]
    return subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60, check=False,
                          preexec_fn=ignore_and_block_all)


SIDE_BY_SIDE = """
import os, sys, time
sys.path.insert(0, sys.argv[1])
import side_by_side

def task(number):
    try:
        open(f"{sys.argv[2]}/began.{number}", "w").close()
        time.sleep(20)
    finally:
        time.sleep(0.1)
        open(f"{sys.argv[2]}/ended.{number}", "w").close()

side_by_side.run(range(6), task, lambda *_: None, 2)
"""


class SideBySide(unittest.TestCase):

    def test_a_signal_ends_those_that_run_and_no_more_begin(self):
        for number, group in ((signal.SIGINT, False), (signal.SIGINT, True), (signal.SIGKILL, False)):
            with self.subTest(number=number, group=group), tempfile.TemporaryDirectory() as folder:
                child = subprocess.Popen([sys.executable, "-B", "-c", SIDE_BY_SIDE, os.path.join(SRC, "tests/support"), folder],
                                         stderr=subprocess.DEVNULL, start_new_session=True)
                wait_until("two to begin", lambda: len(os.listdir(folder)) == 2)
                (os.killpg if group else os.kill)(child.pid, number)
                self.assertNotEqual(child.wait(15), 0)
                wait_until("two to end", lambda: len(os.listdir(folder)) == 4)
                time.sleep(0.3)
                self.assertEqual(len([name for name in os.listdir(folder) if name.startswith("began")]), 2)

    def test_one_that_dies_is_known(self):
        told = []
        sys.path.insert(0, os.path.join(SRC, "tests/support"))
        import side_by_side
        side_by_side.run([0, 1, 2], lambda n: os._exit(7) if n == 1 else n, lambda *said: told.append(said), 2)
        self.assertEqual(sorted(told), [(0, 0, 0), (1, None, 7), (2, 2, 0)])


HOLDER = """
import os, sys, time
sys.path.insert(0, sys.argv[1])
import hugepages

with hugepages.huge_pages(3):
    print(hugepages.pool("nr_hugepages"), *hugepages.record(), flush=True)
    time.sleep(600)
"""


@unittest.skipUnless(os.access(hugepages.POOL + "nr_hugepages", os.W_OK), "may not change the pool of huge pages")
class HugePages(unittest.TestCase):
    def begin(self, *command):
        """Return: it, the pool while it is there, and the pool before."""
        child = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        self.addCleanup(self.end, child)
        now, _, before = map(int, child.stdout.readline().split())
        if now == before:
            self.skipTest("this kernel makes no huge pages")
        return child, now, before

    @staticmethod
    def end(child):
        child.kill()
        child.communicate()
        with hugepages.huge_pages(0):
            pass

    def begin_holder(self):
        return self.begin(sys.executable, "-B", "-c", HOLDER, SUPPORT)

    def test_a_holder_that_is_killed_leaves_nothing(self):
        child, now, before = self.begin_holder()
        self.assertGreater(now, before)
        child.kill()
        child.wait()
        with hugepages.huge_pages(0):
            self.assertEqual(hugepages.pool("nr_hugepages"), before)

    def test_a_test_program_does_the_same(self):
        program = os.path.join(os.path.dirname(PROGRAM), "tests/platform/uffd_hugetlb_minor")
        if not os.access(program, os.X_OK):
            self.skipTest(f"no program {program}")
        child, _, before = self.begin_holder()
        done = subprocess.run([program], capture_output=True, text=True, timeout=60, check=False,
                              env={**os.environ, "TEST_SECONDS": "0.5"})
        self.assertEqual(done.returncode, 1)
        self.assertRegex(done.stderr, f"held by process {child.pid}$")
        child.kill()
        child.wait()
        subprocess.run([program], capture_output=True, timeout=60, check=False)
        with hugepages.huge_pages(0):
            self.assertEqual(hugepages.pool("nr_hugepages"), before)

    def test_a_wait_has_an_end_and_says_who_holds_it(self):
        child, _, _ = self.begin_holder()
        with self.assertRaisesRegex(TimeoutError, f"held by process {child.pid} "), hugepages.huge_pages(1, 0.1):
            self.fail("it is not held")

    def test_with_huge_pages_restores_it_when_it_is_ended(self):
        script = f"read -r now <{hugepages.POOL}nr_hugepages; echo $now $(cat {hugepages.RECORD}); exec sleep 600"
        child, now, before = self.begin(os.path.join(SRC, "scripts/with-huge-pages"), "3", "sh", "-c", script)
        self.assertGreater(now, before)
        child.terminate()
        self.assertEqual(child.wait(15), 128 + signal.SIGTERM)
        with hugepages.huge_pages(0):
            self.assertEqual(hugepages.pool("nr_hugepages"), before)


class Processors(unittest.TestCase):
    # In a tree of mounts of its own, so that the machine keeps its own.
    WITH_QUOTA = """mount -t tmpfs none /sys/fs/cgroup && mkdir -p "/sys/fs/cgroup$3" &&
        echo "$2" >"/sys/fs/cgroup$3/cpu.max" && "$1" """

    def with_quota(self, quota, group=""):
        done = subprocess.run(["unshare", "-m", "sh", "-c", self.WITH_QUOTA, "sh", PROCESSORS, quota, group],
                              capture_output=True, text=True, timeout=60, check=False)
        if done.returncode != 0:
            self.skipTest(f"no mounts of its own: {done.stderr.strip()}")
        return int(done.stdout)

    def test_a_quota_counts_where_it_is_less(self):
        all_of_them = len(os.sched_getaffinity(0))
        with open("/proc/self/cgroup", encoding="ascii") as f:
            own = next((line[3:].strip() for line in f if line.startswith("0::")), "")
        for group in {"", own}:
            for quota, worth in (("max 100000", all_of_them), ("50000 100000", 1), ("100000 100000", 1),
                                 ("100001 100000", 2), ("99900000 100000", all_of_them), ("nonsense", all_of_them)):
                with self.subTest(quota=quota, group=group):
                    self.assertEqual(self.with_quota(quota, group), min(worth, all_of_them))


class Signals(unittest.TestCase):

    def test_what_run_tests_starts_has_none_ignored_or_blocked(self):
        done = run_tests(STATUS)
        masks = {name: int(mask, 16) & ~THE_C_LIBRARYS for name, mask in re.findall(r"(Sig\w+):\s*(\w+)", done.stdout)}
        self.assertEqual(masks, {"SigIgn": 0, "SigBlk": 0}, done.stdout + done.stderr)

    def test_a_status_is_heard_where_children_are_ignored(self):
        self.assertEqual(run_tests("false").returncode, 1)
        self.assertEqual(run_tests("true").returncode, 0)

    def test_a_run_below_nohup_outlives_the_terminal(self):
        for number in (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT):
            done = run_tests(f"kill -{int(number)} $PPID; sleep 0.2")
            self.assertEqual(done.returncode, 0, done.stderr)
            self.assertIn("ok      it", done.stdout)

    def test_each_runner_of_the_tree_begins_so(self):
        """Otherwise the first user of nohup would find out that a new runner does not ask for it."""
        for path in ("scripts/run-tests", "scripts/demo", "tests/support/suite.py", "tests/netem/run", "tests/interop/run",
                     "tests/bench/run", "tests/machines/run", "scripts/with-huge-pages"):
            with open(os.path.join(SRC, path), encoding="utf-8") as f:
                self.assertIn("signals.as_expected()", f.read(), path)

    def test_who_is_ended_by_a_signal_is_not_where_it_was_ignored(self):
        script = ("import os, signal, sys; sys.path.insert(0, sys.argv[1]); import signals; signals.as_expected();"
                  "signals.end_by((signal.SIGTERM,), lambda *_: sys.exit(7)); os.kill(os.getpid(), signal.SIGTERM)")
        for preexec, status in ((ignore_and_block_all, 0), (None, 7)):
            done = subprocess.run([sys.executable, "-B", "-c", script, os.path.join(SRC, "tests/support")],
                                  preexec_fn=preexec, timeout=60, check=False)
            self.assertEqual(done.returncode, status)
