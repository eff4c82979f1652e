"""Stage 1: partial points -> detector -> self-training rounds -> the positions of all nuclei."""

import shutil
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np

if not __package__:
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from code_common.config import parse
from code_common.errors import run_script
from code_common.files.data_set import Sample, load_split
from code_common.files.reading import image_shape, read_points, read_prob
from code_common.files.writing import write_png
from code_common.learning.checkpoints import load_state
from code_common.learning.training import remove_unfinished
from code_common.steps import Run, files_fingerprint, inference_work, training_work
from code_detection.metrics import add
from code_detection.options import Options
from code_detection.pictures import pictures
from code_detection.prepare_data import prepare
from code_detection.self_training import propagate_background
from code_detection.test import detect_samples, test
from code_detection.train import background_path, train


def detect_training(options: Options, samples: list[Sample], out: Path) -> str:
    """Detect the nuclei of the training images with the round `options.round`."""
    done = detect_samples(options, samples, out).values()
    counts = [own for own in done if own is not None]
    if not counts:
        return f"with round {options.round}"
    # Where all points are known, how good the detections are; only told, nothing is chosen by it.
    f1 = add(counts).scores()["f1"]
    return f"round {options.round}, F1 {f1:.3f} against all known points"


def propagate(options: Options, samples: list[Sample]) -> str:
    """Background labels of the round `options.round` from the probability maps before it."""
    out, share = options.save_dir, []
    for sample in samples:
        path = out / f"round_{options.round - 1}" / "train" / f"{sample.name}_prob.png"
        shape = image_shape(sample.image)
        prob = read_prob(path, shape)
        background = propagate_background(
            prob,
            read_points(out / "points" / f"{sample.name}.csv", shape),
            options.background_below,
            options.merged_above,
            options.max_area,
            options.r1,
        )
        share.append(background.mean())
        path = background_path(out, options.round, sample.name)
        write_png(path, background.astype(np.uint8) * 255)
    return f"{np.mean(share):.0%} of the training pixels are background"


def choose_round(options: Options) -> int:
    """The round whose detections count: the last one, or the best on the validation images."""
    if options.final_round == "last":
        return options.rounds
    paths = [options.save_dir / f"round_{r}" / "best.pt" for r in range(options.rounds + 1)]
    return int(np.argmax([load_state(path)["score"] for path in paths]))


def plan(options: Options, split: dict[str, list[Sample]]) -> dict[str, float]:
    """The steps in order, each with its work in megapixels through the network."""
    tiling = options.tile, options.overlap, options.views * options.members
    detecting = inference_work(split["train"], *tiling)
    training = training_work(split["train"], options.patch_size, options.input_size, options.epochs)
    validations = -(-options.epochs // options.val_every)
    training += validations * inference_work(split["val"], *tiling[:2])
    training *= options.members
    testing = inference_work(split["val"] + split["test"], *tiling)
    steps = {"prepare": 0.0}
    for r in range(options.rounds + 1):
        steps |= {f"background for round {r}": 0.0} if r else {}
        steps |= {f"train round {r}": training}
        steps |= {f"detect with round {r}": detecting} if r < options.rounds else {}
    return steps | {"detect": detecting, "test": testing, "pictures": 0.0}


def main(options: Options) -> None:
    """All steps of stage 1; done ones are skipped."""
    options = replace(options, shard="0/1")  # also in a job array, one over repeats, say
    split = load_split(options.data_dir)
    samples = [s for part in ("train", "val", "test") for s in split[part]]
    run = Run(options.save_dir, options, files_fingerprint(samples), plan(options, split))
    run.step("prepare", lambda: prepare(options))
    for r in range(options.rounds + 1):
        current = replace(options, round=r)
        if r:
            run.step(f"background for round {r}", lambda c=current: propagate(c, split["train"]))

        def train_round(current: Options = current) -> str:
            run.save(**train(current))
            return "done"

        run.step(f"train round {r}", train_round, together=True)
        remove_unfinished(options.save_dir / f"round_{r}")
        shutil.rmtree(options.save_dir / "cache", ignore_errors=True)
        if r < options.rounds:
            out = options.save_dir / f"round_{r}" / "train"
            run.step(
                f"detect with round {r}",
                lambda c=current, o=out: detect_training(c, split["train"], o),
                together=True,
            )
    final = replace(options, round=choose_round(options))
    out = options.save_dir / "detections"
    both = split["train"] + split["val"]
    run.step("detect", lambda: detect_training(final, both, out), together=True)
    run.step("test", lambda: test(final), together=True)
    run.step("pictures", lambda: pictures(final))


if __name__ == "__main__":
    run_script(lambda: parse(Options, __doc__).run(main))
