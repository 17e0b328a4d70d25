"""Region files as they are: which feature says what, in which of four formats, opened as nothing else."""

from __future__ import annotations

import json
import re
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray
from pyproj import CRS
from pyproj.exceptions import CRSError

from gopt_geo.errors import BatchError
from gopt_geo.paths import StrPath

__all__ = ["ENDINGS", "FeatureFault", "RegionTable", "crs_member", "read_table"]

ENDINGS = {
    ".geojson": "GeoJSON",
    ".json": "GeoJSON",
    ".gpkg": "GPKG",
    ".fgb": "FlatGeobuf",
    ".parquet": "Parquet",
    ".geoparquet": "Parquet",
}
"""Formats by ending; what a file holds must agree."""

_CALLED = "GeoJSON (.geojson), GeoPackage (.gpkg), FlatGeobuf (.fgb) or GeoParquet (.parquet)"
_ADDRESS = re.compile(r"/+vsi|[A-Za-z][A-Za-z0-9+.-]+:/", re.ASCII)  # two letters: C:/ is a drive
_GPKG_IDS = (b"GPKG", b"GP10", b"GP11")
_AUTHORITY = re.compile(r"(?:urn:ogc:def:crs:)?(EPSG|OGC|ESRI|IAU[_0-9]*)(?::[0-9.]*)?:([A-Za-z0-9]+)", re.IGNORECASE)
_WKT = re.compile(r"\s*[A-Z_0-9]+\[", re.IGNORECASE)

Choose = Callable[[str], bool]


class FeatureFault(Exception):  # noqa: N818  # of one feature among many: gathered, never a user's to meet
    """What is wrong with a feature, and what helps.

    Parameters
    ----------
    found, remedy
        As those of `gopt_geo.errors.GoptGeoError`.
    """

    def __init__(self, found: str, remedy: str) -> None:
        self.found, self.remedy = found, remedy
        super().__init__(found, remedy)


@dataclass(frozen=True)
class RegionTable:
    """The features of a file.

    Attributes
    ----------
    name
        What messages call the file.
    folder
        That relative paths are relative to.
    rows
        Values by column, those that were asked for; as plain types.
    shapes
        Geometries, object [n]; None where there is none.
    crs
        That of each.
    faults
        Geometries that can't be built, by index.
    """

    name: str
    folder: Path
    rows: Sequence[Mapping[str, Any]]
    shapes: NDArray[np.object_]
    crs: Sequence[CRS]
    faults: Mapping[int, FeatureFault]


def read_table(path: StrPath, choose: Choose) -> RegionTable:
    """Read the features of a region file.

    Parameters
    ----------
    path
        A file on this machine's disk; of a GeoPackage with several layers, ``FILE|LAYER`` names one.
    choose
        Tells by its name whether a column is wanted.

    Raises
    ------
    BatchError
        If it is missing, isn't of the format that its ending says, is damaged, or states no usable CRS.
    """
    place, layer = _place(str(path))
    name = str(path)
    kind = ENDINGS.get(place.suffix.lower())
    if kind is None:
        raise BatchError(name, f"unknown ending {place.suffix!r}", f"regions come as {_CALLED}")
    if layer is not None and kind != "GPKG":
        raise BatchError(name, "only a GeoPackage has layers", "name the file alone")
    try:
        with np.errstate(invalid="ignore", over="ignore"):  # coordinates that aren't finite are found later
            rows, shapes, crs, faults = _read(place, layer, kind, name, choose)
    except BatchError:
        raise
    except OSError as error:
        reason = error.strerror or error
        raise BatchError(name, f"it can't be read ({reason})", "check the file and your rights to read it") from error
    except shapely.errors.ShapelyError as error:
        raise BatchError(
            name, f"a polygon of it can't be built ({error})", "correct it, or write the file anew"
        ) from error
    except (ValueError, TypeError, KeyError, RuntimeError, CRSError) as error:  # RecursionError among them
        raise BatchError(name, f"it can't be read as {kind} ({error})", f"give whole {_CALLED}") from error
    return RegionTable(name, place.absolute().parent, rows, shapes, crs, faults)


