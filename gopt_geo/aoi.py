"""The area of interest: polygons from a file or a text, and which pixels of a grid they hold."""

from __future__ import annotations

import math
import re
import warnings
from dataclasses import dataclass, replace
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray
from pyproj import CRS
from pyproj.exceptions import CRSError

from gopt_geo.errors import AoiError
from gopt_geo.grid import GeoBox, Window, crop, lattice
from gopt_geo.paths import StrPath
from gopt_geo.scene import BLOCK
from gopt_geo.shapes import ShapeRaster, polygons_of, to_pixels, units_per_degree

__all__ = ["Aoi", "AoiMask", "read_aoi"]

_NUMBER = r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?"
_BOUNDS = re.compile(rf"\s*{_NUMBER}(?:\s*,\s*{_NUMBER}){{3}}\s*")
_WKT = re.compile(
    r"\s*(?:SRID\s*=\s*(\d+)\s*;)?\s*((?:MULTI)?(?:POLYGON|POINT|LINESTRING|CURVE|SURFACE)|CURVEPOLYGON"
    r"|LINEARRING|GEOMETRYCOLLECTION|CIRCULARSTRING|COMPOUNDCURVE)\b",
    re.IGNORECASE,
)
_FORMATS = "GeoJSON, GeoPackage, Shapefile, FlatGeobuf, WKT or minx,miny,maxx,maxy"


@dataclass(frozen=True)
class Aoi:
    """An area of interest; made by `read_aoi`.

    Attributes
    ----------
    name
        What messages call it: the file, or the text in short.
    polygons
        Valid polygons, object [n], at least one.
    crs
        Their CRS.
    notices
        What was taken for granted, one line each.
    path
        The file it was read from, None for a text.
    """

    name: str
    polygons: NDArray[np.object_]
    crs: CRS
    notices: tuple[str, ...] = ()
    path: Path | None = None

    @property
    def wkt(self) -> str:
        """The union of the polygons as WKT in EPSG:4326, for provenance."""
        from pyproj import Transformer

        whole = shapely.union_all(self.polygons)
        if self.crs != CRS.from_epsg(4326):
            left, bottom, right, top = whole.bounds
            whole = shapely.segmentize(whole, max(right - left, top - bottom) / 64)
            there = Transformer.from_crs(self.crs, 4326, always_xy=True).transform
            whole = shapely.transform(whole, lambda points: np.stack(there(*points.T), axis=1))
        return str(shapely.to_wkt(whole, rounding_precision=7))

    def on(self, grid: GeoBox) -> AoiMask:
        """Bring the area onto a grid.

        Raises
        ------
        AoiError
            If the grid has no CRS, or no pixel's centre lies in the area.
        GridError
            If there is no way between the CRSs.
        """
        return AoiMask(self, grid)

    def surroundings(self, grid: GeoBox, least: int = 512) -> GeoBox:
        """Return the part of a grid around the area, of at least `least` pixels a side where the grid has them.

        All of the grid where the area doesn't lie on it.
        """
        try:
            window = self.on(grid).window
        except AoiError:  # whoever maps the area says so
            return grid
        height, width = max(window.height, least), max(window.width, least)
        row, col = window.row - (height - window.height) // 2, window.col - (width - window.width) // 2
        part = Window(row, col, height, width).clip(grid.shape)
        return grid if part is None else crop(grid, part)

    def mask(self, grid: GeoBox, window: Window) -> NDArray[np.bool_]:
        """Tell which pixels of a window have their centre in the area, bool [h, w]; see `AoiMask.read` for many."""
        return self.on(grid).read(window)


