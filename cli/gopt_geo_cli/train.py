"""``gopt-geo train``: from a polygon, sources and labels, or from a data set, to a prompt pack."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gopt_geo_cli.options import (
    CloudMaskKindOption,
    CloudMaskOption,
    OpticalUnitsOption,
    Precision,
    SarSensorOption,
    SarUnitsOption,
    SensorOption,
)
from gopt_geo_cli.progress import talking_display
from gopt_geo_cli.say import say_notices, say_written
from gopt_geo_cli.trainoptions import (
    Accelerator,
    Loss,
    SetOption,
    find_file,
    overrides_of,
    training_of,
)

if TYPE_CHECKING:
    from gopt_geo.training.config import TrainConfig
    from gopt_geo.training.run import TrainReport

__all__ = ["train"]


def train(
    aoi: Annotated[
        str | None,
        typer.Option(help="Area of interest: a vector file, WKT, or minx,miny,maxx,maxy. Labels outside are ignored."),
    ] = None,
    aoi_crs: Annotated[
        str | None, typer.Option(help="CRS of an area given as text; else longitude and latitude (EPSG:4326).")
    ] = None,
    optical: Annotated[
        str | None,
        typer.Option(help="Optical raster: a path or URL, a folder of bands, a .SAFE folder, a STAC item's .json."),
    ] = None,
    sar: Annotated[
        str | None,
        typer.Option(help="The same of SAR; CRS, pixel size and extent may differ. One of the two may lack."),
    ] = None,
    labels: Annotated[
        str | None, typer.Option(help="Label raster, or vector file of polygons or points; few suffice.")
    ] = None,
    class_field: Annotated[str | None, typer.Option(help="Field of vector labels that holds the class.")] = None,
    classes: Annotated[
        Path | None, typer.Option(help="Class list (.yaml): values, names, colours; docs/geodatasets.md.")
    ] = None,
    config: Annotated[
        Path | None,
        typer.Option(help="Configuration (.yaml), over which options stand; else gopt-geo.yaml, if there is one here."),
    ] = None,
    root: Annotated[str | None, typer.Option(help="Folder of the configuration's data set.")] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Folder of the run: pack, figures, checkpoints.")
    ] = None,
    optical_bands: Annotated[
        str | None, typer.Option(help="Optical bands to train on, by number or name: B04,B03,B02; else all.")
    ] = None,
    sar_bands: Annotated[str | None, typer.Option(help="SAR bands to train on: VV,VH; else all.")] = None,
    optical_units: OpticalUnitsOption = None,
    sar_units: SarUnitsOption = None,
    sensor: SensorOption = None,
    sar_sensor: SarSensorOption = None,
    cloud_mask: CloudMaskOption = None,
    cloud_mask_kind: CloudMaskKindOption = None,
    coregister: Annotated[
        bool | None, typer.Option("--coregister/--no-coregister", help="Correct the shift between optical and SAR.")
    ] = None,
    grid: Annotated[
        str | None, typer.Option(help="Grid of the scene: optical, sar, or a raster whose grid to take; else optical.")
    ] = None,
    resolution: Annotated[float | None, typer.Option(help="Pixel size, in units of the grid's CRS.")] = None,
    shares: Annotated[
        str | None, typer.Option(help="Shares of training, validation and test; else 0.7,0.15,0.15.")
    ] = None,
    buffer: Annotated[int | None, typer.Option(help="Pixels kept free between these; else a tile.")] = None,
    block: Annotated[int | None, typer.Option(help="Edge of the blocks that are split, in pixels.")] = None,
    backbone: Annotated[
        str | None, typer.Option(help="timm:NAME or torchgeo:WEIGHTS; else the small one that is embedded.")
    ] = None,
    backbone_weights: Annotated[
        Path | None, typer.Option(help="File with its weights; else found in GOPT_GEO_BACKBONES, or downloaded.")
    ] = None,
    modalities: Annotated[
        str | None, typer.Option(help="Those to train on, such as optical,sar: the first goes through the backbone.")
    ] = None,
    tile_size: Annotated[
        str | None, typer.Option(help="Training crop in pixels, such as 256, or height and width: 480x640.")
    ] = None,
    batch: Annotated[
        int | None, typer.Option(help="Tiles of a step on each device; else 8, 24 where labels are sparse.")
    ] = None,
    steps: Annotated[int | None, typer.Option(help="Optimiser steps; else 2000.")] = None,
    epochs: Annotated[int | None, typer.Option(help="Instead of steps: rounds through the training tiles.")] = None,
    learning_rate: Annotated[float | None, typer.Option(help="Highest rate; else 0.003.")] = None,
    loss: Annotated[Loss | None, typer.Option(help="What is minimised, over labelled pixels.")] = None,
    class_weights: Annotated[
        bool | None,
        typer.Option("--class-weights/--no-class-weights", help="Weigh classes by their share of the training pixels."),
    ] = None,
    precision: Annotated[Precision | None, typer.Option(help="auto: bf16 or fp16 on a GPU, fp32 on a CPU.")] = None,
    device: Annotated[Accelerator | None, typer.Option(help="Where it is trained.")] = None,
    devices: Annotated[int | None, typer.Option(help="Devices that train together; else 1.")] = None,
    workers: Annotated[int | None, typer.Option(help="Reading processes a device.")] = None,
    seed: Annotated[int | None, typer.Option(help="Of all random draws of the training; else 0.")] = None,
    title: Annotated[str | None, typer.Option(help="The pack's name; else the output's.")] = None,
    settings: SetOption = None,
    print_config: Annotated[
        bool, typer.Option("--print-config", help="Print the whole configuration with defaults and units, and end.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Read the data, report what is in them, and end.")] = False,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the run's latest checkpoint.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the run in that folder.")] = False,
) -> None:
    """Train a prompt pack on a scene with labels, or on a data set.

    Few labelled polygons in a large area suffice. Labels are split into blocks of ground for training, validation and
    test, with a buffer in between.

    What isn't said by options is taken from --config, else from gopt-geo.yaml in the working directory (gopt-geo init
    writes one), else from defaults (--print-config shows them).

    Example: gopt-geo train --aoi aoi.geojson --optical s2.tif --sar s1.tif --labels labels.tif -o runs/x
    """
    given = {
        "aoi": aoi,
        "aoi_crs": aoi_crs,
        "optical": optical,
        "sar": sar,
        "labels": labels,
        "class_field": class_field,
        "classes": classes,
        "root": root,
        "output": output,
        "optical_bands": optical_bands,
        "sar_bands": sar_bands,
        "optical_units": optical_units,
        "sar_units": sar_units,
        "sensor": sensor,
        "sar_sensor": sar_sensor,
        "cloud_mask": cloud_mask,
        "cloud_mask_kind": cloud_mask_kind,
        "coregister": coregister,
        "grid": grid,
        "resolution": resolution,
        "shares": shares,
        "buffer": buffer,
        "block": block,
        "backbone": backbone,
        "backbone_weights": backbone_weights,
        "modalities": modalities,
        "tile_size": tile_size,
        "batch": batch,
        "steps": steps,
        "epochs": epochs,
        "learning_rate": learning_rate,
        "loss": loss,
        "class_weights": class_weights,
        "precision": precision,
        "device": device,
        "devices": devices,
        "workers": workers,
        "seed": seed,
        "title": title,
    }
    file = find_file(config, output, resume)
    wanted = training_of(file, overrides_of(given, settings), needs_data=not print_config)
    if print_config:
        from gopt_geo.training.configfile import dump_config

        typer.echo(dump_config(wanted), nl=False)
        return
    if file is not None and config is None:
        say_notices([f"configuration {file}"])
    _run(wanted, file, dry_run=dry_run, resume=resume, overwrite=overwrite)


def _run(config: TrainConfig, file: Path | None, *, dry_run: bool, resume: bool, overwrite: bool) -> None:
    from gopt_geo.errors import ConfigError, RunInterrupted

    if config.output is None and not dry_run:
        where = f"output: in {file}" if file is not None else "output: in a configuration"
        raise ConfigError("train", "no folder for the run is named", f"give -o runs/NAME, or {where}")
    from gopt_geo import api

    with talking_display("train") as (show, say):
        if dry_run:
            api.check_training(config, say=say)
            return
        try:
            report = api.train(config, resume=resume, overwrite=overwrite, progress=show, say=say)
        except RunInterrupted:
            raise
        except KeyboardInterrupt as stop:  # before the first step, or after the last
            if (Path(config.output or "") / "checkpoints").is_dir():
                number = getattr(stop, "number", signal.SIGINT)
                found = f"stopped by {signal.Signals(number).name}; the run in {config.output} stays"
                raise RunInterrupted(
                    number, f"{found}, and goes on with --resume where it holds a checkpoint"
                ) from stop
            raise
    say_notices([*report.notices, _summary(report)])
    say_written([report.pack])


def _summary(report: TrainReport) -> str:
    """Return what came out, in a line."""
    parts = [
        f"{name} mIoU {found['scores']['mean_iou']:.4f}"
        for name, found in (("validation", report.validation), ("test", report.test))
        if found is not None and found["scores"]["mean_iou"] is not None
    ]
    steps = f"{report.steps} steps in {report.seconds:.1f} s, of which step {report.best_step} is kept"
    return ", ".join([steps, *parts, f"temperature {report.temperature:.3g}"])
