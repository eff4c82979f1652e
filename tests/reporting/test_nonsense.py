"""Every JSON file and table that is read: nonsense in it is one line that names the file."""

from pathlib import Path

import pytest

from code_common.errors import InputError
from code_common.files.data_set import read_split
from code_common.files.reading import read_json, read_points, read_table
from code_common.files.writing import write_json
from code_common.learning.colours import read_colours
from code_common.reporting.album import read_album
from code_common.reporting.curves import stage_curves
from code_common.reporting.results import Repeat, read_repeat
from code_common.reporting.sections import annotated, area_section, label_section
from code_common.runs.same_run import saved_run
from code_seg.selection import read_selection
from tools.sweep import read_sweep


def repeat(folder: Path) -> Repeat:
    """A repeat of which nothing is read yet."""
    return Repeat(folder, {}, {}, {"instances": "convex"})


# Place of a JSON file in a folder -> what reads it.
JSON = {
    "train_val_test.json": read_split,
    "options.json": lambda folder: saved_run(folder / "options.json"),
    "colours.json": lambda folder: read_colours(folder / "colours.json"),
    "selection.json": read_selection,
    "segmentation/selection.json": lambda folder: repeat(folder).validation(),
    "segmentation/.done/test.json": lambda folder: repeat(folder).seconds(),
    "detection/options.json": read_repeat,
    "segmentation/options.json": read_repeat,
    "detection/test/metrics.json": read_repeat,
    "segmentation/test/metrics.json": read_repeat,
    "label_errors.json": label_section,
    "pictures/areas.json": area_section,
    "figures.json": read_album,
    "sweep.json": lambda folder: read_sweep(folder / "sweep.json"),
}
NO_JSON = {
    "empty": b"",
    "cut off": b'{"options": {"a": 1',
    "nested": b"[" * 100_000,
    "null": b"null",
    "a list": b"[1]",
    "a number": b"3",
    "a text": b'"x"',
    "NaN": b'{"options": NaN}',
    "twice": b'{"a": [1], "a": [2]}',
    "UTF-16": '{"a": [1]}'.encode("utf-16"),
    "no text": bytes(range(256)),
    "a number of 10,000 digits": b'{"a": ' + b"1" * 10_000 + b"}",
}
# Place of a table in a folder -> what reads it.
TABLES = {
    "log.csv": lambda folder: stage_curves("x", {"": folder / "log.csv"}),
    "points/a.csv": lambda folder: annotated(folder, 0.1),
    "p.csv": lambda folder: read_points(folder / "p.csv", (9, 9)),
}
NO_TABLE = {
    "empty": b"",
    "other columns": b"x,y\n1,2\n",
    "no numbers": b"row,col,epoch,loss\n1,2,3,x\n",
    "ragged": b"row,col,epoch,loss\n1,2\n",
    "twice": b"row,row,col,epoch,loss\n1,1,1,1,1\n",
    "UTF-16": "row,col,epoch,loss\n".encode("utf-16"),
    "no text": bytes(range(256)),
    "a long cell": b"row,col,epoch,loss\n1,2,3," + b"1" * 200_000 + b"x\n",
    "JSON": b'{"row": 1}',
}


def assert_named(read, path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    with pytest.raises(InputError) as caught:
        read()
    message = str(caught.value)
    assert str(path) in message and "\n" not in message and len(message) < 1000


@pytest.mark.parametrize("place", JSON)
def test_a_json_file_of_nonsense_is_named(tmp_path, place):
    for content in NO_JSON.values():
        assert_named(lambda: JSON[place](tmp_path), tmp_path / place, content)


@pytest.mark.parametrize("place", TABLES)
def test_a_table_of_nonsense_is_named(tmp_path, place):
    for content in NO_TABLE.values():
        assert_named(lambda: TABLES[place](tmp_path), tmp_path / place, content)


@pytest.mark.parametrize("value", [True, None, "1", [1], 10**400])
def test_what_is_no_number_is_none(tmp_path, value):
    write_json(tmp_path / "a.json", {"seconds": value})
    with pytest.raises(InputError, match=r'expected {"seconds": a number}'):
        read_json(tmp_path / "a.json", {"seconds": float})


def test_forms_of_json(tmp_path):
    value = {"a": 1, "b": {"x": [1.5]}, "c": [1, 2]}
    write_json(tmp_path / "a.json", value)
    form = {"a": float, "b": {str: [float]}, "c": (float, float), "d?": str}
    assert read_json(tmp_path / "a.json", form) == value
    for wrong in ({"d": str}, {"a": str}, {"b": {str: float}}, {"c": (str, str)}, {str: float}):
        with pytest.raises(InputError, match=r"a\.json: expected {"):
            read_json(tmp_path / "a.json", form | wrong)


@pytest.mark.parametrize("place", ["nan,1", "1,1e300", "-1e300,1", "inf,1", "9,1", "-1,1"])
def test_a_point_that_is_nowhere_is_refused(tmp_path, recwarn, place):
    (tmp_path / "p.csv").write_text(f"row,col\n{place}\n")
    assert read_table(tmp_path / "p.csv", "row")
    with pytest.raises(InputError, match="outside of its image of 5 x 9"):
        read_points(tmp_path / "p.csv", (9, 5))
    assert not recwarn.list
