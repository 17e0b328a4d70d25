"""The main job: two rasters in, a georeferenced land-cover map out."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Unpack

import torch

import gopt_geo
from gopt_geo.aoi import read_aoi
from gopt_geo.ceiling import (
    FIRST_USE,
    GDAL_CACHE,
    bounded_gdal_cache,
    cache_share,
    check_tiles,
    parse_bytes,
    resident_memory,
)
from gopt_geo.errors import AoiError, DeviceMemoryError, DrawingError, GoptGeoError, PackError, ResolutionError
from gopt_geo.inference import BlendKind, RunReport, TileOptions
from gopt_geo.inference.memory import memory_errors
from gopt_geo.inference.packmodel import PackModel
from gopt_geo.mapping import Progress, Targets, open_reference, write_map, write_preview, write_vectors
from gopt_geo.outputs.staging import Staging
from gopt_geo.outputs.vectors import check_vector_output
from gopt_geo.packs import Pack, PackMeta, demo_pack_path, load_model, read_pack
from gopt_geo.paths import StrPath, as_paths, optional_path
from gopt_geo.scene import BLOCK, Scene
from gopt_geo.scene.bandfiles import Source, source_name
from gopt_geo.scene.shift.placing import place_sources
from gopt_geo.sources import SceneInputs, SceneOptions, check_modalities, odd_pixel_size

__all__ = ["PredictReport", "choose_device", "choose_pack", "predict"]

_LITTLE_SHARED = 0.5  # below this a map from two rasters is mostly one from a single raster: worth a warning


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
    """

    outputs: tuple[Path, ...]
    notices: tuple[str, ...]
    shape: tuple[int, int]
    shared: float
    run: RunReport
    polygons: tuple[int, ...]
    seconds: float


def choose_pack(pack: StrPath | None) -> tuple[Pack, list[str]]:
    """Read the pack asked for, else the one in ``GOPT_GEO_PACK``, else the embedded demo pack; and what to say of it.

    Raises
    ------
    PackError
        See `gopt_geo.packs.read_pack`.
    """
    variable = os.environ.get("GOPT_GEO_PACK") if pack is None else None
    path = Path(variable).expanduser() if variable else optional_path(pack)
    try:
        read = read_pack(path if path is not None else demo_pack_path())
    except PackError as error:
        if not variable:
            raise
        raise PackError(f"GOPT_GEO_PACK: {path}", error.found, f"{error.remedy}, or unset the variable") from error
    notices = []
    if read.meta.notice:
        how = "" if path is not None else "; name another with --pack or GOPT_GEO_PACK"
        notices.append(f"warning: pack {read.meta.title!r}: {read.meta.notice}{how}")
    return read, notices


def _check_resolution(scene: Scene, meta: PackMeta, optical: Source, allowed: bool) -> list[str]:
    """Refuse a scene whose pixels are too far from the pack's in size (promise 7), or say what was found."""
    if meta.resolution_m is None:
        return [f"the pixel size isn't checked: the pack {meta.title!r} doesn't know the one it was trained at"]
    if scene.grid.crs is None:
        return [f"no CRS: the pixel size can't be checked against the pack's {meta.resolution_m:g} m"]
    found = odd_pixel_size(scene, meta)
    if found is None:
        return []
    if not allowed:
        remedy = f"resample with --resolution (about {meta.resolution_m:g} m), or accept it with --allow-resolution"
        raise ResolutionError(source_name(optical), found, remedy)
    return [f"warning: {found}; mapped as asked"]


def choose_device(name: str) -> torch.device:
    """Resolve ``auto``, ``cpu`` or ``cuda[:n]``.

    Raises
    ------
    GoptGeoError
        If there is no such device here.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    wrong = GoptGeoError(f"--device {name}", "there is no such device here", "use auto, cpu or cuda[:n]")
    try:
        device = torch.device(name)
        if device.type not in ("cpu", "cuda"):
            raise wrong
        torch.empty(1, device=device)
    except torch.OutOfMemoryError as error:
        raise DeviceMemoryError(f"device {name}", "no memory left on it", "free it, or use another --device") from error
    except (RuntimeError, AssertionError) as error:
        raise wrong from error
    return device


def _options(
    meta: PackMeta,
    tile_size: int | None,
    overlap: int | None,
    *,
    batch_size: int,
    blend: BlendKind,
    readers: int,
    max_memory: str | None,
    device: str,
) -> TileOptions:
    """Tile options as asked for, else as the pack recommends."""
    size = tile_size if tile_size is not None else meta.tile_size
    return TileOptions(
        tile_size=size,
        overlap=overlap if overlap is not None else max(0, min(meta.overlap, size // 2)),
        batch_size=batch_size,
        blend=blend,
        readers=readers,
        max_memory=parse_bytes(max_memory) if max_memory is not None else None,
        device=choose_device(device),
    )


def _reserved(model: PackModel, options: TileOptions, scene: Scene, products: int) -> int:
    """Bytes under ``--max-memory`` that the tiler doesn't see: libraries and weights, caches, readers, the writer."""
    return (
        resident_memory()
        + FIRST_USE
        + GDAL_CACHE
        + model.working_memory(options.tile_size, options.batch_size)
        + scene.cache_bytes
        + options.readers * scene.block_memory
        + products * BLOCK * scene.shape[1]
    )


