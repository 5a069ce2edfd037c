"""The link as a program: status, signals, clean-up, its words, and what it says where it cannot work"""

import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import unittest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))

import netem                                # noqa: E402
from test_kit import LinkTest, command, run  # noqa: E402
from waiting import wait_until               # noqa: E402

MARK = "netem-test-mark"


def processes(mark):
    """Other processes with the mark in their environment."""
    found = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{pid}/environ", "rb") as f:
                text = f.read()
        except OSError:
            continue
        if mark.encode() in text and int(pid) != os.getpid():
            found.append(int(pid))
    return found


def end_processes(mark):
    for pid in processes(mark):
        os.kill(pid, signal.SIGKILL)


def namespaces():
    """The network namespaces of all visible processes."""
    found = set()
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            found.add(os.readlink(f"/proc/{pid}/ns/net"))
        except OSError:
            pass
    return found


class Usage(unittest.TestCase):
    """Needs no link: it reports what is wrong before it makes one."""

    WRONG = (
        (["--loss", "50"], "loss: '50' is not a percentage"),
        (["--loss", "150%"], "loss: '150%' is not a percentage"),
        (["--loss", "-1%"], "'-1%'"),
        (["--to-source-loss", "x%"], "'x%' is not a percentage"),
        (["--loss-burst", "5%"], "'5%' is not P,R[,H[,K]]"),
        (["--loss-burst", "1%,2%,3%,4%,5%"], "is not P,R[,H[,K]]"),
        (["--delay", "20"], "delay: '20' is not a time"),
        (["--delay", "1e3ms"], "'1e3ms' is not a time"),
        (["--delay", "99999999s"], "is not a time"),
        (["--rate", "10"], "rate: '10' is not a rate"),
        (["--rate", "10Mbyte"], "is not a rate"),
        (["--queue", "many"], "queue: 'many' is not a number of bytes"),
        (["--blackout", "1s+"], "blackout: '' is not a time"),
        (["--blackout", ",".join(["1s+1s"] * 65)], "more than 64"),
        (["--reorder", "5%"], "reorder needs a delay"),
        (["--down=1"], "down has no value"),
        (["--loss"], "no command|loss: '--' is not a percentage"),
        (["--frob", "1"], "there is no option --frob"),
        (["--to-nowhere-loss", "1%"], "there is no option --to-nowhere-loss"),
        (["--at", "home"], "--at is not 'home'"),
        (["--seed", "-1"], "--seed: '-1' is not a number"),
        (["--mtu", "20"], "--mtu: '20' is not a number from 68"),
        (["--source", "10.0.0.1"], "is not an address such as"),
        (["--source", "10.0.0.256/24"], "is not an IPv4 address"),
        (["--with", "tc", "--seed", "1"], "--with tc has no --seed"),
        (["true"], "'true' is no option"),
    )

    def test_wrong_options_are_named(self):
        for options, text in self.WRONG:
            with self.subTest(options):
                done = run(*options, "--", "true")
                self.assertEqual(done.returncode, 2, done.stderr)
                self.assertRegex(done.stderr, "^link: ")
                self.assertTrue(any(t in done.stderr for t in text.split("|")), done.stderr)

    def test_no_command(self):
        for arguments in ([], ["--loss", "1%"], ["--"]):
            done = run(*arguments)
            self.assertEqual((done.returncode, "no command" in done.stderr), (2, True), done.stderr)

    def test_help_names_every_option(self):
        done = run("--help")
        self.assertEqual(done.returncode, 0)
        for word in ("loss", "loss-burst", "delay", "jitter", "reorder", "duplicate", "corrupt", "rate", "queue", "blackout",
                     "down", "seed", "with", "at", "congestion", "control", "stats", "log", "enter", "tell", "mtu"):
            self.assertIn(f"--{word} ", done.stdout)

    def test_a_build_folder_without_a_link(self):
        done = subprocess.run([netem.LINK, "--build", "/nonexistent", "--help"], capture_output=True, text=True, check=False)
        self.assertEqual(done.returncode, 125)
        self.assertIn("/nonexistent/tests/netem/link is not there", done.stderr)


