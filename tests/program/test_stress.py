"""inmigrate stress finds what is wrong, and nothing else."""

import json
import os
import re
import shutil
import signal
import subprocess
import unittest
import xml.etree.ElementTree

import program
from program import Case, run
from hugepages import huge_pages

SRCDIR = os.environ.get("TEST_SRCDIR", ".")

# The bugs in libraries built for this (tests.mk, STRESS_CONTROLS): the run that finds each, and what it says.
CONTROLS = {
    "NO_WAKE_AFTER_EEXIST": ("--memory memfd --pattern racing", "stranded waiter: .* waited .* for page"),
    "PLACE_BEFORE_CLAIM": ("--memory memfd --duplicates 0.1", "wrong bytes|a mark is lost"),
    "EAGAIN_DONE": ("--memory anon --events remove=2000", "stranded waiter|wrong bytes|a mark is lost"),
    "IGNORE_REMOVE": ("--memory memfd --events remove=1000",
                      "wrong bytes: .* was before it was removed|it may be zeros, for it was removed"),
    "4096": ("--memory hugetlb-2m", "wrong bytes: .* found 0x00000000"),
}


def stress(*args, seconds=60):
    return run("stress", "--progress", "never", *args, seconds=seconds)



class Stress(Case):
    @classmethod
    def setUpClass(cls):
        # A signal handler handles a fault of our own thread, but it cannot come at any moment: a load in a callback
        # causes it, never one in malloc().
        os.environ["TSAN_OPTIONS"] = os.environ.get("TSAN_OPTIONS", "") + " report_signal_unsafe=0"
        done = stress("--seconds", "0.01", "--bytes", "64K", "--no-limits")
        if "this cannot be done here" in done.stderr:
            raise unittest.SkipTest(done.stderr.strip())

    def sound(self, *args):
        """The result of a run that must find nothing wrong."""
        done = stress("--bytes", "8M", "--json", self.path("json"), *args)
        self.assertEqual((done.returncode, done.stderr), (0, ""), done.stdout)
        self.assertTrue(done.stdout.endswith("\nnothing wrong\n"), done.stdout)
        found = json.loads(self.read("json"))
        self.assertEqual((found["status"], found["wrong"]), ("sound", ""))
        self.assertEqual((found["counts"]["wrong_pages"], found["counts"]["stranded"]), (0, 0))
        self.said = done.stdout
        return found

    # ---- the command line ----

    def test_values_that_cannot_be_are_said(self):
        for args in ("--memory paper", "--place here", "--touchers 0", "--touchers 257", "--bytes 1", "--bytes x",
                     "--pattern zigzag", "--events", "--events remove,", "--events none", "--events remove=0",
                     "--events remove=-1", "--own-faults -1", "--own-faults nan", "--duplicates 1.1", "--delay",
                     "--delay 5ms", "--delay constant:", "--delay constant:5", "--delay constant:3s",
                     "--delay uniform:2ms", "--delay uniform:2ms-1ms", "--delay heavy:1ms-2ms", "--prefetch maybe",
                     "--seconds 0", "--seconds x", "--faults 0", "--seed x", "--progress sometimes", "--json",
                     "--plot"):
            with self.subTest(args=args):
                words = args.split() if args not in ("--events", "--delay") else [args, ""]
                if words[-1] == "remove,":
                    words[-1] = ","
                done = stress(*words)
                self.assertEqual((done.returncode, done.stdout), (2, ""), done)
                self.assertRegex(done.stderr, r"^inmigrate stress: .*" + re.escape(words[0]))

    def test_options_that_exclude_each_other_are_said(self):
        for args, said in {"--seconds 1 --faults 1": "exclude each other",
                           "--matrix --plot x.svg": "not for the matrix",
                           "--matrix --faults 1": "not for the matrix", "--nonsense": "no option '--nonsense'",
                           "more": "an argument too many, 'more'", "--seed": "needs a value",
                           "--kvm=1": "takes no value"}.items():
            with self.subTest(args=args):
                done = stress(*args.split())
                self.assertEqual((done.returncode, done.stdout), (2, ""), done)
                self.assertIn(said, done.stderr)

    def test_help_and_page_have_the_same_options(self):
        done = run("stress", "--help")
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        helped = set(re.findall(r"--([a-z]+(?:-[a-z]+)*)", done.stdout))
        with open(os.path.join(SRCDIR, "man/inmigrate-stress.1"), encoding="utf-8") as f:
            page = f.read().replace("\\-", "-")
        self.assertEqual(helped, set(re.findall(r"Fl -([a-z]+(?:-[a-z]+)*)", page)))
        self.assertEqual(helped, set(re.findall(r"^\.It (?:.* )?Fl -([a-z]+(?:-[a-z]+)*)", page, flags=re.MULTILINE)))

    def test_what_cannot_be_done_is_said(self):
        for args, said in {"--memory anon --place continue": "there is none behind anonymous memory",
                           "--memory memfd --place copy": "shows them by UFFDIO_CONTINUE",
                           "--memory memfd --place move": "UFFDIO_MOVE is for anonymous memory",
                           "--memory anon --own-faults 1": "no engine view",
                           "--memory hugetlb-2m --bytes 1T": "not enough huge pages|has no huge pages"}.items():
            with self.subTest(args=args):
                done = stress(*args.split())
                self.assertEqual((done.returncode, done.stdout), (1, ""), done)
                self.assertRegex(done.stderr, r"^inmigrate: stress: this cannot be done here: .*(" + said + r").*\n$")

    # ---- a run ----

    def test_every_memory_is_sound(self):
        for memory, more in {"anon": (), "thp": (), "memfd": ("--own-faults", "500"),
                             "hugetlb-2m": ("--own-faults", "500")}.items():
            with self.subTest(memory=memory), huge_pages(64) as free:
                if memory == "hugetlb-2m" and free < 8:
                    self.skipTest("no huge pages of 2 MiB")
                found = self.sound("--memory", memory, "--seconds", "1", "--events", "remove,unmap,remap,fork",
                                   "--duplicates", "0.1", "--no-limits", *more)
                counts = found["counts"]
                self.assertEqual(found["options"]["memory"], [memory])
                self.assertGreater(counts["faults"], 20)
                self.assertGreater(counts["touches"], 500)
                self.assertGreater(counts["marks_checked"], 100)
                self.assertGreater(counts["pages_walked"], 2047)
                for event in "remove", "unmap", "remap", "fork":
                    self.assertGreater(found["events"][event], 0, event)
                self.assertEqual(counts["own_accesses"] > 0, bool(more))
                self.assertEqual(counts["engine_faults"] > 0, bool(more))

    def test_every_pattern_is_sound(self):
        for pattern in "seq", "stride", "random", "hot", "racing":
            with self.subTest(pattern=pattern):
                # Two probably meet on one page, and more probably the longer it takes.
                for faults in "5000", "40000", "320000":
                    counts = self.sound("--pattern", pattern, "--faults", faults, "--no-limits")["counts"]
                    if pattern != "racing" or counts["rival_placed"]:
                        break
                self.assertEqual(counts["rival_placed"] > 0, pattern == "racing")
                # The library asks ahead only for threads that walk.
                self.assertEqual(counts["guess_hits"] > 100, pattern == "seq" or pattern == "stride", counts)

    def test_every_placement_is_used(self):
        for memory, place in (("anon", "copy"), ("anon", "move"), ("anon", "zero"), ("memfd", "continue"),
                              ("memfd", "zero")):
            with self.subTest(memory=memory, place=place):
                done = stress("--memory", memory, "--place", place, "--bytes", "64K", "--faults", "1", "--no-limits")
                if place == "move" and "no move" in done.stderr:
                    continue
                sent = self.sound("--memory", memory, "--place", place, "--seconds", "0.2", "--no-limits")["sent"]
                self.assertGreater(sent.pop(place), 1000)
                self.assertEqual(set(sent.values()), {0})

    def test_a_number_of_faults_is_enough(self):
        found = self.sound("--faults", "3000", "--no-limits", "--touchers", "1", "--prefetch", "off", "--pattern",
                           "seq")
        self.assertGreaterEqual(found["counts"]["faults"], 3000)
        self.assertGreaterEqual(found["counts"]["rounds"], 2)
        self.assertEqual(found["counts"]["guessed_pages"], 0)
        # It did not run for the usual time.
        self.assertLess(found["seconds"], 9)

    def test_a_delay_is_waited_for(self):
        for delay, least_us in {"constant:3ms": 3000, "uniform:2ms-4ms": 2000, "heavy:2ms": 2000}.items():
            with self.subTest(delay=delay):
                latency = self.sound("--delay", delay, "--seconds", "0.5", "--no-limits", "--duplicates", "0",
                                     "--touchers", "16", "--bytes", "1M")["latency_us"]
                # A sixteenth below, where its step in the histogram begins.
                self.assertGreater(latency["p50"], least_us * 15 / 16)
                self.assertLess(latency["p50"], least_us * 20)

    def test_what_is_written_for_programs(self):
        found = self.sound("--seconds", "0.5", "--touchers", "2", "--seed", "7")
        self.assertEqual(set(found), {
            "status", "wrong", "options", "seconds", "touching_seconds", "faults_per_second", "engine_cpu_ms", "cpu_ms",
            "counts", "sent", "events", "latency_us", "limits", "intervals"})
        with open(os.path.join(SRCDIR, "man/inmigrate-stress.1"), encoding="utf-8") as f:
            page = f.read()
        for name in found:
            self.assertRegex(page, rf"(?m)^\.Cm {name}\b")
        self.assertEqual((found["options"]["touchers"], found["options"]["seed"], found["options"]["bytes"]),
                         (2, 7, 8 << 20))
        self.assertGreaterEqual(found["seconds"], 0.5)
        self.assertLessEqual(found["touching_seconds"], found["seconds"])
        latency, counts = found["latency_us"], found["counts"]
        self.assertEqual(sum(latency["histogram"]), latency["count"])
        self.assertEqual(latency["count"], counts["waits"])
        self.assertLessEqual(latency["p50"], latency["p99"])
        self.assertLessEqual(latency["p99"], latency["p999"])
        self.assertEqual({(limit["memory"], limit["place"]) for limit in found["limits"]},
                         {("memfd", "continue"), ("memfd", "zero")})
        self.assertGreater(min(limit["faults_per_second"] for limit in found["limits"]), 0)
        self.assertLessEqual(sum(i["count"] for i in found["intervals"]), latency["count"])
        self.assertGreater(len(found["intervals"]), 2)
        self.assertRegex(self.said, r"the kernel alone, memfd by continue: \d+ faults/s")

    def test_a_file_that_cannot_be_written_is_a_failure(self):
        done = stress("--seconds", "0.01", "--bytes", "64K", "--no-limits", "--json", self.path("no/json"))
        self.assertEqual(done.returncode, 1)
        self.assertRegex(done.stderr, r"^inmigrate: stress: --json .*/no/json: No such file or directory\n$")

    def test_a_signal_ends_it_in_order(self):
        for args in ((), ("--matrix", "--memory", "memfd")):
            with self.subTest(args=args):
                child = subprocess.Popen([program.PROGRAM, "stress", "--seconds", "1000", "--bytes", "2M",
                                          "--no-limits", "--progress", "always", *args], stdout=subprocess.PIPE,
                                         stderr=subprocess.PIPE)
                self.addCleanup(child.kill)
                # Its first line of progress: it runs.
                child.stderr.read(1)
                child.send_signal(signal.SIGINT)
                out, err = child.communicate(timeout=30)
                self.assertEqual(child.returncode, 0, (out, err))
                self.assertRegex(out, rb"\nnothing wrong\n$|: 0 failed\n$")

    def test_vcpus_are_sound(self):
        done = stress("--kvm", "--seconds", "0.5", "--bytes", "1M", "--no-limits", "--events", "remove")
        if "this cannot be done here" in done.stderr:
            self.skipTest(done.stderr.strip())
        self.assertEqual((done.returncode, done.stderr), (0, ""), done.stdout)
        self.assertIn("4 vCPUs", done.stdout)

    # ---- the matrix ----

    def test_the_matrix_says_what_it_did_and_what_it_could_not(self):
        done = stress("--matrix", "--seconds", "4", "--memory", "anon", "--place", "copy", "--place", "continue",
                      "--bytes", "1M", "--json", self.path("json"))
        self.assertEqual((done.returncode, done.stderr), (0, ""), done.stdout)
        found = json.loads(self.read("json"))
        self.assertEqual((found["status"], found["failed"]), ("sound", 0))
        self.assertEqual(found["cases"], len(found["results"]))
        # Five patterns, under six sorts of events; and two of them in a guest, where there is KVM.
        self.assertIn(found["cases"], (30, 42))
        self.assertEqual({r["status"] for r in found["results"]}, {"sound"})
        self.assertEqual(sum(r["faults"] for r in found["results"]), found["faults"])
        self.assertEqual({s["events"] for s in found["skipped"] if s["row"] == "anon continue"},
                         {"none", "remove", "unmap", "remap", "fork", "all"})
        self.assertRegex(done.stdout, r"(?m)^anon copy(  +\d+){7} ")
        self.assertRegex(done.stdout, r"(?m)^skipped: anon continue: .*none behind anonymous memory$")
        self.assertRegex(done.stdout, rf"\n{found['cases']} cases, {found['faults']} faults in \d+ s: 0 failed\n$")

    # ---- the picture ----

    def plot(self):
        return stress("--seconds", "0.5", "--bytes", "1M", "--no-limits", "--plot", self.path("plot.svg"))

    def test_a_picture_without_gnuplot_is_an_error(self):
        path = os.environ["PATH"]
        os.environ["PATH"] = self.path("empty")
        try:
            done = self.plot()
        finally:
            os.environ["PATH"] = path
        self.assertEqual(done.returncode, 1)
        self.assertIn("nothing wrong\n", done.stdout)
        self.assertRegex(done.stderr, r"^inmigrate: stress: --plot .*: gnuplot is not installed, or not in PATH\n$")

    def test_a_picture_is_drawn(self):
        if not shutil.which("gnuplot"):
            self.skipTest("gnuplot is not installed")
        done = self.plot()
        self.assertEqual((done.returncode, done.stderr), (0, ""), done.stdout)
        svg = xml.etree.ElementTree.fromstring(self.read("plot.svg"))
        self.assertEqual(svg.tag, "{http://www.w3.org/2000/svg}svg")
        text = "".join(svg.itertext())
        for word in "median", "p99.9", "faults/s", "share", "no wrong byte", "memfd, its own placement":
            self.assertIn(word, text)

    def test_a_picture_that_cannot_be_written_is_an_error(self):
        if not shutil.which("gnuplot"):
            self.skipTest("gnuplot is not installed")
        done = stress("--seconds", "0.01", "--bytes", "64K", "--no-limits", "--plot", self.path("no/plot.svg"))
        self.assertEqual(done.returncode, 1)
        self.assertRegex(done.stderr, r"inmigrate: stress: --plot .*/no/plot\.svg: gnuplot ended with status [1-9]")

    # ---- bugs it must find ----

    def find(self, name, args, said):
        """A run of a program that has the bug, for 20 s at most."""
        control = os.path.join(os.path.dirname(program.PROGRAM), "control-stress", name)
        # A toucher that has found something prints the library's books, and they may change meanwhile.
        env = dict(os.environ, TSAN_OPTIONS=os.environ.get("TSAN_OPTIONS", "") + " report_bugs=0")
        done = subprocess.run([control, "stress", "--progress", "never", "--no-limits", "--bytes", "8M", "--seconds",
                               "20", "--json", self.path("json"), *args.split()], capture_output=True, text=True,
                              timeout=60, check=False, env=env)
        self.assertEqual(done.returncode, 1, done)
        self.assertRegex(done.stdout, rf"\AFAILED: .*({said})")
        self.assertIn("its neighbourhood:", done.stdout)
        found = json.loads(self.read("json"))
        self.assertEqual(found["status"], "failed")
        self.assertRegex(found["wrong"], said)
        self.assertGreater(found["counts"]["wrong_pages"] + found["counts"]["stranded"], 0)
        self.assertLess(found["seconds"], 20)

    def test_bugs_are_found(self):
        folder = os.path.join(os.path.dirname(program.PROGRAM), "control-stress")
        if not os.path.isdir(folder):
            self.skipTest("the programs with bugs were not made: see STRESS_CONTROLS in tests/tests.mk")
        for name, (args, said) in CONTROLS.items():
            with self.subTest(bug=name), huge_pages(64) as free:
                if "hugetlb" in args and free < 8:
                    self.skipTest("no huge pages of 2 MiB")
                # Without the bug, the same run finds nothing.
                self.sound("--no-limits", "--seconds", "0.3", *args.split())
                self.find(name, args, said)

    def test_a_waiter_is_found_within_a_second(self):
        if not os.path.isdir(os.path.join(os.path.dirname(program.PROGRAM), "control-stress")):
            self.skipTest("the programs with bugs were not made: see STRESS_CONTROLS in tests/tests.mk")
        self.find("NO_WAKE_AFTER_EEXIST", *CONTROLS["NO_WAKE_AFTER_EEXIST"])
        said = json.loads(self.read("json"))["wrong"]
        self.assertIn("a UFFDIO_WAKE alone has freed it: a wake-up was lost", said)
        self.assertLess(int(re.search(r"has waited (\d+) ms", said)[1]), 1000)
