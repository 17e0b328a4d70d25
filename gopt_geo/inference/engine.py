"""The pipeline: read tiles -> forward -> blend -> hand finished rows to a sink, within bounded memory."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from gopt_geo.errors import GoptGeoError
from gopt_geo.grid import Window
from gopt_geo.inference.blend import BandAccumulator, BlendedRows, BlendKind, LikelyRows, blend_window
from gopt_geo.inference.forward import Forwarder, TileModel
from gopt_geo.inference.heap import HeapTrimmer
from gopt_geo.inference.memory import MemoryNeed, column_strips, memory_errors
from gopt_geo.inference.reading import BlockSource, Task, TileData, Wanted, WatchedSource, read_tiles, used_modalities
from gopt_geo.inference.tiles import TilePlan
from gopt_geo.inference.writing import RowWriter

__all__ = ["RunReport", "TileOptions", "TileProgress", "run_tiles"]


@dataclass(frozen=True)
class TileOptions:
    """How a scene is cut into tiles and run.

    Parameters
    ----------
    tile_size, overlap
        In pixels; the overlap at most half of the tile.
    batch_size
        Tiles of a forward pass; every batch has this size.
    blend
        Blending window: "hann", "linear", "gaussian" or "none".
    readers
        Threads that read tiles; the result doesn't depend on it.
    max_memory
        Ceiling in bytes for what the run holds, or None.
    reserved
        Bytes of that ceiling that others hold: the model with its activations, the caches of the source, the
        writer.
    device
        Where the model runs and overlaps are summed.
    write_ahead
        Bands of finished rows, of up to 128 rows and 8 MiB, that the sink may be behind. The sink is then called in
        a thread of its own, always the same one, and the model runs meanwhile. 0 calls it in the caller's thread.

    Raises
    ------
    GoptGeoError
        If a number is out of its range or the blending window is unknown.
    """

    tile_size: int = 256
    overlap: int = 64
    batch_size: int = 4
    blend: BlendKind = "hann"
    readers: int = 2
    max_memory: int | None = None
    reserved: int = 0
    device: str | torch.device = "cpu"
    write_ahead: int = 0

    def __post_init__(self) -> None:
        TilePlan((1, 1), self.tile_size, self.overlap)
        blend_window(1, 0, self.blend)
        for option, number in (("--batch-size", self.batch_size), ("--readers", self.readers)):
            if number < 1:
                raise GoptGeoError(option, f"{number}", "give at least 1")
        if self.write_ahead < 0:
            raise ValueError(f"{self.write_ahead} bands can't wait for the sink")

    @property
    def ahead(self) -> int:
        """Tiles that may be read ahead: the next batch, and one in each reader's hands."""
        return self.batch_size + self.readers


@dataclass(frozen=True)
class TileProgress:
    """Where a run stands: tiles done, of `total`; those of them forwarded; seconds since the start."""

    done: int
    total: int
    forwarded: int
    seconds: float


@dataclass(frozen=True)
class RunReport:
    """What a run did.

    Attributes
    ----------
    tiles
        Tiles that touch the window, each counted once.
    forwarded, skipped
        Tile runs that went through the model, and those without a valid pixel; together tiles +
        repeated_tiles.
    batches, batch_size
        Batches, and the slots of each; batches x batch_size - forwarded slots were only padding.
    part_size
        Tiles that the model got at a time at the end: `batch_size`, or half of it where the device ran out of memory.
    strips
        Column strips that the ceiling on memory asked for.
    repeated_tiles
        Runs of tiles beyond their first, because they lie over the border of two strips.
    complete_share
        Share of the pixels asked for at which every modality carries data, 0 to 1.
    seconds
        Wall time.
    """

    tiles: int
    forwarded: int
    skipped: int
    batches: int
    batch_size: int
    part_size: int
    strips: int
    repeated_tiles: int
    complete_share: float
    seconds: float


def _tasks(plan: TilePlan, strips: Sequence[Window]) -> Iterator[Task]:
    for number, strip in enumerate(strips):
        rows, cols = plan.touching(strip)
        yield from (Task(number, row, col, plan.own(row, col).intersect(strip)) for row in rows for col in cols)


def _strips(
    source: BlockSource, model: TileModel, options: TileOptions, window: Window, plan: TilePlan
) -> list[Window]:
    if options.max_memory is None:
        return [window]
    block = source.read(Window(window.row, window.col, 1, 1))
    need = MemoryNeed.of(
        tile_size=plan.tile_size,
        batch_size=options.batch_size,
        ahead=options.ahead,
        classes=model.num_classes,
        channels=[block.values[name].shape[0] for name in used_modalities(model.modalities, block)],
        reserved=options.reserved,
        write_ahead=options.write_ahead,
    )
    return column_strips(window, need, options.max_memory)


def _one_of(
    sink: Callable[[BlendedRows], None] | None, likely_sink: Callable[[LikelyRows], None] | None
) -> Callable[[Any], None]:
    """Return the sink that is given, which takes what will be made for it."""
    given: list[Callable[[Any], None]] = [taker for taker in (sink, likely_sink) if taker is not None]
    if len(given) != 1:
        raise ValueError("give either a sink or a likely_sink")
    return given[0]


