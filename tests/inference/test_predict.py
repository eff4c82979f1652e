"""Prediction on images of any size: whole nuclei, counted once, whatever the tiles."""

import json
import os
import struct
import subprocess
import sys
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import tifffile
from conftest import PROJECT
from stand_ins import MPP, Darkness, disks, pale, touching, write_slide, write_untrained_run

from code_common.annotations.formats import rasterise, read_coco
from code_common.errors import InputError
from code_common.files.images import read_image, read_instances
from code_common.files.reading import read_json, read_table
from code_common.files.run_folder import options_path
from code_common.files.writing import write_json, write_png
from code_common.inference import prediction, slides
from code_common.inference.detections import detect
from code_common.inference.streaming import find_components
from code_common.inference.tiling import Tiling, predict_prob
from code_common.inference.trained_run import TrainedStage
from code_detection.options import DetectionPredictOptions
from code_detection.predict import predict as predict_points
from code_seg.evaluate import make_instances
from code_seg.magnify import predict_nuclei
from code_seg.options import SegPredictOptions
from code_seg.predict import predict

TILING = Tiling(tile=64, overlap=24)
DETECTOR = {"r1": 6, "threshold": 0.5, "min_area": 5, "max_area": 400}
SCRIPTS = {predict: SegPredictOptions, predict_points: DetectionPredictOptions}
SEGMENTER = {"min_area": 10, "instances": "points", "nucleus_radius": 0.0}


def take_darkness_for_any_run(patch):
    """Make both scripts take `Darkness` for the networks of any run; returns its stages."""
    stages = {
        "detection": TrainedStage(Darkness(1), dict(DETECTOR), key="d"),
        "segmentation": TrainedStage(Darkness(2), dict(SEGMENTER), key="s"),
    }
    for script in ("code_seg.predict", "code_detection.predict"):
        patch.setattr(f"{script}.load_trained_run", lambda *_: dict(stages))
    return stages


@pytest.fixture
def trained(monkeypatch):
    """The stages of a run, whose settings a test may change."""
    return take_darkness_for_any_run(monkeypatch)


def options(folder, images, cls=SegPredictOptions, **changes):
    """Options of a prediction that leaves its results in folder/out."""
    values = {
        "model": folder,
        "images": (images,),
        "out": folder / "out",
        "tile": TILING.tile,
        "overlap": TILING.overlap,
        "device": "cpu",
        "precision": "fp32",
    }
    return cls(**values | changes).resolved()


def written(folder, image):
    """The path of a file with this image."""
    write_png(folder / "tile.png", image)
    return folder / "tile.png"


def results_of_tile(out):
    """The four files of the results of `written`, by name."""
    found = {path.name: path.read_bytes() for path in out.glob("tile_*")}
    assert len(found) == 4
    return found


def as_whole(stages, image, method):
    """The instance map of the whole image in memory."""
    found_by, stage = stages["detection"], stages["segmentation"]
    rule = [found_by.settings[name] for name in ("threshold", "min_area", "max_area")]
    points = detect(predict_prob(found_by.network, image, TILING), *rule)
    radius = stage.settings["nucleus_radius"]
    prob = predict_nuclei(stage.network, image, points, TILING, radius)
    return make_instances(prob, points, stage.settings["min_area"])[method]


def areas_of(instances):
    """Area of each nucleus of an instance map, by its id."""
    return np.bincount(instances.ravel())[1:].tolist()


def same_nuclei(a, b):
    """Whether two instance maps are the same but for the ids."""
    pairs = np.unique(np.stack([a.ravel(), b.ravel()]), axis=1)
    return len(pairs[0]) == len(np.unique(a)) == len(np.unique(b))


@dataclass(frozen=True)
class Predicted:
    """The results of an image of 90 disks that do not touch."""

    image: np.ndarray  # [330, 470, 3]
    centres: np.ndarray  # [90, 2]: row, column
    message: str
    out: Path
    whole: np.ndarray  # instance map of the image in memory

    def table(self):
        """The nuclei by column."""
        return read_table(self.out / "tile_nuclei.csv")

    def instances(self):
        """The instance map [330, 470]."""
        return read_instances(self.out / "tile_instances.tif", self.image.shape[:2])

    def outlines(self):
        """The nuclei as GeoJSON features."""
        return read_json(self.out / "tile_nuclei.geojson")["features"]


@pytest.fixture(scope="module")
def predicted(tmp_path_factory):
    folder = tmp_path_factory.mktemp("predicted")
    image, centres = disks((330, 470), 90)
    with pytest.MonkeyPatch.context() as patch:
        stages = take_darkness_for_any_run(patch)
        message = predict(options(folder, written(folder, image)))
    whole = as_whole(stages, image, "components")
    return Predicted(image, centres, message, folder / "out", whole)


