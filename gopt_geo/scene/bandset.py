"""Bands in several files: those on one grid are read together, and each group is warped once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gopt_geo.errors import BandError
from gopt_geo.grid import GeoBox, Window, corner_distance, pixel_size_m
from gopt_geo.scene.bandfile import BandFile
from gopt_geo.scene.footprint import surely_blank
from gopt_geo.scene.source import BandTags, PixelSource, RasterSource
from gopt_geo.scene.unchanged import check_unchanged
from gopt_geo.scene.warp import AlignedSource

__all__ = ["JoinedSource", "StackedSource", "open_groups"]

_ONE_GRID = 1e-3  # pixels; files whose corners agree within this lie on one grid


class StackedSource:
    """Bands of several files that lie on one grid, read as if they were one file's.

    Parameters
    ----------
    sources
        One or more, of one shape and place; closed together with this object.
    name
        What messages call the whole.
    """

    def __init__(self, sources: Sequence[RasterSource], name: str) -> None:
        self._sources = tuple(sources)
        self.name = name
        self.grid: GeoBox = sources[0].grid
        self.count = sum(source.count for source in sources)
        self.dtype: np.dtype[Any] = np.result_type(*(source.dtype for source in sources))
        self.tags = tuple(tag for source in sources for tag in source.tags)
        self.band_names = tuple(band for source in sources for band in source.band_names)
        self.file_tags: Mapping[str, str] = sources[0].file_tags
        self.remote = any(source.remote for source in sources)
        self.control = sources[0].control
        self.not_placed = next((source.not_placed for source in sources if source.not_placed is not None), None)
        self.has_palette = any(source.has_palette for source in sources)

    def read(self, window: Window) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """Read all bands; a pixel is valid where every one of them carries data, and 0 elsewhere."""
        parts = [source.read(window) for source in self._sources]
        values = np.concatenate([part[0] for part in parts])
        valid = np.logical_and.reduce([part[1] for part in parts])
        values[:, ~valid] = 0
        return values, valid

    def blank(self, window: Window) -> bool:
        """Return True only if surely no pixel of a window is valid: where one of the bands has none."""
        return any(surely_blank(source, window) for source in self._sources)

    def check_unchanged(self) -> None:
        """Raise SourceError if a file has changed since it was opened."""
        check_unchanged(self._sources)

    def close(self) -> None:
        """Close all files."""
        for source in self._sources:
            source.close()


class JoinedSource:
    """Groups of bands on the scene grid, each warped once, joined into one modality.

    Parameters
    ----------
    parts
        The groups.
    order
        For each band of the modality, which of the parts' bands, counted through, it is.
    """

    def __init__(self, parts: Sequence[AlignedSource], order: Sequence[int]) -> None:
        self.parts = tuple(parts)
        self.order = list(order)
        self.count = len(self.order)

    @property
    def own_grid(self) -> GeoBox:
        """The finest group's own grid."""
        return self.parts[0].own_grid

    @property
    def band_names(self) -> tuple[str, ...]:
        """What the files call the modality's bands, "" where they don't say."""
        names = [band for part in self.parts for band in part.band_names]
        return tuple(names[i] for i in self.order)

    @property
    def notice(self) -> str | None:
        """What the user should know about the accuracy of the transformations."""
        return next((part.notice for part in self.parts if part.notice), None)

    @property
    def cache_bytes(self) -> int:
        """Bytes that the caches of blocks may hold in all."""
        return sum(part.cache_bytes for part in self.parts)

    @property
    def block_memory(self) -> int:
        """Bytes that one reading thread may need: the most hungry group's, and the joined window."""
        return max(part.block_memory for part in self.parts) + sum(part.count for part in self.parts) * (1 << 20)

    def read(self, window: Window) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """Read a window of the scene grid; a pixel is valid where every group is, and 0 elsewhere."""
        blocks = [part.read(window) for part in self.parts]
        values = np.concatenate([block[0] for block in blocks])[self.order]
        valid = np.logical_and.reduce([block[1] for block in blocks])
        values[:, ~valid] = 0
        return values, valid

    def blank(self, window: Window) -> bool:
        """Return True only if surely no pixel of a window is valid: where one of the groups has none."""
        return any(part.blank(window) for part in self.parts)

    def check_unchanged(self) -> None:
        """Raise SourceError if a file has changed since it was opened."""
        check_unchanged(self.parts)

    def close(self) -> None:
        """Drop the caches and close all files."""
        for part in self.parts:
            part.close()


def open_groups(chosen: Sequence[BandFile], name: str) -> tuple[list[PixelSource], list[int]]:
    """Open band files and group them by grid.

    Returns
    -------
    groups
        The finest first.
    order
        For each of the chosen bands its place among the groups' bands, counted through.

    Raises
    ------
    GoptGeoError
        If a file can't be opened, or doesn't have the band; no file stays open then.
    """
    files = list(dict.fromkeys(chosen))
    opened: list[RasterSource] = []
    try:
        for file in files:
            opened.append(_open(file))
    except BaseException:
        for source in opened:
            source.close()
        raise
    groups: list[list[int]] = []
    for i, source in enumerate(opened):
        same = (g for g in groups if _on_one_grid(opened[g[0]], source))
        group = next(same, None)
        if group is None:
            groups.append([i])
        else:
            group.append(i)
    groups.sort(key=lambda group: _fineness(opened[group[0]].grid))
    places = {files[i]: place for place, i in enumerate(i for group in groups for i in group)}
    stacked: list[PixelSource] = [
        StackedSource([opened[i] for i in group], name if len(groups) == 1 else f"{name} ({_bands(files, group)})")
        for group in groups
    ]
    return stacked, [places[file] for file in chosen]


def _open(file: BandFile) -> RasterSource:
    source = RasterSource(file.path, None if file.index is None else [file.index], nodata=file.nodata)
    if source.count > 1:
        source.close()
        found = f"it has {source.count} bands; among several files each holds one"
        raise BandError(file.path, found, "give it alone, or split it with gdal_translate -b")
    if file.scale is not None or file.offset is not None:
        scale, offset = 1.0 if file.scale is None else file.scale, 0.0 if file.offset is None else file.offset
        source.tags = (BandTags(scale, offset, source.tags[0].unit),)
    source.band_names = (file.name or source.band_names[0],)
    return source


def _on_one_grid(one: RasterSource, other: RasterSource) -> bool:
    a, b = one.grid, other.grid
    if a.shape != b.shape or one.control != other.control:
        return False
    if a.crs is None and b.crs is None:
        return bool(a.affine.almost_equals(b.affine))
    return corner_distance(a, b) <= _ONE_GRID


def _fineness(grid: GeoBox) -> float:
    return pixel_size_m(grid) if grid.crs is not None else abs(grid.affine.determinant) ** 0.5


def _bands(files: Sequence[BandFile], group: Sequence[int]) -> str:
    return ", ".join(files[i].name or str(i + 1) for i in group)
