"""Grids and windows: one value type for georeferencing, and the arithmetic of pixel windows on it."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import rasterio
from affine import Affine
from numpy.typing import NDArray
from odc.geo.crs import CRS
from odc.geo.geobox import GeoBox
from odc.geo.types import Shape2d
from pyproj import Geod, Transformer
from pyproj.exceptions import CRSError, ProjError
from rasterio.errors import CRSError as RasterioCRSError

from gopt_geo.errors import GridError

__all__ = [
    "SAME_PIXEL",
    "GeoBox",
    "Window",
    "corner_distance",
    "crop",
    "grid_of",
    "lattice",
    "pixel_size_m",
    "same_crs",
    "to_rasterio_crs",
    "whole_pixel_offset",
]

SAME_PIXEL = 1e-3
"""Grids whose corners agree within this many pixels are one grid: files store transforms with 15 digits."""


@dataclass(frozen=True, slots=True)
class Window:
    """A rectangle of pixels of a grid; it may hang over the grid's edges.

    Parameters
    ----------
    row, col
        Upper left pixel; negative above and left of the grid.
    height, width
        Size in pixels, not negative.

    Raises
    ------
    ValueError
        If height or width is negative.
    """

    row: int
    col: int
    height: int
    width: int

    def __post_init__(self) -> None:
        if self.height < 0 or self.width < 0:
            raise ValueError(f"a window's height and width can't be negative: {self.height} x {self.width}")

    @property
    def row_stop(self) -> int:
        """First row below the window."""
        return self.row + self.height

    @property
    def col_stop(self) -> int:
        """First column right of the window."""
        return self.col + self.width

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width in pixels."""
        return self.height, self.width

    def intersect(self, other: Window) -> Window | None:
        """Return the pixels that both windows hold, or None if there are none."""
        row, col = max(self.row, other.row), max(self.col, other.col)
        height = min(self.row_stop, other.row_stop) - row
        width = min(self.col_stop, other.col_stop) - col
        return Window(row, col, height, width) if height > 0 and width > 0 else None

    def clip(self, shape: tuple[int, int] | Shape2d) -> Window | None:
        """Return the part inside a grid of `shape` (height, width), or None if nothing is inside."""
        return self.intersect(Window(0, 0, *shape))

    def within(self, outer: Window) -> Window:
        """Return this window as counted from the upper left pixel of `outer`."""
        return Window(self.row - outer.row, self.col - outer.col, self.height, self.width)

    def slices_in(self, outer: Window) -> tuple[slice, slice]:
        """Return the row and column slices that cut this window out of an array that fills `outer`.

        Raises
        ------
        ValueError
            If this window isn't inside `outer`; a negative slice would silently count from the end.
        """
        row, col = self.row - outer.row, self.col - outer.col
        if row < 0 or col < 0 or self.row_stop > outer.row_stop or self.col_stop > outer.col_stop:
            raise ValueError(f"{self} isn't inside {outer}")
        return slice(row, row + self.height), slice(col, col + self.width)


