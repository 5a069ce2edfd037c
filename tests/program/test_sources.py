"""Sources of other machines and releases: what QEMU's own destination lands, lands here; exceptions are named."""

import json
import os
import shlex

import stream
from program import Case, run
from stream import be16, be32, be64, str8

RAM = {b"pc.ram": stream.content(64 * 1024)}
TIMER = stream.section(stream.FULL, 10, b"timer", 2, b"abcd")
LAST = TIMER + stream.described((b"timer", 2, 4))

SHUT_0 = (stream.SHUT, be32(0))


class Sources(Case):
    def lands(self, data, *args):
        done = run("listen", "file:" + self.write("stream", data), *args)
        self.assertEqual(done.returncode, 0, done)
        return done

    def fails(self, data, pattern, *args):
        done = run("listen", "file:" + self.write("stream", data), *args)
        self.assertEqual(done.returncode, 1, done)
        self.assertRegex(done.stderr, r"(?m)^inmigrate: .*" + pattern)
        return done

    def with_live(self, name, version, start, end, parts=(), machine=b"pc-i440fx-7.2"):
        """RAM, one more live section, and a device. end: None for a section that never ends."""
        return (stream.begin(machine) + stream.block_list(RAM) + stream.section(stream.START, 3, name, version, start) +
                b"".join(stream.part(3, body) for body in parts) + stream.pages(RAM) +
                (b"" if end is None else stream.part(3, end, stream.END)) + LAST)


class DirtyBitmaps(Sources):
    NAMED = b"\x1c" + str8(b"node") + str8(b"bitmap") + be32(65536) + b"\1" + b"\1"

    def test_a_source_that_has_no_bitmap_never_ends_its_section_and_lands(self):
        self.lands(self.with_live(b"dirty-bitmap", 1, b"\1", None), "--cap", "dirty-bitmaps")

    def test_rounds_without_a_bitmap_change_nothing(self):
        self.lands(self.with_live(b"dirty-bitmap", 1, b"\1", None, [b"\1", b"\1"]), "--cap", "dirty-bitmaps")
        self.lands(self.with_live(b"dirty-bitmap", 1, b"\1", b"\1"), "--cap", "dirty-bitmaps")

    def test_a_bitmap_that_was_announced_must_end(self):
        self.lands(self.with_live(b"dirty-bitmap", 1, self.NAMED, b"\x20\1"), "--cap", "dirty-bitmaps")
        self.fails(self.with_live(b"dirty-bitmap", 1, self.NAMED, None), "before section 'dirty-bitmap' has ended",
                   "--cap", "dirty-bitmaps")

    def test_a_capability_that_is_on_only_at_the_source_is_named(self):
        self.fails(self.with_live(b"dirty-bitmap", 1, b"\1", None), "dirty-bitmaps on; it is off here")


class Refusals(Sources):
    def test_a_mapped_ram_file_is_refused_for_what_it_is(self):
        data = stream.begin() + stream.subsection(b"configuration/capabilities", be32(1) + str8(b"mapped-ram"))
        data += stream.block_list(RAM)
        done = self.fails(data, "mapped-ram is on at the source: a file with a fixed place for each page")
        self.assertNotIn("off here", done.stderr)
        done = run("listen", "fd:0", "--cap", "mapped-ram")
        self.assertRegex(done.stderr, "a file with a fixed place for each page")

    def test_the_old_block_migration_is_refused_for_what_it_is(self):
        self.fails(self.with_live(b"block", 1, be64(2), be64(2)), "capability block on: disk contents .* NBD")

    def test_a_live_section_is_refused_at_its_start_and_named(self):
        for name, why in ((b"0000:00:05.0/vfio", "VFIO"), (b"teleporter", "not known here")):
            done = self.fails(self.with_live(name, 1, b"", b""), why)
            self.assertIn("START", done.stderr)
            self.assertIn(name.decode(), done.stderr)

    def test_a_stream_that_cannot_be_divided_is_refused_before_it_comes(self):
        params = ("--param", "send-section-footer=off", "--param", "suppress-vmdesc=on")
        done = run("listen", "tcp:127.0.0.1:0", *params)
        self.assertEqual((done.returncode, done.stdout), (2, ""), done)
        self.assertIn("send-section-footer=on", done.stderr)
        done = run("listen", "tcp:127.0.0.1:0", "--param", "send-section-footer=off", "--cap", "postcopy-ram")
        self.assertEqual((done.returncode, done.stdout), (2, ""), done)
        self.assertIn("send-section-footer", done.stderr)


