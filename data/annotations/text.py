"""Text of annotation files, whatever program and system wrote it, and which classes are taken."""

import codecs
import json
import re
import xml.etree.ElementTree as ET
from collections.abc import Sequence
from pathlib import Path

from code_common.errors import InputError

MAX_BYTES = 1 << 30  # of a text file; the outlines of a whole slide take less
_ENCODING = re.compile(rb"""^\s*<\?xml[^>]*?encoding\s*=\s*["']([A-Za-z0-9._-]+)["'][^>]*\?>""")


def read_bytes(path: Path) -> bytes:
    """A whole file. Raises InputError if there is none, or if it is too large."""
    try:
        if path.stat().st_size > MAX_BYTES:
            raise InputError(f"{path}: larger than {MAX_BYTES >> 20} MiB")
        return path.read_bytes()
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except OSError as error:
        raise InputError(f"{path}: not a readable text file ({error})") from None


def read_text(path: Path) -> str:
    """Text in UTF-8 or, where it begins with that mark, UTF-16. XML may name another encoding."""
    data = read_bytes(path)
    encoding = "utf-8-sig"
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        encoding = "utf-16"
    elif not data.startswith(codecs.BOM_UTF8) and (named := _ENCODING.match(data[:200])):
        encoding = named[1].decode("ascii")
    try:
        return data.decode(encoding).replace("\r\n", "\n")
    except (UnicodeError, LookupError) as error:
        raise InputError(f"{path}: not a readable text file ({error})") from None


def read_json(path: Path) -> object:
    """What a JSON file holds."""
    try:
        return json.loads(read_text(path))
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: not readable as JSON ({error})") from None


def read_xml(path: Path) -> ET.Element:
    """The root of an XML file. Document types and entities are refused: they can be bombs."""
    text = read_text(path)
    if re.search(r"<!\s*(DOCTYPE|ENTITY)", text, re.IGNORECASE):
        raise InputError(f"{path}: document types and entities are not allowed in annotations")
    try:
        return ET.fromstring(re.sub(r"^\s*<\?xml[^>]*\?>", "", text))
    except (ET.ParseError, ValueError, RecursionError) as error:
        raise InputError(f"{path}: not readable as XML ({error})") from None


def class_left_out(names: Sequence[str], classes: Sequence[str] | None) -> str:
    """Why an object of these class names is left out; "" if it is taken.

    classes: the names that are wanted; None: all but those that end with '*', as QuPath's Ignore*,
    which its own measurements leave out, too.
    """
    names = [name for name in names if name]
    if classes is None:
        ignored = [name for name in names if name.endswith("*")]
        return f"object of class {ignored[0][:40]}" if ignored else ""
    wanted = {name.casefold() for name in classes}
    # QuPath joins a class and its subclass with a colon: 'Tumor: Positive' is a Tumor, too.
    parts = {part.strip().casefold() for name in names for part in [name, *name.split(":")]}
    if parts & wanted:
        return ""
    return f"object of class {names[0][:40]}" if names else "object without a class"
