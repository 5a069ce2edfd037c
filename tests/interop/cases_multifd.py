"""cases_multifd.py - more cases of tests/interop/run: several channels, and a network that permutes them"""

import itertools
import random

from cases import (Case, FAST, OTHER_UUID, PSK, PSK_IN, ROUNDS, RP, TLS_OUT, UUID, X509, X509_IN, certs, faster,
                   many_rounds, reached, refused_first_unix, tcp, unix)
from qemu import Failed, MIB, PAGE_BYTES
from wire import MAIN, Wire, target_of

NUMA = ("-smp", "2", "-object", "memory-backend-memfd,id=n0,size=64M", "-object", "memory-backend-memfd,id=n1,size=64M",
        "-numa", "node,memdev=n0,cpus=0", "-numa", "node,memdev=n1,cpus=1")


class Permuting(Wire):
    """Does on purpose what a network may do to several connections (doc/wire/channels.md 3): holds them until all are
    there, then opens them to the destination in `order` (indexes in the order of arrival; 0 came first and is main).

    main_last: main's bytes are passed on a while after each other connection's first ones.
    split: the first bytes of every connection are passed on one by one.
    """

    SPLIT_BYTES, SPLIT_PAUSE_S = 12, 0.003
    MAIN_DELAY_S = 0.3      # after the last of the others

    def __init__(self, target, order, main_last, split):
        super().__init__(target)
        self.order, self.main_last, self.split = order, main_last, split
        self.sources = []
        self.pairs = {}           # of an index
        self.spoken = set()       # those with bytes that were passed on

    def accepted(self, source):
        """More than expected: as they come."""
        self.sources.append(source)
        if len(self.sources) > len(self.order):
            self.open(source)
        elif len(self.sources) == len(self.order):
            for index in self.order:
                self.pairs[index] = self.open(self.sources[index])

    def arrived(self, way, data):
        if way is not way.pair.forth or way.count:
            return data
        return self.first_bytes(way.pair, data)

    def first_bytes(self, pair, data):
        if self.main_last and pair is self.pairs[0]:
            while len(self.spoken) < len(self.order) - 1:
                yield self.SPLIT_PAUSE_S
            yield self.MAIN_DELAY_S
        for at in range(min(self.SPLIT_BYTES, len(data)) if self.split else 0):
            yield data[at:at + 1]
            yield self.SPLIT_PAUSE_S
        yield data[self.SPLIT_BYTES if self.split else 0:]
        self.spoken.add(pair)

    def check(self):
        """Check that the order was as planned: main is where its index says. Raises Failed."""
        if None in self.pairs.values() or len(self.spoken) != len(self.order) or self.pairs[0].first != MAIN:
            raise Failed(f"{len(self.sources)} connections came, {len(self.spoken)} of {len(self.order)} were passed on:"
                         f" {[pair and pair.first for pair in self.pairs.values()]}")


def permuting(order, main_last=False, split=False):
    """Hold the source's connections until all have come, then open them in this order."""
    def transport(run):
        run.listen("tcp:127.0.0.1:0")
        run.wire = Permuting(target_of(run.destination.address()), order, main_last, split).begin()
        run.migrate(run.wire.uri())
    return transport


def as_permuted(run):
    run.wire.check()


def multifd(name, channels=2, method="none", caps=(), params=None, in_params=None, **more):
    both = {"multifd-channels": channels, "multifd-compression": method}
    return Case("multifd-" + name, caps=("multifd",) + caps, params={"max-bandwidth": FAST, **both, **(params or {})},
                in_params={**both, **(in_params or {})}, **more)


def permuted(order, number, quick=False):
    """One after the other: unchanged, with main's bytes last, with first bytes one by one, with both."""
    return multifd("order-" + "".join(map(str, order)), channels=len(order) - 1, caps=RP if number % 3 else (),
                   content_mib=16, transport=permuting(order, main_last=number & 1 > 0, split=number & 2 > 0),
                   after=as_permuted, quick=quick)


def shuffled(seed):
    order = list(range(9))
    random.Random(seed).shuffle(order)
    return permuted(tuple(order), seed)


REWRITTEN = {"dirty": (16 * MIB, 48 * MIB), "during": many_rounds}


# ---- everything by everything: channels, compression, encryption, transport ----

SMALL = {"memory_mib": 96, "content_mib": 24, "dirty": (16 * MIB, 28 * MIB)}
# A certificate cannot name a path: the source must be told which name to expect.
BY_NAME = {"tls-hostname": "localhost"}
SECRECY = {
    "plain": {},
    "psk": {"args": PSK, "params": {"tls-creds": "tls0"}, "in_params": PSK_IN, "before": certs},
    "x509": {"args": X509, "params": {"tls-creds": "tls0"}, "in_params": X509_IN, "before": certs},
}
IN_SAMPLE = (
    (4, "none", "plain", tcp), (2, "zstd", "plain", unix), (16, "zlib", "plain", tcp), (4, "zstd", "psk", unix),
    (1, "none", "x509", unix))