def lattice(window: Window, size: int) -> Iterator[Window]:
    """Yield the `size` x `size` blocks that touch `window`, row by row.

    They are anchored at pixel (0, 0) of the grid and whole: they may reach beyond the window and the grid.
    """
    if window.height == 0 or window.width == 0:
        return
    for row in range(window.row // size, -(-window.row_stop // size)):
        for col in range(window.col // size, -(-window.col_stop // size)):
            yield Window(row * size, col * size, size, size)


def grid_of(dataset: rasterio.DatasetReader) -> GeoBox:
    """Return the grid of an open raster; its `crs` is None where the file states none.

    Raises
    ------
    GridError
        If the transform can't be inverted or the CRS isn't one that PROJ understands.
    """
    transform: Affine = dataset.transform
    if transform.is_degenerate or not all(math.isfinite(v) for v in transform):
        raise GridError(dataset.name, "its geotransform has pixels without area", "set it with gdal_edit -a_gt")
    try:
        crs = CRS(dataset.crs.to_wkt()) if dataset.crs else None
    except (CRSError, RasterioCRSError) as error:
        raise GridError(dataset.name, f"its CRS can't be used ({error})", "set it with gdal_edit -a_srs") from error
    return GeoBox((dataset.height, dataset.width), transform, crs)


def crop(grid: GeoBox, window: Window) -> GeoBox:
    """Return the grid of `window`, which may hang over the edges of `grid`."""
    a, b, c, d, e, f = grid.affine[:6]
    x, y = c + a * window.col + b * window.row, f + d * window.col + e * window.row
    return GeoBox(window.shape, Affine(a, b, x, d, e, y), grid.crs)


def to_rasterio_crs(crs: CRS | None) -> rasterio.crs.CRS | None:
    """Return an odc-geo CRS as a rasterio one (None stays None)."""
    return None if crs is None else rasterio.crs.CRS.from_wkt(crs.to_wkt())


def same_crs(a: CRS | None, b: CRS | None) -> bool:
    """Tell whether two CRSs are the same; None equals only None.

    PROJ and OGR differ in what they forgive (names, axis order of WKT 1); either's yes is enough.
    """
    if a is None or b is None:
        return a is b
    return bool(a == b) or bool(to_rasterio_crs(a) == to_rasterio_crs(b))


def _corners(grid: GeoBox) -> NDArray[np.float64]:
    """Return the four outer corners of a grid as (column, row) in its own pixels, [4, 2]."""
    height, width = grid.shape
    return np.array([(0, 0), (width, 0), (0, height), (width, height)], dtype=np.float64)


def _apply(affine: Affine, xy: NDArray[np.float64]) -> NDArray[np.float64]:
    """Map points [n, 2] through an affine."""
    matrix = np.array(affine[:6]).reshape(2, 3)
    return np.asarray(xy @ matrix[:, :2].T + matrix[:, 2])


def corner_distance(a: GeoBox, b: GeoBox) -> float:
    """Return the largest distance between corresponding corners of two grids, in pixels of `a`.

    Infinite where the CRSs can't be compared: only one grid has one, or PROJ can't transform a corner.
    """
    world = _apply(b.affine, _corners(b))
    if not same_crs(a.crs, b.crs):
        if a.crs is None or b.crs is None:
            return math.inf
        try:
            transformer = Transformer.from_crs(b.crs.proj, a.crs.proj, always_xy=True)
        except ProjError:
            return math.inf
        world = np.stack(transformer.transform(world[:, 0], world[:, 1]), axis=1)
    distance = np.hypot(*(_apply(~a.affine, world) - _corners(a)).T)
    return float(distance.max()) if np.isfinite(distance).all() else math.inf


def whole_pixel_offset(target: GeoBox, source: GeoBox) -> tuple[int, int] | None:
    """Return (row, column) of the target's pixel (0, 0) in the source, if no resampling is needed.

    That is so where both share the CRS and, at all four corners of the target, lie a whole number of pixels
    apart within `SAME_PIXEL`. (0, 0) includes "the same grid". Otherwise None.
    """
    if not same_crs(target.crs, source.crs):
        return None
    corners = _corners(target)
    shift = _apply(~source.affine, _apply(target.affine, corners)) - corners
    whole = np.rint(shift[0])
    if not np.isfinite(shift).all() or np.abs(shift - whole).max() > SAME_PIXEL:
        return None
    return int(whole[1]), int(whole[0])


def pixel_size_m(grid: GeoBox) -> float:
    """Return the pixel's edge on the ground in metres at the grid's centre.

    The geometric mean of the pixel's two edges, measured along the ellipsoid, so that geographic CRSs and the
    scale of a projection are accounted for. NaN where the grid has no CRS.
    """
    if grid.crs is None:
        return math.nan
    crs = grid.crs.proj
    height, width = grid.shape
    cross = np.array([(-0.5, 0), (0.5, 0), (0, -0.5), (0, 0.5)]) + np.array([width / 2, height / 2])
    world = _apply(grid.affine, cross)
    geographic = crs.geodetic_crs
    if geographic is None:  # an engineering CRS: plane metres are all there is
        factor = crs.axis_info[0].unit_conversion_factor if crs.axis_info else 1.0
        return math.sqrt(abs(grid.affine.determinant)) * float(factor)
    longitude, latitude = Transformer.from_crs(crs, geographic, always_xy=True).transform(*world.T)
    ellipsoid = geographic.ellipsoid
    geod = Geod(a=ellipsoid.semi_major_metre, b=ellipsoid.semi_minor_metre) if ellipsoid else Geod(ellps="WGS84")
    _, _, edges = geod.inv(longitude[::2], latitude[::2], longitude[1::2], latitude[1::2])
    return float(math.sqrt(edges[0] * edges[1]))
