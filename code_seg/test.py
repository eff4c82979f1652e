"""Segment test images and score them: instance maps by every method, overlays, metrics."""

import sys
from pathlib import Path

if not __package__:
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from code_common.config import read_command_line
from code_seg.options import Options, TestOptions

if __name__ == "__main__":
    options = read_command_line(TestOptions, __doc__)

import numpy as np

from code_common.annotations.text import some_names
from code_common.config import fingerprint
from code_common.errors import InputError
from code_common.files.contents import content_hash, refuse_unfinished
from code_common.files.data_set import ImageFiles, load_split, test_groups
from code_common.files.geojson import nuclei_geojson
from code_common.files.images import read_image, read_instances
from code_common.files.layout import EVERY
from code_common.files.reading import read_points
from code_common.files.run_folder import (
    detected_points_path,
    detections_path,
    instances_path,
    metrics_path,
    nuclei_path,
    overlay_path,
    prob_path,
    remove_scores,
    results_folder,
    score_table_path,
    selection_path,
)
from code_common.files.writing import (
    write_instances,
    write_json,
    write_png,
    write_prob,
    write_table,
)
from code_common.inference.own_images import own_images, tell_of_others
from code_common.inference.shards import ALL, DoneFiles, process_shard, told_of_array
from code_common.launch import choose_device, run, tiling_of
from code_common.learning import distributed
from code_common.learning.checkpoints import load_network
from code_common.learning.hardware import choose_processes
from code_common.reporting.bootstrap import intervals, patients, told_alone
from code_common.reporting.drawing import CYAN, YELLOW, outline
from code_common.reporting.results import SHOWN
from code_common.runs.same_run import refuse_other_checkpoint, refuse_other_run
from code_seg.evaluate import make_instances
from code_seg.magnify import predict_nuclei
from code_seg.metrics import over_images, score
from code_seg.selection import check_method, read_selection

Scores = dict[str, dict[str, dict[str, float]]]  # method -> image -> score


def segment_images(
    options: Options,
    image_files: list[ImageFiles],
    point_files: dict[str, Path],
    out: Path,
    checkpoint: Path,
    method: str,
    shard: str,
) -> tuple[Scores, int]:
    """Segment each image; write NAME_instances.tif, _nuclei.geojson, _prob.png and _overlay.png.

    point_files: image -> the file of its detections, which may be absent. The instance map is that
    of `method`, or of components for an image without detections. Images that are done, and those
    of another shard, are left alone. Returns the scores of every method for the images with
    masks, and how many images are done.
    """
    device = choose_device(options)
    network, tiling = load_network(checkpoint, device, "segmentation"), tiling_of(options, device)
    rule = method, options.min_area, options.nucleus_radius, options.merge_radius
    key = fingerprint(content_hash(checkpoint), tiling.key(), rule)
    by_name = {files.name: files for files in image_files}

    def work(name: str) -> tuple[list[Path], dict]:
        remove_scores(out)  # an image that stops this leaves no scores of other results
        files, point_file = by_name[name], point_files.get(name)
        image = read_image(files.image)
        shape = image.shape[:2]
        points = read_points(point_file, shape) if _is_there(point_file) else None
        prob = predict_nuclei(network, image, points, tiling, options.nucleus_radius)
        maps = make_instances(prob, points, options.min_area)
        chosen = maps.get(method, maps["components"])
        truth = read_instances(files.instances, shape, files.image) if files.instances else None
        picture = image if truth is None else outline(image, truth, CYAN)
        written = [
            instances_path(out, name),
            nuclei_path(out, name),
            prob_path(out, name),
            overlay_path(out, name),
        ]
        write_instances(written[0], chosen)
        write_json(written[1], nuclei_geojson(chosen, prob), indent=None)
        write_prob(written[2], prob)
        write_png(written[3], outline(picture, chosen, YELLOW))
        scored = {}
        if truth is not None:
            scored = {m: score(truth, v, options.merge_radius) for m, v in maps.items()}
        return written, scored

    inputs = {n: (f.image, f.instances, point_files.get(n)) for n, f in by_name.items()}
    done_files = DoneFiles(out, key, {str: dict.fromkeys(SHOWN, float)})
    done = process_shard(done_files, inputs, work, shard, "segmenting", choose_processes(device))
    scores: Scores = {}
    for name in (n for n in by_name if n in done):
        for scored_by, values in done[name].items():
            scores.setdefault(scored_by, {})[name] = values
    return scores, len(done)


def _is_there(path: Path | None) -> bool:
    return path is not None and path.is_file()


