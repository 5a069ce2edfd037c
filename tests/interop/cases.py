"""cases.py - the cases of tests/interop/run, as data"""

import dataclasses
import json
import os
import re
import shlex
import shutil
import socket
import struct
import subprocess
import time

import hugepages
from qemu import Failed, HERE, MIB, PATIENT_SECONDS, Skipped, wait_until

FAST = 8 << 30      # bytes a second: no limit that matters
UUID = "00112233-4455-6677-8899-aabbccddeeff"
OTHER_UUID = "00112233-4455-6677-8899-aabbccddee00"


# ---- transports: start the destination, begin the migration ----

def tcp(run):
    run.listen("tcp:127.0.0.1:0")
    run.migrate(run.destination.address())


def tcp6(run):
    try:
        with socket.socket(socket.AF_INET6) as s:
            s.bind(("::1", 0))
    except OSError as e:
        raise Skipped(f"no IPv6: {e}") from None
    run.listen("tcp:[::1]:0")
    run.migrate(run.destination.address())


def unix(run):
    run.listen("unix:" + run.path("socket"))
    run.migrate(run.destination.address())


def exec_fifo(run):
    """A command's output at both ends; tee keeps the stream."""
    fifo = run.path("fifo")
    run.stream_path = run.path("stream")
    os.mkfifo(fifo)
    run.listen(f"exec:cat {shlex.quote(fifo)}")
    run.migrate(f"exec:tee {shlex.quote(run.stream_path)} > {shlex.quote(fifo)}")


def file_by_exec(run):
    run.stream_path = run.path("stream")
    run.migrate(f"exec:cat > {shlex.quote(run.stream_path)}")
    run.source.wait_status("completed")
    run.listen("file:" + run.stream_path)


def file_offset(run):
    run.stream_path, run.stream_offset = run.path("stream"), 12288
    uri = f"file:{run.stream_path},offset={run.stream_offset}"
    run.migrate(uri)
    run.source.wait_status("completed")
    run.listen(uri)


def descriptor(run):
    """Both ends get a connected socket: ours by inheritance, QEMU's by QMP."""
    ours, theirs = socket.socketpair(socket.AF_UNIX)
    with ours, theirs:
        run.listen(f"fd:{ours.fileno()}", pass_fds=(ours.fileno(),))
        run.source.qmp.command("getfd", fdname="mig", _fd=theirs.fileno())
    run.migrate("fd:mig")


def refused_first(run, uri="tcp:127.0.0.1:0"):
    """First a source that must be refused, then the right one: the destination must name the reason and go on
    listening."""
    if run.options.reference:
        raise Skipped("the reference does not say why")
    run.listen(uri, verbose=True)
    run.source.set(params=run.case.wrong)
    run.source.migrate(run.destination.address())
    run.source.wait_status("failed", seconds=PATIENT_SECONDS)
    wait_until(f"a refusal with '{run.case.refused}'", lambda: re.search(
        rf"^\S.*connection from .* closed: .*(?:{run.case.refused})", run.destination.errors(), re.M), PATIENT_SECONDS)
    run.destination.check_alive()
    source_runs(run)
    run.source.set(params=run.case.params)
    run.migrate(run.destination.address())


def refused_first_unix(run):
    refused_first(run, "unix:" + run.path("socket"))


# ---- during the migration ----

def faster(run):
    """Let it end, however slowly this machine compresses: its guest may stand still for the rest."""
    run.source.set(params={"max-bandwidth": FAST, "downtime-limit": 60000})


def reached(run, group, member, value, seconds=PATIENT_SECONDS):
    """Wait until a number in query-migrate is above value; groups are absent at the beginning."""
    def above():
        run.destination.check_alive()
        info = run.source.info()
        if info.get(group, {}).get(member, 0) > value:
            return True
        if run.turns and info.get("status") == "active":
            run.turns.next()
        if info.get("status") in run.source.ENDS:
            raise Failed(f"the migration was {info['status']} before {group}.{member} was above {value}")
        return False
    wait_until(f"{group}.{member} above {value}", above, seconds)


