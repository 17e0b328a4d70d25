"""``gopt-geo batch``: maps of many regions on a dask cluster."""

from __future__ import annotations

import math
import signal
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gopt_geo.wording import counted
from gopt_geo_cli.mapoptions import (
    AllowResolutionOption,
    Augment,
    AugmentOption,
    BatchSizeOption,
    Blend,
    BlendOption,
    CompileOption,
    CoregisterOption,
    CrsOption,
    DeviceOption,
    Extent,
    ExtentOption,
    GridOption,
    MaxCloudOption,
    MaxMemoryOption,
    OverlapOption,
    ProbabilitiesType,
    ProbabilitiesTypeOption,
    ReadersOption,
    ResolutionOption,
    ScalesOption,
    TileSizeOption,
    TimeOption,
    as_keywords,
)
from gopt_geo_cli.options import (
    BackboneWeightsOption,
    CloudMaskKindOption,
    CloudMaskOption,
    OpticalBandsOption,
    OpticalUnitsOption,
    PackOption,
    PrecisionOption,
    SarBandsOption,
    SarSensorOption,
    SarUnitsOption,
    SensorOption,
    ThreadsOption,
)
from gopt_geo_cli.say import say_notices, say_written

if TYPE_CHECKING:
    from gopt_geo.batch.results import RegionResult
    from gopt_geo.batch.running import Batch

__all__ = ["batch"]

_EXIT_FAILED = 1


