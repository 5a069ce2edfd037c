"""signals.py - a test runner starts what it starts with signals, and limits, as a program expects them, whoever has started it

Under nohup(1), in a background job, or below a supervisor some are ignored or blocked, and children inherit that: a test
that waits for one would wait for ever, and an ignored SIGCHLD takes the exit status of every child along.
"""

import ctypes
import os
import resource
import signal
import sys

FILES_ENOUGH = 65536
# Python ignores these itself, and subprocess gives them back to children.
PYTHONS = {signal.SIGPIPE, getattr(signal, "SIGXFSZ", signal.SIGPIPE)}
PR_SET_PDEATHSIG = 1        # <linux/prctl.h>

_libc = ctypes.CDLL(None)


def let_pass(_number, _frame):
    """What was ignored stays without effect here, and has its default action in a program that is started: execve(2)."""


def as_expected():
    """First of all in every runner."""
    for number in signal.valid_signals() - PYTHONS:
        if signal.getsignal(number) == signal.SIG_IGN:
            signal.signal(number, signal.SIG_DFL if number == signal.SIGCHLD else let_pass)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < FILES_ENOUGH:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, FILES_ENOUGH), hard))
    # With it getopt_long(3) takes no option behind the first argument, in whatever program.
    os.environ.pop("POSIXLY_CORRECT", None)


def end_by(numbers, handler):
    """`handler` for each of them but those that whoever started us has ignored: nohup(1) means what it says."""
    for number in numbers:
        if signal.getsignal(number) is not let_pass:
            signal.signal(number, handler)


def exit_by(numbers):
    """By the first of them this process goes through its `finally` clauses; what comes meanwhile is let pass. (Not
    SIG_IGN, which would go to programs that are just started.)"""
    def stop(number, _frame):
        for each in numbers:
            signal.signal(each, let_pass)
        sys.exit(128 + number)
    end_by(numbers, stop)


def die_with_parent(by=signal.SIGKILL):
    """Between fork and exec: the kernel ends this process when its parent ends, also by SIGKILL."""
    _libc.prctl(PR_SET_PDEATHSIG, by)


def follow(parent):
    """As die_with_parent(), by SIGTERM, in a process that was forked some time ago. Return: whether its parent is there."""
    die_with_parent(signal.SIGTERM)
    return os.getppid() == parent
