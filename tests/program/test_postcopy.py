"""Postcopy as the program's user sees it: the guest runs while pages are missing, and its files are written afterwards."""

import glob
import json
import os
import re
import socket
import struct
import threading
import time

import stream
from program import Case, wait_until
from stream import PAGE_BYTES, Source, be32, be64, footer, str8

RAM = {b"pc.ram": stream.content(1 << 20), b"rom": stream.content(64 * 1024, seed=2)}
PAGES = 256
PART = 2
ADVISE, LISTEN, RUN, DISCARD, PACKAGED = 3, 4, 5, 6, 7
REQ_PAGES_ID, REQ_PAGES = 3, 4
POSTCOPY = "--cap", "postcopy-ram"


def command(number, payload=b""):
    return struct.pack(">BHH", stream.COMMAND, number, len(payload)) + payload


def ping(value):
    return command(stream.PING, be32(value))


class PostcopySource(Source):
    """Sends no RAM before the switch; after it answers requests, and pushes what it is told to."""

    def __init__(self, address, blocks=None):
        super().__init__(address)
        self.address = address
        self.blocks = blocks or RAM
        self.requests = []     # (name, offset, bytes)
        self.shut_status = None
        self.pongs = []
        self.answers = True    # requests
        self.ended = False     # nothing comes after the last byte
        self.lock = threading.Lock()
        self.reader = threading.Thread(target=self.read, daemon=True)
        self.reader.start()

    def begin(self):
        self.send(stream.begin(return_path=True) + command(ADVISE, be64(PAGE_BYTES) + be64(PAGE_BYTES)) +
                  stream.block_list(self.blocks))
        return self

    def switch(self):
        for name, content in self.blocks.items():
            self.send(command(DISCARD, b"\0" + str8(name) + b"\0" + be64(0) + be64(len(content))))
        device = (bytes([stream.FULL]) + be32(10) + str8(b"timer") + be32(0) + be32(2) + be64(0x1122334455667788) +
                  footer(10))
        package = command(LISTEN) + device + ping(3) + command(RUN)
        self.send(ping(2) + command(PACKAGED, be32(len(package))) + package + ping(4))
        return self

    def page(self, name, offset):
        content = self.blocks[name][offset:offset + PAGE_BYTES]
        zero = not any(content)
        record = be64(offset | (stream.ZERO if zero else stream.PAGE)) + str8(name) + (b"\0" if zero else content)
        with self.lock:
            if self.ended:
                return
            self.send(bytes([PART]) + be32(stream.RAM_ID) + record + be64(stream.EOS) + footer(stream.RAM_ID))

    def push(self, name):
        for offset in range(0, len(self.blocks[name]), PAGE_BYTES):
            self.page(name, offset)

    def finish(self):
        with self.lock:
            self.ended = True
            self.send(bytes([stream.END]) + be32(stream.RAM_ID) + be64(stream.EOS) + footer(stream.RAM_ID) + b"\0")
        self.reader.join(10)
        self.close()
        return self.shut_status

    def read(self):
        got, name = b"", None
        while self.shut_status is None:
            try:
                more = self.sock.recv(65536)
            except OSError:
                return
            if not more:
                return
            got += more
            while len(got) >= 4 and len(got) >= 4 + struct.unpack(">H", got[2:4])[0]:
                kind, length = struct.unpack(">HH", got[:4])
                payload, got = got[4:4 + length], got[4 + length:]
                if kind == stream.SHUT:
                    self.shut_status = struct.unpack(">I", payload)[0]
                elif kind == stream.PONG:
                    self.pongs.append(struct.unpack(">I", payload)[0])
                elif kind in (REQ_PAGES_ID, REQ_PAGES):
                    if kind == REQ_PAGES_ID:
                        name = payload[13:]
                    self.asked(name, *struct.unpack(">QI", payload[:12]))

    def asked_for(self, name):
        return {at for n, offset, length in list(self.requests) if n == name
                for at in range(offset, offset + length, PAGE_BYTES)}

    def asked(self, name, offset, length):
        self.requests.append((name, offset, length))
        for at in range(offset, offset + length, PAGE_BYTES):
            if self.answers:
                self.page(name, at)


