"""The maps of many regions as one raster: their common lattice and legend, and windows across them."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from types import TracebackType

import numpy as np
import rasterio
import shapely
from numpy.typing import NDArray
from rasterio.errors import RasterioError
from rasterio.windows import Window as RasterioWindow

from gopt_geo.errors import GridError, SourceError
from gopt_geo.grid import GeoBox, Window, crop, grid_of, whole_pixel_offset
from gopt_geo.outputs.cog import NODATA
from gopt_geo.outputs.legend import LegendClass, read_legend
from gopt_geo.scene.rasterfile import gdal_settings

__all__ = ["MapSet"]

_HANDLES = 32  # files that are open at a time
_SAID = ("GOPT_GEO_", "GEOREFERENCING")


@dataclass(frozen=True)
class _First:
    """What the first map says, and all others must agree with."""

    path: Path
    grid: GeoBox
    legend: tuple[LegendClass, ...]
    colors: Mapping[int, tuple[int, ...]]
    pack: str | None


class MapSet:
    """Land-cover maps on one lattice, with one legend, as one raster.

    Where maps overlap, the first that has data there counts.

    Parameters
    ----------
    paths
        Class maps as `gopt_geo.predict` writes them, in the order of their rank.

    Attributes
    ----------
    paths : tuple of Path
        The maps.
    grid : GeoBox
        The smallest window of the lattice that holds them all.
    legend : tuple of LegendClass
        The classes; colours are the first map's.
    tags : dict
        What all maps say alike of how they were made.
    windows : int64 [n, 4]
        Row, column, height and width of each map on the grid.

    Raises
    ------
    SourceError
        If there is no map, one can't be read or is no class map, or its classes aren't those of the first.
    GridError
        If one has no CRS, or doesn't lie on the lattice of the first.

    Notes
    -----
    Each map's place is held in memory, a few hundred bytes a map; pixels only of the window that is read.
    """

    def __init__(self, paths: Sequence[str | PathLike[str]]) -> None:
        self.paths = tuple(Path(path) for path in paths)
        if not self.paths:
            raise SourceError("mosaic", "there are no maps to lay together", "map a region first")
        self._handles: OrderedDict[int, rasterio.DatasetReader] = OrderedDict()
        places = np.zeros((len(self.paths), 4), np.int64)
        self.tags: dict[str, str] = {}
        first: _First | None = None
        for index, path in enumerate(self.paths):
            with self._open(path) as dataset:
                said = _said(dataset)
                if first is None:
                    first, self.tags = _first(path, dataset), said
                else:
                    _check_like(path, dataset, first)
                    self.tags = {key: value for key, value in self.tags.items() if said.get(key) == value}
                places[index] = _place(path, grid_of(dataset), first)
        assert first is not None
        self.legend = first.legend
        low, high = places[:, :2].min(axis=0), (places[:, :2] + places[:, 2:]).max(axis=0)
        row, col, height, width = (int(v) for v in (*low, *(high - low)))
        self.grid = crop(first.grid, Window(row, col, height, width))
        self.windows = places - np.array([row, col, 0, 0])
        top, left, high_, wide = self.windows.T
        self._tree = shapely.STRtree(shapely.box(left, top, left + wide, top + high_))

    def __enter__(self) -> MapSet:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def read(self, window: Window) -> NDArray[np.uint8] | None:
        """Read a window of the grid, which may hang over its edges; None where no map is.

        Returns
        -------
        numpy.ndarray or None
            uint8 [h, w]; 255 where no map has data.

        Raises
        ------
        SourceError
            If a map's bytes are damaged.
        """
        near = self._tree.query(shapely.box(window.col, window.row, window.col_stop, window.row_stop))
        values: NDArray[np.uint8] | None = None
        for index in np.sort(near).tolist():
            own = Window(*self.windows[index].tolist())
            part = own.intersect(window)
            if part is None:
                continue
            if values is None:
                values = np.full(window.shape, NODATA, np.uint8)
            place = values[part.slices_in(window)]
            holes = place == NODATA
            if holes.any():
                np.copyto(place, self._read(index, part.within(own)), where=holes)
        return values

    def close(self) -> None:
        """Close all files."""
        while self._handles:
            self._handles.popitem()[1].close()

    def _read(self, index: int, part: Window) -> NDArray[np.uint8]:
        handle = self._handles.pop(index, None) or self._open(self.paths[index])
        self._handles[index] = handle
        if len(self._handles) > _HANDLES:
            self._handles.popitem(last=False)[1].close()
        try:
            with gdal_settings(remote=False):
                values: NDArray[np.uint8] = handle.read(
                    1, window=RasterioWindow(part.col, part.row, part.width, part.height)
                )
        except RasterioError as error:
            found = f"it can't be read ({error.__cause__ or error})"
            raise SourceError(self.paths[index], found, "map its region again") from error
        return values

    def _open(self, path: Path) -> rasterio.DatasetReader:
        try:
            with gdal_settings(remote=False):
                return rasterio.open(path, driver="GTiff")
        except RasterioError as error:
            raise SourceError(path, f"it can't be opened ({error})", "map its region again") from error


def _first(path: Path, dataset: rasterio.DatasetReader) -> _First:
    """Return what the first map says, which must be a class map with a legend."""
    _check_kind(path, dataset)
    legend = tuple(read_legend(path))
    if not legend:
        raise SourceError(path, "it has no legend", "give maps that gopt-geo wrote")
    return _First(path, grid_of(dataset), legend, _colors(dataset), dataset.tags().get("GOPT_GEO_PACK_SHA256"))


def _check_like(path: Path, dataset: rasterio.DatasetReader, first: _First) -> None:
    """Check that a dataset is a class map of the first one's classes."""
    _check_kind(path, dataset)
    pack = dataset.tags().get("GOPT_GEO_PACK_SHA256")
    if pack is not None and pack == first.pack and _colors(dataset) == first.colors:
        return  # the legend is the pack's; reading it costs as much as all else
    own, wanted = ({entry.value: entry.name for entry in one} for one in (read_legend(path), first.legend))
    if own != wanted:
        value = min(value for value in {*own, *wanted} if own.get(value) != wanted.get(value))
        found = (
            f"its classes aren't those of {first.path}: {value} is {_class(own, value)}, {_class(wanted, value)} there"
        )
        raise SourceError(path, found, "lay maps of one legend together, such as those of one pack")