def many_rounds(run):
    reached(run, "ram", "dirty-sync-count", 5)
    faster(run)


def until_xbzrle(run):
    reached(run, "xbzrle-cache", "pages", 500)
    faster(run)


def under_way(run):
    reached(run, "ram", "transferred", MIB)


def pause_then_continue(run):
    run.source.wait_status("pre-switchover", seconds=PATIENT_SECONDS)
    time.sleep(2)
    run.destination.check_alive()
    run.source.qmp.command("migrate-continue", state="pre-switchover")


def cancel(run):
    under_way(run)
    run.source.qmp.command("migrate_cancel")


def kill_destination(run):
    under_way(run)
    run.destination.process.close()
    run.source.wait_status("failed", seconds=PATIENT_SECONDS)


# ---- afterwards ----

def source_runs(run):
    wait_until("the source's guest to run", run.source.running, PATIENT_SECONDS)
    before = run.source.heartbeats()
    wait_until("the source's guest to go on", lambda: run.source.heartbeats() > before, PATIENT_SECONDS)


def compressed_pages_sent(run):
    if run.source.info().get("compression", {}).get("pages", 0) == 0:
        raise Failed("the source sent no compressed page")


def throttled(run):
    if run.source.info()["ram"]["dirty-sync-count"] <= 5:
        raise Failed("the source made no more than five rounds")


# ---- the host ----

def reserve_huge_pages(run, wanted):
    """2 MiB pages, until huge_pages_back(); others that need some wait meanwhile."""
    run.huge = hugepages.huge_pages(wanted)
    free = run.huge.__enter__()
    # Those of the previous case may be on their way back.
    end = time.monotonic() + 2
    while 0 < free < wanted and time.monotonic() < end:
        time.sleep(0.01)
        free = hugepages.pool("free_hugepages")
    if free < wanted:
        huge_pages_back(run)
        raise Skipped(f"{free} huge pages are free, {wanted} are needed")


def huge_pages(run):
    """For a guest of 128 MiB, and for the reference's."""
    reserve_huge_pages(run, 128 if run.options.reference else 64)


def huge_pages_back(run):
    run.huge.__exit__(None, None, None)


def make_certs(run, name, *options):
    script = os.path.join(HERE, "..", "..", "scripts", "make-certs")
    try:
        made = subprocess.run([script, *options, run.path(name)], capture_output=True, text=True, timeout=60)
    except OSError as e:
        raise Skipped(f"make-certs: {e}") from None
    if "openssl is not installed" in made.stderr:
        raise Skipped("openssl is not installed")
    if made.returncode != 0:
        raise Failed(made.stderr.strip())


def certs(run):
    make_certs(run, "certs")


def certs_of_our_ca(*options):
    """Two sets from the same CA: "certs" and, made with the options, "wrong"."""
    def make(run):
        make_certs(run, "certs")
        shutil.copytree(run.path("certs/ca"), run.path("wrong/ca"))
        make_certs(run, "wrong", *options)
    return make


def certs_of_two_cas(run):
    make_certs(run, "certs")
    make_certs(run, "wrong")


def certs_that_the_source_distrusts(run):
    """The "wrong" source shows what we want, but expects something else from us."""
    certs_of_our_ca()(run)
    make_certs(run, "other")
    shutil.copy(run.path("other/ca/ca-cert.pem"), run.path("wrong/client/ca-cert.pem"))


def described_devices(data):
    """[(name, instance)] of the JSON description at the end of a stream; [] if there is none."""
    at = len(data)
    while True:
        # End mark, type of the description, its length (doc/wire/stream.md 1.6).
        at = data.rfind(b"\x00\x06", 0, at)
        if at < 0:
            return []
        if len(data) - at >= 6 and struct.unpack_from(">I", data, at + 2)[0] == len(data) - at - 6:
            break
    return [(d["name"], d["instance_id"]) for d in json.loads(data[at + 6:])["devices"]]


