"""An index of scenes: a vector file with the footprint, path, date and cloud cover of each."""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
import shapely
from numpy.typing import NDArray
from pyproj import CRS
from pyproj.exceptions import CRSError
from shapely.geometry.base import BaseGeometry

from gopt_geo.batch.origins import named_source
from gopt_geo.errors import SourceError
from gopt_geo.paths import StrPath

if TYPE_CHECKING:
    import pyarrow

__all__ = ["INDEX_ENDINGS", "Footprint", "FootprintIndex", "Modality"]

Modality = Literal["optical", "sar"]
Bounds = tuple[float, float, float, float]

# What a file must begin with to be of its ending's format: GDAL goes by content, and OGR VRT could name anything.
_MAGIC = {".parquet": b"PAR1", ".gpkg": b"SQLite format 3\0"}
_TEXT = (".geojson",)
INDEX_ENDINGS = (*_MAGIC, *_TEXT)
"""Endings of the files that are read as an index."""

_COLUMNS = ("path", "modality", "optical", "sar", "datetime", "cloud_cover")
_REMEDY = "give path and modality, or optical and sar; datetime and cloud_cover as well (docs/batch.md)"


@dataclass(frozen=True)
class Footprint:
    """A scene of an index.

    Attributes
    ----------
    source
        Path or URL, as `gopt_geo.predict` takes it.
    modality
        "optical" or "sar".
    geometry
        What it shows, in the index's CRS.
    time
        When it was acquired, in UTC; None where the index doesn't say.
    clouds
        Cloud cover in percent; None where the index doesn't say.
    subject
        What messages call it: the file and the feature.
    """

    source: str
    modality: Modality
    geometry: BaseGeometry
    time: datetime | None
    clouds: float | None
    subject: str


class _Rows(NamedTuple):
    """Some of an index's features."""

    table: pyarrow.Table
    geometry: str  # the column with WKB
    numbers: Sequence[int]


class FootprintIndex:
    """Scenes in a GeoParquet, GeoPackage or GeoJSON file.

    A feature is a scene's footprint (a polygon) with the columns `path` and `modality` ("optical" or "sar"), or
    `optical` and/or `sar`, which hold the paths themselves; and, where known, `datetime` and `cloud_cover` (percent).
    Relative paths are relative to the file's folder.

    Parameters
    ----------
    path
        The file.
    allow_remote
        Whether it may name URLs.

    Attributes
    ----------
    crs : pyproj.CRS
        Of the footprints.
    has_clouds : bool
        Whether it has a column of cloud cover.

    Raises
    ------
    SourceError
        If it can't be read, isn't of its ending's format, or lacks columns.

    Notes
    -----
    Of a GeoPackage the features near an area are read, by its own spatial index. The columns named above of GeoParquet
    and GeoJSON are held in memory.
    """

    def __init__(self, path: StrPath, *, allow_remote: bool = False) -> None:
        self.path = Path(path)
        self.name = str(path)
        self._allow_remote = allow_remote
        self._ending = self.path.suffix.lower()
        _check_format(self.path, self.name)
        self._held: _Rows | None = None
        self._bounds: NDArray[np.float64] = np.empty((0, 4))
        if self._ending == ".parquet":
            self._held, crs, columns = _read_parquet(self.path, self.name)
        else:
            self._held, crs, columns = _read_vector(self.path, self.name, whole=self._ending in _TEXT)
        self.crs = _crs(crs, self.name)
        self.has_clouds = "cloud_cover" in columns
        _check_columns(columns, self.name)
        if self._held is not None:
            self._bounds = _bounds_of(self._held, self.name)

    def near(self, bounds: Bounds) -> Iterator[Footprint]:
        """Yield the scenes whose bounds touch these, in the index's CRS.

        Raises
        ------
        SourceError
            If a feature isn't what an index holds; it is named.
        """
        rows = self._touching(bounds)
        columns = set(rows.table.column_names)
        records = rows.table.select([name for name in _COLUMNS if name in columns]).to_pylist()
        shapes = _geometries(rows, self.name)
        for number, record, shape in zip(rows.numbers, records, shapes, strict=True):
            subject = f"{self.name}, feature {number}"
            if shape is None or shape.is_empty:
                continue  # a feature without a place shows nothing
            if shapely.get_dimensions(shape) != 2:
                raise SourceError(subject, f"its footprint is a {shape.geom_type}", "give polygons")
            moment, clouds = _moment(record.get("datetime"), subject), _clouds(record.get("cloud_cover"), subject)
            for modality, text in _named(record, subject):
                source = named_source(text, self.path.absolute().parent, subject, self._allow_remote)
                yield Footprint(source, modality, shapely.make_valid(shape), moment, clouds, subject)

    def _touching(self, bounds: Bounds) -> _Rows:
        if self._held is None:
            found, _, _ = _read_vector(self.path, self.name, bounds=bounds)
            assert found is not None
            return found
        left, bottom, right, top = bounds
        west, south, east, north = self._bounds.T
        hits = np.flatnonzero((west <= right) & (east >= left) & (south <= top) & (north >= bottom))
        return self._held._replace(table=self._held.table.take(hits), numbers=hits.tolist())


