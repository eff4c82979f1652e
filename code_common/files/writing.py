"""Writing files completely or not at all."""

import csv
import io
import json
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, BinaryIO

import cv2
import numpy as np
from PIL import Image

from code_common.files.locks import NoLocks, try_lock


def _claim_temporary(path: Path) -> tuple[Path, IO | None]:
    """The temporary name of a file that is being written, and its lock.

    It is the same for every process, so that what a killed one left is written over. It has the
    number of this process, and no lock, where another one is writing the file, and where there are
    no locks.
    """
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        lock = try_lock(temporary)
    except NoLocks:
        temporary.unlink(missing_ok=True)
        lock = None
    return (temporary if lock else path.with_name(f".{path.name}.{os.getpid()}.tmp")), lock


@contextmanager
def whole_file(path: Path) -> Iterator[BinaryIO]:
    """Open a file for writing that appears only when it is complete.

    It is written under a temporary name in the same folder, synchronised with the disk, and then
    renamed. After an error the old file is still there. An OSError gets the file's name.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = lock = None
    try:
        temporary, lock = _claim_temporary(path)
        with open(temporary, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException as error:
        if temporary:
            temporary.unlink(missing_ok=True)
        if isinstance(error, OSError):
            own = Path(error.filename or "").name.startswith(f".{path.name}.")
            error.filename = str(path) if own or not error.filename else error.filename
        raise
    finally:
        if lock:
            lock.close()


def write_bytes(path: Path, data: bytes) -> None:
    """Write a file completely or not at all."""
    with whole_file(path) as file:
        file.write(data)


def write_json(path: Path, value: object, indent: int | None = 1) -> None:
    """Write strict JSON. Raises ValueError for NaN and infinity. indent None: on one line."""
    write_bytes(path, (json.dumps(value, indent=indent, allow_nan=False) + "\n").encode())


def printable(text: str) -> str:
    """A text that any encoding of Unicode holds.

    Of a file name that is no UTF-8 the bytes that are none are written as \\xe9.
    """
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def write_text(path: Path, text: str) -> None:
    """Write a text in UTF-8; see `printable`."""
    write_bytes(path, printable(text).encode())


def write_png(path: Path, array: np.ndarray) -> None:
    """Write [H, W] uint8 or uint16, or [H, W, 3] uint8 RGB."""
    ok, data = cv2.imencode(".png", array[..., ::-1] if array.ndim == 3 else array)
    assert ok, f"cannot encode {array.dtype} {array.shape} as PNG"
    write_bytes(path, data.tobytes())


def write_prob(path: Path, prob: np.ndarray) -> None:
    """Write a probability map [H, W] in 0..1 as a 16-bit PNG: 65535 is 1."""
    write_png(path, np.rint(prob * 65535).astype(np.uint16))


def write_instances(path: Path, instances: np.ndarray) -> None:
    """Write an instance map [H, W] as a deflated TIFF: uint16, or int32 if an id needs it."""
    small = instances.max(initial=0) <= np.iinfo(np.uint16).max
    buffer = io.BytesIO()
    image = Image.fromarray(instances.astype(np.uint16 if small else np.int32))
    image.save(buffer, format="TIFF", compression="tiff_adobe_deflate")
    write_bytes(path, buffer.getvalue())


def _cell(value: object) -> object:
    """A cell of a table as a spreadsheet may open it: on one line, and text is no formula."""
    if not isinstance(value, str):
        return value
    text = re.sub(r"[\x00-\x1f\x7f]", lambda found: repr(found[0])[1:-1], value)
    return "'" + text if re.match(r"[=+@]|-(?![\d.]|inf)", text) else text


def write_table(
    path: Path, columns: Sequence[str], rows: Iterable[Sequence], note: str = ""
) -> None:
    """Write a CSV table with one header line. A note stands above it in a line '# note'.

    Text that a spreadsheet would take for a formula begins with an apostrophe.
    """
    text = io.StringIO()
    if note:
        text.write(f"# {note}\n")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(map(_cell, row) for row in rows)
    write_bytes(path, printable(text.getvalue()).encode())


def write_points(path: Path, points: np.ndarray, note: str = "") -> None:
    """Write points [N, 2] as a CSV table with the columns row and col, in pixels."""
    write_table(path, ("row", "col"), points.tolist(), note)
