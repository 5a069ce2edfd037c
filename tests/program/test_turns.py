"""tests/interop/turns.py: the guest never runs while its source looks for changed pages, or else the case starts
again"""

import os
import sys
import unittest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "interop"))

from cases import Case  # noqa: E402
from qemu import Failed, MIB, QmpError  # noqa: E402
from turns import CRAWL, Missed, Turns  # noqa: E402


class Source:
    """Replaces qemu.Qemu. looks: after how many of a turn's commands it looks, if at all."""

    ENDS = ("completed", "failed", "cancelled")

    def __init__(self, looks=None, refuses=None, status="active"):
        self.qmp = self
        self.looks, self.refuses, self.status = looks, refuses, status
        self.rounds, self.pages, self.running = 1, 0, True
        self.bandwidths = []
        self.done = []

    def command(self, name):
        if name == self.refuses:
            raise QmpError("not now")
        self.done.append(name)
        self.running = name == "cont"
        if self.looks == name:
            self.rounds += 1

    def migrate(self, uri):
        if self.running:
            raise AssertionError("it migrates, and its guest runs")
        self.done.append(uri)

    def set(self, params):
        self.bandwidths.append(params["max-bandwidth"])

    def heartbeats(self):
        self.pages += 2048 if self.running else 0
        return self.pages // 4096

    def info(self):
        return {"status": self.status, "ram": {"dirty-sync-count": self.rounds, "transferred": 1 << 30}}


def case(mib=4):
    return Case("", dirty=(16 * MIB, (16 + mib) * MIB), params={"max-bandwidth": 8 << 30})


class TurnsTest(unittest.TestCase):
    def test_a_turn_is_between_two_looks_and_the_source_crawls(self):
        source = Source()
        turns = Turns(source, case())
        turns.begin("tcp:")
        self.assertEqual(source.done, ["stop", "tcp:", "cont", "stop"])
        self.assertEqual(source.bandwidths[1], CRAWL)
        self.assertEqual(source.bandwidths[-1], 8 << 30)
        self.assertEqual(turns.count, 1)

    def test_a_turn_changes_the_whole_range(self):
        source = Source()
        Turns(source, case(32)).begin("tcp:")
        self.assertGreaterEqual(source.pages, 32 * MIB // 4096)

    def test_there_is_one_turn_a_round(self):
        source = Source()
        turns = Turns(source, case())
        turns.begin("tcp:")
        turns.next()
        self.assertEqual(turns.count, 1)
        source.rounds += 1
        turns.next()
        turns.next()
        self.assertEqual(turns.count, 2)

    def test_a_look_during_a_turn_is_missed(self):
        for when in ("cont", "stop"):
            source = Source()
            turns = Turns(source, case())
            turns.begin("tcp:")
            source.rounds += 1
            source.looks = when
            with self.subTest(when=when), self.assertRaises(Missed):
                turns.next()

    def test_a_source_that_is_through_is_missed(self):
        source = Source()
        turns = Turns(source, case())
        turns.begin("tcp:")
        source.rounds, source.refuses = 2, "cont"
        self.assertRaises(Missed, turns.next)
        source = Source()
        turns = Turns(source, case())
        turns.begin("tcp:")
        source.rounds, source.status = 2, "completed"
        self.assertRaises(Missed, turns.next)

    def test_a_migration_that_fails_before_is_no_matter_of_turns(self):
        self.assertRaises(Failed, Turns(Source(status="failed"), case()).begin, "tcp:")
