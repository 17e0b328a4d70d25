"""The scene grid: a base grid's lattice, a resolution and an extent; and where the footprints lie on it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from os import PathLike
from typing import Literal

import numpy as np
import shapely
from affine import Affine
from odc.geo.crs import CRS
from pyproj.exceptions import CRSError
from shapely.geometry.base import BaseGeometry

from gopt_geo.errors import GridError
from gopt_geo.grid import GeoBox, Window, crop
from gopt_geo.scene.geometry import PixelMap

__all__ = ["Extent", "check_grid_options", "cover", "lattice_in", "place_scene", "with_resolution"]

Extent = Literal["optical", "intersection", "union", "grid"]

Ground = GeoBox | Sequence[GeoBox]
"""A modality's grid, or those of its rasters."""

_MOST_PIXELS = 2**31 - 1  # along one side: GDAL's bound
_SLACK = 1e-3  # pixels by which a footprint may reach into a pixel without claiming it


def with_resolution(grid: GeoBox, resolution: float) -> GeoBox:
    """Return the grid with square pixels of `resolution` (units of its CRS), same corner, same directions.

    Raises
    ------
    GridError
        If the resolution isn't a positive number.
    """
    _check_resolution(resolution)
    a, b, c, d, e, f = grid.affine[:6]
    across, down = resolution / math.hypot(a, d), resolution / math.hypot(b, e)
    if down > grid.shape[0] and across > grid.shape[1]:
        found = f"a pixel of {resolution:g} is larger than the whole raster"
        raise GridError("--resolution", found, "give the pixel size in the CRS's units")
    height = max(math.ceil(grid.shape[0] / down - _SLACK), 1)
    width = max(math.ceil(grid.shape[1] / across - _SLACK), 1)
    _check_size(height, width, resolution)
    return GeoBox((height, width), Affine(a * across, b * down, c, d * across, e * down, f), grid.crs)


def _check_resolution(resolution: float) -> None:
    if not (math.isfinite(resolution) and resolution > 0):
        found = f"{resolution} isn't a positive number"
        raise GridError("--resolution", found, "give the pixel size in the CRS's units")


def _check_size(height: int, width: int, resolution: float) -> None:
    if max(height, width) > _MOST_PIXELS:
        found = f"{resolution:g} makes a grid of {height} x {width} pixels, more than a raster file can have"
        raise GridError("--resolution", found, "give the pixel size in the CRS's units")


def check_grid_options(
    grid: str | PathLike[str] | GeoBox, extent: Extent, resolution: float | None, crs: str | None, pixel_grid: bool
) -> None:
    """Refuse what contradicts itself in what is said of a scene grid, see `gopt_geo.scene.open_scene`.

    Raises
    ------
    GridError
        If it does.
    """
    file = not isinstance(grid, GeoBox) and grid not in ("optical", "sar")
    if pixel_grid and (resolution is not None or crs is not None or file):
        raise GridError("--pixel-grid", "it can't go with --resolution, --crs or --grid FILE", "leave one out")
    if extent == "grid" and not file:
        raise GridError("--extent grid", "it needs a raster whose extent to take", "name it with --grid FILE")
    if crs is None:
        return
    if resolution is None:
        raise GridError(f"--crs {crs}", "it needs the pixel size", "add --resolution, in units of this CRS")
    if grid != "optical":
        raise GridError(f"--crs {crs}", f"--grid {grid} has a CRS of its own", "leave one of them out")


def lattice_in(crs: str, resolution: float, near: GeoBox, name: str) -> GeoBox:
    """Return a north-up lattice whose pixels begin at whole multiples of their size, so that all such lie together.

    Parameters
    ----------
    crs
        What PROJ knows it by, "EPSG:32632" for instance.
    resolution
        Edge of a pixel in units of the CRS.
    near, name
        The grid that it shall lie around, and its name for messages.

    Raises
    ------
    GridError
        If there is no such CRS, it has no two axes on the ground, the resolution isn't a positive number, or the grid
        can't be reached from there.
    """
    try:
        known = CRS(crs)
    except (CRSError, ValueError) as error:
        raise GridError(f"--crs {crs}", "no such CRS", "give one that PROJ knows, such as EPSG:32632") from error
    if not (known.proj.is_projected or known.proj.is_geographic) or len(known.proj.axis_info) > 2:
        found = "it isn't a CRS of two axes on the ground"
        raise GridError(f"--crs {crs}", found, "give a projected or geographic one, such as EPSG:32632")
    _check_resolution(resolution)
    whole = GeoBox((1, 1), Affine(resolution, 0, 0, 0, -resolution, 0), known)
    points = PixelMap(near, whole, name)(_outline(Window(0, 0, *near.shape)))
    if not np.isfinite(points).all():
        raise GridError(name, f"its extent can't be expressed in --crs {crs}", "choose another CRS")
    (col, row), (col_stop, row_stop) = np.floor(points.min(axis=0)).tolist(), np.ceil(points.max(axis=0)).tolist()
    height, width = int(row_stop - row), int(col_stop - col)
    _check_size(height, width, resolution)
    return GeoBox((height, width), Affine(resolution, 0, col * resolution, 0, -resolution, -row * resolution), known)


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


