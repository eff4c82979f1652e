"""Stage 2: points -> Voronoi and cluster labels -> segmentation network -> instance maps."""

import shutil
import sys
from dataclasses import replace
from pathlib import Path

if not __package__:
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from code_common.config import parse
from code_common.errors import run_script
from code_common.files.data_set import Sample, load_split
from code_common.learning.training import remove_unfinished
from code_common.steps import Run, files_fingerprint, inference_work, training_work
from code_seg.options import Options
from code_seg.pictures import pictures
from code_seg.prepare_data import detections_path, prepare
from code_seg.prepare_masks import write_mask_labels
from code_seg.test import test
from code_seg.train import phases, select, train_phase

MASK_LABELS = "labels of the masks"


def plan(options: Options, split: dict[str, list[Sample]]) -> dict[str, float]:
    """The steps in order, each with its work in megapixels through the network."""
    tiling = options.tile, options.overlap, options.views * options.members
    validating = inference_work(split["val"], *tiling[:2])
    steps = {"prepare": 0.0}
    for phase, epochs in phases(options).items():
        if phase == "masks":
            steps[MASK_LABELS] = inference_work(split["train"] + split["val"], *tiling)
        work = training_work(split["train"], options.patch_size, options.input_size, epochs)
        work += -(-epochs // options.val_every) * validating
        steps[f"train with {phase}"] = work * options.members
    selecting = inference_work(split["val"], *tiling)
    testing = 2 * inference_work(split["test"], *tiling)
    return steps | {"select": selecting, "test": testing, "pictures": 0.0}


def main(options: Options) -> None:
    """All steps of stage 2; done ones are skipped."""
    options = replace(options, shard="0/1")  # also in a job array, one over repeats, say
    split = load_split(options.data_dir)
    samples = [s for part in ("train", "val", "test") for s in split[part]]
    detections = [detections_path(options.detection_dir(), s.name) for s in samples]
    inputs = files_fingerprint(samples, detections)
    run = Run(options.save_dir, options, inputs, plan(options, split))
    run.step("prepare", lambda: prepare(options))
    for phase in phases(options):
        if phase == "masks":
            run.step(MASK_LABELS, lambda: write_mask_labels(options))

        def train_one(phase: str = phase) -> str:
            run.save(**train_phase(options, phase))
            return "done"

        run.step(f"train with {phase}", train_one, together=True)
        remove_unfinished(options.save_dir / phase)
        shutil.rmtree(options.save_dir / "cache", ignore_errors=True)
    run.step("select", lambda: select(options))
    run.step("test", lambda: test(options), together=True)
    run.step("pictures", lambda: pictures(options))


if __name__ == "__main__":
    run_script(lambda: parse(Options, __doc__).run(main))