class Ends(LinkTest):
    """The end of the command is the end of the link, and of everything else."""

    def test_status_is_passed_on(self):
        for status in (0, 1, 7, 77, 255):
            self.assertEqual(run("--quiet", "--", "sh", "-c", f"exit {status}").returncode, status)

    def test_end_by_a_signal_is_passed_on(self):
        for number in (signal.SIGTERM, signal.SIGKILL, signal.SIGSEGV):
            self.assertEqual(run("--quiet", "--", "sh", "-c", f"kill -{int(number)} $$").returncode, -number)

    def test_commands_that_cannot_run(self):
        done = run("--quiet", "--", "/nonexistent/program")
        self.assertEqual(done.returncode, 127)
        self.assertIn("/nonexistent/program: No such file", done.stderr)
        self.assertEqual(run("--quiet", "--", "/dev").returncode, 126)

    def begin(self, script, *options, **more):
        """A link whose command has said "ready"."""
        process = subprocess.Popen(command("--quiet", *options, "--", "sh", "-c", script), stdin=subprocess.DEVNULL,
                                   stdout=subprocess.PIPE, text=True, **more)
        self.addCleanup(process.stdout.close)
        self.addCleanup(process.wait)
        self.addCleanup(process.kill)
        self.assertEqual(process.stdout.readline(), "ready\n")
        return process

    def test_signals_are_passed_to_the_command(self):
        for name in ("HUP", "INT", "QUIT", "TERM", "USR1", "USR2"):
            with self.subTest(name):
                process = self.begin(f'trap "exit 9" {name}; echo ready; while :; do sleep 0.02; done')
                process.send_signal(getattr(signal, f"SIG{name}"))
                self.assertEqual(process.wait(10), 9)

    def test_a_signal_that_is_not_caught_ends_both(self):
        process = self.begin("echo ready; exec sleep 100")
        process.terminate()
        self.assertEqual(process.wait(10), -signal.SIGTERM)

    def test_nothing_is_left(self):
        mark = f"{MARK}-{os.getpid()}-left"
        self.addCleanup(end_processes, mark)
        # Two that outlive their parent, one in a session of its own, and one at the other end.
        script = ('sleep 1000 & setsid sh -c "sleep 1000 & exec sleep 1000" & '
                  '"$NETEM_LINK" --enter source -- sleep 1000 & sleep 0.2; echo ready; '
                  'stat -Lc "net:[%i]" "$NETEM_SOURCE_NETNS" "$NETEM_DESTINATION_NETNS"; exit 3')
        process = self.begin(script, env={**os.environ, "MARK": mark})
        made = [process.stdout.readline().strip() for _ in range(2)]
        self.assertEqual(process.wait(10), 3)
        self.assertEqual(processes(mark), [])
        self.assertEqual(namespaces() & set(made), set())

    def test_a_link_that_is_killed_takes_its_command_along(self):
        mark = f"{MARK}-{os.getpid()}-killed"
        self.addCleanup(end_processes, mark)
        process = self.begin("echo ready; exec sleep 1000", env={**os.environ, "MARK": mark})
        wait_until("the link and its command", lambda: len(processes(mark)) == 2)
        process.kill()
        process.wait(10)
        wait_until("the command to die", lambda: not processes(mark))

    def test_the_control_socket_is_removed(self):
        with tempfile.TemporaryDirectory() as folder:
            path = os.path.join(folder, "control")
            done = run("--quiet", "--control", path, "--", "test", "-S", path)
            self.assertEqual((done.returncode, os.path.exists(path)), (0, False))

    def test_a_socket_that_is_there_already_is_left_alone(self):
        with tempfile.NamedTemporaryFile() as f:
            done = run("--control", f.name, "--", "true")
            self.assertEqual(done.returncode, 125)
            self.assertIn(f"cannot listen on {f.name}", done.stderr)
            self.assertTrue(os.path.exists(f.name))


