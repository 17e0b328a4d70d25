"""Ellipsoidal areas of a raster's regions."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from pyproj import CRS, Transformer

from gopt_geo.grid import GeoBox, pixel_size_m

__all__ = ["pixel_areas", "region_areas"]

_Float = NDArray[np.float64]
_BAND = 512  # rows at a time
_NODE_M = 5000.0  # largest distance of the points between which a projection's scale is interpolated
_STEP_M = 500.0  # half the chord over which it is measured: curvature adds 1e-9 to it


def region_areas(labels: NDArray[np.int32], count: int, grid: GeoBox) -> _Float:
    """Return each region's area on the ellipsoid, the sum over its pixels.

    In a geographic CRS a pixel's area has a closed form (its edges are meridians and parallels); in a projected
    one it is the planar area divided by the projection's areal scale there. In an engineering CRS it is planar.

    Parameters
    ----------
    labels
        Regions [H, W]: 1 to `count`, 0 for none.
    count
        The number of regions.
    grid
        The raster's grid.

    Returns
    -------
    numpy.ndarray
        Square metres, float64 [count], region 1 first; NaN if the grid has no CRS, or where the CRS has no inverse.
    """
    areas = pixel_areas(grid)
    total = np.zeros(count + 1)
    for start in range(0, grid.shape[0], _BAND):
        band = labels[start : start + _BAND]
        weights = areas(np.arange(start, start + len(band), dtype=np.float64))
        total += np.bincount(band.ravel(), np.broadcast_to(weights, band.shape).ravel(), count + 1)
    return total[1:]


def pixel_areas(grid: GeoBox) -> Callable[[_Float], _Float]:
    """Return a function from pixel rows [n] to their pixels' areas on the ellipsoid; see `region_areas`.

    Returns
    -------
    callable
        Square metres, [n, W], or [n, 1] where all pixels of a row are alike; NaN if the grid has no CRS.
    """
    if grid.crs is None:
        return lambda rows: np.full((len(rows), 1), np.nan)
    return _pixel_areas(grid, grid.crs.proj)


def _pixel_areas(grid: GeoBox, crs: CRS) -> Callable[[_Float], _Float]:
    """Return a function from pixel rows [n] to their pixels' areas in square metres, [n, W] or [n, 1]."""
    base = crs.source_crs if crs.is_bound and crs.source_crs is not None else crs
    geodetic = base.geodetic_crs
    unit = base.axis_info[0].unit_conversion_factor if base.axis_info else 1.0
    if geodetic is None or geodetic.ellipsoid is None:
        planar = abs(grid.affine.determinant) * unit**2
        return lambda rows: np.full((len(rows), 1), planar)
    major, minor = geodetic.ellipsoid.semi_major_metre, geodetic.ellipsoid.semi_minor_metre
    eccentricity = math.sqrt(max(0.0, 1 - (minor / major) ** 2))
    a, b, _, d, e, f = grid.affine[:6]
    if base.is_geographic and b == d == 0 and base.coordinate_operation is None:
        edge = abs(a) * unit * major**2 * (1 - eccentricity**2) / 2

        def by_row(rows: _Float) -> _Float:
            upper, lower = ((f + e * edge_row) * unit for edge_row in (rows, rows + 1))
            zone = np.abs(_authalic(upper, eccentricity) - _authalic(lower, eccentricity))
            return np.asarray(edge * zone[:, None])

        return by_row
    return _interpolated(grid, _Surface(crs, geodetic, major, eccentricity))


def _authalic(latitude: _Float, eccentricity: float) -> _Float:
    """Return q / (1 - e^2) of Snyder (1987, eq. 3-12): proportional to the area up to a latitude (radians)."""
    sine = np.sin(np.clip(latitude, -np.pi / 2, np.pi / 2))
    if eccentricity == 0:
        return 2 * sine
    flat = eccentricity * sine
    return np.asarray(sine / (1 - flat**2) + np.arctanh(flat) / eccentricity)


class _Surface:
    """Points of a CRS on its ellipsoid, in geocentric metres: without poles or an antimeridian to heed."""

    def __init__(self, crs: CRS, geodetic: CRS, major: float, eccentricity: float) -> None:
        self._transformer = Transformer.from_crs(crs, geodetic, always_xy=True)
        self._major, self._squared = major, eccentricity**2

    def __call__(self, x: _Float, y: _Float) -> _Float:
        longitude, latitude = self._transformer.transform(x, y, radians=False)
        lam, phi = np.radians(longitude), np.radians(latitude)
        normal = self._major / np.sqrt(1 - self._squared * np.sin(phi) ** 2)
        across = normal * np.cos(phi)
        up = normal * (1 - self._squared) * np.sin(phi)
        return np.stack((across * np.cos(lam), across * np.sin(lam), up), axis=-1)


def _interpolated(grid: GeoBox, surface: _Surface) -> Callable[[_Float], _Float]:
    """Measure pixel areas on a coarse net and interpolate between its nodes."""
    height, width = grid.shape
    size = pixel_size_m(grid)
    spacing = int(np.clip(_NODE_M / size, 1, 64)) if math.isfinite(size) else 64
    step = _STEP_M / size if math.isfinite(size) else 1.0
    rows = np.arange(0, height + spacing, spacing) - 0.5  # pixel centres are at whole numbers here
    cols = np.arange(0, width + spacing, spacing) - 0.5
    a, b, c, d, e, f = grid.affine[:6]

    def at(dcol: float, drow: float) -> _Float:
        col, row = np.meshgrid(cols + 0.5 + dcol, rows + 0.5 + drow)
        return surface(a * col + b * row + c, d * col + e * row + f)

    along = (at(step, 0) - at(-step, 0)) / (2 * step)
    down = (at(0, step) - at(0, -step)) / (2 * step)
    nodes = np.linalg.norm(np.cross(along, down), axis=-1)
    nodes[~np.isfinite(nodes)] = np.nan
    pixels = np.arange(width)
    first = np.clip(np.searchsorted(cols, pixels, side="right") - 1, 0, len(cols) - 2)
    share = (pixels - cols[first]) / spacing
    by_column = nodes[:, first] * (1 - share) + nodes[:, first + 1] * share  # [nodes down, W]

    def by_pixel(at_rows: _Float) -> _Float:
        upper = np.clip(np.searchsorted(rows, at_rows, side="right") - 1, 0, len(rows) - 2)
        part = ((at_rows - rows[upper]) / spacing)[:, None]
        return np.asarray(by_column[upper] * (1 - part) + by_column[upper + 1] * part)

    return by_pixel
