"""Text of annotation files, whatever program and system wrote it, packed or not."""

import codecs
import gzip
import io
import json
import re
import xml.etree.ElementTree as ET
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path

from code_common.errors import InputError, reason
from code_common.files.reading import only_once

MAX_BYTES = 1 << 30  # of a text file; the outlines of a whole slide take less
SHOWN = 5  # names in a message
_ENCODING = re.compile(rb"""^\s*<\?xml[^>]*?encoding\s*=\s*["']([A-Za-z0-9._-]+)["'][^>]*\?>""")
_PACKED = (".geojson", ".json", ".xml", ".csv", ".tsv", ".txt")  # what tools pack


def short(name: object, length: int = 40) -> str:
    """The beginning of a text from a file, on one line, for a message."""
    text = str(name)[:length]
    return "".join(sign if sign.isprintable() else "?" for sign in text)


def first_names(files: Sequence[Path | str]) -> str:
    """The names of the first files."""
    names = [short(Path(file).name, 80) for file in files[:SHOWN]]
    return ", ".join([*names, "..."] if len(files) > SHOWN else names)


def some_names(files: Sequence[Path | str]) -> str:
    """How many files there are, and the names of the first."""
    return f"{len(files)} ({first_names(files)})"


def told_of_masks(masks: Sequence[Path]) -> str:
    """That images are taken for masks, of which nothing is read."""
    return f"taken for masks of the images beside them: {some_names(masks)}"


def check_file(path: Path) -> None:
    """Raise InputError for a pipe or a device, which may have no end."""
    if path.exists() and not (path.is_file() or path.is_dir()):
        raise InputError(f"{path}: neither a file nor a folder")


def of_macos(name: str) -> bool:
    """Whether a file in an archive is one that macOS puts beside another."""
    return name.startswith("__MACOSX") or name.rpartition("/")[2].startswith("._")


def text_in_zip(path: Path) -> str:
    """The name of the one text file in a .zip, as QuPath and CVAT write it; "" if there is none.

    It is "" for ROIs of Fiji, too, whatever lies beside them. Raises InputError for a broken
    archive, and for several text files.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            names = [name for name in archive.namelist() if not of_macos(name)]
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
        raise InputError(f"{path}: not a readable .zip file ({reason(error)})") from None
    of_fiji = any(name.lower().endswith(".roi") for name in names)
    names = [name for name in names if name.lower().endswith(_PACKED) and not of_fiji]
    if len(names) > 1:
        raise InputError(f"{path}: {len(names)} text files in it; unpack it and give one of them")
    return names[0] if names else ""


def text_suffix(path: Path) -> str:
    """The suffix of the text in a file in lower case: .geojson of a.geojson.gz and of its .zip."""
    suffix = path.suffix.lower()
    if suffix == ".gz":
        return Path(path.stem).suffix.lower()
    return Path(text_in_zip(path)).suffix.lower() if suffix == ".zip" else suffix


def read_bytes(path: Path) -> bytes:
    """A whole file, unpacked. Raises InputError if there is none, or if it is too large."""
    try:
        if path.stat().st_size > MAX_BYTES:
            raise InputError(f"{path}: larger than {MAX_BYTES >> 20} MiB")
        data = path.read_bytes()
        if path.suffix.lower() == ".zip":
            with zipfile.ZipFile(path) as archive, archive.open(text_in_zip(path)) as file:
                data = file.read(MAX_BYTES + 1)
        elif data.startswith(b"\x1f\x8b"):
            data = gzip.GzipFile(fileobj=io.BytesIO(data)).read(MAX_BYTES + 1)
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except (OSError, EOFError, zlib.error, zipfile.BadZipFile, RuntimeError, KeyError) as error:
        raise InputError(f"{path}: not a readable text file ({reason(error)})") from None
    if len(data) > MAX_BYTES:
        raise InputError(f"{path}: unpacked it is larger than {MAX_BYTES >> 20} MiB")
    return data


def read_text(path: Path) -> str:
    """Text in UTF-8 or, where it begins with that mark, UTF-16. XML may name another encoding.

    Line ends are \\n, whatever system wrote them.
    """
    data = read_bytes(path)
    encoding = "utf-8-sig"
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        encoding = "utf-16"
    elif not data.startswith(codecs.BOM_UTF8) and (named := _ENCODING.match(data[:200])):
        encoding = named[1].decode("ascii")
    try:
        text = data.decode(encoding)
    except (UnicodeError, LookupError) as error:
        raise InputError(
            f"{path}: not a readable text file ({reason(error)}); expected UTF-8, as Excel's 'CSV "
            "UTF-8'"
        ) from None
    if "\0" in text:
        raise InputError(f"{path}: not a readable text file (UTF-16 without its mark?)")
    return text.replace("\r\n", "\n").replace("\r", "\n")


def read_json(path: Path) -> object:
    """What a JSON file holds. A key that stands twice is refused: its first value would be lost."""
    try:
        return json.loads(read_text(path), object_pairs_hook=only_once)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: not readable as JSON ({reason(error)})") from None


def read_xml(path: Path) -> ET.Element:
    """The root of an XML file. Document types and entities are refused: they can be bombs."""
    text = read_text(path)
    if re.search(r"<!\s*(DOCTYPE|ENTITY)", text, re.IGNORECASE):
        raise InputError(f"{path}: document types and entities are not allowed in annotations")
    try:
        return ET.fromstring(re.sub(r"^\s*<\?xml[^>]*\?>", "", text))
    except (ET.ParseError, ValueError, RecursionError) as error:
        raise InputError(f"{path}: not readable as XML ({reason(error)})") from None
