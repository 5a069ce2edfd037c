"""What `inmigrate listen` does with a guest: it lands and its files are written, or the source keeps it."""

import glob
import json
import os
import resource
import shlex
import signal
import subprocess
import time
import unittest

import stream
from program import PROGRAM, Case, has_sanitizer, wait_until
from hugepages import POOL, huge_pages, pool
from stream import Source

MIB = 1 << 20
RAM = {b"pc.ram": stream.content(256 * 1024), b"0000:00:02.0/vga.vram": stream.content(64 * 1024, seed=2)}
# C0 and C1 controls without the newline, and DEL, which a terminal obeys.
CONTROLS = set(range(0x20)) - {0x0a} | set(range(0x7f, 0xa0))


def alive_in_group(group):
    """Running processes, without those that nobody has reaped."""
    found = []
    for path in glob.glob("/proc/[0-9]*/stat"):
        try:
            with open(path) as f:
                text = f.read()
        except (FileNotFoundError, ProcessLookupError):
            continue
        state, _, pgrp = text[text.rindex(")") + 1:].split()[:3]
        if int(pgrp) == group and state != "Z":
            found.append(text)
    return found


def end_group(group):
    try:
        os.killpg(group, signal.SIGKILL)
    except ProcessLookupError:
        pass


class Landing(Case):
    def test_ram_devices_and_numbers_are_in_the_files(self):
        for backing in "thp", "memfd":
            with self.subTest(backing=backing):
                listen, shut = self.land(RAM, "--ram-dir", self.path("ram"), "--devices", self.path("devices"),
                                         "--stats", self.path("stats"), "--ram-backing", backing)
                self.assertEqual((listen.child.returncode, shut), (0, 0), listen.err)
                self.assertEqual(self.read("ram/pc.ram.raw"), RAM[b"pc.ram"])
                self.assertEqual(self.read("ram/0000:00:02.0_vga.vram.raw"), RAM[b"0000:00:02.0/vga.vram"])
                devices = json.loads(self.read("devices"))["devices"]
                self.assertEqual([d["name"] for d in devices], ["timer"])
                stats = json.loads(self.read("stats"))
                self.assertEqual(stats["status"], "completed")
                self.assertEqual(stats["error"], None)
                self.assertEqual(stats["pages"]["normal"] + stats["pages"]["zero"], 80)
                self.assertEqual(listen.err, b"")

    def refused_by_the_disk(self, *args):
        listen, shut = self.land(RAM, "--stats", self.path("stats"), *args)
        self.assertEqual((listen.child.returncode, shut), (1, 1), listen.err)
        self.assertRegex(listen.err, rb"(?m)^inmigrate: incoming: the guest is complete: refused here")
        self.assertNotIn(b"landed", listen.out)
        self.assertEqual(json.loads(self.read("stats"))["status"], "failed")
        return listen.err

    def test_a_full_disk_leaves_the_guest_to_the_source(self):
        self.assertIn(b"No space left", self.refused_by_the_disk("--devices", "/dev/full"))

    def test_two_blocks_of_one_file_name_leave_the_guest_to_the_source(self):
        blocks = {b"a/b": stream.content(8192), b"a_b": stream.content(4096, seed=7)}
        listen, shut = self.land(blocks, "--ram-dir", self.path("ram"))
        self.assertEqual((listen.child.returncode, shut), (1, 1), listen.err)
        self.assertRegex(listen.err, rb"a_b\.raw: File exists")

    def user_seconds(self, blocks, *args):
        before = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime
        listen, shut = self.land(blocks, *args)
        self.assertEqual((listen.child.returncode, shut), (0, 0), listen.err)
        return resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime - before

    def test_as_many_blocks_as_there_may_be_are_written_without_comparing_each_with_each(self):
        blocks = {b"%04d" % i + b"x" * 240: bytes(4096) for i in range(4096)}
        plain = self.user_seconds(blocks)
        # Only user mode, because the file system's time is not ours. Comparing took 2 s.
        self.assertLess(self.user_seconds(blocks, "--ram-dir", self.path("ram")), 0.5 + 8 * plain)
        self.assertEqual(len(os.listdir(self.path("ram"))), 4096)

    def test_a_guest_far_larger_than_the_machine_is_refused_unless_it_is_asked_for(self):
        head = stream.begin() + bytes([stream.START]) + stream.be32(2) + stream.str8(b"ram") + stream.be32(0) + \
            stream.be32(4) + stream.be64(12 << 40 | stream.MEM_SIZE) + stream.str8(b"m") + stream.be64(12 << 40)
        for args, words in ((), rb"parameter ram-limit allows"), (("--param", "ram-limit=16T"), rb"closed the stream"):
            with self.subTest(args=args):
                if args and has_sanitizer():
                    self.skipTest("a sanitizer leaves no room for 12 TiB")
                listen = self.listen("tcp:127.0.0.1:0", *args)
                Source(listen.address()).send(head + stream.be64(stream.EOS)).close()
                self.assert_ends(listen, 1, words)

    def test_numbers_are_written_also_when_it_fails(self):
        listen = self.listen("tcp:127.0.0.1:0", "--stats", self.path("stats"))
        Source(listen.address()).send(stream.whole(RAM)[:40000]).close()
        self.assert_ends(listen, 1, rb"the source closed the stream")
        stats = json.loads(self.read("stats"))
        self.assertEqual(stats["status"], "failed")
        self.assertIn("the source closed the stream", stats["error"])
        self.assertEqual(stats["bytes"]["main"], 40000)

    def test_a_name_that_commands_the_terminal_does_not_reach_it(self):
        evil = b"\x1b[2J\x1b]0;x\x07\x9b31m\x7f\r\xff"
        blocks = {evil + b"ram": stream.content(8192)}
        good = stream.whole(blocks, machine=b"pc" + evil)
        streams = [good, good[:-10], good[:60], good.replace(b"\x7e\0\0\0\x02", b"\x7e\0\0\0\x03"),
                   stream.whole(blocks, device=b"dev" + evil),
                   stream.begin() + stream.block_list({evil: stream.content(4096)})
                   + stream.pages({evil + b"?": stream.content(4096)})]
        for number, data in enumerate(streams):
            for extra in (), ("-v", "-v"), ("--progress", "always", "--param", "machine=pc"):
                with self.subTest(stream=number, extra=extra):
                    listen = self.listen("file:" + self.write("stream", data), "--ram-dir", self.path("ram"),
                                         "--stats", self.path("stats"), *extra)
                    status = listen.end()
                    self.assertEqual(status, 0 if data is good and len(extra) < 3 else 1, listen.err)
                    seen = set(listen.out + listen.err) & CONTROLS
                    self.assertFalse(seen, listen.out + listen.err)
                    self.assertFalse(set(self.read("stats")) & CONTROLS)

    def test_a_name_in_utf_8_that_commands_the_terminal_does_not_reach_it_through_a_file(self):
        # U+009B means the same as ESC [; U+202E reverses the text after it.
        name = "dev\u009b31m\u202egpj\u007f".encode()
        data = stream.begin() + stream.block_list(RAM) + stream.pages(RAM) + \
            stream.section(stream.FULL, 10, name, 2, bytes(8)) + stream.described((name, 2, 8))
        listen = self.listen("file:" + self.write("stream", data), "--devices", self.path("devices"), "-v", "-v")
        self.assertEqual(listen.end(), 0, listen.err)
        said = listen.out + listen.err + self.read("devices")
        self.assertTrue(said.isascii(), said)
        self.assertIn(name.decode(), [d["name"] for d in json.loads(self.read("devices"))["devices"]])

    # ---- huge pages ----

    def land_in_huge_pages(self, blocks):
        return self.land(blocks, "--ram-backing", "hugetlb-2m", "--ram-dir", self.path("ram"))

    def test_huge_pages_hold_the_guest_and_none_are_an_error(self):
        if not os.path.exists(POOL) or pool("nr_overcommit_hugepages"):
            raise unittest.SkipTest("this kernel has no pool of 2 MiB pages, or one without an end")
        with huge_pages(0) as free:
            if free == 0:
                listen, shut = self.land_in_huge_pages(RAM)
                self.assertEqual((listen.child.returncode, shut), (1, 1), listen.err)
                self.assertRegex(listen.err, rb"block 'pc\.ram' .*Cannot allocate memory")
        with huge_pages(8) as free:
            if free < 4:
                raise unittest.SkipTest("there are no huge pages, and this process may not make any")
            # Not a multiple of 2 MiB.
            blocks = {b"pc.ram": stream.content(3 * MIB + 8192), b"rom": stream.content(4096, seed=3)}
            listen, shut = self.land_in_huge_pages(blocks)
            self.assertEqual((listen.child.returncode, shut), (0, 0), listen.err)
            for name, content in blocks.items():
                self.assertEqual(self.read(f"ram/{name.decode()}.raw"), content)

    # ---- the end from outside ----

    def test_a_signal_right_after_the_address_is_a_cancel(self):
        for number in range(30):
            path = self.path("socket")
            listen = self.listen("unix:" + path)
            listen.address()
            listen.child.send_signal((signal.SIGTERM, signal.SIGINT)[number % 2])
            self.assert_ends(listen, 1, b"cancelled")
            self.assertFalse(os.path.exists(path))

    def test_a_signal_ends_the_command_of_exec(self):
        listen = self.listen(f"exec:echo $$ >{shlex.quote(self.path('pid'))}; sleep 1000; true", "--stats", self.path("stats"))
        wait_until("the command", lambda: os.path.exists(self.path("pid")) and self.read("pid").endswith(b"\n"))
        group = int(self.read("pid"))
        self.addCleanup(end_group, group)
        listen.child.send_signal(signal.SIGTERM)
        self.assert_ends(listen, 1, b"cancelled")
        wait_until("its end", lambda: not alive_in_group(group))
        self.assertEqual(json.loads(self.read("stats"))["status"], "cancelled")

    def test_a_signal_while_the_command_is_being_started_is_a_cancel(self):
        for _ in range(40):
            listen = self.listen("exec:kill -TERM $PPID; exec sleep 1000")
            self.assert_ends(listen, 1, b"cancelled")

    def test_a_timeout_names_the_state_it_was_in(self):
        listen = self.listen("tcp:127.0.0.1:0", "--timeout", "0.2")
        listen.address()
        self.assert_ends(listen, 1, rb"timed out after 0\.2 s in state 'setup'$")
        listen = self.listen("tcp:127.0.0.1:0", "--timeout", "0.5")
        source = Source(listen.address()).send(stream.whole(RAM)[:40000])
        self.assert_ends(listen, 1, rb"timed out after 0\.5 s in state 'active'$")
        source.close()

    # ---- where it comes from ----

    def test_a_descriptor_is_read_from_where_it_stands(self):
        with open(self.write("image", b"a header" * 100 + stream.whole(RAM)), "rb") as f:
            f.seek(800)
            fd = os.dup(f.fileno())
            done = subprocess.run([PROGRAM, "listen", f"fd:{fd}"], pass_fds=(fd,), capture_output=True, timeout=20)
            os.close(fd)
        self.assertEqual(done.returncode, 0, done.stderr)

    def test_a_fifo_is_refused_by_name(self):
        os.mkfifo(self.path("fifo"))
        listen = self.listen("file:" + self.path("fifo"))
        self.assertEqual(listen.end(), 2)
        self.assertIn(b"a FIFO; 'exec:cat FILE' reads one", listen.err)

    def test_a_socket_in_use_is_left_to_its_owner(self):
        first = self.listen("unix:" + self.path("socket"))
        address = first.address()
        second = self.listen("unix:" + self.path("socket"))
        self.assert_ends(second, 1, b"Address already in use")
        Source(address).send(stream.whole(RAM)).close()
        self.assertEqual(first.end(), 0, first.err)
        self.assertFalse(glob.glob(self.path("socket")))

    def test_a_source_that_stays_connected_does_not_hold_the_guest_up(self):
        listen = self.listen("tcp:127.0.0.1:0")
        source = Source(listen.address())
        began = time.monotonic()
        source.send(stream.whole(RAM))
        self.assertEqual(listen.end(), 0, listen.err)
        self.assertLess(time.monotonic() - began, 2)
        source.close()
