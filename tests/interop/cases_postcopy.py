"""cases_postcopy.py - more cases of tests/interop/run: the guest moves while most of its pages are still at the source

Touchers run in it here (inmigrate listen --guest touch=...). They write to pages, so we undo their writes before we
compare RAM; if a page comes late and overwrites one, the touchers fail.
"""

import dataclasses
import json
import os

from cases import (Case, DELTAS, FAST, OTHERS, PSK, PSK_IN, ROUNDS, USB, VIRTIO_MMIO, VIRTIO_PCI, X509, X509_IN,
                   certs, huge_pages_back, reached, reserve_huge_pages, tcp, unix)
from qemu import Failed, Inmigrate, MIB, PATIENT_SECONDS, wait_until

# With it a source sends very little of 128 MiB before the switch; after the switch there is no limit.
TRICKLE = {"max-bandwidth": 2 * MIB, "max-postcopy-bandwidth": 0}
PREEMPT = ("postcopy-preempt",)
MANY = 50  # requests: some of them are for pages that are not under way


class Touched(Inmigrate):
    """The program with touchers in the guest, and what they wrote."""

    def __init__(self, folder, program, guest, backing, switched):
        super().__init__(folder, program)
        self.more += ["--guest", guest] if guest else []
        self.more += ["--ram-backing", backing] if backing else []
        self.log_path = os.path.join(folder, "touch.log") if guest else None
        if guest:
            self.more += ["--touch-log", self.log_path]
        # A guest that lands as a whole is written before it runs.
        self.undone = not guest or not switched

    def open_block(self, block):
        if not self.undone:
            self.undo()
        return super().open_block(block)

    def undo(self):
        """Restore what was there before the touchers wrote; each stamp must be in the file."""
        self.undone = True
        files = {}
        try:
            with open(self.log_path) as log:
                for line in log:
                    entry = json.loads(line)
                    name = entry["block"]
                    if name not in files:
                        path = os.path.join(self.ram_dir, name.replace("/", "_") + ".raw")
                        files[name] = open(path, "r+b", buffering=0)
                    fd, offset = files[name].fileno(), entry["offset"]
                    if os.pread(fd, 8, offset) != bytes.fromhex(entry["value"]):
                        raise Failed(f"'{name}' at {offset:#x}: what the guest wrote is not in the file")
                    os.pwrite(fd, bytes.fromhex(entry["original"]), offset)
        finally:
            for file in files.values():
                file.close()


@dataclasses.dataclass
class Postcopy(Case):
    touch: str = "touch=2"   # "": nothing runs in the guest
    backing: str = ""
    switched: bool = True    # whether the guest moves before its pages

    def make_destination(self, folder, program):
        return Touched(folder, program, self.touch, self.backing, self.switched)


# ---- when the guest moves ----

def start_postcopy(run):
    def accepted():
        run.destination.check_alive()
        return run.source.start_postcopy()
    wait_until("the source to begin", accepted, PATIENT_SECONDS, every=0.001)


def switch(run):
    start_postcopy(run)
    info = run.source.wait_status("completed", "postcopy-paused", seconds=run.case.seconds,
                                  also=run.destination.check_alive)
    if info["status"] != "completed":
        raise Failed("the source has paused; the destination: " + run.destination.errors())
    if info["ram"]["postcopy-bytes"] == 0:
        raise Failed("the source had sent everything before it could switch: the guest changes too little")


def at_once(run):
    switch(run)
    sent = run.source.info()["ram"]["precopy-bytes"]
    if sent > 16 * MIB and not run.case.backing.startswith("hugetlb"):
        raise Failed(f"this was not at once: {sent} bytes came before the switch")


def late(run):
    """Nine tenths have been sent, some of them more than once, and the guest goes on changing them."""
    reached(run, "ram", "dirty-sync-count", 2)
    info = run.source.info()["ram"]
    if info["remaining"] > info["total"] // 4:
        raise Failed(f"{info['remaining']} bytes of {info['total']} remain: this is not late")
    if run.turns:
        run.turns.next()
    switch(run)


# ---- afterwards ----

