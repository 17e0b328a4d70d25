"""Images on one scene grid as torchgeo data sets, and what is combined of them with ``&``."""

from __future__ import annotations

import copy
import os
import pickle
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, Self

import torch

from gopt_geo.datasets.base import Sample, SceneDataset, Transforms
from gopt_geo.datasets.compat import GeoDataset
from gopt_geo.errors import DatasetError
from gopt_geo.grid import GeoBox, Window, same_crs, whole_pixel_offset
from gopt_geo.paths import StrPath
from gopt_geo.scene import RasterSource, SourceSpec, open_scene
from gopt_geo.scene.extent import place_scene

__all__ = ["ImageDataset", "OpticalDataset", "SarDataset", "ScenePairs"]

CACHE_BYTES = 512 << 20
"""Bytes of finished blocks that each source keeps, in each worker: scenes within this are warped once."""


class ImageDataset(SceneDataset):
    """One image source on a grid.

    A sample holds, for a modality called NAME, ``NAME``: float32 [C, h, w], 0 where invalid; and ``validity_NAME``:
    bool [h, w].

    Parameters
    ----------
    path
        The raster.
    modality
        "optical", or the name of another modality.
    target_units
        Unit of the sample's values; see `gopt_geo.scene.plan_radiometry`.
    bands
        Bands by 1-based index or name; None takes all.
    units
        Unit of the stored values where the file doesn't state it.
    mask
        Raster that marks pixels not to use (clouds): any value but 0.
    grid
        The scene grid; None takes the raster's own.
    transforms
        Applied to each sample.
    tile_size
        Size of the windows that samplers will ask for: torchgeo's samplers leave out what is smaller, so that a
        smaller raster is entered into the index with this size, and padded.
    cache_bytes
        Bound of the finished blocks kept, in each worker process.

    Raises
    ------
    GoptGeoError
        If the raster can't be used, see `gopt_geo.scene.open_scene`; or the grid isn't along the CRS's axes.
    """

    def __init__(
        self,
        path: StrPath,
        modality: str,
        target_units: str,
        *,
        bands: Sequence[int | str] | None = None,
        units: str | None = None,
        mask: StrPath | None = None,
        grid: GeoBox | None = None,
        transforms: Transforms | None = None,
        tile_size: int | None = None,
        cache_bytes: int = CACHE_BYTES,
    ) -> None:
        with RasterSource(path, bands) as source:
            count, self._own_grid = source.count, source.grid
        self._name, self.modality = str(path), modality
        self.paths = self._name
        self._spec = SourceSpec(path, bands, units, target_units, count, None if mask is None else Path(mask))
        self._cache_bytes = cache_bytes
        self._open(grid)
        self._place(self._own_footprint(), transforms, tile_size)

    def _open(self, grid: GeoBox | None) -> None:
        optical, others = (self._spec, {}) if self.modality == "optical" else (None, {self.modality: self._spec})
        base: Literal["optical"] | GeoBox = "optical" if grid is None else grid
        self._scene = open_scene(optical, others, grid=base, cache_bytes=self._cache_bytes)
        self._process = os.getpid()
        self.grid, self.notices = self._scene.grid, list(self._scene.notices)

    def _own_footprint(self) -> Window:
        """Return the part of the grid where the raster lies."""
        grid = self._on_grid()
        part, _ = place_scene({"grid": ("the grid", grid), "own": (self._name, self._own_grid)}, grid, "intersection")
        row, col = whole_pixel_offset(part, grid) or (0, 0)
        return Window(row, col, *part.shape)

    def __str__(self) -> str:
        return f"{type(self).__name__}({self._name})"

    @property
    def keys(self) -> tuple[str, ...]:
        """The modality, and its validity."""
        return self.modality, f"validity_{self.modality}"

    def on(self, grid: GeoBox) -> Self:
        """Return the data set on another grid; this one stays as it is.

        Raises
        ------
        GridError
            If the raster doesn't overlap with the grid.
        """
        moved = copy.copy(self)
        moved._region = None
        moved._open(grid)
        moved._place(moved._own_footprint(), self.transforms, self._tile_size)
        return moved

    def read(self, window: Window) -> Sample:
        """Return the values and the validity of a window of the grid."""
        if self._process != os.getpid():  # a forked worker: a handle's place in the file is shared with the parent
            self._scene = pickle.loads(pickle.dumps(self._scene))
            self._process = os.getpid()
        block = self._scene.read(window)
        values, valid = block.values[self.modality], block.valid[self.modality]
        return {self.keys[0]: torch.from_numpy(values), self.keys[1]: torch.from_numpy(valid)}

    def close(self) -> None:
        """Close the files."""
        self._scene.close()


class OpticalDataset(ImageDataset):
    """An optical raster: ``optical`` in reflectance (or as `target_units` says), and ``validity_optical``.

    Parameters are those of `ImageDataset`.
    """

    def __init__(self, path: StrPath, *, target_units: str = "reflectance", **options: Any) -> None:
        super().__init__(path, "optical", target_units, **options)


