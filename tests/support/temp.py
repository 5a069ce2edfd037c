"""temp.py - where the files of a test go (C tests have temp.h)"""

import os
import shutil
import tempfile

LONGEST = 36                # a socket's address in a case's folder must fit into 107 bytes
MEMORY = "/dev/shm"
ROOM_BYTES = 2 << 30        # of several guests


def base():
    """$TMPDIR, or /tmp if a socket's address in there would be too long."""
    given = tempfile.gettempdir()
    return given if len(given) <= LONGEST else "/tmp"


def roomy():
    """In memory if there is room: for files that are as large as guests."""
    return MEMORY if os.path.isdir(MEMORY) and shutil.disk_usage(MEMORY).free > ROOM_BYTES else base()


def folder(prefix, where=None):
    return tempfile.mkdtemp(prefix=prefix, dir=where or base())
