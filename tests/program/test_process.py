"""Nothing that a shell, a supervisor or a container does to the process costs a guest, and the program reports it."""

import fcntl
import json
import os
import pty
import resource
import shlex
import signal
import socket
import struct
import subprocess
import termios
import time
import unittest

import stream
from program import NOBODY, PATIENT_SECONDS, PROGRAM, Case, has_sanitizer, wait_until
from signals import die_with_parent
from stream import PAGE_BYTES, Source, be32, be64, str8
from test_postcopy import PART, PostcopySource

RAM = {b"pc.ram": stream.content(64 * 1024)}
RESUME, RECV_BITMAP = 9, 10
HELD_UP_SECONDS = 20      # a reader that takes nothing must not delay the program this long


class Child:
    """`inmigrate listen` with standard output, standard error and process attributes as a test wants them."""

    def __init__(self, case, *args, uri="tcp:127.0.0.1:0", **options):
        before = options.pop("preexec", None)

        def prepare():
            die_with_parent()
            if before:
                before()
        if "stdout" not in options:
            options["stdout"] = subprocess.PIPE
        options.setdefault("stderr", subprocess.PIPE)
        self.child = subprocess.Popen([PROGRAM, "listen", uri, *args], preexec_fn=prepare,
                                      stdin=options.pop("stdin", subprocess.DEVNULL), **options)
        case.addCleanup(self.close)

    def address(self):
        line = self.child.stdout.readline()
        if not line.startswith(b"listening on "):
            raise AssertionError(f"it said {line!r} and {self.child.communicate()}")
        return line.split()[-1].decode()

    def end(self, seconds=PATIENT_SECONDS):
        self.said = b""
        if self.child.stderr:
            self.said = self.child.communicate(timeout=seconds)[1]
        return self.child.wait(seconds)

    def close(self):
        self.child.kill()
        self.child.wait()
        for f in self.child.stdout, self.child.stderr:
            if f:
                f.close()


def full_pipe():
    """(reader, writer) of a pipe without room for another byte; its writer waits."""
    reader, writer = os.pipe()
    fcntl.fcntl(writer, fcntl.F_SETFL, os.O_NONBLOCK)
    try:
        while True:
            os.write(writer, b"x" * 4096)
    except BlockingIOError:
        pass
    fcntl.fcntl(writer, fcntl.F_SETFL, 0)
    return reader, writer


