"""One way to tell a user what is wrong with the input: one line, exit status 2, no traceback."""

import errno
import os
import shlex
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn, TypeVar

_SYSTEM_ERRORS = {
    errno.ENOSPC: "no space left on the disk",
    errno.EDQUOT: "the disk quota is used up",
    errno.EROFS: "the file system is read-only",
    errno.EACCES: "permission denied",
    errno.ENOTDIR: "a file stands where a folder is needed",
    errno.EEXIST: "a file stands where a folder is needed",
    errno.EISDIR: "a folder stands where a file is needed",
    errno.ENAMETOOLONG: "the name is too long",
    errno.EFBIG: "the file would be larger than this system allows",
}


class InputError(Exception):
    """What the user gave is wrong; the message names the file or option and what was expected."""


def reason(error: BaseException) -> str:
    """What an error says in its first line, or what it is where it says nothing."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]


PEER_GRACE_S = 10.0  # a busy machine may start one process seconds after another


def _terminated(*_: object) -> None:
    raise KeyboardInterrupt


def _fail(message: str, status: int) -> NoReturn:
    # Of several processes that work as one, the first to fail speaks, and the others are stopped
    # meanwhile; where all of them fail at once, that shall be the first one.
    if os.environ.get("LOCAL_RANK", "0") != "0":
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        time.sleep(PEER_GRACE_S)
    print(message, file=sys.stderr)
    sys.exit(status)


T = TypeVar("T")


def run_script(main: Callable[[], T]) -> T:
    """Run a script's main function and turn what a user can mend into one line.

    Exit status: 0 done, 2 wrong input or a full or read-only disk, 130 stopped by Ctrl-C or
    SIGTERM (what a cluster sends before it takes a machine back).
    """
    signal.signal(signal.SIGTERM, _terminated)
    try:
        return main()
    except InputError as error:
        _fail(f"error: {error}", 2)
    except OSError as error:
        if error.errno not in _SYSTEM_ERRORS:
            raise
        where = error.filename or "the output folder"
        why = _SYSTEM_ERRORS[error.errno]
        _fail(f"error: {where}: {why}; earlier results are intact", 2)
    except KeyboardInterrupt:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # impatience would only add a traceback
        command = shlex.join([Path(sys.executable).name, *sys.argv])
        _fail(f"\nstopped; to go on from here: {command}", 130)