def _blend(
    plan: TilePlan,
    strips: Sequence[Window],
    results: Iterator[tuple[TileData, Tensor | None]],
    new_band: Callable[[Window], BandAccumulator],
    sink: Callable[[BlendedRows | LikelyRows], None],
    tick: Callable[[TileData], None],
) -> None:
    """Sum the results strip by strip, tile row by tile row; empty each row into the sink when complete."""
    trim = HeapTrimmer()
    for strip in strips:
        band = new_band(strip)
        rows, cols = plan.touching(strip)
        for row in rows:
            for col in cols:
                tile, probabilities = next(results)
                if probabilities is not None and tile.any_valid is not None:
                    band.add(row, col, probabilities, tile.any_valid)
                tick(tile)
            for finished in band.finish(row):
                sink(finished)
            trim()


def run_tiles(
    source: BlockSource,
    model: TileModel,
    options: TileOptions,
    *,
    window: Window | None = None,
    wanted: Wanted | None = None,
    sink: Callable[[BlendedRows], None] | None = None,
    likely_sink: Callable[[LikelyRows], None] | None = None,
    progress: Callable[[TileProgress], None] | None = None,
) -> RunReport:
    """Run a model over a scene, or over a window of it, and hand the blended rows to `sink`.

    Every pixel of the window is delivered exactly once, in bands from top to bottom (column strip by column
    strip under `max_memory`). In eager fp32 on a CPU, with one batch size and number of threads, a pixel's
    bits don't depend on the window, the strips or the readers.

    Parameters
    ----------
    source
        What tiles are read from, by several threads at once. One that can tell where it has no data (`SparseSource`)
        is asked before it is read, and one of files (`WatchedSource`) whether they are still the same at the end.
    model
        What makes probabilities of them. A tile without any valid pixel never reaches it.
    options
        Tiles, batches, blending, memory, device.
    window
        Pixels of the scene grid to produce, cut at the scene's edges; None for the whole scene. Every tile
        that touches it is run.
    wanted
        Tells which pixels of a window are asked for, bool [h, w]; None for all. The others are delivered as not
        valid, and tiles without any never reach the model; what the rest holds doesn't depend on it.
    sink
        Called with each finished `BlendedRows`, in order: in this thread, or with `TileOptions.write_ahead` in one of
        its own. All calls have ended when this function does.
    likely_sink
        Takes the place of `sink` where the most likely classes are enough: the probabilities of all are then neither
        copied nor moved off the device.
    progress
        Called in this thread after each tile.

    Returns
    -------
    RunReport

    Raises
    ------
    GoptGeoError
        If the window lies outside of the scene, `max_memory` is too little or the probabilities aren't
        finite.
    DeviceMemoryError
        If memory runs out.
    ValueError
        If there isn't exactly one sink.
    Exception
        Whatever the source, the model or the sink raises, KeyboardInterrupt included: all threads have ended
        by then.
    """
    begin = time.perf_counter()
    take = _one_of(sink, likely_sink)
    plan = TilePlan(source.shape, options.tile_size, options.overlap)
    inside = (window or Window(0, 0, *source.shape)).clip(source.shape)
    if inside is None:
        raise GoptGeoError(
            f"window {window}",
            f"lies outside of the scene of {source.shape[0]} x {source.shape[1]} pixels",
            "choose an area that the scene covers",
        )
    device = torch.device(options.device)
    rows, cols = plan.touching(inside)
    skipped = done = complete = asked = 0
    forwarder = Forwarder(model, plan, options.batch_size, device)
    with memory_errors(device, options.tile_size, lambda: forwarder.part_size):
        strips = _strips(source, model, options, inside, plan)
        total = len(rows) * sum(len(plan.touching(strip)[1]) for strip in strips)

        def tick(tile: TileData) -> None:
            nonlocal skipped, done, complete
            writer.check()
            done, skipped, complete = done + 1, skipped + (tile.any_valid is None), complete + tile.complete
            if progress is not None:
                progress(TileProgress(done, total, done - skipped, time.perf_counter() - begin))

        def deliver(finished: BlendedRows | LikelyRows) -> None:
            nonlocal asked
            if wanted is None:
                asked += finished.valid.size
                return take(finished)
            inside = wanted(finished.window)
            asked += int(inside.sum())
            return take(finished.within(inside))

        def new_band(strip: Window) -> BandAccumulator:
            likely = likely_sink is not None
            return BandAccumulator(plan, strip, model.num_classes, options.blend, device, likely=likely)

        tiles = read_tiles(
            source,
            plan,
            _tasks(plan, strips),
            modalities=model.modalities,
            readers=options.readers,
            ahead=options.ahead,
            wanted=wanted,
        )
        with RowWriter(deliver, options.write_ahead) as writer, closing(tiles):
            _blend(plan, strips, forwarder.run(tiles), new_band, writer, tick)
    HeapTrimmer().now()  # what comes next, the conversion of what was written, has memory needs of its own
    if isinstance(source, WatchedSource):
        source.check_unchanged()
    return RunReport(
        tiles=len(rows) * len(cols),
        forwarded=forwarder.forwarded,
        skipped=skipped,
        batches=forwarder.batches,
        batch_size=options.batch_size,
        part_size=forwarder.part_size,
        strips=len(strips),
        repeated_tiles=total - len(rows) * len(cols),
        complete_share=complete / max(asked, 1),
        seconds=time.perf_counter() - begin,
    )