def mean_scores(images: dict[str, dict[str, float]]) -> dict[str, float]:
    """Each score over the images."""
    return over_images(list(images.values()))(np.arange(len(images)))


def write_scores(
    out: Path, scores: Scores, method: str, groups: dict[str, list[str]], patient: str
) -> None:
    """Write per_image.csv and metrics.json: means over all images and over each group, and the
    bootstrap intervals over patients (`patient` finds them in the images' names).
    """
    means: dict[str, dict] = {}
    interval: dict[str, dict] = {}
    persons: set = set()
    for name, images in scores.items():
        means[name] = {EVERY: mean_scores(images)}
        known = patients(list(images), patient)
        persons |= set(known)
        interval[name] = intervals(known, over_images(list(images.values())))
        for group, members in groups.items():
            of_group = {m: images[m] for m in members if m in images}
            if of_group:
                means[name][group] = mean_scores(of_group)
    value = {"instances": method, "mean": means, "interval": interval}
    value |= {"patients": len(persons), "images": scores}
    rows = [
        [image, name, *(f"{v:.6g}" for v in values.values())]
        for name, images in scores.items()
        for image, values in images.items()
    ]
    first = next(iter(next(iter(scores.values())).values()))
    write_table(score_table_path(out), ["image", "instances", *first], rows)
    write_json(metrics_path(out), value)


def test_images(
    options: Options,
    image_files: list[ImageFiles],
    point_files: dict[str, Path],
    out: Path,
    groups: dict[str, list[str]],
    checkpoint: Path | None,
    shard: str,
) -> str:
    """Segment images with a checkpoint, the selected one for None, and score them once all are
    done; returns what to tell.
    """
    method = options.instances
    if checkpoint is None or method == "auto":
        selected, selected_method = read_selection(options.save_dir)
        checkpoint = checkpoint or selected
        method = selected_method if method == "auto" else method
    check_method(method, selection_path(options.save_dir))
    bare = [f.name for f in image_files if not _is_there(point_files.get(f.name))]
    if bare and method != "components":
        told = f"connected components, not {method}"
        print(
            f"no points, so {told}, of {len(bare)} of {len(image_files)} images: {some_names(bare)}"
        )
    scores, done = segment_images(options, image_files, point_files, out, checkpoint, method, shard)
    if distributed.is_main() and (done < len(image_files) or not scores):
        remove_scores(out)
    if done < len(image_files):
        waiting = f"the scores wait for all of them{told_of_array(shard)}"
        return f"{done} of {len(image_files)} images are done; {waiting}"
    if not scores:
        return f"{len(image_files)} images, no masks to score against; see {out}"
    if distributed.is_main():
        used = method if method in scores else "components"
        write_scores(out, scores, used, groups, options.patient)
    number = max(map(len, scores.values()))
    told = f"{len(image_files)} images"
    if number < len(image_files):
        told += f", of which {number} have masks to score against"
    for name, images in scores.items():
        means = mean_scores(images)
        of = f" of {len(images)}" if len(images) < number else ""
        told += f"; {name}{of}: " + ", ".join(f"{k} {means[k]:.3f}" for k in SHOWN)
    alone = told_alone(list(next(iter(scores.values()))), options.patient)
    return f"{told}{alone}; see {out}"


def test_data_set(options: Options, checkpoint: Path | None = None, shard: str = ALL) -> str:
    """Test the selected checkpoint, or another, on the data set's test images."""
    split, out = load_split(options.data_dir), results_folder(options.save_dir)
    point_files = {f.name: detections_path(options.detection_dir(), f.name) for f in split["test"]}
    return test_images(
        options, split["test"], point_files, out, test_groups(split), checkpoint, shard
    )


def test(options: TestOptions) -> str:
    """Test on the data set's test images, or on --img-dir."""
    if options.img_dir is None:
        refuse_other_run(options)
        if options.model_path:
            refuse_other_checkpoint(options.save_dir, options.model_path)
        return test_data_set(options, options.model_path, options.shard)
    refuse_unfinished(options.save_dir)
    image_files = own_images(options.img_dir, options.label_dir)
    folder = options.points_dir
    point_files = {f.name: detected_points_path(folder, f.name) for f in image_files if folder}
    if point_files and not any(map(_is_there, point_files.values())):
        expected = next(iter(point_files.values())).name
        raise InputError(f"{folder}: no points of these images; expected {expected}, ...")
    out = results_folder(options.save_dir, own_images=True)
    if distributed.is_main():
        tell_of_others(out, [files.name for files in image_files])
    return test_images(
        options, image_files, point_files, out, {}, options.model_path, options.shard
    )


if __name__ == "__main__":
    run(test, options)
