"""One table for all images: a column names them, and an image without nuclei has a line, too."""

import numpy as np
import pytest

from code_common.errors import InputError
from code_common.files.images import read_label
from code_common.files.writing import write_png
from data.import_labels import main, parse_arguments

SHAPE = (60, 80)


@pytest.fixture
def data(tmp_path):
    """A data set of the images a, b and c."""
    for name in "abc":
        write_png(tmp_path / "images" / f"{name}.png", np.zeros((*SHAPE, 3), np.uint8))
    return tmp_path


def import_table(data, text, kind="points"):
    (data / "all.csv").write_text(text, encoding="utf-8")
    source = ["--data-dir", str(data), "--source", str(data / "all.csv")]
    main(parse_arguments([kind, *source]))


def places(data, name):
    """Row, column of the points that were imported; None where nothing was."""
    path = data / "labels_point" / f"{name}_label_point.png"
    return np.argwhere(read_label(path, SHAPE)).tolist() if path.is_file() else None


def test_an_image_without_nuclei_gets_an_empty_label(data, capsys):
    import_table(data, "x,y,image\n14.5,13.5,a.png\n,,b.png\n33,15,a.png\n1,1,z.png\n")
    assert capsys.readouterr().out.splitlines() == [
        "a: 2 points from all.csv",
        "b: 0 points from all.csv",
        f"c: nothing in {data / 'all.csv'}",
        "of no image: 1 (z.png)",
    ]
    assert places(data, "a") == [[13, 14], [15, 33]]
    assert places(data, "b") == [] and places(data, "c") is None


def test_a_table_of_one_image_without_nuclei(data):
    import_table(data, "x,y,image\n,,b.png\n")
    assert places(data, "b") == [] and places(data, "a") is None


@pytest.mark.parametrize(
    "text",
    [
        "Image;Object type;Centroid X px;Centroid Y px\na.tif;Annotation;40;30\n"
        "a.tif;Detection;14,5;13,5\na.tif;Detection;33;15\nb.tif;Detection;2;3\n",
        "filename\trow\tcol\nslides/a.png\t13\t14\nslides/a.png\t15\t33\nslides/b.png\t3\t2\n",
        "tile,axis-0,axis-1\na.png,13,14\nb.png,3,2\na.png,15,33\n",
    ],
)
def test_tables_of_other_tools(data, text):
    import_table(data, text)
    assert places(data, "a") == [[13, 14], [15, 33]] and places(data, "b") == [[3, 2]]


@pytest.mark.parametrize("name", ['a "1", b', "Gewebe Ü\n2", "#1", "=a;b", "'"])
def test_any_name(data, name):
    write_png(data / "images" / f"{name}.png", np.zeros((*SHAPE, 3), np.uint8))
    quoted = name.replace('"', '""')
    import_table(data, f'x,y,image\n,,a.png\n14.5,13.5,"{quoted}.png"\n')
    assert places(data, name) == [[13, 14]] and places(data, "a") == []


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x,y,image\n1,2,a.png\n,,a.png\n", "line 3 of the table has no coordinates"),
        ("x,y,image\n1,,a.png\n2,3,a.png\n", "line 2 of the table has no coordinates"),
        ("x,y,image\n1,2,a.png\n3,4,\n", "line 3 of the table names no image"),
        ("x,y,image\n1,2,1/a.png\n3,4,2/a.png\n", "two of its images have one file name"),
        ("x,y,class\n1,2,T\n", "a table with a column image.* not named like one of the images"),
        ("u,v,image\n1,2,a.png\n", "expected x,y or"),
        ("x,y,image\n1,2,k.png\n3,4,l.png\n", "nothing in it has the name of an image"),
    ],
)
def test_what_is_refused(data, text, message):
    with pytest.raises(InputError, match=message) as error:
        import_table(data, text)
    assert str(data / "all.csv") in str(error.value) and "\n" not in str(error.value)
    assert not list(data.glob("labels_*/*"))


@pytest.mark.parametrize("other", ["a.7", "a.B", "a.7.png", "a.png.7"])
def test_what_stands_behind_a_dot_is_a_part_of_a_name(data, capsys, other):
    """a.7 is another tile than a, though no suffix of an image ends either name."""
    import_table(data, f"image,x,y\n{other},10,20\n{other},40,50\nb,30,15\n")
    assert places(data, "a") is None and places(data, "b") == [[15, 30]]
    assert f"of no image: 1 ({other})" in capsys.readouterr().out


@pytest.mark.parametrize("suffix", ["", ".png", ".tif", ".ome.tif", ".svs", ".CZI"])
def test_names_with_dots_are_found(tmp_path, suffix):
    """With the suffix of any image, from which tiles may be converted, or without one."""
    for name in ("case.1.png", "case.2.tif", "case.3.ome.tif"):
        write_png(tmp_path / "images" / name, np.zeros((*SHAPE, 3), np.uint8))
    rows = [f"case.{k}{suffix},{k},{k + 4}\n" for k in (1, 2, 3)]
    import_table(tmp_path, "image,x,y\n" + "".join(rows))
    for k, name in enumerate(("case.1", "case.2", "case.3.ome"), 1):
        assert places(tmp_path, name) == [[k + 4, k]]


def test_rows_of_a_longer_name_are_not_taken_from_the_table_of_one_image(data, capsys):
    (data / "from").mkdir()
    (data / "from" / "a.csv").write_text("image,x,y\na.7,10,20\na,40,50\na.7,33,5\n")
    main(parse_arguments(["points", "--data-dir", str(data), "--source", str(data / "from")]))
    assert places(data, "a") == [[50, 40]]
    assert "a: 1 point from a.csv; left out: 2 objects of another image" in capsys.readouterr().out


def test_a_converted_image_and_another_of_its_name_keep_their_points(tmp_path):
    for name in ("T.png", "T.ome.tif"):
        write_png(tmp_path / "images" / name, np.zeros((*SHAPE, 3), np.uint8))
    import_table(tmp_path, "image,x,y\nT.ome,10,20\nT,40,50\n")
    assert places(tmp_path, "T.ome") == [[20, 10]] and places(tmp_path, "T") == [[50, 40]]


@pytest.mark.parametrize("other", ["a", "a.tif"])
def test_an_image_that_is_named_in_two_ways_is_an_error_of_its_own(data, capsys, other):
    """The points under the other name were lost, as of no image."""
    with pytest.raises(InputError, match="are names of one image, a.png; keep one") as error:
        import_table(data, f"image,x,y\na.png,10,20\n{other},40,50\nb.png,30,15\n")
    assert f"{other}" in str(error.value) and places(data, "a") is None
    assert places(data, "b") == [[15, 30]] and "of no image" not in capsys.readouterr().out


def test_of_two_names_of_an_image_the_one_with_points_counts(data):
    import_table(data, "image,x,y\na.png,,\na.tif,40,50\n")
    assert places(data, "a") == [[50, 40]]


def test_a_split_that_cannot_be_read_is_told(data, capsys):
    """It may name images which look like masks."""
    (data / "train_val_test.json").write_text("{x")
    import_table(data, "image,x,y\na.png,10,20\n")
    told = capsys.readouterr().out
    assert "not heeded: " in told and "train_val_test.json: not a readable JSON file" in told


def test_points_are_no_masks(data):
    with pytest.raises(InputError, match="1 point, no outline in it"):
        import_table(data, "x,y,image\n1,2,a.png\n", kind="masks")
