"""What a first look at predictions tells: their numbers, and what is unlike the training.

The limits were chosen on real tiles, with a network of TNBC: docs/explanation/results.md.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from code_common.files.writing import printable
from code_common.inference.slides import tissue
from code_common.inference.trained_run import TrainedStage

FEW = 10  # nuclei, which say nothing
FAR = 1.6  # between two radii: that of nuclei at 20x and at 40x is 2
SURE = 0.8  # probability of a nucleus: on tiles like those of the training one in twenty has less
MOST_UNSURE = 1 / 3  # share of the nuclei that have less
# Largest distance of the tissue's mean colour from that of the training images, in deviations of
# the training images' pixels.
MOST_DEVIATIONS = 1.6
COLOUR_SIDE = 500  # pixels
LINES = 20  # of the table on the screen
FORMS = {"nuclei": "{:7.0f}", "radius": "{:7.1f}", "unsure": "{:7.1%}"}
MEND = "look at the overlay: where it is wrong, annotate some tiles and train"


def unsure_share(probs: Sequence[float] | np.ndarray) -> float:
    """Share of the nuclei whose probability [N] is under SURE; 0 without any."""
    return float(np.mean(np.asarray(probs) < SURE)) if len(probs) else 0.0


def unlike_in_colour(picture: np.ndarray, stage: TrainedStage) -> list[str]:
    """A line if the tissue on a picture uint8 [h, w, 3] has other colours than the training."""
    step = -(-max(picture.shape) // COLOUR_SIDE)  # a mean colour needs no more pixels
    picture = np.ascontiguousarray(picture[::step, ::step])
    pixels = picture[tissue(picture)]
    if not len(pixels):
        return []
    mean, std = (of.flatten().cpu().numpy() for of in (stage.network.mean, stage.network.std))
    away = np.abs(pixels.mean(0) / 255 - mean) / np.maximum(std, 1e-3)
    if away.max() <= MOST_DEVIATIONS:
        return []
    return [f"its colours are far from those of the training images; {MEND}"]


def unlike_in_size(areas: Sequence[float], radius: float) -> list[str]:
    """A line if nuclei of these areas [N] in square pixels, as the image was read, are far from
    the size that the model was trained on: `radius` in pixels.
    """
    found = np.sqrt(np.median(areas) / np.pi) if len(areas) >= FEW else radius
    if 1 / FAR < found / radius < FAR:
        return []
    size = "much smaller" if found < radius else "much larger"
    return [
        f"nuclei are {size} than the model was trained on (radius {radius:g} px); look at the "
        "overlay, and give --mpp if the image has another resolution"
    ]


def unsure(probs: Sequence[float]) -> list[str]:
    """A line if many nuclei have a low probability; probs: [N]."""
    if len(probs) < FEW or unsure_share(probs) <= MOST_UNSURE:
        return []
    return [f"over a third of its nuclei have a probability under {SURE:g}; {MEND}"]


def first_look(rows: Mapping[str, Mapping[str, float]]) -> list[str]:
    """A table of the first images on the screen. rows: image -> column of summary.csv -> value.

    'radius' is the median in pixels as the image was read, 'unsure' a share of the nuclei.
    """
    names = sorted(rows)[:LINES]
    columns = [c for c in FORMS if any(c in rows[name] for name in names)]
    shown = [printable(name) for name in names]
    wide = max(map(len, ["image", *shown]))
    lines = ["  ".join(["image".ljust(wide), *(c.rjust(7) for c in columns)])]
    for name, title in zip(names, shown, strict=True):
        cells = (FORMS[column].format(rows[name][column]) for column in columns)
        lines.append("  ".join([title.ljust(wide), *cells]))
    more = len(rows) - len(names)
    return [*lines, *([f"... and {more} more images: summary.csv"] if more else [])]
