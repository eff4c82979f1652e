"""Detect the nuclei of images and score them: points, probability maps, overlays, metrics."""

import sys
from pathlib import Path

import numpy as np

if not __package__:
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from code_common.config import fingerprint, parse
from code_common.errors import run_script
from code_common.files.data_set import Sample, find_samples, load_split, test_groups
from code_common.files.reading import read_image
from code_common.files.writing import write_json, write_png, write_prob, write_table
from code_common.inference.detections import detect
from code_common.inference.shards import Results, choose_shard, do_share, file_key
from code_common.inference.tiling import cutting, predict_prob
from code_common.learning import distributed
from code_common.learning.checkpoints import load_state, network_of
from code_common.reporting.bootstrap import intervals, patients
from code_common.reporting.drawing import BLUE, GREEN, ORANGE, mark
from code_detection.metrics import DetectionCounts, add, count, match
from code_detection.options import Options
from code_detection.prepare_data import all_points


def best_path(options: Options) -> Path:
    """The checkpoint to use: --model-path, else the best one of the round."""
    return options.model_path or options.save_dir / f"round_{options.round}" / "best.pt"


def threshold_of(options: Options, state: dict) -> float:
    """The threshold of detections: the options', or with --auto-threshold that of a checkpoint.

    A checkpoint that was chosen without validation images has none, and takes the options'.
    """
    own = state.get("scores", {}) if options.auto_threshold else {}
    return own.get("threshold", options.threshold)


def draw(image: np.ndarray, detected: np.ndarray, truth: np.ndarray | None, r1: float):
    """Overlay: green circles are right, orange crosses wrong, blue squares missed nuclei."""
    if truth is None:
        return mark(image, detected, "circle", GREEN)
    i, j = match(detected, truth, r1)
    image = mark(image, np.delete(truth, j, axis=0), "square", BLUE)
    image = mark(image, np.delete(detected, i, axis=0), "cross", ORANGE)
    return mark(image, detected[i], "circle", GREEN)


def detect_samples(
    options: Options, samples: list[Sample], out: Path, overlays: Path | None = None
) -> dict[str, DetectionCounts | None]:
    """Detect the nuclei of each image; write NAME_prob.png (65535 is 1) and NAME_points.csv.

    Pictures go into the folder `overlays`. Images that are done, and those of another --shard, are
    left alone. Returns the counts of all that are done, None where no point is known.
    """
    device, checkpoint = options.choose_device(), best_path(options)
    state, tiling = load_state(checkpoint), options.tiling(device)
    network = network_of(state, checkpoint, device)
    rule = threshold_of(options, state), options.min_area, options.max_area
    key = fingerprint(file_key(checkpoint), cutting(tiling), rule, options.r1, bool(overlays))

    def work(sample: Sample) -> tuple[list[Path], dict]:
        image = read_image(sample.image)
        prob = predict_prob(network, image, tiling)
        points = detect(prob, *rule)
        files = [out / f"{sample.name}_points.csv", out / f"{sample.name}_prob.png"]
        rows = [(r, c, f"{prob[r, c]:.4f}") for r, c in points.tolist()]
        write_table(files[0], ("row", "col", "prob"), rows)
        write_prob(files[1], prob)
        truth = all_points(sample, image.shape[:2])
        if overlays:
            files.append(overlays / f"{sample.name}_overlay.png")
            write_png(files[2], draw(image, points, truth, options.r1))
        counts = None if truth is None else count(points, truth, options.r1).as_json()
        return files, {"counts": counts}

    images = {s.name: ((s.image, s.instances, s.points), lambda s=s: work(s)) for s in samples}
    done = do_share(Results(out, key), images, choose_shard(options.shard), "detecting")
    counts = {name: value["counts"] for name, value in done.items()}
    return {n: c if c is None else DetectionCounts.from_json(c) for n, c in counts.items()}


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
    write_table(out / "per_image.csv", columns, rows)
    pooled = {"all": add(list(counts.values())).scores()}
    for group, names in groups.items():
        pooled[group] = add([counts[n] for n in names if n in counts]).scores()
    every = list(counts.values())
    known = patients(list(counts), patient)
    interval = intervals(known, lambda drawn: add([every[i] for i in drawn]).scores())
    value = {"pooled": pooled, "interval": interval, "patients": len(set(known)), "images": images}
    write_json(out / "metrics.json", value)
    return pooled


def test(options: Options) -> str:
    """Test the round `options.round`, on the data set's test images or on --img-dir.

    The data set's detections go to detections/, where stage 2 looks for them.
    """
    if options.img_dir:
        labels = [options.label_dir] if options.label_dir else []
        samples, groups = find_samples(options.img_dir, None, *labels), {}
        detections = out = options.save_dir / "test_own"
    else:
        split = load_split(options.data_dir)
        samples, groups = split["test"], test_groups(split)
        detections, out = options.save_dir / "detections", options.save_dir / "test"
    done = detect_samples(options, samples, detections, out)
    if distributed.rank() == 0 and not options.model_path:
        # What tools/export_model.py takes for the run's detector.
        threshold = threshold_of(options, load_state(best_path(options)))
        chosen = {"checkpoint": f"round_{options.round}/best.pt", "threshold": threshold}
        write_json(options.save_dir / "selection.json", chosen)
    if len(done) < len(samples):
        return f"{len(done)} of {len(samples)} images are done; the scores wait for all of them"
    counts = {name: own for name, own in done.items() if own is not None}
    pooled = write_scores(out, counts, groups, options.patient) if distributed.rank() == 0 else {}
    if not pooled:
        return f"{len(samples)} images, no labels to score against; see {out}"
    told = ", ".join(f"{k} {v:.3f}" for k, v in pooled["all"].items())
    return f"{len(samples)} images: {told}; see {out}"


if __name__ == "__main__":
    run_script(lambda: parse(Options, __doc__).run(test))
