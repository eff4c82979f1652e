"""Importers: known outlines and points, real MoNuSeg files, and files that are none."""

import json
import tempfile
from pathlib import Path

import numpy as np
import pytest
import scipy.io
from hypothesis import given, settings
from hypothesis import strategies as st

from code_common.errors import InputError
from code_common.files.data_set import find_samples
from code_common.files.reading import read_instances, read_label
from code_common.files.writing import write_png
from data.annotation_formats import (
    centre,
    rasterise,
    read_aperio_xml,
    read_array,
    read_coco,
    read_geojson,
    read_point_table,
)

SQUARE = [[2, 3], [6, 3], [6, 8], [2, 8]]  # 4 x 5 pixels: columns 2..5, rows 3..7


def xml(*outlines):
    regions = "".join(
        "<Region><Vertices>"
        + "".join(f'<Vertex X="{x}" Y="{y}"/>' for x, y in outline)
        + "</Vertices></Region>"
        for outline in outlines
    )
    return f"<Annotations><Annotation><Regions>{regions}</Regions></Annotation></Annotations>"


def feature(kind, coordinates):
    return {"type": "Feature", "geometry": {"type": kind, "coordinates": coordinates}}


def write(folder, name, content):
    path = Path(folder) / name
    path.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def test_an_outline_covers_the_pixels_whose_middle_it_encloses(tmp_path):
    found = read_aperio_xml(write(tmp_path, "a.xml", xml(SQUARE)))
    instances = rasterise(found.outlines, (10, 12))
    expected = np.zeros((10, 12), int)
    expected[3:8, 2:6] = 1
    assert (instances == expected).all()
    assert centre(found.outlines[0]) == pytest.approx((4, 5.5))


def test_overlapping_outlines_never_merge_ids():
    """Adding ids up would make 3 of 1 and 2. The smaller nucleus is on top, whatever the order."""
    large = [np.array([[0, 0], [9, 0], [9, 9], [0, 9]], float)]
    small = [np.array([[3, 3], [6, 3], [6, 6], [3, 6]], float)]
    for outlines in ([large, small], [small, large]):
        instances = rasterise(outlines, (9, 9))
        assert set(np.unique(instances)) == {1, 2}
        assert instances[4, 4] == 1 + (outlines[1] is small)
        assert (instances == instances[4, 4]).sum() == 9


def test_holes_and_parts_of_geojson(tmp_path):
    parts = [[[8, 0], [10, 0], [10, 2], [8, 2]], [[8, 5], [9, 5], [9, 6], [8, 6]]]
    hole = [[3, 4], [5, 4], [5, 6], [3, 6], [3, 4]]
    content = {
        "type": "FeatureCollection",
        "features": [
            feature("Polygon", [[*SQUARE, SQUARE[0]], hole]),
            feature("MultiPolygon", [[part] for part in parts]),
            feature("Point", [1.9, 7.2]),
            feature("MultiPoint", [[0.5, 0.5], [11, 9, 0]]),
        ],
    }
    found = read_geojson(write(tmp_path, "a.geojson", content))
    instances = rasterise(found.outlines, (10, 12))
    assert [(instances == k).sum() for k in (1, 2)] == [20 - 4, 4 + 1]
    assert instances[4, 3] == 0 and instances[5, 8] == 2
    assert found.points == [(1.9, 7.2), (0.5, 0.5), (11, 9)]


@pytest.mark.parametrize(
    "text, expected",
    [
        ("x\ty\tclass\tname\tcolor\n3.2\t7.9\tTumor\t\t\n", (7, 3)),  # QuPath: from the corner
        ("index,axis-0,axis-1\n0,7.4,2.6\n", (7, 3)),  # napari: from the middle, y first
        ("# 1 of 9 points\nrow,col\n7,3\n", (7, 3)),
        ("X, Y\n3,7\n", (7, 3)),
    ],
)
def test_every_table_means_the_same_pixel(tmp_path, text, expected):
    ((x, y),) = read_point_table(write(tmp_path, "a.csv", text)).points
    assert (int(np.floor(y)), int(np.floor(x))) == expected


def test_coco_and_arrays(tmp_path):
    content = {
        "images": [{"id": 7, "file_name": "dir/a.png"}, {"id": 8, "file_name": "b.png"}],
        "annotations": [{"image_id": 7, "segmentation": [[c for v in SQUARE for c in v]]}],
    }
    found = read_coco(write(tmp_path, "coco.json", content))
    assert rasterise(found["a.png"].outlines, (10, 12)).sum() == 20
    assert found["b.png"].outlines == []
    instances = np.arange(12).reshape(3, 4)
    np.save(tmp_path / "a.npy", instances)
    scipy.io.savemat(tmp_path / "a.mat", {"inst_map": instances.astype(float)})
    for name in ("a.npy", "a.mat"):
        assert (read_array(tmp_path / name, (3, 4)) == instances).all()
        with pytest.raises(InputError, match="expected an instance map"):
            read_array(tmp_path / name, (4, 3))


@pytest.mark.parametrize("tile", ["TCGA-A7-A13E-01Z-00-DX1", "TCGA-B0-5698-01Z-00-DX1"])
def test_real_monuseg_outlines_give_the_published_masks(mo, tile):
    """Half a pixel apart in this frame: one where vertices are taken for middles of pixels."""
    source = mo.parent / "monuseg_xml" / f"{tile}.xml"
    outlines = [[r - 0.5 for r in outline] for outline in read_aperio_xml(source).outlines]
    ours = rasterise(outlines, (1000, 1000))
    truth = next((mo / "labels_instance").glob(f"*{tile}*"))
    theirs = read_instances(truth, (1000, 1000))
    dice = 2 * ((ours > 0) & (theirs > 0)).sum() / ((ours > 0).sum() + (theirs > 0).sum())
    assert dice > 0.98 and len(np.unique(ours)) == len(np.unique(theirs))


