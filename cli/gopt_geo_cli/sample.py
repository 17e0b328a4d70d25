"""``gopt-geo sample``: a stratified random sample of a map, to assess it by."""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from pathlib import Path
from typing import Annotated, Any

import typer

from gopt_geo_cli.progress import progress_display
from gopt_geo_cli.say import say_notices, say_written

__all__ = ["sample"]


class SampleAllocation(Enum):
    """How units are shared out among the map's classes."""

    proportional = "proportional"
    equal = "equal"
    olofsson = "olofsson"


class UnitShape(Enum):
    """Geometry of a sampled unit."""

    point = "point"
    pixel = "pixel"


def sample(
    landcover: Annotated[Path, typer.Argument(metavar="MAP", help="Land-cover raster; its classes are the strata.")],
    output: Annotated[
        Path,
        typer.Option("--output", "-o", help="Sample: .gpkg, .geojson (EPSG:4326), .fgb or .parquet."),
    ],
    n: Annotated[int | None, typer.Option("-n", help="Units to draw; or give the next two.")] = None,
    target_se: Annotated[
        float | None,
        typer.Option(help="Standard error of overall accuracy to reach, such as 0.01: n follows (Olofsson, eq. 13)."),
    ] = None,
    expected_accuracy: Annotated[
        str | None,
        typer.Option(help="User's accuracies to expect with --target-se: 0.85, or water=0.95,2=0.7,0.85."),
    ] = None,
    allocation: Annotated[
        SampleAllocation,
        typer.Option(help="Units by area, the same to each class, or the minimum to rare classes, the rest by area."),
    ] = SampleAllocation.olofsson,
    minimum: Annotated[
        int | None, typer.Option(help="Least units a class; else 50 with olofsson, 2 otherwise.")
    ] = None,
    aoi: Annotated[str | None, typer.Option(help="Area to sample: a vector file, WKT, or minx,miny,maxx,maxy.")] = None,
    aoi_crs: Annotated[
        str | None, typer.Option(help="CRS of an area given as text; else longitude and latitude (EPSG:4326).")
    ] = None,
    shape: Annotated[UnitShape, typer.Option(help="Pixels' centres, or their squares.")] = UnitShape.point,
    blind: Annotated[bool, typer.Option("--blind", help="Leave out all fields that tell the map's class.")] = False,
    seed: Annotated[int, typer.Option(help="Another seed draws another sample.")] = 0,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the result if it exists.")] = False,
) -> None:
    """Draw a stratified random sample of MAP's pixels, for reference classes to be filled in and evaluate --sample."""
    from gopt_geo import api

    with progress_display("sample") as show:
        report = api.sample(
            landcover,
            output,
            n=n,
            target_se=target_se,
            expected_accuracy=expected_accuracy,
            allocation=allocation.value,
            minimum=minimum,
            aoi=aoi,
            aoi_crs=aoi_crs,
            shape=shape.value,
            blind=blind,
            seed=seed,
            overwrite=overwrite,
            progress=show,
        )
    found = report.to_dict()
    say_notices(found["notices"])
    if found["required"] is not None:
        enough = f"{found['required']} units reach the target standard error, if accuracies are as expected"
        more = found["units"] > found["required"]
        say_notices([enough + ("; each class's minimum makes it more" if more else "")])
    _print_strata(found)
    say_written([output])


def _print_strata(found: Mapping[str, Any]) -> None:
    """Print a line a stratum on stderr: stdout names the file alone, for scripts."""
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    console = Console(stderr=True, highlight=False)
    if not console.is_terminal:
        console = Console(stderr=True, highlight=False, width=10_000)
    table = Table("value", "class")
    for name in ("pixels", "area in ha", "units"):
        table.add_column(name, justify="right")
    for row in found["strata"]:
        area = "-" if row["area_m2"] is None else f"{row['area_m2'] / 1e4:,.2f}"
        table.add_row(str(row["value"]), escape(row["name"]), str(row["pixels"]), area, str(row["units"]))
    console.print(table)
