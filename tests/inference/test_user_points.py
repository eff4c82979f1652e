"""predict.py --points: points of a user in the place of detections."""

import json
from dataclasses import replace

import numpy as np
import pytest
import tifffile
from stand_ins import disks, pale
from test_predict import options, take_darkness_for_any_run

from code_common.errors import InputError
from code_common.files.images import read_image, read_label
from code_common.files.writing import write_png, write_table
from code_detection.options import DetectionPredictOptions
from code_detection.predict import predict as predict_points
from code_seg.predict import predict
from code_seg.segmenter import make_segmenter

SHAPE = (120, 140)


@pytest.fixture(autouse=True)
def stages(monkeypatch):
    return take_darkness_for_any_run(monkeypatch)


class Tiles:
    """Two tiles of disks, 'a' and 'b', and their centres (row, column)."""

    def __init__(self, folder):
        self.folder, self.centres = folder, {}
        for seed, name in enumerate("ab"):
            image, self.centres[name] = disks(SHAPE, 6, seed)
            write_png(folder / "in" / f"{name}.png", image)

    def predict(self, source, **changes):
        given = {"points": self.folder / source, "instances": "points"} | changes
        return predict(options(self.folder, self.folder / "in", **given))

    def found(self, name, shape=SHAPE):
        return read_label(self.folder / "out" / f"{name}_instances.tif", shape)

    def table(self, name):
        lines = (self.folder / "out" / f"{name}_given_points.csv").read_text().splitlines()
        assert lines[0] == "row,col,nucleus,note"
        return [line.split(",", 3) for line in lines[1:]]


@pytest.fixture
def tiles(tmp_path):
    return Tiles(tmp_path)


def as_csv(tiles, places):
    for name, points in places.items():
        write_table(tiles.folder / "points" / f"{name}.csv", ("row", "col"), points)
    return "points"


def as_geojson(tiles, places):
    for name, points in places.items():
        coordinates = [[col + 0.5, row + 0.5] for row, col in points]
        feature = {
            "type": "Feature",
            "geometry": {"type": "MultiPoint", "coordinates": coordinates},
        }
        path = tiles.folder / "points" / f"{name}.geojson"
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps({"type": "FeatureCollection", "features": [feature]}))
    return "points"


def as_one_table(tiles, places):
    rows = [(f"{name}.png", r, c) for name, points in places.items() for r, c in points]
    write_table(tiles.folder / "all.csv", ("image", "row", "col"), rows)
    return "all.csv"


def as_coco(tiles, places):
    """Boxes of 4 x 4 pixels around them."""
    numbers = {name: k for k, name in enumerate(places, 1)}
    of_image = [(numbers[name], *point) for name, points in places.items() for point in points]
    boxes = [
        {"id": k, "image_id": image, "category_id": 1, "bbox": [c - 1.5, r - 1.5, 4, 4]}
        for k, (image, r, c) in enumerate(of_image, 1)
    ]
    listed = [
        {"id": k, "file_name": f"{name}.png", "width": SHAPE[1], "height": SHAPE[0]}
        for name, k in numbers.items()
    ]
    categories = [{"id": 1, "name": "nucleus"}]
    whole = {"images": listed, "annotations": boxes, "categories": categories}
    (tiles.folder / "all.json").write_text(json.dumps(whole))
    return "all.json"


@pytest.mark.parametrize("form", [as_csv, as_geojson, as_one_table])
def test_each_point_has_the_nucleus_around_it(tiles, form, capsys):
    places = {name: centres[:4].tolist() for name, centres in tiles.centres.items()}
    message = tiles.predict(form(tiles, places))
    assert message.startswith("12 nuclei in 2 images")
    assert "each of 8 points has a nucleus" in capsys.readouterr().out
    for name, points in places.items():
        found, rows = tiles.found(name), tiles.table(name)
        assert found.max() == 6
        assert [[int(r), int(c)] for r, c, *_ in rows] == sorted(points)
        assert [int(k) for *_, k, _ in rows] == [found[r, c] for r, c in sorted(points)]
        assert len({k for *_, k, _ in rows}) == 4


def test_nuclei_of_other_points_are_left_out_on_demand(tiles):
    places = {name: centres[:4].tolist() for name, centres in tiles.centres.items()}
    assert tiles.predict(as_csv(tiles, places), only_points=True).startswith("8 nuclei")
    found = tiles.found("a")
    assert found.max() == 4 and all(found[r, c] for r, c in places["a"])
    assert sorted(int(k) for *_, k, _ in tiles.table("a")) == [1, 2, 3, 4]


