"""The steps of stage 2, in order: main.py does them, data/check.py adds up their work."""

from functools import partial
from pathlib import Path

from code_common.files.data_set import ImageFiles
from code_common.files.run_folder import (
    LABELS,
    SELF_TRAINING_LABELS,
    areas_path,
    best_path,
    colours_path,
    label_errors_path,
    label_path,
    label_picture_path,
    phase_folder,
    pictures_folder,
    points_path,
    result_paths,
    results_folder,
    selection_path,
)
from code_common.reporting.album import album_paths
from code_common.runs.estimate import inference_work, training_work, validation_work
from code_common.runs.removal import remove_unfinished
from code_common.runs.steps import Step
from code_seg.options import Options
from code_seg.pictures import FIGURES, pictures
from code_seg.prepare_data import prepare
from code_seg.selection import select
from code_seg.self_training import write_self_training_labels
from code_seg.test import test_data_set
from code_seg.train import train_phase


def steps(options: Options, split: dict[str, list[ImageFiles]]) -> list[Step]:
    """Prepare, the phases of training, and what comes after."""
    train, val, test, views = split["train"], split["val"], split["test"], options.views
    place, seen, tested = Path(), [f.name for f in train + val], [f.name for f in test]
    prepared = [
        *(points_path(place, name) for name in seen),
        *(label_path(place, labels, name) for labels in LABELS for name in seen),
        *(label_picture_path(place, "labels", name) for name in seen),
        colours_path(place),
        label_errors_path(place),
    ]
    found = [Step("prepare", partial(prepare, options), writes=prepared)]
    for phase, epochs in options.phases().items():
        if phase == "self_training":
            action = partial(write_self_training_labels, options)
            work = inference_work(train + val, options, views)
            written = [
                *(label_path(place, SELF_TRAINING_LABELS, name) for name in seen),
                *(label_picture_path(place, SELF_TRAINING_LABELS, name) for name in seen),
                label_errors_path(place, "self_training"),
            ]
            found.append(Step("self-training labels", action, work, writes=written))
        found.append(
            Step(
                f"train with {phase}",
                action=partial(train_phase, options, phase),
                work=training_work(train, options, epochs) + validation_work(val, options, epochs),
                together=True,
                tidy=partial(
                    remove_unfinished, options.save_dir, phase_folder(options.save_dir, phase)
                ),
                writes=[best_path(phase_folder(place, phase))],
            )
        )
    testing = 2 * inference_work(test, options, views)
    selecting, chosen = inference_work(val, options, views), [selection_path(place)]
    results = result_paths(results_folder(place), tested)
    album = [*album_paths(pictures_folder(place), FIGURES), areas_path(place)]
    return [
        *found,
        Step("select", partial(select, options), selecting, writes=chosen),
        Step("test", partial(test_data_set, options), testing, together=True, writes=results),
        Step("pictures", partial(pictures, options), writes=album),
    ]
