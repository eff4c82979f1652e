"""Runs of older versions: what their options and files are called today, and what they mean.

A run that began before an option was added, renamed or removed goes on as it is. This file is the
one place that knows how. Whoever changes an option or a name in a run folder adds a line here, and
in docs/reference/changes.md.
"""

from pathlib import Path

from code_common.errors import InputError

# Option that older runs lack -> the value that they were made with.
ADDED = {
    "batch_parts": 1,
    "schedule": "constant",
    "stain_augmentation": 0.0,
    "stem_stride": 2,
    "views": 1,
    "width": 1.0,
    "auto_threshold": False,
    "final_round": "last",
    "loss": "mse",
    "unknown_weight": 0.0,
    "cluster_colours": "rgb",
    "nucleus_radius": 0.0,
    "self_training_epochs": 0,
    "self_training_points": "all",
    "start_from": None,
}
# Of these, what profiles and data sets set today: an older run goes on with its own value.
KEPT = ("batch_parts",)
# Old name of an option -> its name today.
RENAMED = {
    "magnify_to": "nucleus_radius",
    "mask_epochs": "self_training_epochs",
    "mask_points": "self_training_points",
}
# Option that is gone -> the values that are what today's code does.
REMOVED: dict[str, tuple] = {
    "members": (1,),  # one network, not an ensemble
    "colour_scale": (None,),  # follows from cluster_colours
}
# What colours were divided by where `colour_scale` was a number: these are today's.
COLOUR_SCALES = {"rgb": 10.0, "red": 4.0}
# Old name of a file or folder in the run folder of stage 2 -> its name today.
RENAMED_FILES = {
    "masks": "self_training",
    "labels_masks": "labels_self_training",
    "pictures/labels_masks": "pictures/labels_self_training",
    "mask_label_errors.json": "self_training_label_errors.json",
    ".done/labels of the masks.json": ".done/self-training labels.json",
    ".done/train with masks.json": ".done/train with self_training.json",
}


def options_today(saved: dict) -> dict:
    """The options of an older run, by today's names and with those that it lacks.

    saved: name -> value of its options.json.
    """
    renamed = {RENAMED.get(name, name): value for name, value in saved.items()}
    return {name: value for name, value in (ADDED | renamed).items() if name not in REMOVED}


def kept_options(saved: dict) -> dict:
    """The options of KEPT that a run lacks, with which it goes on. saved: as in `options_today`."""
    return {name: ADDED[name] for name in KEPT if name not in saved}


def refuse_removed(saved: dict, path: Path) -> None:
    """Raise InputError where a run was made with an option that is gone, at a value that today's
    code does not have. saved: the options of its options.json, which lies at `path`.
    """
    for name, today in REMOVED.items():
        value = saved.get(name, today[0])
        colours = str(saved.get("cluster_colours", "rgb"))
        if name == "colour_scale" and value == COLOUR_SCALES.get(colours, today):
            continue
        if value not in today:
            raise InputError(
                f"{path}: a run with --{name.replace('_', '-')} {value}, an option that is gone; "
                "go on with the version that began it, or give another --save-dir"
            )


def checkpoint_path(folder: Path, name: str) -> Path:
    """The checkpoint that selection.json names, 'masks/best.pt' say, in a run folder of any age."""
    phase, file = Path(name).parent.name, Path(name).name
    return present(folder, RENAMED_FILES.get(phase, phase)) / file


def present(folder: Path, name: str) -> Path:
    """A file or folder of a run by the name it has there: today's, or else an older one."""
    older = [folder / old for old, new in RENAMED_FILES.items() if new == name]
    return next((p for p in [folder / name, *older] if p.exists()), folder / name)


def rename_files(folder: Path) -> None:
    """Give what an older version left in a run folder the names of today. Killed, it goes on."""
    for old, new in RENAMED_FILES.items():
        if (folder / old).exists() and not (folder / new).exists():
            (folder / old).rename(folder / new)