def _check_format(path: Path, name: str) -> None:
    """Refuse a file that is missing, or isn't what its ending says."""
    ending = path.suffix.lower()
    if ending not in INDEX_ENDINGS:
        raise SourceError(name, f"{ending or 'no ending'} isn't one of an index", f"use {', '.join(INDEX_ENDINGS)}")
    if not path.is_file():
        raise SourceError(name, "there is no such file", "check the path")
    try:
        with path.open("rb") as file:
            head = file.read(64)
    except OSError as error:
        raise SourceError(name, f"it can't be read ({error.strerror})", "check its rights") from error
    wanted = _MAGIC.get(ending)
    text = head.removeprefix(b"\xef\xbb\xbf").lstrip()
    if not (text.startswith(b"{") if wanted is None else head.startswith(wanted)):
        raise SourceError(name, f"its content isn't that of a {ending} file", "write it again, or rename it")


def _read_parquet(path: Path, name: str) -> tuple[_Rows, Any, set[str]]:
    """Read the columns that matter of a GeoParquet file: rows, CRS, names of its columns."""
    import pyarrow
    import pyarrow.parquet

    try:
        file = pyarrow.parquet.ParquetFile(path)
        columns = set(file.schema_arrow.names)
        geo = json.loads((file.metadata.metadata or {}).get(b"geo", b"{}"))
        primary = geo.get("primary_column")
        stated = geo.get("columns", {}).get(primary) if primary in columns else None
        if stated is None or stated.get("encoding") != "WKB":
            found = "it states no geometry as WKB" if stated is None else f"its geometry is {stated.get('encoding')}"
            raise SourceError(name, found, "write it with geopandas' to_parquet")
        table = file.read([primary, *(column for column in _COLUMNS if column in columns)])
    except (pyarrow.ArrowException, OSError, ValueError, AttributeError) as error:
        raise SourceError(name, f"it can't be read ({_line(error)})", "write it again") from error
    # By the standard a file that states no CRS is in longitude and latitude; one that says null, in none.
    return _Rows(table, primary, range(table.num_rows)), stated.get("crs", "OGC:CRS84"), columns


