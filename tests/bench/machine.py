"""machine.py - what a process and the machine have used; and how to begin each run on an equal machine"""

import mmap
import os
import re
import threading
import time

from qemu import Failed, PAGE_BYTES

TICKS = os.sysconf("SC_CLK_TCK")


def cpu_seconds(pid):
    """User and system time of a process with all its threads, ended ones too, in nanoseconds, from the CPU clock of a
    process (clock_getcpuclockid(3)). /proc/PID/stat counts in steps of 10 ms."""
    return time.clock_gettime((~pid << 3) | 2)


class ThreadTimes:
    """What each thread of a process has used, in ns. For a thread that has ended the number is up to EVERY_SECONDS old.
    The kernel keeps no such number, so we read them again and again; that takes a hundredth of a CPU."""

    EVERY_SECONDS = 0.005

    def __init__(self, pid):
        self.folder = f"/proc/{pid}/task"
        self.files = {}
        self.ns = {}
        self.ended = threading.Event()
        self.reader = threading.Thread(target=self._read_on, daemon=True)
        self.reader.start()

    def _open_new(self):
        try:
            for thread in os.listdir(self.folder):
                if int(thread) not in self.files:
                    self.files[int(thread)] = os.open(f"{self.folder}/{thread}/schedstat", os.O_RDONLY)
        except OSError:
            pass          # it has just ended

    def _read_all(self):
        for thread, file in self.files.items():
            try:
                self.ns[thread] = int(os.pread(file, 64, 0).split()[0])
            except OSError:
                pass      # the same: the number from before stays

    def _read_on(self):
        while not self.ended.wait(self.EVERY_SECONDS):
            self._open_new()
            self._read_all()

    def end(self):
        """The last numbers, by thread."""
        self.ended.set()
        self.reader.join()
        self._open_new()
        self._read_all()
        for file in self.files.values():
            os.close(file)
        self.files = {}
        return self.ns


def machine_busy_seconds():
    with open("/proc/stat") as f:
        user, nice, system, idle, wait, irq, softirq, steal = (int(n) for n in f.readline().split()[1:9])
    return (user + nice + system + irq + softirq + steal) / TICKS


def touch_once(length, advice):
    populate_write = 23       # MADV_POPULATE_WRITE, Linux 5.14
    with mmap.mmap(-1, length, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as memory:
        try:
            memory.madvise(advice)
            memory.madvise(populate_write)
        except OSError:
            for at in range(0, length, PAGE_BYTES):
                memory[at] = 1


def warm_free_memory(length, small):
    """Make sure that the host backs the kernel's next `length` free bytes: take them, touch them, give them back. Huge
    pages and small ones do not come from the same places. small: the run fills memory by single pages, as in postcopy
    (measured: 576 MiB into a memfd take 1.0 s after huge ones only, 0.17 s like this). Otherwise it fills huge ones,
    and small ones taken last spoil that (measured: 4 channels of multifd then bring 0.3 GB/s, and 2.2 without)."""
    touch_once(length, mmap.MADV_HUGEPAGE)
    if small:
        touch_once(length, mmap.MADV_NOHUGEPAGE)


def set_priority(pid, nice):
    """Of a process that leads a session. Where the kernel makes each session a group of its own, a nice value counts
    only within the group, and the group has its own (sched(7), the autogroup feature)."""
    if not nice:
        return
    try:
        for thread in os.listdir(f"/proc/{pid}/task"):
            os.setpriority(os.PRIO_PROCESS, int(thread), nice)
        with open(f"/proc/{pid}/autogroup", "w") as f:
            f.write(str(nice))
    except FileNotFoundError:
        pass
    except OSError as e:
        raise Failed(f"--nice {nice}: {e.strerror}") from None


def peak_bytes(pid):
    with open(f"/proc/{pid}/status") as f:
        found = re.search(r"VmHWM:\s+(\d+) kB", f.read())
    return int(found[1]) * 1024 if found else 0


def wait_quiet(seconds, below=0.15):
    """Wait until the machine has little to do; give up after so many seconds."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        before, start = machine_busy_seconds(), time.monotonic()
        time.sleep(0.2)
        if (machine_busy_seconds() - before) / (time.monotonic() - start) < below:
            return


def undisturbed(options, run):
    """Repeat the run until others have left the machine alone during it; otherwise return the least disturbed one."""
    made = []
    while len(made) < 5:
        made.append(run())
        if made[-1]["others_cpus"] <= options.others_max:
            break
    return min(made, key=lambda r: r["others_cpus"])
