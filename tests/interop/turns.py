"""turns.py - a guest that changes its memory while it is sent, on a source that would lose some of the changes

Under tcg QEMU 7.2 loses a page that its guest writes to while it looks for changed pages (qemu.keeps_changes): it
neither sends nor marks the page. Between two such looks it loses nothing. So we hold the guest here, and let it go for
a moment in each round. Meanwhile the source crawls, so that the round does not end. Changed pages go again in the next
round, as deltas, late or in postcopy, like those of a guest that runs all the time.

Invariants:
(1) The guest never runs while the source looks: dirty-sync-count is the same before and after a turn, and QEMU reads
    both in its main loop, with the lock that a look holds. If it differs, the turn is Missed and the case starts again.
(2) A turn changes the case's whole range.
"""

from qemu import HEARTBEAT_PAGES, MIB, Failed, PAGE_BYTES, PATIENT_SECONDS, QmpError, wait_until

CRAWL = 40 << 10             # bytes a second: a page in each of the source's tenths of a second
SLOW = 16 * MIB


class Missed(Exception):
    """The source was faster than the turn."""


class Turns:
    """The turns of one source, for one case. Call begin() instead of migrate, then next() as often as there are
    rounds."""

    def __init__(self, source, case):
        self.source = source
        self.heartbeats = 1 + (case.dirty[1] - case.dirty[0]) // PAGE_BYTES // HEARTBEAT_PAGES
        self.fast = case.params.get("max-bandwidth", 0)
        # A round with everything that a turn changes takes a second, so that there is time for the next turn.
        slow = max(SLOW, case.dirty[1] - case.dirty[0])
        self.slow = min(self.fast or slow, slow)
        self.slowed = False
        self.rounds = 0
        self.count = 0

    def begin(self, uri, enough=0.3):
        """Migrate: the first turn comes when so many seconds' worth of RAM has been sent, so that some of it is sent
        again."""
        self.source.qmp.command("stop")
        self._bandwidth(self.slow)
        self.source.migrate(uri)
        wait_until("the first pages to go", lambda: self._under_way(self.slow * enough), PATIENT_SECONDS, every=0.005)
        self._turn()
        self._bandwidth(self.fast)

    def next(self):
        """Another turn, if another round has begun. From here on rounds are slow."""
        if self._rounds() > self.rounds:
            self._turn()
        if not self.slowed:
            self._bandwidth(self.slow)
            self.slowed = True

    def _under_way(self, least):
        info = self.source.info()
        if info["status"] in self.source.ENDS:
            raise Failed(f"the migration was {info['status']} before the guest had its first turn:"
                         f" {info.get('error-desc', 'no reason given')}")
        return info["status"] == "active" and info["ram"]["dirty-sync-count"] and info["ram"]["transferred"] >= least

    def _turn(self):
        source = self.source
        self._bandwidth(CRAWL)
        self.rounds = self._rounds()
        until = source.heartbeats() + self.heartbeats
        try:
            source.qmp.command("cont")
            wait_until("the guest to have its turn", lambda: source.heartbeats() > until, PATIENT_SECONDS, every=0.002)
            source.qmp.command("stop")
        except QmpError as e:
            raise Missed(str(e)) from None
        if self._rounds() != self.rounds or source.info()["status"] != "active":
            raise Missed(f"a round began while the guest had its turn {self.count + 1}")
        self.count += 1
        self._bandwidth(self.slow)

    def _rounds(self):
        return self.source.info().get("ram", {}).get("dirty-sync-count", 0)

    def _bandwidth(self, count):
        self.source.set(params={"max-bandwidth": count})
