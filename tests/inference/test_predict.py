"""Prediction on images of any size: whole nuclei, counted once, whatever the tiles."""

import csv
import json
import os
import subprocess
import sys
from functools import partial

import cv2
import numpy as np
import pytest
import tifffile
import torch
from conftest import PROJECT
from PIL import Image

import code_common.inference.prediction
import code_seg.predict
from code_common.errors import InputError
from code_common.files.reading import read_image, read_instances
from code_common.files.writing import write_bytes, write_png
from code_common.inference import trained_run as bundle
from code_common.inference.ome_tiff import write_label_map
from code_common.inference.prediction import PredictOptions
from code_common.inference.slides import find_slides, open_slide, tissue
from code_common.inference.streaming import DiskMap, find_components
from code_common.inference.tiling import predict_image, probability
from code_common.inference.trained_run import FORMAT, Trained
from code_common.learning.checkpoints import checkpoint_bytes, save_network
from code_common.learning.network import ResUNet
from code_detection.predict import predict as predict_points
from code_seg.evaluate import make_instances, predict_nuclei
from code_seg.predict import SegPredictOptions, predict
from data.annotation_formats import rasterise, read_coco

COMPRESSED = {"png": {}, "tif": {"compression": "tiff_lzw"}}
PALE, DARK = (225, 180, 215), (90, 60, 140)


class Darkness(torch.nn.Module):
    """A 'network' that sees a nucleus where the mean grey value of 5 x 5 pixels is low."""

    def __init__(self, channels):
        super().__init__()
        kernel = torch.zeros(channels, 3, 5, 5)
        kernel[-1] = -40 / 75
        self.kernel = torch.nn.Parameter(kernel)

    def forward(self, x):
        padded = torch.nn.functional.pad(x, (2, 2, 2, 2), mode="replicate")
        logits = torch.nn.functional.conv2d(padded, self.kernel)
        return logits + torch.tensor([0.0] * (len(self.kernel) - 1) + [22.0])[:, None, None]


@pytest.fixture
def trained(monkeypatch):
    """Makes the scripts take `Darkness` for the networks of any run."""
    found = {"r1": 6, "threshold": 0.5, "min_area": 5, "max_area": 400}
    by = {"min_area": 10, "instances": "points", "magnify_to": 0.0}
    stages = {
        "detection": Trained(Darkness(1), found, "d"),
        "segmentation": Trained(Darkness(2), by, "s"),
    }
    for script in ("code_seg.predict", "code_detection.predict"):
        monkeypatch.setattr(f"{script}.load", lambda path, device: dict(stages))
    return stages


def disks(shape, count, seed=0, radius=(5, 11)):
    """A pale image with dark disks that do not touch, and their centres."""
    rng, image = np.random.default_rng(seed), np.full((*shape, 3), PALE, np.uint8)
    centres = []
    while len(centres) < count:
        r = int(rng.integers(*radius))
        y, x = (int(rng.integers(r, n - r)) for n in shape)
        if all(np.hypot(y - v, x - u) > r + s + 8 for v, u, s in centres):
            cv2.circle(image, (x, y), r, DARK, -1)
            centres.append((y, x, r))
    return image, np.array(centres)


def options(tmp_path, *images, cls=SegPredictOptions, **changes):
    values = {"tile": 64, "overlap": 24, "device": "cpu", "precision": "fp32"} | changes
    values = {"model": tmp_path, "images": images, "out": tmp_path / "out"} | values
    return cls(**values).resolved()


def table(path):
    with open(path) as file:
        return list(csv.DictReader(file))


