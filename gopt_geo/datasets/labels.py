"""Labels on one scene grid: from a raster of class values, or from polygons and points with a field of classes."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
import shapely
import torch
from numpy.typing import NDArray

from gopt_geo.classnames import find_class, meant_classes
from gopt_geo.datasets.base import IGNORED, Sample, SceneDataset, Transforms, checked_tile_size
from gopt_geo.datasets.blocks import Blocks, Layer, Reopening
from gopt_geo.datasets.classes import ClassTable, checked_classes
from gopt_geo.datasets.compat import make_index
from gopt_geo.datasets.features import Features, read_features
from gopt_geo.errors import DatasetError, GridError
from gopt_geo.grid import GeoBox, Window
from gopt_geo.paths import StrPath
from gopt_geo.scene import AlignedSource, RasterSource
from gopt_geo.scene.labelraster import check_label_raster
from gopt_geo.shapes import ShapeRaster, to_pixels

__all__ = ["RasterLabels", "VectorLabels"]

_CACHE_BYTES = 128 << 20


def _indexes(labels: NDArray[np.int64], classes: ClassTable | None, name: str) -> NDArray[np.uint8]:
    """Turn label values into class indexes; without classes they are indexes already."""
    if classes is not None:
        return np.asarray(classes.index(labels, name), np.uint8)
    wrong = labels[(labels < 0) | (labels >= IGNORED)]
    if wrong.size:
        found = f"label {int(wrong.flat[0])} is none of 0 to {IGNORED - 1}"
        raise DatasetError(name, found, "say what the values mean with a class list: classes=read_classes(...)")
    return labels.astype(np.uint8)


class RasterLabels(SceneDataset):
    """Labels from a single-band raster of class values.

    A sample holds ``mask``: int64 [h, w], class indexes; 255 where there is no label.

    Parameters
    ----------
    path
        The raster. Its nodata isn't labelled.
    classes
        Which value is which class; None takes values 0 to 254 as the indexes.
    resampling
        "nearest", or "mode" (the most frequent label of a pixel's area) for labels finer than the grid.
    grid, transforms, tile_size
        See `gopt_geo.datasets.geo.ImageDataset`.

    Raises
    ------
    GoptGeoError
        If the raster can't be used, has several bands or no CRS, or doesn't overlap with the grid. A value
        outside of the class list is found when it is read.
    """

    def __init__(
        self,
        path: StrPath,
        classes: ClassTable | None = None,
        *,
        resampling: Literal["nearest", "mode"] = "nearest",
        grid: GeoBox | None = None,
        transforms: Transforms | None = None,
        tile_size: int | None = None,
    ) -> None:
        if resampling not in ("nearest", "mode"):
            raise DatasetError(f"resampling={resampling!r}", "labels can't be resampled so", "use 'nearest' or 'mode'")
        self._name, self.classes, self._resampling = str(path), checked_classes(classes), resampling
        self.paths = self._name
        self._open(grid)
        self._place(self._footprint_of(self._name, self._own_grid), transforms, tile_size)

    def _open(self, grid: GeoBox | None) -> None:
        source = RasterSource(self._name)
        try:
            check_label_raster(source)
            self._own_grid = source.grid
            self.grid = source.grid if grid is None else grid
            aligned = AlignedSource(source, self.grid, self._resampling, cache_bytes=0)
            shape = (self.grid.shape[0], self.grid.shape[1])
            produce = _LabelBlocks(Reopening(aligned), self.classes, self._name)
            self._blocks = Blocks(shape, [Layer((), np.uint8, IGNORED)], produce, _CACHE_BYTES)
        except BaseException:
            source.close()
            raise
        self.notices = [aligned.notice] if aligned.notice else []

    def __str__(self) -> str:
        return f"RasterLabels({self._name})"

    @property
    def keys(self) -> tuple[str, ...]:
        """``mask``."""
        return ("mask",)

    def on(self, grid: GeoBox) -> Self:
        """Return the labels on another grid; these stay as they are."""
        moved = copy.copy(self)
        moved._open(grid)
        moved._replace(moved._footprint_of(self._name, self._own_grid))
        return moved

    def read(self, window: Window, into: Sample | None = None) -> Sample:
        """Return the labels of a window of the grid.

        Raises
        ------
        GoptGeoError
            If a value near the window isn't one of the classes, or isn't whole.
        """
        (mask,) = self._blocks.read(window)
        return _as_sample(mask, into)


@dataclass(frozen=True)
class _LabelBlocks:
    """Produces blocks of class indexes."""

    aligned: Reopening[AlignedSource]
    classes: ClassTable | None
    name: str

    def __call__(self, block: Window) -> tuple[NDArray[np.uint8]]:
        values, valid = self.aligned.get().read(block)
        labels = values[0].astype(np.int64)
        if (labels != values[0]).any():
            raise DatasetError(self.name, "its values aren't whole numbers", "give a raster of class values")
        mask = np.full(block.shape, IGNORED, np.uint8)
        mask[valid] = _indexes(labels[valid], self.classes, self.name)
        return (mask,)


class VectorLabels(SceneDataset):
    """Labels from a vector file: polygons, and points, with a field that tells their class.

    A sample holds ``mask``: int64 [h, w], class indexes; 255 where there is no feature. A polygon labels the pixels
    whose centre it holds, a point the pixel it lies in; where features overlap, the later one in the file counts.

    Parameters
    ----------
    path
        A file of any format that GDAL reads, or what was read of one.
    class_field
        Field with the class: the values of `classes`, or their names in upper or lower case. Features without one are
        passed over.
    classes
        Which value or name is which class; None takes values 0 to 254 as the indexes.
    layer
        Of a file with several.
    grid
        The scene grid; None where the labels are combined with images, whose grid they take.
    transforms, tile_size
        See `gopt_geo.datasets.geo.ImageDataset`.

    Raises
    ------
    DatasetError
        If the file can't be read, has no such field, no features, no CRS, lines, or a class that isn't one of
        `classes`; or if no feature lies on the grid.
    GridError
        If there is no way between the CRSs.
    """

    def __init__(
        self,
        path: StrPath | Features,
        class_field: str,
        classes: ClassTable | None = None,
        *,
        layer: str | None = None,
        grid: GeoBox | None = None,
        transforms: Transforms | None = None,
        tile_size: int | None = None,
    ) -> None:
        found = path if isinstance(path, Features) else read_features(Path(path), class_field, layer)
        self._name, self.classes = found.name, checked_classes(classes)
        self.paths = self._name
        self.notices = list(found.notices)
        self._shapes, self._crs = found.shapes, found.crs
        self._values = _class_of(found.values, classes, f"{self._name}, field {class_field!r}")
        self.grid, self.transforms, self._tile_size = grid, transforms, checked_tile_size(tile_size)
        self._raster: ShapeRaster | None = None
        if grid is None:
            self.index = make_index([tuple(shapely.total_bounds(self._shapes))], self._crs)
        else:
            self._replace(self._burn(grid))

    def _burn(self, grid: GeoBox) -> Window:
        """Bring the shapes onto a grid; return where they lie."""
        if grid.crs is None:
            raise GridError(str(self), "the grid has no CRS", "set it with gdal_edit -a_srs")
        self.grid = grid
        shape = (grid.shape[0], grid.shape[1])
        shapes = to_pixels(self._shapes, self._crs, grid, self._name)
        self._raster = ShapeRaster(shapes, self._values.tolist(), shape, IGNORED)
        if self._raster.bounds is None:
            found = f"none of its {len(self._shapes)} features lies on the grid"
            raise DatasetError(self._name, found, "check its CRS, and that it shows the same ground")
        return self._raster.bounds

    def __str__(self) -> str:
        return f"VectorLabels({self._name})"

    @property
    def keys(self) -> tuple[str, ...]:
        """``mask``."""
        return ("mask",)

    def on(self, grid: GeoBox) -> Self:
        """Return the labels on another grid; these stay as they are."""
        moved = copy.copy(self)
        moved._replace(moved._burn(grid))
        return moved

    def read(self, window: Window, into: Sample | None = None) -> Sample:
        """Return the labels of a window of the grid."""
        self._on_grid()
        assert self._raster is not None
        return _as_sample(self._raster.read(window), into)


def _as_sample(mask: NDArray[np.uint8], into: Sample | None) -> Sample:
    if into is None:
        return {"mask": torch.from_numpy(mask.astype(np.int64))}
    into["mask"].copy_(torch.from_numpy(mask))
    return into


def _class_of(values: NDArray[Any], classes: ClassTable | None, name: str) -> NDArray[np.uint8]:
    """Turn a field's values, numbers or names, into class indexes."""
    if classes is not None and values.dtype.kind not in "iuf":
        values = np.array(_values_of(values.tolist(), classes, name), np.int64)
    try:
        numbers = np.asarray(values, np.float64)
    except (TypeError, ValueError):
        remedy = "give the class list that holds these names: classes=read_classes(...)"
        raise DatasetError(name, f"{str(values[0])!r} isn't a number", remedy) from None
    if (numbers != np.rint(numbers)).any():
        raise DatasetError(name, "its values aren't whole numbers", "choose a field of class values")
    return _indexes(numbers.astype(np.int64), classes, name)


def _values_of(entries: list[object], classes: ClassTable, name: str) -> list[int]:
    """Return the label values of entries that are names, in any case, or whole numbers as texts."""
    by_name = dict(zip(classes.names, classes.values, strict=True))
    known: dict[str, int] = {}
    for entry in sorted({str(entry) for entry in entries}):
        value = find_class(entry, by_name)
        if value is None and not _is_whole(entry):
            raise DatasetError(name, f"{entry!r} is none of the classes", meant_classes(entry, by_name))
        known[entry] = int(entry) if value is None else value
    return [known[str(entry)] for entry in entries]


def _is_whole(value: object) -> bool:
    return str(value).strip().lstrip("-").isdecimal()
