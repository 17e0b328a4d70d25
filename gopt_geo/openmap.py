"""A map about to be made: its sources, pack and model open and checked against each other."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray

import gopt_geo
from gopt_geo.aoi import AoiMask
from gopt_geo.ceiling import (
    FIRST_USE,
    GDAL_CACHE,
    available_memory,
    cache_share,
    check_tiles,
    parse_bytes,
    resident_memory,
)
from gopt_geo.grid import GeoBox, Window, crop
from gopt_geo.inference import BlendedRows, LikelyRows, RunReport, TileModel, TileOptions, TileProgress, run_tiles
from gopt_geo.inference.augmented import AugmentedModel, augmented_memory
from gopt_geo.inference.batchsize import choose_batch_size
from gopt_geo.inference.execution import Execution
from gopt_geo.inference.memory import memory_errors
from gopt_geo.inference.packmodel import PackModel
from gopt_geo.inference.reading import usual_readers
from gopt_geo.inference.tiles import TilePlan
from gopt_geo.maprequest import MapRequest
from gopt_geo.models.backbone import Backbone
from gopt_geo.packchoice import check_resolution, choose_pack
from gopt_geo.packs import ClassInfo, Pack, PackMeta, load_model
from gopt_geo.scene import Scene
from gopt_geo.scene.shift.placing import Placement, place_sources
from gopt_geo.sources import check_modalities

__all__ = ["Loader", "OpenMap", "load_pack_model", "open_map"]

_LITTLE_SHARED = 0.5  # below this a map from two rasters is mostly one from a single raster: worth a warning


@dataclass(frozen=True)
class OpenMap:
    """What a map is made with; from `open_map`.

    Attributes
    ----------
    request
        What is asked for, its shifts settled.
    pack
        The pack, chosen.
    scene
        The sources on one grid.
    mask
        The area of interest on that grid, or None.
    model
        What predicts, averaging included.
    pack_model
        The pack's own, which `model` is or averages over; with the device and precision that it runs in.
    edges
        Of the tiles as it sees them, in pixels: several where it averages over sizes.
    options
        Tiles.
    working_memory
        Bytes that one forward pass takes besides the weights.
    tags
        How the map is made.
    notices
        What the user should know by now.
    """

    request: MapRequest
    pack: Pack
    scene: Scene
    mask: AoiMask | None
    model: TileModel
    pack_model: PackModel
    edges: tuple[int, ...]
    options: TileOptions
    working_memory: int
    tags: dict[str, str]
    notices: tuple[str, ...]

    @property
    def classes(self) -> tuple[ClassInfo, ...]:
        """The pack's classes."""
        return self.pack.meta.classes

    @property
    def window(self) -> Window:
        """The part of the scene grid that is mapped."""
        return Window(0, 0, *self.scene.shape) if self.mask is None else self.mask.window

    @property
    def grid(self) -> GeoBox:
        """The map's grid."""
        return crop(self.scene.grid, self.window)

    def run(
        self,
        sink: Callable[[BlendedRows], None] | None = None,
        *,
        likely_sink: Callable[[LikelyRows], None] | None = None,
        window: Window | None = None,
        held: int = 0,
        progress: Callable[[TileProgress], None] | None = None,
    ) -> RunReport:
        """Warm up, run the tiles, and hand the blended rows to `sink`; see `gopt_geo.inference.run_tiles`.

        Parameters
        ----------
        sink
            Takes the rows.
        likely_sink
            Takes rows of the most likely classes alone, in place of `sink`.
        window
            Part of the scene grid; else all that is mapped.
        held
            Bytes that the sink will hold, under the ceiling on memory.
        progress
            Called after each tile.
        """
        options = replace(self.options, reserved=self._reserved() + held)
        wanted = None if self.mask is None else self.mask.read
        with self.pack_model.execution.in_force():
            with memory_errors(torch.device(options.device), options.tile_size, options.batch_size):
                self.pack_model.warm_up(self.scene.modalities, options.batch_size, self.edges)
            return run_tiles(
                self.scene,
                self.model,
                options,
                window=window if window is not None else self.window,
                wanted=wanted,
                sink=sink,
                likely_sink=likely_sink,
                progress=progress,
            )

    def run_likely(
        self,
        take: Callable[[LikelyRows, NDArray[np.float32] | None], None],
        *,
        probabilities: bool,
        window: Window,
        held: int,
        progress: Callable[[TileProgress], None] | None,
    ) -> RunReport:
        """Do the same for a sink that takes the most likely classes, and the probabilities of all if it asks for them.

        Parameters
        ----------
        take
            Takes the rows, and float32 [K, h, w] or None.
        probabilities
            Whether it asks for them.
        window, held, progress
            See `run`.
        """
        if probabilities:
            return self.run(
                lambda rows: take(rows.likely(), rows.probabilities), window=window, held=held, progress=progress
            )
        return self.run(likely_sink=lambda rows: take(rows, None), window=window, held=held, progress=progress)

    def run_notices(self, run: RunReport) -> list[str]:
        """Return what the user should know of a run."""
        notices, inputs = [], self.request.inputs
        if len(inputs.sources) > 1 and run.complete_share < _LITTLE_SHARED:
            hidden = ", where --cloud-mask hides nothing" if inputs.cloud_mask is not None else ""
            share = 100 * run.complete_share
            notices.append(f"warning: only {share:.1f} % of the map has data in both rasters{hidden}")
        if run.repeated_tiles:
            twice = f"{run.repeated_tiles} of {run.tiles} tiles ran twice"
            notices.append(f"--max-memory: {run.strips} column strips, {twice}")
        if run.part_size < run.batch_size:
            found = f"out of memory with batches of {run.batch_size} tiles; went on with {run.part_size} at a time"
            notices.append(f"warning: device {self.options.device}: {found}")
        if self.pack_model.warm_up_seconds:
            notices.append(f"the model's warm-up took {self.pack_model.warm_up_seconds:.1f} s")
        return notices

    def _reserved(self) -> int:
        """Bytes under ``--max-memory`` that the tiler doesn't see: libraries and weights, caches, readers."""
        readers = self.options.readers * self.scene.block_memory
        return resident_memory() + FIRST_USE + GDAL_CACHE + self.working_memory + self.scene.cache_bytes + readers


