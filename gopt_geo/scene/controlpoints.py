"""Rasters that ground control points place: the affine grid that fits best, and the way on to the true pixels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from affine import Affine
from numpy.typing import NDArray
from odc.geo.crs import CRS

from gopt_geo.errors import GridError
from gopt_geo.grid import GeoBox

__all__ = ["ControlPoints", "fit_points"]

_LEAST = 3  # an affine transformation has six unknowns
_SPLINE = 6  # fewer points than this are fitted by an affine transformation alone
_MOST = 4000  # the spline takes memory with the square of their number
_CONTRADICTING = 0.05  # of the raster's longer edge: a camera's or radar's geometry bends less
_FLAT = 1e-6  # smallest ratio of the points' spread across to along, below which they lie on a line


@dataclass(frozen=True)
class ControlPoints:
    """Ground control points of one raster.

    Attributes
    ----------
    grid
        The grid whose affine transformation fits the points best (least squares), in the points' CRS.
    fitted, true
        Pixel coordinates (column, row) of the points by that grid, and as stated; both n pairs. Pixels' corners are
        whole numbers.
    """

    grid: GeoBox
    fitted: tuple[tuple[float, float], ...]
    true: tuple[tuple[float, float], ...]

    @property
    def off(self) -> float:
        """Root mean square distance in pixels between the points and the affine grid."""
        apart = np.asarray(self.fitted) - np.asarray(self.true)
        return float(np.sqrt((apart**2).sum(axis=1).mean()))

    @cached_property
    def _spline(self) -> Any:
        """Thin plate spline through the points' distances from the affine grid; None where they are too few."""
        if len(self.true) < _SPLINE:
            return None
        from scipy.interpolate import RBFInterpolator

        fitted = np.asarray(self.fitted)
        scale = max(self.grid.shape)  # the spline is scale-free, its solution isn't
        return RBFInterpolator(fitted / scale, np.asarray(self.true) - fitted, kernel="thin_plate_spline", degree=1)

    def correct(self, points: NDArray[np.float64]) -> NDArray[np.float64]:
        """Map pixel coordinates of the affine grid [n, 2] to true pixels; what isn't finite stays so."""
        if self._spline is None:
            return points
        finite = np.isfinite(points).all(axis=1)
        corrected = np.array(points, np.float64)
        if finite.any():
            corrected[finite] += self._spline(points[finite] / max(self.grid.shape))
        return corrected

    def __getstate__(self) -> dict[str, Any]:
        return {key: value for key, value in self.__dict__.items() if key != "_spline"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)


def fit_points(gcps: Sequence[Any], crs: CRS | None, shape: tuple[int, int], name: str) -> ControlPoints:
    """Place a raster by its ground control points.

    Parameters
    ----------
    gcps
        rasterio's `GroundControlPoint`s.
    crs
        Of the points.
    shape
        Height and width of the raster in pixels.
    name
        The raster in messages.

    Raises
    ------
    GridError
        If the points have no CRS, are fewer than three or too many, lie on a line, or aren't finite.
    """
    remedy = "warp it first with gdalwarp, or give a raster with a geotransform"
    if crs is None:
        raise GridError(name, "its ground control points have no CRS", "set it: gdal_translate -a_srs EPSG:... in out")
    if not _LEAST <= len(gcps) <= _MOST:
        found = f"{len(gcps)} ground control points, {_LEAST} to {_MOST} can place it"
        raise GridError(name, found, remedy)
    world = np.array([(point.x, point.y) for point in gcps], np.float64)
    pixel = np.array([(point.col, point.row) for point in gcps], np.float64)
    if not (np.isfinite(world).all() and np.isfinite(pixel).all()):
        raise GridError(name, "some ground control points aren't finite", remedy)
    if _on_a_line(world) or _on_a_line(pixel):
        raise GridError(name, f"its {len(gcps)} ground control points lie on a line", remedy)
    # Centred and scaled: coordinates in millions of metres would cost digits.
    middle, size = pixel.mean(axis=0), np.ptp(pixel, axis=0).max()
    design = np.column_stack([(pixel - middle) / size, np.ones(len(pixel))])
    origin = world.mean(axis=0)
    solved = np.linalg.lstsq(design, world - origin, rcond=None)[0]
    slope = solved[:2].T / size
    shift = solved[2] + origin - slope @ middle
    affine = Affine(slope[0, 0], slope[0, 1], shift[0], slope[1, 0], slope[1, 1], shift[1])
    if affine.is_degenerate:
        raise GridError(name, "its ground control points contradict each other", remedy)
    back = np.array((~affine)[:6]).reshape(2, 3)
    fitted = world @ back[:, :2].T + back[:, 2]
    as_pairs = [tuple((float(x), float(y)) for x, y in points) for points in (fitted, pixel)]
    control = ControlPoints(GeoBox(shape, affine, crs), as_pairs[0], as_pairs[1])
    if control.off > _CONTRADICTING * max(shape) or _two_places(pixel, fitted):
        raise GridError(name, f"its ground control points contradict each other (by {control.off:.2g} pixels)", remedy)
    return control


def _two_places(pixel: NDArray[np.float64], fitted: NDArray[np.float64]) -> bool:
    """Tell whether a pixel is said to lie at two places, more than a pixel apart."""
    _, first, inverse = np.unique(pixel, axis=0, return_index=True, return_inverse=True)
    return bool(np.hypot(*(fitted - fitted[first[inverse.ravel()]]).T).max() > 1)


def _on_a_line(points: NDArray[np.float64]) -> bool:
    spread = np.linalg.svd(points - points.mean(axis=0), compute_uv=False)
    return not spread[1] > _FLAT * spread[0]
