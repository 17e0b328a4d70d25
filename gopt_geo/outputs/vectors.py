"""Polygons of a land-cover map."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import pyproj
import shapely
from numpy.typing import NDArray

from gopt_geo.errors import GridError, OutputError
from gopt_geo.grid import whole_pixel_offset
from gopt_geo.outputs.blockpolygons import PolygonBatch, block_polygons
from gopt_geo.outputs.classraster import ClassRaster
from gopt_geo.outputs.legend import LegendEntry, read_legend

__all__ = [
    "check_vector_output",
    "holds_all_polygons",
    "to_longitude_latitude",
    "vectorize",
    "write_features",
    "write_polygons",
]

_DRIVERS = {".gpkg": "GPKG", ".geojson": "GeoJSON", ".fgb": "FlatGeobuf"}
_GEOGRAPHIC = pyproj.CRS("EPSG:4326")
_GEOMETRIES = {0: "Point", 3: "Polygon"}
_ROUNDING = 1e-9  # degrees
_DENSIFY = 64  # pixels between vertices where borders are reprojected: 640 m bend by 0.02 m at 10 m pixels
_AT_A_TIME = 50_000  # polygons


def check_vector_output(output: str | PathLike[str], crs: object | None) -> None:
    """Refuse a vector file that can't hold a map in this CRS; to be called before any work.

    Raises
    ------
    OutputError
        If the format demands a CRS and the map has none.
    """
    if Path(output).suffix.lower() == ".geojson" and crs is None:
        found = "GeoJSON is in EPSG:4326 by its standard, and the map has no CRS"
        raise OutputError(output, found, "write .gpkg, .fgb or .parquet")


def holds_all_polygons(output: str | PathLike[str]) -> bool:
    """Tell whether a vector file is written at once, of a format that can't be added to: memory holds all polygons."""
    return Path(output).suffix.lower() != ".gpkg"


def vectorize(
    landcover: str | PathLike[str],
    output: str | PathLike[str],
    legend: Sequence[LegendEntry] | None = None,
    confidence: str | PathLike[str] | None = None,
) -> int:
    """Write the regions of a class map as polygons: 4-connected pixels of one class, nodata left out.

    Each polygon has `class_id`, `class_name`, `area_m2` (on the ellipsoid, see `region_areas`; null without a
    CRS) and, given a confidence raster, `confidence_percent` (its mean over the polygon's pixels, 0 to 100).
    Neighbours share their borders vertex by vertex: `shapely.coverage_is_valid` holds, and
    `shapely.coverage_simplify` keeps it so.

    The map is read in blocks of 2048 x 2048 pixels. Memory holds one of them, the polygons that go on beyond those that
    were read, and the finished ones that aren't written: about 50,000 for `.gpkg`, all of them for other formats. The
    polygons come in no particular order.

    Parameters
    ----------
    landcover
        A raster with one band of an integer type.
    output
        The file to write: `.gpkg`, `.fgb` and `.parquet` in the map's CRS, `.geojson` in EPSG:4326.
    legend
        The classes; by default those of the file.
    confidence
        A raster of percentages on the same grid.

    Returns
    -------
    int
        The number of polygons.

    Raises
    ------
    SourceError
        If a raster can't be read, or isn't a class map.
    GridError
        If the confidence lies on another grid.
    OutputError
        If the file can't be written or can't hold the map. A part of it may be left after this or another error.
    """
    output = Path(output)
    with ExitStack() as stack:
        classes = stack.enter_context(ClassRaster(landcover))
        grid = classes.grid
        check_vector_output(output, grid.crs)
        legend = read_legend(landcover) if legend is None else legend
        percent = None if confidence is None else stack.enter_context(ClassRaster(confidence))
        if percent is not None:
            own = percent.grid
            if own.shape != grid.shape or whole_pixel_offset(grid, own) != (0, 0):
                remedy = "give the confidence of the same run"
                raise GridError(percent.path, "isn't on the land-cover map's grid", remedy)
        crs = None if grid.crs is None else grid.crs.proj
        reprojected = output.suffix.lower() == ".geojson" and crs is not None and not crs.equals(_GEOGRAPHIC)
        batches = block_polygons(
            grid,
            classes.read,
            classes.nodata,
            confidence=None if percent is None else percent.pixels,
            densify=_DENSIFY if reprojected else None,
        )
        return write_polygons(output, batches, legend, crs, layer="landcover", confidences=percent is not None)