def pages_were_asked_for(run):
    """Check that the numbers show what the case is about."""
    if run.options.reference:
        return
    case, stats = run.case, run.destination.stats()
    faults, requests, touch = stats["faults"], stats["requests"]["sent"], stats.get("touch")
    if stats["pages"]["remaining"] or stats["faults_outstanding"]:
        raise Failed(f"pages are missing: {stats['pages']}, {stats['faults_outstanding']} faults wait")
    if not case.switched:
        if stats["pages"]["postcopy"] or faults:
            raise Failed(f"there was no postcopy, and {stats['pages']['postcopy']} pages came in it, {faults} faults")
    elif stats["pages"]["postcopy"] == 0:
        raise Failed("no page came after the switch")
    if case.touch and touch["accesses"] == 0:
        raise Failed("nothing was touched")
    if case.touch and touch["intact"] != touch["stamps"]:
        raise Failed(f"of {touch['stamps']} stamps {touch['intact']} are intact")
    if case.switched and case.touch:
        if not faults or not requests:
            raise Failed(f"touchers ran, and there were {faults} faults and {requests} requests")
        latency = stats["fault_latency_us"]
        run.remark += f"; {faults} faults, median {latency['p50']:.0f} us, p99 {latency['p99']:.0f} us"
    if "multifd" in case.caps and not stats["bytes"]["multifd"]:
        raise Failed("nothing came by the multifd channels")
    # A page that the source sent before it read the request does not come on that channel, so some may not.
    if "postcopy-preempt" in case.caps and requests >= MANY and not stats["bytes"]["preempt"]:
        raise Failed(f"there were {requests} requests, and nothing came by the preempt channel")


def huge_pages_for_two(run):
    """For the memory of the source and of the destination."""
    reserve_huge_pages(run, 2 * 64)


# ---- the table ----

SECRECY = {
    "plain": {},
    "psk": {"args": PSK, "params": {"tls-creds": "tls0"}, "in_params": PSK_IN, "before": certs},
    "x509": {"args": X509, "params": {"tls-creds": "tls0"}, "in_params": X509_IN, "before": certs},
}
WHEN = {
    "at-once": {"during": at_once, "params": TRICKLE},
    # Without a limit the rest would be under way before the first request arrives.
    "late": {"during": late, "params": {**ROUNDS, "max-postcopy-bandwidth": 64 * MIB}, "dirty": (16 * MIB, 48 * MIB)},
}
HUGE = ("-object", "memory-backend-memfd,id=m0,size=128M,hugetlb=on,hugetlbsize=2M", "-machine", "memory-backend=m0")
# With huge pages a source checks only after each 64 of them whether to switch: here that means after all of RAM, or
# none of it. To leave enough either way, the guest changes half of it, and keeps changing it.
IN_HUGE = {"args": HUGE, "backing": "hugetlb-2m", "before": huge_pages_for_two, "cleanup": huge_pages_back,
           "dirty": (16 * MIB, 80 * MIB), "params": {"max-bandwidth": 64 * MIB, "max-postcopy-bandwidth": 256 * MIB}}
NUMA = ("-smp", "2", "-object", "memory-backend-memfd,id=n0,size=64M", "-object", "memory-backend-memfd,id=n1,size=64M",
        "-numa", "node,memdev=n0,cpus=0", "-numa", "node,memdev=n1,cpus=1")


def postcopy(name, when="at-once", preempt=True, caps=(), secrecy="plain", params=None, in_params=None, **more):
    secret = dict(SECRECY[secrecy])
    at = dict(WHEN[when])
    params = {**at.pop("params"), **secret.pop("params", {}), **(params or {})}
    in_params = {**(secret.pop("in_params", None) or {}), **(in_params or {})}
    args = secret.pop("args", ()) + tuple(more.pop("args", ()))
    return Postcopy("postcopy-" + name, caps=("postcopy-ram",) + (PREEMPT if preempt else ()) + caps, params=params,
                    in_params=in_params, args=args, after=None if "fails" in more else pages_were_asked_for,
                    **{**at, **secret, **more})


# ---- everything by everything ----
IN_SAMPLE = (("plain", tcp, True, "at-once"), ("plain", unix, False, "late"), ("psk", unix, True, "late"),
             ("x509", tcp, True, "at-once"))


def combination(secrecy, transport, preempt, when):
    # A path is no name that a certificate could be for: the source must be told which one to expect.
    more = {"params": {"tls-hostname": "localhost"}} if secrecy == "x509" and transport is unix else {}
    name = f"{secrecy}-{transport.__name__}-{'preempt' if preempt else 'plain'}-{when}"
    return postcopy(name, when, preempt, secrecy=secrecy, transport=transport,
                    quick=(secrecy, transport, preempt, when) in IN_SAMPLE, **more)