class Versions(Sources):
    DEVICES = ((11, b"timer", 2, b"abcd"), (12, b"0000:00:03.0/eeprom", 20061113, bytes(140)),
               (13, b"0000:00:03.0/tulip", 0, bytes(40)), (14, b"last", 0x7fffffff, b"abcd"))

    def test_versions_of_all_sizes_are_divided_by_footers(self):
        data = (stream.begin() + stream.block_list(RAM) + stream.pages(RAM) +
                b"".join(stream.section(stream.FULL, *device) for device in self.DEVICES))
        self.lands(data + b"\0", "--param", "suppress-vmdesc=on")
        done = self.lands(data + stream.described(*[(name, version, len(body)) for _, name, version, body in
                                                    self.DEVICES]))
        self.assertIn("devices: 4", done.stdout)


class LiveState(Sources):
    HTAB = b"\0" * 8

    def test_guests_of_pseries_and_s390_land(self):
        entry = be32(0) + be32(5) + be16(1) + be16(2) + bytes(range(16)) + self.HTAB
        self.lands(self.with_live(b"spapr/htab", 1, be32(18), be32(0) + self.HTAB, [entry], b"pseries-7.2"))
        self.lands(self.with_live(b"spapr/htab", 1, be32(0xffffffff), be32(0xffffffff), [], b"pseries-7.2"))
        more = be64(0x1002) + be64(3) + b"abc" + be64(1)
        self.lands(self.with_live(b"s390-storage_attributes", 0, be64(1), be64(8) + be64(1), [more],
                                  b"s390-ccw-virtio-7.2"))

    def test_a_live_section_is_listed_beside_the_devices(self):
        devices = self.path("devices")
        self.lands(self.with_live(b"spapr/htab", 1, be32(18), be32(0) + self.HTAB, [be32(0) + self.HTAB] * 3),
                   "--devices", devices)
        live = json.loads(self.read("devices"))["live"]
        self.assertEqual([(one["name"], one["version_id"], one["bytes"]) for one in live],
                         [("spapr/htab", 1, 4 + 4 * 12)])


class EarlyDevices(Sources):
    """virtio-mem: its state comes before RAM, its description after all others."""

    def early(self, described=True):
        early = [{"name": "size", "type": "uint64", "size": 8}]
        last = [{"name": "ticks", "type": "uint32", "size": 4}]
        text = json.dumps({"page_size": 4096, "devices": [
            {"name": name, "instance_id": 0, "vmsd_name": "x", "version": version, "fields": fields}
            for name, version, fields in (("0000:00:04.0/virtio-mem-device-early", 1, early), ("timer", 2, last))]})
        return (stream.begin() + stream.block_list(RAM) +
                stream.section(stream.FULL, 8, b"0000:00:04.0/virtio-mem-device-early", 1, be64(0x40000000)) +
                stream.pages(RAM) + TIMER + b"\0" +
                (bytes([stream.VMDESC]) + be32(len(text)) + text.encode() if described else b""))

    def devices(self, data, *args):
        self.lands(data, "--devices", self.path("devices"), *args)
        return {one["name"]: one for one in json.loads(self.read("devices"))["devices"]}

    def test_an_early_device_has_its_fields(self):
        devices = self.devices(self.early())
        self.assertEqual(list(devices), ["0000:00:04.0/virtio-mem-device-early", "timer"])
        self.assertEqual(devices["0000:00:04.0/virtio-mem-device-early"]["state"], {"size": 0x40000000})
        self.assertEqual(devices["timer"]["state"], {"ticks": 0x61626364})

    def test_without_a_description_it_is_hexadecimal(self):
        devices = self.devices(self.early(False), "--param", "suppress-vmdesc=on")
        self.assertEqual(devices["0000:00:04.0/virtio-mem-device-early"]["hex"], "0000000040000000")


