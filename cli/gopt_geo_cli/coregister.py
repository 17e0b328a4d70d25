"""``gopt-geo coregister``: how far SAR lies from where it belongs on an optical raster."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gopt_geo_cli.options import (
    CloudMaskKindOption,
    CloudMaskOption,
    OpticalUnitsOption,
    PixelGridOption,
    SarSensorOption,
    SarUnitsOption,
    SensorOption,
)
from gopt_geo_cli.say import say_notices, say_written

if TYPE_CHECKING:
    from gopt_geo.coregistration import CoregisterReport

__all__ = ["coregister"]


def coregister(
    optical: Annotated[
        str,
        typer.Argument(
            metavar="OPTICAL",
            help="Optical raster: a path or URL, a folder of bands, a .SAFE folder, a STAC item's .json.",
        ),
    ],
    sar: Annotated[str, typer.Argument(metavar="SAR", help="The same of SAR; CRS, pixel size and extent may differ.")],
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", help="Write the SAR pixels, untouched, under the corrected geotransform (.tif)."
        ),
    ] = None,
    json_file: Annotated[
        Path | None, typer.Option("--json", metavar="FILE", help="Also write all figures to this .json.")
    ] = None,
    picture: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Also draw the shifts as arrows over the optical raster (.png)."),
    ] = None,
    points: Annotated[int, typer.Option(help="How many points to look at, at most.")] = 64,
    search: Annotated[
        int, typer.Option(metavar="PX", help="Largest shift along an axis, in pixels of the coarser raster.")
    ] = 12,
    optical_bands: Annotated[
        str | None, typer.Option(help="Optical bands by number or name; else red, green and blue, else all.")
    ] = None,
    sar_bands: Annotated[str | None, typer.Option(help="SAR bands by number or name; else all.")] = None,
    optical_units: OpticalUnitsOption = None,
    sar_units: SarUnitsOption = None,
    sensor: SensorOption = None,
    sar_sensor: SarSensorOption = None,
    cloud_mask: CloudMaskOption = None,
    cloud_mask_kind: CloudMaskKindOption = None,
    pixel_grid: PixelGridOption = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace results that exist.")] = False,
) -> None:
    """Estimate the shift between OPTICAL and SAR to a fraction of a pixel, and say whether the estimate is reliable.

    Without -o nothing is changed. With -o an estimate that isn't reliable is an error (exit code 2).
    """
    from gopt_geo import api

    report = api.coregister(
        optical,
        sar,
        output,
        json_file=json_file,
        picture=picture,
        points=points,
        search=search,
        overwrite=overwrite,
        optical_bands=optical_bands,
        sar_bands=sar_bands,
        optical_units=optical_units.value if optical_units else None,
        sar_units=sar_units.value if sar_units else None,
        sensor=sensor,
        sar_sensor=sar_sensor,
        cloud_mask=cloud_mask,
        cloud_mask_kind=cloud_mask_kind.value if cloud_mask_kind else None,
        pixel_grid=pixel_grid,
    )
    _print_table(report)
    say_notices(report.notices)
    say_written(report.outputs)


def _print_table(report: CoregisterReport) -> None:
    """Print the verdict and its figures, on stderr where results go to stdout."""
    from rich.console import Console
    from rich.table import Table

    from gopt_geo.coregistration import describe_shift

    console = Console(highlight=False, stderr=bool(report.outputs), markup=False)
    if not console.is_terminal:
        console = Console(highlight=False, stderr=bool(report.outputs), markup=False, width=10_000)
    found, trusted = report.estimate, report.estimate.trusted
    console.print(describe_shift(report.pair))
    table = Table(show_header=False)
    for name, value in (
        ("points with data", str(len(found.points))),
        ("of these told alone", str(len(trusted))),
        ("dx, right (optical pixels)", _figure(found.dx)),
        ("dy, down", _figure(found.dy)),
        ("spread of the points told alone", _figure(found.spread)),
        ("confidence (1 is chance)", _figure(found.fit)),
        ("parts of the scene differ by", _figure(found.apart)),
        ("verdict", "reliable" if found.reliable else "no reliable estimate"),
    ):
        table.add_row(name, value)
    console.print(table)


def _figure(value: float) -> str:
    return "-" if value != value or value in (float("inf"), float("-inf")) else f"{value:.2f}"