def test_nuclei_are_whole_and_counted_once(tmp_path, trained):
    image, centres = disks((330, 470), 90)
    write_png(tmp_path / "tile.png", image)
    told = predict(options(tmp_path, tmp_path / "tile.png"))
    assert told.startswith("90 nuclei in 1 images")
    rows = table(tmp_path / "out" / "tile_nuclei.csv")
    assert len(rows) == 90 and [int(r["id"]) for r in rows] == list(range(1, 91))
    found = np.array([[float(r["y"]), float(r["x"]), float(r["area"])] for r in rows])
    for y, x, _ in centres:
        assert np.hypot(found[:, 0] - 0.5 - y, found[:, 1] - 0.5 - x).min() < 0.1
    whole = np.bincount(as_whole(trained, image, "components").ravel())[1:]
    assert sorted(found[:, 2]) == sorted(whole)
    instances = read_instances(tmp_path / "out" / "tile_instances.tif", (330, 470))
    assert np.bincount(instances.ravel())[1:].tolist() == found[:, 2].tolist()
    shapes = json.loads((tmp_path / "out" / "tile_nuclei.geojson").read_text())["features"]
    assert len(shapes) == 90
    assert len({s["id"] for s in shapes}) == 90
    ring = np.array(shapes[0]["geometry"]["coordinates"][0])
    assert (ring.min(0) <= found[0, 1::-1]).all() and (ring.max(0) >= found[0, 1::-1]).all()
    assert read_image(tmp_path / "out" / "tile_overlay.png").shape == image.shape
    assert not list((tmp_path / "out").rglob("*.u16"))  # nothing unfinished is left
    assert (tmp_path / "out" / "summary.csv").read_text() == (
        "image,nuclei,width,height\ntile,90,470,330\n"
    )


def touching(shape, seed=1):
    """Clusters of disks, rings with a disk inside, at borders, too."""
    rng, image = np.random.default_rng(seed), np.full((*shape, 3), PALE, np.uint8)
    for _ in range(60):
        y, x = (int(rng.integers(0, n)) for n in shape)
        for _ in range(int(rng.integers(1, 5))):
            at = (x + int(rng.integers(-14, 15)), y + int(rng.integers(-14, 15)))
            cv2.circle(image, at, int(rng.integers(4, 12)), DARK, -1)
    for y, x in rng.integers(30, np.array(shape) - 30, (5, 2)).tolist():
        cv2.circle(image, (x, y), 26, PALE, -1)
        cv2.circle(image, (x, y), 20, DARK, 5)
        cv2.circle(image, (x, y), 5, DARK, -1)
    return image


def as_whole(stages, image, method):
    """The instance map of the whole image in memory."""
    tiling = {"tile": 64, "overlap": 24}
    activation = torch.sigmoid
    found = predict_image(stages["detection"].network, image, activation, **tiling)[0]
    points = code_common.inference.detections.detect(found, 0.5, 5, 400)
    stage = stages["segmentation"]
    radius = stage.settings["magnify_to"]
    prob = predict_nuclei(stage.network, image, points, tiling, radius)
    return make_instances(prob, points, 10)[method]


def same_partition(a, b):
    pairs = np.unique(np.stack([a.ravel(), b.ravel()]), axis=1)
    return len(pairs[0]) == len(np.unique(a)) == len(np.unique(b))


@pytest.mark.parametrize("radius", [0, 13, 16])
@pytest.mark.parametrize("method", ["components", "points", "convex"])
def test_parts_give_what_the_whole_gives(tmp_path, trained, monkeypatch, method, radius):
    """Also where the image is seen magnified, which depends on the size of its nuclei."""
    image = touching((301, 410))
    trained["segmentation"].settings["magnify_to"] = radius
    write_png(tmp_path / "tile.png", image)
    whole, maps = as_whole(trained, image, method), []
    for k, (block, tile) in enumerate([(2048, 64), (64, 64), (37, 96), (200, 160)]):
        in_blocks = partial(find_components, block=block)
        for module in (code_common.inference.prediction, code_seg.predict):
            monkeypatch.setattr(module, "find_components", in_blocks)
        out = tmp_path / str(k)
        more = {"tile": tile, "out": out, "instances": method, "test_batch_size": 1 + 3 * k}
        predict(options(tmp_path, tmp_path / "tile.png", **more))
        maps.append(read_instances(out / "tile_instances.tif", image.shape[:2]))
    assert same_partition(maps[0], whole)
    assert all(np.array_equal(m, maps[0]) for m in maps[1:])
    assert maps[0].max() > 40


