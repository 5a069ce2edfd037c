"""`inmigrate decode`: what is in a file, up to the byte where something is wrong."""

import os
import random

import stream
from program import Case, run

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

    def test_what_is_no_file_is_named(self):
        self.fails(run("decode", self.folder), "Is a directory")
        self.fails(run("decode", self.path("nothing")), "No such file")
        os.mkfifo(self.path("fifo"))
        self.fails(run("decode", self.path("fifo")), "a FIFO")
