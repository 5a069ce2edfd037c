"""signals.py - a test runner starts programs with the signals and limits that they expect, however it was started

Under nohup(1), in a background job, or below a supervisor some signals are ignored or blocked, and children inherit
that. A test that waits for one would wait forever, and an ignored SIGCHLD loses the exit status of every child.
"""

import ctypes
import os
import resource
import signal
import sys

FILES_ENOUGH = 65536
# Python itself ignores these, and subprocess restores them for children.
PYTHONS = {signal.SIGPIPE, getattr(signal, "SIGXFSZ", signal.SIGPIPE)}
PR_SET_PDEATHSIG = 1        # <linux/prctl.h>

_libc = ctypes.CDLL(None)


def let_pass(_number, _frame):
    """Ignored signals stay without effect here, and get their default action in programs that we start: execve(2)."""


def as_expected():
    """Every runner calls this first."""
    for number in signal.valid_signals() - PYTHONS:
        if signal.getsignal(number) == signal.SIG_IGN:
            signal.signal(number, signal.SIG_DFL if number == signal.SIGCHLD else let_pass)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < FILES_ENOUGH:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, FILES_ENOUGH), hard))
    # With it getopt_long(3) takes no option after the first argument, in any program.
    os.environ.pop("POSIXLY_CORRECT", None)


def end_by(numbers, handler):
    """Set `handler` for each of them, except those that our caller ignores: nohup(1) means what it says."""
    for number in numbers:
        if signal.getsignal(number) is not let_pass:
            signal.signal(number, handler)


def exit_by(numbers):
    """The first of them makes this process run its `finally` clauses; later ones have no effect. (Not SIG_IGN, which
    programs that are just starting would inherit.)"""
    def stop(number, _frame):
        for each in numbers:
            signal.signal(each, let_pass)
        sys.exit(128 + number)
    end_by(numbers, stop)


def die_with_parent(by=signal.SIGKILL):
    """Between fork and exec: the kernel ends this process when its parent ends, even by SIGKILL."""
    _libc.prctl(PR_SET_PDEATHSIG, by)


def follow(parent):
    """Like die_with_parent() with SIGTERM, in a process that was forked some time ago. Return: whether its parent
    lives."""
    die_with_parent(signal.SIGTERM)
    return os.getppid() == parent
