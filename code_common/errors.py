"""One way to tell a user what is wrong with the input: one line, exit status 2, no traceback."""

import errno
import sys
from collections.abc import Callable

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


def run_script(main: Callable[[], None]) -> None:
    """Run a script's main function and turn what a user can mend into one line.

    Exit status: 0 done, 2 wrong input or a full or read-only disk, 130 stopped by Ctrl-C.
    """
    try:
        main()
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except OSError as error:
        if error.errno not in _SYSTEM_ERRORS:
            raise
        where = error.filename or "the output folder"
        reason = _SYSTEM_ERRORS[error.errno]
        print(f"error: {where}: {reason}; earlier results are intact", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("\nStopped. Run the same command again to go on from here.", file=sys.stderr)
        sys.exit(130)
