"""Moving a raster's grid by a shift that is told in pixels of another."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from affine import Affine
from numpy.typing import NDArray

from gopt_geo.errors import GridError
from gopt_geo.grid import GeoBox
from gopt_geo.scene.geometry import PixelMap

__all__ = ["LITTLE", "Move", "compose", "move_grid", "move_notice"]

LITTLE = 0.1
"""Pixels of the reference; a move that is off by more somewhere is worth a word."""

_STEPS = 17  # points along each side of the reference grid at which both grids are compared


class Move(NamedTuple):
    """A moved grid.

    Attributes
    ----------
    grid
        The moved grid.
    error
        How far it is from the shift asked for where it is furthest, in pixels of the reference; above 0 where the
        directions or scales of two CRSs change over the scene.
    """

    grid: GeoBox
    error: float


def move_grid(grid: GeoBox, reference: GeoBox, dx: float, dy: float, name: str = "SAR") -> Move:
    """Move a grid so that its content, which lies `dx`, `dy` from where it belongs, comes to lie there.

    Parameters
    ----------
    grid
        Of the raster that is moved. Its pixel size, rotation and shape stay: it is moved along its own CRS.
    reference
        In whose pixels the shift is told (the optical raster's).
    dx, dy
        How far the content lies from where it belongs, right and down.
    name
        What messages call the raster.

    Returns
    -------
    Move

    Raises
    ------
    GridError
        If the grids share no ground, or PROJ knows no way between them.
    """
    shift = np.array([dx, dy])
    there = PixelMap(reference, grid, name)
    points = _common_points(there, reference, grid)
    if len(points) == 0:
        raise GridError(name, "it shares no ground with the optical raster", "give rasters of the same ground")
    centre = points.mean(axis=0)
    here, seen = there(np.stack([centre, centre + shift]))  # what is seen there has to be seen here
    step = here - seen
    if not np.isfinite(step).all():
        raise GridError(name, "its CRS isn't defined around the scene", "warp it first with gdalwarp")
    a, b, c, d, e, f = grid.affine[:6]
    right, up = (np.array([[a, b], [d, e]]) @ step).tolist()
    moved = GeoBox(grid.shape, Affine(a, b, c + right, d, e, f + up), grid.crs)
    return Move(moved, _error(there, points, step, shift))


def compose(outer: Affine, inner: Affine) -> Affine:
    """Return the affine that applies `inner` first; releases of the affine package disagree on the operator."""
    a, b = (np.array(affine[:9]).reshape(3, 3) for affine in (outer, inner))
    return Affine(*(a @ b)[:2].ravel().tolist())


def move_notice(name: str, error: float) -> str:
    """Say that a move fits less well at the scene's edges."""
    return f"{name}: moved along its own CRS; at the scene's edges this is off by up to {error:.2f} optical pixels"


def _common_points(there: PixelMap, reference: GeoBox, grid: GeoBox) -> NDArray[np.float64]:
    """Return points of the reference grid [n, 2] that lie on the other, evenly spread."""
    height, width = reference.shape
    for steps in (_STEPS, 8 * _STEPS):  # a small raster on a large one may lie between coarse points
        mesh = np.meshgrid(np.linspace(0, width, steps), np.linspace(0, height, steps))
        points = np.stack(mesh, axis=-1).reshape(-1, 2)
        with np.errstate(invalid="ignore"):
            mapped = there(points)
            inside = ((mapped >= 0) & (mapped <= grid.shape[::-1])).all(axis=1)
        if inside.any():
            return np.asarray(points[inside])
    back = PixelMap(grid, reference, "SAR")(np.array([[grid.shape[1] / 2, grid.shape[0] / 2]]))
    on = np.isfinite(back).all() and ((back >= 0) & (back <= (width, height))).all()
    return back if on else np.empty((0, 2))


def _error(
    there: PixelMap, points: NDArray[np.float64], step: NDArray[np.float64], shift: NDArray[np.float64]
) -> float:
    """Return the largest distance, in target pixels, between a step of the source and a shift of the target."""
    now, ideal = there(points) - step, there(points + shift)
    size = math.sqrt(abs(float(np.linalg.det(_slope(there, points.mean(axis=0))))))
    return float(np.nanmax(np.hypot(*(now - ideal).T))) / size


def _slope(there: PixelMap, at: NDArray[np.float64]) -> NDArray[np.float64]:
    around = there(at + np.array([[0.5, 0], [-0.5, 0], [0, 0.5], [0, -0.5]]))
    return np.stack([around[0] - around[1], around[2] - around[3]], axis=1)
