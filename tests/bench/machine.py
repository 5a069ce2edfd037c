"""machine.py - what a process and the machine have used, and the machine made alike before each run"""

import mmap
import os
import re
import time

from qemu import Failed, PAGE_BYTES

TICKS = os.sysconf("SC_CLK_TCK")


def cpu_seconds(pid):
    """User and system time of a process with all its threads, also ended ones, to the nanosecond: the kernel's number
    for the CPU clock of a process (clock_getcpuclockid(3)). /proc/PID/stat counts in steps of 10 ms."""
    return time.clock_gettime((~pid << 3) | 2)


def machine_busy_seconds():
    with open("/proc/stat") as f:
        user, nice, system, idle, wait, irq, softirq, steal = (int(n) for n in f.readline().split()[1:9])
    return (user + nice + system + irq + softirq + steal) / TICKS


def warm_free_memory(length):
    """Make the kernel's next `length` free bytes ones that the host backs: take them, touch them, give them back."""
    populate_write = 23       # MADV_POPULATE_WRITE, Linux 5.14
    with mmap.mmap(-1, length, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as memory:
        try:
            memory.madvise(mmap.MADV_HUGEPAGE)
            memory.madvise(populate_write)
        except OSError:
            for at in range(0, length, PAGE_BYTES):
                memory[at] = 1


def set_priority(pid, nice):
    """Of a process that leads a session. Where the kernel makes each session a group of its own, a nice value counts
    only within the group, and the group has one, too (sched(7), the autogroup feature)."""
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
