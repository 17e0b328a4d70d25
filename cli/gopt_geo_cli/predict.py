"""``gopt-geo predict``: from an optical and a SAR raster to a land-cover map."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

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
    PixelGridOption,
    PrecisionOption,
    SarBandsOption,
    SarSensorOption,
    SarUnitsOption,
    SensorOption,
    ThreadsOption,
)
from gopt_geo_cli.progress import progress_display
from gopt_geo_cli.say import say_notices, say_written

if TYPE_CHECKING:
    from gopt_geo.scene.bandfiles import Source

__all__ = ["predict"]


def predict(
    output: Annotated[
        list[Path],
        typer.Option(
            "--output",
            "-o",
            help="Result; its ending decides the product: .tif, .gpkg, .geojson, .fgb, .parquet. May be repeated.",
        ),
    ],
    optical: Annotated[
        str | None,
        typer.Argument(
            metavar="OPTICAL",
            help="Optical raster: a path or URL, a folder of bands, a .SAFE folder, a STAC item's .json.",
        ),
    ] = None,
    sar: Annotated[
        str | None,
        typer.Argument(
            metavar="SAR",
            help="The same of SAR; CRS, pixel size and extent may differ. Without it OPTICAL alone is mapped.",
        ),
    ] = None,
    sar_source: Annotated[
        str | None, typer.Option("--sar", metavar="SAR", help="SAR named without OPTICAL: SAR alone is mapped.")
    ] = None,
    optical_also: Annotated[
        list[str] | None,
        typer.Option(
            metavar="OPTICAL",
            help="A further optical raster, which fills in where OPTICAL has no data; may be repeated, the first with"
            " data wins.",
        ),
    ] = None,
    sar_also: Annotated[
        list[str] | None, typer.Option(metavar="SAR", help="The same of SAR: a further raster; may be repeated.")
    ] = None,
    catalog: Annotated[
        str | None,
        typer.Option(
            metavar="URL|PATH",
            help="Instead of OPTICAL and SAR: look for Sentinel-2 and Sentinel-1 RTC in this STAC catalogue, over --aoi"
            " in --time.",
        ),
    ] = None,
    time: TimeOption = None,
    max_cloud: MaxCloudOption = None,
    collection: Annotated[
        list[str] | None, typer.Option(help="With --catalog, a collection to look into; may be repeated.")
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
    pixel_grid: PixelGridOption = False,
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
    probabilities: Annotated[
        Path | None, typer.Option(help="Also write the probabilities of all classes to this .tif, a band a class.")
    ] = None,
    probabilities_type: ProbabilitiesTypeOption = ProbabilitiesType.float32,
    preview: Annotated[
        Path | None, typer.Option(help="Also draw optical, SAR and map side by side to this .png.")
    ] = None,
    reference: Annotated[Path | None, typer.Option(help="Label raster to show in the preview.")] = None,
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
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace results that exist.")] = False,
) -> None:
    """Map land cover from OPTICAL and SAR.

    The two rasters need not share CRS, pixel size or extent; each is warped once onto the grid of the result. A result
    appears at its path whole or not at all.

    With --catalog the two are looked for: least cloudy, then nearest in time, and read in the parts that are needed.

    Example: gopt-geo predict s2.tif s1.tif --optical-bands B04,B03,B02 --sar-bands VV --sar-units db -o landcover.tif
    """
    from gopt_geo import api

    first, second = _sources(
        _with_further(optical, optical_also, "optical"),
        _with_further(_one_sar(sar, sar_source), sar_also, "sar"),
        catalog,
        {"time": time, "max_cloud": max_cloud, "collections": collection},
        aoi,
        aoi_crs,
    )
    with progress_display("predict") as show:
        report = api.predict(
            first,
            second,
            output,
            **as_keywords(
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
                pixel_grid=pixel_grid,
                aoi=aoi,
                aoi_crs=aoi_crs,
                confidence=confidence,
                probabilities=probabilities,
                probabilities_type=probabilities_type,
                preview=preview,
                reference=reference,
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
                overwrite=overwrite,
            ),
            progress=show,
        )
    rows, columns = report.shape
    run = report.run
    summary = (
        f"{rows} x {columns} pixels in {report.seconds:.1f} s, {run.forwarded} of {run.tiles} tiles held data,"
        f" {'the raster has' if first is None or second is None else 'both rasters have'} data on"
        f" {100 * report.shared:.1f} % of the map"
    )
    say_notices([*report.notices, summary])
    say_written(report.outputs)


def _one_sar(argument: str | None, option: str | None) -> str | None:
    """Return the SAR source, however it is named."""
    from gopt_geo.errors import GoptGeoError

    if argument is not None and option is not None:
        raise GoptGeoError("--sar", "SAR is named already, after OPTICAL", "leave one of them out")
    return argument if option is None else option


def _with_further(source: str | None, further: list[str] | None, modality: str) -> Source | None:
    """Return a source together with those that fill in where it has no data."""
    from gopt_geo.errors import GoptGeoError
    from gopt_geo.scene.mosaic import SceneMosaic

    if not further:
        return source
    if source is None:
        found = f"no {'SAR' if modality == 'sar' else 'optical'} raster is named that it could go with"
        raise GoptGeoError(f"--{modality}-also {further[0]}", found, "name the first one as usual")
    return SceneMosaic((source, *further))


def _sources(
    optical: Source | None,
    sar: Source | None,
    catalog: str | None,
    search: dict[str, Any],
    aoi: str | None,
    aoi_crs: str | None,
) -> tuple[Source | None, Source | None]:
    """Return the sources as they are named, one of them or both, or as a catalogue has them."""
    from gopt_geo.errors import GoptGeoError
    from gopt_geo.search import describe_found, given_search

    given = given_search(catalog, search)
    if catalog is None:
        if optical is None and sar is None:
            remedy = "give OPTICAL and SAR, --sar alone, or --catalog with --aoi and --time"
            raise GoptGeoError("predict", "no raster is named", remedy)
        return optical, sar
    if optical is not None or sar is not None:
        raise GoptGeoError("--catalog", "it stands instead of OPTICAL and SAR", "leave these out")
    if aoi is None or search["time"] is None:
        raise GoptGeoError("--catalog", "it needs --aoi and --time", "add them")
    from gopt_geo import api

    found = api.find_scene(catalog, aoi, aoi_crs=aoi_crs, **given)
    say_notices(describe_found(found))
    return found.optical, found.sar
