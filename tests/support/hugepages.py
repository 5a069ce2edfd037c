"""hugepages.py - huge pages of 2 MiB while a test needs them; others wait (huge_pool.c uses the same lock)"""

import contextlib
import fcntl

POOL = "/sys/kernel/mm/hugepages/hugepages-2048kB/"


def pool(name, value=None):
    with open(POOL + name, "r" if value is None else "w", encoding="ascii") as f:
        return int(f.read()) if value is None else f.write(str(value))


@contextlib.contextmanager
def huge_pages(count):
    """`with huge_pages(8) as free`: the number of free ones, 0 if the kernel has none; perhaps fewer than requested."""
    try:
        lock = open(POOL + "nr_hugepages", encoding="ascii")
    except FileNotFoundError:
        yield 0
        return
    with lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        before = pool("nr_hugepages")
        try:
            with contextlib.suppress(OSError):
                pool("nr_hugepages", before + count)
            yield pool("free_hugepages")
        finally:
            with contextlib.suppress(OSError):
                pool("nr_hugepages", before)