def batch(
    regions: Annotated[
        Path,
        typer.Argument(
            metavar="REGIONS",
            help="Regions: a .geojson, .gpkg, .fgb or .parquet with the columns id, optical and sar; docs/batch.md.",
        ),
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder of the results, OUT/ID.tif and so on.")],
    scheduler: Annotated[
        str | None, typer.Option(metavar="ADDRESS", help="A running dask scheduler, such as tcp://10.0.0.1:8786.")
    ] = None,
    scheduler_file: Annotated[
        Path | None, typer.Option(help="The file in which a running scheduler tells its address.")
    ] = None,
    workers: Annotated[
        int | None, typer.Option(help="Processes to start here, which share the cores; else one.")
    ] = None,
    cuda: Annotated[bool, typer.Option("--cuda", help="Start one process for each GPU here (dask-cuda).")] = False,
    limit_memory: Annotated[
        str | None,
        typer.Option(help="Of each process started here, such as 8GB: one that needs more is ended, its region fails."),
    ] = None,
    products: Annotated[
        str,
        typer.Option(
            metavar="P,P,...",
            help="Of each region: tif, gpkg, geojson, fgb, parquet, confidence, probabilities, preview.",
        ),
    ] = "tif",
    tries: Annotated[int, typer.Option(help="How often a region is tried that fails by something that may pass.")] = 3,
    split: Annotated[
        float,
        typer.Option(
            metavar="MEGAPIXELS", help="Larger regions are made in bands, which several workers share; 0: none is."
        ),
    ] = 100.0,
    retry_failed: Annotated[
        bool, typer.Option("--retry-failed", help="Also map regions again that failed for good in an earlier run.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Tell what would be done, about how long it takes, and write nothing.")
    ] = False,
    allow_remote: Annotated[
        bool, typer.Option("--allow-remote", help="Let REGIONS name URLs: it decides then what workers ask for.")
    ] = False,
    catalog: Annotated[
        str | None,
        typer.Option(
            metavar="URL|PATH",
            help="Where the scenes of regions that name none are found: an index of footprints (.parquet, .gpkg,"
            " .geojson), or a STAC catalogue; docs/batch.md.",
        ),
    ] = None,
    time: TimeOption = None,
    max_cloud: MaxCloudOption = None,
    collection: Annotated[
        list[str] | None, typer.Option(help="With --catalog of STAC, a collection to look into; may be repeated.")
    ] = None,
    mosaic: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="FILE",
            help="At the end, lay all maps together: .vrt, .tif or .gpkg (borders shared across regions); may be"
            " repeated. All regions need one lattice (--grid FILE, or --crs) and the same classes.",
        ),
    ] = None,
    pack: PackOption = None,
    backbone_weights: BackboneWeightsOption = None,
    optical_bands: OpticalBandsOption = None,
    sar_bands: SarBandsOption = None,
    optical_units: OpticalUnitsOption = None,
    sar_units: SarUnitsOption = None,
    sensor: SensorOption = None,
    sar_sensor: SarSensorOption = None,
    cloud_mask: CloudMaskOption = None,
    cloud_mask_kind: CloudMaskKindOption = None,
    grid: GridOption = "optical",
    extent: ExtentOption = Extent.optical,
    resolution: ResolutionOption = None,
    crs: CrsOption = None,
    allow_resolution: AllowResolutionOption = False,
    coregister: CoregisterOption = False,
    probabilities_type: ProbabilitiesTypeOption = ProbabilitiesType.float32,
    tile_size: TileSizeOption = None,
    overlap: OverlapOption = None,
    batch_size: BatchSizeOption = "auto",
    blend: BlendOption = Blend.hann,
    augment: AugmentOption = Augment.none,
    scales: ScalesOption = "1",
    readers: ReadersOption = None,
    max_memory: MaxMemoryOption = None,
    device: DeviceOption = "auto",
    precision: PrecisionOption = None,
    compile_model: CompileOption = False,
    threads: ThreadsOption = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Map all regions anew, and replace files of other origin, too.")
    ] = False,
) -> None:
    """Map land cover of many regions, on this machine or on a dask cluster.

    Each region's results appear whole or not at all; OUT/manifest.jsonl tells what became of each. Run the same command
    again to go on: what is missing, has changed or failed by something that may pass is mapped, the rest is kept.
    Regions that failed are listed in OUT/failures.geojson, which can be given as REGIONS.

    Exit code 1 if a region failed.

    Example: gopt-geo batch regions.geojson -o out/ --pack my.gopt.safetensors --workers 4
    """
    _check_numbers(tries, split)
    said = as_keywords(
        pack=pack,
        backbone_weights=backbone_weights,
        optical_bands=optical_bands,
        sar_bands=sar_bands,
        optical_units=optical_units,
        sar_units=sar_units,
        sensor=sensor,
        sar_sensor=sar_sensor,
        cloud_mask=cloud_mask,
        cloud_mask_kind=cloud_mask_kind,
        grid=grid,
        extent=extent,
        resolution=resolution,
        crs=crs,
        allow_resolution=allow_resolution,
        coregister=coregister,
        tile_size=tile_size,
        overlap=overlap,
        batch_size=batch_size,
        blend=blend,
        augment=augment,
        scales=scales,
        readers=readers,
        max_memory=max_memory,
        device=device,
        precision=precision,
        compile=compile_model,
        threads=threads,
        probabilities_type=probabilities_type,
    )
    asked: dict[str, Any] = {
        "output": output,
        "products": products,
        "split": max(round(split * 1e6), 1) if split > 0 else None,
        "retry_failed": retry_failed,
        "overwrite": overwrite,
        "allow_remote": allow_remote,
        "catalog": catalog,
        "time": time,
        "max_cloud": max_cloud,
        "collections": collection,
        **{name: value for name, value in said.items() if value is not None},
    }
    from gopt_geo.batch.clusters import check_cluster
    from gopt_geo.batch.running import prepare

    cluster: dict[str, Any] = {
        "scheduler": scheduler,
        "scheduler_file": scheduler_file,
        "workers": workers,
        "cuda": cuda,
        "limit_memory": limit_memory,
    }
    check_cluster(**cluster)
    checked = prepare(regions, **asked)
    replace = _check_mosaics(checked, mosaic or [], products, overwrite)
    if dry_run:
        _tell_plan(checked)
        return
    with _interruptible(checked):
        done, failed = _map(checked, cluster, tries)
        if mosaic:
            _lay_together(checked, done, mosaic, replace)
    if failed:
        raise typer.Exit(_EXIT_FAILED)


def _check_numbers(tries: int, split: float) -> None:
    from gopt_geo.errors import BatchError

    if tries < 1:
        raise BatchError(f"--tries {tries}", "out of range", "give 1 or more")
    if not 0 <= split < math.inf:
        raise BatchError(f"--split {split:g}", "out of range", "give megapixels, or 0 to make no region in bands")