class AoiMask:
    """An area of interest on a grid.

    Attributes
    ----------
    window : Window
        The smallest window of the grid that holds all of the area's pixels, at least one.
    notices : tuple of str
        The area's, and whether it reaches beyond the grid.
    """

    def __init__(self, aoi: Aoi, grid: GeoBox) -> None:
        if grid.crs is None:
            raise AoiError(
                aoi.name, "the scene has no CRS to place it by", "leave --aoi out, or give rasters with a CRS"
            )
        self._raster = ShapeRaster(
            to_pixels(aoi.polygons, aoi.crs, grid, aoi.name), [1] * len(aoi.polygons), (grid.shape[0], grid.shape[1]), 0
        )
        beyond = f"warning: {aoi.name} reaches beyond the scene, where there is nothing to map"
        self.notices = (*aoi.notices, *([beyond] if self._raster.reaches_beyond else []))
        bounds = self._raster.bounds
        if bounds is None:
            found = "it doesn't touch the scene"
            remedy = "check its CRS (--aoi-crs; in a batch, the CRS of its file) and that both show the same ground"
            raise AoiError(aoi.name, found, remedy)
        self.window = self._tight(bounds, aoi.name)

    def _tight(self, bounds: Window, name: str) -> Window:
        """Return the window of the pixels themselves: a polygon's bounds may hold rows without a pixel's centre."""
        rows = np.zeros(bounds.height, bool)
        cols = np.zeros(bounds.width, bool)
        for block in lattice(bounds, BLOCK):
            part = block.intersect(bounds)
            if part is not None:
                inside = self.read(part)
                down, across = part.slices_in(bounds)
                rows[down] |= inside.any(axis=1)
                cols[across] |= inside.any(axis=0)
        if not rows.any():
            raise AoiError(
                name, "it holds no pixel's centre of the scene", "give a larger area, or a finer --resolution"
            )
        (first, last), (left, right) = np.flatnonzero(rows)[[0, -1]].tolist(), np.flatnonzero(cols)[[0, -1]].tolist()
        return Window(bounds.row + first, bounds.col + left, last - first + 1, right - left + 1)

    def read(self, window: Window) -> NDArray[np.bool_]:
        """Tell which pixels of a window have their centre in the area, bool [h, w]; False beyond the grid's edges.

        Memory is bounded by the window and a cache of 32 MiB; several threads may call at once.
        """
        inside: NDArray[np.bool_] = self._raster.read(window) == 1
        return inside


def read_aoi(source: StrPath, crs: str | None = None) -> Aoi:
    """Read an area of interest.

    Parameters
    ----------
    source
        A vector file of any format that GDAL reads, GeoJSON or WKT as text, or the bounds
        ``minx,miny,maxx,maxy``. Of a file with several layers, ``FILE|LAYER`` names one.
    crs
        CRS of a text, else longitude and latitude (EPSG:4326); or of a file that states none.

    Raises
    ------
    AoiError
        If it can't be read, is empty, holds points or lines, or its CRS isn't known or contradicts `crs`.
    """
    stated = _parse_crs(crs) if crs is not None else None
    text = str(source).strip()
    if _BOUNDS.fullmatch(text):
        return _finish(text, _bounds(text), stated or CRS.from_epsg(4326))
    if found := _WKT.match(text):
        srid = _parse_crs(f"EPSG:{found.group(1)}") if found.group(1) else None
        name = _short(text)
        return _finish(name, _from_wkt(text[found.start(2) :], name), _one_crs(srid, stated, name, text=True))
    if text.startswith("{"):
        return _from_file(BytesIO(text.encode()), None, "GeoJSON text", stated)
    path, layer = text, None
    if not _is_there(path) and "|" in text:
        path, layer = text.rsplit("|", 1)
    if not _is_there(path):
        raise AoiError(_short(text), "there is no such file, and it is no WKT and no four numbers", f"give {_FORMATS}")
    return replace(_from_file(Path(path), layer, text, stated), path=Path(path))


def _is_there(path: str) -> bool:
    try:
        return Path(path).exists()
    except (OSError, ValueError):  # a text too long for a path, or with a zero byte
        return False


def _short(text: str) -> str:
    return text if len(text) <= 60 else f"{text[:57]}..."


def _parse_crs(crs: str) -> CRS:
    try:
        return CRS.from_user_input(crs)
    except CRSError as error:
        raise AoiError(f"--aoi-crs {crs}", "no such CRS", "give one that PROJ knows, such as EPSG:32632") from error


def _one_crs(own: CRS | None, stated: CRS | None, name: str, *, text: bool = False) -> CRS:
    """Return the CRS that the area states, else the option's; refuse a contradiction."""
    if own is not None and stated is not None and own != stated:
        found = f"it states the CRS {own.name}, --aoi-crs says {stated.name}"
        raise AoiError(name, found, "leave --aoi-crs out, or correct the file")
    chosen = own or stated or (CRS.from_epsg(4326) if text else None)
    if chosen is None:
        raise AoiError(name, "it states no CRS", "say which with --aoi-crs, such as EPSG:4326")
    return chosen


