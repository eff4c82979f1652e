"""The resolution that an image file states."""

import re
from pathlib import Path
from xml.etree import ElementTree

import tifffile

from code_common.files import pillow_formats
from code_common.files.image_kinds import MICROSCOPES, image_kind
from code_common.files.tiff import choose_pages, opened_tiff

_INCH = 25_400  # microns
_AXES = {"X": 282, "Y": 283}  # and their TIFF tags
_MICRONS = {"nm": 1e-3, "um": 1, "micron": 1, "microns": 1, "micrometer": 1, "micrometers": 1,
            "mm": 1e3, "cm": 1e4, "m": 1e6, "inch": _INCH, "in": _INCH}  # fmt: skip


def read_mpp(path: Path) -> tuple[float | None, float | None]:
    """Microns per pixel along x and y that an image file states; None where it does not.

    None also where the number is none of a microscope: below 0.02 or above 20. Raises InputError
    if the file is no image or is broken.
    """
    path = Path(path)
    kind = image_kind(path)
    if kind == "TIFF":
        with opened_tiff(path) as tiff:
            page = choose_pages(path, tiff)[0][0][0]
            x, y = (_tiff_mpp(page, axis) for axis in _AXES)
    else:
        x, y = (_INCH / dpi if dpi else None for dpi in pillow_formats.stated_dpi(path, kind))
    return plausible(x), plausible(y)


def plausible(mpp: float | None) -> float | None:
    """Microns per pixel, or None where that number is none of a microscope."""
    lowest, highest = MICROSCOPES
    return mpp if mpp and lowest <= mpp <= highest else None


def _tiff_mpp(page: tifffile.TiffPage, axis: str) -> float | None:
    """Microns per pixel by a page's description, which is more exact, or by its tags."""
    text, per_unit = page.description or "", _pixels_per_unit(page, axis)
    by_ome = _ome_mpp(text, axis) if page.is_ome else None
    if by_ome:
        return by_ome
    unit = re.search(r"^unit=(.*)$", text, re.MULTILINE)
    if text.startswith("ImageJ=") and unit:
        return _in_microns(1 / per_unit, unit[1]) if per_unit else None
    by_aperio = re.search(r"\bMPP ?= ?(\d*\.?\d+)", text)
    if by_aperio:
        return float(by_aperio[1])
    unit = {2: "inch", 3: "cm"}.get(page.tags.valueof(296, 2))
    return _in_microns(1 / per_unit, unit) if unit and per_unit else None


def _pixels_per_unit(page: tifffile.TiffPage, axis: str) -> float:
    """The tag XResolution or YResolution, a fraction; 0 if it is missing or broken."""
    value = page.tags.valueof(_AXES[axis])
    if not isinstance(value, tuple) or len(value) != 2 or not value[1]:
        return 0
    return value[0] / value[1]


def _ome_mpp(xml: str, axis: str) -> float | None:
    """PhysicalSizeX or PhysicalSizeY of the first image, in microns; None if it is not there."""
    try:
        elements = ElementTree.fromstring(xml).iter()
        pixels = next(e for e in elements if e.tag.rpartition("}")[2] == "Pixels")
        size = float(pixels.get(f"PhysicalSize{axis}", "nan"))
    except (ElementTree.ParseError, StopIteration, ValueError):
        return None
    return _in_microns(size, pixels.get(f"PhysicalSize{axis}Unit", "um")) if size > 0 else None


def _in_microns(size: float, unit: str) -> float | None:
    """A length in microns, or None if its unit is none, such as 'pixel'."""
    unit = unit.strip().replace("\\u00B5", "u").replace("\u00b5", "u").replace("\u03bc", "u")
    factor = _MICRONS.get(unit.lower())
    return size * factor if factor else None
