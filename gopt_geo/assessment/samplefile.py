"""Files of sampled units: written for an assessor, read back with the reference classes filled in.

Every row carries what evaluating it takes (its place in the map, its stratum's pixels and area), so that the sample
survives any format, and joins, sorting and further fields do it no harm. A blind sample leaves out all that tells the
map's class; evaluating it then takes the map, and the area of interest that it was drawn in.
"""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any, Literal

import numpy as np
import shapely
from numpy.typing import NDArray

from gopt_geo.assessment.frame import FrameStrata, MapFrame
from gopt_geo.assessment.sampling import DrawnUnits
from gopt_geo.errors import OutputError, SampleError
from gopt_geo.grid import GeoBox
from gopt_geo.outputs.vectors import check_vector_output, to_longitude_latitude, write_features

__all__ = ["REFERENCE", "UnitShape", "UnitTable", "map_check", "read_units", "write_units"]

UnitShape = Literal["point", "pixel"]
REFERENCE = "reference"
_LAYER = "sample"
_PLACES = ("row", "col", "map", "frame_pixels")
_STRATUM = ("stratum", "stratum_pixels", "stratum_area_m2")


def write_units(
    path: Path,
    frame: MapFrame,
    strata: FrameStrata,
    drawn: DrawnUnits,
    *,
    shape: UnitShape = "point",
    blind: bool = False,
) -> None:
    """Write drawn units as points at the pixels' centres, or as the pixels' squares.

    Parameters
    ----------
    path
        `.gpkg`, `.fgb` and `.parquet` in the map's CRS, `.geojson` in EPSG:4326.
    frame, strata, drawn
        The sample.
    shape
        Geometry of a unit.
    blind
        Whether to leave out the fields that tell the map's class.

    Raises
    ------
    OutputError
        If the file can't be written, or the format can't hold units of this map.
    """
    check_vector_output(path, frame.grid.crs)
    crs: Any = None if frame.grid.crs is None else frame.grid.crs.proj
    shapes = _shapes(frame.grid, drawn, shape)
    if path.suffix.lower() == ".geojson":
        shapes = _to_degrees(shapes, crs, path) if shape == "point" else to_longitude_latitude(shapes, crs, path)
        crs = "EPSG:4326"
    write_features(path, shapes, _fields(frame, strata, drawn, blind), crs, layer=_LAYER)


def _fields(frame: MapFrame, strata: FrameStrata, drawn: DrawnUnits, blind: bool) -> dict[str, Any]:
    """Return the fields in order: what an assessor fills in first, what tells the map's class last."""
    import pandas as pd

    count = len(drawn.rows)
    values = strata.values[drawn.strata]
    fields: dict[str, Any] = {
        "id": np.arange(1, count + 1, dtype=np.int32),
        REFERENCE: pd.array([None] * count, dtype="Int16"),
        "row": drawn.rows,
        "col": drawn.cols,
        "pixel_area_m2": frame.pixel_areas(drawn.rows, drawn.cols),
        "map": np.array([Path(frame.name).name] * count, dtype=object),
        "frame_pixels": np.full(count, strata.pixels.sum()),
    }
    if blind:
        return {**fields, "map_check": np.array([map_check(frame, drawn.rows, drawn.cols)] * count, dtype=object)}
    drawn_units = np.bincount(drawn.strata, minlength=len(strata.values))
    share = (drawn_units / strata.pixels)[drawn.strata]
    return {
        **fields,
        "inclusion_probability": share,
        "weight": 1 / share,
        "stratum": values.astype(np.int16),
        "stratum_pixels": strata.pixels[drawn.strata],
        "stratum_area_m2": strata.areas[drawn.strata],
        "map_class": np.array(strata.names, dtype=object)[drawn.strata],
    }


def map_check(frame: MapFrame, rows: NDArray[np.int64], cols: NDArray[np.int64]) -> str:
    """Return a digest of a map's grid and of its classes at units in the order of their places."""
    order = np.lexsort((cols, rows))
    digest = hashlib.sha256()
    for part in (frame.grid.shape, *frame.grid.affine[:6]):
        digest.update(repr(part).encode())
    for numbers in (rows, cols, frame.at(rows, cols)):
        digest.update(np.ascontiguousarray(numbers[order], dtype="<i8").tobytes())
    return digest.hexdigest()[:16]


