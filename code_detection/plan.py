"""The steps of stage 1, in order: main.py does them, data/check.py adds up their work."""

from functools import partial
from pathlib import Path

from code_common.files.data_set import ImageFiles
from code_common.files.run_folder import (
    colours_path,
    detections_folder,
    pictures_folder,
    points_path,
    result_paths,
    results_folder,
    selection_path,
    val_points_path,
)
from code_common.reporting.album import album_paths
from code_common.runs.estimate import inference_work
from code_common.runs.steps import Step
from code_detection.options import Options
from code_detection.pictures import FIGURES, pictures_of
from code_detection.prepare_data import prepare
from code_detection.self_training import (
    better_round,
    choose_round,
    detect_training,
    self_training_round,
)
from code_detection.test import test_round


def steps(options: Options, split: dict[str, list[ImageFiles]]) -> list[Step]:
    """Prepare, the initial round and those of self-training, and what the last one is for."""
    rounds, place = range(options.rounds + 1), Path()
    prepared = [
        *(points_path(place, files.name) for files in split["train"]),
        *(val_points_path(place, files.name) for files in split["val"]),
        colours_path(place),
    ]
    return [
        Step("prepare", partial(prepare, options), writes=prepared),
        *(step for r in rounds for step in self_training_round(options, split, r)),
        *final_steps(options, split),
    ]


def final_steps(options: Options, split: dict[str, list[ImageFiles]]) -> list[Step]:
    """What is done with the round that counts, which is known once all are trained."""
    seen, views = split["train"] + split["val"], options.views

    def detect() -> str:
        folder = detections_folder(options.save_dir)
        told = detect_training(options, seen, choose_round(options), folder)
        return told + better_round(options)

    def test() -> str:
        return test_round(options, choose_round(options))

    def pictures() -> str:
        return pictures_of(options, choose_round(options))

    detecting = inference_work(split["train"], options, views)
    testing = inference_work(split["val"] + split["test"], options, views)
    place = Path()
    found = result_paths(detections_folder(place), [files.name for files in seen])
    images = [files.name for files in split["test"]]
    tested = [
        *result_paths(detections_folder(place), images),
        *result_paths(results_folder(place), images),
        selection_path(place),
    ]
    album = album_paths(pictures_folder(place), FIGURES)
    return [
        Step("detect", detect, detecting, together=True, writes=found),
        Step("test", test, testing, together=True, writes=tested),
        Step("pictures", pictures, writes=album),
    ]
