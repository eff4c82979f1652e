"""The steps of stage 2, in order: main.py does them, data/check.py adds up their work."""

from functools import partial

from code_common.files.data_set import ImageFiles
from code_common.files.run_folder import LABELS, SELF_TRAINING_LABELS, phase_folder
from code_common.steps import (
    Step,
    inference_work,
    remove_unfinished,
    training_work,
    validation_work,
)
from code_seg.options import Options
from code_seg.pictures import pictures
from code_seg.prepare_data import prepare
from code_seg.selection import select
from code_seg.self_training import write_self_training_labels
from code_seg.test import test_data_set
from code_seg.train import train_phase


def steps(options: Options, split: dict[str, list[ImageFiles]]) -> list[Step]:
    """Prepare, the phases of training, and what comes after."""
    train, val, test, views = split["train"], split["val"], split["test"], options.views
    prepared = ("points", *LABELS, "pictures/labels", "colours.json", "label_errors.json")
    found = [Step("prepare", partial(prepare, options), writes=prepared)]
    for phase, epochs in options.phases().items():
        if phase == "self_training":
            action = partial(write_self_training_labels, options)
            work = inference_work(train + val, options, views)
            written = (
                SELF_TRAINING_LABELS,
                f"pictures/{SELF_TRAINING_LABELS}",
                "self_training_label_errors.json",
            )
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
                writes=(f"{phase}/best.pt",),
            )
        )
    testing = 2 * inference_work(test, options, views)
    selecting, chosen = inference_work(val, options, views), ("selection.json",)
    return [
        *found,
        Step("select", partial(select, options), selecting, writes=chosen),
        Step("test", partial(test_data_set, options), testing, together=True, writes=("test",)),
        Step("pictures", partial(pictures, options), writes=("pictures",)),
    ]
