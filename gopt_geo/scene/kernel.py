"""The bilinear kernel over an affine piece, where the source isn't downsampled: several times as fast as GDAL's."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["bilinear"]

_AT_ONCE = 1 << 14  # pixels, so that the intermediate arrays stay in the CPU's cache


def bilinear(values: NDArray[np.float32], matrix: NDArray[np.float64], shape: tuple[int, int]) -> NDArray[np.float32]:
    """Interpolate between the four nearest pixel centres at the centre of each pixel of a piece.

    Parameters
    ----------
    values
        Source pixels, float32 [C, H, W], C contiguous, H and W at least 2.
    matrix
        Affine map [2, 3] from the piece's pixels (column, row; its corner is (0, 0)) to those of `values`.
    shape
        Height and width of the piece.

    Returns
    -------
    float32 [C, height, width]
        Positions are found in double precision. Beyond the outermost pixel centres the nearest of them counts.
    """
    height, width = shape
    down, across = values.shape[1:]
    bands = values.reshape(len(values), -1)
    result = np.empty((len(values), height, width), np.float32)
    centres = np.arange(max(shape)) + 0.5
    along = matrix[:, :1] * centres[:width]
    start = matrix[:, 1:2] * centres[:height] + matrix[:, 2:] - 0.5
    rows = max(_AT_ONCE // width, 1)
    for first in range(0, height, rows):
        part = slice(first, first + rows)
        column, right = _split(along[0] + start[0, part, None], across)
        place, below = _split(along[1] + start[1, part, None], down)
        place *= across
        place += column
        for band, out in zip(bands, result[:, part], strict=True):
            upper = _between(band, place, right)
            lower = _between(band[across:], place, right)
            lower -= upper
            lower *= below
            np.add(upper, lower, out=out)
    return result


def _split(position: NDArray[np.float64], size: int) -> tuple[NDArray[np.intp], NDArray[np.float32]]:
    """Return the pixel before a position, at most the last but one, and how far beyond its centre the position is."""
    corners = position[:: max(len(position) - 1, 1), :: max(position.shape[1] - 1, 1)]
    if corners.min() < 0 or corners.max() >= size - 1:
        np.clip(position, 0, size - 1, out=position)
        whole = np.minimum(position.astype(np.intp), size - 2)
    else:
        whole = position.astype(np.intp)
    position -= whole
    return whole, position.astype(np.float32)


def _between(band: NDArray[np.float32], place: NDArray[np.intp], fraction: NDArray[np.float32]) -> NDArray[np.float32]:
    left, right = band.take(place), band[1:].take(place)
    right -= left
    right *= fraction
    left += right
    return left
