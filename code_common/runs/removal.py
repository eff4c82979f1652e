"""Throwing a run away, and nothing else that lies in its folder."""

import contextlib
import re
import shutil
from collections.abc import Collection
from pathlib import Path

from code_common.errors import InputError
from code_common.files.contents import read_marker
from code_common.files.run_folder import (
    CACHE,
    LABELS,
    SELF_TRAINING_LABELS,
    colours_path,
    detections_folder,
    label_errors_path,
    last_path,
    marker_path,
    marker_paths,
    oracles_path,
    pictures_folder,
    points_path,
    results_folder,
    round_folders,
    selection_path,
    val_points_path,
)
from code_common.old_runs import RENAMED_FILES

# The phases of stage 2, each of which has a folder.
_PHASES = ("labels", "crf", "self_training")
# What a run writes, of any version: files of these names, and those that the markers note. In a
# folder of which no marker tells, the endings tell, but for folders where all names are of these.
_WRITTEN = re.compile(
    r".+_(points\.csv|prob\.png|overlay\.png|instances\.tif|nuclei\.geojson)|metrics\.json|"
    r"per_image\.csv|(best|last)\.pt|log\.csv|figures\.json|areas\.json|.+\.npy|\..+\.tmp|"
    r"events\.out\.tfevents\..*"
)
_RESULTS = ("test", "test_own", "detections", "train")
_ENDINGS = (".png", ".csv", ".json")


def _remove_written(folder: Path, noted: Collection[Path]) -> None:
    """Remove the files of a run from one of its folders, and the folder where nothing is left.

    noted: the files that the steps of the run noted.
    """
    if folder.is_symlink():
        folder.unlink()
        return
    is_told = folder.name in _RESULTS or any(path.parent == folder for path in noted)
    endings = () if is_told else _ENDINGS
    for path in folder.iterdir() if folder.is_dir() else ():
        if path.is_dir() and not path.is_symlink():
            _remove_written(path, noted)
        elif path in noted or path.suffix in endings or _WRITTEN.fullmatch(path.name):
            path.unlink(missing_ok=True)
    if folder.is_dir() and not any(folder.iterdir()):
        folder.rmdir()


def noted_files(folder: Path) -> set[Path]:
    """The files that the steps of a run noted as theirs; a damaged marker tells of none."""
    noted: set[Path] = set()
    for path in marker_paths(folder):
        with contextlib.suppress(InputError):
            noted |= {folder / name for name in read_marker(folder, path.stem).get("files", {})}
    return noted


def remove_run(folder: Path) -> None:
    """Remove what a run of either stage wrote into its folder, also an older version.

    Other files stay, and so does the lock. options.json stays, too: it says that here is a run.
    """
    noted = noted_files(folder)
    own_images = results_folder(folder, own_images=True)
    folders = [
        marker_path(folder, "NAME").parent,
        folder / CACHE,
        *(folder / name for name in (*LABELS, SELF_TRAINING_LABELS, *_PHASES)),
        *round_folders(folder),
        points_path(folder, "NAME").parent,
        val_points_path(folder, "NAME").parent,
        *(results_folder(folder), own_images, detections_folder(folder), pictures_folder(folder)),
    ]
    files = [
        selection_path(folder),
        colours_path(folder),
        label_errors_path(folder),
        label_errors_path(folder, "self_training"),
        oracles_path(folder),
    ]
    older = [folder / name for name in RENAMED_FILES]
    for path in [*folders, *(path for path in older if path.is_dir())]:
        _remove_written(path, noted)
    for path in [*files, *(path for path in older if path.suffix == ".json")]:
        path.unlink(missing_ok=True)
    for path in folder.glob(".*.tmp"):
        path.unlink(missing_ok=True)


def remove_unfinished(save_dir: Path, training: Path) -> None:
    """Remove what the training in the folder `training` of a run would have gone on from."""
    last_path(training).unlink(missing_ok=True)
    shutil.rmtree(save_dir / CACHE, ignore_errors=True)
