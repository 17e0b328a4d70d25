"""The scene grid: a base grid's lattice, a resolution and an extent; and where the footprints lie on it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Literal

import numpy as np
import shapely
from affine import Affine

from gopt_geo.errors import GridError
from gopt_geo.grid import GeoBox, Window, crop
from gopt_geo.scene.geometry import PixelMap

__all__ = ["Extent", "place_scene", "with_resolution"]

Extent = Literal["optical", "intersection", "union"]

_MOST_PIXELS = 2**31 - 1  # along one side: GDAL's bound
_SLACK = 1e-3  # pixels by which a footprint may reach into a pixel without claiming it


def with_resolution(grid: GeoBox, resolution: float) -> GeoBox:
    """Return the grid with square pixels of `resolution` (units of its CRS), same corner, same directions.

    Raises
    ------
    GridError
        If the resolution isn't a positive number.
    """
    if not (math.isfinite(resolution) and resolution > 0):
        raise GridError(
            "--resolution", f"{resolution} isn't a positive number", "give the pixel size in the CRS's units"
        )
    a, b, c, d, e, f = grid.affine[:6]
    across, down = resolution / math.hypot(a, d), resolution / math.hypot(b, e)
    if down > grid.shape[0] and across > grid.shape[1]:
        found = f"a pixel of {resolution:g} is larger than the whole raster"
        raise GridError("--resolution", found, "give the pixel size in the CRS's units")
    height = max(math.ceil(grid.shape[0] / down - _SLACK), 1)
    width = max(math.ceil(grid.shape[1] / across - _SLACK), 1)
    if max(height, width) > _MOST_PIXELS:
        found = f"{resolution:g} makes a grid of {height} x {width} pixels, more than a raster file can have"
        raise GridError("--resolution", found, "give the pixel size in the CRS's units")
    return GeoBox((height, width), Affine(a * across, b * down, c, d * across, e * down, f), grid.crs)


def _outline(window: Window, steps: int = 64) -> np.ndarray[tuple[int, int], np.dtype[np.float64]]:
    """Return points (column, row) along a window's border, [4 * steps, 2]."""
    along = np.linspace(0, 1, steps, endpoint=False)
    zero, one = np.zeros(steps), np.ones(steps)
    x = np.concatenate([along, one, 1 - along, zero]) * window.width + window.col
    y = np.concatenate([zero, along, one, 1 - along]) * window.height + window.row
    return np.stack([x, y], axis=1)


def _footprint(grid: GeoBox, part: Window, lattice: GeoBox, name: str) -> shapely.Polygon:
    """Return the part of a grid as a polygon in pixels of the lattice, checked by the way back."""
    outline = _outline(part)
    there = PixelMap(grid, lattice, name)(outline)
    back = PixelMap(lattice, grid, name)(there) if np.isfinite(there).all() else np.full_like(there, np.nan)
    polygon = shapely.Polygon(there)
    if not np.abs(back - outline).max() <= 1 or not polygon.is_valid or polygon.area == 0:
        found = "its extent can't be expressed in the scene grid's CRS"
        raise GridError(name, found, "crop it, or choose another --grid or --extent optical")
    return polygon


def _part_near(grid: GeoBox, other: GeoBox, name: str) -> Window | None:
    """Return the part of `grid` around `other`, None if they are apart.

    A raster of the whole Earth has no footprint in a UTM zone, but its part near the scene has.
    """
    height, width = other.shape
    mesh = np.stack(np.meshgrid(np.linspace(0, width, 33), np.linspace(0, height, 33)), axis=-1).reshape(-1, 2)
    points = PixelMap(other, grid, name)(mesh)
    points = points[np.isfinite(points).all(axis=1)]
    if len(points) == 0:
        return None
    size = np.ptp(points, axis=0)
    low, high = np.floor(points.min(axis=0) - 0.05 * size - 1), np.ceil(points.max(axis=0) + 0.05 * size + 1)
    col, row = np.maximum(low, 0).astype(int).tolist()
    col_stop, row_stop = np.minimum(high, grid.shape[::-1]).astype(int).tolist()
    return Window(row, col, row_stop - row, col_stop - col) if row_stop > row and col_stop > col else None


def place_scene(grids: Mapping[str, tuple[str, GeoBox]], lattice: GeoBox, extent: Extent) -> tuple[GeoBox, float]:
    """Choose the window of a lattice that the scene covers.

    Parameters
    ----------
    grids
        Name for messages and grid of each modality; the first is the leading one, whose extent "optical"
        takes.
    lattice
        CRS, pixel size and alignment of the scene grid. Its own shape doesn't matter.
    extent
        "optical": all of the leading modality. "intersection", "union": of all modalities.

    Returns
    -------
    grid : GeoBox
        The scene grid: whole pixels of the lattice.
    shared : float
        Share of the scene grid where all footprints lie, 0 to 1.

    Raises
    ------
    GridError
        If a modality doesn't overlap with the leading one, or a footprint can't be expressed in the lattice.
    """
    (lead_name, lead_grid), *others = grids.values()
    lead = _footprint(lead_grid, Window(0, 0, *lead_grid.shape), lattice, lead_name)
    footprints = [lead]
    for name, grid in others:
        part = _part_near(grid, lead_grid, name)
        polygon = None if part is None else _footprint(grid, part, lattice, name)
        if part is None or polygon is None or shapely.intersection(polygon, lead).area < _SLACK:
            raise GridError(name, f"it doesn't overlap with {lead_name}", "give rasters of the same ground")
        if extent == "union":
            polygon = _footprint(grid, Window(0, 0, *grid.shape), lattice, name)
        footprints.append(polygon)
    common = shapely.intersection_all(footprints)
    if extent == "intersection" and common.area < _SLACK:
        raise GridError(lead_name, "no ground is common to all sources", "use --extent optical")
    covered = {"optical": lead, "intersection": common, "union": shapely.union_all(footprints)}[extent]
    left, top, right, bottom = covered.bounds
    row, col = math.floor(top + _SLACK), math.floor(left + _SLACK)
    height = max(math.ceil(bottom - _SLACK) - row, 1)
    width = max(math.ceil(right - _SLACK) - col, 1)
    inside = shapely.intersection(common, shapely.box(col, row, col + width, row + height))
    return crop(lattice, Window(row, col, height, width)), min(float(inside.area) / (height * width), 1.0)