Loader = Callable[[MapRequest, Pack, TileOptions, Execution], PackModel]
"""Loads the model of a pack; see `load_pack_model`."""


def load_pack_model(
    request: MapRequest, pack: Pack, options: TileOptions, execution: Execution, backbone: Backbone | None = None
) -> PackModel:
    """Load the model of a pack.

    Parameters
    ----------
    request
        What is asked for.
    pack
        Whose model.
    options, execution
        Tiles, device and precision that it will run in.
    backbone
        The pack's, where it is loaded already; it is shared.

    Raises
    ------
    GoptGeoError
        If it can't be loaded, or the tile size isn't one for it.
    """
    with memory_errors(torch.device(options.device), options.tile_size, options.batch_size):
        loaded = load_model(pack, backbone, weights=request.backbone_weights if backbone is None else None)
        return PackModel(loaded, pack.meta, options.tile_size, execution)


@contextmanager
def open_map(
    request: MapRequest,
    *,
    check: Callable[[Scene], None] | None = None,
    load: Loader = load_pack_model,
) -> Iterator[OpenMap]:
    """Open the sources and the model of a map, and check them against each other.

    Parameters
    ----------
    request
        What is asked for.
    check
        Called with the scene before the model is loaded.
    load
        Loads the model.

    Raises
    ------
    GoptGeoError
        Whatever is wrong with sources, pack or options.
    """
    inputs = request.inputs
    with ExitStack() as stack:
        pack, notices = choose_pack(request.pack)
        meta = pack.meta
        check_modalities(pack, inputs.sources)
        if inputs.sar is None and "sar" in meta.modalities:
            notices.append("warning: no SAR raster is given: the map comes from the optical one alone")
        if inputs.optical is None and "optical" in meta.modalities:
            notices.append("warning: no optical raster is given: the map comes from SAR alone")
        first = next(iter(inputs.sources.values()))
        execution = Execution.choose(
            request.device, request.precision, compiled=request.compile, threads=request.threads
        )
        options = _options(request, meta, execution)
        placement = _place(request, meta)
        cache = cache_share(options.max_memory, inputs.count) if options.max_memory else None
        scene = stack.enter_context(inputs.open(meta, cache, placement.shifts))
        mask = request.area.on(scene.grid) if request.area is not None else None
        notices += mask.notices if mask is not None else ()
        notices += [*placement.notices, *scene.notices]
        if check is not None:
            check(scene)
        notices += [*check_resolution(scene, meta, first, request.allow_resolution), *execution.notices]
        own = load(request, pack, options, execution)
        augmented = AugmentedModel(own, own.model.backbone.patch_size, request.scales, request.augment)
        edges = tuple(augmented.sizes(options.tile_size))
        if request.batch_size == "auto":
            options = replace(options, batch_size=_batch_size(own, scene, options, max(edges)))
        model, memory = _averaged(request, own, augmented, options)
        tags = _tags(request, pack, options, scene, execution) | placement.tags
        tags |= {"GOPT_GEO_AOI": request.area.name} if request.area is not None else {}
        settled = replace(
            request,
            shifts=placement.shifts,
            device=str(execution.device),
            precision=execution.precision,
            batch_size=options.batch_size,
        )
        yield OpenMap(settled, pack, scene, mask, model, own, edges, options, memory, tags, tuple(notices))


