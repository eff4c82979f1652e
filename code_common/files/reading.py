"""Strict reading of JSON and tables: the values, or an InputError that names the file."""

import csv
import json
from pathlib import Path

import numpy as np

from code_common.errors import InputError


def read_json(path: Path) -> object:
    """Read a JSON file. Raises InputError if it does not exist or is not JSON."""
    try:
        return json.loads(Path(path).read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except (ValueError, OSError) as error:
        raise InputError(f"{path}: not a readable JSON file ({error})") from None


def read_table(path: Path) -> dict[str, np.ndarray]:
    """Read a numeric CSV table: column name -> float64 [N].

    Lines that begin with '#' are notes and are skipped. Raises InputError if the file does not
    exist, is empty, or holds something else than numbers below its header line.
    """
    try:
        lines = [ln for ln in Path(path).read_text(encoding="utf-8-sig").splitlines() if ln.strip()]
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: not a readable CSV file ({error})") from None
    rows = list(csv.reader(ln for ln in lines if not ln.startswith("#")))
    if not rows:
        raise InputError(f"{path}: empty; expected a CSV table with a header line")
    header, body = [c.strip() for c in rows[0]], rows[1:]
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
    table = read_table(path)
    if not {"row", "col"} <= set(table):
        raise InputError(f"{path}: expected the columns row,col")
    places = np.rint(np.stack([table["row"], table["col"]], 1))
    points = np.where(np.isfinite(places), places, -1).astype(np.int64)
    if not ((points >= 0) & (points < shape)).all():
        raise InputError(f"{path}: a point lies outside of its image of {shape[1]} x {shape[0]}")
    return points