class BitmapsInPostcopy(Sources):
    """dirty-bitmaps on, postcopy-ram off, and migrate-start-postcopy: RAM ends, then the switch, then the bitmaps."""

    BITS = b"\x42" + be64(0) + be32(128) + b"\1"

    def data(self, between=b"", after=b"", ram_ends=True, return_path=True, ping=b""):
        whole = stream.pages(RAM)
        ram = whole if ram_ends else bytes([stream.PART]) + whole[1:]
        return (stream.begin(return_path=return_path) + stream.command(stream.ADVISE) + stream.block_list(RAM) +
                stream.section(stream.START, 3, b"dirty-bitmap", 1, DirtyBitmaps.NAMED) + ram + between +
                stream.package((10, b"timer", 2, b"abcd"), after=ping) + after +
                stream.part(3, self.BITS) + stream.part(stream.RAM_ID, be64(stream.EOS), stream.END) +
                stream.part(3, b"\x20\1", stream.END) + b"\0")

    def replies(self, data, status):
        listen = self.listen("tcp:127.0.0.1:0", "--cap", "return-path", "--cap", "dirty-bitmaps",
                             "--ram-dir", self.path("ram"))
        source = stream.Source(listen.address()).send(data)
        replies = source.replies()
        source.close()
        self.assert_ends(listen, status)
        self.said = listen.err.decode()
        return replies

    def test_the_guest_lands_and_the_source_is_told(self):
        self.assertEqual(self.replies(self.data(), 0), [(stream.PONG, be32(1)), SHUT_0])
        self.assertEqual(self.read("ram/pc.ram.raw"), RAM[b"pc.ram"])

    def test_the_source_hears_who_has_the_guest(self):
        ping = stream.command(stream.PING, be32(0x42))
        self.assertEqual(self.replies(self.data(ping=ping), 0),
                         [(stream.PONG, be32(1)), (stream.PONG, be32(0x42)), SHUT_0])

    def test_a_source_without_a_return_path_lands_too(self):
        done = run("listen", "exec:cat " + shlex.quote(self.write("stream", self.data(return_path=False))), "--cap",
                   "dirty-bitmaps")
        self.assertEqual(done.returncode, 0, done)
        ping = stream.command(stream.PING, be32(3))
        self.fails(self.data(return_path=False, ping=ping), "PING.* return path", "--cap", "dirty-bitmaps")

    def test_a_loss_after_the_switch_costs_only_bitmaps(self):
        data = self.data()
        listen = self.listen("tcp:127.0.0.1:0", "--cap", "return-path", "--cap", "dirty-bitmaps")
        stream.Source(listen.address()).send(data[:data.rindex(self.BITS) + 3]).close()
        self.assert_ends(listen, 0)

    def test_no_page_comes_after_the_switch(self):
        page = stream.part(stream.RAM_ID, be64(stream.ZERO) + str8(b"pc.ram") + b"\0" + be64(stream.EOS), stream.END)
        data = self.data(after=page, return_path=False)
        done = run("listen", "exec:cat " + shlex.quote(self.write("stream", data)), "--cap", "dirty-bitmaps")
        self.assertRegex(done.stderr, "after the switch, and RAM was complete before it")

    def test_the_switch_without_ram_is_refused(self):
        for data, why in ((self.data(ram_ends=False), "RAM has not ended"),
                          (self.data(between=stream.command(stream.DISCARD, b"\0" + str8(b"pc.ram") + b"\0" +
                                                            be64(0) + be64(4096))), "postcopy of RAM was not advised")):
            self.assertIn((stream.SHUT, be32(1)), self.replies(data, 1))
            self.assertIn(why, self.said)


