"""Instance maps of other tools: images, .npy, .mat; one mask for each nucleus; ROIs of Fiji."""

import re
import zipfile
from pathlib import Path
from types import ModuleType

import numpy as np
import scipy.io

from code_common.annotations.choice import ALL, Choice, plane_name
from code_common.annotations.geometry import Annotations, count_pieces, filled, ring
from code_common.annotations.text import MAX_BYTES, check_file, of_macos
from code_common.errors import InputError, reason
from code_common.files.image_kinds import IMAGE_SUFFIXES
from code_common.files.images import (
    check_instances,
    covers_tile,
    read_label,
    which_of_several,
)

ARRAYS = (".npy", ".mat", *IMAGE_SUFFIXES)  # suffixes of instance maps
ROIS = (".zip", ".roi")
_NUCLEI = 3  # pieces of a mask that are no longer one nucleus
_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


def read_array(
    path: Path, shape: tuple[int, int], image: Path | None = None, choice: Choice = ALL
) -> np.ndarray:
    """Instance map int32 [H, W] of an image file, .npy, or .mat with inst_map (HoVer-Net).

    image: the image it belongs to; choice.plane: which map of a stack is read. Raises InputError
    where the file holds no ids, or one map, of which another plane than the first is asked for.
    """
    check_file(path)
    suffix = path.suffix.lower()
    if suffix in IMAGE_SUFFIXES:
        plane = choice.plane[0] if choice.plane and len(choice.plane) == 1 else None
        which = which_of_several(path)
        if plane is None and which:
            raise InputError(f"{path}: several maps ({which}); expected one, or --plane N")
        if not which:
            _refuse_plane(path, choice.plane)
        array = read_label(path, shape, image, plane)
    else:
        array = _plane_of(path, _read_numbers(path), shape, choice.plane)
    if not isinstance(array, np.ndarray) or array.shape != tuple(shape):
        actual = getattr(array, "shape", "no array")
        hint = " (it looks rotated)" if actual == tuple(shape)[::-1] else ""
        raise InputError(f"{path}: {actual}; expected an instance map of {tuple(shape)}{hint}")
    kind = array.dtype.kind
    whole = kind in "iub" or (kind == "f" and np.isfinite(array).all() and (array % 1 == 0).all())
    if not whole:
        raise InputError(f"{path}: expected whole numbers from 0, one id per nucleus")
    check_instances(array, path)
    if array.max() > np.iinfo(np.int32).max:
        raise InputError(
            f"{path}: expected whole numbers from 0 to {np.iinfo(np.int32).max}, one id per nucleus"
        )
    return array.astype(np.int32)


def _refuse_plane(path: Path, plane: tuple[int, ...] | None) -> None:
    """Raise InputError where another plane than the first is asked for of a file of one map."""
    if any(number != 1 for number in plane or ()):
        raise InputError(f"{path}: one map, no stack; --plane {plane_name(plane)} is not in it")


def _plane_of(
    path: Path, array: np.ndarray, shape: tuple[int, int], plane: tuple[int, ...] | None
) -> np.ndarray:
    """The map of a plane, from 1, of a stack [Z, H, W]; what is none stays as it is."""
    if isinstance(array, np.ndarray) and array.shape in (tuple(shape), (*shape, 1)):
        _refuse_plane(path, plane)
        return array.reshape(shape)
    if not isinstance(array, np.ndarray) or array.ndim != 3 or array.shape[1:] != tuple(shape):
        return array
    number = plane or ((1,) if len(array) == 1 else ())
    if len(number) != 1 or not 1 <= number[0] <= len(array):
        given = f", not --plane {plane_name(plane)}" if plane else ""
        raise InputError(
            f"{path}: a stack of {len(array)} maps; expected --plane 1 to {len(array)}{given}"
        )
    return array[number[0] - 1]


def _read_numbers(path: Path) -> np.ndarray:
    """The array of a .npy or .mat file."""
    suffix = path.suffix.lower()
    try:
        if suffix == ".mat":
            return scipy.io.loadmat(path, variable_names=["inst_map"])["inst_map"]
        return np.load(path)  # refuses pickled objects
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except KeyError:
        raise InputError(f"{path}: no variable inst_map in it") from None
    except Exception as error:  # a broken file raises almost anything
        if path.name.lower().endswith("_seg.npy") and "pickle" in str(error):
            raise InputError(
                f"{path}: a pickle of Cellpose, which could run any program and is not read; in "
                "Cellpose use File > Save masks as PNG/tif, which gives NAME_cp_masks.png"
            ) from None
        why = "no array of numbers" if "pickle" in str(error) else reason(error)
        raise InputError(f"{path}: not a readable {suffix} file ({why})") from None


def is_of_a_system(name: str) -> bool:
    """Whether a file is one that Windows or macOS leaves in folders of images."""
    return name.startswith(".") or name.lower() in ("thumbs.db", "desktop.ini")