def _memory_notices(run: RunReport, options: TileOptions, targets: Targets) -> list[str]:
    """Say what the ceiling cost, and what it doesn't hold for."""
    if options.max_memory is None:
        return []
    notices = []
    if run.repeated_tiles:
        notices.append(f"--max-memory: {run.strips} column strips, {run.repeated_tiles} of {run.tiles} tiles ran twice")
    if targets.vectors:
        notices.append("warning: --max-memory doesn't bound the polygons, which are made of the whole map at once")
    return notices


def _tags(pack: Pack, options: TileOptions, inputs: SceneInputs, scene: Scene) -> dict[str, str]:
    """Tags that say how the map was made."""
    meta = pack.meta
    tags = {
        "GOPT_GEO_VERSION": gopt_geo.__version__,
        "GOPT_GEO_TORCH": torch.__version__,
        "GOPT_GEO_PACK": meta.title,
        "GOPT_GEO_PACK_SHA256": pack.sha256,
        "GOPT_GEO_BACKBONE": f"{meta.backbone.id} {meta.backbone.sha256}",
        "GOPT_GEO_PRECISION": "fp32",
        "GOPT_GEO_DEVICE": str(options.device),
        "GOPT_GEO_TILES": f"size {options.tile_size}, overlap {options.overlap}, batch {options.batch_size}, "
        f"blend {options.blend}",
    }
    tags |= {f"GOPT_GEO_INPUT_{modality.upper()}": name for modality, name in inputs.names.items()}
    if meta.notice:
        tags["GOPT_GEO_NOTICE"] = meta.notice
    if scene.grid.crs is None:
        tags["GOPT_GEO_CRS"] = "none: the inputs carry no CRS"
    return tags


