"""A raster's pixels, untouched, under another geotransform."""

from __future__ import annotations

import shutil
import warnings
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import rasterio
import rasterio.shutil
from affine import Affine
from rasterio.control import GroundControlPoint
from rasterio.errors import NotGeoreferencedWarning, RasterioError

from gopt_geo.errors import OutputError, SourceError

__all__ = ["write_moved"]

_SIDECARS = (".aux.xml", ".msk", ".ovr", ".msk.ovr", ".ovr.aux.xml")
_COPY = {"TILED": "YES", "COMPRESS": "DEFLATE", "BIGTIFF": "IF_SAFER"}


def write_moved(source: Path, target: Path, step: tuple[float, float], tags: dict[str, str]) -> list[str]:
    """Copy a raster, and move the copy's place along its own CRS.

    A GeoTIFF is copied byte for byte with its sidecars (masks, overviews, statistics), and only its header changes:
    geotransform or ground control points, and the tags given. Of another format the copy is a GeoTIFF of identical
    pixels, with masks, names, units, colours and tags.

    Parameters
    ----------
    source
        The raster.
    target
        The copy, a .tif, in a folder of its own: sidecars are written beside it.
    step
        How far to move it, in units of its CRS along x and y.
    tags
        Written to the copy in addition.

    Returns
    -------
    What the user should know of it, one line each.

    Raises
    ------
    SourceError
        If the raster can't be read.
    OutputError
        If the copy can't be written.
    """
    with warnings.catch_warnings(), rasterio.Env(GDAL_VRT_ENABLE_PYTHON="NO", GDAL_TIFF_INTERNAL_MASK="YES"):
        warnings.simplefilter("ignore", NotGeoreferencedWarning)  # of rasters that control points place
        try:
            with rasterio.open(source) as file:
                driver, transform, points = file.driver, file.transform, file.gcps
                cog = file.tags(ns="IMAGE_STRUCTURE").get("LAYOUT") == "COG"
            if driver != "GTiff":
                rasterio.shutil.copy(str(source), str(target), driver="GTiff", **_COPY)
        except RasterioError as error:
            raise SourceError(source, f"it can't be copied ({error.__cause__ or error})", "get it again") from error
        if driver == "GTiff":
            _copy_files(source, target)
        try:
            by_points = bool(points[0]) and transform.is_identity
            _place(target, None if by_points else transform, points if by_points else None, step, tags)
        except RasterioError as error:
            raise OutputError(target, f"its place can't be written ({error})", "write to another folder") from error
    notices = []
    if driver != "GTiff":
        notices.append(f"{source.name} is no GeoTIFF: its pixels are written as one, losslessly compressed")
    elif cog:
        notices.append("the copy is a plain GeoTIFF; gdal_translate -of COG makes it a cloud-optimised one again")
    return notices


def _copy_files(source: Path, target: Path) -> None:
    """Copy the raster and what GDAL keeps beside it, without a geotransform there: it would outvote the file's own."""
    shutil.copyfile(source, target)
    for ending in _SIDECARS:
        beside = source.with_name(source.name + ending)
        if beside.is_file():
            shutil.copyfile(beside, target.with_name(target.name + ending))
    aux = target.with_name(target.name + ".aux.xml")
    if aux.is_file():
        try:
            tree = ElementTree.parse(aux)
        except ElementTree.ParseError:  # GDAL doesn't read it either
            return
        stated = [e for name in ("GeoTransform", "GCPList") for e in tree.getroot().findall(name)]
        for element in stated:
            tree.getroot().remove(element)
        if stated:
            tree.write(aux)


def _place(
    target: Path,
    transform: Affine | None,
    points: tuple[list[GroundControlPoint], rasterio.crs.CRS | None] | None,
    step: tuple[float, float],
    tags: dict[str, str],
) -> None:
    """Set geotransform or control points, and check that they are what is read afterwards."""
    with rasterio.open(target, "r+", driver="GTiff", IGNORE_COG_LAYOUT_BREAK="YES") as file:
        crs = file.crs
        if transform is not None:
            file.transform = _moved(transform, step)
        if points is not None:
            moved = [
                GroundControlPoint(p.row, p.col, p.x + step[0], p.y + step[1], p.z, p.id, p.info) for p in points[0]
            ]
            file.gcps = (moved, points[1])
        file.update_tags(**tags)
        if transform is not None and crs is not None and file.crs != crs:
            file.crs = crs
    with rasterio.open(target) as file:
        written = np.array(file.transform[:6])
        if transform is not None and not np.allclose(written, _moved(transform, step)[:6], rtol=1e-12):
            found = "another file beside it, or its own header, states its place in a way that can't be changed"
            raise OutputError(target, found, "convert it with gdal_translate first")


def _moved(transform: Affine, step: tuple[float, float]) -> Affine:
    a, b, c, d, e, f = transform[:6]
    return Affine(a, b, c + step[0], d, e, f + step[1])
