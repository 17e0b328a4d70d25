"""The shift of two sources: opened on one lattice, estimated, and told in pixels of the optical raster."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from affine import Affine

from gopt_geo.grid import GeoBox, pixel_size_m
from gopt_geo.scene.moving import compose
from gopt_geo.scene.opening import SourceSpec
from gopt_geo.scene.scene import Scene, open_scene
from gopt_geo.scene.shift.estimate import ShiftEstimate, estimate_shift

__all__ = ["PairShift", "estimate_pair"]

_COARSER = 1.5  # times; from here on the finer of two rasters is looked at in pixels of the coarser


@dataclass(frozen=True)
class PairShift:
    """The shift between two sources.

    Attributes
    ----------
    estimate
        In pixels of the optical raster, its points counted from that raster's upper left corner.
    grid
        The optical raster's.
    auxiliary_grid
        The other's.
    common_grid
        Where both were compared: the ground they share, on the optical lattice or a coarser one.
    notices
        What was taken for granted in opening them.
    """

    estimate: ShiftEstimate
    grid: GeoBox
    auxiliary_grid: GeoBox
    common_grid: GeoBox
    notices: tuple[str, ...]

    @property
    def pixel_size(self) -> float:
        """Edge of an optical pixel in metres; NaN without a CRS."""
        return pixel_size_m(self.grid)


def estimate_pair(
    optical: SourceSpec,
    auxiliary: SourceSpec,
    name: str = "sar",
    *,
    points: int = 64,
    search: int = 12,
    pixel_grid: bool = False,
    part: Callable[[GeoBox], GeoBox] | None = None,
) -> PairShift:
    """Estimate how far an auxiliary source's content lies from where it belongs.

    Parameters
    ----------
    optical, auxiliary
        The sources.
    name
        The auxiliary modality's.
    points
        Points that are looked at, at most, spread over the ground that both sources share.
    search
        Largest shift that is looked for along each axis, in pixels of the coarser raster.
    pixel_grid
        Lay the rasters pixel upon pixel, whatever they say of their place.
    part
        Returns the part of the ground to look at, given the grid of all that both share; None: all of it.

    Raises
    ------
    GoptGeoError
        See `gopt_geo.scene.open_scene`.

    Notes
    -----
    Where SAR's pixels are more than 1.5 times as large as the optical ones, both are looked at in SAR's: a shift
    isn't seen better in pixels that hold no more. Where they are smaller, in optical ones.
    """
    with _opened(optical, auxiliary, name, pixel_grid, part) as scene:
        grids = scene.source_grids
        grid, common = grids["optical"], scene.grid
        if pixel_grid:  # both count pixels; the optical grid's own place means nothing
            grid = common
        estimate = estimate_shift(scene, name, points=points, search=search)
        return PairShift(estimate.on(common, grid), grid, grids[name], common, tuple(scene.notices))


@contextmanager
def _opened(
    optical: SourceSpec,
    auxiliary: SourceSpec,
    name: str,
    pixel_grid: bool,
    part: Callable[[GeoBox], GeoBox] | None,
) -> Iterator[Scene]:
    """Open both on the optical lattice, coarsened where SAR's pixels are larger, where they share ground."""
    both = {name: auxiliary}
    with open_scene(optical, both, extent="intersection", pixel_grid=pixel_grid, by_window=True) as scene:
        ratio = math.nan if pixel_grid else pixel_size_m(scene.source_grids[name]) / pixel_size_m(scene.grid)
        coarser = math.isfinite(ratio) and ratio > _COARSER
        if not coarser and part is None:
            yield scene
            return
        grid = scene.grid if part is None else part(scene.grid)
        grid = _coarsened(grid, ratio) if coarser else grid
    with open_scene(optical, both, grid=grid, by_window=True) as scene:
        yield scene


def _coarsened(grid: GeoBox, ratio: float) -> GeoBox:
    height, width = (max(math.floor(length / ratio), 1) for length in grid.shape)
    return GeoBox((height, width), compose(grid.affine, Affine.scale(ratio)), grid.crs)
