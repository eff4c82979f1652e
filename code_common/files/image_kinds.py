"""What kind of image a file holds, whether it fits into memory, and errors in one line."""

import logging
import os
import stat
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from code_common.errors import InputError, reason

# Files with these suffixes are taken for images.
IMAGE_SUFFIXES = (".png", ".tif", ".tiff", ".bmp", ".jpg", ".jpeg")
# And those of whole slides, which openslide or tiffslide reads.
SLIDE_SUFFIXES = (".svs", ".ndpi", ".scn", ".mrxs", ".vms", ".vmu", ".bif", ".svslide")
# And those of other images, which are not read, but from which tiles are converted.
OTHER_SUFFIXES = (
    ".qptiff", ".czi", ".nd2", ".lif", ".vsi", ".lsm", ".zvi", ".ims", ".dcm", ".jp2", ".j2k",
    ".gif", ".webp", ".heic", ".avif", ".jfif", ".psd",
)  # fmt: skip
# Microns per pixel that a microscope or a slide scanner has. 72, 96 and 300 dpi, which programs
# write where nothing is known, are far above.
MICROSCOPES = 0.02, 20
EXPECTED = "expected a PNG, TIFF, BMP or JPEG image"

# First bytes -> kind. The suffix of a file decides nothing.
_SIGNATURES = {
    b"\x89PNG\r\n\x1a\n": "PNG",
    b"\xff\xd8\xff": "JPEG",
    b"BM": "BMP",
    b"II*\0": "TIFF",
    b"MM\0*": "TIFF",
    b"II+\0": "TIFF",  # BigTIFF
    b"MM\0+": "TIFF",
}
# What else people have under the name of an image, for the error.
_OTHER_SIGNATURES = {
    b"<!doctype html": "a web page",
    b"<html": "a web page",
    b"version https://git-lfs": "a Git LFS pointer; fetch the file itself",
    b"gif8": "a GIF",
    b"\0\0\0\x0cjp": "a JPEG 2000 file",
    b"\xff\x4f\xff\x51": "a JPEG 2000 file",
    b"%pdf": "a PDF",
    b"pk\x03\x04": "a ZIP archive",
    b"\x1f\x8b": "a gzip archive",
    b"\x89hdf": "an HDF5 file",
    b"\x93numpy": "a NumPy array",
    b"zisrawfile": "a CZI file of Zeiss; export it as TIFF",
    b"\xda\xce\xbe\x0a": "an ND2 file of Nikon; export it as TIFF",
    b"\x70\0\0\0": "a LIF file of Leica; export it as TIFF",
    b"8bps": "a Photoshop file",
    b"<?xml": "an XML file",
}
_DICOM_AT = 128  # what comes before the letters DICM says nothing


class Undecoded(InputError):
    """The samples of a TIFF are not all there, or nothing that is installed decodes them.

    Packages for slides know some such files, in which tiles of empty glass are left out.
    """


def image_kind(path: Path) -> str:
    """The kind of an image file: 'PNG', 'JPEG', 'BMP' or 'TIFF'.

    Raises InputError if there is no such file, or if it is no image of these kinds. A pipe or a
    socket is never opened.
    """
    path = Path(path)
    try:
        mode = os.stat(path).st_mode
    except (OSError, ValueError) as error:
        if isinstance(error, FileNotFoundError) and path.is_symlink():
            why = "a link to a file that is not there"
        elif isinstance(error, FileNotFoundError):
            why = "no such file"
        else:
            why = reason(error)
        raise InputError(f"{path}: {why}") from None
    if stat.S_ISDIR(mode):
        raise InputError(f"{path}: a folder; {EXPECTED}")
    if not stat.S_ISREG(mode):
        raise InputError(f"{path}: a pipe, socket or device; {EXPECTED}")
    with readable(path, "image"), open(path, "rb") as file:
        start = file.read(_DICOM_AT + 4)
    for signature, kind in _SIGNATURES.items():
        if start.startswith(signature):
            return kind
    if not start:
        raise InputError(f"{path}: an empty file; {EXPECTED}")
    words = start.removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    for signature, name in _OTHER_SIGNATURES.items():
        if words.startswith(signature) or start.lower().startswith(signature):
            raise InputError(f"{path}: {name}; {EXPECTED}")
    if start[4:8] == b"ftyp" or start[:4] + start[8:12] == b"RIFFWEBP":
        raise InputError(f"{path}: a HEIC, AVIF or WebP file, or a video; {EXPECTED}")
    if start[_DICOM_AT:] == b"DICM":
        raise InputError(f"{path}: a DICOM file; {EXPECTED}")
    raise InputError(f"{path}: not an image that is known; {EXPECTED}")


@contextmanager
def readable(path: Path, kind: str) -> Iterator[None]:
    """Turn whatever a decoder raises into one InputError, and keep its log off the terminal.

    A broken file raises almost anything: OSError, SyntaxError, struct.error, ...
    """
    log = logging.getLogger("tifffile")
    before, log.disabled = log.disabled, True
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except InputError:
        raise
    except Exception as error:
        raise InputError(f"{path}: not a readable {kind} ({reason(error)})") from None
    finally:
        log.disabled = before


_stderr = threading.Lock()  # held while standard error leads nowhere


@contextmanager
def silent_libraries() -> Iterator[None]:
    """Keep what C libraries write to standard error off the terminal: libtiff and libpng do."""
    with _stderr:
        try:
            terminal = os.dup(2)
        except OSError:  # there is no standard error
            yield
            return
        nowhere = os.open(os.devnull, os.O_WRONLY)
        try:
            os.dup2(nowhere, 2)
            yield
        finally:
            os.dup2(terminal, 2)
            os.close(terminal)
            os.close(nowhere)


def memory_bytes() -> int:
    """Memory of this machine. 16 GB are assumed on Windows, which has no sysconf."""
    if not hasattr(os, "sysconf"):
        return 16 << 30
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def check_memory(path: Path, shape: tuple[int, int], bytes_per_pixel: int) -> None:
    """Raise InputError if an image of `shape` takes more than half of the memory, or no pixel."""
    rows, cols = shape
    if rows < 1 or cols < 1:
        raise InputError(f"{path}: the image has no pixels")
    needed, there = rows * cols * bytes_per_pixel, memory_bytes()
    if needed > there // 2:
        raise InputError(
            f"{path}: {cols:,} x {rows:,} pixels take {needed / 2**30:,.1f} GB, and half of the "
            f"memory is {there / 2**31:,.1f} GB; cut it into tiles first"
        )
