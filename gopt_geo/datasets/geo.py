"""Images on one scene grid as torchgeo data sets, and what is combined of them with ``&``."""

from __future__ import annotations

import copy
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, Self

import numpy as np
import torch
from affine import Affine
from numpy.typing import NDArray

from gopt_geo.aoi import Aoi, read_aoi
from gopt_geo.datasets.base import Sample, SceneDataset, Transforms, is_grid
from gopt_geo.datasets.blocks import Blocks, Layer, Reopening
from gopt_geo.datasets.classes import IGNORED
from gopt_geo.datasets.compat import GeoDataset
from gopt_geo.errors import DatasetError
from gopt_geo.grid import GeoBox, Window
from gopt_geo.paths import StrPath
from gopt_geo.scene import Scene, SourceSpec, open_scene
from gopt_geo.scene.bandfile import BandFile
from gopt_geo.scene.bandfiles import Source, band_files, source_name
from gopt_geo.scene.clouds import CloudMask

__all__ = ["ImageDataset", "OpticalDataset", "SarDataset", "ScenePairs"]

CACHE_BYTES = 512 << 20
"""Bytes of finished blocks that each data set of images keeps in memory, in each worker process."""


class ImageDataset(SceneDataset):
    """One image source on a grid.

    A sample holds, for a modality called NAME, ``NAME``: float32 [C, h, w], 0 where invalid; and ``validity_NAME``:
    bool [h, w].

    Parameters
    ----------
    path
        A raster; or a folder, pattern, list with commas or ``.SAFE`` folder, see `gopt_geo.scene.SourceSpec`.
    modality
        "optical", or the name of another modality.
    target_units
        Unit of the sample's values; see `gopt_geo.scene.plan_radiometry`.
    bands
        Bands by 1-based index or name; None takes all.
    units
        Unit of the stored values where the file doesn't state it.
    mask
        Marks pixels not to use (clouds): a raster that isn't 0 there, or "SCL"; see `gopt_geo.scene.SourceSpec`.
    sensor
        Name of the sensor's profile; None goes by what the source says of itself.
    grid
        The scene grid; None takes the source's own.
    transforms
        Applied to each sample.
    tile_size
        Size of the windows that samplers will ask for: torchgeo's samplers leave out what is smaller, so that a
        smaller raster is entered into the index with this size, and padded.
    cache_bytes
        Bound of the finished blocks kept in memory, in each worker process. Scenes within this are warped once in
        each worker.
    cache_dir
        Folder for a temporary file that keeps all finished blocks instead, on a local disk; all worker processes
        share it, and it goes with the data set: scenes of any size are warped once.

    Raises
    ------
    GoptGeoError
        If the source can't be used, see `gopt_geo.scene.open_scene`; the grid isn't along the CRS's axes; or
        `cache_dir` can't be written to.
    """

    def __init__(
        self,
        path: Source | Sequence[BandFile],
        modality: str,
        target_units: str,
        *,
        bands: Sequence[int | str] | None = None,
        units: str | None = None,
        mask: StrPath | CloudMask | None = None,
        sensor: str | None = None,
        grid: GeoBox | None = None,
        transforms: Transforms | None = None,
        tile_size: int | None = None,
        cache_bytes: int = CACHE_BYTES,
        cache_dir: StrPath | None = None,
    ) -> None:
        self._name = source_name(path)
        files = () if isinstance(path, str | os.PathLike) else band_files(path) or ()
        self.paths = [file.path for file in files] or self._name
        self.modality = modality
        self._spec = SourceSpec(path, bands, units, target_units, None, mask, sensor=sensor)
        self._cache_bytes, self._cache_dir = cache_bytes, cache_dir
        self._open(grid)
        self._place(self._footprint_of(self._name, self._own_grid), transforms, tile_size)
        if cache_dir is None and (needed := self._blocks.bytes_of(self._footprint)) > cache_bytes:
            self.notices.append(
                f"{self._name}: its {needed >> 20} MiB don't fit into cache_bytes ({cache_bytes >> 20} MiB), so that "
                "random windows are warped again and again; cache_dir=... keeps them on disk"
            )

    def _open(self, grid: GeoBox | None) -> None:
        optical, others = (self._spec, {}) if self.modality == "optical" else (None, {self.modality: self._spec})
        base: Literal["optical"] | GeoBox = "optical" if grid is None else grid
        scene = open_scene(optical, others, grid=base, cache_bytes=0)  # finished blocks are kept here, once
        if grid is None and (upright := _upright(scene.grid)) is not None:
            scene.close()
            scene = open_scene(optical, others, grid=upright, cache_bytes=0)
            scene.notices.append(f"{self._name}: its grid is turned; it is warped onto one along its CRS's axes")
        try:
            self.grid, self.notices = scene.grid, list(scene.notices)
            self._own_grid = scene.source_grids[self.modality]
            count = scene.counts[self.modality]
            layers = Layer((count,), np.float32), Layer((), np.bool_)
            self._scene = Reopening(scene)
            produce = _ImageBlocks(self._scene, self.modality)
            self._blocks = Blocks(scene.shape, layers, produce, self._cache_bytes, self._cache_dir)
        except BaseException:
            scene.close()
            raise

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
        moved._open(grid)
        moved._replace(moved._footprint_of(self._name, self._own_grid))
        return moved

    def read(self, window: Window, into: Sample | None = None) -> Sample:
        """Return the values and the validity of a window of the grid."""
        if into is not None:
            self._blocks.read(window, tuple(into[key].numpy() for key in self.keys))
            return into
        values, valid = self._blocks.read(window)
        return {self.keys[0]: torch.from_numpy(values), self.keys[1]: torch.from_numpy(valid)}

    def close(self) -> None:
        """Close the files."""
        self._scene.get().close()


