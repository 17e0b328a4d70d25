"""Legends of class maps: written as GDAL knows them, and read back from any class map."""

from __future__ import annotations

import tempfile
import xml.etree.ElementTree as ET
from collections.abc import Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Protocol

import rasterio
import rasterio.shutil

__all__ = ["LegendClass", "LegendEntry", "add_legend", "palette", "read_colours", "read_legend"]

_NODATA = 255
# GDALRATFieldType and GDALRATFieldUsage
_INTEGER, _TEXT = "0", "2"
_NAME, _MIN_MAX, _RED, _GREEN, _BLUE = "2", "5", "6", "7", "8"


class LegendEntry(Protocol):
    """One class of a legend: anything with these three, such as a pack's classes."""

    @property
    def value(self) -> int:
        """Pixel value, 0 to 254."""

    @property
    def name(self) -> str:
        """Name for people."""

    @property
    def color(self) -> str:
        """Colour, `#rrggbb`."""


@dataclass(frozen=True, slots=True)
class LegendClass:
    """A class read from a file's legend; see `LegendEntry`."""

    value: int
    name: str
    color: str


def _rgb(color: str) -> tuple[int, int, int]:
    red, green, blue = bytes.fromhex(color.removeprefix("#"))
    return red, green, blue


def palette(legend: Sequence[LegendEntry]) -> dict[int, tuple[int, int, int, int]]:
    """Return a colour table for rasterio: the classes opaque, nodata (255) transparent.

    Raises
    ------
    ValueError
        If a value isn't in 0..254 or occurs twice.
    """
    values = [entry.value for entry in legend]
    if len(set(values)) < len(values) or not all(0 <= value < _NODATA for value in values):
        raise ValueError(f"class values must be distinct and in 0..254: {values}")
    colors = {entry.value: (*_rgb(entry.color), 255) for entry in legend}
    return {**colors, _NODATA: (0, 0, 0, 0)}


def add_legend(band: ET.Element, legend: Sequence[LegendEntry]) -> None:
    """Add category names and a raster attribute table to the band element of a VRT.

    Rasterio can write neither; GDAL's drivers copy both from a VRT.
    """
    names = {entry.value: entry.name for entry in legend}
    categories = ET.Element("CategoryNames")
    for value in range(max(names, default=-1) + 1):
        ET.SubElement(categories, "Category").text = names.get(value, "")
    table = ET.Element("GDALRasterAttributeTable", tableType="thematic")
    fields = (
        ("Value", _INTEGER, _MIN_MAX),
        ("Class", _TEXT, _NAME),
        ("Red", _INTEGER, _RED),
        ("Green", _INTEGER, _GREEN),
        ("Blue", _INTEGER, _BLUE),
    )
    for index, (name, kind, usage) in enumerate(fields):
        field = ET.SubElement(table, "FieldDefn", index=str(index))
        for tag, text in (("Name", name), ("Type", kind), ("Usage", usage)):
            ET.SubElement(field, tag).text = text
    for index, entry in enumerate(legend):
        row = ET.SubElement(table, "Row", index=str(index))
        for cell in (entry.value, entry.name, *_rgb(entry.color)):
            ET.SubElement(row, "F").text = str(cell)
    band.insert(0, categories)
    band.insert(1, table)


def read_legend(path: str | PathLike[str]) -> list[LegendClass]:
    """Return the legend of a class map: from its raster attribute table, else from its category names.

    Parameters
    ----------
    path
        Any raster GDAL reads. Where GDAL keeps the legend (in the file, beside it) makes no difference.

    Returns
    -------
    list of LegendClass
        By value; empty if the file has no legend. Colours are black where the file states none.

    Raises
    ------
    rasterio.errors.RasterioIOError
        If the file can't be opened.
    """
    with tempfile.TemporaryDirectory() as folder:
        vrt = Path(folder) / "legend.vrt"  # GDAL states in it all it knows of the file
        rasterio.shutil.copy(str(path), str(vrt), driver="VRT")
        band = ET.parse(vrt).find("VRTRasterBand")
    if band is None:
        return []
    colors = {
        value: "#" + "".join(f"{int(entry.get(c, '0')) & 255:02x}" for c in ("c1", "c2", "c3"))
        for value, entry in enumerate(band.iterfind("ColorTable/Entry"))
    }
    names = {v: e.text or "" for v, e in enumerate(band.iterfind("CategoryNames/Category"))}
    names = _attribute_names(band) or {v: name for v, name in names.items() if name}
    return [LegendClass(v, name, colors.get(v, "#000000")) for v, name in sorted(names.items()) if v != _NODATA]


def read_colours(path: str | PathLike[str]) -> dict[int, str]:
    """Return the colour table of a raster's first band, ``#rrggbb`` by value; empty if it has none."""
    with rasterio.open(path) as dataset:
        try:
            table = dataset.colormap(1)
        except ValueError:  # which is how rasterio says that there is none
            return {}
    return {value: "#" + bytes(entry[:3]).hex() for value, entry in table.items()}


def _attribute_names(band: ET.Element) -> dict[int, str]:
    """Return names by value from a band's raster attribute table; empty if it has none of use."""
    table = band.find("GDALRasterAttributeTable")
    if table is None:
        return {}
    usages = [field.findtext("Usage") for field in table.iterfind("FieldDefn")]
    if _MIN_MAX not in usages or _NAME not in usages:
        return {}
    value, name = usages.index(_MIN_MAX), usages.index(_NAME)
    rows = [[cell.text or "" for cell in row.iterfind("F")] for row in table.iterfind("Row")]
    return {int(float(row[value])): row[name] for row in rows}
