"""variants.py - the table of migrations to measure"""


class Variant:
    """One kind of migration, for all ends alike.

    transport: tcp or unix
    caps:      capabilities of both ends, by QEMU's names
    content:   the guest's memory: noise, no two pages equal;
               holes, half of it empty, and in the other half every other page;
               mixed, of eight pages one zero, three that compress well, four that do not compress
    channels:  of multifd; 0 is without
    compress:  parameter multifd-compression
    tls:       psk or x509, both with certificates or keys made for this run
    part:      the requested size of the guest is divided by this, for runs that take much longer
    full:      it gets all the requested rounds; others half as many
    sinks:     memory into which bench_limits receives the same, besides the destinations. A sink does not answer, so it
               cannot replace a destination with a return path or with TLS.
    """

    def __init__(self, name, transport="tcp", caps=(), content="noise", channels=0, compress=None, tls=None, part=1,
                 full=False, sinks=()):
        self.name = name
        self.transport = transport
        self.caps = tuple(caps) + (("multifd",) if channels else ())
        self.content = content
        self.params = {}
        if channels:
            self.params["multifd-channels"] = channels
        if compress:
            self.params["multifd-compression"] = compress
        self.connections = channels + 1
        self.tls = tls
        self.part = part
        self.full = full
        self.sinks = sinks

    def rounds(self, pairs):
        return pairs if self.full else (pairs + 1) // 2


VARIANTS = (
    Variant("tcp", full=True, sinks=("discard", "thp", "memfd")),
    Variant("unix", transport="unix", full=True, sinks=("discard",)),
    Variant("zeros", content="holes"),
    Variant("return-path", caps=("return-path",)),
    Variant("multifd-4", channels=4, sinks=("discard",)),
    Variant("multifd-8", channels=8, sinks=("discard",)),
    Variant("multifd-4-zstd", channels=4, compress="zstd", content="mixed"),
    Variant("multifd-4-zlib", channels=4, compress="zlib", content="mixed", part=8),
    Variant("tls-psk-1", channels=1, tls="psk", part=2),
    Variant("tls-psk-4", channels=4, tls="psk", part=2),
    Variant("tls-x509-1", channels=1, tls="x509", part=2),
    Variant("tls-x509-4", channels=4, tls="x509", part=2),
)