def _bounds(text: str) -> NDArray[np.object_]:
    left, bottom, right, top = (float(number) for number in text.split(","))
    if not all(map(math.isfinite, (left, bottom, right, top))) or left == right or bottom >= top:
        raise AoiError(text, "these bounds hold no area", "write them as minx,miny,maxx,maxy")
    if left < right:
        return np.array([shapely.box(left, bottom, right, top)], dtype=object)
    if not (-180 <= right < left <= 180):
        raise AoiError(text, "minx is above maxx", "write the bounds as minx,miny,maxx,maxy")
    # by GeoJSON's convention such a box crosses the antimeridian
    return np.array([shapely.box(left, bottom, 180, top), shapely.box(-180, bottom, right, top)], dtype=object)


def _from_wkt(text: str, name: str) -> NDArray[np.object_]:
    try:
        return np.array([shapely.from_wkt(text)], dtype=object)
    except shapely.errors.ShapelyError as error:
        raise AoiError(name, f"it can't be read as WKT ({error})", "correct it") from error


def _from_file(source: Path | BytesIO, layer: str | None, name: str, stated: CRS | None) -> Aoi:
    import pyogrio
    from pyogrio.errors import DataLayerError, DataSourceError, FieldError, GeometryError

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            layers = [str(entry[0]) for entry in pyogrio.list_layers(source) if entry[1] is not None]
            if layer is None and len(layers) > 1:
                found = f"it has several layers ({', '.join(layers[:6])}{', ...' if len(layers) > 6 else ''})"
                raise AoiError(name, found, f"name one: '{name}|{layers[0]}'")
            if not layers:
                raise AoiError(name, "it has no layer with geometries", f"give {_FORMATS}")
            # the name of a layer in memory changes with each reading
            named = layer or (layers[0] if isinstance(source, Path) else None)
            frame: Any = pyogrio.read_dataframe(source, layer=named, columns=[])
    except shapely.errors.ShapelyError as error:
        raise AoiError(name, f"a polygon of it can't be built ({error})", "correct it") from error
    except (DataSourceError, DataLayerError, FieldError, GeometryError, ValueError, RuntimeError) as error:
        raise AoiError(name, f"it can't be read ({error})", f"give {_FORMATS}") from error
    own = None if frame.crs is None else CRS.from_user_input(frame.crs)
    return _finish(name, np.asarray(frame.geometry.values, dtype=object), _one_crs(own, stated, name))


def _finish(name: str, shapes: NDArray[np.object_], crs: CRS) -> Aoi:
    """Check the geometries and make them valid."""
    shapes = shapely.force_2d(shapes[~(shapely.is_missing(shapes) | shapely.is_empty(shapes))])
    parts = np.asarray(shapely.get_parts(shapely.get_parts(shapes)), dtype=object)
    parts = parts[~shapely.is_empty(parts)]
    if len(parts) == 0:
        raise AoiError(name, "it is empty", "give at least one polygon")
    if (shapely.get_dimensions(parts) != 2).any():
        kind = "points" if (shapely.get_dimensions(parts) == 0).any() else "lines"
        raise AoiError(name, f"it holds {kind}, which have no area", "give polygons, such as a buffer around them")
    corners = shapely.get_coordinates(parts)
    if not np.isfinite(corners).all():
        raise AoiError(name, "some coordinates aren't finite", "correct it")
    if crs.is_geographic and np.abs(corners[:, 1]).max() > 90 * units_per_degree(crs):
        raise AoiError(name, "its latitudes go beyond 90 degrees", "state the CRS of its coordinates with --aoi-crs")
    parts, repaired = polygons_of(parts)
    parts = parts[shapely.area(parts) > 0]
    if len(parts) == 0:
        raise AoiError(name, "its polygons have no area", "give polygons with an area")
    notices = (f"{name}: invalid polygons (borders that cross) were made valid",) if repaired else ()
    return Aoi(name, parts, crs, notices)
