"""Segment images and score them: instance maps by both methods, overlays, metrics."""

import sys
from pathlib import Path

import numpy as np

if not __package__:
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from code_common.config import parse
from code_common.data import (
    Sample,
    find_samples,
    load_split,
    read_image,
    read_instances,
    read_json,
    read_points,
    test_groups,
    write_instances,
    write_json,
    write_png,
    write_table,
)
from code_common.drawing import CYAN, YELLOW, outline
from code_common.errors import run_script
from code_common.geojson import nuclei_geojson
from code_common.model import load_network
from code_seg.evaluate import make_instances, predict_prob
from code_seg.metrics import score
from code_seg.options import Options
from code_seg.prepare_data import detections_path

Scores = dict[str, dict[str, dict[str, float]]]  # method -> image -> score


def segment_samples(
    options: Options, samples: list[Sample], points_of, out: Path, checkpoint: Path, method: str
) -> Scores:
    """Segment each image; write NAME_instances.tif, _nuclei.geojson, _prob.png and _overlay.png.

    `points_of(sample)` is the file of its detections. The instance map is that of `method`, or
    of components for an image without detections. Returns the scores of every method for the
    images with masks.
    """
    device = options.choose_device()
    network = load_network(checkpoint, device)
    scores: Scores = {}
    for sample in samples:
        image = read_image(sample.image)
        shape = image.shape[:2]
        path = points_of(sample)
        points = read_points(path, shape) if path and path.is_file() else None
        prob = predict_prob(network, image, options.tiling(device))
        maps = make_instances(prob, points, options.min_area)
        chosen = maps.get(method, maps["components"])
        truth = read_instances(sample.instances, shape) if sample.instances else None
        picture = image if truth is None else outline(image, truth, CYAN)
        write_instances(out / f"{sample.name}_instances.tif", chosen)
        nuclei = nuclei_geojson(chosen, prob)
        write_json(out / f"{sample.name}_nuclei.geojson", nuclei, indent=None)
        write_png(out / f"{sample.name}_prob.png", np.rint(prob * 65535).astype(np.uint16))
        write_png(out / f"{sample.name}_overlay.png", outline(picture, chosen, YELLOW))
        if truth is not None:
            for name, instances in maps.items():
                scores.setdefault(name, {})[sample.name] = score(truth, instances)
    return scores


def mean_scores(images: dict[str, dict[str, float]]) -> dict[str, float]:
    """Mean of each score over the images."""
    names = next(iter(images.values()))
    return {k: float(np.mean([scores[k] for scores in images.values()])) for k in names}


def write_scores(out: Path, scores: Scores, method: str, groups: dict[str, list[str]]) -> None:
    """Write metrics.json (means over all images and over each group) and per_image.csv."""
    means: dict[str, dict] = {}
    for name, images in scores.items():
        means[name] = {"all": mean_scores(images)}
        for group, members in groups.items():
            own = {m: images[m] for m in members if m in images}
            if own:
                means[name][group] = mean_scores(own)
    value = {"instances": method, "mean": means, "images": scores}
    rows = [
        [image, name, *(f"{v:.6g}" for v in values.values())]
        for name, images in scores.items()
        for image, values in images.items()
    ]
    first = next(iter(next(iter(scores.values())).values()))
    write_table(out / "per_image.csv", ["image", "instances", *first], rows)
    write_json(out / "metrics.json", value)


def test(options: Options) -> str:
    """Test the selected checkpoint on the data set's test images, or on --img-dir."""
    selection = {}
    if not options.model_path or options.instances == "auto":
        selection = read_json(options.save_dir / "selection.json")
    checkpoint = options.model_path or options.save_dir / selection["checkpoint"]
    method = options.instances if options.instances != "auto" else selection["instances"]
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

    scores = segment_samples(options, samples, points_of, out, checkpoint, method)
    if not scores:
        return f"{len(samples)} images, no masks to score against; see {out}"
    write_scores(out, scores, method, groups)
    shown = ("pixel_f1", "object_dice", "aji", "pq")
    told = []
    for name, images in scores.items():
        means = mean_scores(images)
        told.append(f"{name}: " + ", ".join(f"{k} {means[k]:.3f}" for k in shown))
    return f"{len(samples)} images; {'; '.join(told)}; see {out}"


if __name__ == "__main__":
    run_script(lambda: print(test(parse(Options, __doc__))))