class SarDataset(ImageDataset):
    """A SAR raster: ``sar`` in dB (or as `target_units` says), and ``validity_sar``.

    Parameters are those of `ImageDataset`.
    """

    def __init__(self, path: StrPath, *, target_units: str = "db", **options: Any) -> None:
        super().__init__(path, "sar", target_units, **options)


class ScenePairs(SceneDataset):
    """Optical images, SAR images and labels on one grid.

    Samples hold what each of the data sets gives. The index covers the ground that they have in common.

    Parameters
    ----------
    optical, sar, labels
        Data sets, or for images the paths of rasters; at least one.
    grid
        The scene grid: "optical", "sar", or a grid. "optical" means the first of the three that has one.
    transforms
        Applied to each sample; those of the data sets come first.
    tile_size
        See `ImageDataset`; else the largest of the data sets'.

    Raises
    ------
    DatasetError
        If there is nothing to combine, two data sets give the same values, or they have no ground in common.
    GridError
        If a raster doesn't overlap with the grid.
    """

    def __init__(
        self,
        optical: OpticalDataset | StrPath | None = None,
        sar: SarDataset | StrPath | None = None,
        labels: SceneDataset | None = None,
        *,
        grid: Literal["optical", "sar"] | GeoBox = "optical",
        transforms: Transforms | None = None,
        tile_size: int | None = None,
    ) -> None:
        if isinstance(optical, str | os.PathLike):
            optical = OpticalDataset(optical)
        if isinstance(sar, str | os.PathLike):
            sar = SarDataset(sar)
        if grid == "sar" and sar is None:
            raise DatasetError("grid='sar'", "there is no SAR data set", "give one, or another grid")
        chosen = sar.grid if grid == "sar" and sar is not None else grid if isinstance(grid, GeoBox) else None
        self._combine([d for d in (optical, sar, labels) if d is not None], chosen, transforms, tile_size)

    @classmethod
    def of(cls, datasets: Sequence[GeoDataset], grid: GeoBox | None = None) -> ScenePairs:
        """Combine data sets, of whatever kind, on the grid of the first that has one."""
        pairs = cls.__new__(cls)
        pairs._combine(datasets, grid, None, None)
        return pairs

    def _combine(
        self,
        datasets: Sequence[GeoDataset],
        grid: GeoBox | None,
        transforms: Transforms | None,
        tile_size: int | None,
    ) -> None:
        parts = [dataset for dataset in datasets if isinstance(dataset, SceneDataset)]
        for dataset in datasets:
            if not isinstance(dataset, SceneDataset):
                found = f"{type(dataset).__name__} isn't a data set of gopt-geo, which share one grid"
                raise DatasetError("&", found, "use OpticalDataset, SarDataset, RasterLabels or VectorLabels")
        for part in parts:
            if part._region is not None:
                raise DatasetError(str(part), "it is a part of a split", "combine first, then take the split's part")
        grid = grid or next((part.grid for part in parts if part.grid is not None), None)
        if grid is None:
            raise DatasetError("ScenePairs", "nothing here has a grid", "give images, or grid=...")
        keys = [key for part in parts for key in part.keys]
        if twice := sorted({key for key in keys if keys.count(key) > 1}):
            raise DatasetError(" & ".join(map(str, parts)), f"two of them give {', '.join(twice)}", "leave one out")
        self.grid = grid
        self.members: tuple[SceneDataset, ...] = tuple(
            part if part.grid is not None and _is_grid(part.grid, grid) else part.on(grid) for part in parts
        )
        self.notices = [notice for member in self.members for notice in member.notices]
        common: Window | None = Window(0, 0, *grid.shape)
        for member in self.members:
            common = None if common is None else common.intersect(member._footprint)
        if common is None:
            names = ", ".join(map(str, parts))
            raise DatasetError(names, "they have no ground in common", "give data sets of the same ground")
        largest = max(member._tile_size for member in self.members)
        self._place(common, transforms, tile_size or largest)

    def __str__(self) -> str:
        return " & ".join(map(str, self.members))

    @property
    def keys(self) -> tuple[str, ...]:
        """Those of all members."""
        return tuple(key for member in self.members for key in member.keys)

    def on(self, grid: GeoBox) -> Self:
        """Return the data set on another grid; this one stays as it is."""
        moved = copy.copy(self)
        moved._region = None
        moved._combine([member.on(grid) for member in self.members], grid, self.transforms, self._tile_size)
        return moved

    def read(self, window: Window) -> Sample:
        """Return the values of all members in a window of the grid, their own transforms applied."""
        sample: Sample = {}
        for member in self.members:
            values = member._shown(window)
            sample |= values if member.transforms is None else member.transforms(values)
        return sample

    def close(self) -> None:
        """Close the files of all members."""
        for member in self.members:
            if isinstance(member, ImageDataset | ScenePairs):
                member.close()


def _is_grid(a: GeoBox, b: GeoBox) -> bool:
    """Tell whether two grids are the same to the last bit, so that samples lie on one lattice of blocks."""
    return bool(a.shape == b.shape and a.affine == b.affine and same_crs(a.crs, b.crs))
