"""``gopt-geo init``: a commented configuration of a training, to be edited."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from gopt_geo_cli.options import (
    OpticalUnitsOption,
    SarSensorOption,
    SarUnitsOption,
    SensorOption,
)
from gopt_geo_cli.say import say_written
from gopt_geo_cli.trainoptions import SetOption, overrides_of, training_of

__all__ = ["init"]


def init(
    file: Annotated[
        Path, typer.Argument(metavar="FILE", help="Where to write it; gopt-geo train finds gopt-geo.yaml by itself.")
    ] = Path("gopt-geo.yaml"),
    optical: Annotated[str | None, typer.Option(help="Optical source.")] = None,
    sar: Annotated[str | None, typer.Option(help="SAR source.")] = None,
    labels: Annotated[str | None, typer.Option(help="Label raster, or vector file.")] = None,
    class_field: Annotated[str | None, typer.Option(help="Field of vector labels that holds the class.")] = None,
    classes: Annotated[Path | None, typer.Option(help="Class list (.yaml).")] = None,
    aoi: Annotated[
        str | None, typer.Option(help="Area of interest, unless it is to be named with gopt-geo train --aoi.")
    ] = None,
    optical_bands: Annotated[str | None, typer.Option(help="Optical bands, by number or name: B04,B03,B02.")] = None,
    sar_bands: Annotated[str | None, typer.Option(help="SAR bands: VV,VH.")] = None,
    optical_units: OpticalUnitsOption = None,
    sar_units: SarUnitsOption = None,
    sensor: SensorOption = None,
    sar_sensor: SarSensorOption = None,
    backbone: Annotated[str | None, typer.Option(help="timm:NAME or torchgeo:WEIGHTS.")] = None,
    output: Annotated[str, typer.Option("--output", "-o", help="Folder of the run.")] = "runs/first",
    settings: SetOption = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the file if it exists.")] = False,
) -> None:
    """Write a commented configuration of a training.

    What isn't named has its default and is commented out; sources and labels that aren't named are examples.
    """
    given = {
        "optical": optical,
        "sar": sar,
        "labels": labels,
        "class_field": class_field,
        "classes": classes,
        "aoi": aoi,
        "optical_bands": optical_bands,
        "sar_bands": sar_bands,
        "optical_units": optical_units,
        "sar_units": sar_units,
        "sensor": sensor,
        "sar_sensor": sar_sensor,
        "backbone": backbone,
        "output": output,
    }
    config = training_of(None, overrides_of(given, settings), needs_data=False)
    from gopt_geo.outputs.staging import Staging
    from gopt_geo.training.configfile import dump_config

    with Staging(overwrite) as staging:
        staging.path(file, endings=(".yaml", ".yml")).write_text(dump_config(config, template=True), "utf-8")
        staging.publish()
    say_written([file])