def _upright(grid: GeoBox) -> GeoBox | None:
    """Return a grid along the CRS's axes that covers a turned one, with pixels of its size; None for an upright one."""
    a, b, c, d, e, f = grid.affine[:6]
    if (b == 0 and d == 0) or grid.crs is None:
        return None
    size = math.sqrt(abs(a * e - b * d))
    height, width = grid.shape
    corners = ((0, 0), (width, 0), (0, height), (width, height))
    xs = [a * col + b * row + c for col, row in corners]
    ys = [d * col + e * row + f for col, row in corners]
    shape = math.ceil((max(ys) - min(ys)) / size), math.ceil((max(xs) - min(xs)) / size)
    return GeoBox(shape, Affine(size, 0, min(xs), 0, -size, max(ys)), grid.crs)


@dataclass(frozen=True)
class _ImageBlocks:
    """Produces blocks of one modality of a scene."""

    scene: Reopening[Scene]
    modality: str

    def __call__(self, block: Window) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        pixels = self.scene.get().read(block)
        return pixels.values[self.modality], pixels.valid[self.modality]


class OpticalDataset(ImageDataset):
    """An optical raster: ``optical`` in reflectance (or as `target_units` says), and ``validity_optical``.

    Parameters are those of `ImageDataset`.
    """

    def __init__(self, path: Source | Sequence[BandFile], *, target_units: str = "reflectance", **options: Any) -> None:
        super().__init__(path, "optical", target_units, **options)


class SarDataset(ImageDataset):
    """A SAR raster: ``sar`` in dB (or as `target_units` says), and ``validity_sar``.

    Parameters are those of `ImageDataset`.
    """

    def __init__(self, path: Source | Sequence[BandFile], *, target_units: str = "db", **options: Any) -> None:
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
    aoi
        Area of interest: labels outside are ignored, see `inside`.
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
    AoiError
        If the area can't be read, or doesn't touch the common ground.
    """

    def __init__(
        self,
        optical: OpticalDataset | StrPath | None = None,
        sar: SarDataset | StrPath | None = None,
        labels: SceneDataset | None = None,
        *,
        grid: Literal["optical", "sar"] | GeoBox = "optical",
        aoi: Aoi | StrPath | None = None,
        transforms: Transforms | None = None,
        tile_size: int | None = None,
    ) -> None:
        if isinstance(optical, str | os.PathLike):
            optical = OpticalDataset(optical)
        if isinstance(sar, str | os.PathLike):
            sar = SarDataset(sar)
        if not isinstance(grid, GeoBox) and grid not in ("optical", "sar"):
            raise DatasetError(f"grid={grid!r}", "there is no such grid", "give 'optical', 'sar' or a GeoBox")
        if grid == "sar" and sar is None:
            raise DatasetError("grid='sar'", "there is no SAR data set", "give one, or another grid")
        chosen = sar.grid if grid == "sar" and sar is not None else grid if isinstance(grid, GeoBox) else None
        self._aoi = aoi if aoi is None or isinstance(aoi, Aoi) else read_aoi(aoi)
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
            part if part.grid is not None and is_grid(part.grid, grid) else part.on(grid) for part in parts
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
        if self._aoi_mask is not None:
            self.notices += self._aoi_mask.notices

    def __str__(self) -> str:
        return " & ".join(map(str, self.members))

    @property
    def keys(self) -> tuple[str, ...]:
        """Those of all members."""
        return tuple(key for member in self.members for key in member.keys)

    def on(self, grid: GeoBox) -> Self:
        """Return the data set on another grid; this one stays as it is."""
        moved = copy.copy(self)
        moved._combine([member.on(grid) for member in self.members], grid, self.transforms, self._tile_size)
        return moved

    @property
    def _transforms(self) -> bool:
        return super()._transforms or any(member._transforms for member in self.members)

    def read(self, window: Window, into: Sample | None = None) -> Sample:
        """Return the values of all members in a window of the grid, their own transforms applied."""
        sample: Sample = {}
        for member in self.members:
            values = member._shown(window, into and {key: into[key] for key in member.keys})
            sample |= values if member.transforms is None else member.transforms(values)
        return sample

    def read_labels(self, window: Window) -> NDArray[np.uint8]:
        """Return the labels of a window alone, uint8 [h, w]; see `SceneDataset.read_labels`."""
        labels = next((member for member in self.members if "mask" in member.keys), None)
        if labels is None:
            return super().read_labels(window)
        mask = labels.read_labels(window)
        if self._aoi_mask is not None:
            mask[~self._aoi_mask.read(window)] = IGNORED
        if self._region is not None:
            mask[~self._region.read(window)] = IGNORED
        return mask

    def close(self) -> None:
        """Close the files of all members."""
        for member in self.members:
            if isinstance(member, ImageDataset | ScenePairs):
                member.close()
