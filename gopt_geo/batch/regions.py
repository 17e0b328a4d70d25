"""Regions of a batch: one polygon each, its scenes and options; read from files that nobody vouches for."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import shapely
from pyproj import CRS

from gopt_geo.batch.regioncolumns import OPTIONS, RowReader, concerns
from gopt_geo.batch.regionfile import FeatureFault, crs_member, read_table
from gopt_geo.batch.regionids import alike, id_fault
from gopt_geo.batch.regionshapes import distinct, places, shape_faults
from gopt_geo.errors import BatchError
from gopt_geo.outputs.staging import Staging
from gopt_geo.paths import StrPath

__all__ = ["Region", "check_regions", "read_regions", "write_regions"]

_SHOWN = 60


@dataclass(frozen=True)
class Region:
    """One polygon of a batch, its scenes, and what is said of it alone.

    Attributes
    ----------
    id
        What its results are called; see `check_regions` for which ids serve.
    geometry
        Polygon or multipolygon, valid and not empty; longitude or easting first.
    crs
        Of its coordinates, geographic or projected.
    optical, sar
        Scenes of a modality: absolute paths, or what else names a source as text (docs/sources.md). The first named
        wins; () where there is none.
    pack
        Absolute path of its own prompt pack; None for the batch's.
    options
        Keywords of `gopt_geo.predict` for this region alone, by `gopt_geo.batch.regioncolumns.OPTIONS`.
    """

    id: str
    geometry: shapely.Geometry
    crs: CRS
    optical: tuple[str, ...] = ()
    sar: tuple[str, ...] = ()
    pack: str | None = None
    options: Mapping[str, Any] = field(default_factory=dict)


def read_regions(path: StrPath, *, allow_remote: bool = False, need_sources: bool = True) -> tuple[Region, ...]:
    """Read regions from a file; what its columns mean stands in docs/batch.md.

    Parameters
    ----------
    path
        GeoJSON, GeoPackage (``FILE|LAYER`` where it has several layers), FlatGeobuf or GeoParquet, by its ending.
    allow_remote
        Whether scenes may be URLs, or paths of GDAL's virtual file systems of servers and archives.
    need_sources
        Whether each region must name a scene; without, a catalogue finds them.

    Returns
    -------
    tuple of Region
        At least one, in the file's order.

    Raises
    ------
    BatchError
        If the file can't be read; else about the first feature at fault, with the number of further faults.
    """
    table = read_table(path, lambda column: concerns(column) is not None)
    columns = RowReader(table.folder, allow_remote=allow_remote)
    faults: list[_Fault] = []
    ids: list[str] = []
    regions = []
    for index, (row, geometry, crs) in enumerate(zip(table.rows, table.shapes, table.crs, strict=True)):
        text, missing = _id_text(row.get("id"))
        told, wrong = columns.read(row)
        if need_sources and not wrong and not (told.get("optical") or told.get("sar")):
            remedy = "name its scenes in the columns optical and sar, or find them with --catalog"
            wrong.append(FeatureFault("it names no scene", remedy))
        for fault in (*missing, *wrong):
            faults.append((index, fault))
        ids.append(text)
        regions.append(Region(text, geometry, crs, **told))
    unbuilt = table.faults
    shapes = shapely.force_2d(table.shapes)
    faults += [(index, unbuilt.get(index, fault)) for index, fault in shape_faults(shapes, table.crs)]
    unnamed = {index for index, text in enumerate(ids) if not text}  # said already
    faults += [(index, fault) for index, fault in _id_faults(ids, "features") if index not in unnamed]
    _report(table.name, "feature", faults, ids)
    return tuple(replace(region, geometry=shape) for region, shape in zip(regions, shapes, strict=True))


def check_regions(regions: Iterable[Region]) -> tuple[Region, ...]:
    """Check regions made in Python as `read_regions` checks those of a file.

    An id serves if it can be a file's name on any file system: not empty, at most 200 bytes, without separators,
    control characters, spaces around it, a dot or dash in front, or one of ``< > : " | ? *``; none that Windows
    reserves; and no two that differ by case or by how their letters are composed alone.

    Returns
    -------
    tuple of Region
        The same, their geometries without heights.

    Raises
    ------
    BatchError
        About the first region at fault, with the number of further faults.
    """
    checked = tuple(regions)
    faults: list[_Fault] = []
    placing = {key: places(one) for key, one in distinct([region.crs for region in checked]).items()}
    for index, region in enumerate(checked):
        faults += [(index, fault) for fault in _type_faults(region, placed=placing[id(region.crs)])]
    ids = [region.id if isinstance(region.id, str) else "" for region in checked]
    if not faults:  # geometries that are none can't be looked at
        shapes = shapely.force_2d(np.array([region.geometry for region in checked], dtype=object))
        faults = shape_faults(shapes, [region.crs for region in checked]) + _id_faults(ids, "regions")
    _report("regions", "region", faults, ids)
    return tuple(replace(region, geometry=shape) for region, shape in zip(checked, shapes, strict=True))


def write_regions(path: StrPath, regions: Iterable[Region]) -> None:
    """Write regions as GeoJSON, from which `read_regions` makes equal ones; replaces the file whole or not at all.

    Coordinates stay in the regions' CRS, which GeoJSON's member ``crs`` names where it isn't EPSG:4326: GDAL and QGIS
    understand it. Where the regions have several, each feature has its own, which they don't.

    Parameters
    ----------
    path
        Ends in .geojson.
    regions
        Checked ones.

    Raises
    ------
    OutputError
        If it can't be written.
    """
    listed = tuple(regions)
    common = {one.to_wkt() for one in distinct([region.crs for region in listed]).values()}
    whole = listed[0].crs if len(common) == 1 else CRS.from_epsg(4326)
    head: dict[str, Any] = {"type": "FeatureCollection"}
    if whole != CRS.from_epsg(4326):
        head["crs"] = crs_member(whole)
    with Staging(overwrite=True) as staging:
        staged = staging.path(path, (".geojson",))
        with staged.open("w", encoding="utf-8") as file:
            file.write(json.dumps(head, ensure_ascii=False)[:-1] + ', "features": [')
            for number, region in enumerate(listed):
                feature = _feature(region, own_crs=len(common) > 1)
                file.write(("\n" if number == 0 else ",\n") + json.dumps(feature, ensure_ascii=False, allow_nan=False))
            file.write("\n]}\n")
        staging.publish()


def _feature(region: Region, *, own_crs: bool) -> dict[str, Any]:
    said: dict[str, Any] = {"id": region.id}
    for modality, scenes in (("optical", region.optical), ("sar", region.sar)):
        if scenes:
            said[modality] = list(scenes)  # a list, for a path may hold a semicolon
    if region.pack is not None:
        said["pack"] = region.pack
    for name, value in region.options.items():
        said[name] = os.fspath(value) if isinstance(value, os.PathLike) else value
    feature: dict[str, Any] = {"type": "Feature", "properties": said}
    if own_crs:
        feature["crs"] = crs_member(region.crs)
    geometry: Any = region.geometry
    feature["geometry"] = shapely.geometry.mapping(geometry)
    return feature


_Fault = tuple[int, FeatureFault]


def _report(name: str, what: str, faults: Sequence[_Fault], ids: Sequence[str]) -> None:
    """Raise an error about the first fault, by the order of features; refuse a file without any."""
    if not ids:
        raise BatchError(name, f"it holds no {what}s", "give one polygon at least")
    if not faults:
        return
    index, first = min(faults, key=lambda fault: fault[0])
    further = len(faults) - 1
    more = f" (and {further} further fault{'s' if further > 1 else ''} in it)" if further else ""
    called = f" ({_short(ids[index])})" if ids[index] else ""
    raise BatchError(name, f"{what} {index + 1}{called}: {first.found}{more}", first.remedy)


def _short(text: str) -> str:
    shown = repr(text)
    return shown if len(shown) <= _SHOWN else f"{shown[: _SHOWN - 3]}..."


def _id_text(value: object) -> tuple[str, list[FeatureFault]]:
    """Return an id as text; "" with what is wrong if it is no id at all."""
    if isinstance(value, str):
        return value, [] if value else [FeatureFault("its id is empty", "give it one, text or a whole number")]
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value), []
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return "", [FeatureFault("it has no id", "give each feature one in the column id, text or a whole number")]
    return "", [FeatureFault(f"its id {value!r:.60} is neither text nor a whole number", "write it as text")]


def _id_faults(ids: Sequence[str], called: str) -> list[_Fault]:
    """Check ids one by one, and that no two would share a file."""
    faults = []
    seen: dict[str, int] = {}
    for index, text in enumerate(ids):
        why = id_fault(text)
        if why is not None:
            faults.append((index, FeatureFault(f"its id can't name a file: {why}", "give it another id")))
            continue
        before = seen.setdefault(alike(text), index)
        if before != index:
            how = "the same id" if ids[before] == text else "ids that are one name to some file systems"
            found = f"{called} {before + 1} and {index + 1} have {how} ({_short(ids[before])}, {_short(text)})"
            faults.append((index, FeatureFault(found, "give each its own")))
    return faults


def _type_faults(region: Region, *, placed: bool) -> list[FeatureFault]:
    """Check what Python's types don't make sure of."""
    faults = []
    if not isinstance(region.id, str):
        faults.append(FeatureFault(f"its id {region.id!r:.60} is no text", "write it as text"))
    if not isinstance(region.geometry, shapely.Geometry | None):
        faults.append(FeatureFault(f"its geometry is a {type(region.geometry).__name__}", "give one of shapely"))
    if not placed:
        faults.append(FeatureFault("its CRS doesn't place it on the ground", "give a CRS of pyproj"))
    for modality, scenes in (("optical", region.optical), ("sar", region.sar)):
        if not isinstance(scenes, tuple) or not all(isinstance(scene, str) for scene in scenes):
            faults.append(FeatureFault(f"{modality} is no tuple of texts", 'write it as ("s2.tif",)'))
    strange = next((name for name in region.options if name not in OPTIONS), None)
    if strange is not None:
        faults.append(FeatureFault(f"it has no option {strange!r}", f"the options are {', '.join(OPTIONS)}"))
    return faults