@contextmanager
def _interruptible(checked: Batch) -> Iterator[None]:
    """Where a batch is stopped that has mapped something, tell that this stays."""
    from gopt_geo.errors import RunInterrupted

    try:
        yield
    except KeyboardInterrupt as stop:
        if not checked.folder.manifest.is_file():
            raise
        number = getattr(stop, "number", signal.SIGINT)
        by = "interrupted by Ctrl-C" if number == signal.SIGINT else f"stopped by {signal.Signals(number).name}"
        told = f"{by}; finished regions stay in {checked.folder.path}, and the same command goes on"
        raise RunInterrupted(number, told) from stop


def _tell_plan(checked: Batch) -> None:
    from gopt_geo_cli.progress import clock

    plan = checked.plan()
    expected = checked.estimate(plan)
    told = ", ".join(f"{count} {name}" for name, count in plan.counts.items() if count)
    typer.echo(f"regions: {told or 'none'}")
    typer.echo(f"to be mapped: {expected.regions}")
    if not expected.regions:
        return
    if expected.pixels is not None:
        typer.echo(f"megapixels: about {expected.pixels / 1e6:.3g}")
    if expected.seconds is not None and expected.size is not None:
        typer.echo(f"time of one worker: about {clock(expected.seconds)}")
        typer.echo(f"disk: about {expected.size / 1e6:.3g} MB")
    else:
        typer.echo("time and disk: not known before a region of this folder is finished")


def _check_mosaics(checked: Batch, mosaic: list[Path], products: str, overwrite: bool) -> bool:
    """Refuse mosaics that couldn't be made at the end; return whether they replace files."""
    from gopt_geo.batch.jobs import PRODUCTS, product_names
    from gopt_geo.errors import BatchError

    if not mosaic:
        return False
    from gopt_geo.batch.together import check_mosaics

    asked = product_names(products)
    if "tif" not in asked:
        raise BatchError(f"--mosaic {mosaic[0]}", "it is made of the regions' .tif", "add tif to --products")
    results = {f"{region.id}{PRODUCTS[name]}" for region in checked.regions for name in asked}
    return check_mosaics(mosaic, checked.folder.path, results, overwrite=overwrite)


def _lay_together(checked: Batch, done: set[str], mosaic: list[Path], replace: bool) -> None:
    """Lay the maps that there are together, in the order of their regions."""
    from gopt_geo.batch.together import mosaic_maps

    maps = [checked.folder.path / f"{region.id}.tif" for region in checked.regions if region.id in done]
    missing = len(checked.regions) - len(maps)
    if not maps:
        say_notices(["warning: no region was mapped, and there is nothing to lay together"])
        return
    report = mosaic_maps(maps, mosaic, overwrite=replace)
    if missing:
        say_notices([f"warning: {counted(missing, 'failed region')} missing in what was laid together"])
    say_written(report.outputs)


def _map(checked: Batch, cluster: dict[str, Any], tries: int) -> tuple[set[str], list[RegionResult]]:
    """Run a batch, tell what came of it, and return the regions that are mapped, and the failures."""
    from gopt_geo.batch.clusters import connect
    from gopt_geo_cli.batchdisplay import NoticeCount, batch_display, failure_lines

    plan = checked.plan()  # what is wrong with it is told before processes are started, which takes seconds
    failed: list[RegionResult] = []
    done: set[str] = set()
    counts = {"mapped": 0, "kept": 0}
    notices = NoticeCount()
    with ExitStack() as stack:
        client = stack.enter_context(connect(**cluster)) if plan.todo else None
        show = stack.enter_context(batch_display(len(plan.todo), client.dashboard_link if client is not None else None))
        for result in stack.enter_context(checked.run(client, plan=plan, tries=tries, progress=show)):
            if not result.kept:
                notices.add(result.notices)
            if result.status == "failed":
                failed.append(result)
            else:
                done.add(result.id)
                counts["kept" if result.kept else "mapped"] += 1
    say_notices(notices.lines())
    say_notices(failure_lines(failed))
    told = f"{counted(counts['mapped'], 'region')} mapped, {counts['kept']} kept, {len(failed)} failed"
    say_notices([told + (f"; they are listed in {checked.folder.failures}" if failed else "")])
    say_written([checked.folder.manifest])
    return done, failed
