"""Detect the nuclei of test images and score them: points, probability maps, overlays, metrics."""

import sys
from pathlib import Path

if not __package__:
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from code_common.config import read_command_line
from code_detection.options import Options, TestOptions

if __name__ == "__main__":
    options = read_command_line(TestOptions, __doc__)

from code_common.detection_scores import DetectionCounts, add
from code_common.files.contents import refuse_unfinished
from code_common.files.data_set import load_split, test_groups
from code_common.files.layout import EVERY
from code_common.files.run_folder import (
    best_path,
    detections_folder,
    metrics_path,
    remove_scores,
    results_folder,
    round_folder,
    score_table_path,
    selection_path,
)
from code_common.files.writing import write_json, write_table
from code_common.inference.own_images import own_images, tell_of_others
from code_common.inference.shards import ALL, told_of_array
from code_common.launch import run
from code_common.learning import distributed
from code_common.learning.checkpoints import load_state
from code_common.reporting.bootstrap import intervals, patients, told_alone
from code_common.runs.same_run import refuse_other_checkpoint, refuse_other_run
from code_detection.detect import chosen_round, detect_images, threshold_of


def write_scores(
    out: Path, counts: dict[str, DetectionCounts], groups: dict[str, list[str]], patient: str
) -> dict[str, dict[str, float]]:
    """Write per_image.csv and metrics.json: pooled over all images and over each group, and the
    bootstrap intervals over patients (`patient` finds them in the images' names).
    """
    if not counts:
        return {}
    images = {name: c.scores() for name, c in counts.items()}
    columns = ["image", "tp", "fp", "fn", *next(iter(images.values()))]
    rows = [
        [name, *counts[name][:3], *(f"{v:.6g}" for v in scores.values())]
        for name, scores in images.items()
    ]
    write_table(score_table_path(out), columns, rows)
    pooled = {EVERY: add(list(counts.values())).scores()}
    for group, names in groups.items():
        pooled[group] = add([counts[n] for n in names if n in counts]).scores()
    every = list(counts.values())
    known = patients(list(counts), patient)
    interval = intervals(known, lambda drawn: add([every[i] for i in drawn]).scores())
    value = {"pooled": pooled, "interval": interval, "patients": len(set(known)), "images": images}
    write_json(metrics_path(out), value)
    return pooled


def score_detections(
    options: Options,
    counts: dict[str, DetectionCounts | None],
    wanted: int,
    groups: dict[str, list[str]],
    out: Path,
    shard: str,
) -> str:
    """Score the detections of all `wanted` images once they are done; returns what to tell."""
    known = {name: c for name, c in counts.items() if c is not None}
    if distributed.is_main() and (len(counts) < wanted or not known):
        remove_scores(out)
    if len(counts) < wanted:
        waiting = f"the scores wait for all of them{told_of_array(shard)}"
        return f"{len(counts)} of {wanted} images are done; {waiting}"
    pooled = write_scores(out, known, groups, options.patient) if distributed.is_main() else {}
    if not pooled:
        return f"{wanted} images, no labels to score against; see {out}"
    scores = ", ".join(f"{name} {value:.3f}" for name, value in pooled[EVERY].items())
    number = f"{wanted} images"
    if len(known) < wanted:
        number = f"{number}, of which {len(known)} have labels to score against"
    return f"{number}: {scores}{told_alone(list(known), options.patient)}; see {out}"


def test_round(
    options: Options, round: int, checkpoint: Path | None = None, shard: str = ALL
) -> str:
    """Test a round, or another checkpoint, on the data set's test images.

    The detections go to detections/, where stage 2 looks for them. Where the round's own checkpoint
    is tested, selection.json makes it the run's detector.
    """
    split, out = load_split(options.data_dir), options.save_dir
    best = best_path(round_folder(out, round))
    counts = detect_images(
        options,
        split["test"],
        checkpoint or best,
        detections_folder(out),
        results_folder(out),
        shard,
    )
    if checkpoint is None and distributed.is_main():
        threshold = threshold_of(options, load_state(best), best)
        chosen = {"checkpoint": str(best.relative_to(out)), "threshold": threshold}
        write_json(selection_path(out), chosen)
    return score_detections(
        options, counts, len(split["test"]), test_groups(split), results_folder(out), shard
    )


def test(options: TestOptions) -> str:
    """Test a round, or --model-path, on the data set's test images, or on --img-dir."""
    round = chosen_round(options.save_dir) if options.round is None else options.round
    checkpoint = options.model_path or best_path(round_folder(options.save_dir, round))
    if options.img_dir is None:
        refuse_other_run(options)
        refuse_other_checkpoint(options.save_dir, checkpoint)
        return test_round(options, round, options.model_path, options.shard)
    refuse_unfinished(options.save_dir)
    image_files = own_images(options.img_dir, options.label_dir)
    out = results_folder(options.save_dir, own_images=True)
    if distributed.is_main():
        tell_of_others(out, [files.name for files in image_files])
    counts = detect_images(options, image_files, checkpoint, out, out, options.shard)
    return score_detections(options, counts, len(image_files), {}, out, options.shard)


if __name__ == "__main__":
    run(test, options)
