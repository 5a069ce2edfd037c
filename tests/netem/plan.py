"""plan.py - which case runs with which QEMU and congestion control, and why some do not run

options: the command line's, and qemus [(path, version or None)], kvm, shared (the folder of the runs).
"""

import os
import re
import subprocess

import bed as beds
import loss_cases
import netem
import qemu
import tcp


class Planned:
    """A case and its QEMU; or why it cannot run."""

    def __init__(self, case, binary=None, version=None, reason=None, named=False):
        self.case, self.binary, self.version, self.reason = case, binary, version, reason
        self.title = case.name + (f"@{short(version)}" if version and named else "")


def short(version):
    return ".".join(map(str, version[:2]))


def in_turn(options):
    """All cases: [(case, QEMUs)]. Quick cases have one each, and a family goes through all of them in turn; the choice
    does not depend on which other cases are requested."""
    turns = {}
    for case in loss_cases.CASES:
        if options.quick and not case.quick:
            continue
        fitting = [(binary, version) for binary, version in options.qemus if version and case.fits(version)]
        if options.quick and len(fitting) > 1:
            # Not all families begin with the same one.
            turn = turns.setdefault(case.family, len(turns))
            turns[case.family] = turn + 1
            fitting = [fitting[turn % len(fitting)]]
        yield case, fitting


def why_not(options, case):
    if case.tls and not os.path.isdir(os.path.join(options.shared, "certs")):
        return "no certificates: openssl is not installed"
    return options.not_offered.get(case.congestion)


def plan(options):
    have = [version for _, version in options.qemus if version]
    for case, fitting in in_turn(options):
        if options.pattern and not re.search(options.pattern, case.name):
            continue
        if not fitting:
            names = ", ".join(name for name, _ in options.qemus)
            yield Planned(case, reason=f"not with QEMU {' or '.join(map(short, have))}" if have else f"no QEMU: {names}")
        for binary, version in fitting:
            yield Planned(case, binary, version, why_not(options, case), len(have) > 1)


def offered(options):
    """{congestion control: why not}, and what the kernel lacks. If something is wrong with a link, each run reports
    it."""
    not_offered, lacking = {}, ()
    for name in (tcp.CUBIC, tcp.BBR):
        try:
            with beds.Bed(options, options.seed, congestion=name) as bed:
                lacking = bed.lacking
        except netem.NotHere as e:
            not_offered[name] = str(e)
        except (netem.Failed, OSError, subprocess.SubprocessError):
            break
    return not_offered, lacking


def sources(options):
    """Each QEMU, and the accelerator of its guests."""
    for name, version in options.qemus:
        if version:
            stands = "" if qemu.keeps_changes(version, options.kvm) else ", guests stand still: it loses what they change"
            yield qemu.told(version, options.kvm) + stands
        else:
            yield f"no QEMU: {name}"


def heading(options, lacking):
    """Lines about what the runs depend on."""
    by = [name for name in (tcp.CUBIC, tcp.BBR) if name not in options.not_offered]
    yield ", ".join(t for t in (tcp.kernel(), "TCP by " + " and ".join(by) if by else "no link", tcp.missing(lacking)) if t)
    yield from sources(options)
