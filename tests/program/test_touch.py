"""Threads that touch the guest leave what they report, and notice what they must."""

import json
import struct
import time

import stream
from program import Case, run, wait_until
from stream import PAGE_BYTES, Source

RAM = {b"small": stream.content(64 * 1024, seed=2), b"pc.ram": stream.content(512 * 1024)}
PAGES = 128


class Touch(Case):
    def land(self, *args):
        listen = self.listen("tcp:127.0.0.1:0", "--cap", "return-path", "--stats", self.path("stats"), *args)
        source = Source(listen.address()).send(stream.whole(RAM, return_path=True))
        self.addCleanup(source.close)
        return listen, source

    def landed(self, *args):
        listen, source = self.land(*args)
        self.assertEqual(source.shut(), 0)
        source.close()
        self.assertEqual(listen.end(), 0, listen.err)
        return json.loads(self.read("stats"))["touch"]

    def refused(self, *args):
        done = run("listen", "tcp:127.0.0.1:0", *args)
        self.assertEqual((done.returncode, done.stdout), (2, ""), done)
        return done.stderr

    def test_settings_that_cannot_be_are_said(self):
        for text, said in {
                "touch=0": "1 to 256", "touch=257": "1 to 256", "touch=": "1 to 256", "touch=x": "1 to 256",
                "touch=1,pattern=zigzag": "seq, stride", "touch=1,pattern=stride": "seq, stride",
                "touch=1,pattern=stride:100": "whole pages", "touch=1,pattern=stride:0": "whole pages",
                "touch=1,access=execute": "read, write or mixed", "touch=1,seconds=0": "above 0",
                "touch=1,seconds=nan": "above 0", "touch=1,passes=0": "above 0", "touch=1,span=1": "at least a page",
                "touch=1,block=": "name of a RAM block", "touch=1,seed=-1": "a number", "touch=1,seed": "a number",
                "touch=1,nonsense=1": "no 'nonsense'", "touched": "none is expected"}.items():
            with self.subTest(text=text):
                self.assertIn(said, self.refused("--guest", text))
        self.assertIn("--touch-log needs", self.refused("--touch-log", "x"))

    def test_a_number_of_threads_is_enough(self):
        touch = self.landed("--guest", "touch=2")
        self.assertEqual((touch["pattern"], touch["access"], touch["block"], touch["pages"]),
                         ("random", "mixed", "pc.ram", PAGES))
        self.assertEqual([t["passes"] for t in touch["threads"]], [1, 1])
        self.assertEqual(touch["accesses"], 2 * PAGES)
        self.assertEqual(touch["violations"], 0)
        self.assertGreater(touch["stamps"], PAGES // 8)
        self.assertEqual(touch["intact"], touch["stamps"])

    def test_as_many_threads_as_there_may_be_have_a_place_each(self):
        touch = self.landed("--guest", "touch=256,pattern=seq,access=write", "--touch-log", self.path("log"))
        self.assertEqual((touch["stamps"], touch["intact"], len(touch["threads"])), (256 * PAGES, 256 * PAGES, 256))
        offsets = [json.loads(line)["offset"] for line in self.read("log").splitlines()]
        self.assertEqual(len(set(offsets)), 256 * PAGES)

    def test_each_pattern_comes_by_the_pages_it_says(self):
        for backing in "thp", "memfd":
            for pattern in "seq", "stride:16K", "stride:12K", "random", "hot":
                with self.subTest(pattern=pattern, backing=backing):
                    touch = self.landed("--guest", f"touch=3,pattern={pattern},access=write,passes=2",
                                        "--touch-log", self.path("log"), "--ram-backing", backing)
                    self.assertEqual(touch["accesses"], 3 * 2 * PAGES)
                    log = [json.loads(line) for line in self.read("log").splitlines()]
                    self.assertEqual(len(log), touch["stamps"])
                    self.assertEqual({entry["block"] for entry in log}, {"pc.ram"})
                    pages = {thread: {e["offset"] // PAGE_BYTES for e in log if e["offset"] % PAGE_BYTES == 8 * thread}
                             for thread in range(3)}
                    for found in pages.values():
                        if pattern == "seq" or pattern == "stride:16K":
                            self.assertEqual(found, set(range(PAGES)))
                        elif pattern == "hot":
                            # A sixteenth in the middle, and an eighth of all accesses elsewhere.
                            self.assertLessEqual(set(range(64, 72)), found)
                            self.assertLess(len(found), PAGES // 2 + 8)
                        else:
                            self.assertGreater(len(found), PAGES // 2)

    def test_the_log_knows_what_was_there_before(self):
        self.landed("--guest", "touch=4,access=write,pattern=seq,passes=3", "--touch-log", self.path("log"))
        found = 0
        for line in self.read("log").splitlines():
            entry = json.loads(line)
            offset, thread = entry["offset"], entry["offset"] % PAGE_BYTES // 8
            self.assertEqual(bytes.fromhex(entry["original"]), RAM[b"pc.ram"][offset:offset + 8])
            value = struct.unpack("<Q", bytes.fromhex(entry["value"]))[0]
            self.assertEqual(value >> 48, thread + 1)
            found += 1
        self.assertEqual(found, 4 * PAGES)

    def test_what_landed_is_written_before_the_guest_runs(self):
        self.landed("--guest", "touch=2,access=write", "--ram-dir", self.path("ram"))
        self.assertEqual(self.read("ram/pc.ram.raw"), RAM[b"pc.ram"])

    def test_a_span_and_a_block_are_kept_to(self):
        touch = self.landed("--guest", "touch=1,access=write,pattern=seq,span=8K,block=small", "--touch-log",
                            self.path("log"))
        self.assertEqual((touch["block"], touch["pages"], touch["accesses"]), ("small", 2, 2))
        self.assertEqual([json.loads(line)["offset"] for line in self.read("log").splitlines()], [0, PAGE_BYTES])

    def test_readers_leave_no_trace(self):
        touch = self.landed("--guest", "touch=3,access=read,passes=4", "--touch-log", self.path("log"))
        self.assertEqual((touch["writes"], touch["stamps"], touch["accesses"]), (0, 0, 3 * 4 * PAGES))
        self.assertEqual(self.read("log"), b"")

    def test_a_time_is_kept_to(self):
        touch = self.landed("--guest", "touch=2,seconds=0.5")
        self.assertGreater(touch["seconds"], 0.45)
        self.assertLess(touch["seconds"], 3)
        self.assertGreater(min(t["passes"] for t in touch["threads"]), 1)

    def test_the_seed_decides_where(self):
        logs = []
        for seed in 1, 1, 2:
            self.landed("--guest", f"touch=2,access=write,seed={seed}", "--touch-log", self.path("log"))
            logs.append(self.read("log"))
        self.assertEqual(logs[0], logs[1])
        self.assertNotEqual(logs[0], logs[2])

    def test_a_block_that_is_not_there_leaves_the_guest_to_the_source(self):
        listen, source = self.land("--guest", "touch=1,block=nonsense")
        self.assertEqual(source.shut(), 1)
        self.assertEqual(listen.end(), 1)
        self.assertIn(b"there is no RAM block nonsense", listen.err)

    # ---- what they must notice ----

    def disturb(self, offset, access):
        """Somebody else writes to a page after the touchers have seen it."""
        listen, source = self.land("--guest", f"touch=2,pattern=seq,access={access},seconds=1.5", "--ram-backing",
                                   "memfd")
        self.assertEqual(source.shut(), 0)
        with listen.memory_file(len(RAM[b"pc.ram"])) as memory:
            wait_until("a stamp in the last page", lambda: access == "read" or self.is_stamped(memory))
            time.sleep(0.2)
            memory.seek(offset)
            memory.write(b"a late page!"[:8])
        self.assertEqual(listen.end(), 3, listen.out)
        return listen.err, json.loads(self.read("stats"))

    @staticmethod
    def is_stamped(memory):
        memory.seek((PAGES - 1) * PAGE_BYTES)
        stamp = struct.unpack("<QQ", memory.read(16))
        return [value >> 48 for value in stamp] == [1, 2]

    def test_a_stamp_that_is_overwritten_is_a_failure(self):
        said, stats = self.disturb(5 * PAGE_BYTES + 8, "mixed")
        self.assertRegex(said, rb"^inmigrate: guest: block pc\.ram, offset 0x5008: what the guest had written was "
                               rb"overwritten .*\n$")
        self.assertGreater(stats["touch"]["violations"], 0)

    def test_content_that_changes_is_a_failure(self):
        for access in "read", "mixed":
            with self.subTest(access=access):
                said, stats = self.disturb(7 * PAGE_BYTES + 2048, access)
                self.assertRegex(said, rb"^inmigrate: guest: block pc\.ram, offset 0x7000: the page has changed under "
                                       rb"the guest; .*\n$")
                self.assertGreater(stats["touch"]["violations"], 0)

    def test_a_signal_ends_touchers_that_would_go_on(self):
        listen, source = self.land("--guest", "touch=2,seconds=1000")
        self.assertEqual(source.shut(), 0)
        time.sleep(0.2)
        listen.child.terminate()
        # The guest has landed anyway.
        self.assertEqual(listen.end(), 0, listen.err)
        self.assertEqual(json.loads(self.read("stats"))["status"], "completed")

    def test_touchers_that_were_never_let_go_do_not_hold_the_end_up(self):
        listen = self.listen("tcp:127.0.0.1:0", "--guest", "touch=2", "--stats", self.path("stats"))
        Source(listen.address()).send(stream.whole(RAM)[:40000]).close()
        self.assert_ends(listen, 1, rb"the source closed the stream")
        touch = json.loads(self.read("stats"))["touch"]
        self.assertEqual((touch["accesses"], touch["writes"]), (0, 0))
