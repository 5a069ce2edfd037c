"""stream.py - small migration streams, and a source that plays them

They are what a source would put on the main channel (doc/wire/stream.md): a header, RAM in one round, one device. Names
and lengths are taken as given, so a test can tell any lie.
"""

import json
import socket
import struct
import time

from waiting import PATIENT_SECONDS

PAGE_BYTES = 4096
RAM_ID = 2

# 1.4, 2, 4
FULL, START, END, VMDESC, CONFIG, COMMAND, FOOTER = 0x04, 0x01, 0x03, 0x06, 0x07, 0x08, 0x7e
OPEN_RETURN_PATH, PING = 1, 2
MEM_SIZE, ZERO, PAGE, EOS = 0x004, 0x002, 0x008, 0x010
SHUT, PONG = 1, 2


def be32(n):
    return struct.pack(">I", n)


def be64(n):
    return struct.pack(">Q", n)


def str8(name):
    return bytes([len(name)]) + name


def footer(section_id):
    return bytes([FOOTER]) + be32(section_id)


def begin(machine=b"pc-i440fx-7.2", return_path=False):
    out = be32(0x5145564d) + be32(3) + bytes([CONFIG]) + be32(len(machine)) + machine
    if return_path:
        out += struct.pack(">BHH", COMMAND, OPEN_RETURN_PATH, 0)
        out += struct.pack(">BHHI", COMMAND, PING, 4, 1)
    return out


def block_list(blocks):
    out = bytes([START]) + be32(RAM_ID) + str8(b"ram") + be32(0) + be32(4)
    out += be64(sum(len(content) for content in blocks.values()) | MEM_SIZE)
    for name, content in blocks.items():
        out += str8(name) + be64(len(content))
    return out + be64(EOS) + footer(RAM_ID)


def pages(blocks):
    out = [bytes([END]) + be32(RAM_ID)]
    for name, content in blocks.items():
        for at in range(0, len(content), PAGE_BYTES):
            page = content[at:at + PAGE_BYTES]
            zero = not any(page)
            out.append(be64(at | (ZERO if zero else PAGE)) + str8(name) + (b"\0" if zero else page))
    out.append(be64(EOS) + footer(RAM_ID))
    return b"".join(out)


def tail(device=b"timer"):
    """One device, and its description."""
    state = be64(0x1122334455667788)
    text = json.dumps({"page_size": PAGE_BYTES, "devices": [{
        "name": device.decode("latin-1"), "instance_id": 0, "vmsd_name": "x", "version": 2,
        "fields": [{"name": "ticks", "type": "uint64", "size": 8}]}]}).encode()
    return (bytes([FULL]) + be32(10) + str8(device) + be32(0) + be32(2) + state + footer(10) +
            b"\0" + bytes([VMDESC]) + be32(len(text)) + text)


def content(length, seed=1):
    """Pages that all differ, except that some are zero."""
    out = bytearray()
    for number in range(length // PAGE_BYTES):
        out += bytes(PAGE_BYTES) if number % 4 == 3 else struct.pack("<II", seed, number) * (PAGE_BYTES // 8)
    return bytes(out)


def whole(blocks, return_path=False, machine=b"pc-i440fx-7.2", device=b"timer"):
    return begin(machine, return_path) + block_list(blocks) + pages(blocks) + tail(device)


# ---- element by element: what sources of other machines or releases send ----

PART, SUBSECTION = 0x02, 0x05
CONTINUE = 0x020
LISTEN, RUN, PACKAGED, ADVISE, DISCARD = 4, 5, 7, 3, 6


def be16(n):
    return struct.pack(">H", n)


def command(number, payload=b""):
    return bytes([COMMAND]) + be16(number) + be16(len(payload)) + payload


def subsection(name, body, version=1):
    return bytes([SUBSECTION]) + str8(name) + be32(version) + body


def section(kind, number, name, version, body, footers=True):
    """START or FULL."""
    return (bytes([kind]) + be32(number) + str8(name) + be32(0) + be32(version) + body +
            (footer(number) if footers else b""))


def part(number, body, kind=PART, footers=True):
    return bytes([kind]) + be32(number) + body + (footer(number) if footers else b"")


def described(*devices):
    """EOF and the description of devices of one opaque field: (name, version, bytes)."""
    text = json.dumps({"page_size": PAGE_BYTES, "devices": [{
        "name": name.decode(), "instance_id": 0, "vmsd_name": "x", "version": version,
        "fields": [{"name": "data", "type": "buffer", "size": size}]} for name, version, size in devices]}).encode()
    return b"\0" + bytes([VMDESC]) + be32(len(text)) + text


def package(*devices, after=b""):
    """(id, name, version, body)"""
    inside = command(LISTEN) + b"".join(section(FULL, *device) for device in devices) + after + command(RUN)
    return command(PACKAGED, be32(len(inside))) + inside


class Source:
    """A connection to a destination at "tcp:HOST:PORT" or "unix:PATH"."""

    def __init__(self, address, seconds=PATIENT_SECONDS):
        kind, where = address.split(":", 1)
        self.sock = socket.socket(socket.AF_UNIX if kind == "unix" else socket.AF_INET)
        # A stopped process reads nothing: the kernel must hold a whole stream, whatever tcp_wmem is.
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
        self.sock.settimeout(seconds)
        self.sock.connect(where if kind == "unix" else (where.rsplit(":", 1)[0], int(where.rsplit(":", 1)[1])))
        self.seconds = seconds

    def send(self, data):
        try:
            self.sock.sendall(data)
        except (BrokenPipeError, ConnectionResetError):
            pass  # it has refused the stream: its messages say why
        return self

    def replies(self):
        """(type, payload) of all messages until the other side closes or sends SHUT."""
        got, found = b"", []
        end = time.monotonic() + self.seconds
        while time.monotonic() < end:
            while len(got) >= 4 and len(got) >= 4 + struct.unpack(">H", got[2:4])[0]:
                kind, length = struct.unpack(">HH", got[:4])
                found.append((kind, got[4:4 + length]))
                got = got[4 + length:]
                if kind == SHUT:
                    return found
            try:
                more = self.sock.recv(4096)
            except ConnectionResetError:
                return found
            if not more:
                return found
            got += more
        raise AssertionError("the destination neither answers nor closes")

    def shut(self):
        """The status of SHUT; None if there was none."""
        status = [struct.unpack(">I", payload)[0] for kind, payload in self.replies() if kind == SHUT]
        return status[0] if status else None

    def close(self):
        self.sock.close()