CASES = [combination(secrecy, transport, preempt, when)
         for secrecy in SECRECY for transport in (tcp, unix) for preempt in (False, True) for when in WHEN]
CASES += [
    # ---- what is touched, and how ----
    postcopy("seq", touch="touch=2,pattern=seq"),
    postcopy("stride-read", touch="touch=2,pattern=stride:64K,access=read"),
    postcopy("hot-write", touch="touch=4,pattern=hot,access=write", when="late"),
    postcopy("eight-touchers", touch="touch=8", when="late"),
    postcopy("a-walk-and-no-more", touch="touch=2,pattern=seq,access=write,span=96M,passes=1"),
    postcopy("goes-on-touching", touch="touch=2,seconds=3"),
    postcopy("nothing-runs", touch=""),
    postcopy("never-switched", during=None, params={"max-bandwidth": FAST}, switched=False),
    postcopy("never-switched-plain", preempt=False, during=None, params={"max-bandwidth": FAST}, switched=False),
    # ---- where it lands ----
    postcopy("memfd", backing="memfd"),
    postcopy("thp", backing="thp"),
    postcopy("thp-late", backing="thp", when="late", preempt=False),
    postcopy("hugetlb", quick=True, **IN_HUGE),
    postcopy("hugetlb-plain", preempt=False, **IN_HUGE),
    postcopy("hugetlb-late", **{**IN_HUGE, "when": "late", "params": {}, "dirty": (16 * MIB, 32 * MIB)}),
    # Pages of another size can be placed neither as a whole nor in parts.
    postcopy("hugetlb-into-small", backing="memfd", args=HUGE, before=huge_pages_for_two, cleanup=huge_pages_back,
             during=None, fails=r"pages of 0x200000 bytes at the source and of 0x1000 here"),
    # ---- machines and devices ----
    postcopy("microvm", machine="microvm", args=VIRTIO_MMIO,
             devices=("virtio-net", "virtio-blk", "virtio-rng", "virtio-balloon")),
    postcopy("microvm-plain", machine="microvm", args=VIRTIO_MMIO, preempt=False, when="late"),
    postcopy("pc-devices", args=VIRTIO_PCI + USB + OTHERS, devices=("virtio-net", "e1000", "xhci", "vga", "serial")),
    postcopy("pc-devices-plain", args=VIRTIO_PCI + USB + OTHERS, preempt=False, when="late",
             devices=("virtio-net", "e1000", "xhci", "vga", "serial")),
    postcopy("q35-devices", machine="q35", args=VIRTIO_PCI + USB + OTHERS, when="late",
             devices=("virtio-net", "e1000", "xhci", "vga", "serial")),
    postcopy("q35-devices-plain", machine="q35", args=VIRTIO_PCI, preempt=False, devices=("virtio-net", "virtio-scsi")),
    postcopy("numa", args=NUMA),
    postcopy("four-cpus", args=("-smp", "4"), when="late"),
    postcopy("stopped", guest="stopped"),
    postcopy("stopped-tcg", guest="stopped", accel="tcg", preempt=False),
    postcopy("one-gigabyte", memory_mib=1024, content_mib=512, touch="touch=2"),
    # How newer sources open the preempt channel depends on the machine type (doc/wire/stream.md 6).
    postcopy("machine-7.2", machine="pc-i440fx-7.2", since=(8, 0)),
    postcopy("machine-7.2-late", machine="pc-i440fx-7.2", since=(8, 0), when="late"),
    # ---- with other capabilities ----
    postcopy("return-path-named", caps=("return-path",)),
    # Deltas are small: without a limit a round ends before the guest has had its turn, and then the migration does.
    postcopy("xbzrle", caps=("xbzrle",), when="late", content_mib=8,
             params={**DELTAS, "max-bandwidth": 4 * MIB, "max-postcopy-bandwidth": 16 * MIB}),
    postcopy("multifd", caps=("multifd",), preempt=False, until=(8, 0), when="late", quick=True),
    postcopy("multifd-at-once", caps=("multifd",), preempt=False, until=(8, 0)),
    postcopy("multifd-psk", caps=("multifd",), preempt=False, until=(8, 0), secrecy="psk"),
    postcopy("blocktime", caps=("postcopy-blocktime",)),
]
