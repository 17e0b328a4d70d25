"""Reference labels on the grid of a map, from a raster or from polygons and points, within an area of interest."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from contextlib import suppress
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from gopt_geo.aoi import AoiMask
from gopt_geo.assessment.metrics import NODATA
from gopt_geo.datasets.classes import ClassTable
from gopt_geo.datasets.labels import VectorLabels
from gopt_geo.errors import DatasetError, GridError, SourceError
from gopt_geo.grid import Window
from gopt_geo.paths import StrPath
from gopt_geo.scene import AlignedSource, RasterSource
from gopt_geo.scene.labelraster import open_label_raster

__all__ = ["MapReference", "open_map_reference"]

_Labels = tuple[NDArray[np.float32] | NDArray[np.uint8], NDArray[np.bool_]]


class MapReference(Protocol):
    """Reference labels on a map's grid.

    Attributes
    ----------
    notices
        What was taken for granted.
    """

    notices: tuple[str, ...]

    def read(self, window: Window, /) -> _Labels:
        """Return class values of a window [h, w], and which pixels are labelled, bool [h, w]."""
        ...

    def close(self) -> None:
        """Let go of files."""
        ...


class _RasterReference:
    def __init__(self, labels: AlignedSource, ignore: Collection[int], area: AoiMask | None) -> None:
        self._labels, self._ignore, self._area = labels, list(ignore), area
        self.notices: tuple[str, ...] = (labels.notice,) if labels.notice else ()

    def read(self, window: Window, /) -> _Labels:
        (values,), labelled = self._labels.read(window)
        labelled = labelled & (values != NODATA) & ~np.isin(values, self._ignore)
        return values, labelled if self._area is None else labelled & self._area.read(window)

    def close(self) -> None:
        self._labels.close()


class _VectorReference:
    def __init__(self, labels: VectorLabels, values: NDArray[np.uint8], area: AoiMask | None) -> None:
        self._labels, self._values, self._area = labels, values, area
        self.notices: tuple[str, ...] = tuple(labels.notices)

    def read(self, window: Window, /) -> _Labels:
        values = self._values[self._labels.read(window)["mask"].numpy()]
        labelled = values != NODATA
        return values, labelled if self._area is None else labelled & self._area.read(window)

    def close(self) -> None:
        return


def open_map_reference(
    path: StrPath,
    mapped: RasterSource,
    legend: Mapping[int, str],
    *,
    class_field: str | None = None,
    ignore: Collection[int] = (),
    area: AoiMask | None = None,
) -> MapReference:
    """Open reference labels on the grid of a map.

    Parameters
    ----------
    path
        A label raster, or with `class_field` a vector file.
    mapped
        The map.
    legend
        Names of its classes by value; the field of a vector file may hold either.
    class_field
        Field of a vector file that holds the class.
    ignore
        Values that mean: not labelled.
    area
        Outside of it nothing is labelled.

    Raises
    ------
    GoptGeoError
        If they can't be read, or show other ground than the map.
    """
    if class_field is not None:
        return _vectors(path, mapped, legend, class_field, ignore, area)
    try:
        labels = open_label_raster(path, mapped.grid, mapped.name)
    except SourceError:
        _refuse_vectors(path)
        raise
    return _RasterReference(labels, ignore, area)


def _vectors(
    path: StrPath,
    mapped: RasterSource,
    legend: Mapping[int, str],
    class_field: str,
    ignore: Collection[int],
    area: AoiMask | None,
) -> MapReference:
    if mapped.grid.crs is None:
        raise GridError(mapped.name, "it has no CRS to place polygons by", "set it with gdal_edit -a_srs")
    names, values = list(legend.values()), tuple(legend)
    table = None
    if values:
        unique = (legend[v] if names.count(legend[v]) == 1 else f"{legend[v]} ({v})" for v in values)
        others = tuple(sorted(set(ignore) - set(values)))
        table = ClassTable(values, tuple(unique), ignore=others, source=f"legend of {mapped.name}")
    try:
        labels = VectorLabels(path, class_field, table, grid=mapped.grid)
    except DatasetError as error:
        raise _in_options(error) from error
    lookup = np.full(256, NODATA, np.uint8)
    known = np.array(values if table is not None else range(NODATA), np.int64)
    lookup[: len(known)] = np.where(np.isin(known, list(ignore)), NODATA, known)
    return _VectorReference(labels, lookup, area)


def _in_options(error: DatasetError) -> DatasetError:
    """Say an error of the Python interface in the command's words."""
    remedy = error.remedy.replace("class_field", "--class-field").replace(
        "classes=read_classes(...)", "a map with a legend"
    )
    return DatasetError(error.subject, error.found, remedy)


def _refuse_vectors(path: StrPath) -> None:
    """Say what polygons need, where they are given as a raster."""
    import pyogrio

    fields = None
    with suppress(Exception):  # whatever it is, it's no vector file, and the raster's error says so
        fields = [str(name) for name in pyogrio.read_info(path)["fields"]]
    if fields is not None:
        listed = f"choose --class-field from {', '.join(fields)}" if fields else "it has no fields"
        raise DatasetError(path, "it is a vector file, and no field with its classes is named", listed)
