"""Segment images and score them: instance maps by both methods, overlays, metrics."""

import sys
from pathlib import Path

import numpy as np

if not __package__:
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from code_common.config import fingerprint, parse
from code_common.errors import InputError, run_script
from code_common.files.data_set import Sample, find_samples, load_split, test_groups
from code_common.files.geojson import nuclei_geojson
from code_common.files.reading import read_image, read_instances, read_json, read_points
from code_common.files.writing import (
    write_instances,
    write_json,
    write_png,
    write_prob,
    write_table,
)
from code_common.inference.shards import Results, choose_shard, do_share, file_key
from code_common.inference.tiling import cutting
from code_common.learning import distributed
from code_common.learning.checkpoints import load_network
from code_common.reporting.bootstrap import intervals, mean_of, patients
from code_common.reporting.drawing import CYAN, YELLOW, outline
from code_seg.evaluate import make_instances, predict_nuclei
from code_seg.instances import check_method
from code_seg.metrics import score
from code_seg.options import Options
from code_seg.prepare_data import detections_path

Scores = dict[str, dict[str, dict[str, float]]]  # method -> image -> score


def segment_samples(
    options: Options, samples: list[Sample], points_of, out: Path, checkpoint: Path, method: str
) -> tuple[Scores, int]:
    """Segment each image; write NAME_instances.tif, _nuclei.geojson, _prob.png and _overlay.png.

    `points_of(sample)` is the file of its detections. The instance map is that of `method`, or
    of components for an image without detections. Images that are done, and those of another
    --shard, are left alone. Returns the scores of every method for the images with masks, and how
    many images are done.
    """
    device = options.choose_device()
    network, tiling = load_network(checkpoint, device), options.tiling(device)
    rule = method, options.min_area, options.magnify_to
    key = fingerprint(file_key(checkpoint), cutting(tiling), rule)

    def work(sample: Sample) -> tuple[list[Path], dict]:
        image = read_image(sample.image)
        shape = image.shape[:2]
        path = points_of(sample)
        points = read_points(path, shape) if path and path.is_file() else None
        prob = predict_nuclei(network, image, points, tiling, options.magnify_to)
        maps = make_instances(prob, points, options.min_area)
        chosen = maps.get(method, maps["components"])
        truth = read_instances(sample.instances, shape) if sample.instances else None
        picture = image if truth is None else outline(image, truth, CYAN)
        endings = ("instances.tif", "nuclei.geojson", "prob.png", "overlay.png")
        files = [out / f"{sample.name}_{ending}" for ending in endings]
        write_instances(files[0], chosen)
        write_json(files[1], nuclei_geojson(chosen, prob), indent=None)
        write_prob(files[2], prob)
        write_png(files[3], outline(picture, chosen, YELLOW))
        scored = {} if truth is None else {m: score(truth, own) for m, own in maps.items()}
        return files, scored

    images = {s.name: ((s.image, s.instances, points_of(s)), lambda s=s: work(s)) for s in samples}
    done = do_share(Results(out, key), images, choose_shard(options.shard), "segmenting")
    scores: Scores = {}
    for sample in samples:
        for name, own in done.get(sample.name, {}).items():
            scores.setdefault(name, {})[sample.name] = own
    return scores, len(done)


def mean_scores(images: dict[str, dict[str, float]]) -> dict[str, float]:
    """Mean of each score over the images."""
    return mean_of(list(images.values()))(np.arange(len(images)))


def write_scores(
    out: Path, scores: Scores, method: str, groups: dict[str, list[str]], patient: str
) -> None:
    """Write per_image.csv and metrics.json: means over all images and over each group, and the
    bootstrap intervals over patients (`patient` finds them in the images' names).
    """
    means: dict[str, dict] = {}
    interval: dict[str, dict] = {}
    for name, images in scores.items():
        means[name] = {"all": mean_scores(images)}
        known = patients(list(images), patient)
        interval[name] = intervals(known, mean_of(list(images.values())))
        for group, members in groups.items():
            own = {m: images[m] for m in members if m in images}
            if own:
                means[name][group] = mean_scores(own)
    value = {"instances": method, "mean": means, "interval": interval}
    value |= {"patients": len(set(known)), "images": scores}
    rows = [
        [image, name, *(f"{v:.6g}" for v in values.values())]
        for name, images in scores.items()
        for image, values in images.items()
    ]
    first = next(iter(next(iter(scores.values())).values()))
    write_table(out / "per_image.csv", ["image", "instances", *first], rows)
    write_json(out / "metrics.json", value)


def read_selection(path: Path) -> dict[str, str]:
    """What the validation images chose: 'checkpoint' and 'instances'. Raises InputError."""
    selection = read_json(path)
    if not isinstance(selection, dict) or not {"checkpoint", "instances"} <= set(selection):
        raise InputError(f"{path}: expected 'checkpoint' and 'instances'; run code_seg/train.py")
    return selection


def test(options: Options) -> str:
    """Test the selected checkpoint on the data set's test images, or on --img-dir."""
    selection = {}
    if not options.model_path or options.instances == "auto":
        selection = read_selection(options.save_dir / "selection.json")
    checkpoint = options.model_path or options.save_dir / selection["checkpoint"]
    method = options.instances if options.instances != "auto" else selection["instances"]
    check_method(method, options.save_dir / "selection.json")
    if options.img_dir:
        labels = [options.label_dir] if options.label_dir else []
        samples, groups = find_samples(options.img_dir, None, *labels), {}
        out, folder = options.save_dir / "test_own", options.points_dir

        def points_of(sample: Sample) -> Path | None:
            return folder / f"{sample.name}_points.csv" if folder else None
    else:
        split = load_split(options.data_dir)
        samples, groups, out = split["test"], test_groups(split), options.save_dir / "test"

        def points_of(sample: Sample) -> Path | None:
            return detections_path(options.detection_dir(), sample.name)

    scores, done = segment_samples(options, samples, points_of, out, checkpoint, method)
    if done < len(samples):
        return f"{done} of {len(samples)} images are done; the scores wait for all of them"
    if not scores:
        return f"{len(samples)} images, no masks to score against; see {out}"
    if distributed.rank() == 0:
        write_scores(out, scores, method, groups, options.patient)
    shown = ("pixel_f1", "object_dice", "aji", "pq")
    told = []
    for name, images in scores.items():
        means = mean_scores(images)
        told.append(f"{name}: " + ", ".join(f"{k} {means[k]:.3f}" for k in shown))
    return f"{len(samples)} images; {'; '.join(told)}; see {out}"


if __name__ == "__main__":
    run_script(lambda: parse(Options, __doc__).run(test))
