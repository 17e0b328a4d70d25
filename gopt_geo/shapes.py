"""Polygons and points on a grid: brought to its pixels once, then burnt window by window."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
import pyproj
import shapely
from affine import Affine
from numpy.typing import NDArray
from odc.geo.crs import CRS
from rasterio.features import rasterize

from gopt_geo.errors import GridError
from gopt_geo.grid import GeoBox, Window, lattice
from gopt_geo.scene.blockcache import BlockCache
from gopt_geo.scene.geometry import PixelMap
from gopt_geo.scene.warp import BLOCK

__all__ = ["ShapeRaster", "polygons_of", "to_pixels", "units_per_degree"]

_CACHE_BYTES = 32 << 20
_SEGMENTS = 512  # pieces an edge as long as the scene is cut into, so that it bends as the projection does
_SPREAD = 0.05  # of the scene's size, kept of the shapes around it

Shapes = NDArray[np.object_]


def polygons_of(shapes: Shapes) -> tuple[Shapes, bool]:
    """Make polygons valid; lines and points that this leaves are dropped.

    Returns
    -------
    shapes : object [n]
        Valid, some perhaps empty.
    repaired : bool
        Whether one of them had to be.
    """
    broken = ~shapely.is_valid(shapes)
    if not broken.any():
        return shapes, False
    whole = shapes.copy()
    whole[broken] = [_polygonal(shapely.make_valid(shape)) for shape in shapes[broken]]
    return whole, True


def _polygonal(shape: Any) -> Any:
    parts = np.asarray(shapely.get_parts(shapely.get_parts(shape)))
    return shapely.union_all(parts[shapely.get_dimensions(parts) == 2])


def to_pixels(shapes: Shapes, crs: pyproj.CRS, grid: GeoBox, name: str) -> Shapes:
    """Bring shapes to pixel coordinates (column, row) of a grid; what lies far from the grid is cut away.

    Edges are straight in the shapes' own CRS: they are cut into short pieces before they are transformed. In a
    geographic CRS longitudes are taken modulo 360, so that shapes across the antimeridian are whole.

    Parameters
    ----------
    shapes
        Valid geometries, object [n].
    crs
        Their CRS.
    grid
        With a CRS.
    name
        What messages call the shapes.

    Returns
    -------
    object [n]; empty geometries where nothing is near the grid.

    Raises
    ------
    GridError
        If there is no way between the CRSs, or a shape near the grid can't be expressed on it.
    """
    own = CRS(crs)
    height, width = grid.shape
    mesh = np.stack(np.meshgrid(np.linspace(0, width, 65), np.linspace(0, height, 65)), axis=-1).reshape(-1, 2)
    world = PixelMap(grid, GeoBox((1, 1), Affine.identity(), own), name)(mesh)
    world = world[np.isfinite(world).all(axis=1)]
    if len(world) == 0:
        raise GridError(name, "its CRS isn't defined where the scene lies", "reproject it to the scene's CRS")
    turn = 360.0 * units_per_degree(crs)
    if turn:
        centre = world[len(world) // 2, 0]
        world[:, 0] = _unwrap(world[:, 0], centre, turn)
        shapes = _turned(shapes, centre, turn)
    margin = _SPREAD * np.ptp(world, axis=0) + 1e-9
    (left, bottom), (right, top) = world.min(axis=0) - margin, world.max(axis=0) + margin
    near = shapely.intersection(shapes, shapely.box(left, bottom, right, top))
    near = shapely.segmentize(near, max(right - left, top - bottom) / _SEGMENTS)
    return _transform(near, (left, bottom, right, top), own, grid, name)


def _transform(shapes: Shapes, box: tuple[float, float, float, float], crs: CRS, grid: GeoBox, name: str) -> Shapes:
    left, bottom, right, top = box
    frame = GeoBox((1, 1), Affine(right - left, 0, left, 0, bottom - top, top), crs)
    there = PixelMap(frame, grid, name)
    wraps = (
        360.0 * units_per_degree(grid.crs.proj) / abs(grid.affine.a) if grid.crs is not None and grid.affine.a else 0.0
    )

    def apply(points: NDArray[np.float64]) -> NDArray[np.float64]:
        mapped = there((points - (left, top)) / (right - left, bottom - top))
        if wraps:
            mapped[:, 0] = _unwrap(mapped[:, 0], grid.shape[1] / 2, wraps)
        return mapped

    if shapely.get_num_coordinates(shapes).sum() == 0:
        return shapes
    mapped = np.asarray(shapely.transform(shapes, apply), dtype=object)
    if not np.isfinite(shapely.get_coordinates(mapped)).all():
        raise GridError(name, "it can't be expressed in the scene's CRS", "reproject it to the scene's CRS, or crop it")
    return polygons_of(mapped)[0]


def units_per_degree(crs: pyproj.CRS) -> float:
    """Return units of a geographic CRS in a degree, 0 for other CRSs."""
    if not crs.is_geographic:
        return 0.0
    return float(np.radians(1.0) / crs.axis_info[0].unit_conversion_factor) if crs.axis_info else 1.0


def _unwrap(values: NDArray[np.float64], centre: float, turn: float) -> NDArray[np.float64]:
    near = np.abs(values - centre) <= turn / 2  # left as they are, to the last bit
    return np.where(near, values, centre + np.mod(values - centre + turn / 2, turn) - turn / 2)


def _turned(shapes: Shapes, centre: float, turn: float) -> Shapes:
    """Repeat shapes a whole turn away where that brings parts of them nearer to a longitude."""
    bounds = shapely.total_bounds(shapes)
    if not np.isfinite(bounds).all():
        return shapes
    low, high = np.rint((bounds[[0, 2]] - centre) / turn).astype(int).tolist()
    copies = [_shift(shapes, -turn * k) for k in range(low, high + 1)]
    if len(copies) == 1:
        return copies[0]
    return np.asarray([shapely.union_all(same) for same in zip(*copies, strict=True)], dtype=object)


def _shift(shapes: Shapes, by: float) -> Shapes:
    return (
        shapes
        if by == 0
        else np.asarray(shapely.transform(shapes, lambda points: points + np.array([by, 0.0])), dtype=object)
    )


class ShapeRaster:
    """Shapes with a value each, burnt onto a grid: a polygon's pixels are those whose centre it holds.

    Parameters
    ----------
    shapes
        In pixel coordinates of the grid, object [n]; see `to_pixels`. Empty ones are passed over.
    values
        uint8 [n]. Where shapes overlap the later one counts.
    shape
        Height and width of the grid in pixels.
    fill
        Value of all other pixels.

    Notes
    -----
    Pixels are burnt in whole blocks anchored at pixel (0, 0), so that a window never changes what they hold.
    """

    def __init__(self, shapes: Shapes, values: Sequence[int], shape: tuple[int, int], fill: int) -> None:
        there = ~shapely.is_empty(shapes)
        self._shapes = shapes[there]
        self._values = np.asarray(values, np.uint8)[there]
        self._shape, self._fill = shape, fill
        self._forget()

    def _forget(self) -> None:
        self._tree = shapely.STRtree(self._shapes)
        self._lock = threading.Lock()
        self._cache: BlockCache[NDArray[np.uint8]] = BlockCache(_CACHE_BYTES, lambda block: block.nbytes)

    @property
    def bounds(self) -> Window | None:
        """The smallest window of the grid that holds all shapes; None where there are none on it."""
        if len(self._shapes) == 0:
            return None
        left, top, right, bottom = shapely.total_bounds(self._shapes)
        row, col = int(np.floor(top)), int(np.floor(left))
        height, width = int(np.ceil(bottom)) - row, int(np.ceil(right)) - col
        return Window(row, col, max(height, 1), max(width, 1)).clip(self._shape)

    @property
    def reaches_beyond(self) -> bool:
        """Whether a shape lies partly outside of the grid."""
        if len(self._shapes) == 0:
            return False
        left, top, right, bottom = shapely.total_bounds(self._shapes)
        height, width = self._shape
        return bool(min(left, top) < -1e-3 or right > width + 1e-3 or bottom > height + 1e-3)

    def read(self, window: Window) -> NDArray[np.uint8]:
        """Return the values of a window, uint8 [h, w]; `fill` beyond the grid's edges."""
        result = np.full(window.shape, self._fill, np.uint8)
        inside = window.clip(self._shape)
        if inside is None:
            return result
        for block in lattice(inside, BLOCK):
            part = block.intersect(inside)
            if part is not None:
                burnt = self._cache.get((block.row, block.col), partial(self._burn, block))
                result[part.slices_in(window)] = burnt[part.slices_in(block)]
        return result

    def _burn(self, block: Window) -> NDArray[np.uint8]:
        box = shapely.box(block.col, block.row, block.col_stop, block.row_stop)
        hits = np.sort(self._tree.query(box))
        if len(hits) == 0:
            return np.full(block.shape, self._fill, np.uint8)
        pairs = [(self._shapes[i], int(self._values[i])) for i in hits]
        # The identity means to rasterio that no transform was given, and it warns: rows are counted upwards instead.
        transform = Affine(1, 0, block.col, 0, -1, -block.row)
        flipped = [(shapely.transform(shape, lambda points: points * (1, -1)), value) for shape, value in pairs]
        burnt: NDArray[np.uint8] = rasterize(
            flipped, block.shape, fill=self._fill, transform=transform, dtype=np.uint8, all_touched=False
        )
        return burnt

    def __getstate__(self) -> dict[str, Any]:
        return {k: v for k, v in self.__dict__.items() if k not in ("_tree", "_lock", "_cache")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._forget()
