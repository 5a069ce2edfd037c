"""tests/machines restores what it changes, skips what is impossible, and really changes what it says"""

import contextlib
import importlib.util
import io
import os
import re
import shutil
import sys
import tempfile
import types
import unittest
from importlib.machinery import SourceFileLoader
from unittest import mock

MACHINES = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "machines")
sys.path.insert(0, MACHINES)


def load_run():
    loader = SourceFileLoader("machines_run", os.path.join(MACHINES, "run"))
    module = importlib.util.module_from_spec(importlib.util.spec_from_loader("machines_run", loader))
    loader.exec_module(module)
    # It must not end this process's children, which run other tests too.
    module.machine = types.SimpleNamespace(**dict(vars(module.machine), end_children=lambda: None))
    return module


run = load_run()
import machine  # noqa: E402
import variations  # noqa: E402
from variations import Variation  # noqa: E402


class Folder(unittest.TestCase):

    def setUp(self):
        # Below /tmp, as it is by default.
        self.folder = tempfile.mkdtemp(prefix="machines.", dir="/tmp")
        self.addCleanup(shutil.rmtree, self.folder)
        os.chmod(self.folder, 0o755)
        for name in ("build", "tmp", "said", "source"):
            os.mkdir(os.path.join(self.folder, name))
        self.options = types.SimpleNamespace(seconds=60, target="check-quick", together=False)

    def path(self, name):
        return os.path.join(self.folder, name)


class Sysctls(Folder):

    def setUp(self):
        super().setUp()
        self.names = [self.path(name) for name in "abc"]
        for name in self.names:
            machine.sysctl(name, "before")
        known = mock.patch.dict(machine.CAN_BE_PUT_BACK, {name: ".*" for name in [*self.names, "/dev/null"]})
        known.start()
        self.addCleanup(known.stop)

    def read(self):
        return [machine.sysctl(name) if os.path.isfile(name) else None for name in self.names]

    def test_what_goes_one_way_is_no_variation(self):
        for setting in ({"kernel.yama.ptrace_scope": "3"}, {"kernel.modules_disabled": "1"}):
            with self.assertRaises(ValueError):
                Variation("it", "it", machine=setting)
            with self.assertRaises(ValueError), machine.sysctl_global(setting):
                pass

    def test_each_is_put_back_whatever_happens_to_another(self):
        with self.assertRaises(machine.NotPutBack) as caught:
            with machine.sysctl_global(dict.fromkeys(self.names, "after")):
                self.assertEqual(self.read(), ["after"] * 3)
                os.remove(self.names[1])
                os.mkdir(self.names[1])
        self.assertIn(self.names[1], str(caught.exception))
        self.assertEqual(self.read(), ["before", None, "before"])

    def test_what_cannot_be_written_is_refused_and_nothing_has_changed(self):
        def sysctl(name, value=None, real=machine.sysctl):
            if value is not None and name == self.names[2]:
                raise OSError(30, "Read-only file system")
            return real(name, value)
        with mock.patch.object(machine, "sysctl", sysctl):
            with self.assertRaisesRegex(machine.Refused, "Read-only"), \
                    machine.sysctl_global(dict.fromkeys(self.names, "after")):
                self.fail("it is not refused")
        self.assertEqual(self.read(), ["before"] * 3)

    def test_what_does_not_read_as_it_was_written_is_refused(self):
        with self.assertRaises(machine.Refused), machine.sysctl_global({self.names[0]: "after", "/dev/null": "1"}):
            self.fail("it is not refused")
        self.assertEqual(self.read(), ["before"] * 3)

    def test_one_that_is_so_already_varies_nothing(self):
        with mock.patch.object(os, "geteuid", lambda: 0):
            self.assertIsNotNone(Variation("it", "it", machine={self.names[0]: "before"}).why_not())
            self.assertIsNone(Variation("it", "it", machine={self.names[0]: "after"}).why_not())


