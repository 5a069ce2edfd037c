"""report.py - the table: medians of throughput and CPU, and their ratios to QEMU's own destination"""

import statistics

from qemu import PAGE_BYTES

KEYS = ("gb_per_s", "cpu_s_per_gb")
WIDTH = 86                # of a line up to the ratios


def spread(values):
    return f"{statistics.median(values):8.3f} {min(values):7.3f} {max(values):7.3f}"


def print_variant(name, rounds):
    first = next(iter(rounds[0].values()))
    zero_percent = first["zero_pages"] * PAGE_BYTES / first["gb"] / 1e7
    print(f"\n{name}: {first['gb']:.2f} GB of guest memory, {zero_percent:.0f} % zero,"
          f" {first['wire_bytes'] / 1e9:.2f} GB on the wire; {len(rounds)} rounds")
    print(f"  {'':12} {'GB/s':>8} {'min':>7} {'max':>7} {'CPU-s/GB':>9} {'min':>7} {'max':>7} {'source':>7}"
          f" {'others':>6}   {'to QEMU: GB/s':>21}  {'CPU/GB':>21}")
    for side in sorted(rounds[0], key=lambda s: (s.startswith("sink"), not s.startswith("qemu"), s)):
        runs = [r[side] for r in rounds]
        line = (f"  {side:12} {spread([r['gb_per_s'] for r in runs])}  {spread([r['cpu_s_per_gb'] for r in runs])}"
                f" {statistics.median(r['source_cpu_s_per_gb'] for r in runs):7.3f}"
                f" {statistics.median(r['others_cpus'] for r in runs):6.2f}")
        if side != "qemu":
            line += "".join(ratio_text(rounds, side, key, "qemu") for key in KEYS)
        print(line.rstrip(), flush=True)
    for side in rounds[0]:
        if side.startswith("inmigrate") and "qemu-cipher" in rounds[0]:
            text = "".join(ratio_text(rounds, side, key, "qemu-cipher") for key in KEYS)
            print(f"  {side + ' to qemu-cipher:':{WIDTH}}{text.rstrip()}", flush=True)


def ratio_text(rounds, side, key, base):
    ratios = ratios_of(rounds, side, key, base)
    return f"   {statistics.median(ratios):6.2f} ({min(ratios):.2f}-{max(ratios):.2f})".ljust(24)


def ratios_of(rounds, side, key, base):
    return [r[side][key] / r[base][key] for r in rounds]


def summary(rounds):
    result = {"rounds": rounds, "ratios": {}}
    for base in ("qemu", "qemu-cipher"):
        if base not in rounds[0]:
            continue
        result["ratios"][base] = {
            side: {key: statistics.median(ratios_of(rounds, side, key, base)) for key in KEYS}
            for side in rounds[0] if side != base}
    return result
