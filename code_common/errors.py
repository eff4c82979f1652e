"""One way to tell a user what is wrong with the input: one line, exit status 2, no traceback."""

import atexit
import errno
import gc
import os
import re
import shlex
import shutil
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


# Environment variable of a script that another one started, run.sh say, which will say it.
PARENT_SAYS = "PARENT_SAYS_HOW_TO_GO_ON"
PEER_GRACE_S = 10.0  # a busy machine may start one process seconds after another
PIPE_CLOSED = 141  # status of a program whose reader has gone, `| head` say: 128 + SIGPIPE
# What torch says where its workers find no room in /dev/shm.
_NO_SHARED_MEMORY = re.compile(
    r"(allocate|open|insufficient) shared memory|\(shm\)|file </torch_|signal: Bus error"
)
_NO_MEMORY = re.compile(r"MemoryError|bad_alloc|(?i:out of|allocate|enough|insufficient) memory")


# What stops a script: Ctrl-C, what a cluster sends, and a terminal that is closed.
STOPS = [getattr(signal, n) for n in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, n)]
STOPPED = 130  # status of a script that was stopped: 128 + SIGINT


def _interrupt(*_: object) -> NoReturn:
    raise KeyboardInterrupt


def _end_at_once(*_: object) -> NoReturn:
    """End where nothing is being written, as while a script imports what it needs.

    An exception would not do: libraries catch those that are raised in the middle of their imports.
    """
    try:
        _stop()
    finally:
        os._exit(STOPPED)


def _when_stopped(handler: Callable[..., NoReturn]) -> None:
    """Set what a signal that stops a script does, unless it is ignored, as after nohup."""
    for number in STOPS:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, handler)


def _end_quietly() -> NoReturn:
    """End where nobody reads the output any more."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except BrokenPipeError:
            os.dup2(nowhere, stream.fileno())
    os._exit(PIPE_CLOSED)


def _at_exit() -> None:
    # Python would look through all that torch imported for cycles to free, two seconds long.
    gc.freeze()
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        _end_quietly()


def _open_closed_streams() -> None:
    """Give a process that was started without stdout or stderr (`2>&-`) one that goes nowhere.

    Otherwise the next file that is opened would get its number, and with it every library's words.
    """
    for number, name in ((1, "stdout"), (2, "stderr")):
        if getattr(sys, name) is None:
            nowhere = os.open(os.devnull, os.O_WRONLY)
            try:
                os.fstat(number)
            except OSError:
                os.dup2(nowhere, number)
                os.close(nowhere)
                nowhere = number
            setattr(sys, name, open(nowhere, "w", encoding="utf-8", closefd=False))


_prepared = False  # whether `_prepare_output` was called


def _prepare_output() -> None:
    """Let no letter that the terminal lacks, and no reader that has gone, become a traceback."""
    global _prepared
    if _prepared:
        return
    _prepared = True
    _open_closed_streams()
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    show_error = sys.excepthook

    def show_error_unless_reader_has_gone(kind, error, traceback) -> None:
        if issubclass(kind, BrokenPipeError):
            _end_quietly()
        show_error(kind, error, traceback)

    sys.excepthook = show_error_unless_reader_has_gone
    atexit.register(_at_exit)


def _fail(message: str, status: int) -> NoReturn:
    # Of several processes that work as one, the first to fail speaks, and the others are stopped
    # meanwhile; where all of them fail at once, that shall be the first one.
    if re.fullmatch("[1-9][0-9]*", os.environ.get("LOCAL_RANK", "")):
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        time.sleep(PEER_GRACE_S)
    try:
        print(message, file=sys.stderr, flush=True)
    except BrokenPipeError:
        _end_quietly()
    sys.exit(status)


def _stop() -> NoReturn:
    """End a script that was stopped, and say how to go on."""
    for number in STOPS:
        signal.signal(number, signal.SIG_IGN)  # another one would only add a traceback
    sys.stdout.flush()
    if os.environ.get(PARENT_SAYS):
        sys.exit(STOPPED)
    _fail(f"\nstopped; to go on from here: {_own_command()}", STOPPED)


def _own_command() -> str:
    """The command line of this process, without the --restart that would begin anew."""
    python = Path(sys.executable).name
    python = python if shutil.which(python) == sys.executable else sys.executable
    return shlex.join([python, *(word for word in sys.argv if word != "--restart")])


def _tell_lack_of_memory(error: Exception) -> None:
    """End the script where an error of Python, torch, NumPy or OpenCV says that memory is full."""
    words = f"{type(error).__name__}: {error}"
    if _NO_SHARED_MEMORY.search(words):
        _fail(
            "error: no room in /dev/shm for the workers; give --workers 0, or start the container "
            "with more (docker run --shm-size=8g)",
            2,
        )
    if _NO_MEMORY.search(words):
        _fail(
            f"error: out of memory ({reason(error)[:99]}); lower --batch-size, --input-size for a "
            "training, --tile, --test-batch-size for a prediction; earlier results are intact",
            2,
        )


T = TypeVar("T")


def run_script(main: Callable[[], T]) -> T:
    """Run a script's main function and turn what a user can mend into one line.

    Exit status: 0 done, 2 wrong input or a full or read-only disk, 130 stopped by Ctrl-C, SIGTERM
    (what a cluster sends before it takes a machine back) or SIGHUP, 141 where nobody reads what is
    printed. A script that reads its command line so, before it imports what takes long, is stopped
    in one line during the imports, too.
    """
    _prepare_output()
    _when_stopped(_interrupt)
    try:
        result = main()
    except InputError as error:
        _fail(f"error: {error}", 2)
    except BrokenPipeError:
        _end_quietly()
    except OSError as error:
        why = _SYSTEM_ERRORS.get(error.errno)
        if why is None and error.filename is None:
            _tell_lack_of_memory(error)
            raise
        where = error.filename or "what is written or printed"
        _fail(f"error: {where}: {why or error.strerror}; earlier results are intact", 2)
    except Exception as error:
        _tell_lack_of_memory(error)
        raise
    except KeyboardInterrupt:
        _stop()
    _when_stopped(_end_at_once)
    return result