def write_polygons(
    output: Path,
    batches: Iterable[PolygonBatch],
    legend: Sequence[LegendEntry],
    crs: pyproj.CRS | None,
    *,
    layer: str,
    confidences: bool = False,
    metadata: Mapping[str, str] | None = None,
) -> int:
    """Write the polygons of a class map with the fields that `vectorize` names, a `.gpkg` in portions.

    Parameters
    ----------
    output
        `.gpkg`, `.fgb` or `.parquet`, in the map's CRS; `.geojson`, in EPSG:4326.
    batches
        The polygons, in the map's CRS.
    legend
        The classes.
    crs
        The map's; `.geojson` needs one.
    layer
        Name of the layer, where the format has layers.
    confidences
        Whether they become a field.
    metadata
        What the layer of a `.gpkg` says of itself.

    Returns
    -------
    int
        The number of polygons.

    Raises
    ------
    OutputError
        If the file can't be written, or can't hold the polygons.
    """
    names = {entry.value: entry.name for entry in legend}
    count = 0
    for batch in _in_portions(batches, None if holds_all_polygons(output) else _AT_A_TIME):
        fields: dict[str, NDArray[Any]] = {
            "class_id": batch.classes,
            "class_name": np.array([names.get(v, f"class {v}") for v in batch.classes.tolist()], dtype=object),
            "area_m2": batch.areas,
        }
        if confidences:
            fields["confidence_percent"] = batch.confidences
        shapes, own = batch.shapes, crs
        if crs is not None and output.suffix.lower() == ".geojson":
            shapes, own = to_longitude_latitude(shapes, crs, output), _GEOGRAPHIC
        write_features(output, shapes, fields, own, layer=layer, append=count > 0, metadata=metadata)
        count += len(batch.shapes)
    return count


def _in_portions(batches: Iterable[PolygonBatch], at_a_time: int | None) -> Iterator[PolygonBatch]:
    """Gather small batches, each a transaction of its own; all of them if `at_a_time` is None. One comes at least."""
    held: list[PolygonBatch] = []
    number, any_yet = 0, False
    for batch in batches:
        if len(batch.shapes) == 0:
            continue
        held.append(batch)
        number += len(batch.shapes)
        if at_a_time is not None and number >= at_a_time:
            yield _joined(held)
            held, number, any_yet = [], 0, True
    if held or not any_yet:
        yield _joined(held)


def _joined(batches: Sequence[PolygonBatch]) -> PolygonBatch:
    empty = PolygonBatch(np.empty(0, object), np.empty(0, np.int32), np.empty(0), np.empty(0))
    names = [field.name for field in dataclasses.fields(PolygonBatch)]
    return PolygonBatch(*(np.concatenate([getattr(batch, name) for batch in (empty, *batches)]) for name in names))


