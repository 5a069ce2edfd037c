"""The program refuses a wrong command line or block name while the source still has its guest. A failure after that
ends with exit status 3, and the program tells the truth about it."""

import os
import shutil
import stat

import stream
from program import Case, run
from stream import Source, be32, be64, footer, str8
from test_postcopy import PostcopySource

RAM = {b"pc.ram": stream.content(64 * 1024)}
CAPABILITIES = b"\x05" + str8(b"configuration/capabilities") + be32(1) + be32(1) + str8(b"x-ignore-shared")


def block_list(blocks, gpa=False):
    out = bytes([stream.START]) + be32(stream.RAM_ID) + str8(b"ram") + be32(0) + be32(4)
    out += be64(sum(len(content) for content in blocks.values()) | stream.MEM_SIZE)
    for name, content in blocks.items():
        out += str8(name) + be64(len(content)) + (be64(0) if gpa else b"")
    return out + be64(stream.EOS) + footer(stream.RAM_ID)


class Refusals(Case):
    def refused_at_once(self, pattern, *args, status=1):
        listen = self.listen("tcp:127.0.0.1:0", *args)
        self.assertEqual((listen.end(), listen.out), (status, b""), listen.err)
        self.assertRegex(listen.err, rb"^inmigrate.*" + pattern)

    def refused_before_the_switch(self, pattern, *args, blocks=None):
        """In postcopy: it refuses the list of blocks, before the source has announced a switch."""
        listen = self.listen("tcp:127.0.0.1:0", "--cap", "postcopy-ram", *args)
        source = PostcopySource(listen.address(), blocks or RAM)
        source.begin()
        source.reader.join(10)
        self.assertEqual(source.shut_status, 1)
        self.assertEqual(listen.end(), 1, listen.err)
        self.assertRegex(listen.err, rb"section 'ram' START at 0x[0-9a-f]+.*" + pattern)
        source.close()

    # ---- before it listens ----

    def test_a_file_that_cannot_be_made_is_refused_before_a_source_is_there(self):
        os.mkfifo(self.path("fifo"))
        for option in ("--stats",), ("--devices",), ("--guest", "touch=1,passes=1", "--touch-log"):
            with self.subTest(option=option):
                self.refused_at_once(rb"/nonexistent/file: No such file", *option, "/nonexistent/file")
                self.refused_at_once(rb": Is a directory", *option, self.folder)
                self.refused_at_once(rb"fifo: a FIFO that nobody reads", *option, self.path("fifo"))

    def test_one_file_for_two_things_is_refused(self):
        self.refused_at_once(rb"need a file each", "--stats", self.path("x"), "--devices", self.path("x"), status=2)
        self.assertFalse(os.path.exists(self.path("x")))

    def test_what_the_guest_is_in_is_not_written_over(self):
        memory, saved = self.write("memory", RAM[b"pc.ram"]), self.write("saved", stream.whole(RAM))
        os.link(memory, self.path("same"))
        for option in ("--stats",), ("--devices",), ("--guest", "touch=1,passes=1", "--touch-log"):
            self.refused_at_once(rb"it holds memory of the guest", "--ram", "pc.ram=" + memory, *option,
                                 self.path("same"), status=2)
            done = run("listen", "file:" + saved, *option, saved)
            self.assertEqual((done.returncode, done.stdout), (2, ""))
            self.assertRegex(done.stderr, "it holds the stream")
        self.assertTrue(self.read("memory") == RAM[b"pc.ram"] and self.read("saved") == stream.whole(RAM))

    def test_a_block_is_not_written_over_what_else_is_written_or_read(self):
        os.mkdir(self.path("ram"))
        at = self.write("ram/pc.ram.raw", stream.whole(RAM))
        done = run("listen", "file:" + at, "--ram-dir", self.path("ram"))
        self.assertTrue(self.read("ram/pc.ram.raw") == stream.whole(RAM))
        self.assertEqual(done.returncode, 1, done.stderr)
        self.assertRegex(done.stderr, r"pc\.ram\.raw: it is the stream, or the file of another option")
        for option in "--devices", "--stats":
            listen, shut = self.land(RAM, "--ram-dir", self.path("ram"), option, at)
            self.assertEqual((listen.child.returncode, shut), (1, 1), listen.err)
            self.assertIn(b"the file of another option", listen.err)

    def test_a_folder_that_cannot_be_made_or_written_to_is_refused_before_a_source_is_there(self):
        self.write("file", b"")
        self.refused_at_once(rb"/proc/nope: No such file", "--ram-dir", "/proc/nope")
        self.refused_at_once(rb"file: Not a directory", "--ram-dir", self.path("file"))

    def test_what_was_made_for_nothing_is_removed_and_what_was_there_stays(self):
        self.write("stats", b"old")
        listen = self.listen("tcp:127.0.0.1:0", "--devices", self.path("devices"), "--ram-dir", self.path("ram"))
        address = listen.address()
        self.assertTrue(os.path.exists(self.path("devices")))
        Source(address).send(stream.whole(RAM)[:40000]).close()
        self.assertEqual(listen.end(), 1)
        self.assertFalse(os.path.exists(self.path("devices")) or os.path.exists(self.path("ram")))
        self.refused_at_once(rb"nope", "--stats", self.path("stats"), "--devices", "/proc/nope/devices")
        self.assertEqual(self.read("stats"), b"old")

    # ---- when the blocks are known ----

    def test_a_block_that_is_not_there_is_refused_before_the_switch(self):
        self.refused_before_the_switch(rb"refused here", "--guest", "touch=1,block=no.such.block")
        path = self.write("memory", bytes(64 * 1024))
        shutil.copy(path, "/dev/shm/" + os.path.basename(self.folder))
        self.addCleanup(os.unlink, "/dev/shm/" + os.path.basename(self.folder))
        self.refused_before_the_switch(rb"refused here", "--ram", "nosuch=/dev/shm/" +
                                       os.path.basename(self.folder))
        self.refused_before_the_switch(rb"refused here", "--unplugged", "pc.ram", "--unplugged", "nosuch")

    def test_a_name_that_no_file_can_have_is_refused_before_the_switch(self):
        names = {b"N" * 255: stream.content(8192)}
        self.refused_before_the_switch(rb"File name too long", "--ram-dir", self.path("ram"), blocks=names)
        names = {b"a/b": stream.content(8192), b"a_b": stream.content(8192)}
        self.refused_before_the_switch(rb"File exists", "--ram-dir", self.path("ram"), blocks=names)
        listen, shut = self.land({b"N" * 251: stream.content(8192)}, "--ram-dir", self.path("ram"))
        self.assertEqual((listen.child.returncode, shut), (0, 0), listen.err)

    def test_nothing_is_written_through_what_lies_in_the_folder(self):
        os.mkdir(self.path("ram"))
        at = self.path("ram/pc.ram.raw")
        victim = self.write("victim", b"keep me")
        for make, said in ((lambda: os.symlink(victim, at), rb"a symbolic link, which is not followed"),
                           (lambda: os.mkfifo(at), rb"not a plain file"),
                           (lambda: os.mknod(at, stat.S_IFSOCK | 0o600), rb"not a plain file"),
                           (lambda: os.mkdir(at), rb"not a plain file")):
            make()
            self.refused_before_the_switch(rb"refused", "--ram-dir", self.path("ram"))
            listen, shut = self.land(RAM, "--ram-dir", self.path("ram"))
            self.assertEqual((listen.child.returncode, shut), (1, 1), listen.err)
            self.assertIn(said, listen.err)
            (os.rmdir if os.path.isdir(at) else os.unlink)(at)
        self.assertEqual(self.read("victim"), b"keep me")

    # ---- when it is too late ----

    def test_numbers_that_find_no_room_do_not_make_a_landed_guest_a_failure(self):
        listen, shut = self.land(RAM, "--stats", "/dev/full")
        self.assertEqual((listen.child.returncode, shut), (3, 0), listen.err)
        self.assertRegex(listen.err, rb"^inmigrate: /dev/full: No space left")
        self.assertIn(b"landed", listen.out)

    def test_a_failed_migration_stays_one_when_its_numbers_find_no_room(self):
        listen = self.listen("tcp:127.0.0.1:0", "--stats", "/dev/full")
        Source(listen.address()).send(stream.whole(RAM)[:40000]).close()
        self.assert_ends(listen, 1, rb"the source closed the stream")

    def test_device_state_that_finds_no_room_in_postcopy_does_not_cost_the_guest(self):
        listen = self.listen("tcp:127.0.0.1:0", "--cap", "postcopy-ram", "--devices", "/dev/full")
        source = PostcopySource(listen.address(), RAM)
        source.begin().switch()
        source.push(b"pc.ram")
        self.assertEqual(source.finish(), 0)
        self.assertEqual(listen.end(), 3, listen.err)
        self.assertRegex(listen.err, rb"^inmigrate: /dev/full: No space left")

    # ---- memory that exists already ----

    def shared(self, blocks, sent):
        """A stream from a source that shares all blocks except those that it has sent."""
        return (stream.begin() + CAPABILITIES + block_list(blocks, gpa=True) + stream.pages(sent) + stream.tail())

    def land_shared(self, blocks, sent, *args):
        listen = self.listen("file:" + self.write("stream", self.shared(blocks, sent)), "--cap", "x-ignore-shared",
                             *args)
        return listen.end(), listen.err

    def test_memory_that_is_shared_and_not_given_is_no_zeros(self):
        blocks = {b"m0": stream.content(64 * 1024), b"rom": stream.content(8192)}
        status, said = self.land_shared(blocks, {b"rom": blocks[b"rom"]}, "--ram-dir", self.path("ram"))
        self.assertEqual(status, 1)
        self.assertRegex(said, rb"block 'm0': the source shares this memory")
        self.assertFalse(os.path.exists(self.path("ram/m0.raw")))

    def test_memory_that_is_shared_and_given_is_the_guests(self):
        blocks = {b"m0": stream.content(64 * 1024), b"rom": stream.content(8192)}
        path = self.write("memory", blocks[b"m0"])
        status, said = self.land_shared(blocks, {b"rom": blocks[b"rom"]}, "--ram", "m0=" + path, "--ram-dir",
                                        self.path("ram"))
        self.assertEqual((status, said), (0, b""))
        self.assertEqual(self.read("ram/m0.raw"), blocks[b"m0"])
        self.assertEqual(self.read("memory"), blocks[b"m0"])

    def test_what_comes_is_landed_in_the_file(self):
        path = self.write("memory", b"\xee" * (64 * 1024))
        listen, shut = self.land(RAM, "--ram", "pc.ram=" + path)
        self.assertEqual((listen.child.returncode, shut), (0, 0), listen.err)
        self.assertEqual(self.read("memory"), RAM[b"pc.ram"])

    def test_what_comes_in_postcopy_is_landed_in_the_file(self):
        path = "/dev/shm/" + os.path.basename(self.folder)
        self.addCleanup(lambda: os.path.exists(path) and os.unlink(path))
        with open(path, "wb") as f:
            f.write(b"\xee" * (64 * 1024))
        listen = self.listen("tcp:127.0.0.1:0", "--cap", "postcopy-ram", "--ram", "pc.ram=" + path, "--guest",
                             "touch=1,access=read")
        source = PostcopySource(listen.address(), RAM)
        source.begin().switch()
        source.push(b"pc.ram")
        self.assertEqual(source.finish(), 0)
        self.assertEqual(listen.end(), 0, listen.err)
        with open(path, "rb") as f:
            self.assertEqual(f.read(), RAM[b"pc.ram"])

    def test_names_and_paths_may_have_an_equals_sign_and_a_slash(self):
        blocks = {b"a=b/c": stream.content(8192)}
        path = self.write("m=m", bytes(8192))
        listen, shut = self.land(blocks, "--ram", "a=b/c=" + path)
        self.assertEqual((listen.child.returncode, shut), (0, 0), listen.err)
        self.assertEqual(self.read("m=m"), blocks[b"a=b/c"])

    def test_a_file_that_cannot_be_the_memory_is_refused(self):
        os.mkfifo(self.path("fifo"))
        path = self.write("memory", bytes(64 * 1024))
        os.link(path, self.path("same"))

        def refused(pattern, *args):
            self.refused_at_once(pattern, *args, status=2)
        refused(rb"NAME=PATH is expected", "--ram", "pc.ram")
        refused(rb"NAME=PATH is expected", "--ram", "=" + path)
        refused(rb"No such file", "--ram", "pc.ram=/nonexistent")
        refused(rb"a FIFO", "--ram", "pc.ram=" + self.path("fifo"))
        refused(rb"a directory", "--ram", "pc.ram=" + self.folder)
        refused(rb"a character device", "--ram", "pc.ram=/dev/zero")
        refused(rb"given twice", "--ram", "pc.ram=" + path, "--ram", "pc.ram=" + path)
        refused(rb"memory of another block", "--ram", "pc.ram=" + path, "--ram", "rom=" + self.path("same"))
        if os.statvfs(self.folder).f_fsid != os.statvfs("/dev/shm").f_fsid:
            refused(rb"must be on tmpfs", "--cap", "postcopy-ram", "--ram", "pc.ram=" + path)

    def test_a_file_that_is_too_short_leaves_the_guest_to_the_source(self):
        path = self.write("memory", bytes(60 * 1024))
        listen, shut = self.land(RAM, "--ram", "pc.ram=" + path)
        self.assertEqual((listen.child.returncode, shut), (1, 1), listen.err)
        self.assertRegex(listen.err, rb"memory has 61440 bytes, and the block 65536")

    def test_a_block_that_never_comes_leaves_the_guest_to_the_source(self):
        path = self.write("memory", bytes(60 * 1024))
        listen, shut = self.land(RAM, "--ram", "vram=" + path)
        self.assertEqual((listen.child.returncode, shut), (1, 1), listen.err)
        self.assertRegex(listen.err, rb"--ram vram: the guest has no such RAM block")

    def test_memory_is_not_written_over_by_its_own_copy(self):
        os.mkdir(self.path("ram"))
        path = self.write("ram/pc.ram.raw", bytes(64 * 1024))
        listen, shut = self.land(RAM, "--ram", "pc.ram=" + path, "--ram-dir", self.path("ram"))
        self.assertEqual((listen.child.returncode, shut), (1, 1), listen.err)
        self.assertIn(b"it holds memory of the guest", listen.err)
