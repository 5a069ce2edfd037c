"""Which loss case runs with which QEMU: all with each, quick ones in turn; a case that does not run has a reason"""

import subprocess
import types
import unittest
from unittest import mock

import loss_cases
import netem
import plan
import tcp

OLD, NEW, MIDDLE = ("old", (7, 2, 22)), ("new", (11, 0, 1)), ("middle", (10, 0, 2))


def options(*qemus, **more):
    return types.SimpleNamespace(**{"qemus": list(qemus), "quick": False, "pattern": None, "shared": "/", "kvm": True,
                                    "not_offered": {}, **more})


def planned(*qemus, **more):
    return list(plan.plan(options(*qemus, **more)))


class Plan(unittest.TestCase):
    def setUp(self):
        # There are certificates.
        plan.os.path.isdir, isdir = lambda _: True, plan.os.path.isdir
        self.addCleanup(setattr, plan.os.path, "isdir", isdir)

    def test_all_cases_with_each_qemu(self):
        titles = [p.title for p in planned(OLD, NEW)]
        self.assertEqual(len(titles), len(set(titles)))
        for case in loss_cases.CASES:
            self.assertIn(f"{case.name}@7.2", titles)
            self.assertIn(f"{case.name}@11.0", titles)

    def test_one_qemu_is_not_in_the_titles(self):
        for qemus in ((OLD,), (OLD, ("none", None))):
            self.assertEqual([p.title for p in planned(*qemus)], [case.name for case in loss_cases.CASES])

    def test_quick_cases_once_each_and_by_halves(self):
        quick = planned(OLD, NEW, quick=True)
        self.assertEqual([p.case.name for p in quick], [c.name for c in loss_cases.CASES if c.quick])
        self.assertAlmostEqual(sum(p.binary == "old" for p in quick) / len(quick), 0.5, delta=0.1)

    def test_a_quick_case_has_its_qemu_whatever_else_is_asked_for(self):
        whole = {p.title for p in planned(OLD, NEW, quick=True)}
        for pattern in ("recovery", "set-up-psk-4", "bbr"):
            some = [p.title for p in planned(OLD, NEW, quick=True, pattern=pattern)]
            self.assertTrue(some)
            self.assertLessEqual(set(some), whole)

    def test_in_turn_all_have_some_of_each_family(self):
        for other in (NEW, MIDDLE):
            quick = planned(OLD, other, quick=True)
            for_both = [p.case.family for p in quick if p.case.fits(OLD[1]) and p.case.fits(other[1])]
            for binary in ("old", other[0]):
                families = {p.case.family for p in quick if p.binary == binary}
                self.assertLessEqual({family for family in for_both if for_both.count(family) > 1}, families, binary)
                names = " ".join(p.case.name for p in quick if p.binary == binary)
                for word in ("psk", "multifd", "preempt", "plain", "loss-20", "blackout-30"):
                    self.assertIn(word, names, binary)

    def test_what_no_qemu_can_has_a_reason(self):
        one = [p for p in planned(MIDDLE) if p.case.name == "blackout-1-postcopy-multifd"]
        self.assertEqual([p.reason for p in one], ["not with QEMU 10.0"])
        # Another one can, so nothing is lost if this one cannot.
        two = [p for p in planned(OLD, MIDDLE) if p.case.name == "blackout-1-postcopy-multifd"]
        self.assertEqual([(p.title, p.reason) for p in two], [("blackout-1-postcopy-multifd@7.2", None)])
        self.assertEqual({p.reason for p in planned(("gone", None))}, {"no QEMU: gone"})

    def test_without_bbr_a_few_are_skipped(self):
        quick = planned(OLD, quick=True, not_offered={tcp.BBR: "no bbr"})
        skipped = [p.case.name for p in quick if p.reason]
        self.assertEqual({p.reason for p in quick if p.reason}, {"no bbr"})
        self.assertTrue(0 < len(skipped) < 5, skipped)
        self.assertTrue(all(name.endswith("-bbr") for name in skipped))

    def test_a_link_that_does_not_work_is_no_reason(self):
        """To skip a case: instead each run fails with it."""
        for trouble in (subprocess.TimeoutExpired("cat", 30), netem.Failed("gone"), OSError("no")):
            with mock.patch.object(plan.beds, "Bed", side_effect=trouble):
                self.assertEqual(plan.offered(options(seed=1)), ({}, ()))
        with mock.patch.object(plan.beds, "Bed", side_effect=netem.NotHere("no bbr")):
            self.assertEqual(plan.offered(options(seed=1))[0], {tcp.CUBIC: "no bbr", tcp.BBR: "no bbr"})

    def test_each_bbr_case_has_a_sibling_by_cubic(self):
        by_name = {case.name: case for case in loss_cases.CASES}
        bbr = [case for case in loss_cases.CASES if case.congestion == tcp.BBR]
        self.assertTrue(bbr)
        for case in bbr:
            sibling = by_name[case.name.removesuffix("-bbr")]
            self.assertEqual((sibling.congestion, sibling.link), (tcp.CUBIC, case.link))

    def test_the_heading_says_what_the_runs_stand_on(self):
        lines = list(plan.heading(options(OLD, NEW, ("gone", None), kvm=False), {"tcp_rto_max_ms"}))
        self.assertRegex(lines[0], r"^Linux \S+, TCP by cubic and bbr, 1 of \d+ settings are not in this kernel, tcp_rto_max_ms among")
        self.assertEqual(lines[1:], ["QEMU 7.2.22 with tcg, guests stand still: it loses what they change", "QEMU 11.0.1 with tcg",
                                     "no QEMU: gone"])
        lines = list(plan.heading(options(OLD, not_offered={tcp.BBR: "no bbr"}), ()))
        self.assertRegex(lines[0], "^Linux [^,]+, TCP by cubic$")
        self.assertEqual(lines[1:], ["QEMU 7.2.22 with kvm"])
        lines = list(plan.heading(options(OLD, not_offered={tcp.BBR: "no TUN", tcp.CUBIC: "no TUN"}), ()))
        self.assertRegex(lines[0], "^Linux [^,]+, no link$")


if __name__ == "__main__":
    unittest.main()
