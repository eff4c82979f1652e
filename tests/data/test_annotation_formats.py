"""Importers: known outlines and points, real MoNuSeg files, and files that are wrong."""

import json
import tempfile
from pathlib import Path

import numpy as np
import pytest
import scipy.io
from hypothesis import given, settings
from hypothesis import strategies as st

from code_common.annotations.formats import (
    centre,
    rasterise,
    read_aperio_xml,
    read_array,
    read_coco,
    read_geojson,
    read_point_table,
    shifted,
    without_regions,
)
from code_common.errors import InputError
from code_common.files.data_set import find_images
from code_common.files.images import read_instances, read_label
from code_common.files.writing import write_png
from data.import_labels import main, parse_arguments

SHAPE = (10, 12)  # of the tiny tiles
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
    (outline,) = read_aperio_xml(write(tmp_path, "a.xml", xml(SQUARE))).outlines
    expected = np.zeros(SHAPE, int)
    expected[3:8, 2:6] = 1
    assert (rasterise([outline], SHAPE) == expected).all()
    assert centre(outline) == pytest.approx((4, 5.5))


def test_overlapping_outlines_never_merge_ids():
    """Adding ids up would make 3 of 1 and 2. The smaller nucleus is on top, whatever the order."""
    large = [[np.array([[0, 0], [9, 0], [9, 9], [0, 9]], float)]]
    small = [[np.array([[3, 3], [6, 3], [6, 6], [3, 6]], float)]]
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
    annotations = read_geojson(write(tmp_path, "a.geojson", content))
    instances = rasterise(annotations.outlines, SHAPE)
    assert [(instances == k).sum() for k in (1, 2)] == [20 - 4, 4 + 1]
    assert instances[4, 3] == 0 and instances[5, 8] == 2
    assert annotations.points == [(1.9, 7.2), (0.5, 0.5), (11, 9)]


def test_a_collection_of_geometries_is_taken_apart(tmp_path):
    parts = [{"type": "Polygon", "coordinates": [SQUARE]}, {"type": "Point", "coordinates": [1, 2]}]
    content = [{"type": "GeometryCollection", "geometries": parts}]
    annotations = read_geojson(write(tmp_path, "a.geojson", content))
    assert len(annotations.outlines) == 1 and annotations.points == [(1, 2)]


