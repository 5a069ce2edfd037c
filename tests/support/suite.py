"""suite.py - run the unittests of a folder, several at the same time, and report the results

A test mostly waits, for a deadline or for silence. So each has a process of its own, and several run at the same time.
With $TEST_COUNTS the counts go to that file.
"""

import argparse
import io
import os
import time
import unittest

import side_by_side
import signals

JOBS_FOR_EACH_PROCESSOR = 3


class Result(unittest.TextTestResult):
    """Also lists what passed, and why tests were skipped."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.passed = 0

    def addSuccess(self, test):
        super().addSuccess(test)
        self.passed += 1


class Sum:
    def __init__(self):
        self.passed = self.failed = self.skipped = 0

    def add(self, name, said, verbose):
        passed, failed, reasons, text, seconds = said
        self.passed += passed
        self.failed += failed
        self.skipped += len(reasons)
        for reason in reasons:
            print(f"SKIP  {reason}", flush=True)
        if failed:
            print(f"FAIL  {name}\n{text}", flush=True)
        elif verbose and not reasons:
            print(f"ok    {name} ({seconds:.1f} s)", flush=True)


def all_tests(tests):
    """One by one; a test that cannot be loaded fails."""
    for test in tests:
        if isinstance(test, unittest.TestSuite):
            yield from all_tests(test)
        else:
            yield test


def run_one(number):
    """Runs in a process of its own, which has the tests from before the fork."""
    test, stream, began = TESTS[number], io.StringIO(), time.monotonic()
    result = unittest.TextTestRunner(stream=stream, resultclass=Result).run(unittest.TestSuite([test]))
    # A test with failing subtests is one failure.
    failed = len({getattr(t, "test_case", t).id() for t, _ in result.failures + result.errors})
    failed += len(result.unexpectedSuccesses)
    reasons = [f"{test.id()}: {reason}" for _, reason in result.skipped]
    return result.passed, failed, reasons, stream.getvalue(), time.monotonic() - began


def run_all(options):
    total = Sum()

    def tell(number, said, status):
        died = (0, 1, [], f"its process ended with status {status}", 0)
        total.add(TESTS[number].id(), said or died, options.v)

    side_by_side.run(range(len(TESTS)), run_one, tell, options.jobs)
    return total


def main(description, folder, pattern, prepare=None):
    """The main program of a runner. prepare: adds options to its parser; returns a function that gets the parsed
    ones."""
    signals.as_expected()
    jobs = JOBS_FOR_EACH_PROCESSOR * side_by_side.processors()
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-k", metavar="PATTERN", action="append", help="only tests whose name contains this")
    parser.add_argument("-j", dest="jobs", metavar="N", type=int, default=jobs, help=f"so many at the same time [{jobs}]")
    parser.add_argument("-v", action="store_true", help="say each test")
    begin = prepare(parser) if prepare else None
    options = parser.parse_args()
    if begin:
        begin(options)

    loader = unittest.TestLoader()
    if options.k:
        loader.testNamePatterns = [k if "*" in k else f"*{k}*" for k in options.k]
    TESTS.extend(all_tests(loader.discover(folder, pattern=pattern, top_level_dir=folder)))
    began = time.monotonic()
    total = run_all(options)

    print(f"{len(TESTS)} tests in {time.monotonic() - began:.0f} s, {options.jobs} at the same time")
    counts = (total.passed, total.failed, total.skipped)
    print("%d passed, %d failed, %d skipped" % counts)
    if os.environ.get("TEST_COUNTS"):
        with open(os.environ["TEST_COUNTS"], "w", encoding="ascii") as f:
            f.write("%d %d %d\n" % counts)
    return 1 if total.failed or not TESTS else 0


TESTS = []