def test_a_point_without_a_nucleus_is_listed_counted_and_drawn(tiles, capsys):
    nowhere = next(
        [r, c] for r in range(0, 120, 5) for c in range(0, 140, 5)
        if np.hypot(*(tiles.centres["a"] - (r, c)).T).min() > 30
    )  # fmt: skip
    places = {"a": [*tiles.centres["a"].tolist(), nowhere], "b": tiles.centres["b"].tolist()}
    tiles.predict(as_csv(tiles, places))
    assert "1 of 13 points have no nucleus" in capsys.readouterr().out
    (row,) = [row for row in tiles.table("a") if row[2] == "0"]
    assert [int(row[0]), int(row[1])] == nowhere and row[3] == "nothing seen there"
    overlay = read_image(tiles.folder / "out" / "a_overlay.png")
    around = overlay[
        max(0, nowhere[0] - 8) : nowhere[0] + 9, max(0, nowhere[1] - 8) : nowhere[1] + 9
    ]
    assert (np.ptp(around.reshape(-1, 3), axis=0) > 50).any()


def test_images_without_points_are_left_out_and_counted(tiles, capsys):
    places = {"a": tiles.centres["a"].tolist()}
    assert tiles.predict(as_csv(tiles, places), coco=True).startswith("6 nuclei in 1 images")
    assert "no points for 1 (b); left out" in capsys.readouterr().out
    assert (tiles.folder / "out" / "summary.csv").read_text().count("\n") == 2
    coco = json.loads((tiles.folder / "out" / "coco.json").read_text())
    assert [image["file_name"] for image in coco["images"]] == ["a.png"]


def test_points_of_no_image_are_an_error(tiles):
    with pytest.raises(InputError, match="nothing in it has the name of an image"):
        tiles.predict(as_csv(tiles, {"other": [(1, 1)]}))
    with pytest.raises(InputError, match="absent: no such file or folder"):
        tiles.predict("absent")


def test_wrong_points_of_one_image_do_not_stop_the_others(tiles, capsys):
    twice = [*tiles.centres["b"].tolist(), tiles.centres["b"][0].tolist()]
    source = as_csv(tiles, {"a": [(500, 3)], "b": twice})
    with pytest.raises(InputError, match=r"a\.csv: 1 of 1 points lie outside"):
        tiles.predict(source)
    assert tiles.found("b").max() == 6
    assert "b.csv: left out: 1 point (in the pixel of another)" in capsys.readouterr().out


def test_several_files_for_one_image_do_not_stop_the_others(tiles, capsys):
    """Nor do they leave what an earlier call made of one of them as done."""
    places = {name: centres.tolist() for name, centres in tiles.centres.items()}
    source = as_csv(tiles, places)
    tiles.predict(source)
    as_geojson(tiles, {"a": places["a"][:3]})
    as_csv(tiles, {"b": places["b"][:3]})
    with pytest.raises(InputError, match=r"a\.csv, a\.geojson are for one image; keep one of them"):
        tiles.predict(source, only_points=True)
    assert "1 of 2 images failed" in capsys.readouterr().err
    assert tiles.found("b").max() == 3
    (tiles.folder / "points" / "a.csv").unlink()
    assert tiles.predict(source, only_points=True).startswith("6 nuclei in 2 images")


def test_other_points_do_an_image_again(tiles, capsys):
    places = {name: centres.tolist() for name, centres in tiles.centres.items()}
    tiles.predict(as_csv(tiles, places), only_points=True)
    places["a"] = places["a"][:2]
    tiles.predict(as_csv(tiles, places), only_points=True)
    assert "1 images of an earlier call are done again" in capsys.readouterr().err
    assert tiles.found("a").max() == 2 and tiles.found("b").max() == 6


@pytest.mark.parametrize("form", ["table", "coco"])
def test_a_file_of_all_points_that_changes_during_a_call_stops_it(tiles, monkeypatch, form):
    """Whatever is noted of an image belongs to the points that were read of it."""
    places = {name: centres.tolist() for name, centres in tiles.centres.items()}
    fewer = {name: points[:2] for name, points in places.items()}
    write = as_one_table if form == "table" else as_coco
    source = write(tiles, places)

    def save_anew(*arguments, **keywords):
        write(tiles, fewer)
        return make_segmenter(*arguments, **keywords)

    with monkeypatch.context() as patch:
        patch.setattr("code_seg.predict.make_segmenter", save_anew)
        with pytest.raises(InputError, match=f"{source}: changed since this call began; give the"):
            tiles.predict(source, only_points=True)
    assert tiles.predict(source, only_points=True).startswith("4 nuclei in 2 images")
    assert tiles.found("a").max() == tiles.found("b").max() == 2


def test_what_is_left_out_of_the_points_is_told_before_the_work(tiles, capsys):
    """Also where an image fails."""
    source = as_csv(tiles, {"a": [(500, 3)], "other": [(1, 1)]})
    with pytest.raises(InputError, match="lie outside"):
        tiles.predict(source)
    lines = capsys.readouterr().out.splitlines()
    assert "of no image: 1 (other.csv)" in lines[0] and "no points for 1 (b)" in lines[1]
    assert sum("no points for" in line for line in lines) == 1