_Read = tuple[list[dict[str, Any]], NDArray[np.object_], list[CRS], dict[int, FeatureFault]]


def _read(place: Path, layer: str | None, kind: str, name: str, choose: Choose) -> _Read:
    if kind == "GeoJSON":
        return _of_geojson(place, name, choose)
    rows, shapes, one = _of_parquet(place, choose) if kind == "Parquet" else _of_gdal(place, layer, kind, choose)
    return rows, shapes, [_usable(one, name)] * len(rows), {}


def _place(text: str) -> tuple[Path, str | None]:
    """Tell the file from the layer; neither GDAL's virtual file systems nor its connection strings are paths here."""
    if _ADDRESS.match(text):
        raise BatchError(text, "regions are read from this machine's disk alone", "copy the file here")
    path, layer = text, None
    if not _is_file(path) and "|" in text:
        path, layer = text.rsplit("|", 1)
    if not _is_file(path):
        raise BatchError(text, "there is no such file", "check the path")
    return Path(path), layer


def _is_file(path: str) -> bool:
    try:
        return Path(path).is_file()
    except (OSError, ValueError):  # too long for a path, or with a zero byte
        return False


def _usable(crs: CRS | None, name: str) -> CRS:
    if crs is None:
        raise BatchError(name, "it states no CRS", "write it with one, such as EPSG:4326")
    if not (crs.is_geographic or crs.is_projected):
        raise BatchError(name, f"its CRS {crs.name} doesn't place anything on the ground", "write it with another")
    return crs


def _of_geojson(place: Path, name: str, choose: Choose) -> _Read:
    """Read GeoJSON itself: GDAL makes one type of all values of a column, and text of lists."""
    document = json.loads(place.read_text(encoding="utf-8-sig"), parse_constant=_no_number)
    kind = document.get("type") if isinstance(document, dict) else type(document).__name__
    features: Any = None
    if kind in ("FeatureCollection", "Feature"):
        features = document.get("features") if kind == "FeatureCollection" else [document]
    if not isinstance(features, list):
        found = f"it is no collection of features but {kind or 'something else'!s:.60}"
        raise BatchError(name, found, "give GeoJSON with features, or another format by its own ending")
    whole = _member_crs(document, CRS.from_epsg(4326), name)
    rows, texts, crs, faults = [], [], [], {}
    for index, feature in enumerate(features):
        said = feature.get("properties") if isinstance(feature, dict) else None
        if not isinstance(feature, dict) or not isinstance(said, dict | None):
            raise BatchError(name, f"feature {index + 1} isn't one of GeoJSON", "correct it")
        row = {key: value for key, value in (said or {}).items() if choose(key)}
        if row.get("id") is None and "id" in feature:
            row["id"] = feature["id"]
        rows.append(row)
        geometry = feature.get("geometry")
        texts.append(None if geometry is None else json.dumps(geometry))
        crs.append(_member_crs(feature, whole, name) if "crs" in feature and feature is not document else whole)
    shapes = np.asarray(shapely.from_geojson(texts, on_invalid="ignore"), dtype=object).reshape(len(texts))
    for index in np.flatnonzero(shapely.is_missing(shapes)).tolist():
        text = texts[index]
        if text is not None:
            faults[index] = FeatureFault(f"its geometry can't be built ({_reason(text)})", "correct it")
    return rows, shapes, crs, faults


def _no_number(constant: str) -> float:
    raise ValueError(f"{constant} is no number of JSON")


def _reason(text: str) -> str:
    try:
        shapely.from_geojson(text)
    except shapely.errors.ShapelyError as error:
        return str(error)[:160]
    return "it is empty"


def crs_member(crs: CRS) -> dict[str, Any]:
    """Return GeoJSON's member that names a CRS, as its first edition had it and GDAL reads it."""
    authority = crs.to_authority(min_confidence=100)
    known = authority is not None and CRS.from_authority(*authority) == crs
    version = "1.3" if known and authority[0] == "OGC" else ""
    text = f"urn:ogc:def:crs:{authority[0]}:{version}:{authority[1]}" if known else crs.to_wkt()
    return {"type": "name", "properties": {"name": text}}


