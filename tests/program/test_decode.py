"""`inmigrate decode` shows what is in a file, up to the byte where something is wrong."""

import bz2
import gzip
import lzma
import os
import random
import subprocess

import stream
from program import PROGRAM, Case, run
from stream import be16, be32, be64, str8

WHOLE = stream.whole({b"pc.ram": stream.content(64 * 1024)})


class Decode(Case):
    def fails(self, done, pattern):
        self.assertEqual(done.returncode, 1, done)
        self.assertRegex(done.stderr, r"^inmigrate: .*" + pattern + r".*\n$")

    def test_a_whole_stream_is_printed_element_by_element(self):
        done = run("decode", self.write("stream", WHOLE))
        self.assertEqual((done.returncode, done.stderr), (0, ""), done)
        for said in "block 'pc.ram': 0x10000 bytes", "device 'timer' instance 0", "end of stream", "description":
            self.assertIn(said, done.stdout)

    def test_a_stream_comes_from_standard_input_too(self):
        self.assertEqual(run("decode", "-", data=WHOLE).returncode, 0)
        with open(self.write("stream", b"header" + WHOLE), "rb") as f:
            os.lseek(f.fileno(), 6, os.SEEK_SET)
            self.assertEqual(run("decode", "-", stdin=f).returncode, 0)
        self.fails(run("decode", "-", data=b""), "the source closed the stream at 0x0")
        self.fails(run("decode", "-"), "the source closed the stream at 0x0")

    def test_standard_input_that_is_closed_is_named(self):
        done = subprocess.run([PROGRAM, "decode", "-"], capture_output=True, preexec_fn=lambda: os.close(0), check=False,
                              timeout=30, text=True)
        self.fails(done, "standard input: descriptor 0 was not inherited")

    def test_a_stream_may_begin_inside_of_a_file(self):
        self.assertEqual(run("decode", self.write("stream", bytes(4096) + WHOLE) + ",offset=4096").returncode, 0)

    def test_a_truncated_stream_is_printed_as_far_as_it_goes(self):
        whole = run("decode", self.write("stream", WHOLE)).stdout
        for length in 0, 1, 4, 8, 9, 30, 100, 5000, len(WHOLE) - 1:
            with self.subTest(length=length):
                done = run("decode", self.write("stream", WHOLE[:length]))
                self.fails(done, "the source closed the stream at ")
                self.assertTrue(whole.startswith(done.stdout), done.stdout)

    def test_garbage_is_named(self):
        numbers = random.Random(1)
        self.fails(run("decode", self.write("zeros", bytes(100000))), "EPROTO")
        for number in range(10):
            self.fails(run("decode", self.write("noise", numbers.randbytes(100000))), "EPROTO")
            noise = WHOLE[:60 + number * 20] + numbers.randbytes(100000)
            self.fails(run("decode", self.write("noise", noise)), r"\(E[A-Z]+\)")
        self.fails(run("decode", self.write("text", b"a text file\n" * 10)), "EPROTO")

    def decodes(self, data, *said, args=()):
        done = run("decode", self.write("stream", data), *args)
        self.assertEqual((done.returncode, done.stderr), (0, ""), done)
        for text in said:
            self.assertIn(text, done.stdout)
        return done.stdout

    def test_what_was_captured_from_a_connection_needs_no_answer(self):
        blocks = {b"pc.ram": stream.content(64 * 1024)}
        data = stream.whole(blocks, return_path=True)
        for args in ((), ("--cap", "return-path"), ("--cap", "multifd", "--param", "multifd-channels=4")):
            self.decodes(data, "OPEN_RETURN_PATH", "PING", "device 'timer'", "end of stream", args=args)

    def postcopy(self, advise):
        blocks = {b"pc.ram": stream.content(64 * 1024)}
        ping = stream.command(stream.PING, be32(0x42))
        ram = stream.pages(blocks)
        return (stream.begin(return_path=True) + stream.command(stream.ADVISE, advise) + stream.block_list(blocks) +
                bytes([stream.PART]) + ram[1:] +
                stream.command(stream.DISCARD, b"\0" + str8(b"pc.ram") + b"\0" + be64(0) + be64(65536)) +
                stream.package((10, b"timer", 2, b"abcd"), (11, b"cpu", 1, bytes(100)), after=ping) +
                stream.command(stream.PING, be32(4)) + bytes([stream.PART]) + ram[1:] + ram + b"\0")

    def test_postcopy_is_printed_to_its_end(self):
        for advise in be64(4096) + be64(4096), be64(0x201000) + be64(4096):
            self.decodes(self.postcopy(advise), "POSTCOPY_ADVISE", "POSTCOPY_RAM_DISCARD", "POSTCOPY_LISTEN",
                         "device 'cpu'", "PING 66 in the package", "POSTCOPY_RUN", "end of stream")

    def test_a_package_that_is_cut_off_is_named(self):
        data = self.postcopy(be64(4096) + be64(4096))
        at = data.index(b"timer")
        self.fails(run("decode", self.write("stream", data[:at])), "package")
        self.fails(run("decode", self.write("stream", data[:data.rindex(b"\2\0\0\0\2")])), "closed the stream")

    def test_capabilities_need_not_be_told(self):
        word = be64(0x1000 | 0x40 | stream.CONTINUE) + b"\1" + be16(3) + b"\0\1x"
        ram = bytes([stream.PART]) + be32(stream.RAM_ID) + be64(stream.PAGE) + str8(b"pc.ram") + bytes(4096) + word
        blocks = {b"pc.ram": bytes(65536)}
        data = (stream.begin() + stream.block_list(blocks) + ram + be64(stream.EOS) + stream.footer(stream.RAM_ID) +
                stream.pages(blocks) + stream.tail())
        self.assertRegex(self.decodes(data), "1 normal, 0 zero, 1 xbzrle")
        begin = stream.begin() + stream.subsection(b"configuration/capabilities", be32(1) + str8(b"x-ignore-shared"))
        listed = stream.block_list(blocks)
        listed = listed.replace(str8(b"pc.ram") + be64(65536), str8(b"pc.ram") + be64(65536) + be64(0x100000))
        self.decodes(begin + listed + stream.pages(blocks) + stream.tail(), "end of stream")

    def test_other_channels_are_named(self):
        self.fails(run("decode", self.write("multifd", be32(0x11223344) + bytes(1000))), "multifd channel")
        self.fails(run("decode", self.write("recovery", stream.command(10, str8(b"pc.ram")))), "recovery")
        self.fails(run("decode", self.write("tls", b"\x16\3\1\2\0\1" + bytes(100))), "TLS")

    def test_a_file_that_holds_a_stream_in_another_form_is_named(self):
        for pack, said in ((gzip.compress, "exec:gzip -dc FILE"), (bz2.compress, "exec:bzip2 -dc FILE"),
                           (lzma.compress, "exec:xz -dc FILE")):
            self.fails(run("decode", self.write("packed", pack(WHOLE))), said)
        self.fails(run("decode", self.write("packed", b"\x28\xb5\x2f\xfd" + bytes(100))), "exec:zstd -dc FILE")
        self.fails(run("decode", self.write("saved", b"LibvirtQemudSave" + bytes(76) + WHOLE)), "libvirt")

    def test_neither_footers_nor_description_is_printed_up_to_the_devices(self):
        blocks = {b"pc.ram": bytes(65536)}
        done = run("decode", self.write("stream", stream.begin() + stream.block_list(blocks)), "--param",
                   "suppress-vmdesc=on", "--param", "send-section-footer=off")
        self.assertIn("block 'pc.ram'", done.stdout)

    def test_what_cannot_be_written_is_an_error(self):
        with open("/dev/full", "w", encoding="ascii") as full:
            done = run("decode", self.write("stream", WHOLE), stdout=full)
            self.fails(done, "standard output: No space left on device")
        # More than one buffer of lines, and nobody reads them.
        many = stream.whole({b"block%d" % number: bytes(4096) for number in range(2000)})
        read_end, write_end = os.pipe()
        os.close(read_end)
        try:
            self.fails(run("decode", self.write("stream", many), stdout=write_end), "standard output: Broken pipe")
        finally:
            os.close(write_end)

    def test_what_is_no_file_is_named(self):
        self.fails(run("decode", self.folder), "Is a directory")
        self.fails(run("decode", self.path("nothing")), "No such file")
        os.mkfifo(self.path("fifo"))
        self.fails(run("decode", self.path("fifo")), "a FIFO")
