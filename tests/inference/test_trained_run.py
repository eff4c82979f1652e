"""A run that was exported to one file: what it holds, and the commands that predict with it."""

import os
import subprocess
import sys

import numpy as np
import pytest
import tifffile
import torch
from conftest import PROJECT
from stand_ins import OLD_SETTINGS, disks, write_untrained_run

from code_common.config import parse
from code_common.errors import InputError
from code_common.errors import run_script as end_in_one_line
from code_common.files.images import read_image
from code_common.files.writing import write_bytes, write_png
from code_common.inference.tiling import probability
from code_common.inference.trained_run import FORMAT, load_trained_run
from code_common.learning.checkpoints import checkpoint_bytes
from code_seg.options import SegPredictOptions
from code_seg.predict import predict
from tools.export_model import main as export
from tools.export_model import parse_arguments

CPU = torch.device("cpu")


def test_an_exported_run_is_one_file_with_its_card(tmp_path, run_script):
    write_untrained_run(tmp_path / "model.pt")
    command = ["tools/export_model.py", "--run", "model.pt", "--out", "copy.pt"]
    message = run_script(*command).stdout
    assert "detection model: resnet18" in message and "MB" in message
    one, two = (load_trained_run(tmp_path / name, CPU) for name in ("model.pt", "copy.pt"))
    assert one["detection"].key == two["detection"].key != one["segmentation"].key


def test_weights_in_another_order_are_another_model(tmp_path):
    """Their sums are the same."""
    write_untrained_run(tmp_path / "model.pt")
    state = torch.load(tmp_path / "model.pt", weights_only=True)
    weights = state["detection"]["network"]
    weights |= {name: value.flip(-1) for name, value in weights.items() if value.ndim == 4}
    torch.save(state, tmp_path / "turned.pt")
    one, two = (load_trained_run(tmp_path / name, CPU) for name in ("model.pt", "turned.pt"))
    assert one["detection"].key != two["detection"].key


def test_an_older_run_has_the_options_of_today(tmp_path):
    """As if it had been exported today."""
    write_untrained_run(tmp_path / "model.pt")
    settings = load_trained_run(tmp_path / "model.pt", CPU)["segmentation"].settings
    assert settings == {**OLD_SETTINGS["segmentation"], "nucleus_radius": 0}


def test_an_exported_ensemble_is_refused(tmp_path):
    write_untrained_run(tmp_path / "model.pt", members=3)
    with pytest.raises(InputError, match="model.pt: .*3 networks.*--members"):
        load_trained_run(tmp_path / "model.pt", CPU)


def test_onnx_gives_what_torch_gives(tmp_path, run_script):
    pytest.importorskip("onnx")
    runtime = pytest.importorskip("onnxruntime")
    write_untrained_run(tmp_path / "model.pt")
    run_script("tools/export_model.py", "--run", "model.pt", "--onnx", tmp_path / "onnx")
    for stage, trained in load_trained_run(tmp_path / "model.pt", CPU).items():
        session = runtime.InferenceSession(tmp_path / "onnx" / f"{stage}.onnx")
        for shape in ((2, 3, 96, 96), (1, 3, 75, 130)):
            image = torch.rand(shape)
            with torch.inference_mode():
                expected = probability(trained.network(image)).numpy()
            (prob,) = session.run(None, {"image": image.numpy()})
            assert prob.shape == expected.shape and np.abs(prob - expected).max() < 1e-5


# Predicts with the options behind the project's folder, and tells the memory that it took.
PREDICT = """
import resource, sys
sys.path.insert(0, sys.argv.pop(1))
from code_common.config import parse
from code_seg.options import SegPredictOptions
from code_seg.predict import predict
from tools.export_model import main as export
print(predict(parse(SegPredictOptions, "", sys.argv[1:])))
print("peak MB", resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)
"""


@pytest.mark.parametrize("side", [12_000, pytest.param(20_000, marks=pytest.mark.slow)])
def test_a_huge_image_takes_less_than_2_gb(tmp_path, side):
    """Through the real network; most of it is glass, so that it ends within a test's time. A copy
    of 12,000 x 12,000 pixels as float32 RGB alone would be 1.7 GB.
    """
    shape = (side, side)
    image = tifffile.memmap(
        tmp_path / "large.tif", shape=(*shape, 3), dtype=np.uint8, photometric="rgb"
    )
    image[9_000:9_500, 11_000:11_700] = disks((500, 700), 60)[0]
    image.flush()
    del image
    write_untrained_run(tmp_path / "model.pt", width=1.0)
    arguments = ["--model", "model.pt", "--images", "large.tif", "--out", "out", "--device", "cpu"]
    command = [sys.executable, "-c", PREDICT, PROJECT, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout.split()[-1]) < 2000, done.stdout
    with tifffile.TiffFile(tmp_path / "out" / "large_instances.ome.tif") as tiff:
        assert tiff.series[0].levels[0].shape == shape
    assert max(read_image(tmp_path / "out" / "large_overlay.png").shape) <= 4096