def ram_of(bits, length=1 << 18, seed=1):
    """Content in which all target pages differ, except that every fourth is zeros."""
    size = 1 << bits
    return b"".join(bytes(size) if number % 4 == 3 else (be32(seed) + be32(number)) * (size // 8)
                    for number in range(length // size))


def records(content, bits, name=b"ram", first=0, last=None):
    """PAGE and ZERO records of the target pages from `first` on, all but the first record with CONTINUE."""
    size = 1 << bits
    out = []
    for at in range(first * size, len(content) if last is None else last * size, size):
        page = content[at:at + size]
        word = at | (stream.CONTINUE if out else 0) | (stream.PAGE if any(page) else stream.ZERO)
        out.append(be64(word) + (b"" if out else str8(name)) + (page if any(page) else b"\0"))
    return b"".join(out)


class TargetPages(Sources):
    """Pages have 1 KiB on ARM boards, up to 64 KiB elsewhere; most boards do not say."""

    def begin(self, machine, bits=None, return_path=False):
        said = b"" if bits is None else stream.subsection(b"configuration/target-page-bits", be32(bits))
        out = stream.begin(machine) + said
        if return_path:
            out += stream.command(stream.OPEN_RETURN_PATH) + stream.command(stream.PING, be32(1))
        return out

    def ram(self, content, bits):
        return stream.part(stream.RAM_ID, records(content, bits) + be64(stream.EOS), stream.END)

    def lands_exactly(self, begin, bits, *args):
        content = ram_of(bits)
        self.lands(begin + stream.block_list({b"ram": content}) + self.ram(content, bits) + LAST, "--ram-dir",
                   self.path("ram"), *args)
        self.assertEqual(self.read("ram/ram.raw"), content)

    def test_pages_of_every_size_that_a_stream_says_land(self):
        for bits in range(10, 17):
            for backing in "memfd", "thp":
                self.lands_exactly(self.begin(b"virt-7.2", bits), bits, "--ram-backing", backing)

    def test_pages_that_no_record_could_name_are_refused(self):
        for bits in 0, 8, 9, 17, 64:
            self.fails(self.begin(b"virt-7.2", bits), r"target pages of 2\^%d" % bits)

    def test_boards_with_small_pages_do_not_say_so_and_land(self):
        for machine in b"raspi2b", b"vexpress-a9", b"versatilepb", b"ast2600-evb", b"romulus-bmc", b"xlnx-zcu102":
            self.lands_exactly(self.begin(machine), 10)
        for machine in b"pc-i440fx-7.2", b"microvm", b"isapc", b"pseries-7.2":
            self.lands_exactly(self.begin(machine), 12)

    def test_other_sizes_can_be_told(self):
        self.lands_exactly(self.begin(b"clipper"), 13, "--param", "target-page-bits=13")
        self.lands_exactly(self.begin(b"raspi9"), 12, "--param", "target-page-bits=12")
        self.lands_exactly(self.begin(b"virt", 14), 14, "--param", "target-page-bits=12")

    def test_a_size_that_is_not_right_is_named(self):
        content = ram_of(10)
        for content in ram_of(10), bytes(1 << 18), b"x" * (1 << 18):
            self.fails(self.begin(b"some-board") + stream.block_list({b"ram": content}) + self.ram(content, 10) + LAST,
                       "target page size of 4096.*target-page-bits")

    def postcopy(self, bits, here, half=None):
        """here: target pages that come before the switch; half: where to stop after it, in target pages."""
        content, count = ram_of(bits), (1 << 18) >> bits
        end = stream.part(stream.RAM_ID, be64(stream.EOS), stream.END)
        return content, (
            self.begin(b"raspi2b" if bits == 10 else b"virt", None, True) +
            stream.command(stream.ADVISE, be64(4096) + be64(1 << bits)) + stream.block_list({b"ram": content}) +
            stream.part(stream.RAM_ID, records(content, bits, last=here) + be64(stream.EOS)) +
            stream.command(stream.DISCARD, b"\0" + str8(b"ram") + b"\0" + be64(here << bits) +
                           be64((count - here) << bits)) + stream.package((10, b"timer", 2, b"abcd")) +
            stream.part(stream.RAM_ID, records(content, bits, first=here, last=half) + be64(stream.EOS)) + end + b"\0")

    def test_postcopy_collects_the_pieces_of_a_page(self):
        for bits in 10, 11, 12:
            content, data = self.postcopy(bits, 8)
            listen = self.listen("tcp:127.0.0.1:0", "--cap", "postcopy-ram", "--ram-dir", self.path("ram"), "--guest",
                                 "touch=2,passes=1,access=read")
            source = stream.Source(listen.address()).send(data)
            self.assertEqual(source.shut(), 0)
            source.close()
            self.assert_ends(listen, 0)
            self.assertEqual(self.read("ram/ram.raw"), content)

    def test_anonymous_memory_of_larger_pages_is_refused_before_the_switch(self):
        _, data = self.postcopy(10, 8)
        listen = self.listen("tcp:127.0.0.1:0", "--cap", "postcopy-ram", "--ram-backing", "thp")
        source = stream.Source(listen.address()).send(data[:data.index(stream.command(stream.DISCARD)[:3])])
        self.assertEqual(source.shut(), 1)
        source.close()
        self.assert_ends(listen, 1, b".*START.*memory file")

    def packet(self, content, bits, first, count):
        most, size = (1 << 19) >> bits, 1 << bits
        numbers = range(first, first + count)
        normal = [at << bits for at in numbers if any(content[at << bits:(at + 1) << bits])]
        zero = [at << bits for at in numbers if at << bits not in normal]
        return (be32(0x11223344) + be32(1) + be32(0) + be32(most) + be32(len(normal)) + be32(len(normal) << bits) +
                be64(0) + be32(len(zero)) + bytes(28) + b"ram".ljust(256, b"\0") +
                b"".join(be64(at) for at in normal + zero).ljust(8 * most, b"\0") +
                b"".join(content[at:at + size] for at in normal))

    def test_multifd_packets_have_as_many_pages_as_fit(self):
        for bits in 10, 13, 16:
            content, most, pages = ram_of(bits, 1 << 20), (1 << 19) >> bits, (1 << 20) >> bits
            listen = self.listen("tcp:127.0.0.1:0", "--cap", "multifd", "--param", "multifd-channels=1",
                                 "--cap", "return-path", "--ram-dir", self.path("ram"))
            address = listen.address()
            main = stream.Source(address)
            main.send(self.begin(b"virt", bits, True) + stream.block_list({b"ram": content})[:-5 - 8])
            channel = stream.Source(address).send(be32(0x11223344) + be32(1) + bytes(16) + b"\0" + bytes(39))
            sync = (be32(0x11223344) + be32(1) + be32(1) + be32(most)).ljust(320 + 8 * most, b"\0")
            channel.send(sync + b"".join(self.packet(content, bits, first, min(most, pages - first))
                                         for first in range(0, pages, most)) + sync)
            flush = be64(0x200)
            main.send(flush + be64(stream.EOS) + stream.footer(stream.RAM_ID) +
                      stream.part(stream.RAM_ID, flush + be64(stream.EOS), stream.END) + LAST)
            self.assertEqual(main.shut(), 0)
            for one in main, channel:
                one.close()
            self.assert_ends(listen, 0)
            self.assertEqual(self.read("ram/ram.raw"), content)


class AfterTheEnd(Sources):
    """A saved stream in something longer: padded files, block devices, commands that write more."""

    DEVICES = b"".join(stream.section(stream.FULL, 20 + number, b"device%d" % number, 1, bytes(1000))
                       for number in range(20))

    def data(self, described=True):
        names = [(b"device%d" % number, 1, 1000) for number in range(20)]
        return (stream.begin() + stream.block_list(RAM) + stream.pages(RAM) + self.DEVICES +
                (stream.described(*names) if described else b"\0"))

    def ways(self, data, *args):
        path = self.write("stream", data)
        yield run("listen", "file:" + path, *args)
        yield run("listen", "exec:cat " + shlex.quote(path), *args)
        yield run("decode", path, *args)
        with open(path, "rb") as f:
            yield run("listen", "fd:0", *args, stdin=f)

    def test_padding_is_passed_over(self):
        for length in 1, 2, 511, 65536, 3 << 20:
            for done in self.ways(self.data() + bytes(length)):
                self.assertEqual(done.returncode, 0, done)
                self.assertNotIn("not part of it", done.stderr)

    def test_what_was_there_before_is_passed_over_and_named(self):
        data = self.data()
        for behind in (b"x", b"}", b"{}", os.urandom(100000), bytes(4096) + os.urandom(4096),
                       data[-5000:], data, bytes(100) + data[:-1], b"}" * 300000):
            for done in self.ways(data + behind):
                self.assertEqual(done.returncode, 0, done)
                self.assertRegex(done.stdout + done.stderr, "what follows the stream, at %#x, is not part of it|"
                                 "%#x  data after the end, not of the stream" % (len(data), len(data)))

    def test_a_description_that_a_guest_has_made_hides_no_device(self):
        """A description inside the state of the last device but one, which agrees with everything before it."""
        first = stream.section(stream.FULL, 20, b"first", 1, b"abcd")
        forged = (b"ab" + stream.footer(21) + stream.described((b"first", 1, 4), (b"second", 1, 2)))
        second = stream.section(stream.FULL, 21, b"second", 1, forged)
        third = stream.section(stream.FULL, 22, b"third", 1, b"abcd")
        data = (stream.begin() + stream.block_list(RAM) + stream.pages(RAM) + first + second + third +
                stream.described((b"first", 1, 4), (b"second", 1, len(forged)), (b"third", 1, 4)))
        for behind in b"", bytes(5000), b"x" * 5000:
            for done in self.ways(data + behind):
                self.assertEqual(done.returncode, 0, done)
                self.assertTrue("devices: 3" in done.stdout or "'third'" in done.stdout, done)

    def test_without_a_description_zeros_are_passed_over_and_others_named(self):
        off = "--param", "suppress-vmdesc=on"
        for number in 0x14, 0x100, 0x10000:
            last = stream.section(stream.FULL, number, b"last", 1, bytes(100))
            data = stream.begin() + stream.block_list(RAM) + stream.pages(RAM) + last + b"\0"
            for length in 0, 1, 3, 4, 5, 100000:
                for done in self.ways(data + bytes(length), *off):
                    self.assertEqual(done.returncode, 0, done)
        self.fails(self.data(False) + b"x" * 100, "do not add up", *off)

    def test_a_cut_is_no_padding(self):
        data = self.data()
        for behind in b"", bytes(10000), b"x" * 10000:
            for cut in 1, 10, 3000:
                self.fails(data[:-cut] + behind, "closed the stream")

    def test_a_command_that_does_not_end_is_not_waited_for_long(self):
        path = self.write("stream", self.data() + bytes(4096))
        done = run("listen", "exec:cat %s; exec sleep 60" % shlex.quote(path), seconds=30)
        self.assertEqual(done.returncode, 0, done)

    def test_a_source_that_waits_for_an_answer_sends_nothing_more(self):
        for behind in b"x", bytes(100):
            listen = self.listen("tcp:127.0.0.1:0", "--cap", "return-path")
            source = stream.Source(listen.address()).send(stream.whole(RAM, return_path=True) + behind)
            self.assertEqual(source.shut(), 1)
            source.close()
            self.assert_ends(listen, 1, b".*after the")

    def test_a_connection_without_a_return_path_may_be_padded_with_zeros(self):
        for behind, status in ((bytes(5000), 0), (b"x" * 100, 1)):
            listen = self.listen("tcp:127.0.0.1:0")
            stream.Source(listen.address()).send(stream.whole(RAM) + behind).close()
            self.assert_ends(listen, status, b".*after the end of the stream")


class Silence(Sources):
    """A source waits for the result with its guest stopped, and the program cannot divide its state."""

    def test_it_ends_with_an_error_and_the_source_is_told(self):
        plain = stream.section(stream.FULL, 10, b"timer", 2, b"abcd", footers=False)
        bare = stream.begin(return_path=True) + b"".join(
            one for one in (stream.block_list(RAM)[:-5], stream.pages(RAM)[:-5], plain, b"\0"))
        described = stream.begin(return_path=True) + stream.block_list(RAM) + stream.pages(RAM) + TIMER + b"\0"
        cases = ((bare, ("--param", "send-section-footer=off")), (described, ()),
                 (described[:-6] + b"\0", ("--param", "suppress-vmdesc=on")),
                 (described[:-6] + stream.footer(11) + b"\0", ("--param", "suppress-vmdesc=on")),
                 (stream.whole(RAM, return_path=True), ("--param", "suppress-vmdesc=on")))
        under_way = []
        for data, args in cases:
            listen = self.listen("tcp:127.0.0.1:0", "--cap", "return-path", *args)
            under_way.append((listen, stream.Source(listen.address(), 40).send(data)))
        for listen, source in under_way:
            self.assertEqual(source.shut(), 1)
            source.close()
            self.assert_ends(listen, 1, b".*(send-section-footer and suppress-vmdesc|suppress-vmdesc must be off here)")

    def test_a_description_that_should_not_be_there_is_named(self):
        self.fails(stream.whole(RAM), "suppress-vmdesc must be off here", "--param", "suppress-vmdesc=on")
        self.fails(stream.whole(RAM)[:-1], "do not add up", "--param", "suppress-vmdesc=on")


class Pointers(Sources):
    """The first element describes an array of pointers, and others may be NULL: s390's channel subsystem."""

    def data(self, body, last=b"abcd", middle=True):
        array = [{"name": "css", "array_len": 256, "type": "struct", "struct": {}, "size": 1}]
        ticks = [{"name": "ticks", "type": "uint32", "size": 4}]
        devices = [("s390_css", 1, array)] + ([("timer", 2, ticks)] if middle else [])
        text = json.dumps({"page_size": 4096, "devices": [
            {"name": name, "instance_id": 0, "vmsd_name": "x", "version": version, "fields": fields}
            for name, version, fields in devices]}).encode()
        return (stream.begin(b"s390-ccw-virtio-7.2") + stream.block_list(RAM) + stream.pages(RAM) +
                stream.section(stream.FULL, 9, b"s390_css", 1, body) +
                (stream.section(stream.FULL, 10, b"timer", 2, last) if middle else b"") +
                b"\0" + bytes([stream.VMDESC]) + be32(len(text)) + text)

    def test_a_body_of_another_length_ends_at_its_footer(self):
        false_end = stream.footer(9) + b"\4" + be32(10) + str8(b"timex") + bytes(8)
        for body in (b"0" * 256, b"0" * 300, b"0" * 100, b"", b"0" * 90000, false_end + b"0" * 300):
            for middle in True, False:
                self.lands(self.data(body, middle=middle), "--devices", self.path("devices"))
                devices = {one["name"]: one for one in json.loads(self.read("devices"))["devices"]}
                self.assertEqual(devices["s390_css"]["bytes"], len(body))
                self.assertEqual(devices["s390_css"]["split"], "description" if len(body) == 256 else "footers")
                if middle:
                    self.assertEqual(devices["timer"]["state"], {"ticks": 0x61626364})

    def test_a_body_of_another_device_has_the_length_that_is_described(self):
        self.fails(self.data(b"0" * 300, b"abcde"), "device 1 'timer'")