def pickled():
    with tempfile.TemporaryFile() as file:
        np.save(file, np.array([{}], dtype=object))
        file.seek(0)
        return file.read()


BOMB = '<?xml version="1.0"?><!DOCTYPE a [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;">]>' + xml(SQUARE)


@pytest.mark.parametrize(
    "name, content, told",
    [
        ("a.xml", BOMB, "entities"),
        ("a.xml", "<Annotations/>", "no Region"),
        ("a.xml", "<Annotations>", "not readable as XML"),
        ("a.xml", xml([["1", "nan"], [2, 3], [4, 5]]), "not finite"),
        ("a.xml", xml([["one", 2]]), "no pair of numbers"),
        ("a.geojson", "{", "not readable as JSON"),
        ("a.geojson", "[" * 100_000, "not readable as JSON"),
        ("a.geojson", {"features": [1]}, "without a geometry"),
        ("a.geojson", feature("Circle", [1, 2]), "type Circle"),
        ("a.geojson", feature("Polygon", [[["a", 2]]]), "no pair of numbers"),
        ("a.csv", "", "empty"),
        ("a.csv", "a,b\n1,2\n", "expected x,y"),
        ("a.csv", "x,y\n1\n", "line 2"),
        ("a.csv", "x,y\n1,inf\n", "not finite"),
        ("a.csv", b"x,y\n\xff\xfe\n", "not a readable text"),
        ("a.npy", pickled(), "not a readable .npy"),
        ("a.npy", b"\x93NUMPY", "not a readable .npy"),
        ("a.mat", b"MATLAB", "not a readable .mat"),
    ],
)
def test_wrong_files_are_named_in_one_line(run_script, tmp_path, name, content, told):
    write_png(tmp_path / "images" / "a.png", np.zeros((10, 12, 3), np.uint8))
    write(tmp_path, f"source/{name}", content)
    kind = "points" if name.endswith("csv") else "masks"
    done = run_script(
        "data/import_labels.py", kind, "--data-dir", tmp_path, "--source", tmp_path / "source",
        code=2,
    )  # fmt: skip
    assert told in done.stderr and name in done.stderr
    assert done.stderr.count("\n") == 1 and "Traceback" not in done.stderr
    assert not list(tmp_path.glob("labels_*/*"))


@settings(max_examples=150, deadline=None)
@given(
    st.sampled_from([read_aperio_xml, read_geojson, read_coco, read_point_table]),
    st.one_of(
        st.binary(max_size=60),
        st.text(max_size=60),
        st.recursive(
            st.one_of(st.none(), st.floats(), st.text(max_size=5), st.just("Polygon")),
            lambda inner: st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(
                    ["type", "features", "geometry", "coordinates", "images", "annotations",
                     "segmentation", "geometries", "id", "file_name", "image_id"]
                ),
                inner, max_size=4,
            ),
            max_leaves=12,
        ),
    ),
)  # fmt: skip
def test_only_our_own_error_escapes_from_a_parser(reader, content):
    with tempfile.TemporaryDirectory() as folder:
        path = write(folder, "a.any", content)
        try:
            found = reader(path)
        except InputError as error:
            assert str(path) in str(error)
        else:
            for each in found.values() if isinstance(found, dict) else [found]:
                rasterise(each.outlines, (5, 5))


def test_import_into_a_data_set(run_script, tmp_path):
    for name in ("a", "b", "c"):
        write_png(tmp_path / "images" / f"{name}.png", np.zeros((10, 12, 3), np.uint8))
    source = tmp_path / "from"
    write(source, "a.xml", xml(SQUARE, [[8, 1], [11, 1], [11, 4], [8, 4]]))
    write(source, "b.tsv", "x\ty\tclass\n3.2\t7.9\tTumor\n8.5\t1.5\t\n")
    write_png(source / "a.png", np.zeros((10, 12, 3), np.uint8))  # the tile itself
    arguments = ("--data-dir", tmp_path, "--source", source)
    (source / "b.tsv").rename(tmp_path / "b.tsv")
    out = run_script("data/import_labels.py", "masks", *arguments).stdout
    assert "a: 2 nuclei" in out and "c: nothing in" in out
    (tmp_path / "b.tsv").rename(source / "b.tsv")
    run_script("data/import_labels.py", "points", *arguments)
    a, b, c = find_samples(
        tmp_path / "images", None, tmp_path / "labels_instance", tmp_path / "labels_point"
    )
    instances = read_instances(a.instances, (10, 12))
    assert (instances[3:8, 2:6] == 1).all() and (instances[1:4, 8:11] == 2).all()
    assert np.argwhere(read_label(a.points, (10, 12))).tolist() == [[2, 9], [5, 4]]
    assert np.argwhere(read_label(b.points, (10, 12))).tolist() == [[1, 8], [7, 3]]
    assert c.points is None and b.instances is None
    before = a.instances.read_bytes()
    write(source, "a.xml", xml(SQUARE))
    assert "kept" in run_script("data/import_labels.py", "masks", *arguments, code=2).stdout
    assert a.instances.read_bytes() == before
    (source / "b.tsv").unlink()
    run_script("data/import_labels.py", "masks", *arguments, "--overwrite")
    assert read_instances(a.instances, (10, 12)).max() == 1
