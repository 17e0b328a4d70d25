"""Several rasters of one modality on the scene grid: each warped once, the first with data wins."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from gopt_geo.errors import BandError, GridError
from gopt_geo.grid import GeoBox, Window
from gopt_geo.scene.bandfiles import source_name
from gopt_geo.scene.bandset import JoinedSource
from gopt_geo.scene.dates import Acquired
from gopt_geo.scene.extent import cover, place_scene
from gopt_geo.scene.mosaic import SceneMosaic
from gopt_geo.scene.opening import Opened, SourceSpec, open_source
from gopt_geo.scene.unchanged import check_unchanged
from gopt_geo.scene.warp import AlignedSource

__all__ = ["MosaicSource", "OpenedMosaic", "open_modality"]

Aligned = AlignedSource | JoinedSource


class _Part(NamedTuple):
    """One raster on the scene grid, and where its pixels aren't to be used."""

    source: Aligned
    mask: AlignedSource | None


class MosaicSource:
    """Rasters on the scene grid, laid one under the other.

    What a pixel holds is that of the first raster that is valid there: neither the window nor the order of reading
    has a say in it.

    Parameters
    ----------
    parts
        The rasters, the first on top, and the masks of what isn't to be used of each.
    own_grid
        Grid of all together before any warp: the lattice of the first.
    """

    def __init__(self, parts: Sequence[tuple[Aligned, AlignedSource | None]], own_grid: GeoBox) -> None:
        self._parts = tuple(_Part(*part) for part in parts)
        self.own_grid = own_grid
        self.count = self._parts[0].source.count

    @property
    def band_names(self) -> tuple[str, ...]:
        """What the first raster calls the bands."""
        return self._parts[0].source.band_names

    @property
    def notice(self) -> str | None:
        """What the user should know about the accuracy of the transformations."""
        found = (part.notice for pair in self._parts for part in pair if part is not None)
        return next((notice for notice in found if notice), None)

    @property
    def cache_bytes(self) -> int:
        """Bytes that the caches of blocks may hold in all."""
        return sum(part.cache_bytes for pair in self._parts for part in pair if part is not None)

    @property
    def block_memory(self) -> int:
        """Bytes that one reading thread may need: the most hungry raster's, and the window put together."""
        hungry = max(part.block_memory for pair in self._parts for part in pair if part is not None)
        return hungry + self.count * (1 << 20)

    def read(self, window: Window) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """Read a window of the scene grid; a pixel is valid where one of the rasters is, and 0 elsewhere."""
        values, valid = np.zeros((self.count, *window.shape), np.float32), np.zeros(window.shape, np.bool_)
        for source, mask in self._parts:
            if source.blank(window):
                continue
            found, usable = source.read(window)
            usable = usable & ~valid
            if mask is not None and usable.any():
                usable &= (mask.read(window)[0] == 0).all(axis=0)
            np.copyto(values, found, where=usable)
            valid |= usable
            if valid.all():
                break
        return values, valid

    def blank(self, window: Window) -> bool:
        """Return True only if surely no pixel of a window is valid; the masks aren't looked at."""
        return all(part.source.blank(window) for part in self._parts)

    def check_unchanged(self) -> None:
        """Raise SourceError if a file has changed since it was opened."""
        check_unchanged(part for pair in self._parts for part in pair if part is not None)

    def close(self) -> None:
        """Drop the caches and close all files."""
        for pair in self._parts:
            for part in pair:
                if part is not None:
                    part.close()


@dataclass(frozen=True)
class OpenedMosaic:
    """Several rasters of one modality before the scene grid is known; see `gopt_geo.scene.opening.Opened`.

    Attributes
    ----------
    name
        What messages call the whole.
    rasters
        The first goes first.
    """

    name: str
    rasters: tuple[Opened, ...]

    mask = None
    """Masks are the rasters' own: what one hides another may show."""

    @property
    def grids(self) -> tuple[GeoBox, ...]:
        """Grid of each raster."""
        return tuple(grid for raster in self.rasters for grid in raster.grids)

    @property
    def grid(self) -> GeoBox:
        """The first raster's lattice, over the ground of all."""
        lead = self.rasters[0].grid
        return cover([(raster.name, raster.grid) for raster in self.rasters], lead)

    @property
    def acquired(self) -> Acquired | None:
        """The span of time in which they were acquired, as far as they tell."""
        known = [raster.acquired for raster in self.rasters if raster.acquired is not None]
        if not known:
            return None
        return Acquired(min(a.first for a in known), max(a.last for a in known), known[0].origin)

    def align(self, grid: GeoBox, *, by_pixel: bool, cache_bytes: int | None, by_window: bool = False) -> MosaicSource:
        """Bring all rasters onto the scene grid; each has a cache of its own."""
        self._check_masks(grid)
        parts = []
        for raster in self.rasters:
            source = raster.align(grid, by_pixel=by_pixel, cache_bytes=cache_bytes, by_window=by_window)
            mask = raster.mask
            clouds = None
            if mask is not None:
                clouds = AlignedSource(mask, grid, "nearest", cache_bytes=cache_bytes, by_window=by_window)
            parts.append((source, clouds))
        return MosaicSource(parts, self.grid)

    def _check_masks(self, grid: GeoBox) -> None:
        """Refuse masks of other ground; one of them has to show some of the scene, as its raster may not."""
        faults = []
        for mask in (raster.mask for raster in self.rasters if raster.mask is not None):
            try:
                place_scene({"scene": ("the scene", grid), "mask": (mask.name, mask.grid)}, grid, "optical")
            except GridError as error:
                faults.append(error)
            else:
                return
        if faults:
            raise faults[0]

    def move(self, reference: GeoBox, dx: float, dy: float) -> list[str]:
        """Move all grids by a shift in pixels of a reference grid; return what is to be said of it."""
        return [said for raster in self.rasters for said in raster.move(reference, dx, dy)]

    def close(self) -> None:
        """Close all files."""
        for raster in self.rasters:
            raster.close()


def open_modality(modality: str, spec: SourceSpec, pixel_grid: bool, notices: list[str]) -> Opened | OpenedMosaic:
    """Open one source, or all rasters of a mosaic; see `gopt_geo.scene.opening.open_source`.

    Raises
    ------
    GoptGeoError
        If a file, its bands, unit, place or data don't serve; no file stays open then.
    """
    if not isinstance(spec.path, SceneMosaic):
        return open_source(modality, spec, pixel_grid, notices)
    name = source_name(spec.path)
    if pixel_grid:
        found = "rasters of one mosaic are told apart by their place, and --pixel-grid ignores that"
        raise GridError(name, found, "give one raster, or leave --pixel-grid out")
    opened: list[Opened] = []
    said: list[str] = []
    try:
        for source in spec.path:
            opened.append(open_source(modality, replace(spec, path=source), pixel_grid, said))
        _check_one_kind(name, modality, opened)
    except BaseException:
        for raster in opened:
            raster.close()
        raise
    notices += [line for line in dict.fromkeys(said) if line not in notices]
    return OpenedMosaic(name, tuple(opened))


def _check_one_kind(name: str, modality: str, opened: Sequence[Opened]) -> None:
    """Refuse rasters of different numbers of bands, where the pack doesn't say how many there are to be."""
    for raster in opened[1:]:
        if len(raster.order) != len(opened[0].order):
            found = f"{raster.name} has {len(raster.order)} bands, {opened[0].name} has {len(opened[0].order)}"
            raise BandError(name, found, f"choose the same bands of all with --{modality}-bands")
