"""Instance maps of other tools: images, .npy, .mat; one mask for each nucleus; ROIs of Fiji."""

import zipfile
from pathlib import Path

import cv2
import numpy as np
import scipy.io

from code_common.errors import InputError, reason
from code_common.files.image_kinds import IMAGE_SUFFIXES
from code_common.files.images import read_label
from data.annotations.geometry import Annotations, ring
from data.annotations.text import MAX_BYTES

ARRAYS = (".npy", ".mat", *IMAGE_SUFFIXES)  # suffixes of instance maps
ROIS = (".zip", ".roi")
_CLASSES = 10  # a class map has no more values than this
_SPECK = 0.1  # of the largest component; smaller ones are not counted


def read_array(path: Path, shape: tuple[int, int], image: Path | None = None) -> np.ndarray:
    """Instance map int32 [H, W] of an image file, .npy, or .mat with inst_map (HoVer-Net).

    image: the image it belongs to. Raises InputError where the file holds no ids.
    """
    suffix = path.suffix.lower()
    if suffix in IMAGE_SUFFIXES:
        array = read_label(path, shape, image)
    else:
        array = _read_numbers(path)
    if not isinstance(array, np.ndarray) or array.shape != tuple(shape):
        actual = getattr(array, "shape", "no array")
        hint = " (it looks rotated)" if actual == tuple(shape)[::-1] else ""
        raise InputError(f"{path}: {actual}; expected an instance map of {tuple(shape)}{hint}")
    kind = array.dtype.kind
    whole = kind in "iub" or (kind == "f" and np.isfinite(array).all() and (array % 1 == 0).all())
    if not whole:
        raise InputError(f"{path}: expected whole numbers from 0, one id per nucleus")
    if array.min() < 0 or array.max() > np.iinfo(np.int32).max:
        raise InputError(
            f"{path}: expected whole numbers from 0 to {np.iinfo(np.int32).max}, one id per nucleus"
        )
    instances = array.astype(np.int32)
    check_ids(path, instances)
    return instances


def check_ids(path: Path, instances: np.ndarray) -> None:
    """Raise InputError for a map [H, W] in which nuclei share a value: a binary or a class map."""
    ids = np.unique(instances)
    ids = ids[ids > 0]
    if not 0 < len(ids) <= _CLASSES:
        return
    areas = [
        cv2.connectedComponentsWithStats((instances == k).astype(np.uint8))[2][1:, cv2.CC_STAT_AREA]
        for k in ids
    ]
    sizes = np.concatenate(areas)
    if len(ids) == 1 and ids[0] in (1, 255, 65535) and len(sizes) > 1:
        raise InputError(
            f"{path}: a binary mask ({len(sizes)} components share the value {ids[0]}); "
            "expected one id per nucleus"
        )
    components = int((sizes >= _SPECK * sizes.max()).sum())
    if components >= 2 * len(ids) and components >= len(ids) + 2 and ids[-1] <= 255:
        values = ", ".join(map(str, ids))
        raise InputError(
            f"{path}: it looks like a map of classes ({components} components share the values "
            f"{values}); expected one id per nucleus"
        )


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
        raise InputError(f"{path}: not a readable {suffix} file ({reason(error)})") from None


def read_mask_folder(folder: Path, shape: tuple[int, int]) -> Annotations:
    """One image for each nucleus, 0 outside of it, as in the Data Science Bowl 2018."""
    annotations = Annotations(shape=shape)
    for path in sorted(folder.iterdir()):
        if path.suffix.lower() not in IMAGE_SUFFIXES or path.name.startswith("."):
            continue
        pixels = np.argwhere(read_label(path, shape))
        if len(pixels):
            annotations.masks.append(pixels)
        else:
            annotations.left_out["empty mask"] += 1
    return annotations


def read_rois(path: Path) -> Annotations:
    """Regions of interest of ImageJ and Fiji, one (.roi) or many (.zip), through roifile."""
    try:
        import roifile
    except ImportError:
        raise InputError(f"{path}: ROIs of Fiji need roifile (pip install roifile)") from None
    try:
        if path.suffix.lower() == ".zip":
            with zipfile.ZipFile(path) as archive:
                entries = archive.infolist()
            if sum(entry.file_size for entry in entries) > MAX_BYTES:
                raise InputError(f"{path}: larger than {MAX_BYTES >> 20} MiB")
            names = [entry.filename for entry in entries if not entry.is_dir()]
            if not names:
                return Annotations()
            if not any(name.lower().endswith(".roi") for name in names):
                raise InputError(f"{path}: no .roi in it; expected ROIs of Fiji")
        rois = roifile.roiread(path)
        rois = rois if isinstance(rois, list) else [rois]
        return _of_rois(path, rois, roifile.ROI_TYPE)
    except InputError:
        raise
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except Exception as error:  # a broken file raises almost anything
        raise InputError(f"{path}: not readable as ROIs of Fiji ({reason(error)})") from None


def _of_rois(path: Path, rois: list, kinds: type) -> Annotations:
    annotations = Annotations()
    areas = (kinds.POLYGON, kinds.RECT, kinds.OVAL, kinds.FREEHAND, kinds.TRACED)
    for axis in ("position", "c_position", "z_position", "t_position"):
        slices = {getattr(roi, axis) for roi in rois} - {0}  # 0: of no slice
        if len(slices) > 1:
            raise InputError(f"{path}: ROIs of {len(slices)} slices; expected those of one image")
    for roi in rois:
        if roi.roitype in areas:
            rings = [ring(path, part) for part in roi.coordinates(multi=True)]
            annotations.add_outline([rings])
        elif roi.roitype == kinds.POINT:
            # Whole numbers name pixels; fractions count from the corner.
            half = 0.5 if roi.subpixel_coordinates is None else 0.0
            places = ring(path, roi.coordinates()) + half
            annotations.points += [tuple(place) for place in places.tolist()]
        else:
            annotations.left_out[f"ROI of type {roi.roitype.name.lower()}"] += 1
    return annotations
