"""Resampling of one affine piece: kernels of a scale that is pinned once for the whole grid."""

from __future__ import annotations

import math

import numpy as np
from affine import Affine
from numpy.typing import NDArray
from rasterio.crs import CRS
from rasterio.enums import Resampling
from rasterio.warp import reproject

from gopt_geo.scene.kernel import bilinear

__all__ = ["Block", "PieceKernel"]

_FOUR_SAMPLES = 0.95  # GDAL's own limit, below which the bilinear kernel widens

# GDAL gets affine pieces in one and the same CRS: rasterio fixes GDAL's transformer error at 0.125 pixel.
_PLANE = CRS.from_epsg(3857)
_SHIFT = 10_000.0  # keeps both transforms away from the identity, which rasterio replaces

Block = tuple[NDArray[np.float32], NDArray[np.bool_]]
"""Values [C, h, w] and validity [h, w]."""


class PieceKernel:
    """One way of resampling, of one scale.

    Parameters
    ----------
    resampling
        Bilinear, nearest or mode.
    ratio
        Source pixels per pixel of the result, along the source's x and y.

    Attributes
    ----------
    scale : tuple of float
        GDAL's XSCALE and YSCALE: the results' pixels per source pixel where the kernel widens, else 1.
    margin : tuple of int
        Source pixels, in x and y, that kernels reach beyond a pixel.
    """

    def __init__(self, resampling: Resampling, ratio: tuple[float, float]) -> None:
        self._resampling = resampling
        self.scale = _kernel_scale(ratio[0]), _kernel_scale(ratio[1])
        self.margin = math.ceil(1 / self.scale[0]) + 2, math.ceil(1 / self.scale[1]) + 2

    def resample(
        self, values: NDArray[np.float32], matrix: NDArray[np.float64], shape: tuple[int, int]
    ) -> NDArray[np.float32]:
        """Resample values [C, h, w] into float32 [C, *shape]; `matrix` maps the result's pixels to theirs."""
        if self._resampling == Resampling.bilinear and self.scale == (1.0, 1.0):
            return bilinear(np.ascontiguousarray(values), matrix, shape)
        return self._reproject(values, matrix, shape, self._resampling)

    def most_frequent(
        self,
        values: NDArray[np.float32],
        mask: NDArray[np.float32] | None,
        matrix: NDArray[np.float64],
        shape: tuple[int, int],
    ) -> Block:
        """Return the most frequent valid label of each pixel, and whether at least half of its area is valid."""
        if mask is None:
            mask = np.ones(values.shape[1:], np.float32)
        labels = np.where(mask > 0, values, np.float32(np.nan))
        result = self._reproject(labels, matrix, shape, Resampling.mode, src_nodata=math.nan)
        share = self._reproject(mask[None], matrix, shape, Resampling.average)[0]
        valid = (share >= 0.5 - 1e-6) & np.isfinite(result).all(axis=0)
        return np.where(valid, result, np.float32(0)), valid

    def _reproject(
        self,
        values: NDArray[np.float32],
        matrix: NDArray[np.float64],
        shape: tuple[int, int],
        kernel: Resampling,
        **options: float,
    ) -> NDArray[np.float32]:
        a, b, c, d, e, f = (~Affine(*matrix.ravel().tolist()))[:6]
        transform = Affine(a, b, c + _SHIFT, d, e, f + _SHIFT)
        result = np.zeros((len(values), *shape), np.float32)
        reproject(
            np.ascontiguousarray(values),
            result,
            src_transform=transform,
            src_crs=_PLANE,
            dst_transform=Affine(1, 0, _SHIFT, 0, 1, _SHIFT),
            dst_crs=_PLANE,
            resampling=kernel,
            num_threads=1,
            warp_mem_limit=1024,  # MB; one chunk a piece
            XSCALE=self.scale[0],
            YSCALE=self.scale[1],
            SOURCE_EXTRA=max(self.margin),
            **options,
        )
        return result


def _kernel_scale(ratio: float) -> float:
    """Return GDAL's scale, destination by source pixels, where it widens the kernel; else 1."""
    return 1 / ratio if 1 / ratio < _FOUR_SAMPLES else 1.0
