"""Locks that keep two processes from writing the same files. They end with their process."""

import errno
import os
import sys
from pathlib import Path
from typing import IO

try:
    import fcntl
except ImportError:  # Windows, where nothing but the user keeps two processes apart
    fcntl = None

# What a file system without locks says: NFS and Lustre may be mounted so. 524 is Linux's own.
_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP, 524)
_told = False  # whether the user knows that there are no locks


def _tell_once(folder: Path) -> None:
    global _told
    if not _told:
        print(
            f"{folder}: this file system has no locks, so nothing keeps two processes from "
            "writing here at once",
            file=sys.stderr,
        )
    _told = True


class NoLocks(Exception):
    """A file system, or an operating system, without locks."""


def try_lock(path: Path) -> IO | None:
    """Lock a file for this process, until it is closed; None where another process has it.

    The file is made where it is not there. Raises NoLocks on a file system without locks.
    """
    if not fcntl:
        raise NoLocks
    path.parent.mkdir(parents=True, exist_ok=True)
    while True:
        file = open(path, "ab")  # what another process is writing into it stays
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # Who had the lock before may have removed the file: then this is a lock of nothing.
            if os.fstat(file.fileno()).st_ino == os.stat(path).st_ino:
                return file
        except FileNotFoundError:
            pass
        except BlockingIOError:
            file.close()
            return None
        except OSError as error:
            file.close()
            if error.errno in _NO_LOCKS:
                raise NoLocks from None
            raise
        file.close()


def take_lock(path: Path) -> IO | None:
    """`try_lock`, but on a file system without locks a file counts as locked.

    A line says so once.
    """
    try:
        return try_lock(path)
    except NoLocks:
        _tell_once(path.parent)
        path.parent.mkdir(parents=True, exist_ok=True)
        return open(path, "ab")


def remove_lock(path: Path, file: IO) -> None:
    """Give back a lock that `take_lock` gave, and remove its file."""
    path.unlink(missing_ok=True)
    file.close()