class Words(LinkTest):
    """The environment of a command, control, statistics."""

    def test_where_the_command_runs(self):
        for where, address in (("source", "10.1.2.1"), ("destination", "10.1.2.2")):
            done = run("--quiet", "--at", where, "--source", "10.1.2.1/24", "--destination", "10.1.2.2/24", "--mtu", "1400",
                       "--", sys.executable, "-c", "import os, socket\n"
                       "s = socket.socket(); s.bind((os.environ['%s'], 0)); print(s.getsockname()[0])\n"
                       "print(open('/proc/net/dev').read().count('link0'))" % f"NETEM_{where.upper()}")
            self.assertEqual(done.stdout, f"{address}\n1\n", done.stderr)

    def test_the_other_end_by_enter_and_by_path(self):
        script = ('readlink /proc/self/ns/net; "$NETEM_LINK" --enter destination -- readlink /proc/self/ns/net; '
                  '"$NETEM_LINK" --enter source -- readlink /proc/self/ns/net; '
                  'stat -Lc "net:[%i]" "$NETEM_SOURCE_NETNS" "$NETEM_DESTINATION_NETNS"')
        here, here_again, other, source, destination = run("--quiet", "--", "sh", "-c", script).stdout.split()
        self.assertEqual((here, here_again, other), (destination, destination, source))
        self.assertNotEqual(source, destination)
        self.assertNotIn(os.readlink("/proc/self/ns/net"), (source, destination))

    def test_enter_outside_of_a_link(self):
        done = run("--enter", "source", "--", "true", env={"PATH": os.environ["PATH"]})
        self.assertEqual(done.returncode, 125)
        self.assertIn("NETEM_SOURCE_NETNS is not set", done.stderr)

    def test_tell(self):
        with tempfile.TemporaryDirectory() as folder:
            script = '"$NETEM_LINK" --tell "$NETEM_CONTROL" "loss 5%" down "to-source-delay 3ms" "blackout 1s" up'
            done = run("--quiet", "--control", os.path.join(folder, "c"), "--", "sh", "-c", script)
            self.assertEqual((done.returncode, done.stdout), (0, "ok\n" * 5), done.stderr)
            script = '"$NETEM_LINK" --tell "$NETEM_CONTROL" "loss 5" "reorder 5%" "up 1" "loss 1% 2%" stats; exit $?'
            done = run("--quiet", "--control", os.path.join(folder, "c"), "--", "sh", "-c", script)
        self.assertEqual(done.returncode, 1)
        self.assertEqual([line.split(":")[0] for line in done.stderr.splitlines()], ["error"] * 4)
        self.assertEqual(json.loads(done.stdout)["to-source"]["packets"], 0)

    def test_a_refused_word_changes_nothing(self):
        with self.link() as link:
            for line in ("reorder 5%", "to-source-reorder 5%", "loss 101%", "frob 1", "loss", "x" * 400):
                with self.assertRaises(netem.Failed):
                    link.tell(line)
            # It would be refused again if the earlier reorder had stayed.
            self.assertEqual(link.tell("loss 1%"), "ok")

    def test_a_client_that_talks_nonsense_is_shown_out(self):
        with self.link() as link:
            stranger = netem.socket.socket(netem.socket.AF_UNIX)
            with stranger:
                stranger.connect(link.environment["NETEM_CONTROL"])
                stranger.sendall(b"x" * 5000)
                stranger.settimeout(5)
                try:
                    self.assertEqual(stranger.recv(1), b"")
                except ConnectionResetError:
                    pass
            self.assertEqual(link.tell("up"), "ok")

    def test_statistics_as_text(self):
        script = "import os, socket\ns = socket.socket(type=socket.SOCK_DGRAM)\n" \
            "for n in range(10): s.sendto(b'x', (os.environ['NETEM_SOURCE'], 7))"
        done = run("--seed", "5", "--loss", "100%", "--", sys.executable, "-c", script)
        self.assertIn("to-source: 10 packets (290 bytes), 0 delivered, 10 lost\n", done.stderr)
        self.assertIn("--seed 5\n", done.stderr)
        self.assertRegex(run("--", "true").stderr, r"--seed \d+\n")

    def test_popen_and_run_at_either_end(self):
        with self.link() as link:
            sleeper = link.popen("source", ["sleep", "1000"])
            for where in ("source", "destination"):
                done = link.run(where, ["sh", "-c", "cat; readlink /proc/self/ns/net"], data=b"x")
                self.assertEqual(done.stdout.decode(), f"xnet:[{os.stat(link.netns[where]).st_ino}]\n")
        self.assertEqual(sleeper.returncode, -signal.SIGKILL)


class NotHere(LinkTest):
    """If there can be no link it says what is missing, with status 77."""

    def within(self, setup, *how):
        """The link inside a shell that has first taken something away."""
        script = f'{setup} || exit 99; exec "$@"'
        done = subprocess.run([*how, "sh", "-c", script, "sh", *command("--quiet", "--", "true")], check=False,
                              capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=20)
        if done.returncode in (1, 99):
            self.skipTest(f"cannot be tried here: {done.stderr.strip()}")
        return done

    def test_no_tun(self):
        done = self.within("mount -t tmpfs none /dev/net", "unshare", "-m")
        self.assertEqual(done.returncode, netem.NOT_HERE_STATUS, done.stderr)
        self.assertIn("/dev/net/tun does not open (No such file or directory): the kernel module 'tun'", done.stderr)

    def test_no_namespaces(self):
        done = self.within("echo 0 >/proc/sys/user/max_net_namespaces", "unshare", "-Ur")
        self.assertEqual(done.returncode, netem.NOT_HERE_STATUS, done.stderr)
        self.assertIn("may make no network namespace", done.stderr)

    def test_no_right_and_no_user_namespaces(self):
        done = self.within("echo 0 >/proc/sys/user/max_user_namespaces && set -- setpriv --bounding-set=-sys_admin "
                           '--inh-caps=-sys_admin "$@"', "unshare", "-Ur")
        self.assertEqual(done.returncode, netem.NOT_HERE_STATUS, done.stderr)
        self.assertIn("this needs root, or user namespaces", done.stderr)

    def test_what_we_ask_wrongly_is_a_failure(self):
        """Otherwise a fault in the link would skip everything that uses it. A broadcast address has no route."""
        for address, words in (("224.0.0.1/30", "cannot set up TUN device link0 with 224.0.0.1/30 (Invalid argument)"),
                               ("255.255.255.255/30", "cannot set the congestion control (Invalid argument)")):
            done = run("--quiet", "--with", "tun", "--source", address, "--congestion", "cubic", "--", "true")
            self.assertEqual((done.returncode, done.stderr), (125, f"link: {words}\n"))

    def test_what_we_have_too_little_of_is_a_failure(self):
        # The program itself: a shell wants a descriptor of its own.
        program, said = run("--quiet", "--", "sh", "-c", 'printf %s "$NETEM_LINK"').stdout, ""
        for limit in range(4, 12):
            done = subprocess.run(["sh", "-c", f'ulimit -n {limit}; exec "$@"', "sh", program, "--quiet", "--with", "tun", "--", "true"],
                                  check=False, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=20)
            self.assertNotEqual(done.returncode, netem.NOT_HERE_STATUS, done.stderr)
            said += done.stderr
        for words in ("cannot start its loopback", "/dev/net/tun does not open", "cannot set up TUN device"):
            self.assertRegex(said, f"link: .*{words}.*Too many open files")

    def test_without_rights_but_with_user_namespaces(self):
        done = self.within('set -- setpriv --bounding-set=-sys_admin --inh-caps=-sys_admin "$@"', "unshare", "-Ur")
        self.assertEqual(done.returncode, 0, done.stderr)


