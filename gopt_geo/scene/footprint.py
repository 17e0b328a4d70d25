"""Where a source surely has no data, told without decoding it."""

from __future__ import annotations

from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray
from rasterio.io import DatasetReader

from gopt_geo.grid import Window
from gopt_geo.scene.tiffblocks import block_count, block_offsets

__all__ = ["BlockFootprint", "Footprint", "surely_blank", "written_blocks"]

_MOST_BLOCKS = 1 << 18
"""Blocks of a file that are asked for one by one, at about a microsecond each."""


@runtime_checkable
class Footprint(Protocol):
    """What can tell at little cost where it has no data."""

    def blank(self, window: Window) -> bool:
        """Return True only if surely no pixel of a window is valid; it may hang over the edges."""
        ...


def surely_blank(source: object, window: Window) -> bool:
    """Return whether a source can tell, and tells, that no pixel of a window is valid."""
    return isinstance(source, Footprint) and source.blank(window)


class BlockFootprint:
    """Which blocks of a file were ever written.

    Parameters
    ----------
    written
        bool [rows of blocks, columns of blocks].
    block
        Height and width of a block in pixels.
    """

    def __init__(self, written: NDArray[np.bool_], block: tuple[int, int]) -> None:
        self._written, self._block = written, block

    def crop(self, window: Window) -> Window | None:
        """Cut a window, inside the file, to the smallest that holds all its pixels in written blocks; None if none."""
        (height, width), (row, col) = self._block, (window.row // self._block[0], window.col // self._block[1])
        part = self._written[row : -(-window.row_stop // height), col : -(-window.col_stop // width)]
        rows, cols = np.flatnonzero(part.any(axis=1)), np.flatnonzero(part.any(axis=0))
        if not len(rows):
            return None
        top, left = (row + int(rows[0])) * height, (col + int(cols[0])) * width
        bottom, right = (row + int(rows[-1]) + 1) * height, (col + int(cols[-1]) + 1) * width
        return Window(top, left, bottom - top, right - left).intersect(window)


def written_blocks(dataset: DatasetReader, band: int, nodata: Any) -> BlockFootprint | None:
    """Return where a band of a TIFF was written, if the rest of it reads as nodata.

    Blocks of a sparse TIFF that were never written take no room in the file; GDAL fills them with the nodata value.

    Parameters
    ----------
    dataset
        The file.
    band
        1-based index.
    nodata
        Its nodata value as GDAL tells it.

    Returns
    -------
    None where nothing can be said, and where all blocks were written.
    """
    dtype = np.dtype(dataset.dtypes[band - 1])
    if dataset.driver != "GTiff" or nodata is None or not _holds(dtype, nodata):
        return None
    rows, cols = block_count(dataset, band)
    if rows * cols > _MOST_BLOCKS:
        return None
    written = block_offsets(dataset, band) > 0
    height, width = dataset.block_shapes[band - 1]
    return None if written.all() else BlockFootprint(written, (height, width))


def _holds(dtype: np.dtype[Any], nodata: float) -> bool:
    """Return whether pixels of this type can be nodata."""
    if dtype.kind in "fc":
        return True
    return dtype.kind in "iu" and float(nodata).is_integer() and np.iinfo(dtype).min <= nodata <= np.iinfo(dtype).max
