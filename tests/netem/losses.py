"""losses.py - one run: a QEMU sends its guest over a network that fails, and the run ends in one of a few good ways

At the end one of these holds:
(1) It has landed, and every byte equals the stopped source's. It may have paused, and the source was told to come back.
(2) The guest has not run at the destination, the destination has ended with its reason, and the source's guest runs on,
    or runs when told to (`cont`).
(3) "source stuck", counted separately: the source's guest is whole and stopped, and QEMU refuses `cont`. See
    SOURCE_STUCK_UNTIL.
(4) "source lost", counted separately: the guest waits at the destination for pages, and the source cannot come back.
    See SOURCE_LOST_UNTIL.
Anything else is Failed: a wrong byte, two guests, none, or an end that does not come. The time it takes does not
matter.
"""

import os
import re
import signal
import time

import bed as beds
import tcp
from bed import PATIENT_SECONDS
from qemu import Failed, Guest, QmpError, compare, keeps_changes, wait_until

MEMORY_MIB = 48
HUNG_SECONDS = 15           # one side may fail to notice for this long what the other has noticed; then it is told
TOLD_SECONDS = 40           # a source that has not failed after this long is told to give up
SET_UP_SECONDS = 60         # then the loss ends as well
MISREAD = re.compile(r"a second main|begins with 0x11223344|all are there: is multifd|a recovery, and nothing")
AGAIN = "source to begin again"
OUTCOMES = ("completed", "recovered", "failed cleanly", "source stuck", "source lost")
# Source stuck: happens only in postcopy from QEMU 7.2 to 10.1. They wait for no answer at the switch. As soon as they
# have written the package (when the kernel has taken it), they are in postcopy-active, and try to recover from any loss
# (doc/wire/stream.md 2, 5.8). If none of it has arrived, the destination has no LISTEN, and nothing to recover. It must
# end, because it cannot distinguish this from a loss in precopy. The source stays postcopy-paused, or cancelling after
# migrate_cancel, and refuses `cont`; no destination can prevent that. From 10.2 on a source waits for PONG 0x42, and
# runs its guest again. If LISTEN has arrived here, the destination must wait for the source, and "stuck" is a failure.
SOURCE_STUCK_UNTIL = (10, 2)
# Source lost: happens with QEMU 7.2, in three ways. (a) It loses the connection while it comes back, before it has the
# last bitmap. It stays in postcopy-recover without a connection, refuses migrate-pause and another resume, and a yank
# changes nothing. With QEMU 7.2 as the destination the source does the same, and that destination dies of SIGSEGV as
# soon as its kernel reports the loss. It sets no deadlines, so a black-out of 30 s alone does not harm it. Nor does it
# harm ours, whose deadlines are longer by default; those of SOON make it notice. (b) With multifd: once those channels
# are lost, every recovery ends with its first SYNC ("multifd_send_sync_main: channel 0 has already quit") before it has
# sent a page. Or it stands still at that SYNC, in postcopy-active, with only its main connection; neither end can
# notice anything. It would stand still in the same way if the destination did not read, so check_all_is_read makes sure
# that it does. (c) An assertion in its yank.c ends it, when a connection of a failed attempt is set up late.
SOURCE_LOST_UNTIL = (8, 0)
# A pause can also happen without a lost packet: after a requested page has ended a section, 7.2 with a preempt channel
# may go on in that page's block although its main channel named another one last (doc/wire/stream.md 13 item 14). Such
# a page has no place in the small block for which it comes, so we refuse it, which is a pause; the source comes back
# and names all blocks again. # Source deaf: it is active without a main connection, and its guest runs. That is a good
# end, once somebody has ended the destination, which waits for a source. 10.0 with a preempt channel waits for a first
# PONG before the switch, and waits forever if it loses main meanwhile (after migrate_cancel it stays cancelling). With
# multifd a source does not look at main, and writes to the multifd channels, which nobody reads before there is a main
# channel.
DEAF = "destination to end, for the source waits without a main connection"
LOST_TELLINGS = 2           # (a) is certain when the source has been told this often
LOST_RECOVERIES = 3         # (b), after this many of them
STILL_SECONDS = 60          # (b), when it has sent nothing for this long
ASSERTS = "yank_register_function: Assertion"
QUIT = re.compile(r"multifd_send_sync_main: channel \d+ has already quit")
STUCK = ("postcopy-paused", "cancelling")
PSK_ARGS = "tls-creds-psk,id=tls0,endpoint=client,dir={}/client"
X509_ARGS = "tls-creds-x509,id=tls0,endpoint=client,dir={}/client"


