"""When the network loses a connection, the program says that it was lost, and not that somebody was slow"""

import os
import sys
import tempfile
import types
import unittest

sys.path.append(os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "program"))

import bed as beds
import netem
import qemu
import stream
import test_kit
from test_kit import LinkTest

SECONDS = 60
TLS_BEGUN = b"\x16\x03\x01\x02\x00"     # of a message; the rest does not come
HEADER_BEGUN = b"QEVM\0\0\0\x03\x07"      # and a configuration, of which nothing comes


class Lost(LinkTest):
    """The set-up's deadline is far away (PATIENT), TCP's is near (SOON)."""

    def setUp(self):
        super().setUp()
        self.program = os.environ.get("TEST_PROGRAM") or \
            os.path.join(test_kit.BUILD or os.path.join(netem.HERE, "..", "..", "build"), "inmigrate")
        if not os.access(self.program, os.X_OK):
            self.skipTest(f"no program {self.program}")
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = folder.name

    def said_of(self, begun, params=None, tls=None, caps=()):
        """What it says when the network ends after these bytes."""
        with beds.Bed(types.SimpleNamespace(build=test_kit.BUILD), seed=1) as bed:
            destination = beds.Destination(self.folder, self.program, bed, "", False, 2 * SECONDS)
            self.addCleanup(destination.close)
            destination.start(caps, {**beds.SOON, **(params or {})}, tls)
            with bed.link.socket("source") as source:
                source.connect((netem.Link.destination, beds.PORT))
                source.sendall(begun)
                qemu.wait_until("the bytes to arrive", lambda: bed.tap.spoken, SECONDS)
                bed.link.down()
                qemu.wait_until("it to be noticed", lambda: destination.said("closed: ") or
                                destination.process.exited() is not None, SECONDS)
            return destination.errors()

    def test_in_a_handshake(self):
        certs = os.path.join(self.folder, "certs")
        beds.make_certs(certs)
        if not os.path.isdir(certs):
            self.skipTest("no certificates: openssl is not installed")
        said = self.said_of(TLS_BEGUN, {"tls-creds-type": "x509"}, os.path.join(certs, "server"))
        self.assertIn("closed: in the TLS handshake: the connection was lost: ", said)
        self.assertNotIn("deadline", said)

    def test_in_the_beginning_of_a_stream(self):
        self.assertIn("closed: the connection was lost: ", self.said_of(HEADER_BEGUN))

    def test_before_it_has_said_what_it_is(self):
        self.assertIn("closed: the connection was lost: ", self.said_of(HEADER_BEGUN[:3]))

    def test_in_the_state_of_devices(self):
        """When silence means that the two sides have different settings."""
        ram = {b"pc.ram": stream.content(64 * 1024)}
        begun = stream.begin(return_path=True) + stream.block_list(ram) + stream.pages(ram) + stream.section(
            stream.FULL, 10, b"timer", 2, b"abcd")
        said = self.said_of(begun, caps=("return-path",))
        self.assertIn("the connection was lost", said)
        self.assertNotIn("send-section-footer", said)


if __name__ == "__main__":
    unittest.main()
