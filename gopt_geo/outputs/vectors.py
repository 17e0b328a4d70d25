"""Polygons of a land-cover map."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from functools import partial
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import pyproj
import rasterio
import shapely
from numpy.typing import NDArray
from rasterio.errors import NotGeoreferencedWarning, RasterioError

from gopt_geo.errors import GridError, OutputError, SourceError
from gopt_geo.grid import GeoBox, grid_of, whole_pixel_offset
from gopt_geo.outputs.areas import region_areas
from gopt_geo.outputs.legend import LegendEntry, read_legend
from gopt_geo.outputs.noding import label_regions, region_polygons

__all__ = ["check_vector_output", "to_longitude_latitude", "vectorize", "write_features"]

_DRIVERS = {".gpkg": "GPKG", ".geojson": "GeoJSON", ".fgb": "FlatGeobuf"}
_GEOGRAPHIC = pyproj.CRS("EPSG:4326")
_GEOMETRIES = {0: "Point", 3: "Polygon"}
_ROUNDING = 1e-9  # degrees
_DENSIFY = 64  # pixels between vertices where borders are reprojected: 640 m bend by 0.02 m at 10 m pixels


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
    `shapely.coverage_simplify` keeps it so. The whole raster is held in memory.

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
        If the file can't be written or can't hold the map.
    """
    values, valid, grid = _read_classes(landcover)
    check_vector_output(output, grid.crs)
    legend = read_legend(landcover) if legend is None else legend
    names = {entry.value: entry.name for entry in legend}
    labels, count = label_regions(values, valid)
    class_ids = np.zeros(count + 1, np.int32)
    class_ids[labels] = values  # label 0 takes whatever nodata holds, and is dropped
    fields: dict[str, NDArray[Any]] = {
        "class_id": class_ids[1:],
        "class_name": np.array([names.get(int(v), f"class {v}") for v in class_ids[1:]], dtype=object),
        "area_m2": region_areas(labels, count, grid),
    }
    if confidence is not None:
        fields["confidence_percent"] = _mean_confidence(confidence, grid, labels, count)
    crs = None if grid.crs is None else grid.crs.proj
    if crs is not None and Path(output).suffix.lower() == ".geojson":
        densify = None if crs.equals(_GEOGRAPHIC) else _DENSIFY
        polygons = region_polygons(labels, count, grid.affine, densify)
        polygons, crs = to_longitude_latitude(polygons, crs, output), _GEOGRAPHIC
    else:
        polygons = region_polygons(labels, count, grid.affine)
    write_features(Path(output), polygons, fields, crs, layer="landcover")
    return count


def _read_classes(path: str | PathLike[str]) -> tuple[NDArray[np.int32], NDArray[np.bool_], GeoBox]:
    """Read a class map whole: values, validity, grid."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", NotGeoreferencedWarning)
            with rasterio.open(path) as dataset:
                if dataset.count != 1 or not np.issubdtype(np.dtype(dataset.dtypes[0]), np.integer):
                    found = f"{dataset.count} band(s) of type {dataset.dtypes[0]}, not one band of classes"
                    raise SourceError(path, found, "give a class map, such as predict writes")
                values = dataset.read(1)
                return values.astype(np.int32), dataset.read_masks(1) > 0, grid_of(dataset)
    except RasterioError as error:
        raise SourceError(path, f"can't be read ({error})", "see gdalinfo for what is wrong") from error


def _mean_confidence(
    path: str | PathLike[str], grid: GeoBox, labels: NDArray[np.int32], count: int
) -> NDArray[np.float64]:
    """Return the mean of the valid confidences of each region; NaN where it has none."""
    percent, valid, own = _read_classes(path)
    if own.shape != grid.shape or whole_pixel_offset(grid, own) != (0, 0):
        raise GridError(path, "isn't on the land-cover map's grid", "give the confidence of the same run")
    inside = labels[valid]
    total = np.bincount(inside, percent[valid], count + 1)[1:]
    number = np.bincount(inside, minlength=count + 1)[1:]
    return np.asarray(np.divide(total, number, out=np.full(count, np.nan), where=number > 0))


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