def test_every_nucleus_is_there_once(predicted):
    table = predicted.table()
    assert predicted.message.startswith("90 nuclei in 1 images")
    assert table["id"].tolist() == list(range(1, 91))
    for row, col in predicted.centres:
        # x and y count from the corner of the first pixel.
        assert np.hypot(table["y"] - 0.5 - row, table["x"] - 0.5 - col).min() < 0.1


def test_nuclei_are_whole(predicted):
    assert sorted(predicted.table()["area"]) == sorted(areas_of(predicted.whole))


def test_table_map_and_outlines_hold_the_same_nuclei(predicted):
    table, outlines = predicted.table(), predicted.outlines()
    assert areas_of(predicted.instances()) == table["area"].tolist()
    assert len(outlines) == len({outline["id"] for outline in outlines}) == 90
    for x, y, outline in zip(table["x"], table["y"], outlines, strict=True):
        ring = np.array(outline["geometry"]["coordinates"][0])
        assert (ring.min(0) <= (x, y)).all() and (ring.max(0) >= (x, y)).all()


def test_a_prediction_leaves_an_overlay_and_a_summary_and_nothing_unfinished(predicted):
    assert read_image(predicted.out / "tile_overlay.png").shape == predicted.image.shape
    summary = (predicted.out / "summary.csv").read_text()
    table = read_table(predicted.out / "tile_nuclei.csv", "area", "probability")
    head, row = (line.split(",") for line in summary.splitlines())
    assert head == ["image", "nuclei", "radius", "unsure", "width", "height"]
    assert [row[0], row[1], *row[4:]] == ["tile", "90", "470", "330"]
    assert float(row[2]) == pytest.approx(np.sqrt(np.median(table["area"]) / np.pi), abs=0.01)
    assert float(row[3]) == pytest.approx((table["probability"] < 0.8).mean(), abs=1e-3)
    assert not list(predicted.out.rglob("*.u16"))


@pytest.mark.parametrize("radius", [0, 13, 16])
@pytest.mark.parametrize("method", ["components", "points", "convex"])
def test_parts_give_what_the_whole_gives(tmp_path, trained, monkeypatch, method, radius):
    """Also where the image is seen magnified, which depends on the size of its nuclei."""
    trained["segmentation"].settings["nucleus_radius"] = radius
    image = touching((301, 410))
    path, maps = written(tmp_path, image), []
    for block, tile, batch_size in [(2048, 64, 1), (64, 64, 4), (37, 96, 7), (200, 160, 10)]:
        in_blocks = partial(find_components, block=block)
        for script in ("code_common.inference.prediction", "code_seg.segmenter"):
            monkeypatch.setattr(f"{script}.find_components", in_blocks)
        out = tmp_path / str(block)
        changes = {"tile": tile, "test_batch_size": batch_size, "instances": method, "out": out}
        predict(options(tmp_path, path, **changes))
        maps.append(read_instances(out / "tile_instances.tif", image.shape[:2]))
    assert maps[0].max() > 40
    assert same_nuclei(maps[0], as_whole(trained, image, method))
    assert all(np.array_equal(m, maps[0]) for m in maps[1:])


@pytest.mark.parametrize("radius", [0, 13])
def test_a_killed_prediction_goes_on_where_it_stopped(tmp_path, trained, monkeypatch, radius):
    trained["segmentation"].settings["nucleus_radius"] = radius
    path, whole = written(tmp_path, touching((700, 200))), tmp_path / "whole"
    a_row_of_tiles_at_a_time = {"test_batch_size": 1}
    predict(options(tmp_path, path, out=whole, **a_row_of_tiles_at_a_time))

    kills, parts_of_each = 4, 3
    predict_rows, first_rows = prediction.predict_rows, []

    def killed(*arguments, first_row, **keywords):
        first_rows.append(first_row)
        parts = predict_rows(*arguments, first_row=first_row, **keywords)
        for number, part in enumerate(parts):
            if number == parts_of_each and len(first_rows) <= kills:
                raise KeyboardInterrupt
            yield part

    monkeypatch.setattr(prediction, "predict_rows", killed)
    cut = options(tmp_path, path, **a_row_of_tiles_at_a_time)
    for _ in range(kills):
        with pytest.raises(KeyboardInterrupt):
            predict(cut)
    predict(cut)
    assert first_rows[0] == 0 < first_rows[1] < first_rows[2] < first_rows[3]
    assert results_of_tile(cut.out) == results_of_tile(whole)


