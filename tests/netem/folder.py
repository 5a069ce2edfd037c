"""folder.py - a folder for the files of one run, which does not outlive it for long

Files of guests are large, and in memory. A killed run leaves its folder, so the next run removes it. Each process that
uses a folder holds a shared lock on it, which the kernel releases when the process ends in any way. A process that gets
the lock exclusively may remove the folder.
"""

import fcntl
import os
import shutil
import stat
import tempfile

import temp

PREFIX = "inmigrate-netem."


class Folder:
    """`with` gives its path, and removes it at the end."""

    def __init__(self, where=None):
        self.where = where or temp.roomy()
        self.path = self._lock = None

    def __enter__(self):
        sweep(self.where)
        while self.path is None:
            self.path = tempfile.mkdtemp(prefix=PREFIX, dir=self.where)
            self._lock = hold(self.path)
            if self._lock is None:
                self.path = None    # removed before it was locked
        return self.path

    def __exit__(self, *_):
        shutil.rmtree(self.path, ignore_errors=True)
        os.close(self._lock)


def _open(path):
    """The folder, if it is one and ours: other people's may be there as well."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    if os.fstat(fd).st_uid == os.geteuid():
        return fd
    os.close(fd)
    raise PermissionError(path)


def hold(path):
    """Use a folder until this process ends, or closes what this returns. None: it is gone."""
    try:
        fd = _open(path)
    except FileNotFoundError:
        return None
    fcntl.flock(fd, fcntl.LOCK_SH)
    try:
        if os.path.samestat(os.fstat(fd), os.stat(path, follow_symlinks=False)):
            return fd
    except FileNotFoundError:
        pass
    os.close(fd)
    return None


def sweep(where=None):
    """Remove the folders of runs that are dead. Return: their paths."""
    where, swept = where or temp.roomy(), []
    for name in sorted(os.listdir(where)):
        path = os.path.join(where, name)
        if name.startswith(PREFIX) and _is_folder(path) and _remove_if_dead(path):
            swept.append(path)
    return swept


def _is_folder(path):
    try:
        return stat.S_ISDIR(os.stat(path, follow_symlinks=False).st_mode)
    except FileNotFoundError:
        return False


def _remove_if_dead(path):
    try:
        fd = _open(path)
    except OSError:
        return False
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        shutil.rmtree(path, ignore_errors=True)
        return True
    except BlockingIOError:
        return False
    finally:
        os.close(fd)
