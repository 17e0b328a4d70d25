"""The base of georeferenced data sets: samples on one scene grid, asked for as torchgeo's samplers do."""

from __future__ import annotations

import copy
from abc import abstractmethod
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NoReturn, Protocol, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gopt_geo.aoi import Aoi, AoiMask, read_aoi
from gopt_geo.datasets.batches import read_batch
from gopt_geo.datasets.classes import IGNORED
from gopt_geo.datasets.compat import GeoDataset, Query, make_index, resolve
from gopt_geo.errors import AoiError, DatasetError, GridError
from gopt_geo.grid import GeoBox, Window, crop, same_crs, whole_pixel_offset
from gopt_geo.paths import StrPath
from gopt_geo.scene.extent import place_scene

if TYPE_CHECKING:
    from gopt_geo.datasets.geo import ScenePairs

__all__ = ["IGNORED", "Region", "Sample", "SceneDataset", "Transforms", "checked_tile_size", "is_grid"]

Sample = dict[str, Tensor]
Transforms = Callable[[Sample], Sample]


class Region(Protocol):
    """Pixels of a grid that a data set may show; made by `gopt_geo.datasets.splits`."""

    @property
    def grid(self) -> GeoBox:
        """The grid that its rows and columns are counted on."""
        ...

    @property
    def hides_images(self) -> bool:
        """Whether images are hidden outside of it too, or labels alone."""
        ...

    @property
    def windows(self) -> Sequence[Window]:
        """Rectangles that tiles are drawn from."""
        ...

    def read(self, window: Window) -> NDArray[np.bool_]:
        """Tell which pixels of a window belong to it, bool [h, w]."""
        ...


