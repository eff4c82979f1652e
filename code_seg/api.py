"""Nuclei of images that are arrays, for notebooks and programs: no files, no command line.

from code_seg.api import detect, load_model, segment

model = load_model("mine.pt")               # or the folder of a run
instances = segment(image, model)           # image: uint8 RGB [H, W, 3]
points, probs = detect(image, model)
"""

from dataclasses import dataclass, fields
from numbers import Integral
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from code_common.config import check_bounds, check_choices, flag_of
from code_common.errors import InputError
from code_common.inference.prediction import detect_slide
from code_common.inference.slides import Slide
from code_common.inference.tiling import reader
from code_common.inference.trained_run import TrainedStage, load_trained_run
from code_common.launch import choose_device, tiling_of
from code_common.options import PACKAGED, InferenceOptions, PredictInference, check_inference
from code_seg.options import METHODS
from code_seg.segmenter import empty_map, make_segmenter, nuclei_of_points, numbered


@dataclass(frozen=True)
class Model:
    """A trained run on its device, and how its networks are run."""

    path: Path
    stages: dict[str, TrainedStage]
    inference: InferenceOptions


def load_model(path: Path | str = PACKAGED, inference: InferenceOptions | None = None) -> Model:
    """A run's folder (.../repeat_1), or the file that it was exported to; the project's own model
    where none is given.

    inference: tile, views, device and the like; None: the defaults of predict.py. Raises InputError
    where the path holds something else, and for what predict.py would refuse.
    """
    if not isinstance(path, (str, Path)):
        raise InputError(f"expected the path of a model, not {path!r}")
    inference, path = inference or PredictInference(), Path(path)
    _check(inference)
    return Model(path, load_trained_run(path, choose_device(inference)), inference)


def segment(
    image: np.ndarray,
    model: Model,
    points: np.ndarray | None = None,
    instances: str = "auto",
    only_points: bool = False,
) -> np.ndarray:
    """The nuclei of an image uint8 [H, W, 3]: instance map int32 [H, W], 0 background, 1 to N.

    It is the map that code_seg/predict.py writes. points [N, 2] (row, column): each gets a nucleus
    of its own where there is one, as with --points, also those in neighbouring pixels; of several
    in one pixel one counts. None: the detections divide nuclei. only_points
    leaves out nuclei without one of these points. instances: components, points, convex, or auto:
    what the validation images chose. Raises InputError for an image or points of another form,
    and where the model lacks what is needed.
    """
    _refuse_no_model(model)
    slide, device = _as_slide(image), choose_device(model.inference)
    if instances not in ("auto", *METHODS):
        raise InputError(f"instances must be one of auto, {', '.join(METHODS)}, not {instances!r}")
    if only_points and points is None:
        raise InputError("only_points: give points, too")
    if points is not None:
        points = _inside(points, slide.shape)
    tiling = tiling_of(model.inference, device)
    detects = points is None
    segmenter = make_segmenter(model.stages, model.path, instances, tiling, "all", detects)
    with TemporaryDirectory() as folder:
        work = Path(folder)
        probs, points = segmenter.maps(slide, work, "", points)
        labels = empty_map(work / "labels.u32", slide.shape)
        if detects:
            parts = segmenter.nuclei(probs, points, labels, work)
        else:
            found = nuclei_of_points(segmenter, probs, points, work)
            parts = numbered(found.parts(only_points), labels)
        for _ in parts:
            pass  # it writes each part into `labels`
        return labels.read(0, 0, *slide.shape).astype(np.int32)


def detect(image: np.ndarray, model: Model) -> tuple[np.ndarray, np.ndarray]:
    """The detections in an image uint8 [H, W, 3]: points [N, 2] (row, column), probabilities [N].

    They are those that code_detection/predict.py writes. Raises InputError for an image of another
    form, and where the model has no detector.
    """
    _refuse_no_model(model)
    slide, device = _as_slide(image), choose_device(model.inference)
    if "detection" not in model.stages:
        raise InputError(f"{model.path}: holds no detector")
    tiling = tiling_of(model.inference, device)
    with TemporaryDirectory() as folder:
        return detect_slide(model.stages["detection"], slide, Path(folder), "", tiling, None)


def _refuse_no_model(model: Model) -> None:
    """Raise InputError where a model is, say, the path of one."""
    if not isinstance(model, Model):
        raise InputError(f"expected a model of load_model, not {model!r}")


def _check(inference: InferenceOptions) -> None:
    """Raise InputError for a value of another kind, or out of the bounds of the command line."""
    if not isinstance(inference, InferenceOptions):
        raise InputError(f"inference must be PredictInference(...), not {inference!r}")
    for field in fields(InferenceOptions):
        kind, value = type(field.default), getattr(inference, field.name)
        if not isinstance(value, Integral if kind is int else kind) or isinstance(value, bool):
            raise InputError(f"{flag_of(field.name)} must be {kind.__name__}, not {value!r}")
    check_bounds(inference, InferenceOptions.BOUNDS)
    check_inference(inference)
    check_choices(inference, InferenceOptions.INFERENCE_CHOICES)


def _as_slide(image: np.ndarray) -> Slide:
    """An image in memory as a slide; InputError unless it is uint8 [H, W, 3] and not empty, and of
    a range that can be one.
    """
    if isinstance(image, np.ma.MaskedArray):
        raise InputError("expected an image without a mask; fill it (image.filled(255))")
    is_image = isinstance(image, np.ndarray) and image.dtype == np.uint8
    if not is_image or image.shape[2:] != (3,) or not image.size:
        form = f"{getattr(image, 'dtype', type(image).__name__)} {getattr(image, 'shape', '')}"
        raise InputError(f"expected an image uint8 [H, W, 3], not {form}")
    if image.max() == 1:
        raise InputError("expected an image of 0 to 255, not of 0 and 1; multiply it by 255 first")
    return Slide(image.shape[:2], reader(image), None, 1.0, None)


def _inside(points: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Points [N, 2] as different whole pixels of an image [H, W].

    Raises InputError for an array of another form, and where one lies outside.
    """
    if isinstance(points, np.ma.MaskedArray):
        raise InputError("expected points without a mask; take those that count")
    try:
        points = np.asarray(points)
    except ValueError:  # lists of different lengths
        raise InputError("expected points [N, 2] (row, column), not a ragged list") from None
    if not points.size and points.ndim == 1:  # []
        points = np.zeros((0, 2))
    if points.shape[1:] != (2,) or points.dtype.kind not in "iuf":
        raise InputError(
            f"expected points [N, 2] (row, column), not {points.dtype} {list(points.shape)}"
        )
    if not ((points >= 0) & (points < shape)).all():  # nan is not
        raise InputError(f"a point outside of the image of {shape[0]} rows, {shape[1]} columns")
    return np.unique(np.floor(points).astype(np.int64), axis=0)
