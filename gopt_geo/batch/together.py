"""What is made of all regions' maps together: one mosaic, and one file of polygons with shared borders."""

from __future__ import annotations

import os
import xml.etree.ElementTree as ET
from collections.abc import Container, Sequence
from dataclasses import dataclass
from functools import partial
from os import PathLike
from pathlib import Path
from xml.sax.saxutils import escape

from gopt_geo.batch.mapset import MapSet
from gopt_geo.errors import OutputError, SourceError
from gopt_geo.grid import Window, lattice
from gopt_geo.outputs.blockpolygons import block_polygons
from gopt_geo.outputs.cog import NODATA, CogWriter
from gopt_geo.outputs.legend import add_legend, palette
from gopt_geo.outputs.staging import RASTER_ENDINGS, Staging
from gopt_geo.outputs.vectors import write_polygons
from gopt_geo.paths import StrPath, as_paths
from gopt_geo.scene.rasterfile import open_raster

__all__ = ["MOSAIC_ENDINGS", "MosaicReport", "check_mosaics", "mosaic_maps"]

MOSAIC_ENDINGS = (".vrt", *RASTER_ENDINGS, ".gpkg")
"""What maps are laid together in: a virtual mosaic, a COG, polygons."""

_PART = 2048  # pixels; edge of the windows in which maps are copied
_LAYER = "landcover"
_MARK = "GOPT_GEO_MOSAIC"


@dataclass(frozen=True)
class MosaicReport:
    """What was laid together.

    Attributes
    ----------
    outputs
        Paths of the results.
    maps
        Number of maps.
    shape
        Height and width of the mosaic in pixels.
    polygons
        Number of polygons of each .gpkg, in order.
    """

    outputs: tuple[Path, ...]
    maps: int
    shape: tuple[int, int]
    polygons: tuple[int, ...]


def mosaic_maps(
    maps: Sequence[str | PathLike[str]], outputs: StrPath | Sequence[StrPath], *, overwrite: bool = False
) -> MosaicReport:
    """Lay the maps of many regions together.

    Where maps overlap, the one that is named first counts, wherever it has data. Memory holds a few blocks of pixels,
    the polygons that aren't finished, and a few hundred bytes a map.

    Parameters
    ----------
    maps
        Land-cover maps as `gopt_geo.predict` writes them, on one lattice (`--grid FILE`, or `--crs` and
        `--resolution`), with the same classes.
    outputs
        One file or several: ``.vrt`` (a mosaic that refers to the maps, by paths relative to it), ``.tif`` (a COG of
        its own, with legend and overviews), ``.gpkg`` (polygons across all regions: neighbours share their borders, no
        border remains where regions meet within a class).
    overwrite
        Replace files that exist.

    Returns
    -------
    MosaicReport

    Raises
    ------
    SourceError
        If a map can't be read, or its classes aren't those of the first; both are named.
    GridError
        If a map doesn't lie on the lattice of the first; both are named.
    OutputError
        If a result can't be written. Nothing stands at the output paths after an error.
    """
    finals = as_paths(outputs)
    if not finals:
        raise OutputError("mosaic", "no output is named", "name one, such as mosaic.vrt")
    with Staging(overwrite, inputs=maps) as staging, MapSet(maps) as mapset:
        staged = [staging.path(path, MOSAIC_ENDINGS) for path in finals]
        polygons = []
        for path, final in zip(staged, finals, strict=True):
            if path.suffix.lower() == ".vrt":
                _write_vrt(mapset, path, final.absolute().parent)
            elif path.suffix.lower() == ".gpkg":
                polygons.append(_write_polygons(mapset, path))
            else:
                _write_cog(mapset, path)
        staging.publish()
        height, width = mapset.grid.shape
    return MosaicReport(tuple(finals), len(mapset.paths), (height, width), tuple(polygons))


def check_mosaics(
    outputs: Sequence[StrPath], folder: Path, results: Container[str] = (), *, overwrite: bool = False
) -> bool:
    """Check, before regions are mapped, that mosaics can be written; return whether files have to be replaced.

    A mosaic that was made here before may be replaced: it is made again of what there is.

    Parameters
    ----------
    outputs
        The mosaics.
    folder
        Of the regions' results; it may have yet to be made.
    results
        Names that files of regions take there.
    overwrite
        Whether any file may be replaced.

    Raises
    ------
    OutputError
        If a path can't be written to, is that of a region's result, or another file stands there and `overwrite` isn't
        given.
    """
    there = [path for path in map(Path, outputs) if path.exists()]
    for path in there:
        if not overwrite and not _is_mosaic(path):
            raise OutputError(path, "exists, and is no mosaic of maps", "use --overwrite or another path")
    with Staging(overwrite=bool(there)) as staging:
        for path in map(Path, outputs):
            beside = path.absolute().parent == folder.absolute()
            if beside and path.name in results:
                raise OutputError(path, "it is where the result of a region goes", "choose another name")
            if not beside or folder.exists():
                staging.path(path, MOSAIC_ENDINGS)
            elif path.suffix.lower() not in MOSAIC_ENDINGS:
                raise OutputError(path, f"unknown ending {path.suffix!r}", f"use one of {', '.join(MOSAIC_ENDINGS)}")
    return bool(there)


