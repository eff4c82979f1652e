"""Instance maps as files: a TIFF or, for a large map, a tiled OME-TIFF with a pyramid."""

import hashlib
import uuid
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import tifffile

from code_common.files.writing import whole_file, write_instances
from code_common.inference.streaming import DiskMap

OME_TILE = 512  # side in pixels
_NAMESPACE = uuid.UUID("0d3a5d8e-0f0e-4a53-9a43-6f1c6c1f6f0b")
SMALLEST_LEVEL = 1024  # largest side in pixels of the pyramid's last level


def write_label_map(path: Path, labels: DiskMap, mpp: float | None, large: bool) -> None:
    """Write an instance map: a TIFF or, if `large`, a tiled OME-TIFF with a pyramid.

    mpp: microns per pixel, written into an OME-TIFF; None: unknown.
    """
    if not large:
        write_instances(path, labels.read(0, 0, *labels.shape))
        return
    levels = max(0, int(np.ceil(np.log2(max(labels.shape) / SMALLEST_LEVEL))))
    size = {"PhysicalSizeX": mpp, "PhysicalSizeXUnit": "µm"} if mpp else {}
    size |= {"PhysicalSizeY": mpp, "PhysicalSizeYUnit": "µm"} if mpp else {}
    # By its content, so that equal maps are equal files: tifffile's own tells time and machine.
    digest = hashlib.sha256(repr((labels.shape, mpp)).encode())
    for tile in _tiles(labels, 1):
        digest.update(tile)
    own_id = str(uuid.uuid5(_NAMESPACE, digest.hexdigest()))
    with whole_file(path) as file, tifffile.TiffWriter(file, bigtiff=True, ome=True) as writer:
        for level in range(levels + 1):
            step = 2**level
            writer.write(
                _tiles(labels, step),
                shape=tuple(-(-n // step) for n in labels.shape),
                dtype=labels.dtype,
                tile=(OME_TILE, OME_TILE),
                compression="zlib",
                photometric="minisblack",
                subifds=levels if level == 0 else None,
                subfiletype=1 if level else 0,
                metadata={"axes": "YX", "UUID": own_id, **size} if level == 0 else None,
            )


def _tiles(labels: DiskMap, step: int) -> Iterator[np.ndarray]:
    """The tiles [OME_TILE, OME_TILE] of every step-th row and column, row by row, padded with 0."""
    side = OME_TILE * step
    for row in range(0, labels.shape[0], side):
        for col in range(0, labels.shape[1], side):
            part = labels.read(row, col, side, side, step)
            tile = np.zeros((OME_TILE, OME_TILE), labels.dtype)
            tile[: part.shape[0], : part.shape[1]] = part
            yield tile