@pytest.fixture
def good_and_bad_files(tmp_path, monkeypatch):
    """The current folder holds a model, images, and what is neither."""
    monkeypatch.chdir(tmp_path)
    for folder in ("in", "void"):
        (tmp_path / folder).mkdir()
    for name in ("text.png", "slide.svs"):
        (tmp_path / "in" / name).write_text("no image")
    write_png(tmp_path / "t.png", np.zeros((9, 9, 3), np.uint8))
    write_untrained_run(tmp_path / "model.pt")
    write_bytes(tmp_path / "other.pt", checkpoint_bytes({"network": {}}))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("--model model.pt --out o", "--images is missing"),
        ("--model nothing.pt --images in --out o", "no such checkpoint"),
        ("--model in --images in --out o", "no finished run"),
        ("--model in/text.png --images in --out o", "not a checkpoint"),
        ("--model other.pt --images in --out o", "no exported run"),
        ("--model model.pt --images void --out o", "no images"),
        ("--model model.pt --images nowhere --out o", "no such file"),
        ("--model model.pt --images in/text.png --out o", "text.png: not a"),
        ("--model model.pt --images in/slide.svs --out o", "slide.svs: no reader"),
        ("--model model.pt --images t.png --out in/text.png", "a file stands"),
        ("--model model.pt --images in --out o --mpp 0", "--mpp must be"),
        ("--model model.pt --images in --out o --overlap 300", "--overlap"),
        ("--model model.pt --images in --out o --shard 5", "--shard must"),
        ("--model model.pt --images in --out o --tile 9", "--tile must"),
    ],
)
def test_wrong_input_is_one_line_and_status_2(
    tmp_path, good_and_bad_files, capfd, arguments, message
):
    def predict_as_the_script_does():
        predict(parse(SegPredictOptions, "", [*arguments.split(), "--device", "cpu"]))

    with pytest.raises(SystemExit) as stopped:
        end_in_one_line(predict_as_the_script_does)
    error = capfd.readouterr().err
    assert stopped.value.code == 2 and message in error
    assert error.strip().count("\n") == 0 and "Traceback" not in error
    assert not list(tmp_path.rglob("*.tmp")) and not list(tmp_path.glob("o/*.tif"))


def packed(path):
    """What a good file of an exported run holds."""
    write_untrained_run(path)
    return torch.load(path, weights_only=True)


def settings_of(stage, **changes):
    """Changes settings of a stage."""
    return lambda run: run[stage]["settings"].update(changes)


def weights_of(change):
    """Changes every weight of the segmentation network."""

    def damage(run):
        network = run["segmentation"]["network"]
        network.update({name: change(value) for name, value in network.items()})

    return damage


NAN = float("nan")
NONSENSE = {
    "threshold": settings_of("detection", threshold=2),
    "r1": settings_of("detection", r1=NAN),
    "max_area": settings_of("detection", max_area=None),
    "min_area": settings_of("segmentation", min_area="abc"),
    "nucleus_radius": settings_of("segmentation", nucleus_radius=torch.zeros(2)),
    "setting min_area": settings_of("segmentation", min_area=True),
    "setting r1 = None": lambda run: run["detection"]["settings"].pop("r1"),
    "segmentation is damaged": lambda run: run.update(segmentation=[1]),
    "detection is damaged": lambda run: run.update(detection=None),
    "is damaged": lambda run: run["segmentation"].update(card=[1]),
    "damaged; expected": lambda run: run["segmentation"].pop("settings"),
    "no exported run": lambda run: run.update(format=torch.zeros(3)),
    "of this project": lambda run: run["segmentation"].update(width=1e9),
    "not a checkpoint": lambda run: run["segmentation"].update(model="vgg"),
    "checkpoint of this": lambda run: run["segmentation"].update(network=[1]),
    "float16": weights_of(torch.Tensor.half),
    "complex64": weights_of(lambda value: value.to(torch.complex64)),
    "plain array": weights_of(torch.Tensor.to_sparse),
    "no plain": weights_of(lambda value: value.to("meta")),
    "finite": weights_of(lambda value: value * NAN),
}


@pytest.mark.parametrize("named", NONSENSE)
@pytest.mark.filterwarnings("ignore")
def test_a_file_that_loads_and_is_nonsense_is_named(tmp_path, named):
    run = packed(tmp_path / "model.pt")
    NONSENSE[named](run)
    torch.save(run, tmp_path / "model.pt")
    with pytest.raises(InputError, match=rf"^\S*model\.pt: .*{named}"):
        load_trained_run(tmp_path / "model.pt", CPU)
    given = ["--run", str(tmp_path / "model.pt"), "--out", str(tmp_path / "copy.pt")]
    with pytest.raises(InputError, match=rf"^\S*model\.pt: .*{named}"):
        export(parse_arguments(given))
    assert not (tmp_path / "copy.pt").exists()


def test_weights_that_give_no_numbers_are_named_once(tmp_path):
    """A variance below 0 is a finite number."""
    run = packed(tmp_path / "model.pt")
    for name, value in run["segmentation"]["network"].items():
        if name.endswith("running_var"):
            value.fill_(-1)
    torch.save(run, tmp_path / "model.pt")
    for name in ("a", "b"):
        write_png(tmp_path / "in" / f"{name}.png", disks((40, 40), 1)[0])
    words = f"--model {tmp_path}/model.pt --images {tmp_path}/in --out {tmp_path}/out --device cpu"
    with pytest.raises(InputError, match=r"^\S*model\.pt: damaged weights; .* no numbers$"):
        predict(parse(SegPredictOptions, "", words.split()))


def test_code_in_a_file_is_never_run(tmp_path):
    class Evil:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "executed"),)

    torch.save({"format": FORMAT, "detection": Evil()}, tmp_path / "model.pt")
    with pytest.raises(InputError, match=r"model\.pt: not a checkpoint of plain weights"):
        load_trained_run(tmp_path / "model.pt", CPU)
    assert not (tmp_path / "executed").exists()