@pytest.mark.parametrize("radius", [0, 13])
def test_a_killed_prediction_goes_on_where_it_stopped(tmp_path, trained, monkeypatch, radius):
    image = touching((700, 200))
    trained["segmentation"].settings["magnify_to"] = radius
    write_png(tmp_path / "tile.png", image)
    given = {"test_batch_size": 1}  # one row of tiles at a time
    predict(options(tmp_path, tmp_path / "tile.png", out=tmp_path / "whole", **given))
    original, began = code_common.inference.prediction.predict_rows, []

    def killed(*arguments, first_row, **keywords):
        began.append(first_row)
        for k, part in enumerate(original(*arguments, first_row=first_row, **keywords)):
            if k == 3 and len(began) < 5:
                raise KeyboardInterrupt
            yield part

    monkeypatch.setattr(code_common.inference.prediction, "predict_rows", killed)
    for _ in range(4):
        with pytest.raises(KeyboardInterrupt):
            predict(options(tmp_path, tmp_path / "tile.png", **given))
    predict(options(tmp_path, tmp_path / "tile.png", **given))
    assert began[0] == 0 < began[1] < began[2] < began[3]
    for path in (tmp_path / "whole").glob("tile_*"):
        assert path.read_bytes() == (tmp_path / "out" / path.name).read_bytes(), path.name


def test_points_alone(tmp_path, trained):
    image, centres = disks((200, 250), 20)
    write_png(tmp_path / "tile.png", image)
    told = predict_points(options(tmp_path, tmp_path / "tile.png", cls=PredictOptions))
    assert told.startswith("20 nuclei")
    rows = table(tmp_path / "out" / "tile_points.csv")
    found = {(int(r["row"]), int(r["col"])) for r in rows}
    assert found == {(y, x) for y, x, _ in centres.tolist()}
    shapes = json.loads((tmp_path / "out" / "tile_points.geojson").read_text())["features"]
    assert {tuple(s["geometry"]["coordinates"]) for s in shapes} == {
        (x + 0.5, y + 0.5) for y, x in found
    }


def test_a_method_of_another_version_is_named(tmp_path, trained):
    trained["segmentation"].settings["instances"] = "detected"
    write_png(tmp_path / "tile.png", disks((40, 30), 1, radius=(6, 7))[0])
    with pytest.raises(InputError, match="detected.*--instances"):
        predict(options(tmp_path, tmp_path / "tile.png"))


def test_an_image_without_nuclei_and_one_smaller_than_a_tile(tmp_path, trained):
    write_png(tmp_path / "in" / "empty.png", np.full((100, 80, 3), PALE, np.uint8))
    write_png(tmp_path / "in" / "small.png", disks((40, 30), 1, radius=(6, 7))[0])
    told = predict(options(tmp_path, tmp_path / "in"))
    assert told.startswith("1 nuclei in 2 images")
    assert (tmp_path / "out" / "empty_nuclei.csv").read_text() == "id\n"
    empty = json.loads((tmp_path / "out" / "empty_nuclei.geojson").read_text())
    assert empty == {"type": "FeatureCollection", "features": []}


def test_shards_do_every_image_once(tmp_path, trained):
    for k in range(5):
        write_png(tmp_path / "in" / f"{k}.png", disks((70, 70), 2, seed=k)[0])
    told = predict(options(tmp_path, tmp_path / "in", shard="1/2"))
    assert told.startswith("2 of 5 images are done")
    stamp = (tmp_path / "out" / "1_nuclei.csv").stat().st_mtime_ns
    assert predict(options(tmp_path, tmp_path / "in", shard="0/2")).startswith("10 nuclei in 5")
    assert predict(options(tmp_path, tmp_path / "in")).startswith("10 nuclei in 5")
    assert (tmp_path / "out" / "1_nuclei.csv").stat().st_mtime_ns == stamp


def test_coco_holds_what_the_maps_hold(tmp_path, trained):
    for k in range(2):
        write_png(tmp_path / "in" / f"{k}.png", touching((150, 130), seed=k))
    predict(options(tmp_path, tmp_path / "in", coco=True))
    found = read_coco(tmp_path / "out" / "coco.json")
    for k in range(2):
        instances = read_instances(tmp_path / "out" / f"{k}_instances.tif", (150, 130))
        again = rasterise(found[f"{k}.png"].outlines, (150, 130))
        assert same_partition(again, instances)