class Tc(LinkTest):
    """With a tc that only notes its arguments: the rest is real, including the veth pair."""

    SCRIPT = """
import os, socket, subprocess
s = socket.socket(type=socket.SOCK_DGRAM)
s.bind((os.environ["NETEM_DESTINATION"], 7000))
s.settimeout(5)
subprocess.run([os.environ["NETEM_LINK"], "--enter", "source", "--", "python3", "-c", "import os, socket; "
    "socket.socket(type=socket.SOCK_DGRAM).sendto(b'hello', (os.environ['NETEM_DESTINATION'], 7000))"])
print(*s.recvfrom(100), subprocess.check_output(["ip", "link", "show", "link0"], text=True))
"""

    def run_with_tc(self, status, *arguments):
        with tempfile.TemporaryDirectory() as folder:
            with open(os.path.join(folder, "tc"), "w", encoding="utf-8") as f:
                f.write(f'#!/bin/sh\necho "$@" >>{shlex.quote(folder)}/log\nexit {status}\n')
            os.chmod(os.path.join(folder, "tc"), 0o755)
            if not os.access(os.path.join(folder, "tc"), os.X_OK):
                self.skipTest("nothing below TMPDIR can be executed")
            done = run(*arguments, env={**os.environ, "PATH": f"{folder}:{os.environ['PATH']}"})
            with open(os.path.join(folder, "log"), encoding="utf-8") as f:
                return done, f.read().splitlines()

    def test_the_kernel_is_told_what_was_asked(self):
        if not shutil.which("ip"):
            self.skipTest("no program ip")
        done, said = self.run_with_tc(
            0, "--with", "tc", "--loss", "1%", "--delay", "20ms", "--jitter", "5ms", "--to-source-loss", "0%", "--reorder",
            "25%", "--to-source-loss-burst", "1%,25%,0%,100%", "--duplicate", "2%", "--corrupt", "0.5%", "--rate", "10Mbit",
            "--", sys.executable, "-c", self.SCRIPT)
        if "Unknown device type" in done.stderr or "not supported" in done.stderr:
            self.skipTest(f"no veth: {done.stderr.strip()}")
        self.assertEqual((done.returncode, done.stdout[:8]), (0, "b'hello'"), done.stderr)
        self.assertIn("'10.77.0.1'", done.stdout)
        self.assertIn("NOARP", done.stdout)
        rest = "duplicate 2.000000% corrupt 0.500000% reorder 25.000000% rate 10000000bit"
        self.assertEqual(said[2:], [
            "qdisc add dev link0 root netem limit 121 delay 20000.000us 5000.000us loss random 1.000000% " + rest,
            "qdisc add dev link0 root netem limit 121 delay 20000.000us 5000.000us "
            "loss gemodel 1.000000% 25.000000% 100.000000% 0.000000% " + rest])

    def test_auto_takes_tun_without_netem_and_says_so(self):
        done, said = self.run_with_tc(2, "--verbose", "--", "true")
        self.assertEqual(done.returncode, 0)
        self.assertEqual(len(said), 1)
        self.assertIn("by TUN: the kernel has no netem", done.stderr)

    def test_tc_without_netem_is_not_here(self):
        done, _ = self.run_with_tc(2, "--with", "tc", "--", "true")
        self.assertEqual(done.returncode, netem.NOT_HERE_STATUS)
        self.assertIn("this kernel has no netem", done.stderr)


if __name__ == "__main__":
    unittest.main()