class Run:
    def __init__(self, case, options, folder, bed):
        self.case, self.options, self.folder, self.bed, self.link = case, options, folder, bed, bed.link
        self.end = time.monotonic() + case.seconds
        # If the source would lose its guest's changes, the guest stands still.
        self.stands = not keeps_changes(options.version, options.kvm)
        self.told = []              # what we had to tell a side because it did not notice
        self.source = self.destination = None
        self.coming_back = None     # the number of events when the source was told to, until it is on its way
        self.reordered = self.overtaken = False
        self.connections = 0
        self.dark_until = self.sent_since = 0
        self.deaf_since = None
        self.sent = None

    # ---- the ends ------------------------------------------------------------------------------------------------

    def execute(self):
        """outcome, remark"""
        try:
            self.start()
            self.case.script(self)
            self.order()
            return self.settle()
        except Failed:
            if self.has_asserted():
                return "source lost", self.remark("it ended by its own assertion")
            raise
        finally:
            for end in (self.source, self.destination):
                if end:
                    end.close()

    def has_asserted(self):
        """Its monitor is closed a moment before it has ended."""
        if self.options.version >= SOURCE_LOST_UNTIL or not (self.source and self.source.process) or \
                ASSERTS not in self.source.process.errors():
            return False
        return self.source.process.wait(PATIENT_SECONDS) != 0

    def start(self):
        case, certs = self.case, os.path.join(self.options.shared, "certs")
        kernel = Guest(self.options.shared).with_orders(os.path.join(self.folder, "guest.elf"), case.load.dirty(), 1, 0)
        content = case.load.content(self.options.shared)
        args = ["-object", (PSK_ARGS if case.tls == "psk" else X509_ARGS).format(certs)] if case.tls else []
        self.source = beds.Source(self.folder, self.options.binary, self.bed, machine="pc", memory_mib=MEMORY_MIB,
                                  accel="kvm" if self.options.kvm else "tcg", args=args, kernel=kernel, content=content)
        self.source.start()
        self.source.wait_guest(1, PATIENT_SECONDS)
        self.source.be_humble()
        if self.stands:
            self.source.qmp.command("stop")
        self.destination = beds.Destination(self.folder, self.options.inmigrate, self.bed, "touch=2", case.postcopy,
                                            case.seconds)
        params = dict(beds.SOON) if case.soon else {}
        if case.channels:
            params["multifd-channels"] = case.channels
        if case.tls:
            params["tls-creds-type"] = case.tls
        caps = [c for c in case.caps() if c not in ("pause-before-switchover", "events")]
        self.destination.start(caps, params, os.path.join(certs, "server") if case.tls else None)
        self.source.set(case.caps(), {"max-bandwidth": case.rate, "downtime-limit": 20 if case.postcopy else case.load.downtime_ms,
                                      **({"max-postcopy-bandwidth": case.rate} if case.postcopy else {}),
                                      **({"multifd-channels": case.channels} if case.channels else {}),
                                      **({"tls-creds": "tls0"} if case.tls else {})})

    def order(self):
        tap = self.bed.tap
        tap.disarm()
        self.reordered, self.overtaken = tap.out_of_order(), tap.main_overtaken()
        self.connections = len(tap.accepted)
        if not self.case.tls:
            wrong = tap.misread(self.destination.channels())
            if wrong:
                raise Failed(wrong)

    # ---- steps of a script ---------------------------------------------------------------------------------------

    def migrate(self, resume=False):
        if resume:
            self.source.qmp.command("migrate", uri=beds.ADDRESS, resume=True)
        else:
            self.source.migrate(beds.ADDRESS)

    def status(self):
        return self.source.info().get("status", "none")

    def over(self):
        return self.destination.process.exited() is not None or \
            self.status() in ("completed", "failed", "cancelled", "postcopy-paused")

    def until(self, what, condition):
        """Wait until condition() is true, or the run has ended. Return: whether it is true."""
        try:
            wait_until(what, lambda: condition() or self.over() or self.is_deaf(), max(self.end - time.monotonic(), 0),
                       every=0.02)
        except Failed as e:
            raise Failed(f"{e}; {self.how_it_is()}") from None
        return bool(condition())

    def how_it_is(self):
        return f"the source is {self.status()}, told: {self.told}, the destination says {self.destination.errors()[-600:]}"

    def darken(self, seconds):
        self.link.blackout(f"{seconds}s")
        self.dark_until = time.monotonic() + seconds

    def is_light(self):
        return time.monotonic() > self.dark_until

    def connections_wanted(self):
        # At this point a preempt channel comes only with the machine types of 7.2 (doc/wire/stream.md 6).
        return 1 + self.case.channels + (self.case.postcopy and self.case.preempt and self.options.version < (8, 0))

    def wait_set_up(self):
        tap, channels = self.bed.tap, self.case.channels
        silent = self.connections_wanted() - 1 - channels
        try:
            wait_until("set-up", lambda: (len(tap.accepted) >= self.connections_wanted() and
                                          len(tap.spoken) >= self.connections_wanted() - silent) or self.over(), SET_UP_SECONDS)
        except Failed:
            pass   # then the loss ends here

    def begin_postcopy(self):
        """Repeat it until the source accepts it."""
        return self.until("postcopy to be accepted", self.source.start_postcopy)

    def go_on(self):
        """The source waits for this at the switch."""
        if not self.until("the switch", lambda: self.status() == "pre-switchover"):
            return
        self.source.qmp.command("migrate-continue", state="pre-switchover")

    def carry_on(self):
        """Up to the switch and past it, whatever the network does."""
        if self.case.postcopy and not self.begin_postcopy():
            return
        self.go_on()
        if self.case.postcopy:
            self.until("the guest to run here", self.switched)

    def switched(self):
        return self.destination.said("the guest runs here") > 0

    def listened(self):
        """LISTEN has arrived: from now on a loss is a pause."""
        return self.destination.said("pages are still to come") > 0

    # ---- to the end ----------------------------------------------------------------------------------------------

    def settle(self):
        calm = None      # since when only one side knows of a loss
        while time.monotonic() < self.end:
            status, exited = self.status(), self.destination.process.exited()
            if exited == 0:
                return self.landed()
            if exited is not None:
                return self.failed_cleanly(exited)
            if status == "completed":
                self.destination.wait_landed(PATIENT_SECONDS)
                return self.landed()
            if status == "pre-switchover":
                self.source.qmp.command("migrate-continue", state="pre-switchover")
            here = self.destination.said("postcopy is paused with") > self.destination.said("postcopy goes on:")
            there = status == "postcopy-paused"
            lost_there = there or status in ("failed", "cancelled")
            if self.is_lost():
                return self.lost()
            if self.is_deaf() and DEAF not in self.told:
                self.told.append(DEAF)
                self.destination.process.child.send_signal(signal.SIGTERM)
            if here and there:
                calm = None
                self.come_back()
            elif here == lost_there:
                calm = None
            else:
                calm = calm or time.monotonic()
                if time.monotonic() > calm + HUNG_SECONDS:
                    calm = None
                    self.tell(here)
            time.sleep(0.05)
        raise Failed(f"no end after {self.case.seconds} s; {self.how_it_is()}")

    def is_lost(self):
        if self.options.version >= SOURCE_LOST_UNTIL:
            return False
        if self.case.channels and self.is_still():
            self.check_all_is_read()
            return True
        yanked = [t for t in self.told if t.startswith("source by yank")]
        return self.status() == "postcopy-recover" and len(yanked) >= LOST_TELLINGS and not self.connects() or \
            len(QUIT.findall(self.source.process.errors())) >= LOST_RECOVERIES

    def is_deaf(self):
        """A source that has lost its main connection, and does not know it."""
        if self.status() != "active" or not self.bed.tap.opened or self.has_main():
            self.deaf_since = None
            return False
        self.deaf_since = self.deaf_since or time.monotonic()
        return time.monotonic() > self.deaf_since + HUNG_SECONDS

    def has_main(self):
        """After a later attempt we cannot know which connection it is."""
        live = self.live_ports()
        return bool(live) if AGAIN in self.told else self.bed.tap.opened[0].port in live

    def is_still(self):
        """The source has come back, and has sent nothing for a long time."""
        sent = (self.status(), self.source.info().get("ram", {}).get("transferred"), self.destination.said("goes on:"))
        if sent != self.sent:
            self.sent, self.sent_since = sent, time.monotonic()
        return sent[0] == "postcopy-active" and sent[2] > 0 and time.monotonic() > self.sent_since + STILL_SECONDS

    def check_all_is_read(self):
        """A source that stands still is lost by its own fault if it has only its main connection, and nothing is under
        way there: then our end has read everything, and waits."""
        live = self.live_ports()
        if len(live) != 1:
            raise Failed(f"the source stands still with {len(live)} connections; {self.how_it_is()}")
        main, = live
        ends = {"source": [c for c in tcp.connections(self.source.process.child.pid) if c.here == main],
                "destination": [c for c in tcp.connections(self.destination.process.child.pid) if c.there == main]}
        for name, found in ends.items():
            if len(found) != 1 or found[0].state != tcp.ESTABLISHED:
                raise Failed(f"the source stands still, and the {name} has of its connection {found}; {self.how_it_is()}")
            if found[0].unsent or found[0].unread:
                raise Failed(f"the source stands still, and the {name} has {found[0].unsent} bytes that have not arrived and "
                             f"{found[0].unread} that it has not read; {self.how_it_is()}")

    def lost(self):
        """Our end has done nothing wrong: its guest waits."""
        if self.would_run():
            raise Failed(f"postcopy is paused, and the source's guest is {self.run_state()}")
        return "source lost", self.remark(self.status(), f"{self.destination.said('postcopy goes on:')} recoveries")

    def come_back(self):
        """Once for each pause: QEMU 7.2 fails an assertion when it is told again while it still connects."""
        if self.coming_back is not None and not self.has_come_back() and (self.connects() or time.sleep(1) or self.connects()):
            return
        try:
            self.migrate(resume=True)
        except QmpError:
            return   # it is still busy with the loss
        self.coming_back = len(self.source.qmp.events)

    def connects(self):
        """The source has a connection, or tries to."""
        return bool(self.live_ports())

    def live_ports(self):
        return {c.here for c in tcp.connections(self.source.process.child.pid)
                if c.there == beds.PORT and c.state in (tcp.ESTABLISHED, tcp.SYN_SENT)}

    def has_come_back(self):
        """Whether it has paused since it was told. It may have paused again before anybody looked, so we look at the
        events."""
        return any(e["event"] == "MIGRATION" and e["data"]["status"] == "postcopy-recover"
                   for e in self.source.qmp.events[self.coming_back:])

    def tell(self, paused_here):
        """The other side has not noticed the loss."""
        if paused_here:
            try:
                self.source.qmp.command("migrate-pause")
                self.told.append("source")
            except QmpError as e:
                if self.status() == "postcopy-paused":
                    return   # it has noticed meanwhile
                # 7.2 knows no pause while it comes back.
                self.source.qmp.command("yank", instances=[{"type": "migration"}])
                self.told.append(f"source by yank ({e})")
        elif self.unheard():
            self.again()
        elif self.listened():
            self.told.append("destination")
            self.destination.process.child.send_signal(signal.SIGUSR1)

    def unheard(self):
        """The destination has no source: main's first byte has not come, or main began and did not go on."""
        return self.destination.said("main channel: ") == self.destination.said("the next source is welcome")

    def again(self):
        """Nothing has begun there, so it can begin again; or the source is stuck."""
        if self.status() not in ("failed", "cancelled"):
            self.destination.process.child.send_signal(signal.SIGTERM)
            return
        self.told.append(AGAIN)
        try:
            wait_until("the source's old connections to end", lambda: not self.connects(), HUNG_SECONDS)
        except Failed:
            pass    # then they stay
        try:
            if not self.stands and not self.source.running():
                self.source.qmp.command("cont")
            self.migrate()
        except QmpError as e:
            self.told.append(str(e))
            self.destination.process.child.send_signal(signal.SIGTERM)
            return
        self.carry_on()

    def run_state(self):
        return self.source.qmp.command("query-status")["status"]

    def would_run(self):
        """Only the source has the guest: it runs, or is stopped if it was stopped before (paused). A guest that has
        moved is in finish-migrate or postmigrate, even if it was stopped all the time."""
        return self.run_state() in ("running", "paused")

    def remark(self, *more):
        words = list(more)
        if self.told:
            words.append("told: " + " ".join(self.told))
        if self.reordered:
            words.append("accepted out of order")
        if self.overtaken:
            words.append("main overtaken")
        return "; ".join(w for w in words if w)

    def landed(self):
        more = "" if self.switched() or not self.case.postcopy else "it came whole"
        # A guest that comes as a whole is written before the touchers run.
        self.destination.undone = not self.switched()
        try:
            self.source.wait_status("completed", "postcopy-paused", seconds=HUNG_SECONDS)
        except Failed as e:
            if not self.switched() or self.would_run():
                raise Failed(f"landed, and the source: {e}; its guest is {self.run_state()}") from None
            more = f"the source does not know ({self.status()})"
        if self.status() == "postcopy-paused":
            more = "the source does not know (postcopy-paused)"
        if self.would_run():
            raise Failed(f"landed, and the source's guest is {self.run_state()}")
        if not compare(self.source, self.destination).equal:
            raise Failed("no RAM block could be compared")
        stats = self.destination.stats()
        if stats["status"] != "completed":
            raise Failed(f"stats: status is {stats['status']!r}")
        touch = stats.get("touch")
        if touch and self.switched() and touch["intact"] != touch["stamps"]:
            raise Failed(f"of {touch['stamps']} stamps {touch['intact']} are intact")
        recoveries = stats.get("recovery", {}).get("recoveries", 0)
        outcome = "recovered" if recoveries else "completed"
        return outcome, self.remark(f"{recoveries} recoveries" if recoveries else "", more)

    def failed_cleanly(self, exited):
        why = self.destination.errors().strip().splitlines()[-1][-160:]
        if exited != 1:
            raise Failed(f"the destination ended with {exited}: {why}")
        if self.switched():
            raise Failed(f"the guest ran here, and the destination ended: {why}")
        # The multifd channels of an attempt that began without a main channel belong to nobody, and may still be there.
        if MISREAD.search(self.destination.errors()) and AGAIN not in self.told:
            raise Failed(f"a channel was taken for another: {why}")
        more = self.source_gives_up()
        if not self.source.running():
            try:
                self.source.qmp.command("cont")
            except QmpError as e:
                if self.status() in STUCK and self.options.version < SOURCE_STUCK_UNTIL and not self.listened():
                    return "source stuck", self.remark(f"{self.status()}, {more}; {e}", why)
                raise
            more = (more + ", " if more else "") + "cont"
        wait_until("the source's guest to run", self.source.running, PATIENT_SECONDS)
        before = self.source.heartbeats()
        wait_until("the source's guest to go on", lambda: self.source.heartbeats() > before, PATIENT_SECONDS)
        return "failed cleanly", self.remark(f"source {self.status()}", more, why)

    def source_gives_up(self):
        """By itself, or because it is told to, as an operator would do."""
        def given_up():
            return self.status() in ("failed", "cancelled")
        try:
            wait_until("", lambda: given_up() or self.status() in ("completed", "postcopy-paused"), TOLD_SECONDS)
        except Failed:
            pass
        if given_up():
            return ""
        if self.status() == "completed":
            raise Failed(f"the source has completed, and the destination failed: {self.destination.errors()[-300:]}")
        # Up to 10.1 it tries to recover from a loss after the package (doc/wire/stream.md 5.8).
        words = f"was {self.status()}, told to cancel"
        try:
            self.source.qmp.command("migrate_cancel")
        except QmpError as e:
            return f"{words}: {e}"   # 10.0
        wait_until("the source to give up", lambda: given_up() or self.status() in STUCK, PATIENT_SECONDS)
        return words