def _shapes(grid: GeoBox, drawn: DrawnUnits, shape: UnitShape) -> NDArray[np.object_]:
    a, b, c, d, e, f = grid.affine[:6]

    def place(cols: NDArray[np.floating], rows: NDArray[np.floating]) -> NDArray[np.float64]:
        return np.stack((a * cols + b * rows + c, d * cols + e * rows + f), axis=-1).astype(np.float64)

    if shape == "point":
        return np.asarray(shapely.points(place(drawn.cols + 0.5, drawn.rows + 0.5)), dtype=object)
    around = np.array([(0, 0), (0, 1), (1, 1), (1, 0), (0, 0)])
    corners = place(drawn.cols[:, None] + around[:, 0], drawn.rows[:, None] + around[:, 1])
    return np.asarray(shapely.polygons(corners), dtype=object)


def _to_degrees(points: NDArray[np.object_], crs: Any, path: Path) -> NDArray[np.object_]:
    from pyproj import Transformer

    x, y = shapely.get_coordinates(points).T
    longitude, latitude = Transformer.from_crs(crs, 4326, always_xy=True).transform(x, y)
    if not (np.isfinite(longitude).all() and np.isfinite(latitude).all()):
        raise OutputError(path, "parts of the map have no place in EPSG:4326", "write .gpkg or .parquet")
    turned = np.where(np.abs(longitude) > 180, (longitude + 180) % 360 - 180, longitude)
    return np.asarray(shapely.points(turned, latitude), dtype=object)


@dataclass(frozen=True)
class UnitTable:
    """Sampled units as a file holds them.

    Attributes
    ----------
    name
        The file, for messages.
    rows, cols
        int64 [n].
    points
        float64 [n, 2]: the pixels' centres in `crs`; NaN where the file has no geometries.
    crs
        Of the points, None where the file states none.
    references
        Object [n]: what the reference field holds, None where it is empty.
    map
        File name of the map that the sample was drawn from.
    frame_pixels
        Of the ground that it was drawn from.
    check
        Digest of the map of a blind sample, see `map_check`; else None.
    pixel_areas
        float64 [n]: square metres, NaN where they aren't known.
    stratum, stratum_pixels, stratum_areas
        int64, int64, float64 [n] of each unit's stratum; None of a blind sample.
    inclusion
        float64 [n]: inclusion probabilities; None where the file doesn't tell them.
    """

    name: str
    rows: NDArray[np.int64]
    cols: NDArray[np.int64]
    points: NDArray[np.float64]
    crs: Any
    references: NDArray[np.object_]
    map: str
    frame_pixels: int
    check: str | None
    pixel_areas: NDArray[np.float64]
    stratum: NDArray[np.int64] | None
    stratum_pixels: NDArray[np.int64] | None
    stratum_areas: NDArray[np.float64] | None
    inclusion: NDArray[np.float64] | None

    @property
    def blind(self) -> bool:
        """Whether the file doesn't tell the strata."""
        return self.stratum is None