def to_longitude_latitude(
    polygons: NDArray[np.object_], crs: pyproj.CRS, subject: str | PathLike[str]
) -> NDArray[np.object_]:
    """Bring polygons to EPSG:4326; those over the antimeridian are cut there, as the GeoJSON standard asks.

    Parameters
    ----------
    polygons
        Object [n], in `crs`.
    crs
        Theirs.
    subject
        The file, for messages.

    Raises
    ------
    OutputError
        If one has no place in EPSG:4326, or surrounds a pole.
    """
    if not crs.equals(_GEOGRAPHIC):
        transformer = pyproj.Transformer.from_crs(crs, _GEOGRAPHIC, always_xy=True)

        def forward(xy: NDArray[np.float64]) -> NDArray[np.float64]:
            return np.stack(transformer.transform(xy[:, 0], xy[:, 1]), axis=1)

        polygons = np.asarray(shapely.transform(polygons, forward))
        if not np.isfinite(shapely.get_coordinates(polygons)).all():
            raise OutputError(subject, "parts of the map have no place in EPSG:4326", "write .gpkg or .parquet")
        for index in np.flatnonzero(_width(polygons) > 180):
            polygons[index] = shapely.transform(polygons[index], _from_0_to_360)
            if _width(polygons[index]) > 180 or not polygons[index].is_valid:
                found = "a polygon surrounds a pole or spans half the Earth"
                raise OutputError(subject, found, "write .gpkg or .parquet")
    bounds = shapely.bounds(polygons)
    for index in np.flatnonzero((bounds[:, 0] < -180 - _ROUNDING) | (bounds[:, 2] > 180 + _ROUNDING)):
        polygons[index] = _cut(polygons[index])
    return polygons


def _from_0_to_360(xy: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(xy + (xy[:, :1] < 0) * np.array([360.0, 0.0]))


def _cut(polygon: shapely.Polygon) -> shapely.MultiPolygon:
    """Cut a polygon at the antimeridian and bring its parts to longitudes from -180 to 180."""
    pieces: list[shapely.Polygon] = []
    for by in (-360.0, 0.0, 360.0):
        inside = shapely.intersection(polygon, shapely.box(by - 180, -90, by + 180, 90))
        moved = shapely.get_parts(shapely.transform(inside, partial(np.add, np.array([-by, 0.0]))))
        pieces += [piece for piece in moved if isinstance(piece, shapely.Polygon) and not piece.is_empty]
    return shapely.MultiPolygon(pieces)


def _width(geometry: Any) -> Any:
    bounds = shapely.bounds(geometry)
    return bounds[..., 2] - bounds[..., 0]


def write_features(
    output: Path,
    shapes: NDArray[np.object_],
    fields: Mapping[str, Any],
    crs: pyproj.CRS | None,
    *,
    layer: str,
    append: bool = False,
    metadata: Mapping[str, str] | None = None,
) -> None:
    """Write points or polygons and their fields in the format of the file's ending.

    Parameters
    ----------
    output
        `.gpkg`, `.geojson`, `.fgb` or `.parquet`.
    shapes
        Geometries, object [n], in `crs`; for `.geojson` in EPSG:4326.
    fields
        Columns [n] by name.
    crs
        CRS of the file.
    layer
        Name of the layer, where the format has layers.
    append
        Add to the layer of a `.gpkg` that was begun so.
    metadata
        What the layer of a `.gpkg` says of itself.

    Raises
    ------
    OutputError
        If the file can't be written.
    """
    import geopandas
    from pyogrio.errors import DataLayerError, DataSourceError, FeatureError

    frame = geopandas.GeoDataFrame(dict(fields), geometry=shapes, crs=crs)
    ending = output.suffix.lower()
    options = {"RFC7946": "YES", "COORDINATE_PRECISION": "9"} if ending == ".geojson" else {}
    kinds = {_GEOMETRIES.get(kind, "Unknown") for kind in shapely.get_type_id(shapes).tolist()} or {"Polygon"}
    try:
        if ending == ".parquet":
            frame.to_parquet(output, index=False)
            return
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "'crs' was not provided", UserWarning)
            frame.to_file(
                output,
                driver=_DRIVERS[ending],
                engine="pyogrio",
                mode="a" if append else "w",
                layer=layer,
                index=False,
                geometry_type=kinds.pop() if len(kinds) == 1 else "Unknown",
                layer_options=options,
                **({} if metadata is None or append else {"layer_metadata": dict(metadata)}),
            )
    except (DataSourceError, DataLayerError, FeatureError, OSError) as error:
        raise OutputError(output, f"can't be written ({error})", "see whether the disk is full") from error