def rewritten_under_way(run):
    """The guest runs and changes what has been sent: at least three rounds have ended, and pages went twice."""
    reached(run, "ram", "dirty-sync-count", 3)
    faster(run)


def came_by_channels(run):
    """Pages went over the channels, some of them more than once, and had the length that the method gives them."""
    if run.options.reference:
        return
    stats = run.destination.stats()
    by_channels, page_bytes = stats["bytes"]["multifd"], stats["pages"]["normal"] * PAGE_BYTES
    once = (run.case.content_mib + 2) * MIB    # the content, the firmware
    if page_bytes <= once:
        raise Failed(f"{page_bytes} bytes of pages came: the guest has changed nothing")
    # Three pages in seven compress well, and four not at all.
    compressed = run.case.params["multifd-compression"] != "none"
    if not (page_bytes // 4 < by_channels < page_bytes * 9 // 10 if compressed else page_bytes < by_channels):
        raise Failed(f"{page_bytes} bytes of pages came in {by_channels} bytes of the channels")


def combination(channels, method, secrecy, transport):
    more = dict(SECRECY[secrecy])
    # So slow that the first round takes several of the source's tenths of a second, even compressed: a source that
    # finishes before it has measured its bandwidth ends with what the guest has changed meanwhile.
    params = {"max-bandwidth": 48 * MIB, "downtime-limit": 1, **more.pop("params", {})}
    if secrecy == "x509" and transport is unix:
        params.update(BY_NAME)
    return multifd(f"{channels}-{method}-{secrecy}-{transport.__name__}", channels, method,
                   caps=RP if transport is tcp else (), params=params, transport=transport,
                   during=rewritten_under_way, after=came_by_channels,
                   quick=(channels, method, secrecy, transport) in IN_SAMPLE, **SMALL, **more)


CASES = [combination(*each) for each in itertools.product(
    (1, 2, 4, 16), ("none", "zlib", "zstd"), SECRECY, (tcp, unix))]
CASES += [
    multifd("no-return-path", 4, params=ROUNDS, **REWRITTEN),
    multifd("return-path-unix", 4, "zlib", params=ROUNDS, caps=RP, transport=unix, **REWRITTEN),
    multifd("255", 255, content_mib=16),
    multifd("stopped", 4, guest="stopped"),
    multifd("one-gigabyte", 4, memory_mib=1024, content_mib=512),
    multifd("ram-numa-memfd", 4, args=NUMA),
    # Only the source uses levels.
    multifd("zstd-20", 2, "zstd", params={"multifd-zstd-level": 20}, content_mib=8, guest="stopped"),
    multifd("zlib-9", 2, "zlib", params={"multifd-zlib-level": 9}, content_mib=16, guest="stopped"),
    multifd("uuid", 4, args=("-uuid", UUID), in_params={"uuid": UUID}),
    # The destination refuses a channel of another guest; the source gives up.
    multifd("uuid-wrong", 2, args=("-uuid", UUID), in_params={"uuid": OTHER_UUID}, caps=RP, fails=r"(?i)uuid"),
    multifd("too-few", 2, caps=RP, in_params={"multifd-channels": 4, "connect-deadline": 2},
            fails=r"2 of 4 multifd channels", quick=True),
    multifd("too-many", 4, caps=RP, in_params={"multifd-channels": 2}, fails=r"multifd-channels"),
    # Without a name to expect the source goes away again: "No hostname for certificate validation".
    multifd("x509-unix-no-name", 2, caps=RP, args=X509, params={**TLS_OUT, **BY_NAME}, in_params=X509_IN, before=certs,
            transport=refused_first_unix, wrong={"tls-hostname": ""}, refused="closed after 0 bytes"),
    # zlib and zstd differ in the packets' flags.
    multifd("other-compression", 2, "zlib", caps=RP, in_params={"multifd-compression": "zstd"}, fails=r"(?i)compression"),
]
# How zero pages travel, and when channels wait, depends on settings and machine types of newer sources
# (doc/wire/multifd.md 13).
CASES += [
    multifd(f"zero-{detection}-{method}", 4, method, params={**ROUNDS, "zero-page-detection": detection}, since=(9, 0),
            **REWRITTEN)
    for detection in ("none", "legacy", "multifd") for method in ("none", "zstd")]
CASES += [
    multifd(f"machine-{machine}-{method}", 4, method, machine=f"pc-i440fx-{machine}", since=since, params=ROUNDS,
            caps=RP if method == "none" else (), quick=(machine, method) == ("7.2", "none"), **REWRITTEN)
    for machine, since in (("7.2", (8, 0)), ("8.0", (8, 1)), ("8.2", (9, 0)), ("9.2", (10, 0)))
    for method in ("none", "zlib")]
CASES += [permuted(order, number, order in ((3, 2, 1, 0), (1, 2, 0, 3)))
          for number, order in enumerate(itertools.permutations(range(4)))]
CASES += [permuted(order, 3 - number) for number, order in enumerate(((1, 0), (2, 1, 0), (1, 2, 0)))]
CASES += [shuffled(seed) for seed in range(1, 7)]
