"""A source that stands still is "lost" only if our end has read everything; it would stand still too if we did not
read"""

import sys
import time
import types
import unittest

import bed as beds
import losses
import netem
import tcp
from qemu import Failed, wait_until
from test_kit import LinkTest

SECONDS = 60
CASE = types.SimpleNamespace(channels=2, seconds=SECONDS)

# A source with its connections: it sends a few bytes or a million on one of them, or forever as many as it takes.
SOURCE = """
import socket, sys, time
kept = [socket.create_connection((sys.argv[1], int(sys.argv[2]))) for _ in sys.argv[3:]]
for s, what in zip(kept, sys.argv[3:]):
    s.sendall(bytes({"few": 7, "million": 10**6}.get(what, 0)))
print("there", flush=True)
try:
    while "full" in sys.argv[3:]:
        kept[0].sendall(bytes(65536))
    time.sleep(1000)
except ConnectionResetError:
    pass    # its other end has been ended
"""
# And the other end: it reads from each, or from none.
DESTINATION = """
import selectors, socket, sys
server = socket.create_server((sys.argv[1], int(sys.argv[2])))
print("there", flush=True)
watched, kept = selectors.DefaultSelector(), []
watched.register(server, selectors.EVENT_READ)
while True:
    for key, _ in watched.select():
        if key.fileobj is server:
            kept.append(server.accept()[0])
            if sys.argv[3] == "reads":
                watched.register(kept[-1], selectors.EVENT_READ)
        else:
            key.fileobj.recv(1 << 20)
"""


class Still(LinkTest):
    def judged(self, reads, *connections):
        """A run with QEMU 7.2 in which nothing has moved for a long time. Return: the run; raises what it raises."""
        with self.link() as link:
            run = losses.Run(CASE, types.SimpleNamespace(version=(7, 2, 22), kvm=True), "", types.SimpleNamespace(link=link))
            self.end(run, "destination", DESTINATION, "reads" if reads else "does not")
            self.end(run, "source", SOURCE, *connections)
            run.source.info = lambda: {"status": "postcopy-active", "ram": {"transferred": 1}}
            run.destination.said = lambda _: 1
            run.destination.errors = lambda: "its last words"
            self.assertFalse(run.is_lost())     # still, but not yet for long
            if "full" in connections:
                self.wait_full(run)
            elif reads or "few" in connections:
                self.wait_for(run, 0 if reads else 7)
            run.sent_since = time.monotonic() - losses.STILL_SECONDS - 1
            return run.is_lost()

    def end(self, run, where, script, *words):
        child = run.link.popen(where, [sys.executable, "-c", script, netem.Link.destination, str(beds.PORT), *words],
                               stdout=-1, text=True)
        self.addCleanup(child.stdout.close)
        setattr(run, where, types.SimpleNamespace(process=types.SimpleNamespace(child=child, errors=lambda: "")))
        self.assertEqual(child.stdout.readline(), "there\n")

    @staticmethod
    def waiting(run):
        """At the source, and at the destination."""
        def all_of(end):
            return [c for c in tcp.connections(end.process.child.pid) if c.state == tcp.ESTABLISHED]
        return sum(c.unsent for c in all_of(run.source)), sum(c.unread for c in all_of(run.destination))

    def wait_for(self, run, unread):
        wait_until("all to arrive", lambda: self.waiting(run) == (0, unread), SECONDS)

    def wait_full(self, run):
        """Windows grow for a while."""
        def is_full():
            before = self.waiting(run)
            time.sleep(1)
            return all(before) and self.waiting(run) == before
        wait_until("all to be full", is_full, SECONDS)

    def test_a_source_that_sends_nothing_is_lost(self):
        self.assertTrue(self.judged(True, "silent"))

    def test_so_is_one_of_which_all_has_been_read(self):
        self.assertTrue(self.judged(True, "million"))

    def test_where_our_end_does_not_read_it_is_a_failure(self):
        with self.assertRaisesRegex(Failed, r"stands still, and the source has [1-9]\d* bytes that have not arrived and .*last words"):
            self.judged(False, "full")

    def test_where_our_end_has_not_read_the_last_bytes_it_is_a_failure(self):
        with self.assertRaisesRegex(Failed, "the destination has 0 bytes that have not arrived and 7 that it has not read"):
            self.judged(False, "few")

    def test_with_more_than_its_main_connection_it_is_a_failure(self):
        with self.assertRaisesRegex(Failed, "stands still with 3 connections"):
            self.judged(True, "silent", "silent", "silent")

    def test_with_none_it_is_a_failure(self):
        with self.assertRaisesRegex(Failed, "stands still with 0 connections"):
            self.judged(True)


if __name__ == "__main__":
    unittest.main()