def _is_mosaic(path: Path) -> bool:
    """Tell whether a file says that it was made here."""
    if path.suffix.lower() == ".gpkg":
        import pyogrio
        from pyogrio.errors import DataLayerError, DataSourceError

        try:
            said = pyogrio.read_info(path, layer=_LAYER)["layer_metadata"] or {}
        except (DataLayerError, DataSourceError):
            return False
        return _MARK in said
    try:
        with open_raster(str(path), str(path), remote=False) as dataset:
            return _MARK in dataset.tags()
    except SourceError:
        return False


def _tags(mapset: MapSet) -> dict[str, str]:
    """Return what the maps say alike, and how many they are."""
    return {**mapset.tags, _MARK: f"{len(mapset.paths)} maps; where they overlap, the first with data"}


def _write_cog(mapset: MapSet, path: Path) -> None:
    """Copy all maps into one COG with their legend."""
    with CogWriter(
        path,
        mapset.grid,
        tags=_tags(mapset),
        description="land cover",
        resampling="mode",
        colors=palette(mapset.legend),
        decorate=partial(add_legend, legend=mapset.legend),
    ) as writer:
        whole = Window(0, 0, *mapset.grid.shape)
        for block in lattice(whole, _PART):
            part = block.intersect(whole)
            values = None if part is None else mapset.read(part)
            if part is not None and values is not None:
                writer.write(part, values)
        writer.finish()


def _write_polygons(mapset: MapSet, path: Path) -> int:
    """Write the polygons of all maps as of one raster; return their number."""
    crs = None if mapset.grid.crs is None else mapset.grid.crs.proj
    batches = block_polygons(mapset.grid, mapset.read, NODATA)
    return write_polygons(path, batches, mapset.legend, crs, layer=_LAYER, metadata=_tags(mapset))


def _write_vrt(mapset: MapSet, path: Path, folder: Path) -> None:
    """Write a virtual mosaic whose sources are named relative to the folder where it will stand."""
    height, width = mapset.grid.shape
    root = ET.Element("VRTDataset", rasterXSize=str(width), rasterYSize=str(height))
    ET.SubElement(root, "SRS").text = str(mapset.grid.crs.to_wkt()) if mapset.grid.crs is not None else ""
    a, b, c, d, e, f = mapset.grid.affine[:6]
    ET.SubElement(root, "GeoTransform").text = ", ".join(repr(float(v)) for v in (c, a, b, f, d, e))
    metadata = ET.SubElement(root, "Metadata")
    for key, value in _tags(mapset).items():
        ET.SubElement(metadata, "MDI", key=key).text = value
    band = ET.SubElement(root, "VRTRasterBand", dataType="Byte", band="1", blockXSize="512", blockYSize="512")
    for tag, text in (("Description", "land cover"), ("NoDataValue", str(NODATA)), ("ColorInterp", "Palette")):
        ET.SubElement(band, tag).text = text
    table, colors = ET.SubElement(band, "ColorTable"), palette(mapset.legend)
    for number in range(NODATA + 1):
        entry = colors.get(number, (0, 0, 0, 0))
        ET.SubElement(table, "Entry", {f"c{i + 1}": str(part) for i, part in enumerate(entry)})
    add_legend(band, mapset.legend)
    ending = "</VRTRasterBand></VRTDataset>"
    head = ET.tostring(root, encoding="unicode")
    assert head.endswith(ending)
    try:
        with path.open("w", encoding="utf-8") as file:
            file.write(head.removesuffix(ending))
            for index in range(len(mapset.paths) - 1, -1, -1):  # GDAL paints the later over the earlier
                file.write(_vrt_source(mapset, index, folder))
            file.write(ending)
    except UnicodeEncodeError as error:
        raise OutputError(path, "the name of a map isn't text", "rename it, or write a .tif") from error


def _vrt_source(mapset: MapSet, index: int, folder: Path) -> str:
    row, col, height, width = mapset.windows[index].tolist()
    name = escape(os.path.relpath(mapset.paths[index].absolute(), folder))
    size = f'xSize="{width}" ySize="{height}"'
    return (
        f'<ComplexSource><SourceFilename relativeToVRT="1">{name}</SourceFilename><SourceBand>1</SourceBand>'
        f'<SourceProperties RasterXSize="{width}" RasterYSize="{height}" DataType="Byte" BlockXSize="512"'
        f' BlockYSize="512"/><SrcRect xOff="0" yOff="0" {size}/><DstRect xOff="{col}" yOff="{row}" {size}/>'
        f"<NODATA>{NODATA}</NODATA></ComplexSource>\n"
    )
