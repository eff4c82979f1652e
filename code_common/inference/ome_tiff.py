"""Instance maps as files: TIFF or, where they are large, tiled OME-TIFF with a pyramid."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import tifffile

from code_common.files.writing import whole_file, write_instances
from code_common.inference.streaming import DiskMap

OME_TILE = 512


def write_label_map(path: Path, labels: DiskMap, mpp: float | None, large: bool) -> None:
    """Write an instance map as TIFF or, where it is large, as a tiled OME-TIFF with a pyramid."""
    if not large:
        write_instances(path, labels.read(0, 0, *labels.shape))
        return
    levels = max(0, int(np.ceil(np.log2(max(labels.shape) / 1024))))

    def tiles(step: int) -> Iterable[np.ndarray]:
        side = OME_TILE * step
        for row in range(0, labels.shape[0], side):
            for col in range(0, labels.shape[1], side):
                part = labels.read(row, col, side, side, step)
                full = np.zeros((OME_TILE, OME_TILE), labels.dtype)
                full[: part.shape[0], : part.shape[1]] = part
                yield full

    size = {"PhysicalSizeX": mpp, "PhysicalSizeXUnit": "µm"} if mpp else {}
    size |= {"PhysicalSizeY": mpp, "PhysicalSizeYUnit": "µm"} if mpp else {}
    with whole_file(path) as file, tifffile.TiffWriter(file, bigtiff=True, ome=True) as writer:
        for level in range(levels + 1):
            step = 2**level
            writer.write(
                tiles(step),
                shape=tuple(-(-n // step) for n in labels.shape),
                dtype=labels.dtype,
                tile=(OME_TILE, OME_TILE),
                compression="zlib",
                photometric="minisblack",
                subifds=levels if level == 0 else None,
                subfiletype=1 if level else 0,
                metadata={"axes": "YX", **size} if level == 0 else None,
            )