def _member_crs(document: Mapping[str, Any], otherwise: CRS, name: str) -> CRS:
    """Return the CRS that a collection or feature states; texts that would make PROJ open files aren't taken."""
    if "crs" not in document:
        return otherwise
    member = document["crs"]
    said = member.get("properties") if isinstance(member, dict) and member.get("type") == "name" else None
    text = said.get("name") if isinstance(said, dict) else None
    if isinstance(text, str):
        found = _AUTHORITY.fullmatch(text.strip())
        try:
            if found is not None:
                return _usable(CRS.from_authority(*found.groups()), name)
            if _WKT.match(text):
                return _usable(CRS.from_wkt(text), name)
        except CRSError:
            pass
    shown = json.dumps(text if text is not None else member)[:80]
    raise BatchError(name, f"it states a CRS that isn't known ({shown})", "name it as urn:ogc:def:crs:EPSG::32632")


def _of_gdal(
    place: Path, layer: str | None, kind: str, choose: Choose
) -> tuple[list[dict[str, Any]], NDArray[np.object_], CRS | None]:
    import pyogrio

    name = str(place) if layer is None else f"{place}|{layer}"
    _check_begins(place, kind, name)
    whole = place.absolute()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        layers = [str(entry[0]) for entry in pyogrio.list_layers(whole) if entry[1] is not None]
        if not layers or (layer is not None and layer not in layers):
            found = (
                "it has no layer with geometries" if layer is None else f"there is no layer {layer!r} with geometries"
            )
            raise BatchError(name, found, f"its layers are {', '.join(layers)}" if layers else "give polygons")
        if layer is None and len(layers) > 1:
            found = f"it has several layers ({', '.join(layers[:6])}{', ...' if len(layers) > 6 else ''})"
            raise BatchError(name, found, f"name one: '{place}|{layers[0]}'")
        about = pyogrio.read_info(whole, layer=layer or layers[0])
        if about["driver"] != kind:  # another of GDAL's drivers made sense of it
            raise BatchError(name, f"it is {about['driver']}, not {kind}", "give it the ending of its format")
        fields = [str(field) for field in about["fields"] if choose(str(field))]
        meta, table = pyogrio.read_arrow(whole, layer=layer or layers[0], columns=fields, return_fids=True)
    shapes = shapely.from_wkb(table[meta["geometry_name"] or "wkb_geometry"].to_pylist())
    keys = meta["fid_column"]
    kept = fields + ([keys] if keys == "id" and keys not in fields else [])  # a GeoPackage whose key is called id
    rows = table.select(kept).to_pylist() if kept else [{} for _ in range(len(table))]
    return rows, np.asarray(shapes, dtype=object), None if meta["crs"] is None else CRS.from_user_input(meta["crs"])


def _check_begins(place: Path, kind: str, name: str) -> None:
    """Look at a file's first bytes before GDAL does, which goes by them and not by endings."""
    with place.open("rb") as file:
        head = file.read(72)
    if kind == "GPKG":
        right = head.startswith(b"SQLite format 3\0") and head[68:72] in _GPKG_IDS
    else:
        right = head.startswith(b"fgb\x03fgb")
    if not right:
        raise BatchError(name, f"it is damaged, or isn't {kind}", "get the file again, or give it its own ending")


def _of_parquet(place: Path, choose: Choose) -> tuple[list[dict[str, Any]], NDArray[np.object_], CRS | None]:
    import geopandas
    from pyarrow import parquet

    with place.open("rb") as file:  # a path would be taken for a URL where it looks like one
        schema = parquet.read_schema(file)
        about = (schema.metadata or {}).get(b"geo")
        if about is None:
            raise ValueError("it has no metadata of GeoParquet")
        main = str(json.loads(about)["primary_column"])
        frame = geopandas.read_parquet(file, columns=[main])
        wanted = [str(column) for column in schema.names if column != main and choose(str(column))]
        rows = parquet.read_table(file, columns=wanted).to_pylist() if wanted else [{} for _ in range(len(frame))]
    crs = None if frame.crs is None else CRS.from_user_input(frame.crs)
    return rows, np.asarray(frame.geometry.values, dtype=object), crs