def _check_kind(path: Path, dataset: rasterio.DatasetReader) -> None:
    if dataset.count != 1 or dataset.dtypes[0] != "uint8" or dataset.nodata != NODATA:
        found = f"it has {dataset.count} band(s) of {dataset.dtypes[0]} with nodata {dataset.nodata}"
        raise SourceError(path, f"{found}, and isn't a land-cover map", "give maps that gopt-geo wrote")


def _colors(dataset: rasterio.DatasetReader) -> Mapping[int, tuple[int, ...]]:
    try:
        colors: Mapping[int, tuple[int, ...]] = dataset.colormap(1)
    except ValueError:  # which is how rasterio says that there is none
        return {}
    return colors


def _class(names: Mapping[int, str], value: int) -> str:
    return repr(names[value]) if value in names else "no class"


def _place(path: Path, grid: GeoBox, first: _First) -> tuple[int, int, int, int]:
    """Return where a map lies on the first one's lattice: row, column, height, width."""
    if grid.crs is None:
        raise GridError(path, "it has no CRS, and no place among others", "map its region without --pixel-grid")
    offset = whole_pixel_offset(grid, first.grid)
    if offset is None:
        found = f"its pixels don't lie on the lattice of {first.path}"
        raise GridError(path, found, "map all regions with one --grid FILE, or with --crs and --resolution")
    return *offset, int(grid.shape[0]), int(grid.shape[1])


def _said(dataset: rasterio.DatasetReader) -> dict[str, str]:
    return {key: value for key, value in dataset.tags().items() if key.startswith(_SAID)}