@pytest.mark.parametrize("damage", ["map cut off", "map gone", "note damaged"])
def test_a_damaged_unfinished_map_is_made_anew(tmp_path, trained, monkeypatch, damage):
    path, whole = written(tmp_path, touching((400, 200))), tmp_path / "whole"
    predict(options(tmp_path, path, out=whole, test_batch_size=1))
    predict_rows = prediction.predict_rows

    def stopped(*arguments, **keywords):
        for number, part in enumerate(predict_rows(*arguments, **keywords)):
            if number == 3:
                raise KeyboardInterrupt
            yield part

    cut = options(tmp_path, path, test_batch_size=1)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(prediction, "predict_rows", stopped)
        predict(cut)
    (unfinished,) = (cut.out / ".work").rglob("*.u16")
    if damage == "map cut off":
        os.truncate(unfinished, 1000)
    elif damage == "map gone":
        unfinished.unlink()
    else:
        unfinished.with_suffix(".json").write_text("[1]")
    predict(cut)
    assert results_of_tile(cut.out) == results_of_tile(whole)


def test_results_that_were_emptied_are_made_anew(tmp_path, trained):
    given = options(tmp_path, written(tmp_path, disks((70, 70), 2)[0]))
    predict(given)
    before = results_of_tile(given.out)
    for name in before:
        (given.out / name).write_bytes(b"")
        predict(given)
        assert results_of_tile(given.out) == before


def break_link(folder):
    (folder / "bad.png").symlink_to("nowhere.png")


def loop(folder):
    (folder / "bad.png").symlink_to("bad.png")


def cut_off(folder):
    write_slide(folder / "bad.svs")
    os.truncate(folder / "bad.svs", 3000)


def be_a_folder(folder):
    (folder / "bad.png").mkdir()


def be_a_pipe(folder):
    os.mkfifo(folder / "bad.png")


def be_text(folder):
    (folder / "bad.tif").write_text("no image")


BROKEN = [break_link, loop, cut_off, be_a_folder, be_a_pipe, be_text]


@pytest.mark.parametrize("make_bad", BROKEN)
def test_a_broken_image_is_a_line_and_the_others_are_done(tmp_path, trained, make_bad):
    images = tmp_path / "in"
    for name in ("a", "z"):
        write_png(images / f"{name}.png", disks((70, 70), 2)[0])
    make_bad(images)
    given = options(tmp_path, images)
    with pytest.raises(InputError, match=r"bad\.\w+: ") as caught:
        predict(given)
    assert "\n" not in str(caught.value)
    assert all((given.out / f"{name}_nuclei.csv").is_file() for name in ("a", "z"))
    next(images.glob("bad.*")).rename(tmp_path / "away")
    assert predict(given).startswith("4 nuclei in 2 images")


@pytest.mark.parametrize("part", ["open", "thumbnail", "read"])
def test_whatever_a_decoder_raises_is_that_images_line(tmp_path, trained, monkeypatch, part):
    images = tmp_path / "in"
    for name in ("a", "bad", "z"):
        write_png(images / f"{name}.png", disks((70, 70), 2)[0])
    open_file = slides._open

    def fail(*_):
        raise struct.error("unpack requires\n8 bytes")

    def open_bad(path, *arguments):
        slide = open_file(path, *arguments)
        if path.stem != "bad":
            return slide
        return fail() if part == "open" else replace(slide, **{"thumbnail": fail, part: fail})

    monkeypatch.setattr(slides, "_open", open_bad)
    given = options(tmp_path, images)
    with pytest.raises(InputError, match=r"bad\.png: not a readable image \(unpack requires\)$"):
        predict(given)
    assert all((given.out / f"{name}_nuclei.csv").is_file() for name in ("a", "z"))


def test_a_link_to_nothing_among_the_images_given_is_a_line(tmp_path, trained):
    path = written(tmp_path, disks((70, 70), 2)[0])
    (tmp_path / "link.png").symlink_to("nowhere.png")
    given = replace(options(tmp_path, path), images=(tmp_path / "link.png", path))
    with pytest.raises(InputError, match=r"link\.png: a link to a file that is not there"):
        predict(given)
    assert (given.out / "tile_nuclei.csv").is_file()


def test_results_are_never_taken_for_images(tmp_path, trained):
    path = written(tmp_path / "in", disks((70, 70), 2)[0])
    predict(replace(options(tmp_path, path), out=tmp_path / "in"))  # as earlier versions did
    assert (tmp_path / "in" / "tile_overlay.png").is_file()
    assert predict(options(tmp_path, tmp_path / "in")).startswith("2 nuclei in 1 images")


