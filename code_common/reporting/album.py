"""The figures of a run: labelled pictures side by side, saved for its report."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from code_common.files.images import read_image
from code_common.files.reading import read_json
from code_common.files.writing import write_json, write_png

INDEX = "figures.json"  # lists the figures of a folder
MOST_PANELS = 40  # of a figure
_WORDS = dict.fromkeys(("name", "title", "caption"), str)
FIGURE = {**_WORDS, "panels": [{"file": str, "label": str}]}  # an entry of it
GAP, BAND = 8, 26  # pixels between panels, and above each panel for its label
FONT_SIZES = range(15, 8, -1)


@dataclass(frozen=True)
class Panel:
    """A picture [H, W, 3] uint8, and a few words that say what it shows."""

    label: str
    image: np.ndarray


@dataclass(frozen=True)
class Figure:
    """Panels side by side, with a title and a caption that says how to read them."""

    name: str
    title: str
    caption: str
    panels: Sequence[Panel]


def write_album(folder: Path, figures: Iterable[Figure]) -> int:
    """Write each panel as a PNG, and figures.json, which lists them. Returns how many figures."""
    index = []
    for figure in figures:
        panels = []
        for number, panel in enumerate(figure.panels, 1):
            path = _panel_path(folder, figure.name, number)
            write_png(path, panel.image)
            panels.append({"file": path.name, "label": panel.label})
        entry = {"name": figure.name, "title": figure.title, "caption": figure.caption}
        index.append({**entry, "panels": panels})
    write_json(folder / INDEX, index)
    return len(index)


def _panel_path(folder: Path, figure: str, number: int) -> Path:
    return folder / f"{figure}_{number}.png"


def album_paths(folder: Path, figures: Sequence[str]) -> list[Path]:
    """What `write_album` may write of figures by their names."""
    numbers = range(1, MOST_PANELS + 1)
    return [folder / INDEX, *(_panel_path(folder, f, n) for f in figures for n in numbers)]


def read_album(folder: Path) -> list[Figure]:
    """The figures of a folder; none where it has no figures.json.

    Raises InputError where figures.json is not of this project.
    """
    path = folder / INDEX
    if not path.is_file():
        return []
    return [_read_figure(folder, entry) for entry in read_json(path, [FIGURE])]


def _read_figure(folder: Path, entry: dict) -> Figure:
    panels = [
        Panel(panel["label"], read_image(folder / Path(panel["file"]).name))
        for panel in entry["panels"]
    ]
    return Figure(entry["name"], entry["title"], entry["caption"], panels)


def strip(panels: Sequence[Panel], height: int) -> np.ndarray:
    """The panels in one row, each `height` pixels high below its label: uint8 [H, W, 3]."""
    images = [_scaled(panel.image, height / panel.image.shape[0]) for panel in panels]
    widths = [image.shape[1] for image in images]
    font = _largest_font([panel.label for panel in panels], widths)
    sheet = Image.new("RGB", (sum(widths) + GAP * (len(panels) - 1), height + BAND), "white")
    draw, left = ImageDraw.Draw(sheet), 0
    for panel, image in zip(panels, images, strict=True):
        draw.text((left + 2, BAND - 8), panel.label, "#222222", font, anchor="ls")
        sheet.paste(Image.fromarray(image), (left, BAND))
        left += image.shape[1] + GAP
    return np.asarray(sheet)


def _largest_font(labels: Sequence[str], widths: Sequence[int]) -> ImageFont.FreeTypeFont:
    """The largest font in which each label is no wider than its panel; else the smallest."""
    for size in FONT_SIZES:
        font = ImageFont.load_default(size)
        if all(font.getlength(text) <= w - 4 for text, w in zip(labels, widths, strict=True)):
            break
    return font


def shrink(image: np.ndarray, side: int) -> np.ndarray:
    """The picture with its longer side reduced to `side` pixels; a smaller one stays as it is."""
    return _scaled(image, min(1, side / max(image.shape[:2])))


def _scaled(image: np.ndarray, scale: float) -> np.ndarray:
    if scale == 1:
        return image
    height, width = image.shape[:2]
    size = max(1, round(width * scale)), max(1, round(height * scale))
    return cv2.resize(image, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC)


def middle(shape: tuple[int, int], side: int) -> tuple[slice, slice]:
    """The central window of at most `side` x `side` pixels of an image [H, W]."""
    starts = [max(0, (length - side) // 2) for length in shape]
    rows, columns = (
        slice(start, min(length, start + side)) for start, length in zip(starts, shape, strict=True)
    )
    return rows, columns
