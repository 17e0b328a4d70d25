"""Whether a TIFF holds all that was written into it: GDAL doesn't tell of every write that fails while it closes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.io import DatasetReader

from gopt_geo.errors import OutputError
from gopt_geo.grid import Window
from gopt_geo.scene.tiffblocks import block_count, block_offsets, block_sizes

__all__ = ["WrittenBlocks", "check_complete"]


class WrittenBlocks:
    """Which blocks of a raster hold data.

    Parameters
    ----------
    shape
        Height and width of the raster in pixels.
    block
        Height and width of its blocks.
    """

    def __init__(self, shape: tuple[int, int], block: tuple[int, int]) -> None:
        self.block = block
        self.there = np.zeros((-(-shape[0] // block[0]), -(-shape[1] // block[1])), np.bool_)

    def add(self, window: Window, there: NDArray[np.bool_]) -> None:
        """Mark the blocks of the pixels of a window, bool [h, w], that hold data."""
        height, width = self.block
        row, col = window.row // height, window.col // width
        down = np.arange(height * (row + 1) - window.row, window.height, height)
        across = np.arange(width * (col + 1) - window.col, window.width, width)
        for i, part in enumerate(np.split(there, down)):
            if part.any():
                found = [bool(piece.any()) for piece in np.split(part, across, axis=1)]
                self.there[row + i, col : col + len(found)] |= found


def check_complete(path: Path, written: WrittenBlocks | None, subject: Path) -> None:
    """Look whether every block lies within the file, and none is missing, in the overviews, too.

    Parameters
    ----------
    path
        A tiled TIFF that is closed.
    written
        Blocks of every band that must be there; where others aren't, they read as nodata, and overviews may lack
        blocks. None: every block must be there.
    subject
        What the message calls it.

    Raises
    ------
    OutputError
        If one isn't: the disk was full, as a rule.
    """
    size = path.stat().st_size
    with rasterio.open(path) as dataset:
        levels = len(dataset.overviews(1))
        lost = _lost(dataset, size, written.there if written is not None else None)
    for level in range(levels):
        with rasterio.open(path, overview_level=level) as overview:
            anywhere = np.zeros(block_count(overview, 1), np.bool_) if written is not None else None
            lost += _lost(overview, size, anywhere)
    if lost:
        found = f"GDAL can't write it ({lost} of its blocks are missing or cut off)"
        raise OutputError(subject, found, "see whether the disk is full, or write elsewhere")


def _lost(dataset: DatasetReader, size: int, needed: NDArray[np.bool_] | None) -> int:
    """Count the blocks that are needed (None: all are) and missing, or cut off."""
    lost = 0
    one_for_all = dataset.profile.get("interleave") == "pixel"
    for band in dataset.indexes[:1] if one_for_all else dataset.indexes:
        offsets, sizes = block_offsets(dataset, band), block_sizes(dataset, band)
        missing = (offsets == 0) | (sizes == 0)
        lost += int(np.count_nonzero(np.where(missing, True if needed is None else needed, offsets + sizes > size)))
    return lost
