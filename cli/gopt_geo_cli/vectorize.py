"""``gopt-geo vectorize``: from a land-cover raster to polygons."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from gopt_geo_cli.say import say_written

__all__ = ["vectorize"]


def vectorize(
    landcover: Annotated[Path, typer.Argument(metavar="LANDCOVER", help="Land-cover raster written by predict.")],
    output: Annotated[
        list[Path],
        typer.Option(
            "--output", "-o", help="Polygons: .gpkg, .geojson (EPSG:4326), .fgb or .parquet. May be repeated."
        ),
    ],
    confidence: Annotated[
        Path | None,
        typer.Option(help="Confidence raster of the same run, for each polygon's mean confidence."),
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace results that exist.")] = False,
) -> None:
    """Turn a land-cover raster into polygons without gaps, overlaps or seams, with class and area in m2."""
    from gopt_geo import api

    api.vectorize(landcover, output, confidence=confidence, overwrite=overwrite)
    say_written(output)