def _options(request: MapRequest, meta: PackMeta, execution: Execution) -> TileOptions:
    """Tile options as asked for, else as the pack recommends; a batch that is to be found is 1 as yet."""
    size = request.tile_size if request.tile_size is not None else meta.tile_size
    return TileOptions(
        tile_size=size,
        overlap=request.overlap if request.overlap is not None else max(0, min(meta.overlap, size // 2)),
        batch_size=1 if request.batch_size == "auto" else request.batch_size,
        blend=request.blend,
        readers=request.readers if request.readers is not None else _readers(request, execution),
        max_memory=parse_bytes(request.max_memory) if request.max_memory is not None else None,
        device=execution.device,
    )


def _readers(request: MapRequest, execution: Execution) -> int:
    """Return how many threads read where it isn't said: waiting for servers takes more than decoding."""
    usual = usual_readers(execution.device)
    return 2 if usual == 1 and request.inputs.remote else usual


def _place(request: MapRequest, meta: PackMeta) -> Placement:
    """Return where the sources lie: as settled before, or as it is found now."""
    if request.shifts is not None:
        return Placement(dict(request.shifts))
    return place_sources(
        request.inputs.specs(meta),
        correct=request.coregister,
        pixel_grid=request.inputs.said.get("pixel_grid", False),
        part=request.area.surroundings if request.area is not None else None,
    )


def _batch_size(model: PackModel, scene: Scene, options: TileOptions, edge: int) -> int:
    """Return the batch where none is asked for, within a quarter of the ceiling's memory, or half of what is free.

    Tiles that are averaged over sizes must fit at the largest of them, whose edge is `edge`.
    """
    if options.max_memory is not None:
        memory: int | None = max(options.max_memory - resident_memory() - FIRST_USE - GDAL_CACHE, 0) // 4
    else:
        free = available_memory()
        memory = free // 2 if free is not None else None
    plan = TilePlan(scene.shape, options.tile_size, options.overlap)
    with model.execution.in_force():
        return choose_batch_size(model, scene.modalities, plan, edge=edge, memory=memory)


def _averaged(
    request: MapRequest, model: PackModel, augmented: AugmentedModel, options: TileOptions
) -> tuple[TileModel, int]:
    """Return what averages over the model, if anything is averaged, else itself; and what a forward pass takes."""
    size, batch = options.tile_size, options.batch_size
    check_tiles(model, size, batch, f"--tile-size {size}")
    if augmented.passes == 1 and request.scales == (1.0,):
        return model, model.working_memory(size, batch)
    check_tiles(model, max(augmented.sizes(size)), batch, f"--scales {max(request.scales):g}")
    return augmented, augmented_memory(model, augmented, size, batch, model.band_count)


def _tags(request: MapRequest, pack: Pack, options: TileOptions, scene: Scene, execution: Execution) -> dict[str, str]:
    """Tags that say how the map was made."""
    meta = pack.meta
    sizes = ", ".join(f"{scale:g}" for scale in request.scales)
    tags = {
        "GOPT_GEO_VERSION": gopt_geo.__version__,
        "GOPT_GEO_TORCH": torch.__version__,
        "GOPT_GEO_PACK": meta.title,
        "GOPT_GEO_PACK_SHA256": pack.sha256,
        "GOPT_GEO_BACKBONE": f"{meta.backbone.id} {meta.backbone.sha256}",
        "GOPT_GEO_PRECISION": execution.precision + (", compiled" if execution.compiled else ""),
        "GOPT_GEO_DEVICE": str(options.device),
        "GOPT_GEO_TILES": f"size {options.tile_size}, overlap {options.overlap}, batch {options.batch_size}, "
        f"blend {options.blend}",
        "GOPT_GEO_AUGMENT": f"{request.augment}, scales {sizes}",
    }
    tags |= {f"GOPT_GEO_INPUT_{modality.upper()}": name for modality, name in request.inputs.names.items()}
    if meta.notice:
        tags["GOPT_GEO_NOTICE"] = meta.notice
    if scene.grid.crs is None:
        tags["GOPT_GEO_CRS"] = "none: the inputs carry no CRS"
    return tags