@pytest.mark.parametrize(
    ("text", "expected"),
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


def test_coco_outlines_belong_to_their_images(tmp_path):
    content = {
        "images": [{"id": 7, "file_name": "dir/a.png"}, {"id": 8, "file_name": "b.png"}],
        "annotations": [{"image_id": 7, "segmentation": [[c for v in SQUARE for c in v]]}],
    }
    by_name = read_coco(write(tmp_path, "coco.json", content))
    assert rasterise(by_name["a.png"].outlines, SHAPE).sum() == 20
    assert by_name["b.png"].outlines == []


@pytest.mark.parametrize("name", ["a.npy", "a.mat"])
def test_instance_maps_of_other_tools(tmp_path, name):
    instances = np.arange(12).reshape(3, 4)
    np.save(tmp_path / "a.npy", instances)
    scipy.io.savemat(tmp_path / "a.mat", {"inst_map": instances.astype(float)})
    assert (read_array(tmp_path / name, (3, 4)) == instances).all()
    with pytest.raises(InputError, match="expected an instance map"):
        read_array(tmp_path / name, (4, 3))


@pytest.mark.parametrize("tile", ["TCGA-A7-A13E-01Z-00-DX1", "TCGA-B0-5698-01Z-00-DX1"])
def test_real_monuseg_outlines_give_the_published_masks(mo, tile):
    """Half a pixel apart in this frame: one where vertices are taken for middles of pixels."""
    source = mo.parent / "monuseg_xml" / f"{tile}.xml"
    drawn = shifted(read_aperio_xml(source), (-0.5, -0.5))
    ours = rasterise(drawn.outlines, (1000, 1000))
    assert without_regions(drawn, (1000, 1000)) == drawn
    truth = next((mo / "labels_instance").glob(f"*{tile}*"))
    theirs = read_instances(truth, (1000, 1000))
    dice = 2 * ((ours > 0) & (theirs > 0)).sum() / ((ours > 0).sum() + (theirs > 0).sum())
    assert dice > 0.997 and len(np.unique(ours)) == len(np.unique(theirs))


def pickled():
    with tempfile.TemporaryFile() as file:
        np.save(file, np.array([{}], dtype=object))
        file.seek(0)
        return file.read()


BOMB = '<?xml version="1.0"?><!DOCTYPE a [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;">]>' + xml(SQUARE)


def import_labels(kind, data_dir, source, *more):
    """Run the script in this process."""
    words = [kind, "--data-dir", data_dir, "--source", source, *more]
    main(parse_arguments([str(word) for word in words]))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.xml", BOMB, "entities are not allowed"),
        ("a.xml", "<Annotations/>", "no Region"),
        ("a.xml", "<Annotations>", "not readable as XML"),
        ("a.xml", xml([["1", "nan"], [2, 3], [4, 5]]), "not finite"),
        ("a.xml", xml([["one", 2]]), "no pair of numbers"),
        ("a.geojson", "{", "not readable as JSON"),
        ("a.geojson", "[" * 100_000, "not readable as JSON"),
        ("a.geojson", {"features": [1]}, "without a geometry"),
        ("a.geojson", feature("Circle", [1, 2]), "type Circle"),
        ("a.geojson", feature("Polygon", [[["a", 2]]]), "no pair of numbers"),
        ("a.geojson", feature("Point", ["a", 2]), "a Point with coordinates that are not numbers"),
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
def test_wrong_files_are_named_in_one_line(tmp_path, name, content, message):
    write_png(tmp_path / "images" / "a.png", np.zeros((*SHAPE, 3), np.uint8))
    write(tmp_path, f"source/{name}", content)
    kind = "points" if name.endswith("csv") else "masks"
    with pytest.raises(InputError) as error:
        import_labels(kind, tmp_path, tmp_path / "source")
    assert message in str(error.value) and name in str(error.value)
    assert "\n" not in str(error.value)
    assert not list(tmp_path.glob("labels_*/*"))


@settings(max_examples=150, deadline=None)
@given(
    st.sampled_from([read_aperio_xml, read_geojson, read_coco, read_point_table]),
    st.one_of(
        st.binary(max_size=60),
        st.text(max_size=60),
        st.recursive(
            st.one_of(st.none(), st.floats(), st.text(max_size=5), st.just("Polygon")),
            lambda inner: (
                st.lists(inner, max_size=3)
                | st.dictionaries(
                    st.sampled_from(
                        [
                            "type",
                            "features",
                            "geometry",
                            "coordinates",
                            "images",
                            "annotations",
                            "segmentation",
                            "geometries",
                            "id",
                            "file_name",
                            "image_id",
                        ]
                    ),
                    inner,
                    max_size=4,
                )
            ),
            max_leaves=12,
        ),
    ),
)
def test_only_our_own_error_escapes_from_a_parser(reader, content):
    with tempfile.TemporaryDirectory() as folder:
        path = write(folder, "a.any", content)
        try:
            result = reader(path)
        except InputError as error:
            assert str(path) in str(error)
        else:
            for annotations in result.values() if isinstance(result, dict) else [result]:
                rasterise(annotations.outlines, (5, 5))


@pytest.fixture
def tiles(tmp_path):
    """A data set of the tiles a, b and c; the folder 'from' has outlines of a and points of b."""
    for name in ("a", "b", "c"):
        write_png(tmp_path / "images" / f"{name}.png", np.zeros((*SHAPE, 3), np.uint8))
    write(tmp_path, "from/a.xml", xml(SQUARE, [[8, 1], [11, 1], [11, 4], [8, 4]]))
    write(tmp_path, "from/b.tsv", "x\ty\tclass\n3.2\t7.9\tTumor\n8.5\t1.5\t\n")
    write_png(tmp_path / "from" / "a.png", np.zeros((*SHAPE, 3), np.uint8))  # the tile itself
    return tmp_path


def labels(folder):
    """The tiles with the labels that they have now."""
    label_folders = folder / "labels_instance", folder / "labels_point"
    return find_images(folder / "images", None, *label_folders)


def test_masks_are_imported(run_script, tiles):
    """As a user does it; a tile without annotations is named."""
    (tiles / "from" / "b.tsv").unlink()
    arguments = ("masks", "--data-dir", tiles, "--source", tiles / "from")
    printed = run_script("data/import_labels.py", *arguments).stdout
    assert "a: 2 nuclei" in printed and "c: nothing in" in printed
    a, b, _ = labels(tiles)
    instances = read_instances(a.instances, SHAPE)
    assert (instances[3:8, 2:6] == 1).all() and (instances[1:4, 8:11] == 2).all()
    assert b.instances is None


def test_points_are_imported_and_outlines_give_their_centres(tiles):
    import_labels("points", tiles, tiles / "from")
    a, b, c = labels(tiles)
    assert np.argwhere(read_label(a.points, SHAPE)).tolist() == [[2, 9], [5, 4]]
    assert np.argwhere(read_label(b.points, SHAPE)).tolist() == [[1, 8], [7, 3]]
    assert c.points is None


def test_a_shift_moves_outlines(tiles):
    (tiles / "from" / "b.tsv").unlink()
    import_labels("masks", tiles, tiles / "from", "--shift", 1, -2)
    instances = read_instances(labels(tiles)[0].instances, SHAPE)
    assert (instances[1:6, 3:7] == 1).all() and (instances == 1).sum() == 20


def test_what_cannot_be_masks_is_refused(run_script, tiles):
    """One line, no traceback; the others are imported."""
    arguments = ("masks", "--data-dir", tiles, "--source", tiles / "from")
    done = run_script("data/import_labels.py", *arguments, code=2)
    message = "2 points, no outline in it; expected one for each nucleus"
    assert done.stderr == f"error: {tiles / 'from' / 'b.tsv'}: {message}\n"
    assert labels(tiles)[0].instances


def test_labels_that_are_there_are_kept(tiles, capsys):
    (tiles / "from" / "b.tsv").unlink()
    import_labels("masks", tiles, tiles / "from")
    before = labels(tiles)[0].instances.read_bytes()
    write(tiles, "from/a.xml", xml(SQUARE))
    import_labels("masks", tiles, tiles / "from")
    assert "a: a_label.tif is there, kept" in capsys.readouterr().out
    assert labels(tiles)[0].instances.read_bytes() == before
    import_labels("masks", tiles, tiles / "from", "--overwrite")
    assert read_instances(labels(tiles)[0].instances, SHAPE).max() == 1
