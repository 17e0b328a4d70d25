"""A scene: an optical and auxiliary sources on one grid, read window by window."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from os import PathLike
from typing import Literal

import numpy as np
from affine import Affine
from numpy.typing import NDArray

from gopt_geo.errors import GridError
from gopt_geo.grid import GeoBox, Window
from gopt_geo.scene.bandset import JoinedSource
from gopt_geo.scene.clouds import CloudSource
from gopt_geo.scene.dates import far_apart
from gopt_geo.scene.extent import Extent, check_grid_options, lattice_in, place_scene, with_resolution
from gopt_geo.scene.mosaicking import MosaicSource, OpenedMosaic, open_modality
from gopt_geo.scene.opening import Opened, SourceSpec, check_georeferenced
from gopt_geo.scene.source import RasterSource
from gopt_geo.scene.unchanged import check_unchanged
from gopt_geo.scene.warp import AlignedSource

__all__ = ["Scene", "SceneBlock", "SourceSpec", "open_scene"]

_Source = AlignedSource | JoinedSource | MosaicSource
_Opened = Opened | OpenedMosaic


@dataclass(frozen=True)
class SceneBlock:
    """A window of a scene.

    Parameters
    ----------
    values
        float32 [C, h, w] by modality, in the pack's units; 0 where invalid.
    valid
        bool [h, w] by modality.
    """

    values: dict[str, NDArray[np.float32]]
    valid: dict[str, NDArray[np.bool_]]


class Scene:
    """Sources on one grid; made by `open_scene`.

    Attributes
    ----------
    grid : GeoBox
        The scene grid; `grid.crs` is None only with `pixel_grid`.
    shape : tuple of int
        Height and width in pixels.
    modalities : tuple of str
        Names of the sources, "optical" first.
    notices : list of str
        What was taken for granted, one line each; the command line prints them.
    shared : float
        Share of the scene grid where all footprints lie, 0 to 1.
    """

    def __init__(
        self,
        grid: GeoBox,
        sources: Mapping[str, _Source],
        masks: Mapping[str, AlignedSource],
        notices: Sequence[str],
        shared: float,
    ) -> None:
        self.grid = grid
        self.shape: tuple[int, int] = (grid.shape[0], grid.shape[1])
        self.modalities = tuple(sources)
        self.notices = list(notices)
        self.shared = shared
        self._sources = dict(sources)
        self._masks = dict(masks)

    @property
    def source_grids(self) -> dict[str, GeoBox]:
        """Each modality's own grid, of its finest bands or over all its rasters, after any move."""
        return {name: source.own_grid for name, source in self._sources.items()}

    @property
    def counts(self) -> dict[str, int]:
        """Number of bands of each modality."""
        return {name: source.count for name, source in self._sources.items()}

    @property
    def band_names(self) -> dict[str, tuple[str, ...]]:
        """What the files call each modality's bands, "" where they don't say."""
        return {name: source.band_names for name, source in self._sources.items()}

    @property
    def cache_bytes(self) -> int:
        """Bytes that the caches of blocks may hold in all."""
        return sum(source.cache_bytes for source in (*self._sources.values(), *self._masks.values()))

    @property
    def block_memory(self) -> int:
        """Bytes that one reading thread may need, about."""
        # While a block of a source is made, a block of its mask may be.
        masks = max((mask.block_memory for mask in self._masks.values()), default=0)
        return max(source.block_memory for source in self._sources.values()) + masks

    def read(self, window: Window) -> SceneBlock:
        """Read a window of the scene grid, which may hang over its edges, from any thread.

        Raises
        ------
        SourceError
            If a file's bytes are damaged.
        """
        values, valid = {}, {}
        for name, source in self._sources.items():
            values[name], valid[name] = source.read(window)
            if name in self._masks:
                marked, _ = self._masks[name].read(window)
                clear = (marked == 0).all(axis=0)
                valid[name] = valid[name] & clear
                values[name] = np.where(valid[name], values[name], np.float32(0))
        return SceneBlock(values, valid)

    def blank(self, window: Window, modalities: Sequence[str]) -> bool:
        """Return True only if surely no pixel of a window is valid in any of these modalities; cheap, and no read."""
        used = [self._sources[name] for name in modalities if name in self._sources]
        return bool(used) and all(source.blank(window) for source in used)

    def check_unchanged(self) -> None:
        """Look whether all files are still what they were when they were opened.

        Raises
        ------
        SourceError
            If one was written to, replaced or removed.
        """
        check_unchanged([*self._sources.values(), *self._masks.values()])

    def close(self) -> None:
        """Close all files; no read may be under way."""
        for source in (*self._sources.values(), *self._masks.values()):
            source.close()

    def __enter__(self) -> Scene:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def open_scene(
    optical: SourceSpec | None,
    auxiliary: Mapping[str, SourceSpec],
    *,
    grid: Literal["optical", "sar"] | str | PathLike[str] | GeoBox = "optical",
    extent: Extent = "optical",
    resolution: float | None = None,
    crs: str | None = None,
    pixel_grid: bool = False,
    cache_bytes: int | None = None,
    by_window: bool = False,
    shifts: Mapping[str, tuple[float, float]] | None = None,
) -> Scene:
    """Open sources and bring them onto one grid.

    Parameters
    ----------
    optical
        The optical source, or None.
    auxiliary
        Further sources by modality name ("sar", ...); at least one source in all.
    grid
        Whose lattice (CRS, pixel size, alignment) the scene grid takes: "optical", "sar" (the first
        auxiliary) or a raster file's. Without an optical source "optical" means the first auxiliary. A `GeoBox`
        is the scene grid itself, whatever `extent` and `resolution` say.
    extent
        "optical" (the first source's), "intersection" or "union" of the sources; "grid": all of the raster that
        `grid` names, so that scenes of other ground get the very same grid.
    resolution
        Pixel size of the scene grid in units of its CRS; None keeps the lattice's.
    crs
        CRS of the scene grid, whose pixels then begin at whole multiples of `resolution`; None keeps the lattice's.
    pixel_grid
        Ignore georeferencing: all shapes must be equal, pixels are laid upon each other, the grid has no CRS.
    cache_bytes
        Bound of each source's block cache; None suits reading row by row.
    by_window
        Make each window by itself, and keep nothing: cheaper where a few small windows are read. What is warped may
        then differ within the warp's tolerance from what is read otherwise.
    shifts
        By modality, how far its content lies from where it belongs, in pixels of the optical source, right and down:
        its grid is moved back before the one warp.

    Raises
    ------
    SourceError
        If a file can't be read, or holds no valid pixel.
    BandError
        If bands don't exist, or their number isn't the pack's.
    RadiometryError
        If a unit isn't stated.
    GridError
        If a raster isn't georeferenced, or the rasters don't overlap.
    ValueError
        If there is no source.
    """
    specs = {**({} if optical is None else {"optical": optical}), **auxiliary}
    if not specs:
        raise ValueError("a scene needs at least one source")
    check_grid_options(grid, extent, resolution, crs, pixel_grid)
    opened: dict[str, _Opened] = {}
    notices: list[str] = []
    try:
        for name, spec in specs.items():
            opened[name] = open_modality(name, spec, pixel_grid, notices)
        for name, (dx, dy) in (shifts or {}).items():
            notices += opened[name].move(opened["optical"].grid, dx, dy)
        scene_grid, shared = _scene_grid(opened, grid, extent, resolution, crs, pixel_grid)
        if pixel_grid:
            notices.append("pixel grid: georeferencing is ignored, the result carries no CRS")
        sources: dict[str, _Source] = {}
        masks: dict[str, AlignedSource] = {}
        for name, entry in opened.items():
            sources[name] = entry.align(scene_grid, by_pixel=pixel_grid, cache_bytes=cache_bytes, by_window=by_window)
            if entry.mask is not None:
                masks[name] = AlignedSource(
                    entry.mask,
                    scene_grid,
                    "nearest",
                    by_pixel=pixel_grid,
                    cache_bytes=cache_bytes,
                    by_window=by_window,
                )
        for aligned in (*sources.values(), *masks.values()):
            notices += [aligned.notice] if aligned.notice else []
        notices += far_apart({name: entry.acquired for name, entry in opened.items() if entry.acquired is not None})
        return Scene(scene_grid, sources, masks, notices, shared)
    except BaseException:
        for entry in opened.values():
            entry.close()
        raise