def predict(
    optical: Source,
    sar: Source | None,
    outputs: StrPath | Sequence[StrPath],
    *,
    pack: StrPath | None = None,
    backbone_weights: StrPath | None = None,
    allow_resolution: bool = False,
    coregister: bool = False,
    aoi: StrPath | None = None,
    aoi_crs: str | None = None,
    confidence: StrPath | None = None,
    preview: StrPath | None = None,
    reference: StrPath | None = None,
    tile_size: int | None = None,
    overlap: int | None = None,
    batch_size: int = 4,
    blend: BlendKind = "hann",
    readers: int = 2,
    max_memory: str | None = None,
    device: str = "auto",
    overwrite: bool = False,
    progress: Callable[[Progress], None] | None = None,
    **said: Unpack[SceneOptions],
) -> PredictReport:
    """Map land cover from an optical and a SAR raster.

    Parameters
    ----------
    optical, sar
        Rasters; CRS, pixel size and extent may differ. Each may also be a folder of single-band files, a Sentinel-2
        ``.SAFE`` folder, a pattern, paths with commas in between, a URL, a STAC item or an array of xarray
        (docs/sources.md). Without SAR the map comes from the optical raster alone.
    outputs
        One result or several; the ending decides the product (.tif, .gpkg, .geojson, .fgb, .parquet).
    pack
        Prompt pack; else ``GOPT_GEO_PACK``, else the embedded demo pack.
    backbone_weights
        File with the weights of the pack's backbone; else see `gopt_geo.models.load_backbone`.
    allow_resolution
        Accept a pixel size more than 1.5 times away from the pack's.
    coregister
        Estimate how far SAR lies from where it belongs, and move it there as part of its one warp; an estimate that
        isn't reliable is an error. Without, a few points are looked at, and a shift of more than a pixel is a warning.
    aoi, aoi_crs
        Area of interest, see `gopt_geo.aoi.read_aoi`: the map is cut to the smallest window of the scene grid that
        holds it; outside the polygons it is nodata, inside it is what it would be without. CRS of a text, else
        longitude and latitude.
    confidence
        Also write the confidence in percent here (.tif).
    preview, reference
        Also draw optical, SAR and map side by side (.png), with a label raster if given.
    tile_size, overlap
        In pixels; else the pack's.
    batch_size, blend, readers
        Tiles a forward pass, blending window, reading threads.
    max_memory
        Ceiling such as ``2GB``.
    device
        ``auto``, ``cpu`` or ``cuda[:n]``.
    overwrite
        Replace results that exist.
    progress
        Called now and then.
    said
        Of the sources and the grid: see `gopt_geo.sources.SceneOptions`.

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
    inputs, outputs = SceneInputs(optical, sar, said), as_paths(outputs)
    pack, backbone_weights = optional_path(pack), optional_path(backbone_weights)
    confidence, preview, reference = (optional_path(path) for path in (confidence, preview, reference))
    if reference is not None and preview is None:
        raise GoptGeoError(
            "--reference", "it is shown in the preview alone", "name one with --preview, or leave it out"
        )
    if aoi is None and aoi_crs is not None:
        raise AoiError("--aoi-crs", "it needs --aoi", "name an area, or leave it out")
    area = read_aoi(aoi, aoi_crs) if aoi is not None else None
    given = (reference, pack, backbone_weights, area.path if area is not None else None)
    also = [path for path in given if path is not None]
    with Staging(overwrite, inputs=[*also, *inputs.files()]) as staging:
        with ExitStack() as stack:
            targets = Targets.stage(staging, stack, outputs, confidence, preview)
            stack.enter_context(bounded_gdal_cache())
            chosen, notices = choose_pack(pack)
            meta = chosen.meta
            check_modalities(chosen, inputs.sources)
            if sar is None and "sar" in meta.modalities:
                notices.append("warning: no SAR raster is given: the map comes from the optical one alone")
            options = _options(
                meta,
                tile_size,
                overlap,
                batch_size=batch_size,
                blend=blend,
                readers=readers,
                max_memory=max_memory,
                device=device,
            )
            placement = place_sources(
                inputs.specs(meta),
                correct=coregister,
                pixel_grid=inputs.said.get("pixel_grid", False),
                part=area.surroundings if area is not None else None,
            )
            cache = cache_share(options.max_memory, inputs.count) if options.max_memory else None
            scene = stack.enter_context(inputs.open(meta, cache, placement.shifts))
            mask = area.on(scene.grid) if area is not None else None
            notices += mask.notices if mask is not None else ()
            for path in targets.vectors:
                check_vector_output(path, scene.grid.crs)
            notices += [*placement.notices, *scene.notices, *_check_resolution(scene, meta, optical, allow_resolution)]
            labels = stack.enter_context(open_reference(reference, scene)) if reference is not None else None
            with memory_errors(torch.device(options.device), options.tile_size, options.batch_size):
                loaded = load_model(chosen, weights=backbone_weights)
                model = PackModel(loaded, meta, options.tile_size, options.device)
            check_tiles(model, options.tile_size, options.batch_size, f"--tile-size {options.tile_size}")
            options = replace(options, reserved=_reserved(model, options, scene, 1 + (targets.confidence is not None)))
            tags = _tags(chosen, options, inputs, scene) | placement.tags
            tags |= {"GOPT_GEO_AOI": area.name} if area is not None else {}
            run = write_map(scene, model, meta.classes, options, targets, tags, progress, mask)
            shared = run.complete_share
            if sar is not None and shared < _LITTLE_SHARED:
                hidden = ", where --cloud-mask hides nothing" if inputs.cloud_mask is not None else ""
                notices.append(f"warning: only {100 * shared:.1f} % of the map has data in both rasters{hidden}")
            notices += _memory_notices(run, options, targets)
            polygons = write_vectors(targets)
            try:
                write_preview(scene, targets, meta.classes, labels, aoi=mask)
            except DrawingError as error:  # the map is finished, and worth more than its picture
                assert targets.preview is not None
                staging.drop(targets.preview)
                notices.append(f"warning: --preview {preview}: {error.found}; the map is written without it")
                preview = None
            shape = scene.shape if mask is None else mask.window.shape
        staging.publish()
    written = tuple(Path(p) for p in (*outputs, confidence, preview) if p is not None)
    seconds = time.monotonic() - started
    return PredictReport(written, tuple(notices), shape, shared, run, polygons, seconds)