def write_slide(path, image, mpp=0.25, levels=3):
    """A tiled pyramid as slide scanners write it."""
    per_cm = 1e4 / mpp
    with tifffile.TiffWriter(path, bigtiff=True) as writer:
        for level in range(levels):
            size = image.shape[1] >> level, image.shape[0] >> level
            part = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
            writer.write(
                part, tile=(256, 256), photometric="rgb", compression="zlib",
                resolution=(per_cm / 2**level,) * 2, resolutionunit="CENTIMETER",
                subfiletype=int(level > 0), metadata=None,
            )  # fmt: skip


@pytest.fixture
def slide(tmp_path):
    pytest.importorskip("tiffslide")
    image, centres = disks((1200, 1500), 150, radius=(10, 14))
    image[:, 900:] = 240  # glass
    path = tmp_path / "slide.svs"
    write_slide(path, image)
    return path, image, centres[centres[:, 1] < 880]


def test_a_slide_is_read_at_the_models_resolution(slide):
    path, image, _ = slide
    whole = open_slide(path, None, None)
    assert whole.shape == (1200, 1500) and whole.mpp == pytest.approx(0.25) and whole.scale == 1
    assert np.array_equal(whole.read(100, 200, 300, 400), image[100:400, 200:600])
    half = open_slide(path, 0.5, None)
    assert half.shape == (600, 750) and half.scale == pytest.approx(2)
    small = cv2.resize(image, (750, 600), interpolation=cv2.INTER_AREA).astype(int)
    assert np.abs(half.read(0, 0, 600, 750) - small).mean() < 1
    third = open_slide(path, 0.75, None)
    parts = [third.read(0, c, 400, 100) for c in (0, 100)]
    assert np.abs(np.hstack(parts).astype(int) - third.read(0, 0, 400, 200)).mean() < 3
    assert whole.thumbnail().shape == (38, 47, 3)


@pytest.mark.parametrize("ending", ["png", "tif"])
def test_a_large_image_that_no_slide_reader_opens_is_read_whole(tmp_path, monkeypatch, ending):
    image = disks((90, 80), 3)[0]
    Image.fromarray(image).save(tmp_path / f"a.{ending}", **COMPRESSED[ending])
    monkeypatch.setattr("code_common.inference.slides.LARGE", 1000)
    monkeypatch.setattr("code_common.inference.slides.READERS", ())
    slide = open_slide(tmp_path / f"a.{ending}", None, None)
    assert np.array_equal(slide.read(10, 20, 30, 40), image[10:40, 20:60]) and not slide.large


def test_a_plain_tiff_is_mapped_and_its_size_needs_no_reader(tmp_path, monkeypatch):
    image = disks((90, 80), 3)[0]
    tifffile.imwrite(tmp_path / "a.tif", image, photometric="rgb")
    monkeypatch.setattr("code_common.inference.slides.LARGE", 1000)
    monkeypatch.setattr("code_common.inference.slides.READERS", ())
    slide = open_slide(tmp_path / "a.tif", None, None)
    assert np.array_equal(slide.read(10, 20, 30, 40), image[10:40, 20:60]) and slide.large
    assert slide.thumbnail().shape == (3, 3, 3)


def test_a_slide_from_end_to_end(tmp_path, trained, slide):
    path, image, centres = slide
    told = predict(options(tmp_path, path, mpp=0.5))
    near = sum(870 < c < 905 for c in centres[:, 1])
    rows = table(tmp_path / "out" / "slide_nuclei.csv")
    assert abs(len(rows) - len(centres)) <= 3 + near, told
    found = np.array([[float(r["y"]), float(r["x"])] for r in rows])
    for y, x, _ in centres[centres[:, 1] < 860]:
        assert np.hypot(found[:, 0] - y, found[:, 1] - x).min() < 1.5  # in pixels of the file
    areas = np.array([[float(r["area"]), float(r["area_um2"])] for r in rows])
    assert np.allclose(areas[:, 0] * 0.25, areas[:, 1], rtol=1e-4)
    with tifffile.TiffFile(tmp_path / "out" / "slide_instances.ome.tif") as tiff:
        assert tiff.is_ome and tiff.series[0].shape == (600, 750)
        assert "PhysicalSizeX" in tiff.ome_metadata
        assert len(np.unique(tiff.asarray())) == len(rows) + 1