def _scene_grid(
    opened: Mapping[str, _Opened],
    base: str | PathLike[str] | GeoBox,
    extent: Extent,
    resolution: float | None,
    crs: str | None,
    pixel_grid: bool,
) -> tuple[GeoBox, float]:
    """Return the scene grid and the share of it where all footprints lie."""
    lead, *others = list(opened.values())
    if pixel_grid:
        masks = [entry.mask for entry in opened.values() if entry.mask is not None]
        further: list[_Opened | CloudSource] = [*others, *masks]
        for other in further:
            if other.grid.shape != lead.grid.shape:
                found = f"{_size(other.grid)} pixels, {lead.name} has {_size(lead.grid)}"
                raise GridError(other.name, found, "--pixel-grid needs rasters of equal shape")
        assert isinstance(lead, Opened), "a mosaic was refused"
        placed = lead.parts[0][0].control is None  # else the affine is one fitted to points, and says nothing here
        return GeoBox(lead.grid.shape, lead.grid.affine if placed else Affine.identity(), None), 1.0
    grids = {name: (entry.name, entry.grids) for name, entry in opened.items()}
    if isinstance(base, GeoBox):
        scene_grid, shared = place_scene({"grid": ("the grid asked for", (base,)), **grids}, base, "optical")
    else:
        if crs is not None and resolution is not None:
            lattice_grid = lattice_in(crs, resolution, lead.grid, lead.name)
        else:
            lattice_grid = _lattice_grid([lead, *others], base, "optical" in opened)
            lattice_grid = lattice_grid if resolution is None else with_resolution(lattice_grid, resolution)
        scene_grid, shared = place_scene(grids, lattice_grid, extent)
    for entry in opened.values():
        if entry.mask is not None:  # a mask of other ground would silently mask nothing
            place_scene(
                {"scene": ("the scene", scene_grid), "mask": (entry.mask.name, entry.mask.grid)},
                scene_grid,
                "optical",
            )
    return scene_grid, shared


def _lattice_grid(sources: Sequence[_Opened], base: str | PathLike[str], has_optical: bool) -> GeoBox:
    """Return the grid of the source, or of the file, whose lattice is asked for."""
    lead, *others = sources
    if base == "optical":
        return lead.grid
    if base == "sar":
        if has_optical and not others:
            raise GridError("--grid sar", "there is no SAR source", "give one, or use --grid optical")
        return others[0].grid if has_optical else lead.grid
    with RasterSource(base) as file:
        check_georeferenced(file, pixel_grid=False)
        return file.grid


def _size(grid: GeoBox) -> str:
    return f"{grid.shape[0]} x {grid.shape[1]}"