def test_a_name_that_is_no_utf8(tmp_path, trained):
    name = os.fsdecode(b"Pr\xe4parat")
    write_png(tmp_path / "in" / "a.png", disks((70, 70), 2)[0])
    (tmp_path / "in" / "a.png").rename(tmp_path / "in" / f"{name}.png")
    for _ in range(2):
        assert predict(options(tmp_path, tmp_path / "in", coco=True)).startswith("2 nuclei in 1")
        predict_points(
            options(tmp_path, tmp_path / "in", cls=DetectionPredictOptions, out=tmp_path / "p")
        )
    assert "\nPr\\xe4parat,2," in (tmp_path / "out" / "summary.csv").read_text()
    assert read_json(tmp_path / "out" / "coco.json")["images"][0]["file_name"] == "Pr\\xe4parat.png"


def polygon_area(ring):
    """Area within a closed ring [N, 2]."""
    x, y = np.array(ring).T
    return abs(np.sum(x[:-1] * y[1:] - x[1:] * y[:-1])) / 2


@pytest.mark.parametrize("mpp", [0.25, 0.5, 0.8])
def test_areas_are_in_the_frame_of_the_coordinates_beside_them(tmp_path, trained, mpp):
    given = options(
        tmp_path, written(tmp_path, disks((200, 250), 8)[0]), coco=True, mpp=mpp, file_mpp=0.5
    )
    predict(given)
    features = read_json(given.out / "tile_nuclei.geojson")["features"]
    annotations = read_json(given.out / "coco.json")["annotations"]
    table = read_table(given.out / "tile_nuclei.csv")
    assert len(features) == len(annotations) == len(table["area"]) > 4
    for feature, annotation, area in zip(features, annotations, table["area"], strict=True):
        told = feature["properties"]["measurements"]["Area px^2"]
        assert told == annotation["area"] == pytest.approx(area * (mpp / 0.5) ** 2, abs=0.01)
        # A ring through the middles of edges cuts its corners off.
        within = polygon_area(feature["geometry"]["coordinates"][0])
        assert within == pytest.approx(told, rel=0.1)


def tiff_of(path, image, **more):
    """Write a TIFF that states 0.5 microns per pixel."""
    tifffile.imwrite(
        path, image, resolution=(2e4, 2e4), resolutionunit="CENTIMETER", photometric="rgb", **more
    )


@pytest.mark.parametrize("mpp", [0.25, 1.0])
def test_mpp_scales_small_images_by_what_they_state(tmp_path, trained, mpp):
    image = disks((200, 250), 8)[0]
    tiff_of(tmp_path / "tile.tif", image)
    write_png(tmp_path / "same.png", image)
    for out, path, more in [("a", "tile.tif", {}), ("b", "same.png", {"file_mpp": 0.5})]:
        predict(options(tmp_path, tmp_path / path, out=tmp_path / out, mpp=mpp, **more))
    maps = [tmp_path / "a" / "tile_instances.tif", tmp_path / "b" / "same_instances.tif"]
    shape = round(200 * 0.5 / mpp), round(250 * 0.5 / mpp)
    assert np.array_equal(*(read_instances(path, shape) for path in maps))


def test_mpp_asks_for_the_resolution_where_none_is_stated(tmp_path, trained):
    tiff_of(tmp_path / "in.tif", disks((70, 70), 2)[0])
    path = written(tmp_path, disks((70, 70), 2)[0])
    given = replace(options(tmp_path, path, mpp=0.25), images=(path, tmp_path / "in.tif"))
    with pytest.raises(InputError, match=r"tile\.png: does not say .* --file-mpp") as caught:
        predict(given)
    assert "\n" not in str(caught.value) and (given.out / "in_nuclei.csv").is_file()


def test_a_resolution_that_is_not_the_stated_one_is_told(tmp_path, trained, capsys):
    """The one that is given counts, as what a file states may be wrong."""
    write_png(tmp_path / "in" / "says_none.png", disks((70, 70), 2)[0])
    tiff_of(tmp_path / "in" / "says_half.tif", disks((70, 70), 2)[0])
    for mpp, told in ((0.25, True), (0.5, False)):
        given = options(tmp_path, tmp_path / "in", mpp=0.25, file_mpp=mpp, out=tmp_path / f"{mpp}")
        predict(given)
        printed = capsys.readouterr().out
        line = "says_half.tif: states 0.5 microns per pixel; --file-mpp 0.25 is taken"
        assert (line in printed) == told and "says_none" not in printed.partition("scaled")[2]


