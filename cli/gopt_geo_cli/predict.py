"""``gopt-geo predict``: from an optical and a SAR raster to a land-cover map."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

from gopt_geo_cli.progress import progress_display
from gopt_geo_cli.say import say_notices, say_written

__all__ = ["predict"]


class OpticalUnits(Enum):
    """What optical pixel values mean."""

    reflectance = "reflectance"
    dn10000 = "dn10000"
    byte = "byte"
    raw = "raw"


class SarUnits(Enum):
    """What SAR pixel values mean."""

    db = "db"
    power = "power"
    amplitude = "amplitude"
    raw = "raw"


class Extent(Enum):
    """The part of the grid that is mapped."""

    optical = "optical"
    intersection = "intersection"
    union = "union"


class Blend(Enum):
    """The weight of a pixel inside its tile."""

    hann = "hann"
    linear = "linear"
    gaussian = "gaussian"
    none = "none"


def predict(
    optical: Annotated[
        Path, typer.Argument(metavar="OPTICAL", help="Optical raster, folder of bands, or .SAFE folder.")
    ],
    sar: Annotated[Path, typer.Argument(metavar="SAR", help="The same of SAR; CRS, pixel size and extent may differ.")],
    output: Annotated[
        list[Path],
        typer.Option(
            "--output",
            "-o",
            help="Result; its ending decides the product: .tif, .gpkg, .geojson, .fgb, .parquet. May be repeated.",
        ),
    ],
    pack: Annotated[
        Path | None,
        typer.Option(help="Prompt pack; else the environment variable GOPT_GEO_PACK, else the embedded demo pack."),
    ] = None,
    backbone_weights: Annotated[
        Path | None,
        typer.Option(
            help="File with the weights of the pack's backbone; else found by name in the folder GOPT_GEO_BACKBONES, or"
            " downloaded."
        ),
    ] = None,
    optical_bands: Annotated[
        str | None,
        typer.Option(help="Optical bands in the pack's order, by number or name: 4,3,2 or B04,B03,B02."),
    ] = None,
    sar_bands: Annotated[str | None, typer.Option(help="SAR bands in the pack's order: 1,2 or VV,VH.")] = None,
    optical_units: Annotated[
        OpticalUnits | None,
        typer.Option(help="Optical values: reflectance, dn10000 (value/10000), byte (value/255), raw (as they are)."),
    ] = None,
    sar_units: Annotated[SarUnits | None, typer.Option(help="SAR values; integers need this stated.")] = None,
    cloud_mask: Annotated[
        Path | None,
        typer.Option(help="Raster, any grid: where it isn't 0 the optical pixels are taken as missing."),
    ] = None,
    grid: Annotated[
        str, typer.Option(help="Grid of the result: optical, sar, or a raster whose grid to take.")
    ] = "optical",
    extent: Annotated[Extent, typer.Option(help="Extent of the result.")] = Extent.optical,
    resolution: Annotated[
        float | None, typer.Option(help="Pixel size of the result, in units of the grid's CRS.")
    ] = None,
    allow_resolution: Annotated[
        bool,
        typer.Option("--allow-resolution", help="Accept a pixel size more than 1.5x away from the pack's."),
    ] = False,
    pixel_grid: Annotated[
        bool, typer.Option("--pixel-grid", help="Accept rasters without a CRS if their shapes are equal.")
    ] = False,
    aoi: Annotated[
        str | None,
        typer.Option(
            help="Area of interest: a vector file, WKT, or minx,miny,maxx,maxy. The map is cut to the smallest window"
            " of the grid that holds it, and is nodata outside of its polygons."
        ),
    ] = None,
    aoi_crs: Annotated[
        str | None, typer.Option(help="CRS of an area given as text; else longitude and latitude (EPSG:4326).")
    ] = None,
    confidence: Annotated[Path | None, typer.Option(help="Also write the confidence in percent to this .tif.")] = None,
    preview: Annotated[
        Path | None, typer.Option(help="Also draw optical, SAR and map side by side to this .png.")
    ] = None,
    reference: Annotated[Path | None, typer.Option(help="Label raster to show in the preview.")] = None,
    tile_size: Annotated[int | None, typer.Option(help="Tile side in pixels; else the pack's.")] = None,
    overlap: Annotated[
        int | None, typer.Option(help="Overlap of neighbouring tiles in pixels; else the pack's.")
    ] = None,
    batch_size: Annotated[int, typer.Option(help="Tiles a forward pass.")] = 4,
    blend: Annotated[Blend, typer.Option(help="Blending window where tiles overlap.")] = Blend.hann,
    readers: Annotated[int, typer.Option(help="Reading threads.")] = 2,
    max_memory: Annotated[
        str | None,
        typer.Option(help="Ceiling on memory, such as 2GB: wide scenes then run in column strips."),
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "auto",
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace results that exist.")] = False,
) -> None:
    """Map land cover from OPTICAL and SAR.

    The two rasters need not share CRS, pixel size or extent; each is warped once onto the grid of the result. A result
    appears at its path whole or not at all.

    Example: gopt-geo predict s2.tif s1.tif --optical-bands B04,B03,B02 --sar-bands VV --sar-units db -o landcover.tif
    """
    from gopt_geo import api

    with progress_display("predict") as show:
        report = api.predict(
            optical,
            sar,
            output,
            pack=pack,
            backbone_weights=backbone_weights,
            optical_bands=optical_bands,
            sar_bands=sar_bands,
            optical_units=optical_units.value if optical_units else None,
            sar_units=sar_units.value if sar_units else None,
            cloud_mask=cloud_mask,
            grid=grid,
            extent=extent.value,
            resolution=resolution,
            allow_resolution=allow_resolution,
            pixel_grid=pixel_grid,
            aoi=aoi,
            aoi_crs=aoi_crs,
            confidence=confidence,
            preview=preview,
            reference=reference,
            tile_size=tile_size,
            overlap=overlap,
            batch_size=batch_size,
            blend=blend.value,
            readers=readers,
            max_memory=max_memory,
            device=device,
            overwrite=overwrite,
            progress=show,
        )
    rows, columns = report.shape
    run = report.run
    summary = (
        f"{rows} x {columns} pixels in {report.seconds:.1f} s, {run.forwarded} of {run.tiles} tiles held data,"
        f" both rasters have data on {100 * report.shared:.1f} % of the map"
    )
    say_notices([*report.notices, summary])
    say_written(report.outputs)