class SceneDataset(GeoDataset):
    """Base of the data sets on one scene grid.

    A sample is asked for with slices of x and y in the grid's CRS, as torchgeo's samplers make them. It is cut at
    the nearest whole pixels of the grid; what hangs over the grid's edges is padded and marked invalid or ignored.
    All values of a sample are tensors, those of the subclass and

    - ``bounds``: float64 [4], xmin, ymin, xmax, ymax of the sample's pixels in the grid's CRS;
    - ``transform``: float64 [6], the affine's a, b, c, d, e, f: x = a * column + b * row + c, y = d * column + ...

    Attributes
    ----------
    grid : GeoBox or None
        The scene grid; None where none is chosen yet (vector labels).
    notices : list of str
        What was taken for granted, one line each.
    """

    grid: GeoBox | None
    notices: list[str]
    transforms: Transforms | None
    _footprint: Window
    _tile_size: int
    _region: Region | None = None
    _aoi: Aoi | None = None
    _aoi_mask: AoiMask | None = None

    def _place(self, footprint: Window, transforms: Transforms | None, tile_size: int | None) -> None:
        """Set what torchgeo knows a data set by."""
        self.transforms, self._tile_size = transforms, checked_tile_size(tile_size)
        self._replace(footprint)

    def _replace(self, footprint: Window) -> None:
        """Set what torchgeo knows a data set by, on another grid; a part of a split it is no more."""
        self._region, self._footprint = None, footprint
        if self._aoi is not None:
            self._aoi_mask = self._aoi.on(self._on_grid())
            common = footprint.intersect(self._aoi_mask.window)
            if common is None:
                raise AoiError(self._aoi.name, f"it doesn't touch the ground of {self}", "check both on a map")
            self._footprint = common
        self._make_index([self._footprint])

    def _footprint_of(self, name: str, own: GeoBox) -> Window:
        """Return the part of the grid where a raster on its own grid lies."""
        grid = self._on_grid()
        part, _ = place_scene({"grid": ("the grid", grid), "own": (name, own)}, grid, "intersection")
        row, col = whole_pixel_offset(part, grid) or (0, 0)
        return Window(row, col, *part.shape)

    def _make_index(self, windows: Sequence[Window]) -> None:
        grid = self._on_grid()
        if grid.crs is None:
            raise GridError(str(self), "its grid has no CRS", "set it with gdal_edit -a_srs")
        a, b, _, d, e, _ = grid.affine[:6]
        if b != 0 or d != 0:
            raise GridError(str(self), "its grid is rotated", "choose a grid along the CRS's axes: grid=...")
        boxes = []
        for window in windows:
            size = max(window.height, self._tile_size), max(window.width, self._tile_size)
            boxes.append(_bounds(grid, Window(window.row, window.col, *size)))
        self.index = make_index(boxes, grid.crs.proj)
        self._res = (abs(a), abs(e))

    def _on_grid(self) -> GeoBox:
        if self.grid is None:
            raise DatasetError(
                str(self), "it has no grid of its own", "give grid=..., or combine it with images: a & b"
            )
        return self.grid

    @property
    def footprint(self) -> Window:
        """The part of the grid where the data set lies."""
        return self._footprint

    def __str__(self) -> str:
        """Name the data set for messages."""
        return type(self).__name__

    @property
    @abstractmethod
    def keys(self) -> tuple[str, ...]:
        """Names of the sample's values, ``bounds`` and ``transform`` apart."""

    @abstractmethod
    def read(self, window: Window, into: Sample | None = None) -> Sample:
        """Return the values of a window of the grid, which may hang over its edges; without transforms.

        They are new, or those of `into`, filled.
        """

    @abstractmethod
    def on(self, grid: GeoBox) -> Self:
        """Return the data set on another grid; this one stays as it is."""

    def __getitem__(self, query: Query) -> Sample:
        """Return the sample of a spatial slice.

        Raises
        ------
        IndexError
            If the slice doesn't touch the grid.
        ValueError
            If it asks for another resolution than the grid's.
        GoptGeoError
            If the pixels can't be read, or a label isn't one of the classes.
        """
        sample = self._sample(self._window(query, self._on_grid()))
        return sample if self.transforms is None else self.transforms(sample)

    def __getitems__(self, queries: Sequence[Query]) -> list[Sample]:
        """Return the samples of several slices; a DataLoader fetches a batch so. See `collate_samples`."""
        windows = [self._window(query, self._on_grid()) for query in queries]
        if self._transforms or len({window.shape for window in windows}) != 1:
            return [self[query] for query in queries]
        return read_batch(self._sample(windows[0]), len(windows), lambda i, into: self._sample(windows[i], into))

    @property
    def _transforms(self) -> bool:
        return self.transforms is not None

    def _sample(self, window: Window, into: Sample | None = None) -> Sample:
        grid = self._on_grid()
        sample = self._shown(window, into and {key: into[key] for key in self.keys})
        bounds = torch.tensor(_bounds(grid, window), dtype=torch.float64)
        transform = torch.tensor(crop(grid, window).affine[:6], dtype=torch.float64)
        if into is None:
            return {**sample, "bounds": bounds, "transform": transform}
        into["bounds"].copy_(bounds)
        into["transform"].copy_(transform)
        return into

    def _shown(self, window: Window, into: Sample | None = None) -> Sample:
        """Read a window, and hide what the area of interest and the part of a split don't show."""
        sample = self.read(window, into)
        if self._aoi_mask is not None and "mask" in sample:
            sample["mask"].masked_fill_(~torch.from_numpy(self._aoi_mask.read(window)), IGNORED)
        if self._region is None:
            return sample
        hidden = ~torch.from_numpy(self._region.read(window))
        for key, value in sample.items():
            if key == "mask":
                value.masked_fill_(hidden, IGNORED)
            elif self._region.hides_images:
                value.masked_fill_(hidden, 0)
        return sample

    def inside(self, aoi: Aoi | StrPath, crs: str | None = None) -> Self:
        """Return the data set with labels in an area of interest alone; this one stays as it is.

        Labels outside of the area are ignored, images stay. The index shrinks to the area's bounds, so that samplers
        draw from there.

        Parameters
        ----------
        aoi
            The area, or what `gopt_geo.aoi.read_aoi` reads.
        crs
            CRS of its coordinates where it states none.

        Raises
        ------
        AoiError
            If it can't be read, or doesn't touch the data set's ground.
        """
        part = copy.copy(self)
        part._aoi = aoi if isinstance(aoi, Aoi) else read_aoi(aoi, crs)
        part._replace(self._footprint)
        assert part._aoi_mask is not None
        part.notices = [*self.notices, *part._aoi_mask.notices]
        return part

    def read_labels(self, window: Window) -> NDArray[np.uint8]:
        """Return the labels of a window alone, uint8 [h, w]: class indexes, 255 where there is no label.

        Raises
        ------
        DatasetError
            If the data set has no labels.
        """
        if "mask" not in self.keys:
            raise DatasetError(str(self), "it has no labels", "combine it with RasterLabels or VectorLabels")
        return np.asarray(self._shown(window)["mask"].numpy(), np.uint8)

    def _window(self, query: Query, grid: GeoBox) -> Window:
        x, y = resolve(self, query)
        for step, own in zip((x.step, y.step), self._res, strict=True):
            if step is not None and abs(step - own) > 1e-9 * own:
                raise ValueError(f"{self}: pixels of {step:g} were asked for, the grid has {own:g}")
        a, _, c, _, e, f = grid.affine[:6]
        col = round(((x.start if a > 0 else x.stop) - c) / a)
        row = round(((y.start if e > 0 else y.stop) - f) / e)
        window = Window(
            row, col, max(round((y.stop - y.start) / abs(e)), 1), max(round((x.stop - x.start) / abs(a)), 1)
        )
        height, width = (max(size, self._tile_size) for size in grid.shape)
        # A sampler of tiles in rows may count one too many by rounding, which then begins at the edge.
        touched = Window(-1, -1, height + 2, width + 2)
        if window.intersect(touched) is None:
            raise IndexError(f"{self}: {query} lies outside of the grid with bounds {self.bounds}")
        return window

    def within(self, region: Region) -> Self:
        """Return the data set with a part of its pixels alone; this one stays as it is.

        Its index has a row for each of the region's rectangles, so that torchgeo's samplers draw from those. Labels
        outside of the region are ignored; images too, where the region hides them.

        Raises
        ------
        DatasetError
            If the data set lies on another grid than the region, or has none of its pixels.
        """
        if self._region is not None:
            raise DatasetError(str(self), "it is a part of a split already", "take parts of the whole data set")
        if not is_grid(region.grid, self._on_grid()):
            raise DatasetError(str(self), "it lies on another grid than the region", "split this data set's own labels")
        cut = [window.intersect(self._footprint) for window in region.windows]
        windows = [window for window in cut if window is not None]
        if not windows:
            raise DatasetError(str(self), "it has none of the region's pixels", "split the labels of this data set")
        part = copy.copy(self)
        part._region = region
        part._make_index(windows)
        return part

    def __and__(self, other: GeoDataset) -> ScenePairs:  # type: ignore[override]
        """Combine two data sets on the grid of the first that has one; both stay as they are."""
        from gopt_geo.datasets.geo import ScenePairs

        return ScenePairs.of((self, other))

    def __or__(self, other: GeoDataset) -> NoReturn:
        """Refuse: two rasters of one kind have no common grid to be united on."""
        found = "data sets on one grid can't be united"
        raise DatasetError(f"{self} | {other}", found, "build a mosaic first: gdalbuildvrt all.vrt *.tif")

    @property
    def crs(self) -> Any:
        """CRS of the grid (pyproj); of the vector file where there is no grid yet."""
        return self.index.crs

    @crs.setter
    def crs(self, new: Any) -> None:
        if new != self.crs:
            raise DatasetError(str(self), "its CRS is its grid's", "make it on another grid: dataset.on(grid)")

    @property
    def res(self) -> tuple[float, float]:
        """Pixel size along x and y in units of the CRS."""
        return self._res

    @res.setter
    def res(self, new: float | tuple[float, float]) -> None:
        if (new if isinstance(new, tuple) else (new, new)) != self._res:
            raise DatasetError(str(self), "its resolution is its grid's", "make it on another grid: dataset.on(grid)")


def is_grid(a: GeoBox, b: GeoBox) -> bool:
    """Tell whether two grids are the same to the last bit, so that samples lie on one lattice of blocks."""
    return bool(a.shape == b.shape and a.affine == b.affine and same_crs(a.crs, b.crs))


def checked_tile_size(tile_size: int | None) -> int:
    """Return a tile size, 1 where there is none."""
    if tile_size is not None and tile_size < 1:
        raise DatasetError("tile_size", f"{tile_size} pixels", "give at least 1")
    return tile_size or 1


def _bounds(grid: GeoBox, window: Window) -> tuple[float, float, float, float]:
    affine = crop(grid, window).affine
    x, y = (affine.c, affine.c + affine.a * window.width), (affine.f, affine.f + affine.e * window.height)
    return min(x), min(y), max(x), max(y)
