"""The page in which detections are corrected: data/annotate.html with the images inside."""

import base64
import json
import math
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

from code_common.errors import InputError
from code_common.files.writing import printable, whole_file
from code_common.inference.slides import open_slide

TEMPLATE = Path(__file__).resolve().parents[1] / "data" / "annotate.html"
PLACE = b"<!-- predict.py puts images here -->\n"  # in the template
LARGEST = 4096  # side in pixels of an image that the page shows
MOST_BYTES = 200_000_000  # of a page, which a browser reads as a whole
QUALITY = 90  # of the JPEG images in it
DOUBTFUL = 0.1  # share of the detections to look at: those of lowest probability


class Found(NamedTuple):
    """What was found in an image; row, column in pixels of the file."""

    points: np.ndarray  # detections [N, 2]
    probs: np.ndarray  # their probability [N]
    candidates: np.ndarray  # places [M, 2] that nearly are detections
    candidate_probs: np.ndarray  # their probability [M]


def write_page(path: Path, images: dict[str, Path], found: dict[str, Found]) -> list[str]:
    """Write the page of some images; returns a line for each image that is not in it.

    images: name -> file; found: name -> what was found in it. Raises InputError with these lines
    where there is nothing to show.
    """
    before, after = TEMPLATE.read_bytes().split(PLACE)
    doubts, left_out = doubtful_places(found), []
    with whole_file(path) as page:
        page.write(before)
        for k, (name, file) in enumerate(images.items()):
            try:
                block = image_block(file.name, page_image(file), found[name].points, doubts[name])
            except InputError as error:
                left_out.append(str(error))
                continue
            if page.tell() + len(block) + len(after) > MOST_BYTES:
                left_out.append(
                    f"{path}: full at {MOST_BYTES // 10**6} MB; {len(images) - k} images are not "
                    f"in it, from {file.name} on: give these alone, when it is corrected and saved"
                )
                break
            page.write(block)
        if page.tell() == len(before):
            raise InputError("\nerror: ".join(left_out))
        page.write(after)
    return left_out


def doubtful_places(found: dict[str, Found]) -> dict[str, np.ndarray]:
    """The places [M, 2] of each image to look at, from top to bottom.

    These are, of all images together, the detections of lowest probability, and no more candidates
    than these, of highest probability.
    """
    each = found.values()
    count = math.ceil(DOUBTFUL * sum(len(own.points) for own in each))
    unsure = _smallest([own.probs for own in each], count)
    nearly = _smallest([-own.candidate_probs for own in each], count)
    places = {}
    for (name, own), low, high in zip(found.items(), unsure, nearly, strict=True):
        both = np.concatenate([own.points[low], own.candidates[high]])
        places[name] = both[np.lexsort(both.T[::-1])]
    return places


def _smallest(values: list[np.ndarray], count: int) -> list[np.ndarray]:
    """Masks [n] of the `count` smallest of all values, which are in several arrays [n]."""
    chosen = np.zeros(sum(map(len, values)), bool)
    chosen[np.argsort(np.concatenate(values), kind="stable")[:count]] = True
    return np.split(chosen, np.cumsum([len(own) for own in values])[:-1])


def page_image(path: Path) -> np.ndarray:
    """An image [H, W, 3] uint8 at the resolution of its file. Raises InputError if it is large."""
    with closing(open_slide(path, None, None)) as slide:
        if max(slide.shape) > LARGEST:
            raise InputError(
                f"{path}: too large to be corrected in a page, over {LARGEST} x {LARGEST} pixels; "
                "cut it into tiles"
            )
        return slide.read(0, 0, *slide.shape)


def image_block(file: str, image: np.ndarray, points: np.ndarray, doubts: np.ndarray) -> bytes:
    """An image as it stands in the page: JSON, in which no sign can end the script around it.

    file: its name; image [H, W, 3] uint8; points [N, 2] and doubts [M, 2]: row, column. In the page
    they are x, y from the corner of the first pixel, and within the image.
    """
    ok, jpeg = cv2.imencode(".jpg", image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, QUALITY])
    assert ok, f"cannot encode {image.shape} as JPEG"
    last = np.array(image.shape[:2]) - 1
    content = {
        "file": printable(file),
        "points": (np.minimum(points, last)[:, ::-1] + 0.5).tolist(),
        "doubts": (np.minimum(doubts, last)[:, ::-1] + 0.5).tolist(),
        "jpeg": base64.b64encode(jpeg).decode(),
    }
    text = json.dumps(content).replace("<", "\\u003c")
    return f'<script type="application/json" class="image">{text}</script>\n'.encode()