def read_mask_folder(folder: Path, shape: tuple[int, int]) -> Annotations:
    """One image for each nucleus, 0 outside of it, as in the Data Science Bowl 2018."""
    annotations = Annotations(shape=shape)
    files = [path for path in sorted(folder.iterdir()) if not is_of_a_system(path.name)]
    masks = [path for path in files if path.suffix.lower() in IMAGE_SUFFIXES]
    if len(masks) < len(files):
        others = [path for path in files if path not in masks]
        raise InputError(f"{others[0]}: no image; expected one mask for each nucleus in {folder}")
    for path in masks:
        mask = read_label(path, shape) != 0
        pixels = np.argwhere(mask)
        if covers_tile(mask):
            raise InputError(
                f"{path}: {mask.mean():.0%} of it is not 0; expected one nucleus, and 0 around it"
            )
        pieces = count_pieces(mask)
        if pieces >= _NUCLEI:
            raise InputError(f"{path}: {pieces} pieces; expected one nucleus, and 0 around it")
        annotations.add_mask(pixels)
    return annotations


def read_rois(path: Path, choice: Choice = ALL) -> Annotations:
    """Regions of interest of ImageJ and Fiji, one (.roi) or many (.zip), through roifile."""
    try:
        import roifile
    except ImportError:
        raise InputError(f"{path}: ROIs of Fiji need roifile (pip install roifile)") from None
    try:
        packed = _entries(path) if path.suffix.lower() == ".zip" else [path.read_bytes()]
        rois = [roifile.ImagejRoi.frombytes(data) for data in packed]
        return _of_rois(path, rois, roifile, choice)
    except InputError:
        raise
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except Exception as error:  # a broken file raises almost anything
        raise InputError(f"{path}: not readable as ROIs of Fiji ({reason(error)})") from None


def _entries(path: Path) -> list[bytes]:
    """The .roi files in an archive, without those that macOS adds. Raises InputError."""
    with zipfile.ZipFile(path) as archive:
        entries = [entry for entry in archive.infolist() if not entry.is_dir()]
        if sum(entry.file_size for entry in entries) > MAX_BYTES:
            raise InputError(f"{path}: larger than {MAX_BYTES >> 20} MiB")
        rois = [entry for entry in entries if entry.filename.lower().endswith(".roi")]
        if entries and not rois:
            raise InputError(f"{path}: neither ROIs of Fiji nor GeoJSON, JSON or XML in it")
        return [archive.read(entry) for entry in rois if not of_macos(entry.filename)]


def _of_rois(path: Path, rois: list, roifile: ModuleType, choice: Choice) -> Annotations:
    annotations, kinds, subtypes = Annotations(), roifile.ROI_TYPE, roifile.ROI_SUBTYPE
    areas = (kinds.POLYGON, kinds.RECT, kinds.OVAL, kinds.FREEHAND, kinds.TRACED)
    of_cellpose = path.stem.lower().endswith("_rois")
    for roi in rois:
        if roi.roitype == kinds.POINT:
            # Whole numbers name pixels; fractions count from the corner.
            half = 0.5 if roi.subpixel_coordinates is None else 0.0
            places = ring(path, roi.coordinates()) + half
            for place, plane in zip(places.tolist(), _planes_of_points(roi), strict=True):
                if annotations.takes(choice, [], plane):
                    annotations.points.append(tuple(place))
        elif not annotations.takes(choice, [], _plane(roi)):
            continue
        elif roi.subtype in (subtypes.TEXT, subtypes.IMAGE):
            annotations.left_out[f"ROI of type {roi.subtype.name.lower()}"] += 1
        elif of_cellpose and _through_middles(roi):
            annotations.masks.append(filled(path, ring(path, roi.coordinates())))
        elif roi.roitype in areas:
            rings = [ring(path, part) for part in roi.coordinates(multi=True)]
            annotations.add_outline([rings])
        else:
            annotations.left_out[f"ROI of type {roi.roitype.name.lower()}"] += 1
    return annotations


def _through_middles(roi: object) -> bool:
    """Whether an outline goes through the middles of its outermost pixels, as Cellpose's do.

    It writes whole numbers, and names that no hand would give (UUIDs).
    """
    whole = roi.subpixel_coordinates is None and len(roi.coordinates()) > 0
    return whole and bool(_UUID.fullmatch(roi.name or ""))


def _plane(roi: object) -> tuple[int, ...]:
    """The slice that a ROI belongs to, or its channel, z and t; () for one of all slices."""
    axes = roi.c_position, roi.z_position, roi.t_position
    if any(axes):
        return tuple(max(axis, 1) for axis in axes)
    return (roi.position,) if roi.position else ()


def _planes_of_points(roi: object) -> list[tuple[int, ...]]:
    """The slice of each point; a multi-point of a stack counts them for each."""
    count = len(roi.coordinates())
    slices = roi.counter_positions
    if slices is not None and len(slices) == count:
        return [(int(number),) if number else () for number in slices]
    return [_plane(roi)] * count
