"""The samples of one page of a TIFF, read in parts.

Memory holds the strips or tiles that a part touches. A file that was cut off is refused: tifffile
would fill what is missing with zeros.
"""

import math
from collections import OrderedDict
from pathlib import Path
from typing import BinaryIO

import numpy as np
import tifffile
from PIL import Image

from code_common.files.image_kinds import Undecoded, check_memory, silent_libraries
from code_common.files.tiff_codecs import is_aperio_ycbcr, lossy_name, segment_decoder

_CUT_OFF = "strips or tiles are missing; was the file cut off?"
_CACHE_BYTES = 1 << 28  # of decoded strips or tiles


class PageSamples:
    """The samples [H, W, S] of a page, as they are stored; YCbCr has become RGB."""

    def __init__(self, path: Path, page: tifffile.TiffPage, offset: int | None):
        """page: of an open file, which may be closed afterwards. offset: where the samples begin
        if they have no tags of their own, as in a stack of which only the first page has tags.

        Raises Undecoded if the file was cut off, or if imagecodecs is needed and is not installed;
        InputError if a strip or tile takes more than half of the memory.
        """
        self.path, self.page, self.dtype = path, page, page.dtype
        self._planes, _, height, width, self._per_plane = page.shaped
        self.shape = height, width, self._planes * self._per_plane
        self._offsets, self._counts = list(page.dataoffsets), list(page.databytecounts)
        if offset is not None:
            self._offsets, self._counts = [offset], [page.nbytes]
        if len(self._offsets) != len(self._counts):
            raise Undecoded(f"{path}: {_CUT_OFF}")
        # Rows and columns of a strip or tile, and how many there are.
        self._rows = page.tilelength if page.is_tiled else page.rowsperstrip
        self._cols = page.tilewidth if page.is_tiled else width
        self._down, self._across = math.ceil(height / self._rows), math.ceil(width / self._cols)
        self._mapped = self._is_plain()
        if offset is not None and not self._mapped:
            raise Undecoded(f"{path}: a stack that is compressed, with the tags of one page")
        self._check_places()
        with open(path, "rb") as file:
            file.seek(self._offsets[0])
            start = file.read(min(self._counts[0], 4096))
        self.lossy = lossy_name(page, start)
        self._is_ycbcr = is_aperio_ycbcr(page, start)
        self._cache: OrderedDict[int, np.ndarray] = OrderedDict()
        if not self._mapped:
            pixel_bytes = 2 * self._per_plane * self.dtype.itemsize
            check_memory(path, (self._rows, self._cols), pixel_bytes)
            self._decode = segment_decoder(path, page)

    def _is_plain(self) -> bool:
        """Whether the samples lie in the file one after the other, as they are."""
        page = self.page
        ends = [a + b for a, b in zip(self._offsets, self._counts, strict=True)]
        return (
            (page.compression, page.predictor, page.fillorder) == (1, 1, 1)
            and page.bitspersample in (8, 16, 32, 64)
            and page.sampleformat in (1, 2, 3)
            and not page.is_tiled
            and self._offsets[1:] == ends[:-1]
        )

    def _check_places(self) -> None:
        """Raise Undecoded if strips or tiles are missing, or lie outside of the file."""
        size = self.path.stat().st_size
        places = list(zip(self._offsets, self._counts, strict=True))
        there = all(place > 0 < count and place + count <= size for place, count in places)
        if self._mapped:
            enough = sum(self._counts) >= math.prod(self.shape) * self.dtype.itemsize
        else:
            enough = len(places) >= self._planes * self._down * self._across
        if not (places and there and enough):
            raise Undecoded(f"{self.path}: {_CUT_OFF}")

    def read(self, row: int, col: int, rows: int, cols: int) -> np.ndarray:
        """The part [rows, cols, S] from (row, col), in the byte order of this machine."""
        if self._mapped:
            return self._read_mapped(row, col, rows, cols)
        part = np.empty((rows, cols, self.shape[2]), self.dtype)
        downs = range(row // self._rows, math.ceil((row + rows) / self._rows))
        acrosses = range(col // self._cols, math.ceil((col + cols) / self._cols))
        with silent_libraries(), open(self.path, "rb") as file:
            for plane in range(self._planes):
                samples = part[..., plane * self._per_plane : (plane + 1) * self._per_plane]
                for down in downs:
                    for across in acrosses:
                        self._copy(file, (plane, down, across), samples, row, col)
        return part

    def _copy(
        self, file: BinaryIO, place: tuple[int, int, int], part: np.ndarray, row: int, col: int
    ) -> None:
        """Copy what a strip or tile holds of a part [h, w, S] that begins at (row, col).

        place: its plane, and its row and column among the strips or tiles.
        """
        plane, down, across = place
        top, left = down * self._rows, across * self._cols
        first, last = max(row, top), min(row + part.shape[0], top + self._rows)
        begin, end = max(col, left), min(col + part.shape[1], left + self._cols)
        index = (plane * self._down + down) * self._across + across
        segment = self._cache.get(index)
        if segment is None:
            segment = self._read_segment(file, index)
        piece = segment[first - top : last - top, begin - left : end - left]
        if piece.shape != (last - first, end - begin, self._per_plane):
            raise ValueError("a strip or tile is too small")
        if piece.shape != segment.shape:  # a neighbouring part needs it, too
            self._keep(index, segment)
        part[first - row : last - row, begin - col : end - col] = piece

    def _keep(self, index: int, segment: np.ndarray) -> None:
        """Put a strip or tile into the cache. The last one stays, however large it is."""
        self._cache[index] = segment
        self._cache.move_to_end(index)
        while len(self._cache) > 1 and len(self._cache) * segment.nbytes > _CACHE_BYTES:
            self._cache.popitem(last=False)

    def _read_segment(self, file: BinaryIO, index: int) -> np.ndarray:
        """A decoded strip or tile [h, w, S]."""
        file.seek(self._offsets[index])
        segment = self._decode(file.read(self._counts[index]), index)
        if self.dtype == bool:
            segment = segment.astype(bool)
        if segment.dtype != self.dtype:
            raise ValueError(f"{segment.dtype} samples where {self.dtype} is stated")
        if self._is_ycbcr:
            picture = Image.frombytes("YCbCr", segment.shape[1::-1], segment.tobytes())
            segment = np.asarray(picture.convert("RGB"))
        return segment

    def _read_mapped(self, row: int, col: int, rows: int, cols: int) -> np.ndarray:
        # The file is mapped again for each part, so that earlier parts can leave the memory.
        dtype = self.dtype.newbyteorder(self.page.parent.byteorder)
        shape = self._planes, *self.shape[:2], self._per_plane
        whole = np.memmap(self.path, dtype, "r", self._offsets[0], shape)
        part = whole[:, row : row + rows, col : col + cols]
        part = part[0] if self._planes == 1 else part[..., 0].transpose(1, 2, 0)
        return np.array(part, self.dtype, order="C")
