"""How much a source makes the program hold and write, besides the guest: SECURITY.md, "Budgets"."""

import json
import struct
import unittest

import stream
from program import Case
from stream import Source, be32, be64, footer, str8

MIB = 1 << 20
RAM = {b"pc.ram": stream.content(64 * 1024)}
RESUME = struct.pack(">BHH", stream.COMMAND, 9, 0)


def peak_bytes(pid):
    with open(f"/proc/{pid}/status") as f:
        return next(int(line.split()[1]) * 1024 for line in f if line.startswith("VmHWM:"))


def tail(devices):
    """Sections made of (name, body, fields), and their description."""
    out, described = b"", []
    for number, (name, body, fields) in enumerate(devices):
        out += bytes([stream.FULL]) + be32(10 + number) + str8(name) + be32(0) + be32(1) + body + footer(10 + number)
        described.append({"name": name.decode(), "instance_id": 0, "vmsd_name": "x", "version": 1, "fields": fields})
    text = json.dumps({"page_size": stream.PAGE_BYTES, "devices": described}).encode()
    return out + b"\0" + bytes([stream.VMDESC]) + be32(len(text)) + text


TICKS = [{"name": "ticks", "type": "uint64", "size": 8}]


class Budgets(Case):
    def land(self, devices):
        """It lands, and writes the JSON. Return the program's peak of memory, and the JSON's devices."""
        listen = self.listen("tcp:127.0.0.1:0", "--cap", "return-path", "--devices", self.path("devices"))
        source = Source(listen.address())
        source.send(stream.begin(return_path=True) + stream.block_list(RAM) + stream.pages(RAM) + tail(devices))
        self.assertEqual(source.shut(), 0)
        peak = peak_bytes(listen.child.pid)  # it waits for the source to close
        source.close()
        self.assertEqual(listen.end(), 0, listen.err)
        return peak, json.loads(self.read("devices"))["devices"]

    def test_a_description_that_expands_without_end_is_shown_as_hex(self):
        plain, _ = self.land([(b"timer", be64(7), TICKS)])
        nothing = {"array_len": 1000000, "size": 0}
        nested = {"vmsd_name": "y", "version": 0, "fields": [{"name": "y", "type": "bool", **nothing}]}
        bombs = {
            "opaque": [{"name": "x", "type": "t", **nothing}],
            "structures": [{"name": "x", "type": "struct", "struct": nested, **nothing}],
            "many fields": [{"name": "x", "type": "t", **nothing}] * 50,
        }
        for what, fields in bombs.items():
            with self.subTest(what=what):
                devices = [(b"timer", be64(7), TICKS)] + [(b"d%d" % n, b"", fields) for n in range(20)]
                peak, shown = self.land(devices + [(b"last", be64(8), TICKS)])
                self.assertLess(peak, plain + 32 * MIB)
                self.assertEqual(len(shown), 22)
                self.assertEqual([d["state"] for d in (shown[0], shown[-1])], [{"ticks": 7}, {"ticks": 8}])
                for device in shown[1:-1]:
                    self.assertEqual((device["note"], device["hex"]), ("too many values for so few bytes", ""))

    def test_what_a_source_says_in_vain_is_not_logged_each_time(self):
        listen = self.listen("tcp:127.0.0.1:0", "--cap", "return-path")
        source = Source(listen.address())
        source.send(stream.begin(return_path=True) + RESUME * 100000 + stream.block_list(RAM) + stream.pages(RAM) +
                    stream.tail())
        self.assertEqual(source.shut(), 0)
        source.close()
        self.assertEqual(listen.end(), 0, listen.err)
        self.assertLess(len(listen.err), 10000)
        self.assertRegex(listen.err, rb"stream: \d+ more lines like this were not logged")


if __name__ == "__main__":
    unittest.main()