def check_device_places(devices, data):
    """Each device's state must lie where "offset" and "bytes" say: after its header, before its footer."""
    for d in devices:
        name = d["name"].encode()
        header = bytes([len(name)]) + name + struct.pack(">II", d["instance_id"], d["version_id"])
        # "offset" is the section's, or the state's: both begin with, or follow, the type byte, the id and the header.
        for start in (d["offset"] + 5 + len(header), d["offset"]):
            if data[start - len(header):start] == header and data[start - len(header) - 5] == 4:
                break
        else:
            raise Failed(f"devices: '{d['name']}' is not at offset {d['offset']:#x} of the stream")
        footer = b"\x7e" + data[start - len(header) - 4:start - len(header)]
        if data[start + d["bytes"]:][:5] != footer:
            raise Failed(f"devices: '{d['name']}' has no footer after its {d['bytes']} bytes at {start:#x}")


# ---- the table ----

@dataclasses.dataclass
class Case:
    name: str
    machine: str = "pc"
    args: tuple = ()
    memory_mib: int = 128
    content_mib: int = 64                     # at 16 MiB
    accel: str = ""                           # "": kvm if there is any
    guest: str = "running"                    # or "stopped" before the migration begins
    dirty: tuple = (16 * MIB, 20 * MIB)       # what the guest changes
    words: int = 1                            # in each page
    pause_ticks: int = 0
    caps: tuple = ()                          # of the source
    in_caps: tuple = None                     # of the destination; None: the same
    params: dict = dataclasses.field(default_factory=lambda: {"max-bandwidth": FAST})
    in_params: dict = None
    transport: object = tcp
    before: object = None                     # functions of the run
    during: object = None
    after: object = None
    cleanup: object = None
    devices: tuple = ()                       # that must be in --devices
    ignore: tuple = ()                        # RAM blocks that are not sent
    ram: tuple = ()                           # (block, its file): memory that the destination gets
    compared: bool = True
    fails: str = ""                           # what the destination's one line must match, if it must fail
    source_ends: str = "failed"               # with fails
    may_refuse: str = ""                      # or it may fail, with a line that matches
    killed: bool = False                      # the case ends the destination itself
    seconds: int = 2 * PATIENT_SECONDS
    since: tuple = (7, 2)
    until: tuple = (99,)
    quick: bool = False
    wrong: dict = None                        # with refused_first: other parameters of the source that is refused,
    refused: str = ""                         # and what must be said about it

    def versions(self):
        text = f"{self.since[0]}.{self.since[1]}"
        return f"{text} up to, not including, {self.until[0]}.{self.until[1]}" if self.until != (99,) else f">= {text}"


# Devices of the big cases, with back ends that need nothing from the host.
NULL_DISK = "driver=null-co,size=16777216,read-zeroes=on,node-name="


def disk(name):
    return ("-blockdev", NULL_DISK + name)


def hub(name, number):
    return ("-netdev", f"hubport,id={name},hubid={number}")


VIRTIO_PCI = (
    *hub("n0", 0), "-device", "virtio-net-pci,netdev=n0",
    *disk("d0"), "-device", "virtio-blk-pci,drive=d0",
    "-device", "virtio-rng-pci",
    "-device", "virtio-serial-pci", "-chardev", "null,id=p0", "-device", "virtserialport,chardev=p0,name=a",
    "-device", "virtio-balloon-pci", "-device", "virtio-keyboard-pci", "-device", "virtio-scsi-pci,id=s0",
    *disk("d1"), "-device", "scsi-hd,drive=d1,bus=s0.0")
USB = (
    "-device", "qemu-xhci,id=x0", "-device", "usb-tablet,bus=x0.0", "-device", "usb-kbd,bus=x0.0",
    *disk("u0"), "-device", "usb-storage,drive=u0,bus=x0.0")