class Process(Case):
    def listen_as(self, *args, **options):
        return Child(self, *args, **options)

    def land(self, child, address=None):
        """Return the status of SHUT."""
        source = Source(address or child.address()).send(stream.whole(RAM, return_path=True))
        shut = source.shut()
        source.close()
        return shut

    # ---- the guest runs here, pages are missing, and something happens to the process ----

    def in_postcopy(self, args=(), **options):
        child = self.listen_as("--cap", "postcopy-ram", *args, **options)
        address = child.address()
        source = PostcopySource(address, RAM)
        source.answers = False
        source.begin().switch()
        wait_until("the guest to run here", lambda: 4 in source.pongs)
        source.page(b"pc.ram", 0)
        return child, address, source

    def lose_and_recover(self, child, address, source):
        """The network fails, and the source comes back and brings the rest: the guest has survived what happened
        before."""
        source.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        source.sock.shutdown(socket.SHUT_RDWR)
        source.close()
        time.sleep(0.2)
        self.assertIsNone(child.child.poll(), "the guest is lost")
        back = Source(address)
        back.send(struct.pack(">BHH", stream.COMMAND, RECV_BITMAP, 7) + str8(b"pc.ram") +
                  struct.pack(">BHH", stream.COMMAND, RESUME, 0))
        records = b"".join(self.record(offset) for offset in range(0, len(RAM[b"pc.ram"]), PAGE_BYTES))
        back.send(bytes([PART]) + be32(stream.RAM_ID) + records + be64(stream.EOS) + stream.footer(stream.RAM_ID) +
                  bytes([stream.END]) + be32(stream.RAM_ID) + be64(stream.EOS) + stream.footer(stream.RAM_ID) + b"\0")
        got = b""
        # Not by its messages: after the one with the bitmap come bytes that are in no message.
        while more := back.sock.recv(4096):
            got += more
            if got.endswith(struct.pack(">HHI", stream.SHUT, 4, 0)):
                break
        self.assertTrue(got.endswith(struct.pack(">HHI", stream.SHUT, 4, 0)), got)
        back.close()

    @staticmethod
    def record(offset):
        page = RAM[b"pc.ram"][offset:offset + PAGE_BYTES]
        zero = not any(page)
        return be64(offset | (stream.ZERO if zero else stream.PAGE)) + str8(b"pc.ram") + (b"\0" if zero else page)

    def test_a_log_whose_reader_has_gone_does_not_cost_the_guest(self):
        reader, writer = os.pipe()
        child, address, source = self.in_postcopy(stderr=writer)
        os.close(writer)
        os.close(reader)
        self.lose_and_recover(child, address, source)
        self.assertEqual(child.end(), 0)

    def test_a_log_that_nobody_drains_holds_nothing_up(self):
        reader, writer = full_pipe()
        child, address, source = self.in_postcopy(stderr=writer)
        os.close(writer)
        self.lose_and_recover(child, address, source)
        self.assertEqual(child.end(HELD_UP_SECONDS), 0)
        os.close(reader)

    def test_a_log_on_a_full_disk_does_not_cost_the_guest(self):
        with open("/dev/full", "wb") as full:
            child, address, source = self.in_postcopy(stderr=full)
            self.lose_and_recover(child, address, source)
            self.assertEqual(child.end(), 0)

    def test_a_terminal_that_goes_away_does_not_cost_the_guest(self):
        master, slave = pty.openpty()

        def own_terminal():
            os.setsid()
            fcntl.ioctl(slave, termios.TIOCSCTTY, 0)
        child, address, source = self.in_postcopy(stderr=slave, stdin=slave, preexec=own_terminal)
        os.close(slave)
        os.close(master)
        self.lose_and_recover(child, address, source)
        self.assertEqual(child.end(), 0)

    def test_a_terminal_whose_output_is_stopped_holds_nothing_up(self):
        master, slave = pty.openpty()
        child, address, source = self.in_postcopy(stderr=slave)
        termios.tcflow(slave, termios.TCOOFF)
        self.lose_and_recover(child, address, source)
        self.assertEqual(child.end(HELD_UP_SECONDS), 0)
        os.close(slave)
        os.close(master)

    def test_no_stray_signal_ends_a_guest_that_runs_here(self):
        child, address, source = self.in_postcopy()
        for sig in (signal.SIGHUP, signal.SIGPIPE, signal.SIGALRM, signal.SIGVTALRM, signal.SIGPROF, signal.SIGUSR2,
                    signal.SIGIO, signal.SIGPWR, signal.SIGSTKFLT, signal.SIGXCPU, signal.SIGXFSZ, signal.SIGTTOU, signal.SIGTTIN,
                    signal.SIGCHLD, signal.SIGWINCH, signal.SIGURG, signal.SIGCONT, signal.SIGRTMIN, signal.SIGRTMAX):
            child.child.send_signal(sig)
        self.lose_and_recover(child, address, source)
        self.assertEqual(child.end(), 0)
        self.assertIn(b"SIGHUP: the guest runs here and pages of it are missing; going on", child.said)

    # ---- standard output ----

    def is_listened_to(self):
        """A stranger comes and goes. (The socket exists before the program listens on it.)"""
        with socket.socket(socket.AF_UNIX) as stranger:
            return stranger.connect_ex(self.path("socket")) == 0

    def test_the_status_is_that_of_the_guest_when_nobody_reads_the_summary(self):
        for args in (), ("--guest", "touch=1,seconds=0.3", "--stats", self.path("stats")):
            reader, writer = os.pipe()
            child = self.listen_as(*args, stdout=writer)
            os.close(writer)
            address = os.read(reader, 200).split()[-1].decode()
            os.close(reader)
            self.assertEqual(self.land(child, address), 0)
            self.assertEqual((child.end(), child.said), (0, b""))

    def test_a_summary_that_finds_no_room_is_said_and_changes_nothing(self):
        path = "unix:" + self.path("socket")
        with open("/dev/full", "wb") as full:
            child = self.listen_as(uri=path, stdout=full)
            wait_until("the socket", self.is_listened_to)
            self.assertEqual(self.land(child, path), 0)
            self.assertEqual(child.end(), 0)
            self.assertIn(b"standard output: No space left", child.said)

    def test_a_summary_that_nobody_takes_is_given_up(self):
        path = "unix:" + self.path("socket")
        reader, writer = full_pipe()
        child = self.listen_as(uri=path, stdout=writer)
        os.close(writer)
        wait_until("the socket", self.is_listened_to)
        self.assertEqual(self.land(child, path), 0)
        self.assertEqual(child.end(HELD_UP_SECONDS), 0)
        self.assertIn(b"standard output: nobody reads it", child.said)
        os.close(reader)

    # ---- started again, or stopped ----

    def test_an_address_can_be_had_again_at_once_after_a_kill(self):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        for uri in f"tcp:127.0.0.1:{port}", "unix:" + self.path("socket"):
            for _ in range(5):
                first = self.listen_as(uri=uri)
                first.address()
                first.close()
                second = self.listen_as(uri=uri)
                second.address()
                second.child.terminate()
                second.child.wait()
                second.close()

    def test_an_address_that_is_really_taken_is_named(self):
        with socket.socket() as other:
            other.bind(("127.0.0.1", 0))
            other.listen()
            child = self.listen_as(uri="tcp:127.0.0.1:%d" % other.getsockname()[1])
            self.assertEqual(child.end(), 1)
            self.assertRegex(child.said, rb"tcp:127\.0\.0\.1:\d+: listening: Address already in use")

    def test_a_cancel_while_the_address_is_taken_is_heard(self):
        with socket.socket() as other:
            other.bind(("127.0.0.1", 0))
            other.listen()
            child = self.listen_as(uri="tcp:127.0.0.1:%d" % other.getsockname()[1])
            time.sleep(0.3)
            child.child.terminate()
            self.assertEqual(child.end(), 1)
            self.assertIn(b"cancelled", child.said)

    def test_a_source_that_spoke_while_the_process_was_stopped_is_in_time(self):
        data = stream.whole(RAM, return_path=True)
        for sent in 0, 3, 40:
            with self.subTest(sent=sent):
                child = self.listen_as("--param", "connect-deadline=1")
                source = Source(child.address()).send(data[:sent])
                time.sleep(0.2)
                child.child.send_signal(signal.SIGSTOP)
                source.send(data[sent:])
                time.sleep(1.5)
                child.child.send_signal(signal.SIGCONT)
                self.assertEqual(source.shut(), 0)
                source.close()
                self.assertEqual(child.end(), 0, child.said)

    def test_a_timeout_does_not_count_the_time_that_the_process_was_stopped(self):
        data = stream.whole(RAM, return_path=True)
        child = self.listen_as("--timeout", "3")
        source = Source(child.address()).send(data[:1000])
        time.sleep(0.2)
        child.child.send_signal(signal.SIGSTOP)
        source.send(data[1000:])
        time.sleep(4)
        child.child.send_signal(signal.SIGCONT)
        self.assertEqual(source.shut(), 0)
        source.close()
        self.assertEqual(child.end(), 0, child.said)

    def test_a_second_address_that_cannot_be_had_is_not_the_end(self):
        for uri in "nonsense", "tcp:127.0.0.1", "exec:cat", "file:/dev/null":
            child = self.listen_as("--cap", "postcopy-ram", "--recover-listen", uri)
            self.assertEqual(child.end(), 2)
            self.assertIn(b"--recover-listen", child.said)
        with socket.socket() as other:
            other.bind(("127.0.0.1", 0))
            other.listen()
            taken = "tcp:127.0.0.1:%d" % other.getsockname()[1]
            child, address, source = self.in_postcopy(args=("--recover-listen", taken))
            self.lose_and_recover(child, address, source)
            self.assertEqual(child.end(), 0)
            self.assertRegex(child.said, rb"--recover-listen: .*Address already in use")

    # ---- inherited signal settings ----

    def test_a_signal_that_the_parent_has_blocked_is_heard(self):
        def block():
            signal.pthread_sigmask(signal.SIG_BLOCK, range(1, 32))
        child = self.listen_as(preexec=block)
        child.address()
        child.child.terminate()
        self.assertEqual(child.end(), 1)
        self.assertIn(b"cancelled", child.said)

    def test_a_signal_that_the_parent_ignores_stays_ignored(self):
        def ignore():
            for sig in signal.SIGHUP, signal.SIGINT, signal.SIGQUIT:
                signal.signal(sig, signal.SIG_IGN)
        child = self.listen_as(preexec=ignore)
        address = child.address()
        for sig in signal.SIGHUP, signal.SIGINT, signal.SIGQUIT:
            child.child.send_signal(sig)
        self.assertEqual(self.land(child, address), 0)
        self.assertEqual(child.end(), 0)

    def test_a_hangup_before_a_source_is_there_is_a_cancel(self):
        child = self.listen_as()
        child.address()
        child.child.send_signal(signal.SIGHUP)
        self.assertEqual(child.end(), 1)
        self.assertIn(b"cancelled", child.said)

    def test_the_command_of_exec_is_reaped_where_the_parent_ignores_its_children(self):
        path = self.write("stream", stream.whole(RAM))

        def ignore():
            signal.signal(signal.SIGCHLD, signal.SIG_IGN)
        child = self.listen_as(uri=f"exec:cat {shlex.quote(path)}; exit 7", preexec=ignore)
        self.assertEqual(child.end(), 0)
        self.assertIn(b"the command of exec: ended with status 7", child.said)

    def test_the_command_of_exec_has_signals_as_a_command_expects_them(self):
        path = self.write("stream", stream.whole(RAM))
        child = self.listen_as(uri=f"exec:grep SigIgn /proc/self/status >{shlex.quote(self.path('ign'))}; "
                                   f"cat {shlex.quote(path)}")
        self.assertEqual(child.end(), 0, child.said)
        own = 3 << 31  # two signals of the C library, which a program cannot set
        self.assertEqual(int(self.read("ign").split()[1], 16) & ~own, 0)

    # ---- descriptors ----

    def test_a_descriptor_that_was_not_inherited_is_named(self):
        for fd in range(3, 10):
            child = self.listen_as(uri=f"fd:{fd}", close_fds=True)
            self.assertEqual(child.end(), 1)
            self.assertRegex(child.said, rb"^inmigrate: fd:%d: descriptor %d was not inherited \(EBADF\)" % (fd, fd))
        child = self.listen_as("--cap", "postcopy-ram", "--recover-listen", "fd:5")
        self.assertEqual(child.end(), 1)
        self.assertRegex(child.said, rb"^inmigrate: --recover-listen fd:5: descriptor 5 was not inherited")

    def test_the_descriptor_that_is_printed_to_is_no_source(self):
        for fd in 1, 2:
            child = self.listen_as(uri=f"fd:{fd}")
            self.assertEqual(child.end(), 1)
            self.assertIn(b"is where this program prints", child.said)

    def test_a_descriptor_from_which_no_stream_can_be_read_is_named(self):
        listening, connected = socket.socket(), socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)[0]
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        with listening, connected, socket.socket(type=socket.SOCK_DGRAM) as datagrams, open(
                self.path("out"), "wb") as out, open(os.open("/dev/null", os.O_PATH), "rb", closefd=True) as path:
            for fd, said in ((listening, b"a socket that listens"), (connected, b"a socket of messages"),
                             (datagrams, b"a socket of messages"), (out, b"not open for reading"),
                             (path, b"not open for reading")):
                child = self.listen_as(uri=f"fd:{fd.fileno()}", pass_fds=[fd.fileno()])
                self.assertIn(child.end(), (1, 2))
                self.assertRegex(child.said, rb"fd:%d: " % fd.fileno() + said)

    def test_standard_descriptors_that_are_closed_do_no_harm(self):
        path = self.write("stream", stream.whole(RAM))
        for closed in (0,), (1,), (2,), (0, 1, 2):
            def close():
                for fd in closed:
                    os.close(fd)
            with self.subTest(closed=closed):
                child = self.listen_as("--ram-dir", self.path("ram"), "--ram-backing", "memfd", "--stats",
                                       self.path("stats"), "-v", uri="file:" + path, preexec=close)
                self.assertEqual(child.end(), 0)
                self.assertEqual(self.read("ram/pc.ram.raw"), RAM[b"pc.ram"])
                self.assertEqual(json.loads(self.read("stats"))["status"], "completed")

    def test_standard_input_that_is_closed_is_no_source(self):
        child = self.listen_as(uri="fd:0", preexec=lambda: os.close(0))
        self.assertEqual(child.end(), 1)
        self.assertIn(b"descriptor 0 was not inherited", child.said)

    # ---- limits ----

    def limited(self, limit, value, *args, user=False, **options):
        def low():
            resource.setrlimit(limit, (value, value))
            if user:
                os.setgroups([])
                os.setgid(NOBODY)
                os.setuid(NOBODY)
        return self.listen_as(*args, preexec=low, **options)

    @unittest.skipIf(os.getuid() != 0, "only root can become somebody else")
    @unittest.skipIf(0 <= resource.getrlimit(resource.RLIMIT_MEMLOCK)[1] < 65536, "less than 64 KiB may be locked here")
    def test_little_locked_memory_is_enough_or_is_named(self):
        path = self.write("stream", stream.whole(RAM))
        os.chmod(self.folder, 0o755)
        child = self.limited(resource.RLIMIT_MEMLOCK, 65536, uri="file:" + path, user=True)
        self.assertEqual(child.end(), 0, child.said)
        child = self.limited(resource.RLIMIT_MEMLOCK, 4096, uri="file:" + path, user=True)
        if child.end():
            self.assertRegex(child.said, rb"locked memory \(RLIMIT_MEMLOCK, ulimit -l\)")

        def none():
            resource.setrlimit(resource.RLIMIT_MEMLOCK, (0, 0))
            os.setgid(NOBODY)
            os.setuid(NOBODY)
        said = subprocess.run([PROGRAM, "probe"], stdout=subprocess.PIPE, preexec_fn=none, check=False).stdout
        self.assertRegex(said, rb"(?m)^io_uring +(yes|no .*RLIMIT_MEMLOCK.*)$")

    def test_few_descriptors_are_named(self):
        for files in range(4, 14):
            child = self.limited(resource.RLIMIT_NOFILE, files)
            line = child.child.stdout.readline()
            if line:
                child.child.terminate()
                child.end()
                break
            self.assertEqual(child.end(), 1)
            self.assertRegex(child.said, rb"(?i)(open files|descriptor is left).*RLIMIT_NOFILE", files)
        else:
            self.fail("it never listened")

    def test_little_memory_of_ones_own_is_named(self):
        if has_sanitizer():
            self.skipTest("a sanitizer needs more memory itself")
        child = self.limited(resource.RLIMIT_DATA, 1 << 20)
        self.assertEqual(child.end(), 1)
        self.assertRegex(child.said, rb"\(RLIMIT_DATA is 1048576: ulimit -d, in KiB\)")
        self.assertNotIn(b"MEMLOCK", child.said)

    def test_a_file_that_may_not_be_long_enough_leaves_the_guest_to_the_source(self):
        child = self.limited(resource.RLIMIT_FSIZE, 8192, "--ram-dir", self.path("ram"))
        self.assertEqual(self.land(child), 1)
        self.assertEqual(child.end(), 1)
        self.assertRegex(child.said, rb"pc\.ram\.raw: File too large \(RLIMIT_FSIZE is 8192: ulimit -f")

    def test_memory_that_may_not_be_had_leaves_the_guest_to_the_source(self):
        child = self.limited(resource.RLIMIT_FSIZE, 8192, "--ram-backing", "memfd")
        self.assertEqual(self.land(child), 1)
        self.assertEqual(child.end(), 1)
        self.assertRegex(child.said, rb"block pc\.ram: File too large \(RLIMIT_FSIZE")
