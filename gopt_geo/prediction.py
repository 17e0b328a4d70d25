"""The main job: two rasters in, a georeferenced land-cover map out."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from typing import Unpack

from gopt_geo.ceiling import bounded_gdal_cache
from gopt_geo.errors import DrawingError, GoptGeoError
from gopt_geo.inference import RunReport
from gopt_geo.mapping import Progress, Rows, Targets, open_reference, run_model, write_map, write_preview, write_vectors
from gopt_geo.maprequest import MapOptions, MapRequest
from gopt_geo.openmap import Loader, load_pack_model, open_map
from gopt_geo.outputs.probabilities import ProbabilityType, check_probability_type
from gopt_geo.outputs.staging import Staging
from gopt_geo.outputs.vectors import check_vector_output, holds_all_polygons
from gopt_geo.packchoice import choose_pack
from gopt_geo.paths import StrPath, as_paths, optional_path
from gopt_geo.scene import AlignedSource, Scene
from gopt_geo.scene.bandfiles import Source

__all__ = ["PredictReport", "choose_pack", "predict"]


@dataclass(frozen=True)
class PredictReport:
    """What a prediction did.

    Attributes
    ----------
    outputs
        Paths of the results.
    notices
        What the user should know; a line that starts with "warning: " matters more.
    shape
        Height and width of the map in pixels.
    shared
        Share of the map where both modalities have data, 0 to 1.
    run
        Tiles, batches, strips.
    polygons
        Number of polygons of each vector output, in order.
    seconds
        Wall time of the whole job.
    device, precision
        What the model ran on and in: "fp32", "bf16" or "fp16", with ", compiled" where it was.
    warm_up
        Seconds of it in which a GPU or the compiler warmed up.
    """

    outputs: tuple[Path, ...]
    notices: tuple[str, ...]
    shape: tuple[int, int]
    shared: float
    run: RunReport
    polygons: tuple[int, ...]
    seconds: float
    device: str = "cpu"
    precision: str = "fp32"
    warm_up: float = 0.0


def predict(
    optical: Source | None,
    sar: Source | None,
    outputs: StrPath | Sequence[StrPath],
    *,
    confidence: StrPath | None = None,
    probabilities: StrPath | None = None,
    probabilities_type: ProbabilityType = "float32",
    preview: StrPath | None = None,
    reference: StrPath | None = None,
    overwrite: bool = False,
    progress: Callable[[Progress], None] | None = None,
    load: Loader = load_pack_model,
    rows: Rows = run_model,
    **said: Unpack[MapOptions],
) -> PredictReport:
    """Map land cover from an optical and a SAR raster, into files.

    Parameters
    ----------
    optical, sar
        Rasters; CRS, pixel size and extent may differ. Each may also be a folder of single-band files, a Sentinel-2
        ``.SAFE`` folder, a pattern, paths with commas in between, a URL, a STAC item, an array of xarray, or several of
        these in a `gopt_geo.SceneMosaic` (docs/sources.md). One of them may be None: the other is mapped alone.
    outputs
        One result or several; the ending decides the product (.tif, .gpkg, .geojson, .fgb, .parquet).
    confidence
        Also write the confidence in percent here (.tif).
    probabilities, probabilities_type
        Also write the probabilities of all classes here (.tif), a band a class; stored as they are (``float32``), in
        ten-thousandths (``uint16``) or in percent (``uint8``).
    preview, reference
        Also draw optical, SAR and map side by side (.png), with a label raster if given.
    overwrite
        Replace results that exist.
    progress
        Called now and then.
    load, rows
        Load the model, and give the pixels.
    said
        Of pack, sources, grid, area, tiles and device: see `gopt_geo.maprequest.MapOptions`.

    Returns
    -------
    PredictReport

    Raises
    ------
    GoptGeoError
        Whatever is wrong with the input, the pack, the options or the outputs; nothing stands at the output paths
        then.
    """
    started = time.monotonic()
    request, outputs = MapRequest.of(optical, sar, said), as_paths(outputs)
    confidence, probabilities = optional_path(confidence), optional_path(probabilities)
    preview, reference = optional_path(preview), optional_path(reference)
    check_probability_type(probabilities_type)
    if reference is not None and preview is None:
        remedy = "name one with --preview, or leave it out"
        raise GoptGeoError("--reference", "it is shown in the preview alone", remedy)
    read = [*([reference] if reference is not None else []), *request.files()]
    with Staging(overwrite, inputs=read) as staging:
        with ExitStack() as stack:
            targets = Targets.stage(
                staging, stack, outputs, confidence=confidence, preview=preview, probabilities=probabilities
            )
            stack.enter_context(bounded_gdal_cache())
            labels: list[AlignedSource] = []

            def check(scene: Scene) -> None:
                for path in targets.vectors:
                    check_vector_output(path, scene.grid.crs)
                if reference is not None:
                    labels.append(stack.enter_context(closing(open_reference(reference, scene))))

            opened = stack.enter_context(open_map(request, check=check, load=load))
            run = write_map(opened, targets, progress, probability_type=probabilities_type, rows=rows)
            notices = [*opened.notices, *opened.run_notices(run)]
            if opened.options.max_memory is not None:
                notices += [
                    f"warning: --max-memory doesn't bound the polygons of {path.name}, which are written at once;"
                    " those of a .gpkg come in portions"
                    for path in targets.vectors
                    if holds_all_polygons(path)
                ]
            polygons = write_vectors(targets)
            try:
                write_preview(opened.scene, targets, opened.classes, next(iter(labels), None), aoi=opened.mask)
            except DrawingError as error:  # the map is finished, and worth more than its picture
                assert targets.preview is not None
                staging.drop(targets.preview)
                notices.append(f"warning: --preview {preview}: {error.found}; the map is written without it")
                preview = None
            shape = opened.window.shape
        staging.publish()
    written = tuple(Path(p) for p in (*outputs, confidence, probabilities, preview) if p is not None)
    return PredictReport(
        outputs=written,
        notices=tuple(notices),
        shape=shape,
        shared=run.complete_share,
        run=run,
        polygons=polygons,
        seconds=time.monotonic() - started,
        device=opened.tags["GOPT_GEO_DEVICE"],
        precision=opened.tags["GOPT_GEO_PRECISION"],
        warm_up=opened.pack_model.warm_up_seconds,
    )