def test_a_label_pyramid(tmp_path):
    labels = DiskMap(tmp_path / "l.u32", (3000, 2100), np.uint32)
    labels.write(1000, 500, np.full((700, 900), 70_000, np.uint32))
    write_label_map(tmp_path / "l.ome.tif", labels, None, True)
    with tifffile.TiffFile(tmp_path / "l.ome.tif") as tiff:
        levels = tiff.series[0].levels
        assert [level.shape for level in levels] == [(3000, 2100), (1500, 1050), (750, 525)]
        whole = labels.read(0, 0, 3000, 2100)
        for k, level in enumerate(levels):
            assert np.array_equal(level.asarray(), whole[:: 2**k, :: 2**k])


def test_tissue_and_glass():
    thumbnail = np.full((60, 60, 3), (243, 241, 244), np.uint8)
    assert not tissue(thumbnail).any()
    thumbnail[20:40, 20:40] = PALE
    mask = tissue(thumbnail)
    assert mask[20:40, 20:40].all() and mask.sum() <= 24 * 24
    assert tissue(np.full((9, 9, 3), PALE, np.uint8)).all()


def save_bundle(path):
    """One file of untrained networks; it is older than the option magnify_to."""
    torch.manual_seed(0)
    settings = {
        "detection": {"r1": 6, "threshold": 0.5, "min_area": 5, "max_area": 400},
        "segmentation": {"min_area": 10, "instances": "points"},
    }
    state = {"format": FORMAT}
    for stage, channels in (("detection", 1), ("segmentation", 2)):
        network = save_network(ResUNet("resnet18", channels), "resnet18")
        state[stage] = {**network, "settings": settings[stage], "card": {"model": "resnet18"}}
    write_bytes(path, checkpoint_bytes(state))


SPARSE = """
import resource, sys
sys.path.insert(0, sys.argv.pop(1))
from code_common.config import parse
from code_seg.predict import SegPredictOptions, predict
print(predict(parse(SegPredictOptions, "", sys.argv[1:])))
print("peak MB", resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)
"""


