"""The pictures of a run: panels with a word each, one figure after the other, for the report."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from code_common.errors import InputError
from code_common.files.reading import read_image, read_json
from code_common.files.writing import write_json, write_png

INDEX = "figures.json"
GAP, BAND = 8, 26  # pixels between panels, and above each for its word


@dataclass(frozen=True)
class Panel:
    """A picture [H, W, 3] uint8 and what it shows, in a few words."""

    label: str
    image: np.ndarray


@dataclass(frozen=True)
class Figure:
    """Panels side by side, under a title and over a caption that says how to read them."""

    name: str
    title: str
    caption: str
    panels: Sequence[Panel]


def write_album(folder: Path, figures: Iterable[Figure]) -> int:
    """Write each panel as a PNG and figures.json, which lists them; returns how many figures."""
    index = []
    for figure in figures:
        files = []
        for k, panel in enumerate(figure.panels, 1):
            files.append({"file": f"{figure.name}_{k}.png", "label": panel.label})
            write_png(folder / files[-1]["file"], panel.image)
        index.append(
            {"name": figure.name, "title": figure.title, "caption": figure.caption, "panels": files}
        )
    write_json(folder / INDEX, index)
    return len(index)


def read_album(folder: Path) -> list[Figure]:
    """The figures of a folder, none where there is no album. Raises InputError for another file."""
    path = folder / INDEX
    if not path.is_file():
        return []
    try:
        return [
            Figure(
                own["name"], own["title"], own["caption"],
                [Panel(p["label"], read_image(folder / Path(p["file"]).name))
                 for p in own["panels"]],
            )
            for own in read_json(path)
        ]  # fmt: skip
    except (KeyError, TypeError):
        raise InputError(f"{path}: no list of figures") from None


def strip(panels: Sequence[Panel], height: int) -> np.ndarray:
    """The panels in one row, each `height` pixels high under its word: RGB."""
    scaled = [shrink(p.image, height, by_height=True) for p in panels]
    width = sum(s.shape[1] for s in scaled) + GAP * (len(panels) - 1)
    sheet = Image.new("RGB", (width, height + BAND), "white")
    draw, x = ImageDraw.Draw(sheet), 0
    sizes = [ImageFont.load_default(size) for size in range(15, 8, -1)]
    room = [image.shape[1] - 4 for image in scaled]
    fits = [f for f in sizes if all(draw.textlength(p.label, f) <= w
                                    for p, w in zip(panels, room, strict=True))]  # fmt: skip
    font = (fits or sizes[-1:])[0]  # the largest in which every word stays over its panel
    for panel, image in zip(panels, scaled, strict=True):
        draw.text((x + 2, BAND - 8), panel.label, "#222222", font, anchor="ls")
        sheet.paste(Image.fromarray(image), (x, BAND))
        x += image.shape[1] + GAP
    return np.asarray(sheet)


def shrink(image: np.ndarray, side: int, by_height: bool = False) -> np.ndarray:
    """The picture with its longer side (or its height) of `side` pixels; `by_height` also grows."""
    h, w = image.shape[:2]
    scale = side / (h if by_height else max(h, w))
    if scale == 1 or (scale > 1 and not by_height):
        return image
    size = max(1, round(w * scale)), max(1, round(h * scale))
    return cv2.resize(image, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC)


def middle(shape: tuple[int, int], side: int) -> tuple[slice, slice]:
    """The central window of at most `side` x `side` pixels."""
    starts = [max(0, (n - side) // 2) for n in shape]
    return tuple(slice(s, min(n, s + side)) for s, n in zip(starts, shape, strict=True))