OTHERS = (
    "-vga", "std", *hub("n1", 1), "-device", "e1000,netdev=n1", *hub("n2", 2), "-device", "rtl8139,netdev=n2",
    *hub("n3", 3), "-device", "vmxnet3,netdev=n3", "-device", "intel-hda", "-device", "hda-duplex,audiodev=a0",
    "-audiodev", "none,id=a0", "-device", "i6300esb", "-device", "lsi53c895a", "-device", "pvscsi",
    "-device", "ich9-ahci", "-device", "pvpanic", "-serial", "null", "-parallel", "null",
    "-device", "sdhci-pci", "-device", "vmcoreinfo")
VIRTIO_MMIO = (
    *hub("n0", 0), "-device", "virtio-net-device,netdev=n0", *disk("d0"), "-device", "virtio-blk-device,drive=d0",
    "-device", "virtio-rng-device", "-device", "virtio-balloon-device", "-serial", "null")

ROUNDS = {"max-bandwidth": 64 * MIB, "downtime-limit": 20}
SLOW = {"max-bandwidth": 16 * MIB, "downtime-limit": 20}
DELTAS = {"max-bandwidth": 64 * MIB, "downtime-limit": 1, "xbzrle-cache-size": 64 * MIB}
RP = ("return-path",)
SHARED_RAM = ("-object", "memory-backend-file,id=m0,size=128M,share=on,mem-path={dir}/m0",)


def tls(kind, name="certs", object_id="tls0", more=""):
    """The source's credentials; QEMU does not check `wrong` ones itself before it uses them."""
    return ("-object", f"tls-creds-{kind},id={object_id},endpoint=client,dir={{dir}}/{name}/client{more}")


def tls_server(kind):
    """Also a QEMU object, for --reference: the destination's tls-creds names it."""
    return ("-object", f"tls-creds-{kind},id=tls1,endpoint=server,dir={{dir}}/certs/server")


PSK = tls("psk") + tls_server("psk")
X509 = tls("x509") + tls_server("x509")
X509_WRONG = X509 + tls("x509", "wrong", "wrong", ",sanity-check=off")
# A certificate cannot name a path, so only pre-shared keys go over unix sockets.
TLS_OUT = {"max-bandwidth": FAST, "tls-creds": "tls0"}
PSK_IN = {"tls-creds": "tls1", "tls-creds-type": "psk", "tls-creds-dir": "{dir}/certs/server"}
X509_IN = {"tls-creds": "tls1", "tls-creds-type": "x509", "tls-creds-dir": "{dir}/certs/server"}
WRONG = {"tls-creds": "wrong"}
FOUR = {"multifd-channels": 4}
# A source that has not read everything we sent resets the connection when it closes it.
CUT_OFF = r"(?i)clos|ended|end of|cut|reset"