def read_units(path: str | PathLike[str], reference_field: str = REFERENCE) -> UnitTable:
    """Read a sample, in any vector format that GDAL reads, GeoParquet, or CSV.

    Raises
    ------
    SampleError
        If it can't be read, isn't a sample of gopt-geo, or doesn't have the reference field.
    """
    name = str(path)
    frame = _read(path)
    columns = [str(column) for column in frame.columns]
    blind = "map_check" in columns
    missing = [field for field in (*_PLACES, *(() if blind else _STRATUM)) if field not in columns]
    if missing:
        found = f"it has no field {', '.join(missing)}"
        raise SampleError(name, found, "give a sample drawn by gopt-geo sample, with all of its fields")
    if reference_field not in columns:
        others = ", ".join(column for column in columns if column != "geometry")
        raise SampleError(name, f"it has no field {reference_field}", f"name one with --reference-field: {others}")
    if len(frame) == 0:
        raise SampleError(name, "it holds no unit", "give the sample whole")
    points = np.full((len(frame), 2), np.nan)
    if "geometry" in columns and not frame.geometry.isna().any():
        points = shapely.get_coordinates(shapely.centroid(np.asarray(frame.geometry.values, dtype=object)))
    text = frame[reference_field].astype(object)
    return UnitTable(
        name=name,
        rows=_numbers(frame, "row", name).astype(np.int64),
        cols=_numbers(frame, "col", name).astype(np.int64),
        points=points,
        crs=getattr(frame, "crs", None) if "geometry" in columns else None,
        references=np.array([_entry(value) for value in text], dtype=object),
        map=str(frame["map"].iloc[0]),
        frame_pixels=_single(frame, "frame_pixels", name),
        check=str(frame["map_check"].iloc[0]) if blind else None,
        pixel_areas=_optional(frame, "pixel_area_m2", columns, name, np.full(len(frame), np.nan)),
        stratum=None if blind else _numbers(frame, "stratum", name).astype(np.int64),
        stratum_pixels=None if blind else _numbers(frame, "stratum_pixels", name).astype(np.int64),
        stratum_areas=None if blind else _numbers(frame, "stratum_area_m2", name, gaps=True),
        inclusion=_optional(frame, "inclusion_probability", columns, name, None),
    )


def _read(path: str | PathLike[str]) -> Any:
    import geopandas
    import pandas as pd
    import pyogrio
    from pyogrio.errors import DataLayerError, DataSourceError

    if not Path(path).exists():
        raise SampleError(str(path), "there is no such file", "check the path")
    try:
        if Path(path).suffix.lower() == ".parquet":
            try:
                return geopandas.read_parquet(path)
            except ValueError:  # without geometries it is a plain table
                return pd.read_parquet(path)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            layers = [str(entry[0]) for entry in pyogrio.list_layers(path)]
            layer = _LAYER if _LAYER in layers else layers[0] if len(layers) == 1 else None
            if layer is None:
                found = f"none of its layers is called {_LAYER} ({', '.join(layers[:6])})"
                raise SampleError(str(path), found, "give a file with the sample alone")
            return pyogrio.read_dataframe(path, layer=layer)
    except (DataSourceError, DataLayerError, ValueError, OSError) as error:
        raise SampleError(str(path), f"it can't be read ({error})", "give the file that sample wrote") from error


def _numbers(frame: Mapping[str, Any], field: str, name: str, *, gaps: bool = False) -> NDArray[np.float64]:
    """Return a column as numbers; of a CSV they are texts. With gaps, an empty entry is NaN."""
    import pandas as pd

    numbers = np.asarray(pd.to_numeric(frame[field], errors="coerce"), np.float64)
    wrong = np.isnan(numbers)
    if gaps:
        wrong &= np.array([_entry(value) is not None for value in frame[field].astype(object)])
    if wrong.any():
        found = f"the field {field} isn't a number in row {int(wrong.argmax()) + 1}"
        raise SampleError(name, found, "leave the fields that sample wrote as they are")
    return numbers


def _optional(frame: Mapping[str, Any], field: str, columns: list[str], name: str, default: Any) -> Any:
    return _numbers(frame, field, name, gaps=True) if field in columns else default


def _single(frame: Mapping[str, Any], field: str, name: str) -> int:
    values = np.unique(_numbers(frame, field, name))
    if len(values) != 1:
        raise SampleError(name, f"the field {field} differs between its rows", "give the units of one sample")
    return int(values[0])


def _entry(value: Any) -> int | str | None:
    """Return a reference as a whole number or a text; None where it is empty."""
    if value is None or (isinstance(value, float) and np.isnan(value)) or str(value).strip() in ("", "<NA>", "nan"):
        return None
    text = str(value).strip()
    try:
        number = float(text)
    except ValueError:
        return text
    return int(number) if number.is_integer() else text