def _read_vector(
    path: Path, name: str, *, whole: bool = False, bounds: Bounds | None = None
) -> tuple[_Rows | None, Any, set[str]]:
    """Read features of the one layer of a file, all or those near some bounds; else only what columns it has."""
    import pyogrio
    from pyogrio.errors import DataLayerError, DataSourceError, FieldError, GeometryError

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            layers = [str(entry[0]) for entry in pyogrio.list_layers(path) if entry[1] is not None]
            if len(layers) != 1:
                raise SourceError(name, f"it has {len(layers)} layers with geometries", "give a file with one layer")
            info = pyogrio.read_info(path, layer=layers[0])
            columns = {str(field) for field in info["fields"]}
            if not whole and bounds is None:
                return None, info["crs"], columns
            wanted = [column for column in _COLUMNS if column in columns]
            meta, table = pyogrio.read_arrow(path, layer=layers[0], columns=wanted, bbox=bounds, return_fids=True)
    except (DataSourceError, DataLayerError, FieldError, GeometryError, ValueError, RuntimeError) as error:
        raise SourceError(name, f"it can't be read ({_line(error)})", "write it again") from error
    geometry = meta["geometry_name"] or "wkb_geometry"
    numbers = next(column for column in table.column_names if column not in {*wanted, geometry})
    return _Rows(table, geometry, table.column(numbers).to_pylist()), info["crs"], columns


def _crs(stated: Any, name: str) -> CRS:
    if stated is None:
        raise SourceError(name, "it states no CRS", "write it with one, such as EPSG:4326")
    try:
        return CRS.from_user_input(stated)
    except CRSError as error:
        raise SourceError(name, "its CRS isn't one that PROJ knows", "write it with another") from error


def _check_columns(columns: set[str], name: str) -> None:
    if ("path" in columns and "modality" in columns) or columns & {"optical", "sar"}:
        return
    has = ", ".join(sorted(columns)) or "none"
    raise SourceError(name, f"it lacks columns that name rasters (it has {has})", _REMEDY)


def _geometries(rows: _Rows, name: str) -> NDArray[np.object_]:
    try:
        wkb = rows.table.column(rows.geometry).to_numpy()
        return np.asarray(shapely.from_wkb(wkb), dtype=object)
    except (shapely.errors.ShapelyError, TypeError) as error:
        raise SourceError(name, f"a geometry can't be read ({_line(error)})", "write it again") from error


def _bounds_of(rows: _Rows, name: str) -> NDArray[np.float64]:
    """Return the bounds of all features [n, 4], NaN of those without a geometry; decoded portion by portion."""
    parts = [np.empty((0, 4))]
    for start in range(0, rows.table.num_rows, 65536):
        parts.append(shapely.bounds(_geometries(rows._replace(table=rows.table.slice(start, 65536)), name)))
    return np.concatenate(parts)


def _named(record: dict[str, Any], subject: str) -> Iterator[tuple[Modality, str]]:
    """Yield what a feature names: modality and text."""
    path, modality = record.get("path"), record.get("modality")
    if path is not None:
        known = str(modality).casefold()
        if known not in ("optical", "sar"):
            raise SourceError(subject, f"its modality is {modality!r}", "write optical or sar")
        yield ("sar" if known == "sar" else "optical"), _text(path, subject)
    columns: tuple[Modality, ...] = ("optical", "sar")
    for column in columns:
        if record.get(column) not in (None, ""):
            yield column, _text(record[column], subject)


def _text(value: Any, subject: str) -> str:
    if not isinstance(value, str):
        raise SourceError(subject, f"its path is a {type(value).__name__}", "give a path as text")
    return value


def _moment(value: Any, subject: str) -> datetime | None:
    if value is None or value == "":
        return None
    try:
        if isinstance(value, str):
            value = datetime.fromisoformat(value.strip().replace("/", "-"))
        elif isinstance(value, date) and not isinstance(value, datetime):
            value = datetime.combine(value, time())
        moment: datetime = value
        return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    except (ValueError, AttributeError, OverflowError) as error:
        raise SourceError(subject, f"its datetime is {value!r}", "write it as 2024-06-01T10:30:00Z") from error


def _clouds(value: Any, subject: str) -> float | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not (0 <= value <= 100 or value != value):
        raise SourceError(subject, f"its cloud_cover is {value!r}", "give a percentage, 0 to 100")
    return None if value != value else float(value)


def _line(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__