CASES = [
    # ---- machines ----
    Case("microvm-running", machine="microvm", quick=True),
    Case("pc-running", args=("-vga", "std"), devices=("vga",), quick=True),
    Case("q35-running", machine="q35", args=("-vga", "std"), devices=("vga",)),
    Case("pc-stopped", guest="stopped"),
    Case("q35-stopped", machine="q35", guest="stopped"),
    Case("microvm-stopped", machine="microvm", guest="stopped"),
    Case("pc-stopped-tcg", guest="stopped", accel="tcg", quick=True),
    Case("pc-halted", dirty=(0, 0)),
    Case("pc-four-cpus", args=("-smp", "4"), quick=True),
    Case("pc-machine-7.2", machine="pc-i440fx-7.2", since=(8, 0)),
    Case("pc-machine-8.2", machine="pc-i440fx-8.2", since=(9, 0)),
    Case("pc-one-gigabyte", memory_mib=1024, content_mib=512),
    Case("pc-many-rounds", dirty=(16 * MIB, 48 * MIB), params=ROUNDS, during=many_rounds),
    # ---- devices ----
    Case("devices-virtio-net", args=VIRTIO_PCI[:4], devices=("virtio-net",)),
    Case("devices-virtio-pci", args=VIRTIO_PCI,
         devices=("virtio-net", "virtio-blk", "virtio-rng", "virtio-console", "virtio-balloon", "virtio-scsi")),
    Case("devices-usb", args=USB, devices=("xhci", "usb-ptr", "usb-kbd", "usb-storage")),
    Case("devices-e1000", args=(*hub("n1", 1), "-device", "e1000,netdev=n1"), devices=("e1000",)),
    Case("devices-all-pc", args=VIRTIO_PCI + USB + OTHERS, quick=True, transport=exec_fifo,
         devices=("virtio-net", "e1000", "vmxnet3", "xhci", "rtl8139", "vga", "serial")),
    Case("devices-all-q35", machine="q35", args=VIRTIO_PCI + USB + OTHERS, transport=exec_fifo,
         devices=("virtio-net", "e1000", "vmxnet3", "xhci", "rtl8139", "vga", "serial")),
    Case("devices-virtio-mmio", machine="microvm", args=VIRTIO_MMIO,
         devices=("virtio-net", "virtio-blk", "virtio-rng", "virtio-balloon")),
    Case("devices-virtio-gpu", args=("-device", "virtio-gpu-pci"), devices=("virtio-gpu",)),
    Case("devices-virtio-mem", since=(8, 0), transport=exec_fifo, devices=("virtio-mem-device-early", "virtio-mem"),
         args=("-m", "128M,maxmem=1G,slots=2", "-object", "memory-backend-ram,id=vm0,size=256M",
               "-device", "virtio-mem-pci,memdev=vm0,requested-size=64M")),
    # ---- RAM ----
    Case("ram-numa-memfd", args=(
        "-smp", "2", "-object", "memory-backend-memfd,id=n0,size=64M", "-object", "memory-backend-memfd,id=n1,size=64M",
        "-numa", "node,memdev=n0,cpus=0", "-numa", "node,memdev=n1,cpus=1")),
    Case("ram-dimm", args=("-m", "128M,maxmem=512M,slots=2", "-object", "memory-backend-ram,id=m1,size=128M",
                           "-device", "pc-dimm,memdev=m1")),
    Case("ram-hugetlb", before=huge_pages, cleanup=huge_pages_back, args=(
        "-object", "memory-backend-memfd,id=m0,size=128M,hugetlb=on,hugetlbsize=2M", "-machine", "memory-backend=m0")),
    Case("x-ignore-shared", args=SHARED_RAM + ("-machine", "memory-backend=m0"), caps=("x-ignore-shared",),
         ignore=("m0", "/objects/m0", "pc.ram"), ram=(("m0", "{dir}/m0"),), quick=True),
    Case("x-ignore-shared-not-given", args=SHARED_RAM + ("-machine", "memory-backend=m0"), caps=("x-ignore-shared",),
         fails="shares this memory", source_ends="", quick=True),
    # ---- transports ----
    Case("transport-tcp6", machine="microvm", transport=tcp6, quick=True),
    Case("transport-unix", machine="microvm", transport=unix, caps=RP, quick=True),
    Case("transport-exec", machine="microvm", transport=exec_fifo, quick=True),
    Case("transport-file", machine="microvm", transport=file_by_exec, quick=True),
    Case("transport-file-offset", machine="microvm", transport=file_offset, since=(8, 2), quick=True),
    Case("transport-fd", machine="microvm", transport=descriptor, caps=RP, quick=True),
    # ---- capabilities ----
    Case("return-path", caps=RP, quick=True),
    Case("return-path-stopped", caps=RP, guest="stopped"),
    Case("xbzrle", machine="microvm", dirty=(16 * MIB, 40 * MIB), words=4, caps=("xbzrle",), during=until_xbzrle,
         params=DELTAS, quick=True),
    Case("xbzrle-pc", dirty=(16 * MIB, 40 * MIB), words=8, caps=("xbzrle", "return-path"), during=until_xbzrle,
         params=DELTAS),
    Case("compress", until=(9, 1), caps=("compress",), after=compressed_pages_sent, quick=True),
    Case("compress-xbzrle", until=(9, 1), dirty=(16 * MIB, 40 * MIB), caps=("compress", "xbzrle"), during=until_xbzrle,
         params=DELTAS),
    Case("auto-converge", dirty=(16 * MIB, 48 * MIB), caps=("auto-converge", "return-path"), params=ROUNDS,
         during=many_rounds, after=throttled),
    Case("dirty-limit", since=(8, 1), caps=("dirty-limit", "return-path"), dirty=(16 * MIB, 48 * MIB),
         accel="kvm,dirty-ring-size=4096", params={**ROUNDS, "vcpu-dirty-limit": 50}, during=many_rounds),
    Case("validate-uuid", args=("-uuid", UUID), caps=("validate-uuid",), in_params={"uuid": UUID}),
    Case("validate-uuid-wrong", args=("-uuid", UUID), caps=("validate-uuid", "return-path"),
         in_params={"uuid": OTHER_UUID}, fails=r"(?i)uuid", quick=True),
    Case("machine-right", machine="pc-i440fx-7.2", in_params={"machine": "pc-i440fx-7.2"}),
    Case("machine-wrong", machine="pc-i440fx-7.2", caps=RP, in_params={"machine": "pc-q35-7.2"},
         fails=r"pc-i440fx-7\.2"),
    Case("ram-limit", machine="microvm", caps=RP, in_params={"ram-limit": "64M"}, fails=r"(?i)limit|64", quick=True),
    Case("events", caps=("events",)),
    Case("zero-blocks", until=(11, 0), caps=("zero-blocks",)),
    Case("release-ram", caps=("release-ram",), guest="stopped", compared=False),
    Case("pause-before-switchover", machine="microvm", caps=("pause-before-switchover", "return-path"),
         during=pause_then_continue),
    Case("late-block-activate", caps=("late-block-activate",), args=VIRTIO_PCI[4:8]),
    Case("switchover-ack", since=(8, 1), caps=("switchover-ack", "return-path")),
    # The source's guest runs on after the snapshot, so it must be one that changes nothing.
    Case("background-snapshot", machine="microvm", caps=("background-snapshot",), in_caps=(), dirty=(0, 0),
         transport=file_by_exec, may_refuse=r"(?i)snapshot|\bend\b", quick=True),
    Case("everything-at-once", args=VIRTIO_PCI, dirty=(16 * MIB, 48 * MIB), during=until_xbzrle,
         caps=("return-path", "xbzrle", "auto-converge", "events", "late-block-activate"),
         params=DELTAS),
    # ---- compatibility properties ----
    Case("suppress-vmdesc", machine="pc,suppress-vmdesc=on", args=USB, in_params={"suppress-vmdesc": "on"}, quick=True,
         devices=("xhci",)),
    # With a return path the source waits: the destination must find the end before the connection ends.
    Case("suppress-vmdesc-return-path", machine="q35,suppress-vmdesc=on", args=USB, caps=RP, guest="stopped",
         in_params={"suppress-vmdesc": "on"}, devices=("xhci",)),
    Case("send-section-footer-off", args=("-global", "migration.send-section-footer=off"), quick=True,
         in_params={"send-section-footer": "off"}),
    # From 8.2 on the source writes its description as if it had sent a configuration: 10.0.2 fails an assertion.
    Case("send-configuration-off", until=(8, 2), args=("-global", "migration.send-configuration=off"),
         in_params={"send-configuration": "off"}),
    Case("send-configuration-off-no-vmdesc", machine="pc,suppress-vmdesc=on", quick=True,
         args=("-global", "migration.send-configuration=off"),
         in_params={"send-configuration": "off", "suppress-vmdesc": "on"}),
    Case("store-global-state-off", args=("-global", "migration.store-global-state=off"),
         in_params={"store-global-state": "off"}),
    # ---- TLS ----
    Case("tls-psk-tcp", machine="microvm", before=certs, args=PSK, caps=RP, params=TLS_OUT, in_params=PSK_IN),
    Case("tls-psk-unix", machine="microvm", before=certs, args=PSK, caps=RP, params=TLS_OUT, in_params=PSK_IN,
         transport=unix),
    Case("tls-x509-tcp", before=certs, args=X509, caps=RP, params=TLS_OUT,
         in_params={**X509_IN, "tls-authz": "O=migration,CN=source"}),
    Case("tls-psk-tcp-multifd", before=certs, args=PSK, caps=("multifd",) + RP, params={**TLS_OUT, **FOUR},
         in_params={**PSK_IN, **FOUR}),
    Case("tls-psk-unix-multifd", before=certs, args=PSK, caps=("multifd",) + RP, params={**TLS_OUT, **FOUR},
         in_params={**PSK_IN, **FOUR}, transport=unix),
    Case("tls-x509-tcp-multifd", before=certs, args=X509, caps=("multifd",) + RP, params={**TLS_OUT, **FOUR},
         in_params={**X509_IN, **FOUR}, quick=True),
    # Here the source does not check us, so that we refuse it; in the next one we have nothing against it.
    Case("tls-wrong-ca", machine="microvm", before=certs_of_two_cas, caps=RP, params=TLS_OUT, in_params=X509_IN,
         args=X509 + tls("x509", "wrong", "wrong", ",verify-peer=off"), transport=refused_first, wrong=WRONG,
         refused="not signed by the CA"),
    Case("tls-source-distrusts", machine="microvm", before=certs_that_the_source_distrusts, caps=RP, params=TLS_OUT,
         in_params=X509_IN, args=X509_WRONG, transport=refused_first, wrong=WRONG,
         refused="closed after 0 bytes"),
    Case("tls-wrong-psk", machine="microvm", before=certs_of_two_cas, caps=RP, params=TLS_OUT, in_params=PSK_IN,
         args=PSK + tls("psk", "wrong", "wrong"), transport=refused_first, wrong=WRONG, refused="pre-shared key",
         quick=True),
    Case("tls-source-in-the-clear", machine="microvm", before=certs, caps=RP, params=TLS_OUT, in_params=X509_IN,
         args=X509, transport=refused_first, wrong={"tls-creds": ""}, refused="speaks without TLS"),
    Case("tls-source-on-a-plain-port", machine="microvm", before=certs, caps=RP, in_params={}, args=X509,
         params={"max-bandwidth": FAST, "tls-creds": ""}, transport=refused_first, wrong={"tls-creds": "tls0"},
         refused="TLS"),
    Case("tls-name-not-authorised", machine="microvm", before=certs_of_our_ca("--client", "stranger"), caps=RP,
         params=TLS_OUT, in_params={**X509_IN, "tls-authz": "O=migration,CN=source*"}, args=X509_WRONG,
         transport=refused_first, wrong=WRONG, refused="'O=migration,CN=stranger' is not among those"),
    Case("tls-certificate-expired", machine="microvm", before=certs_of_our_ca("--expired", "--only-client"), caps=RP,
         params=TLS_OUT, in_params=X509_IN, args=X509_WRONG, transport=refused_first, wrong=WRONG,
         refused="has expired"),
    # ---- ends without a landing ----
    Case("cancel", machine="microvm", caps=RP, params=SLOW, during=cancel, fails=CUT_OFF,
         source_ends="cancelled", after=source_runs, quick=True),
    Case("cancel-no-return-path", machine="microvm", params=SLOW, during=cancel, fails=CUT_OFF,
         source_ends="cancelled", after=source_runs),
    Case("destination-killed", machine="microvm", caps=RP, params=SLOW, during=kill_destination, killed=True,
         after=source_runs, quick=True),
]
