"""``gopt-geo simulate``: a synthetic optical and SAR scene with its labels."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated

import typer

from gopt_geo_cli.say import say_written

__all__ = ["simulate"]


def _size(text: str) -> tuple[int, int]:
    """Read ``HxW``, rows first."""
    match = re.fullmatch(r"(\d+)[xX×](\d+)", text.strip())
    if match is None or not (int(match[1]) and int(match[2])):
        raise typer.BadParameter(f"{text!r} is not HxW, rows first, such as 512x768", param_hint="'--size'")
    return int(match[1]), int(match[2])


def simulate(
    output: Annotated[Path, typer.Option("--output", "-o", metavar="DIR", help="Folder for the four rasters.")],
    seed: Annotated[int, typer.Option(min=0, help="The same seed draws the same scene.")] = 0,
    size: Annotated[str, typer.Option(metavar="HxW", help="Rows x columns of the optical raster.")] = "512x512",
    crs: Annotated[str, typer.Option(help="CRS of the optical raster and the labels.")] = "EPSG:32632",
    resolution: Annotated[float, typer.Option(help="Pixel size in units of the CRS.")] = 10.0,
    sar_bands: Annotated[int, typer.Option(min=1, max=2, help="SAR bands: 1 (VV) or 2 (VV, VH).")] = 1,
    looks: Annotated[float, typer.Option(help="Number of looks of the speckle; more is smoother.")] = 4.0,
    cloud: Annotated[float, typer.Option(min=0.0, max=1.0, help="Share of the scene under cloud.")] = 0.0,
    sar_crs: Annotated[str | None, typer.Option(help="CRS of the SAR raster; else that of the optical one.")] = None,
    sar_resolution: Annotated[float | None, typer.Option(help="Pixel size of the SAR raster, in its CRS.")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace rasters that exist.")] = False,
) -> None:
    """Draw a landscape with seven land-cover classes, and how an optical and a SAR sensor see it.

    Writes scene.tif, sar.tif, labels.tif and clouds.tif into the folder.
    """
    shape = _size(size)
    from gopt_geo import api

    written = api.simulate_files(
        output,
        seed=seed,
        size=shape,
        crs=crs,
        resolution=resolution,
        sar_bands=sar_bands,
        looks=looks,
        cloud=cloud,
        sar_crs=sar_crs,
        sar_resolution=sar_resolution,
        overwrite=overwrite,
    )
    say_written(written.values())
