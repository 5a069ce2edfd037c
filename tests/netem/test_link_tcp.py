"""TCP at the ends of a link does what the tests set, not what the machine prefers"""

import os
import socket
import subprocess
import sys
import unittest
from unittest import mock

import netem
import tcp
import test_kit
from test_kit import LinkTest, run

PORT = 7002
CONGESTION_BYTES = 16       # TCP_CA_NAME_MAX


def congestion_of(s):
    return s.getsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, CONGESTION_BYTES).rstrip(b"\0").decode()


class Congestion(LinkTest):
    """By the route: a namespace may be forbidden to set it (tcp_allowed_congestion_control)."""

    def at_both_ends(self, name):
        with self.link(options=("--congestion", name)) as link:
            with link.socket("destination") as server, link.socket("source") as client:
                server.bind((link.destination, PORT))
                server.listen()
                client.connect((link.destination, PORT))
                accepted, _ = server.accept()
                with accepted:
                    return congestion_of(client), congestion_of(accepted)

    def test_both_ends_take_what_is_asked_for(self):
        for name in ("cubic", "reno"):
            self.assertEqual(self.at_both_ends(name), (name, name))

    def test_bbr(self):
        try:
            self.assertEqual(self.at_both_ends("bbr"), ("bbr", "bbr"))
        except netem.NotHere as e:
            self.assertIn("this kernel has no congestion control 'bbr'", str(e))
            raise

    def test_one_that_the_kernel_does_not_have_is_named(self):
        for name in ("nonesuch", "one-that-is-longer-than-the-kernel-allows"):
            done = run("--quiet", "--with", "tun", "--congestion", name, "--", "true")
            self.assertEqual(done.returncode, netem.NOT_HERE_STATUS)
            self.assertIn(f"link: this kernel has no congestion control '{name}'", done.stderr)

    def test_the_queue_is_no_matter_of_the_machine_s_default(self):
        """fq, which is a default in some places, drops all packets of a connection after the hundredth. A default queue
        has no handle."""
        with self.link() as link:
            for where in ("source", "destination"):
                done = link.run(where, [sys.executable, "-c", QDISC])
                self.assertRegex(done.stdout.decode(), "^pfifo_fast [1-9]", done.stderr)


# What the kernel reports about the queue of link0: RTM_GETQDISC, and those of its answers that have TCA_KIND.
QDISC = """
import socket, struct
s = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0)
s.send(struct.pack("=IHHII", 36, 38, 0x301, 1, 0) + struct.pack("=BxxxiIII", 0, 0, 0, 0, 0))
index, data = socket.if_nametoindex("link0"), s.recv(65536)
while len(data) >= 16:
    length, kind = struct.unpack_from("=IH", data)
    if kind == 36 and struct.unpack_from("=i", data, 20)[0] == index:
        bytes_, what = struct.unpack_from("=HH", data, 36)
        assert what == 1
        print(data[40:36 + bytes_].rstrip(bytes(1)).decode(), struct.unpack_from("=I", data, 24)[0])
    data = data[(length + 3) & ~3:]
"""


class Settings(LinkTest):
    def read(self, link, where, name):
        return link.run(where, ["cat", tcp.PLACE + name]).stdout.decode().split()

    def test_they_are_at_both_ends_what_the_table_says(self):
        with self.link() as link:
            lacking = tcp.settle(link)
            for where in ("source", "destination"):
                for name in sorted(set(tcp.SYSCTLS) - lacking):
                    self.assertEqual(self.read(link, where, name), str(tcp.SYSCTLS[name]).split(), name)
        # Every kernel has these.
        self.assertFalse(lacking & {"tcp_rmem", "tcp_wmem", "tcp_sack", "tcp_retries2", "tcp_syn_retries", "ip_local_port_range"})

    def test_the_machine_s_own_stay_as_they_are(self):
        def all_here():
            return {name: open(tcp.PLACE + name, encoding="ascii").read() for name in tcp.OURS if os.path.exists(tcp.PLACE + name)}
        before = all_here()
        with self.link() as link:
            tcp.settle(link)
            self.assertEqual(all_here(), before)

    def test_one_that_the_kernel_lacks_is_named(self):
        with mock.patch.dict(tcp.SYSCTLS, {"tcp_nonesuch": 1}), self.link() as link:
            self.assertIn("tcp_nonesuch", tcp.settle(link))
        self.assertIn("2 of ", tcp.missing({"tcp_nonesuch", "tcp_retries2"}))
        self.assertIn(", tcp_retries2 among them", tcp.missing({"tcp_nonesuch", "tcp_retries2"}))
        self.assertEqual(tcp.missing(()), "")

    def test_one_that_the_kernel_refuses_is_a_failure(self):
        with mock.patch.dict(tcp.SYSCTLS, {"tcp_synack_retries": 1000}), self.link() as link:
            with self.assertRaisesRegex(netem.Failed, r"tcp_synack_retries is '\d+', and does not become '1000'"):
                tcp.settle(link)

    def test_where_they_may_not_be_written_there_is_no_bed(self):
        """As in a container with a read-only /proc/sys: there the machine's own settings would apply."""
        script = (f"import sys; sys.path.insert(0, {os.path.dirname(os.path.abspath(__file__))!r})\n"
                  "import netem, tcp\n"
                  f"with netem.Link(build={test_kit.BUILD!r}) as link:\n"
                  "    try: tcp.settle(link)\n"
                  "    except netem.NotHere as e: print(e)\n")
        done = subprocess.run(["unshare", "--mount", "sh", "-c", 'mount --bind /proc/sys /proc/sys && '
                               'mount -o remount,bind,ro /proc/sys && exec "$0" -c "$1"', sys.executable, script],
                              capture_output=True, text=True, check=False, timeout=60)
        if "mount" in done.stderr:
            self.skipTest("may not mount: " + done.stderr.strip()[-100:])
        self.assertRegex(done.stdout, "^/proc/sys/net/ipv4/ may not be written: tcp_", done.stderr)


if __name__ == "__main__":
    unittest.main()