class Runs(Folder):

    def run_all(self, *todo):
        with open(self.path("build/Makefile"), "w", encoding="ascii") as f:
            f.write("check-quick:\n\t@echo 2 passed, 0 failed, 0 skipped\n")
        with mock.patch.object(run, "chosen", lambda options: list(todo)), \
                contextlib.redirect_stdout(io.StringIO()) as said:
            counts = run.run_all(self.folder, self.options)
        return counts, said.getvalue()

    def test_one_that_cannot_be_had_is_skipped_with_its_reason(self):
        without = Variation("setsid", "below setsid(1)", command=("setsid",), env={"PATH": "/nonexistent"})
        counts, said = self.run_all(without, Variation("umask-077", "umask 077"))
        self.assertEqual(counts, {"passed": 2, "failed": 0, "skipped": 1}, said)
        self.assertRegex(said, r"(?m)^SKIP  setsid: .*No such file")

    def test_a_sysctl_that_cannot_be_had_is_a_skip(self):
        with mock.patch.dict(machine.CAN_BE_PUT_BACK, {"/dev/null": ".*"}), mock.patch.object(os, "geteuid", lambda: 0):
            counts, said = self.run_all(Variation("umask-077", "umask 077", machine={"/dev/null": "1"}))
        self.assertEqual(counts, {"passed": 1, "failed": 0, "skipped": 1}, said)
        self.assertRegex(said, r"(?m)^SKIP  umask-077: /dev/null = 1")

    def test_at_once_is_without_those_that_cannot_be_had(self):
        def refuse(_folder, variation, _options, _only):
            return run.Result(run.CANNOT if "no" in variation.name else int("falls" in variation.name), "cannot: not here")
        todo = [Variation("one", "", uid=1, part="it"), Variation("two", "", uid=2), Variation("three", "", part="it"),
                Variation("no", ""), Variation("falls", ""), Variation("four", "")]
        with mock.patch.object(run, "run", refuse):
            together, left = run.at_once(self.folder, todo, self.options)
        self.assertEqual([v.name for v in together], ["one+four"])
        self.assertEqual(left, [("two", "one changes the user as well"), ("three", "one changes it as well"),
                                ("no", "not here"), ("falls", "status 1: not here")])
        self.assertIsNone(run.Result(1, "it falls").why_not())


class Judge(unittest.TestCase):
    PLAIN = "  ok      unit/test_a: 5 passed (2 s)\n  ok      unit/test_b: 3 passed, 1 skipped\n" \
        "8 passed, 0 failed, 1 skipped\n"
    WITHOUT_A = PLAIN.splitlines(True)[1] + "3 passed, 0 failed, {} skipped\n"
    WHY = "no reactor: the limit of locked memory (RLIMIT_MEMLOCK) is 0 KiB"

    def judge(self, said, *skips):
        return list(run.judge(run.Result(0, said), run.Result(0, self.PLAIN), Variation("it", "it", skips=skips)))

    def test_a_program_that_is_skipped_as_a_whole_is_a_skip(self):
        said = f"  skipped unit/test_a: {self.WHY}\n" + self.WITHOUT_A.format(2)
        self.assertEqual(self.judge(said, "RLIMIT_MEMLOCK"), [])
        self.assertEqual(self.judge(said), [f"skipped: unit/test_a: {self.WHY}"])

    def test_tests_that_are_missing_are_said(self):
        self.assertEqual(self.judge(self.WITHOUT_A.format(1)), ["4 tests, 9 without the change"])
        some = "  skipped unit/test_a: 0 passed, 4 skipped\n" + self.WITHOUT_A.format(5)
        self.assertEqual(self.judge(some), ["8 tests, 9 without the change"])


class InEffect(Folder):

    def check(self, name, script):
        variation = {v.name: v for v in variations.all_variations()}[name]
        if variation.why_not():
            self.skipTest(f"{name}: {variation.why_not()}")
        result = run.run(self.folder, variation, self.options, ("sh", "-ec", script))
        if re.search(r"\b(not permitted|denied|Read-only)\b", result.why_not() or ""):
            self.skipTest(f"{name}: {result.why_not()}")
        self.assertEqual(result.status, 0, result.said)

    def test_no_kvm(self):
        self.check("no-kvm", "test ! -e /dev/kvm; test -c /dev/null; test -d /dev/shm; echo >/dev/null")

    def test_a_kvm_that_is_none(self):
        self.check("kvm-is-none", "echo >/dev/kvm; test /dev/kvm -ef /dev/null")

    def test_locked_memory_is_limited_for_who_is_not_root(self):
        self.check("locked-none", 'test "$(id -u)" != 0; test "$(ulimit -l)" = 0')

    def test_tmp_in_memory_has_the_folder_below_it(self):
        self.check("tmp-in-memory", 'test -d source; echo >/tmp/machines.here; df -t tmpfs "$TMPDIR" /tmp')
        self.assertFalse(os.path.exists("/tmp/machines.here"))

    def test_tmp_noexec(self):
        if os.statvfs(self.folder).f_flag & os.ST_NOEXEC:
            self.skipTest("nothing below /tmp can be executed")
        self.check("tmp-noexec", 'cp /bin/true "$TMPDIR"; cp /bin/true build; build/true; ! "$TMPDIR/true"')
