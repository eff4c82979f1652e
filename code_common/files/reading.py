"""Strict reading of JSON and tables: the values, or an InputError that names the file."""

import csv
import json
import sys
from pathlib import Path
from typing import NoReturn

import numpy as np

from code_common.errors import InputError, reason

LARGEST = sys.float_info.max


def read_json(path: Path, form: object = None) -> object:
    """Read a JSON file, with content of the form `form`; None: any.

    form: float (any finite number), str or dict; None: any value; [form]: a list; (form, form): a
    list of two; {"name": form, "other?": form, str: form}: an object with at least these names,
    but for those with a '?', and with str all its values have that form.
    Raises InputError if the file does not exist, is not strict JSON, or has another form.
    """
    try:
        text = Path(path).read_text(encoding="utf-8-sig")
        value = json.loads(text, object_pairs_hook=only_once, parse_constant=_refuse_constant)
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except RecursionError:
        raise InputError(f"{path}: not a readable JSON file (nested too deeply)") from None
    except (ValueError, OSError) as error:
        raise InputError(f"{path}: not a readable JSON file ({reason(error)})") from None
    if not _has_form(value, form):
        raise InputError(f"{path}: expected {_in_words(form)}")
    return value


def only_once(pairs: list[tuple[str, object]]) -> dict:
    """An object; ValueError where a name stands in it twice, as one of both would be lost."""
    value = dict(pairs)
    if len(value) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"{twice[:40]!r} stands there twice")
    return value


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no number")


def _has_form(value: object, form: object) -> bool:
    if form is None:
        return True
    if form is float:
        return type(value) in (int, float) and abs(value) <= LARGEST
    if isinstance(form, type):
        return isinstance(value, form)
    if isinstance(form, list):
        return isinstance(value, list) and all(_has_form(v, form[0]) for v in value)
    if isinstance(form, tuple):
        return isinstance(value, list) and len(value) == len(form) and _has_form(value, [*form[:1]])
    if not isinstance(value, dict):
        return False
    for name, inner in form.items():
        if name is str:
            parts = list(value.values())
        else:
            plain = name.removesuffix("?")
            if plain == name and name not in value:
                return False
            parts = [value[plain]] if plain in value else []
        if not all(_has_form(part, inner) for part in parts):
            return False
    return True


def _in_words(form: object) -> str:
    if form is None or isinstance(form, type):
        return {float: "a number", str: "a text", dict: "an object", None: "any value"}[form]
    if isinstance(form, (list, tuple)):
        count = "two" if isinstance(form, tuple) else "several"
        return f"a list of {count}, each {_in_words(form[0])}"
    names = {"any name" if name is str else f'"{name}"': inner for name, inner in form.items()}
    parts = [f"{n}: {_in_words(inner)}" for n, inner in names.items() if not n.endswith('?"')]
    return f"{{{', '.join(parts)}}}" if parts else "an object"


def read_table(path: Path, *columns: str) -> dict[str, np.ndarray]:
    """Read a numeric CSV table: column name -> float64 [N].

    Lines that begin with '#' are notes and are skipped. Raises InputError if the file does not
    exist, is empty, lacks one of `columns`, names one twice, or holds something else than numbers
    below its header line.
    """
    try:
        lines = [ln for ln in Path(path).read_text(encoding="utf-8-sig").splitlines() if ln.strip()]
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: not a readable CSV file ({reason(error)})") from None
    try:
        rows = list(csv.reader(ln for ln in lines if not ln.startswith("#")))
    except csv.Error as error:
        raise InputError(f"{path}: not a readable CSV file ({error})") from None
    if not rows:
        raise InputError(f"{path}: empty; expected a CSV table with a header line")
    header, body = [c.strip() for c in rows[0]], rows[1:]
    if not set(columns) <= set(header) or len(set(header)) < len(header):
        wanted = f"the columns {','.join(columns)}" if columns else "columns of different names"
        raise InputError(f"{path}: expected {wanted}")
    try:
        values = np.array([[float(c) for c in row] for row in body], dtype=np.float64)
        values = values.reshape(len(body), len(header))
    except ValueError:
        raise InputError(
            f"{path}: expected numbers in {len(header)} columns ({', '.join(header)}) on every line"
        ) from None
    return {name: values[:, i] for i, name in enumerate(header)}


def read_points(path: Path, shape: tuple[int, int]) -> np.ndarray:
    """Read points [N, 2] int64 (row, column) from a CSV table with the columns row and col.

    Places are rounded to pixels. Raises InputError if a column is missing, or if a point lies
    outside an image of `shape` (rows, columns).
    """
    table = read_table(path, "row", "col")
    places = np.rint(np.stack([table["row"], table["col"]], 1))
    if not ((places >= 0) & (places < shape)).all():  # nan is not
        raise InputError(f"{path}: a point lies outside of its image of {shape[1]} x {shape[0]}")
    return places.astype(np.int64)