def test_points_are_pixels_of_the_file_at_any_scale(tiles):
    places = {name: centres.tolist() for name, centres in tiles.centres.items()}
    tiles.predict(as_csv(tiles, places), mpp=0.125, file_mpp=0.25, only_points=True)
    found = tiles.found("a", (240, 280))
    assert found.max() == 6
    for r, c, k, _ in tiles.table("a"):
        assert [int(r), int(c)] in places["a"] and found[2 * int(r), 2 * int(c)] == int(k)


def test_a_tile_without_nuclei_needs_no_points(tiles):
    write_png(tiles.folder / "in" / "a.png", pale(SHAPE))
    (tiles.folder / "points").mkdir()
    (tiles.folder / "points" / "a.geojson").write_text('{"type":"FeatureCollection","features":[]}')
    assert tiles.predict("points").startswith("0 nuclei in 1 images")


def test_no_detector_is_needed(tiles, stages):
    del stages["detection"]
    places = {name: centres.tolist() for name, centres in tiles.centres.items()}
    assert tiles.predict(as_csv(tiles, places)).startswith("12 nuclei")


def test_only_points_needs_points(tiles):
    with pytest.raises(InputError, match="--only-points: give --points, too"):
        options(tiles.folder, tiles.folder / "in", only_points=True)


def test_points_of_a_folder_of_masks_are_compared_as_well(tiles):
    """As in the Data Science Bowl: one mask for each nucleus."""
    masks = tiles.folder / "points" / "a" / "masks"
    for k, (row, col) in enumerate(tiles.centres["a"].tolist()):
        mask = np.zeros(SHAPE, np.uint8)
        mask[row - 2 : row + 3, col - 2 : col + 3] = 255
        write_png(masks / f"{k}.png", mask)
    assert tiles.predict("points", only_points=True).startswith("6 nuclei")
    (masks / "0.png").unlink()
    assert tiles.predict("points", only_points=True).startswith("5 nuclei")


def test_lines_about_an_image_are_told_by_every_call(tiles, capsys):
    places = {name: centres.tolist() for name, centres in tiles.centres.items()}
    places["a"] = [*places["a"], places["a"][0]]  # twice
    said = []
    for _ in range(2):
        tiles.predict(as_csv(tiles, places))
        said.append(capsys.readouterr().out)
        assert "left out: 1 point (in the pixel of another)" in said[-1]
    assert said[0].splitlines()[1:] == said[1].splitlines()[1:]  # but for the scale of what is read


def test_points_of_an_earlier_call_do_not_stay(tiles):
    places = {name: centres.tolist() for name, centres in tiles.centres.items()}
    tiles.predict(as_csv(tiles, places))
    predict(options(tiles.folder, tiles.folder / "in", instances="points"))
    assert not list((tiles.folder / "out").glob("*_given_points.csv"))


def test_the_detections_of_predict_are_points_as_they_lie(tiles):
    """code_detection/predict.py writes them twice, as a table and for QuPath."""
    out = tiles.folder / "found"
    given = {"cls": DetectionPredictOptions, "out": out}
    predict_points(options(tiles.folder, tiles.folder / "in", **given))
    assert tiles.predict("found", only_points=True).startswith("12 nuclei in 2 images")


def test_a_point_in_what_is_taken_for_glass_is_looked_at(tmp_path, monkeypatch):
    """A user's point says that there is a nucleus, be its surroundings as grey as glass."""
    monkeypatch.setattr("code_common.inference.slides.LARGE", 0)
    image, centres = disks((300, 400), 12)
    image[...] = image.mean(2, keepdims=True)  # nothing is coloured
    (tmp_path / "in").mkdir()
    tifffile.imwrite(tmp_path / "in" / "a.tif", image, photometric="rgb")
    write_table(tmp_path / "points" / "a.csv", ("row", "col"), centres)
    given = options(tmp_path, tmp_path / "in", points=tmp_path / "points", instances="points")
    assert predict(given).startswith("12 nuclei in 1 images")
    without = replace(given, points=None, out=tmp_path / "without")
    assert predict(without).startswith("0 nuclei in 1 images")


def test_a_stopped_call_does_not_go_on_with_other_points(tmp_path):
    """How much an image is magnified depends on its points."""
    tiles = Tiles(tmp_path)
    keys = []

    def maps(self, slide, work, key, points=None, lap=None):
        keys.append(key)
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("code_seg.segmenter.Segmenter.maps", maps)
        for count in (3, 5, 5):
            source = as_csv(tiles, {"a": tiles.centres["a"][:count]})
            with pytest.raises(KeyboardInterrupt):
                tiles.predict(source)
    assert keys[0] != keys[1] == keys[2]