FOREIGN = ["tile_nuclei.geojson", "tile_instances.tif", "tile_points.csv", "summary.csv",
           "coco.json", "annotate.html"]  # fmt: skip


@pytest.mark.parametrize("name", FOREIGN)
def test_a_file_that_no_call_wrote_is_not_replaced(tmp_path, trained, name):
    """A user's own masks, corrected outlines or tables in the folder of the results."""
    images, out = tmp_path / "in", tmp_path / "out"
    for tile in ("tile", "other"):
        write_png(images / f"{tile}.png", disks((70, 70), 2)[0])
    out.mkdir()
    (out / name).write_text("of a user")
    of_points = "points" in name or "annotate" in name
    cls, action = SegPredictOptions, predict
    if of_points:
        cls, action = DetectionPredictOptions, predict_points
    for _ in range(2):
        with pytest.raises(InputError, match=f"{name}: no call of this program wrote it") as caught:
            action(options(tmp_path, images, cls=cls))
        assert "\n" not in str(caught.value) and (out / name).read_text() == "of a user"
    done = "other_points.csv" if of_points else "other_instances.tif"
    assert (out / done).is_file() == name.startswith("tile")
    (out / name).unlink()
    action(options(tmp_path, images, cls=cls))


def test_what_a_killed_call_left_is_its_own(tmp_path, trained, monkeypatch):
    """It may be stopped between an image's results and the note that they are done."""
    given = options(tmp_path, written(tmp_path, disks((70, 70), 2)[0]))

    def stop(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("code_seg.predict.write_label_map", stop)
        with pytest.raises(KeyboardInterrupt):
            predict(given)
    assert (given.out / "tile_nuclei.csv").is_file()
    assert predict(given).startswith("2 nuclei in 1 images")


@pytest.mark.parametrize("stage", ["detection", "segmentation"])
def test_results_in_a_run_folder_are_refused(tmp_path, trained, stage):
    write_json(options_path(tmp_path / "run" / stage), {"options": {}})
    out = tmp_path / "run" / stage / "test"
    for cls, action in ((SegPredictOptions, predict), (DetectionPredictOptions, predict_points)):
        with pytest.raises(InputError, match="--out .* lies in the run folder"):
            action(options(tmp_path, written(tmp_path, disks((70, 70), 2)[0]), cls=cls, out=out))
    assert not out.exists()


def test_a_slide_of_glass_is_told(tmp_path, trained, capsys):
    pytest.importorskip("tiffslide")
    glass = np.full((320, 416, 3), 240, np.uint8)
    tifffile.imwrite(tmp_path / "glass.svs", glass, tile=(256, 256), metadata=None)
    predict(options(tmp_path, tmp_path / "glass.svs"))
    assert "glass.svs: shows next to nothing" in capsys.readouterr().out


def test_one_line_tells_the_scale(tmp_path, trained, capsys):
    """Also where nothing is scaled, and where all was done before."""
    image, images = disks((70, 70), 2)[0], tmp_path / "in"
    write_png(images / "a.png", image)
    tiff_of(images / "b.tif", image)
    tiff_of(images / "c.tif", image)
    read = "images are read as they are, not scaled (--mpp)"
    of_files = "; microns per pixel of the files: 0.5 in 2, not stated in 1"
    for cls, action, out in [
        (SegPredictOptions, predict, "out"),
        (DetectionPredictOptions, predict_points, "points"),
    ]:
        for _ in range(2):
            action(options(tmp_path, images, cls=cls, out=tmp_path / out))
            assert capsys.readouterr().out.splitlines().count(read + of_files) == 1
    predict(options(tmp_path, images, out=tmp_path / "scaled", mpp=0.25, file_mpp=0.5))
    read = "images are read at 0.25 microns per pixel; microns per pixel of the files: 0.5 in 3\n"
    assert read in capsys.readouterr().out


def test_equal_calls_give_equal_bytes(tmp_path, trained):
    """Also where an image is so large that its map is an OME-TIFF."""
    pytest.importorskip("tiffslide")
    write_png(tmp_path / "in" / "tile.png", touching((90, 120)))
    write_slide(tmp_path / "in" / "slide.svs")
    scaled = {"mpp": 4 * MPP, "file_mpp": MPP}  # of few pixels
    for out in ("a", "b"):
        predict(options(tmp_path, tmp_path / "in", out=tmp_path / out, coco=True, **scaled))
    files = [path for path in (tmp_path / "a").rglob("*") if path.is_file()]
    assert len(files) == 2 * (4 + 1) + 3
    for path in (p for p in files if p.parent.name != ".done" and p.name != "times.csv"):
        other = tmp_path / "b" / path.relative_to(tmp_path / "a")
        assert path.read_bytes() == other.read_bytes(), path.name


def test_a_name_too_long_for_its_results_is_told_before_the_work(tmp_path, trained, monkeypatch):
    long = "b" * 235
    for name in ("a", long):
        write_png(tmp_path / f"{name}.png", disks((70, 70), 2)[0])
    opened, open_file = [], slides._open

    def open_and_note(path, *arguments):
        opened.append(path.stem)
        return open_file(path, *arguments)

    monkeypatch.setattr(slides, "_open", open_and_note)
    given = options(tmp_path, tmp_path / "a.png")
    given = replace(given, images=tuple(tmp_path / f"{name}.png" for name in (long, "a")))
    with pytest.raises(InputError, match="b.png: the name is too long"):
        predict(given)
    assert opened == ["a"]


def test_points_alone(tmp_path, trained):
    image, centres = disks((200, 250), 20)
    message = predict_points(
        options(tmp_path, written(tmp_path, image), cls=DetectionPredictOptions)
    )
    assert message.startswith("20 nuclei")
    table = read_table(tmp_path / "out" / "tile_points.csv")
    points = set(zip(table["row"], table["col"], strict=True))
    assert points == set(map(tuple, centres.tolist()))
    features = read_json(tmp_path / "out" / "tile_points.geojson")["features"]
    places = {tuple(feature["geometry"]["coordinates"]) for feature in features}
    assert places == {(col + 0.5, row + 0.5) for row, col in points}


def test_a_method_of_another_version_is_named(tmp_path, trained):
    trained["segmentation"].settings["instances"] = "detected"
    image = disks((40, 30), 1, radius=(6, 7))[0]
    with pytest.raises(InputError, match="detected.*--instances"):
        predict(options(tmp_path, written(tmp_path, image)))


def test_points_need_a_detector(tmp_path, trained):
    del trained["detection"]
    path = written(tmp_path, disks((70, 70), 2)[0])
    with pytest.raises(InputError, match="holds no detector .* --instances components"):
        predict(options(tmp_path, path))
    assert predict(options(tmp_path, path, instances="components")).startswith("2 nuclei")


def test_an_image_without_nuclei_and_one_smaller_than_a_tile(tmp_path, trained):
    write_png(tmp_path / "in" / "empty.png", pale((100, 80)))
    write_png(tmp_path / "in" / "small.png", disks((40, 30), 1, radius=(6, 7))[0])
    message = predict(options(tmp_path, tmp_path / "in"))
    assert message.startswith("1 nuclei in 2 images")
    assert (tmp_path / "out" / "empty_nuclei.csv").read_text().count("\n") == 1
    empty = read_json(tmp_path / "out" / "empty_nuclei.geojson")
    assert empty == {"type": "FeatureCollection", "features": []}


@pytest.mark.parametrize("script", SCRIPTS)
def test_images_that_share_a_name_do_not_stop_the_others(tmp_path, trained, script, capsys):
    """What was made of one of them stays, and counts again where it is the only one."""
    images = tmp_path / "in"
    for name in ("a.png", "a.bmp", "b.png"):
        write_png(images / name, disks((70, 70), 2)[0])
    (images / "a.bmp").rename(tmp_path / "a.bmp")
    given = options(tmp_path, images, cls=SCRIPTS[script])
    script(options(tmp_path, images / "a.png", cls=SCRIPTS[script]))
    before = {path: path.stat().st_mtime_ns for path in given.out.glob("a_*")}
    (tmp_path / "a.bmp").rename(images / "a.bmp")
    with pytest.raises(InputError, match=r"a\.bmp and .*a\.png share one name; keep one of them"):
        script(given)
    assert "1 of 2 images failed" in capsys.readouterr().err
    assert list(given.out.glob("b_*"))
    (images / "a.bmp").unlink()
    script(given)
    assert before == {path: path.stat().st_mtime_ns for path in given.out.glob("a_*")} != {}


def test_shards_do_every_image_once(tmp_path, trained):
    images = tmp_path / "in"
    for k in range(5):
        write_png(images / f"{k}.png", disks((70, 70), 2, seed=k)[0])
    message = predict(options(tmp_path, images, shard="1/2"))
    assert message.startswith("2 of 5 images are done")
    of_the_first_shard = tmp_path / "out" / "1_nuclei.csv"
    before = of_the_first_shard.stat().st_mtime_ns
    for shard in ("0/2", ""):
        assert predict(options(tmp_path, images, shard=shard)).startswith("10 nuclei in 5")
    assert of_the_first_shard.stat().st_mtime_ns == before


def test_a_job_array_of_the_docs(tmp_path):
    """Two jobs, one after the other, as SLURM would start them."""
    model, images, out = (tmp_path / name for name in ("model.pt", "in", "out"))
    write_untrained_run(model)
    for k in range(3):
        write_png(images / f"{k}.png", disks((70, 70), 2, seed=k)[0])
    (script,) = (PROJECT / "docs").rglob("predict_array.sbatch")
    messages = []
    for job in ("0", "1"):
        environment = {
            **os.environ,
            "VIRTUAL_ENV": sys.prefix,
            "SLURM_ARRAY_TASK_ID": job,
            "SLURM_ARRAY_TASK_COUNT": "2",
            "SLURM_SUBMIT_DIR": str(PROJECT),
        }
        command = ["bash", script, model, images, out, "--device", "cpu"]
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        messages.append(done.stdout)
    assert "2 of 3 images are done" in messages[0] and "in 3 images" in messages[1]
    assert "(this is shard 0/2, of a SLURM job array; --shard 0/1 does all images)" in messages[0]
    assert (out / "summary.csv").is_file()


def test_coco_holds_what_the_maps_hold(tmp_path, trained):
    shape, names = (150, 130), ("0", "1")
    for name in names:
        write_png(tmp_path / "in" / f"{name}.png", touching(shape, seed=int(name)))
    predict(options(tmp_path, tmp_path / "in", coco=True))
    images = read_coco(tmp_path / "out" / "coco.json")
    for name in names:
        instances = read_instances(tmp_path / "out" / f"{name}_instances.tif", shape)
        assert same_nuclei(rasterise(images[f"{name}.png"].outlines, shape), instances)


def test_what_is_of_all_images_does_not_outlive_a_call_with_other_images(tmp_path, trained):
    """Even where nothing is to be done again; equal calls keep it."""
    images, out = tmp_path / "in", tmp_path / "out"
    for name in "ab":
        write_png(images / f"{name}.png", disks((70, 70), 2)[0])
    predict(options(tmp_path, images, coco=True))
    predict(options(tmp_path, images))
    assert len(read_coco(out / "coco.json")) == 2
    predict(options(tmp_path, images / "a.png"))
    assert not (out / "coco.json").exists()
    of_points = {"cls": DetectionPredictOptions, "out": tmp_path / "points"}
    predict_points(options(tmp_path, images, annotate=True, **of_points))
    write_png(images / "a.png", disks((70, 80), 2, 5)[0])
    predict_points(options(tmp_path, images, **of_points))
    assert not (tmp_path / "points" / "annotate.html").exists()


@pytest.mark.parametrize("which", ["same", "another", "stopped"])  # of the images
@pytest.mark.parametrize("scripts", [[*SCRIPTS], [*SCRIPTS][::-1]])
def test_the_results_of_the_other_script_are_not_replaced(tmp_path, trained, scripts, which):
    """Be they of another image, or of an image that was being done when its call ended."""
    images, out = tmp_path / "in", tmp_path / "out"
    for name in "ab":
        write_png(images / f"{name}.png", disks((70, 70), 2)[0])
    first, second = (partial(s, options(tmp_path, images, cls=SCRIPTS[s])) for s in scripts)
    first()
    if which == "another":
        other = written(tmp_path, pale((70, 70)))
        second = partial(scripts[1], options(tmp_path, other, cls=SCRIPTS[scripts[1]]))
    elif which == "stopped":
        for note in (out / ".done").iterdir():
            files = dict.fromkeys(read_json(note)["files"], [])
            write_json(note, read_json(note) | {"key": "", "files": files})
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    with pytest.raises(InputError, match=r"out: holds results of the other predict\.py \(a_"):
        second()
    assert before == {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    assert first().startswith("4 nuclei in 2 images")


def test_results_of_other_images_in_the_folder_are_told(tmp_path, trained, capsys):
    images = tmp_path / "in"
    for name in "abc":
        write_png(images / f"{name}.png", disks((70, 70), 2)[0])
    predict(options(tmp_path, images))
    predict(options(tmp_path, images, instances="components"))
    assert "earlier calls lie in" not in capsys.readouterr().out
    predict(options(tmp_path, images / "b.png"))
    told = f"earlier calls lie in {tmp_path / 'out'} and are not in summary.csv: 2 (a, c)"
    assert told in capsys.readouterr().out
    for path in (tmp_path / "out").glob("a_*"):
        path.unlink()
    predict(options(tmp_path, images / "b.png"))
    assert "not in summary.csv: 1 (c)" in capsys.readouterr().out


@pytest.mark.parametrize("content", [{}, [], {"features": [{}]}, {"features": 5}])
def test_coco_of_outlines_that_were_edited_is_refused(tmp_path, trained, content):
    write_png(tmp_path / "in" / "a.png", touching((150, 130), seed=0))
    predict(options(tmp_path, tmp_path / "in"))
    path = tmp_path / "out" / "a_nuclei.geojson"
    path.write_text(json.dumps(content).ljust(path.stat().st_size))
    with pytest.raises(InputError, match="a_nuclei.geojson: changed since it was written"):
        predict(options(tmp_path, tmp_path / "in", coco=True))
    assert not (tmp_path / "out" / "coco.json").exists()


@pytest.fixture
def predicted_slide(tmp_path, trained):
    """Centres of the nuclei beside the glass, and the results of a slide at half resolution."""
    pytest.importorskip("tiffslide")
    _, centres = write_slide(tmp_path / "slide.svs")
    predict(options(tmp_path, tmp_path / "slide.svs", mpp=2 * MPP))
    return centres, tmp_path / "out"


def test_nuclei_of_a_slide_are_told_in_pixels_of_the_file(predicted_slide):
    centres, out = predicted_slide
    table = read_table(out / "slide_nuclei.csv")
    by_the_glass = (centres[:, 1] > 870).sum()
    assert abs(len(table["id"]) - len(centres)) <= 3 + by_the_glass
    for row, col in centres[centres[:, 1] < 860]:
        assert np.hypot(table["y"] - row, table["x"] - col).min() < 1.5


def test_areas_of_a_slide_are_told_in_pixels_and_in_microns(predicted_slide):
    table = read_table(predicted_slide[1] / "slide_nuclei.csv")
    pixel = (2 * MPP) ** 2  # in square microns, as the slide was read
    assert np.allclose(table["area"] * pixel, table["area_um2"], rtol=1e-4)


def test_the_map_of_a_slide_is_an_ome_tiff_with_its_resolution(predicted_slide):
    _, out = predicted_slide
    nuclei = len(read_table(out / "slide_nuclei.csv")["id"])
    with tifffile.TiffFile(out / "slide_instances.ome.tif") as tiff:
        assert tiff.is_ome and tiff.series[0].shape == (600, 750)
        assert "PhysicalSizeX" in tiff.ome_metadata
        assert len(np.unique(tiff.asarray())) == nuclei + 1


def test_tables_of_all_images_do_not_outlive_what_they_tell(tmp_path, trained):
    """The next call does one image of two again, with another option."""
    for name, count in (("a", 2), ("b", 3)):
        write_png(tmp_path / "in" / f"{name}.png", disks((70, 70), count)[0])
    out = tmp_path / "out"
    predict(options(tmp_path, tmp_path / "in", coco=True))
    tables = out / "summary.csv", out / "coco.json"
    assert all(table.is_file() for table in tables)
    predict(options(tmp_path, tmp_path / "in"))  # nothing is done again
    assert all(table.is_file() for table in tables)
    predict(options(tmp_path, tmp_path / "in", instances="components", shard="0/2"))
    assert not any(table.exists() for table in tables)


@pytest.mark.parametrize("mpp", [0.5, 0.4, 0.15])
def test_coordinates_of_a_scaled_image_lie_on_the_file(tmp_path, trained, mpp):
    """Its sides are no multiples of the pixels that are read."""
    image = disks((151, 133), 4)[0]
    image[100:, 90:] = 40  # a nucleus over both last borders
    write_png(tmp_path / "in" / "a.png", image)
    predict(options(tmp_path, tmp_path / "in", mpp=mpp, file_mpp=0.25, coco=True))
    coco = read_json(tmp_path / "out" / "coco.json")
    assert (coco["images"][0]["width"], coco["images"][0]["height"]) == (133, 151)
    ends = [np.array(a["bbox"])[:2] + np.array(a["bbox"])[2:] for a in coco["annotations"]]
    assert (np.max(ends, 0) <= (133, 151)).all()
    assert (np.max(ends, 0) > np.array((133, 151)) - 2 * mpp / 0.25).all()


def test_the_table_of_an_image_without_nuclei_has_all_columns(tmp_path, trained):
    for name, image in (("a", disks((70, 70), 2)[0]), ("b", pale((70, 70)))):
        write_png(tmp_path / "in" / f"{name}.png", image)
    predict(options(tmp_path, tmp_path / "in", file_mpp=0.25))
    heads = [(tmp_path / f"out/{n}_nuclei.csv").read_text().splitlines()[0] for n in "ab"]
    assert heads[0] == heads[1] and heads[0].startswith("id,x,y,area")
