#!/usr/bin/env python3
"""stress_touchers.py - what a fault costs with 1 to 64 threads that touch, by `inmigrate stress`, for several builds

  tests/bench/stress_touchers.py --inmigrate PATH [--inmigrate PATH]... [--touchers 1,2,4,16,64] [--only NAME]...
                                 [--rounds 3] [--seconds 1.5] [--json FILE]

  --inmigrate PATH   the program; repeat it for others: columns and ratios are in this order, the first is "before"
  --only NAME        a memory of CASES; may be repeated
  --args TEXT        more arguments for all of them, as a shell would split them

A round has each build once, and the order alternates. Numbers are medians; ratios are taken in each round, then their
median. Everything is in one process, without network or QEMU, and the source answers at once. So what remains is the
library, the kernel and the harness, which makes and checks each byte (CPU of "all" has both, "engine" only the making).
"bare" is the kernel alone: a loop that only answers faults, measured by the first build. bench_postcopy_idle measures
what the engine uses when nobody touches anything.
Exit status: 0 measured, 1 a run failed, 2 usage.
"""

import argparse
import json
import os
import shlex
import statistics
import subprocess
import sys
import tempfile

CASES = {
    "memfd": ("--memory", "memfd", "--place", "continue", "--bytes", "64M"),
    "anon": ("--memory", "anon", "--place", "copy", "--bytes", "64M"),
    "hugetlb-2m": ("--memory", "hugetlb-2m", "--place", "continue", "--bytes", "64M"),
    "local": ("--memory", "memfd", "--place", "zero", "--bytes", "64M"),
}
KEYS = (("faults/s", 0), ("mean us", 1), ("p99 us", 1), ("engine us/f", 1), ("all us/f", 1))


def once(program, arguments):
    with tempfile.NamedTemporaryFile(suffix=".json") as f:
        ran = subprocess.run([program, "stress", *arguments, "--progress", "never", "--json", f.name],
                             capture_output=True, text=True, timeout=300)
        if ran.returncode:
            sys.exit(f"{program}: {ran.stderr or ran.stdout}")
        r = json.load(f)
    n = r["counts"]["faults"]
    bare = {f"{each['memory']} {each['place']}": each["faults_per_second"] for each in r["limits"]}
    return {"faults/s": r["faults_per_second"], "mean us": r["latency_us"]["mean"], "p99 us": r["latency_us"]["p99"],
            "engine us/f": r["engine_cpu_ms"] * 1000 / n, "all us/f": r["cpu_ms"] * 1000 / n, "bare": bare,
            "whole faults/s": n / r["seconds"]}


def measure(options, name, touchers):
    arguments = [*CASES[name], "--touchers", str(touchers), "--duplicates", "0", "--seconds", str(options.seconds),
                 *options.args]
    rounds = []
    bare = {}
    for number in range(options.rounds):
        order = list(enumerate(options.inmigrate))
        made = {}
        for i, program in order if number % 2 == 0 else reversed(order):
            limits = [] if number == 0 and i == 0 else ["--no-limits"]
            made[i] = once(program, arguments + limits)
            bare.update(made[i].pop("bare"))
        rounds.append(made)
    return rounds, bare


def show(options, name, touchers, rounds, bare):
    place = CASES[name][1] + " " + CASES[name][3]
    for i, program in enumerate(options.inmigrate):
        line = f"{name if i == 0 else '':10} {touchers if i == 0 else '':>3} {os.path.basename(program)[-14:]:14}"
        for key, digits in KEYS:
            line += f" {statistics.median(r[i][key] for r in rounds):9.{digits}f}"
            ratios = [r[i][key] / r[0][key] for r in rounds]
            line += f" {statistics.median(ratios):5.2f}" if i else "      "
        print(line + (f" {bare.get(place, 0):8.0f}" if i == 0 else ""), flush=True)


def main():
    parser = argparse.ArgumentParser(usage=__doc__, add_help=False)
    parser.add_argument("--inmigrate", action="append", required=True)
    parser.add_argument("--touchers", default="1,2,4,16,64")
    parser.add_argument("--only", action="append", choices=tuple(CASES))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=1.5)
    parser.add_argument("--args", type=shlex.split, default=[])
    parser.add_argument("--json")
    options = parser.parse_args()
    print(f"{'memory':10} {'thr':>3} {'build':14}" + "".join(f" {key:>9} ratio" for key, _ in KEYS) + "     bare")
    everything = []
    for name in options.only or ("memfd", "anon", "hugetlb-2m"):
        for touchers in (int(n) for n in options.touchers.split(",")):
            rounds, bare = measure(options, name, touchers)
            show(options, name, touchers, rounds, bare)
            everything.append({"memory": name, "touchers": touchers, "rounds": rounds, "bare": bare})
    if options.json:
        with open(options.json, "w") as f:
            json.dump(everything, f, indent=2)


if __name__ == "__main__":
    main()
