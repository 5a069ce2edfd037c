"""side_by_side.py - tasks in processes, several at the same time; they end with the process that started them

Invariants:
(1) Each task has a process of its own, forked while this process has no threads. If one dies, we know its task.
(2) When this is interrupted, for example by a signal, no further task begins. Running tasks get SIGTERM, run their
    `finally` clauses, and end before this returns.
(3) When this process is killed, they get SIGTERM as well.
"""

import multiprocessing
import os
import signal
import subprocess
from multiprocessing.connection import wait

import signals

PROCESSORS = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "scripts", "processors")
GRACE_SECONDS = 20
TELLING = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
TOLD_STATUS = 128 + signal.SIGTERM


def processors():
    """How many there are for us."""
    return int(subprocess.run([PROCESSORS], capture_output=True, text=True, check=True).stdout)


def run(tasks, function, tell, jobs):
    """Call function(task) for each, then tell(task, its result, exit status): None and a status if it died."""
    context = multiprocessing.get_context("fork")
    waiting, running = list(reversed(tasks)), {}
    try:
        while waiting or running:
            while waiting and len(running) < jobs:
                task = waiting.pop()
                ours, theirs = context.Pipe(duplex=False)
                child = context.Process(target=_run, args=(function, task, theirs, os.getpid()))
                running[ours] = task, child
                child.start()
                theirs.close()
            for ours in wait(list(running)):
                task, child = running[ours]
                try:
                    result = ours.recv()
                except EOFError:
                    result = None
                child.join()
                del running[ours]
                ours.close()
                tell(task, result, child.exitcode)
    finally:
        _end([child for _, child in running.values() if child.pid])


def _run(function, task, pipe, parent):
    signals.exit_by(TELLING)
    if not signals.follow(parent):
        os._exit(TOLD_STATUS)
    try:
        pipe.send(function(task))
    except SystemExit:
        os._exit(TOLD_STATUS)


def _end(children):
    for child in children:
        child.terminate()
    for child in children:
        child.join(GRACE_SECONDS)
        if child.is_alive():
            child.kill()
            child.join()
