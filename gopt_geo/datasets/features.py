"""Polygons and points with a field of classes, read from a vector file once."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray
from pyproj import CRS

from gopt_geo.errors import DatasetError
from gopt_geo.shapes import polygons_of

__all__ = ["Features", "read_features"]


@dataclass(frozen=True)
class Features:
    """What `read_features` found.

    Attributes
    ----------
    name
        The file.
    shapes
        Polygons and points, single ones, object [n].
    values
        Of the field, [n].
    crs
        Of the shapes.
    notices
        What was passed over or made valid.
    """

    name: str
    shapes: NDArray[np.object_]
    values: NDArray[Any]
    crs: CRS
    notices: tuple[str, ...]


def read_features(path: Path, field: str, layer: str | None = None) -> Features:
    """Read valid polygons and points, and the values of a field.

    Parameters
    ----------
    path
        A file of any format that GDAL reads.
    field
        Features without a value in it are passed over.
    layer
        Of a file with several.

    Raises
    ------
    DatasetError
        If the file can't be read, has no such field, no features, no CRS, or lines.
    """
    import pyogrio
    from pyogrio.errors import DataLayerError, DataSourceError, FieldError, GeometryError

    if not path.exists():
        raise DatasetError(path, "there is no such file", "check the path")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            layers = [str(entry[0]) for entry in pyogrio.list_layers(path) if entry[1] is not None]
            if layer is None and len(layers) != 1:
                found = f"it has several layers ({', '.join(layers)})" if layers else "it has no layer with geometries"
                raise DatasetError(path, found, "name one with layer=..." if layers else "give polygons with classes")
            layer = layer or layers[0]
            fields = [str(name) for name in pyogrio.read_info(path, layer=layer)["fields"]]
            if field not in fields:
                found = f"there is no field {field!r}"
                raise DatasetError(
                    path, found, f"choose class_field from {', '.join(fields) or 'a file that has fields'}"
                )
            frame: Any = pyogrio.read_dataframe(path, layer=layer, columns=[field])
    except (
        shapely.errors.ShapelyError,
        DataSourceError,
        DataLayerError,
        FieldError,
        GeometryError,
        ValueError,
        RuntimeError,
    ) as error:
        raise DatasetError(path, f"it can't be read ({error})", "give a vector file that GDAL reads") from error
    return _features(path, field, frame)


def _features(path: Path, field: str, frame: Any) -> Features:
    """Return the features of a table that can be used."""
    notices: list[str] = []
    shapes = np.asarray(frame.geometry.values, dtype=object)
    there = ~(shapely.is_missing(shapes) | shapely.is_empty(shapes))
    if not there.any():
        raise DatasetError(path, "it has no features", "give polygons with classes")
    if frame.crs is None:
        raise DatasetError(path, "it states no CRS", "set it: ogr2ogr -a_srs EPSG:... out.gpkg in.gpkg")
    known = there & frame[field].notna().to_numpy()
    if not known.any():
        raise DatasetError(path, f"no feature has a value in field {field!r}", "choose another class_field")
    if (there & ~known).any():
        notices.append(f"{path}: {int((there & ~known).sum())} features without a value in {field!r} are passed over")
    shapes = np.asarray(shapely.force_2d(shapes[known]), dtype=object)
    parts, owner = shapely.get_parts(shapes, return_index=True)
    if (shapely.get_dimensions(parts) == 1).any():
        raise DatasetError(path, "it holds lines, which have no area", "give polygons, such as a buffer around them")
    if not np.isfinite(shapely.get_coordinates(parts)).all():
        raise DatasetError(path, "some coordinates aren't finite", "correct it")
    parts, repaired = polygons_of(np.asarray(parts, dtype=object))
    if repaired:
        notices.append(f"{path}: invalid polygons (borders that cross) were made valid")
    values = frame[field].to_numpy()[known][owner]
    return Features(str(path), parts, values, CRS.from_user_input(frame.crs), tuple(notices))
