"""Runs of older versions: what their options are called and mean today.

A run that began before an option was added, renamed or removed goes on as it is. This file is the
one place that knows how. Whoever changes an option adds a line here.
"""

from pathlib import Path

from code_common.errors import InputError

# Option that older runs lack -> the value that they were made with.
ADDED = {
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
    "magnify_to": 0.0,
    "mask_epochs": 0,
    "mask_points": "all",
}
# Old name of an option -> its name today.
RENAMED: dict[str, str] = {}
# Option that is gone -> the value that today's code has in its place.
REMOVED: dict[str, object] = {}


def options_today(saved: dict, path: Path) -> dict:
    """The options of an older run, by today's names and with those that it lacks.

    saved: name -> value of its options.json, which lies at `path`. Raises InputError where the run
    was made with an option that is gone and at a value that today's code does not have.
    """
    options = ADDED | {RENAMED.get(name, name): value for name, value in saved.items()}
    for name, today in REMOVED.items():
        value = options.pop(name, today)
        if value != today:
            raise InputError(
                f"{path}: a run with --{name.replace('_', '-')} {value}, an option that is gone; "
                "go on with the version that began it, or give another --save-dir"
            )
    return options
