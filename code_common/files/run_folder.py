"""Every name inside a run folder, once: root/DATASET/ratio_R/repeat_K/STAGE, and what it holds.

`folder` is the run folder of a stage (STAGE), `name` an image's name without its suffix.
"""

import re
from collections.abc import Sequence
from pathlib import Path

STAGES = ("detection", "segmentation")
CACHE = "cache"  # decoded arrays of a training in progress
LABELS = ("labels_voronoi", "labels_cluster")  # folders of stage 2's labels
SELF_TRAINING_LABELS = "labels_self_training"


def ratio_folder(root: Path, dataset: str, ratio: float) -> Path:
    """All repeats of an experiment."""
    return root / dataset / f"ratio_{ratio:g}"


def repeat_number(folder: Path) -> int:
    """K of a folder repeat_K."""
    return int(folder.name.removeprefix("repeat_"))


def repeat_folder(experiment: Path, repeat: int) -> Path:
    """Both stages of one repeat of the experiment in `experiment`."""
    return experiment / f"repeat_{repeat}"


def ratio_folders(dataset_folder: Path) -> list[Path]:
    """The experiments of a data set that are there, by name; not a copy, 'ratio_0.1_old' say."""
    return _named(dataset_folder, r"ratio_[\d.]+(e-\d+)?")


def repeat_folders(experiment: Path) -> list[Path]:
    """The repeats that are there, by number."""
    return sorted(_named(experiment, r"repeat_\d+"), key=lambda p: (len(p.name), p.name))


def _named(folder: Path, pattern: str) -> list[Path]:
    """The folders in a folder whose name matches, by name."""
    return sorted(p for p in folder.glob("*_*") if re.fullmatch(pattern, p.name) and p.is_dir())


def stage_folder(root: Path, dataset: str, ratio: float, repeat: int, stage: str) -> Path:
    """The run folder of one stage."""
    return repeat_folder(ratio_folder(root, dataset, ratio), repeat) / stage


def round_folder(folder: Path, round: int) -> Path:
    """A round of stage 1."""
    return folder / f"round_{round}"


def round_folders(folder: Path) -> list[Path]:
    """The rounds of stage 1 that are there, in order."""
    return sorted(_named(folder, r"round_\d+"), key=lambda p: (len(p.name), p.name))


def round_of(checkpoint: str) -> int:
    """The round of a checkpoint as selection.json names it: 'round_2/best.pt' -> 2."""
    return int(Path(checkpoint).parent.name.removeprefix("round_"))


def phase_folder(folder: Path, phase: str) -> Path:
    """A phase of the training of stage 2."""
    return folder / phase


def results_folder(folder: Path, own_images: bool = False) -> Path:
    """What test.py writes, for the data set's test images or for images of one's own."""
    return folder / ("test_own" if own_images else "test")


def detections_folder(folder: Path) -> Path:
    """The detections of stage 1, where stage 2 looks for them."""
    return folder / "detections"


def pictures_folder(folder: Path) -> Path:
    """Figures for the report."""
    return folder / "pictures"


def options_path(folder: Path) -> Path:
    """All options, the commit, the machine."""
    return folder / "options.json"


def selection_path(folder: Path) -> Path:
    """What the validation images chose."""
    return folder / "selection.json"


def colours_path(folder: Path) -> Path:
    """Mean and deviation of the training images' colours."""
    return folder / "colours.json"


def metrics_path(results: Path) -> Path:
    """Scores of a folder of results, for programs."""
    return results / "metrics.json"


def score_table_path(results: Path) -> Path:
    """Scores of each image of a folder of results."""
    return results / "per_image.csv"


def remove_scores(results: Path) -> None:
    """Remove the scores of an earlier call: they are not those of the results there now."""
    for path in (metrics_path(results), score_table_path(results)):
        path.unlink(missing_ok=True)


def nuclei_path(results: Path, name: str) -> Path:
    """Outlines of the nuclei of an image in a folder of results."""
    return results / f"{name}_nuclei.geojson"


def marker_path(folder: Path, name: str) -> Path:
    """Tells of a step of a run that was done, or of an image in a folder of results."""
    return folder / ".done" / f"{name}.json"


def marker_paths(folder: Path) -> list[Path]:
    """Of the steps that were done, in the order in which they ended."""
    return sorted((folder / ".done").glob("*.json"), key=lambda path: path.stat().st_mtime)


def label_errors_path(folder: Path, label: str = "") -> Path:
    """How wrong the labels of stage 2 are: of the points' labels, or of 'self_training'."""
    return folder / (f"{label}_label_errors.json" if label else "label_errors.json")


def oracles_path(folder: Path) -> Path:
    """What a run of stage 2 would score with true masks, points or labels."""
    return folder / "oracles.json"


def areas_path(folder: Path) -> Path:
    """Areas of the true and the predicted test nuclei."""
    return pictures_folder(folder) / "areas.json"


def best_path(training: Path) -> Path:
    """The checkpoint of the best epoch."""
    return training / "best.pt"


def last_path(training: Path) -> Path:
    """What a training in progress goes on from."""
    return training / "last.pt"


def log_path(training: Path) -> Path:
    """A line for each epoch."""
    return training / "log.csv"


def result_paths(results: Path, names: Sequence[str]) -> list[Path]:
    """What either stage may write into a folder of results; `names` are those of images."""
    of_image = (detected_points_path, prob_path, instances_path, nuclei_path, overlay_path)
    of_all = metrics_path(results), score_table_path(results)
    return [*(path(results, name) for name in names for path in of_image), *of_all]


def points_path(folder: Path, name: str) -> Path:
    """Annotated points of a training image (stage 1); all points of an image (stage 2)."""
    return folder / "points" / f"{name}.csv"


def val_points_path(folder: Path, name: str) -> Path:
    """Points of a validation image, which choose the checkpoint of stage 1."""
    return folder / "val_points" / f"{name}.csv"


def background_path(folder: Path, round: int, name: str) -> Path:
    """The background label that a round of stage 1 is trained with."""
    return round_folder(folder, round) / "background" / f"{name}.png"


def round_detections_folder(folder: Path, round: int) -> Path:
    """What a round found on the training images."""
    return round_folder(folder, round) / "train"


def all_points_paths(folder: Path) -> list[Path]:
    """The files of `points_path` that are there, by name."""
    return sorted(points_path(folder, "NAME").parent.glob("*.csv"))


def detected_points_path(detections: Path, name: str) -> Path:
    """Detections of an image in a folder of detections."""
    return detections / f"{name}_points.csv"


def detections_path(folder: Path, name: str) -> Path:
    """Detections of an image in a run folder of stage 1, where stage 2 reads them."""
    return detected_points_path(detections_folder(folder), name)


def prob_path(results: Path, name: str) -> Path:
    """Probability map of an image in a folder of results."""
    return results / f"{name}_prob.png"


def instances_path(results: Path, name: str) -> Path:
    """Instance map of an image in a folder of results."""
    return results / f"{name}_instances.tif"


def overlay_path(results: Path, name: str) -> Path:
    """Overlay of an image in a folder of results."""
    return results / f"{name}_overlay.png"


def label_path(folder: Path, labels: str, name: str) -> Path:
    """A label of stage 2; `labels` is one of LABELS or SELF_TRAINING_LABELS."""
    return folder / labels / f"{name}.png"


def label_picture_path(folder: Path, labels: str, name: str) -> Path:
    """A label over its image; `labels` is 'labels' or SELF_TRAINING_LABELS."""
    return pictures_folder(folder) / labels / f"{name}.png"
