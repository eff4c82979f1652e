"""Names of images: without suffixes, without what tools add to them, and those of masks."""

import re
from collections import Counter
from collections.abc import Collection, Sequence
from pathlib import Path
from unicodedata import normalize

from code_common.files.image_kinds import IMAGE_SUFFIXES, OTHER_SUFFIXES, SLIDE_SUFFIXES

CELLPOSE_OUTLINES = "_cp_outlines"  # how the names of its text files end
# What tools add to the name of the image, longest first.
ENDINGS = (
    CELLPOSE_OUTLINES,
    "_cp_masks",
    "_label_point",
    "_annotations",
    "_instances",
    "-labelled",
    "_outlines",
    "_roiset",
    "_points",
    "_nuclei",
    "_labels",
    "-labels",
    "_label",
    "_masks",
    "_mask",
    "-mask",
    "_rois",
    "_seg",
)
_SUFFIXES = "|".join(map(re.escape, (".ome", *IMAGE_SUFFIXES, *SLIDE_SUFFIXES, *OTHER_SUFFIXES)))
_AT_THE_END = re.compile(rf"(?<=.)({_SUFFIXES})+\Z", re.IGNORECASE | re.DOTALL)
_COPY = re.compile(r"(?<=.) ?\(\d+\)\Z")  # what browsers add to the name of a second download


def stem(name: str) -> str:
    """File name without the suffix of an image: 'a.b.png' -> 'a.b', but 'a.b' -> 'a.b'."""
    path = Path(name)
    return path.stem if path.suffix.lower() in IMAGE_SUFFIXES else path.name


def plain_name(name: str) -> str:
    """A name in composed letters, without what is the suffix of any image: 'T.ome.tif' -> 'T'.

    Whatever else stands behind a dot is a part of the name: 'T.7' -> 'T.7'.
    """
    return _AT_THE_END.sub("", normalize("NFC", name))


def without_copy(name: str) -> str:
    """A name without the number that a browser adds: 'T_points (1)' -> 'T_points'."""
    return _COPY.sub("", name)


def without_ending(name: str) -> str:
    """A name without the first of the ENDINGS that it has, in capitals or not."""
    for ending in ENDINGS:
        if name.lower().endswith(ending) and len(name) > len(ending):
            return name[: -len(ending)]
    return name


def names_meant(name: str) -> list[str]:
    """The names of images that a file of this stem may belong to, the likeliest first."""
    names = [name, plain_name(name)]
    names += [without_ending(name) for name in names]
    first = without_copy(name)
    return list(dict.fromkeys(names if first == name else names + names_meant(first)))


class Names:
    """Which of some images a name is of."""

    def __init__(self, images: Collection[str]):
        """images: names without the suffix of the image."""
        plain = Counter(map(plain_name, images))
        self._images = {plain_name(name): name for name in images if plain[plain_name(name)] == 1}
        self._images |= {normalize("NFC", name): name for name in images}

    def find(self, name: str) -> str | None:
        """The image that is called so or, without suffixes, nearly so; None: none, or several."""
        name = normalize("NFC", name)
        keys = name, stem(name), plain_name(name)
        return next((self._images[key] for key in keys if key in self._images), None)


def masks_among(files: Sequence[Path]) -> list[Path]:
    """The images that are named as the masks of another one: `T_mask.png`, where `T.png` is."""
    images = Names([file.stem for file in files])
    return [
        file
        for file in files
        if file.suffix.lower() in IMAGE_SUFFIXES
        and without_copy(file.stem).lower().endswith(ENDINGS)
        and any(images.find(name) not in (None, file.stem) for name in names_meant(file.stem))
    ]
