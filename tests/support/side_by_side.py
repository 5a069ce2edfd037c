"""side_by_side.py - tasks in processes, several at the same time; they end with whoever began them

What holds:
(1) Each task has a process of its own, forked while nobody here has threads. One that dies is known by its task.
(2) When this is interrupted, by a signal for one, no further task begins; those that run are told by SIGTERM, go through
    their `finally` clauses, and have ended before this returns.
(3) When this process is killed they are told as well.
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
    """function(task) for each, and then tell(task, what it returned, exit status): None and a status if it died."""
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
