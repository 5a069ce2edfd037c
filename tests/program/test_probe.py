"""`inmigrate probe` has a line for each feature, a reason for each no, and a verdict that its exit status repeats."""

import json
import resource
import subprocess

from program import PROGRAM, Case, run

NAMES = ("kernel-faults", "missing", "missing-shmem", "missing-hugetlbfs", "minor-shmem", "minor-hugetlbfs", "sigbus",
         "thread-id", "event-remove", "event-unmap", "event-remap", "event-fork", "exact-address", "move", "poison",
         "wp", "io_uring", "memfd", "huge-2m", "huge-1g")


class Probe(Case):
    def check_text(self, done):
        """Return: {name: (is it there, why not)}."""
        *lines, verdict = done.stdout.splitlines()
        found = {}
        for line in lines:
            name, answer, why = (line.split(None, 2) + [""])[:3]
            self.assertIn(answer, ("yes", "no"), line)
            self.assertNotIn(name, found)
            if answer == "no":
                self.assertTrue(why, line)
            found[name] = answer == "yes", why
        self.assertEqual(lines[0].split()[0], "userfaultfd")
        self.assertEqual(done.stderr, "")
        self.assertRegex(verdict, "^postcopy: " + ("will use " if done.returncode == 0 else "not possible: "))
        self.assertIn(done.returncode, (0, 1))
        return found

    def test_each_feature_has_a_line_and_the_verdict_is_the_last(self):
        found = self.check_text(run("probe"))
        for name in NAMES if found["userfaultfd"][0] else ("io_uring", "memfd", "huge-2m", "huge-1g"):
            self.assertIn(name, found)

    def test_json_says_the_same(self):
        text, done = run("probe"), run("probe", "--json")
        found, said = self.check_text(text), json.loads(done.stdout)
        self.assertEqual(done.returncode, text.returncode)
        self.assertEqual(said["postcopy"], done.returncode == 0)
        self.assertTrue(text.stdout.endswith(f"postcopy: {said['verdict']}\n"))
        self.assertEqual(said["error"] is None, found["userfaultfd"][0])
        self.assertEqual(said["door"] is None, not found["userfaultfd"][0])
        del found["userfaultfd"]
        self.assertEqual(set(found), set(said["features"]))
        for name, feature in said["features"].items():
            # How many huge pages are free may change from one run to the next.
            if not name.startswith("huge-"):
                self.assertEqual((feature["there"], feature.get("why", "")), found[name])

    def test_who_may_less_is_told_what_is_missing(self):
        done = self.run_as_nobody("probe")
        found = self.check_text(done)
        self.assertEqual(done.returncode, 0)
        self.assertFalse(found["kernel-faults"][0])
        self.assertIn("vm.unprivileged_userfaultfd=1", found["kernel-faults"][1])
        self.assertEqual(found["event-fork"], (False, "EPERM: needs CAP_SYS_PTRACE"))
        self.assertIn("not for guests under KVM", done.stdout.splitlines()[-1])

    def test_without_a_ring_nothing_is_possible(self):
        # Room for one descriptor: the ring needs more.
        done = run("probe", preexec=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (4, 4)))
        found = self.check_text(done)
        self.assertEqual(done.returncode, 1)
        self.assertFalse(found["io_uring"][0])

    def test_the_command_line(self):
        done = run("probe", "--help")
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        self.assertIn("usage: inmigrate probe", done.stdout)
        for args in ["more"], ["--nonsense"]:
            done = run("probe", *args)
            self.assertEqual((done.returncode, done.stdout), (2, ""), done)
            self.assertTrue(done.stderr.endswith("\n"), done)

    def test_output_that_goes_nowhere_is_a_failure(self):
        for args in [], ["--json"]:
            with open("/dev/full", "wb") as full:
                done = subprocess.run([PROGRAM, "probe", *args], stdout=full, stderr=subprocess.PIPE, timeout=30,
                                      check=False)
            self.assertEqual(done.returncode, 1)
            self.assertRegex(done.stderr, rb"^inmigrate: standard output: ")
