"""The three stages alone (decode, forward, encode) and together: what bounds the whole."""

from __future__ import annotations

from contextlib import ExitStack, closing

import numpy as np
import rasterio
from costs.clocks import in_turns
from costs.common import Section
from numpy.typing import NDArray

from gopt_geo import api
from gopt_geo.ceiling import bounded_gdal_cache
from gopt_geo.grid import Window, grid_of
from gopt_geo.inference import BlendedRows
from gopt_geo.inference.reading import Task, read_tiles
from gopt_geo.inference.tiles import TilePlan
from gopt_geo.mapping import map_classes
from gopt_geo.maprequest import MapOptions, MapRequest
from gopt_geo.openmap import OpenMap, open_map
from gopt_geo.outputs.landcover import LandCoverWriter
from gopt_geo.packs import read_pack
from gopt_geo.scene import BLOCK
from speed.endtoend import Bare
from speed.setting import Setting

__all__ = ["measure"]

LEAST = 0.90  # of the slowest stage's rate
H100_RATE = 50.0  # megapixels a second, ViT-B/16 in bf16 on one H100
ROWS = 128


def measure(setting: Setting) -> list[Section]:
    """Time each stage alone, on all of a scene, and prediction as a whole; wall time."""
    pair = setting.scene()
    report = api.predict(  # type: ignore[call-overload]
        pair.optical, pair.sar, [setting.folder / "warm.tif"], overwrite=True, **pair.said, **setting.said
    )
    run, network = report.run, Bare(setting, report.run.batch_size)
    network.run(3)

    request = MapRequest.of(pair.optical, pair.sar, MapOptions(**{**pair.said, **setting.said}))

    def load() -> None:
        with bounded_gdal_cache(), open_map(request):
            pass

    def together() -> None:
        api.predict(  # type: ignore[call-overload]
            pair.optical, pair.sar, [setting.folder / "whole.tif"], overwrite=True, **pair.said, **setting.said
        )

    with bounded_gdal_cache(), open_map(request) as opened:
        actions = {
            "load: sources, pack, backbone": load,
            "decode: read and warp": lambda: _decode(setting, opened),
            "forward": lambda: network.run(run.batches),
            "encode: classes, COG, overviews": lambda: _encode(setting),
            "together": together,
        }
        clocks = in_turns(actions, setting.turns, setting.device)
    best = {name: min(clock.wall) for name, clock in clocks.items()}
    # Loading and warming up are in every prediction, and aren't what a long one costs.
    best["together"] -= best.pop("load: sources, pack, backbone") + report.warm_up
    rates = {name: setting.size**2 / 1e6 / seconds for name, seconds in best.items()}
    how = f"{setting.title}, batch {run.batch_size}, {setting.readers} readers"
    judged = not setting.quick and setting.device.type == "cuda"
    section = Section(f"stages, {setting.size} x {setting.size}, {how}", judged)
    for name, clock in clocks.items():
        section.add(name, {**clock.row(), **({"megapixels/s": rates[name]} if name in rates else {})})
    slowest = min(rate for name, rate in rates.items() if name != "together")
    share = {"share": rates["together"] / slowest, "slowest over together": slowest / rates["together"]}
    section.add("together / slowest stage", share, "slowest over together", 1 / LEAST)
    if setting.model == "vit-b" and setting.precision == "bf16":
        row = {"megapixels/s": rates["together"], "seconds a megapixel": 1 / rates["together"]}
        section.add("absolute", row, "seconds a megapixel", 1 / H100_RATE)
    section.notes += [
        f"Rates are of wall time, the best of {setting.turns};",
        f"that of all together leaves out loading, and the warm-up of {report.warm_up:.1f} s.",
    ]
    return [section]


def _decode(setting: Setting, opened: OpenMap) -> None:
    """Read and warp all tiles in reader threads, as prediction does, and drop them; no block is warped already."""
    with ExitStack() as stack:
        inputs, meta = opened.request.inputs, opened.pack.meta
        scene = stack.enter_context(inputs.open(meta, None, opened.request.shifts))
        plan = TilePlan(scene.shape, setting.tile_size, setting.overlap)
        tasks = (Task(0, row, col, None) for row in range(plan.rows) for col in range(plan.cols))
        ahead, names = opened.options.ahead, tuple(meta.modalities)
        tiles = read_tiles(scene, plan, tasks, modalities=names, readers=setting.readers, ahead=ahead)
        for _ in stack.enter_context(closing(tiles)):
            pass


def _encode(setting: Setting) -> None:
    """Turn probabilities into classes and write them: those of the map that was made, one band of rows at a time."""
    assert setting.files is not None
    classes = read_pack(setting.files.pack).meta.classes
    values = np.array([c.value for c in classes], dtype=np.uint8)
    with rasterio.open(setting.folder / "warm.tif") as source:
        grid, width = grid_of(source), source.width
        with LandCoverWriter(setting.folder / "encoded.tif", grid, classes, {}) as writer:
            for start in range(0, source.height, BLOCK):
                block = source.read(1, window=((start, min(start + BLOCK, source.height)), (0, width)))
                for row in range(0, len(block), ROWS):
                    _write(writer, block[row : row + ROWS], start + row, values)
            writer.finish()


def _write(writer: LandCoverWriter, block: NDArray[np.uint8], row: int, values: NDArray[np.uint8]) -> None:
    window = Window(row, 0, *block.shape)
    shares = (block[None] == values[:, None, None]).astype(np.float32)
    mapped = map_classes(BlendedRows(window, shares, np.ones(block.shape, bool)).likely(), values)
    writer.write(window, mapped)