def cover(grids: Sequence[tuple[str, GeoBox]], lattice: GeoBox) -> GeoBox:
    """Return the smallest window of a lattice that holds all of several named grids.

    Raises
    ------
    GridError
        If one's footprint can't be expressed in the lattice.
    """
    footprints = [_footprint(grid, Window(0, 0, *grid.shape), lattice, name) for name, grid in grids]
    return crop(lattice, _whole_pixels(shapely.union_all(footprints)))


def _whole_pixels(polygon: BaseGeometry) -> Window:
    """Return the pixels that a polygon in pixels reaches into."""
    left, top, right, bottom = polygon.bounds
    row, col = math.floor(top + _SLACK), math.floor(left + _SLACK)
    return Window(row, col, max(math.ceil(bottom - _SLACK) - row, 1), max(math.ceil(right - _SLACK) - col, 1))


def place_scene(grids: Mapping[str, tuple[str, Ground]], lattice: GeoBox, extent: Extent) -> tuple[GeoBox, float]:
    """Choose the window of a lattice that the scene covers.

    Parameters
    ----------
    grids
        Name for messages and grid of each modality, or the grids of its rasters; the first is the leading one, whose
        extent "optical" takes.
    lattice
        CRS, pixel size and alignment of the scene grid. Its own shape doesn't matter but with "grid".
    extent
        "optical": all of the leading modality. "intersection", "union": of all modalities. "grid": all of the lattice.

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
    if extent == "grid":
        return place_scene({"grid": ("the grid asked for", lattice), **grids}, lattice, "optical")
    (lead_name, lead_ground), *others = grids.values()
    lead_grids = _grids(lead_ground)
    lead = shapely.union_all([_footprint(grid, Window(0, 0, *grid.shape), lattice, lead_name) for grid in lead_grids])
    lead_grid = lead_grids[0] if len(lead_grids) == 1 else crop(lattice, _whole_pixels(lead))
    footprints = [lead]
    for name, ground in others:
        near = [_near(grid, lead_grid, lattice, name) for grid in _grids(ground)]
        polygon = shapely.union_all([part for part in near if part is not None])
        if shapely.intersection(polygon, lead).area < _SLACK:
            raise GridError(name, f"it doesn't overlap with {lead_name}", "give rasters of the same ground")
        if extent == "union":
            whole = [_footprint(grid, Window(0, 0, *grid.shape), lattice, name) for grid in _grids(ground)]
            polygon = shapely.union_all(whole)
        footprints.append(polygon)
    common = shapely.intersection_all(footprints)
    if extent == "intersection" and common.area < _SLACK:
        raise GridError(lead_name, "no ground is common to all sources", "use --extent optical")
    covered = {"optical": lead, "intersection": common, "union": shapely.union_all(footprints)}[extent]
    window = _whole_pixels(covered)
    inside = shapely.intersection(common, shapely.box(window.col, window.row, window.col_stop, window.row_stop))
    return crop(lattice, window), min(float(inside.area) / (window.height * window.width), 1.0)


def _grids(ground: Ground) -> Sequence[GeoBox]:
    return (ground,) if isinstance(ground, GeoBox) else ground


def _near(grid: GeoBox, lead: GeoBox, lattice: GeoBox, name: str) -> shapely.Polygon | None:
    """Return the footprint of a grid's part around the leading one, None if they are apart."""
    part = _part_near(grid, lead, name)
    return None if part is None else _footprint(grid, part, lattice, name)