def test_20000_x_20000_pixels_take_less_than_2_gb(tmp_path):
    """Through the real network; most of it is glass, so that it ends within a test's time."""
    image = tifffile.memmap(
        tmp_path / "large.tif", shape=(20_000, 20_000, 3), dtype=np.uint8, photometric="rgb"
    )
    image[9_000:9_500, 15_000:15_700] = disks((500, 700), 60)[0]
    image.flush()
    del image
    save_bundle(tmp_path / "model.pt")
    arguments = ["--model", "model.pt", "--images", "large.tif", "--out", "out", "--device", "cpu"]
    done = subprocess.run(
        [sys.executable, "-c", SPARSE, PROJECT, *arguments],
        capture_output=True, text=True, cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert int(done.stdout.split()[-1]) < 2000, done.stdout
    with tifffile.TiffFile(tmp_path / "out" / "large_instances.ome.tif") as tiff:
        assert tiff.series[0].levels[0].shape == (20_000, 20_000)
    assert max(read_image(tmp_path / "out" / "large_overlay.png").shape) <= 4096


def test_a_job_array_of_the_docs(tmp_path):
    """Two jobs, one after the other, as SLURM would start them."""
    save_bundle(tmp_path / "model.pt")
    for k in range(3):
        write_png(tmp_path / "in" / f"{k}.png", disks((70, 70), 2, seed=k)[0])
    told = []
    for job in ("0", "1"):
        environment = {
            **os.environ, "VIRTUAL_ENV": sys.prefix, "SLURM_ARRAY_TASK_ID": job,
            "SLURM_ARRAY_TASK_COUNT": "2", "SLURM_SUBMIT_DIR": str(PROJECT),
        }  # fmt: skip
        command = ["bash", PROJECT / "docs" / "predict_array.sbatch", tmp_path / "model.pt",
                   tmp_path / "in", tmp_path / "out", "--device", "cpu"]  # fmt: skip
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        told.append(done.stdout)
    assert told[0].startswith("2 of 3 images are done") and "in 3 images" in told[1]
    assert (tmp_path / "out" / "summary.csv").is_file()


def test_an_exported_run_is_one_file_with_its_card(tmp_path, run_script):
    save_bundle(tmp_path / "model.pt")
    told = run_script("tools/export_model.py", "--run", "model.pt", "--out", "copy.pt").stdout
    assert "detection model: resnet18" in told and "MB" in told
    one, two = (bundle.load(tmp_path / n, torch.device("cpu")) for n in ("model.pt", "copy.pt"))
    assert one["detection"].key == two["detection"].key != one["segmentation"].key
    assert one["segmentation"].settings["magnify_to"] == 0  # as if it had been exported today


def test_onnx_gives_what_torch_gives(tmp_path, run_script):
    pytest.importorskip("onnx")
    runtime = pytest.importorskip("onnxruntime")
    save_bundle(tmp_path / "model.pt")
    run_script("tools/export_model.py", "--run", "model.pt", "--onnx", tmp_path / "onnx")
    stages = bundle.load(tmp_path / "model.pt", torch.device("cpu"))
    for name, activation in (("detection", torch.sigmoid), ("segmentation", probability)):
        session = runtime.InferenceSession(tmp_path / "onnx" / f"{name}.onnx")
        for shape in ((2, 3, 96, 96), (1, 3, 75, 130)):
            image = torch.rand(shape)
            with torch.inference_mode():
                own = activation(stages[name].network(image)).numpy()
            (other,) = session.run(None, {"image": image.numpy()})
            assert other.shape == own.shape and np.abs(other - own).max() < 1e-5


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--images", "in", "--out", "o"], "--model is missing"),
        (["--model", "model.pt", "--out", "o"], "--images is missing"),
        (["--model", "nothing.pt", "--images", "in", "--out", "o"], "no such checkpoint"),
        (["--model", "in", "--images", "in", "--out", "o"], "no finished run"),
        (["--model", "in/text.png", "--images", "in", "--out", "o"], "not a checkpoint"),
        (["--model", "other.pt", "--images", "in", "--out", "o"], "no exported run"),
        (["--model", "model.pt", "--images", "void", "--out", "o"], "no images"),
        (["--model", "model.pt", "--images", "nowhere", "--out", "o"], "no such file"),
        (["--model", "model.pt", "--images", "in/text.png", "--out", "o"], "text.png: not a"),
        (["--model", "model.pt", "--images", "in/slide.svs", "--out", "o"], "slide.svs: no reader"),
        (["--model", "model.pt", "--images", "t.png", "--out", "in/text.png"], "a file stands"),
        (["--model", "model.pt", "--images", "in", "--out", "o", "--mpp", "0"], "--mpp must be"),
        (["--model", "model.pt", "--images", "in", "--out", "o", "--overlap", "300"], "--overlap"),
        (["--model", "model.pt", "--images", "in", "--out", "o", "--shard", "5"], "--shard must"),
        (["--model", "model.pt", "--images", "in", "--out", "o", "--tile", "9"], "--tile must"),
    ],
)  # fmt: skip
def test_wrong_input_is_one_line_and_status_2(tmp_path, capfd, monkeypatch, arguments, told):
    from code_common.config import parse
    from code_common.errors import run_script

    monkeypatch.chdir(tmp_path)
    (tmp_path / "in").mkdir()
    (tmp_path / "void").mkdir()
    for name in ("text.png", "slide.svs"):
        (tmp_path / "in" / name).write_text("no image")
    write_png(tmp_path / "t.png", np.zeros((9, 9, 3), np.uint8))
    save_bundle(tmp_path / "model.pt")
    write_bytes(tmp_path / "other.pt", checkpoint_bytes({"network": {}}))
    with pytest.raises(SystemExit) as stopped:
        run_script(
            lambda: parse(SegPredictOptions, "", [*arguments, "--device", "cpu"]).run(predict)
        )
    error = capfd.readouterr().err
    assert stopped.value.code == 2 and told in error
    assert error.strip().count("\n") == 0 and "Traceback" not in error
    assert not list(tmp_path.rglob("*.tmp")) and not list(tmp_path.glob("o/*.tif"))


def test_two_images_of_one_name_are_refused(tmp_path):
    for folder in ("a", "b"):
        write_png(tmp_path / folder / "t.png", np.zeros((9, 9, 3), np.uint8))
    with pytest.raises(InputError, match="share one name"):
        find_slides([tmp_path / "a", tmp_path / "b"])
    assert list(find_slides([tmp_path / "a"])) == ["t"]
