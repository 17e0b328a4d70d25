"""The shift of two sources: opened on one lattice, estimated, and told in pixels of the optical raster."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from affine import Affine

from gopt_geo.grid import GeoBox, pixel_size_m
from gopt_geo.scene.opening import SourceSpec
from gopt_geo.scene.scene import Scene, open_scene
from gopt_geo.scene.shift.estimate import ShiftEstimate, estimate_shift

__all__ = ["PairShift", "estimate_pair"]

_COARSER = 1.5  # times; from here on the finer of two rasters is looked at in pixels of the coarser
_CACHE_BYTES = 64 << 20  # each template is read once


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
    notices
        What was taken for granted in opening them.
    """

    estimate: ShiftEstimate
    grid: GeoBox
    auxiliary_grid: GeoBox
    notices: tuple[str, ...]


def estimate_pair(
    optical: SourceSpec, auxiliary: SourceSpec, name: str = "sar", *, points: int = 64, search: int = 12
) -> PairShift:
    """Estimate how far an auxiliary source's content lies from where it belongs.

    Parameters
    ----------
    optical, auxiliary
        The sources; both georeferenced.
    name
        The auxiliary modality's.
    points
        Points that are looked at, at most, spread over the ground that both sources share.
    search
        Largest shift that is looked for along each axis, in pixels of the coarser raster.

    Raises
    ------
    GoptGeoError
        See `gopt_geo.scene.open_scene`.

    Notes
    -----
    Where one raster's pixels are more than 1.5 times as large as the other's, both are looked at in the larger pixels;
    a shift finer than SAR's own pixels can't be seen in finer optical ones.
    """
    with _opened(optical, auxiliary, name) as scene:
        grids = scene.source_grids
        grid, other = grids["optical"], grids[name]
        estimate = estimate_shift(scene, name, points=points, search=search)
        return PairShift(estimate.on(scene.grid, grid), grid, other, tuple(scene.notices))


@contextmanager
def _opened(optical: SourceSpec, auxiliary: SourceSpec, name: str) -> Iterator[Scene]:
    """Open both on the optical lattice, coarsened where SAR's pixels are larger, where they share ground."""
    scene = open_scene(optical, {name: auxiliary}, extent="intersection", cache_bytes=_CACHE_BYTES)
    with scene:
        ratio = pixel_size_m(scene.source_grids[name]) / pixel_size_m(scene.grid)
        if not (math.isfinite(ratio) and ratio > _COARSER):
            yield scene
            return
        coarse = _coarsened(scene.grid, ratio)
    with open_scene(optical, {name: auxiliary}, grid=coarse, cache_bytes=_CACHE_BYTES) as scene:
        yield scene


def _coarsened(grid: GeoBox, ratio: float) -> GeoBox:
    height, width = (max(math.floor(length / ratio), 1) for length in grid.shape)
    return GeoBox((height, width), grid.affine * Affine.scale(ratio), grid.crs)
