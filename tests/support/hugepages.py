"""hugepages.py - huge pages of 2 MiB while a test needs them

The pool is the machine's. A process that changes it holds the lock on it, and writes its own number and the size of the
pool before into RECORD. The next one that gets the lock while there is a record restores what a killed one has left.
huge_pool.c has the same lock and the same record.
"""

import contextlib
import fcntl
import os

from waiting import wait_until

POOL = "/sys/kernel/mm/hugepages/hugepages-2048kB/"
RECORD = "/run/inmigrate-huge-pages"
# Less than the time that scripts/run-tests gives the whole program: so there is an error that says why.
PATIENT_SECONDS = 0.8 * float(os.environ.get("TEST_SECONDS", 300))


def pool(name, value=None):
    with open(POOL + name, "r" if value is None else "w", encoding="ascii") as f:
        return int(f.read()) if value is None else f.write(str(value))


def record():
    """(process, pages before), or None."""
    try:
        with open(RECORD, encoding="ascii") as f:
            pid, pages = map(int, f.read().split())
            return pid, pages
    except (OSError, ValueError):
        return None


def holder():
    """For people."""
    pid = (record() or (0,))[0]
    try:
        with open(f"/proc/{pid}/cmdline", encoding="utf-8", errors="replace") as f:
            return f"process {pid} ({f.read().rstrip(chr(0)).replace(chr(0), ' ')})"
    except OSError:
        return "a process that has left no record"


def _lock(pool_file, seconds):
    def taken():
        try:
            fcntl.flock(pool_file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            return False
    try:
        wait_until("the pool of huge pages", taken, seconds, every=0.02, failure=TimeoutError)
    except TimeoutError as e:
        raise TimeoutError(f"{e}, which is held by {holder()}") from None


@contextlib.contextmanager
def huge_pages(count, seconds=PATIENT_SECONDS):
    """`with huge_pages(8) as free`: so many are free, perhaps fewer than requested; 0 where the kernel has none.

    Raises TimeoutError when somebody else holds the pool for longer than `seconds`.
    """
    try:
        pool_file = open(POOL + "nr_hugepages", encoding="ascii")
    except FileNotFoundError:
        yield 0
        return
    with pool_file:
        _lock(pool_file, seconds)
        left = record()
        # An ordinary user may neither write a record nor change the pool.
        with contextlib.suppress(OSError):
            if left:
                pool("nr_hugepages", left[1])
        before = pool("nr_hugepages")
        try:
            with contextlib.suppress(OSError):
                with open(RECORD, "w", encoding="ascii") as f:
                    f.write(f"{os.getpid()} {before}\n")
                pool("nr_hugepages", before + count)
            yield pool("free_hugepages")
        finally:
            with contextlib.suppress(OSError):
                pool("nr_hugepages", before)
                os.unlink(RECORD)