class Postcopy(Case):
    def switch(self, *args, answers=True):
        """Both ends after the switch: the guest runs, and has no page yet."""
        listen = self.listen("tcp:127.0.0.1:0", *POSTCOPY, "--stats", self.path("stats"), *args)
        source = PostcopySource(listen.address())
        self.addCleanup(source.close)
        source.answers = answers
        source.begin().switch()
        return listen, source

    def landed(self, listen, source):
        shut = source.finish()
        self.assertEqual((listen.end(), shut), (0, 0), listen.err)
        return json.loads(self.read("stats"))

    def complete(self, source):
        for name in RAM:
            source.push(name)

    def ram(self, log=True):
        """The content of --ram-dir, without the stamps."""
        found = {name: bytearray(self.read(f"ram/{name.decode()}.raw")) for name in RAM}
        for line in self.read("log").splitlines() if log else ():
            entry = json.loads(line)
            content, offset = found[entry["block"].encode()], entry["offset"]
            self.assertEqual(content[offset:offset + 8], bytes.fromhex(entry["value"]))
            content[offset:offset + 8] = bytes.fromhex(entry["original"])
        return {name: bytes(content) for name, content in found.items()}

    # ---- pages come ----

    def test_a_page_comes_when_it_is_touched(self):
        for backing in (), ("--ram-backing", "memfd"), ("--ram-backing", "thp"):
            with self.subTest(backing=backing):
                listen, source = self.switch(
                    "--guest", "touch=2,pattern=seq,passes=1", "--touch-log", self.path("log"), "--ram-dir",
                    self.path("ram"), "--devices", self.path("devices"), *backing)
                wait_until("all pages to be asked for", lambda: len(source.asked_for(b"pc.ram")) == PAGES)
                self.complete(source)
                stats = self.landed(listen, source)
                self.assertEqual(self.ram(), RAM)
                self.assertEqual([d["name"] for d in json.loads(self.read("devices"))["devices"]], ["timer"])
                self.assertEqual(stats["touch"]["accesses"], 2 * PAGES)
                self.assertEqual(stats["touch"]["intact"], stats["touch"]["stamps"])
                self.assertGreater(stats["faults"], 0)
                self.assertEqual(stats["requests"]["sent"], len(source.requests))
                self.assertEqual(stats["requests"]["pages"], sum(r[2] for r in source.requests) // PAGE_BYTES)
                self.assertEqual(stats["fault_latency_us"]["count"],
                                 sum(b["count"] for b in stats["fault_latency_us"]["histogram"]))
                self.assertGreater(stats["touch"]["blocked_us"], 0)
                # 3 is in the package, which loads while the main channel goes on.
                self.assertEqual(sorted(source.pongs), [1, 2, 3, 4])

    def test_a_page_that_no_source_can_have_sent_yet_takes_no_channel(self):
        record = be64(stream.PAGE) + str8(b"pc.ram") + b"s" * PAGE_BYTES
        for when, host in (("before", 1), ("before", 9), ("early", 1), ("early", 9), ("late", 9)):
            for bytes_said in len(record), 8:
                with self.subTest(when=when, host=host, bytes_said=bytes_said):
                    listen = self.listen("tcp:127.0.0.1:0", *POSTCOPY, "--cap", "postcopy-preempt", "--stats",
                                         self.path("stats"), "--guest", "touch=1,pattern=seq,passes=1",
                                         "--timeout", "20")
                    address = listen.address()
                    where = (address.split(":")[1], int(address.split(":")[2]))

                    def visit():
                        with socket.create_connection(where, 10, (f"127.0.0.{host}", 0)) as stranger:
                            stranger.sendall(record[:bytes_said])
                            time.sleep(0.1)

                    if when == "before":
                        visit()
                    source = PostcopySource(address)
                    self.addCleanup(source.close)
                    source.answers = False
                    source.begin()
                    if when == "early":
                        visit()
                    with socket.create_connection(where, 10):
                        source.switch()
                        wait_until("a request", lambda: source.requests)
                        if when == "late":
                            visit()
                        self.complete(source)
                        self.landed(listen, source)

    def test_threads_that_waited_are_named_with_how_long(self):
        listen, source = self.switch("--guest", "touch=3,pattern=seq,passes=1")
        wait_until("a request", lambda: len(source.requests) > 2)
        self.complete(source)
        stats = self.landed(listen, source)
        touchers = {t["tid"] for t in stats["touch"]["threads"]}
        waited = {t["tid"]: t["us"] for t in stats["blocktime"]["threads"]}
        self.assertTrue(waited)
        self.assertLessEqual(set(waited), touchers)
        self.assertGreater(min(waited.values()), 0)
        self.assertAlmostEqual(stats["blocktime"]["total_us"], sum(waited.values()), 0)
        self.assertEqual(stats["postcopy-vcpu-blocktime"], [int(us // 1000) for us in waited.values()])
        self.assertGreaterEqual(stats["postcopy-blocktime"], 0)

    def test_the_report_draws_how_long_pages_took(self):
        listen, source = self.switch("--guest", "touch=1,pattern=seq,passes=1")
        wait_until("a request", lambda: source.requests)
        self.complete(source)
        self.landed(listen, source)
        self.assertRegex(listen.out, rb"  postcopy: .* pages")
        self.assertRegex(listen.out, rb"  from fault to page: mean ")
        self.assertRegex(listen.out, rb"  threads that waited: 1, ")
        self.assertRegex(listen.out, rb"(?m)^    from +[\d.]+ (us|ms) #+ +\d+$")
        self.assertRegex(listen.out, rb"guest: 1 threads \(seq, mixed\), 256 accesses")

    def test_without_faults_nothing_is_drawn(self):
        listen, source = self.switch("--ram-dir", self.path("ram"))
        self.complete(source)
        stats = self.landed(listen, source)
        self.assertEqual(self.ram(log=False), RAM)
        self.assertEqual((stats["faults"], stats["requests"]["sent"]), (0, 0))
        self.assertEqual(stats["pages"]["postcopy"], PAGES + 16)
        self.assertNotIn("touch", stats)
        self.assertRegex(listen.out, rb"  postcopy: ")
        self.assertNotIn(b"#", listen.out)

    def test_progress_tells_what_is_missing(self):
        listen, source = self.switch("--guest", "touch=1,pattern=seq,passes=1", "--progress", "always", answers=False)
        time.sleep(1.5)
        self.complete(source)
        self.landed(listen, source)
        self.assertRegex(listen.err, rb"(?m)^postcopy-active: .* of RAM missing, \d+ faults, 1 of them waiting$")

    # ---- a page that never comes ----

    def all_but_the_page_that_is_waited_for(self, *args):
        listen, source = self.switch("--guest", "touch=1,pattern=seq,access=read,passes=1", "--ram-dir",
                                     self.path("ram"), *args, answers=False)
        wait_until("a request", lambda: source.requests)
        name, missing, _ = source.requests[0]
        for offset in range(0, len(RAM[name]), PAGE_BYTES):
            if offset != missing:
                source.page(name, offset)
        source.push(b"rom")
        return listen, source, missing

    def test_a_page_that_is_waited_for_and_never_comes_is_lost(self):
        for args in (), ("--unplugged", "rom"):
            listen, source, _ = self.all_but_the_page_that_is_waited_for("--timeout", "3", *args)
            source.finish()
            self.assertEqual(source.shut_status, None)
            self.assertEqual(listen.end(), 1)
            self.assertRegex(listen.err, rb"(?m)^inmigrate: postcopy is paused, .*pc\.ram")

    def test_a_page_that_may_be_unplugged_at_the_source_and_never_comes_is_zeros(self):
        listen, source, missing = self.all_but_the_page_that_is_waited_for("--unplugged", "pc.ram")
        self.landed(listen, source)
        wanted = bytearray(RAM[b"pc.ram"])
        wanted[missing:missing + PAGE_BYTES] = bytes(PAGE_BYTES)
        self.assertEqual(self.ram(log=False), {**RAM, b"pc.ram": bytes(wanted)})

    # ---- what the guest wrote stays ----

    def test_a_page_that_comes_again_overwrites_nothing(self):
        listen, source = self.switch("--guest", "touch=2,pattern=seq,access=write,passes=1", "--touch-log",
                                     self.path("log"), "--ram-dir", self.path("ram"))
        self.complete(source)
        self.complete(source)
        stats = self.landed(listen, source)
        self.assertGreaterEqual(stats["pages"]["duplicate"], PAGES)
        self.assertEqual((stats["touch"]["stamps"], stats["touch"]["intact"]), (2 * PAGES, 2 * PAGES))
        self.assertEqual(self.ram(), RAM)

    def test_a_stamp_lost_after_the_last_touch_is_found_at_the_end(self):
        listen, source = self.switch("--guest", "touch=1,pattern=seq,access=write,passes=1", "--ram-dir",
                                     self.path("ram"))
        source.push(b"pc.ram")
        with listen.memory_file(len(RAM[b"pc.ram"])) as memory:
            def is_stamped():
                memory.seek((PAGES - 1) * PAGE_BYTES)
                return struct.unpack("<Q", memory.read(8))[0] >> 48 == 1
            wait_until("the last stamp", is_stamped)
            memory.seek(9 * PAGE_BYTES)
            memory.write(RAM[b"pc.ram"][9 * PAGE_BYTES:10 * PAGE_BYTES])
        source.push(b"rom")
        self.assertEqual(source.finish(), 0)
        self.assertEqual(listen.end(), 3)
        self.assertRegex(listen.err, rb"^inmigrate: guest: block pc\.ram, offset 0x9000: what the guest had written was "
                                     rb"overwritten .*; 1 such places were found\n$")
        stats = json.loads(self.read("stats"))
        self.assertEqual(stats["touch"]["violations"], 1)
        self.assertTrue(os.path.exists(self.path("ram/pc.ram.raw")))

    # ---- it ends in another way ----

    def blocked(self, *args):
        """A toucher waits for a page that never comes."""
        listen, source = self.switch("--guest", "touch=2,pattern=seq", *args, answers=False)
        wait_until("a request", lambda: source.requests)
        return listen, source

    def test_a_signal_ends_it_with_touchers_that_wait(self):
        for _ in range(5):
            listen, source = self.blocked("--ram-dir", self.path("ram"))
            listen.child.terminate()
            self.assert_ends(listen, 1, b"cancelled$")
            stats = json.loads(self.read("stats"))
            self.assertEqual((stats["status"], stats["touch"]["violations"]), ("cancelled", 0))
            self.assertFalse(glob.glob(self.path("ram/*")))
            source.close()

    def test_a_signal_after_the_last_page_does_not_cost_the_guest(self):
        listen, source = self.switch(answers=False)
        self.complete(source)
        source.send(ping(9))
        wait_until("the pages to be read", lambda: 9 in source.pongs)
        listen.child.terminate()
        self.assertEqual((listen.end(), json.loads(self.read("stats"))["status"]), (0, "completed"))
        self.assertEqual(listen.err, b"inmigrate: warning: cancelled after the last page: the guest is whole, and "
                                     b"stays\n")

    def test_a_timeout_ends_it_with_touchers_that_wait(self):
        listen, source = self.blocked("--timeout", "1")
        self.assert_ends(listen, 1, rb"timed out after 1 s in state 'postcopy-active'$")
        source.close()

    def test_faults_inside_the_kernel_must_be_served_only_where_the_user_says_so(self):
        listen = ("listen", "tcp:127.0.0.1:0", *POSTCOPY, "--timeout", "0.2")
        done = self.run_as_nobody(*listen)
        self.assertIn("listening on tcp:", done.stdout, done.stderr)
        done = self.run_as_nobody(*listen, "--param", "postcopy-kernel-faults=on")
        self.assertEqual((done.returncode, done.stdout), (1, ""))
        self.assertRegex(done.stderr, r"^inmigrate: capability 'postcopy-ram': faults inside the kernel \(KVM, vhost\) "
                                      r"cannot be served: .*CAP_SYS_PTRACE, or sysctl vm.unprivileged_userfaultfd=1")

    def test_a_network_that_fails_is_a_pause_that_is_said(self):
        listen, source = self.blocked("--timeout", "2")
        source.sock.shutdown(2)
        source.close()
        self.assertEqual(listen.end(), 1)
        self.assertRegex(listen.err, rb"(?m)^inmigrate: postcopy is paused, the guest waits for pages that are "
                                     rb"missing: \S.*\n"
                                     rb"inmigrate: timed out after 2 s in state 'postcopy-paused'\n$")
        self.assertEqual(json.loads(self.read("stats"))["status"], "cancelled")

    def test_a_source_that_comes_and_goes_is_not_said_each_time(self):
        for verbose in ((), ("-v",)):
            with self.subTest(verbose=verbose):
                listen, source = self.blocked("--timeout", "60", *verbose)
                host, port = source.address.split(":")[1:]
                source.sock.shutdown(2)
                source.close()
                for _ in range(300):
                    with socket.create_connection((host, int(port)), timeout=10) as back:
                        back.sendall(command(10, str8(b"pc.ram")) + command(9))
                        got = b""
                        while b"\0\6\0\4" not in got:
                            piece = back.recv(4096)
                            self.assertTrue(piece)
                            got += piece
                listen.child.terminate()
                self.assertEqual(listen.end(), 1)
                self.assertRegex(listen.err, rb"(?m)^inmigrate: postcopy goes on$")
                self.assertLess(len(listen.err), 25000)
                self.assertRegex(listen.err, rb"losses: \d+ more lines like this were not logged")

    def test_recoveries_that_fail_are_not_said_each_time(self):
        listen, source = self.blocked("--timeout", "20", "-v")
        host, port = source.address.split(":")[1:]
        source.sock.shutdown(2)
        source.close()
        for _ in range(300):
            with socket.create_connection((host, int(port)), timeout=10) as stranger:
                # It begins like a recovery, and goes on with bytes that have no place in one.
                stranger.sendall(command(10, str8(b"pc.ram")) + ping(1))
                try:
                    while stranger.recv(4096):
                        pass
                except ConnectionResetError:
                    pass
        listen.child.terminate()
        self.assertEqual(listen.end(), 1)
        for words in rb"the guest waits for pages that are missing", rb"postcopy is paused with \d+ pages missing":
            found = re.findall(rb"(?m)^inmigrate: .*" + words, listen.err)
            self.assertGreater(len(found), 10, listen.err[:3000])
        self.assertLess(len(listen.err), 20000)
        # The library's, and the program's own.
        self.assertEqual(listen.err.count(b"more lines like this were not logged"), 2)
