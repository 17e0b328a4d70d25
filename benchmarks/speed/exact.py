"""Whether a map depends on window, readers, batch size, threads, compiler or precision, on a real pair in two CRSs."""

from __future__ import annotations

import shutil
from contextlib import ExitStack
from typing import Any

import numpy as np
from costs.common import Section
from numpy.typing import NDArray

from gopt_geo.ceiling import bounded_gdal_cache
from gopt_geo.grid import Window
from gopt_geo.inference import BlendedRows
from gopt_geo.maprequest import MapOptions, MapRequest
from gopt_geo.openmap import OpenMap, open_map
from speed.inputs import Pair
from speed.setting import Setting

__all__ = ["Pixels", "compare", "map_of", "measure"]

WINDOWS = 50
NEAR = 1e-5  # to which fp32 probabilities agree over batch sizes, threads and the compiler
Pixels = tuple[NDArray[np.float32], NDArray[np.bool_]]


def run_window(opened: OpenMap, window: Window) -> Pixels:
    """Return probabilities [K, h, w] and validity [h, w] of a window."""
    found = np.zeros((len(opened.classes), *window.shape), np.float32)
    valid = np.zeros(window.shape, bool)

    def sink(rows: BlendedRows) -> None:
        place = rows.window.slices_in(window)
        found[(slice(None), *place)], valid[place] = rows.probabilities, rows.valid

    opened.run(sink, window=window)
    return found, valid


def map_of(pair: Pair, said: dict[str, Any], window: Window | None = None) -> Pixels:
    """Map a pair as it is told, whole or a window of it."""
    request = MapRequest.of(pair.optical, pair.sar, MapOptions(**{"allow_resolution": True, **pair.said, **said}))
    with bounded_gdal_cache(), open_map(request) as opened:
        return run_window(opened, window if window is not None else opened.window)


def compare(one: Pixels, other: Pixels) -> dict[str, float]:
    """How two maps of the same ground differ: shares of pixels, and the largest change of a probability."""
    change = np.abs(one[0] - other[0]).max(axis=0)
    share = max(change.size, 1)
    return {
        "pixels that differ": float((change > 0).sum() / share),
        "by over 1e-5": float((change > NEAR).sum() / share),
        "largest": float(change.max()),
        "other class": float((one[0].argmax(0) != other[0].argmax(0)).sum() / share),
        "other validity": float((one[1] != other[1]).sum() / share),
    }


def measure(setting: Setting) -> list[Section]:
    """Compare each way of running with one: batch 4, two readers, whole."""
    pair = setting.real()
    base = {"device": str(setting.device), "precision": "fp32", "batch_size": 4, "threads": 1, "readers": 2}
    whole = map_of(pair, base)
    height, width = whole[1].shape
    named = f"{pair.optical.name} + {pair.sar.name}, {height} x {width}"
    section = Section(f"one map, however it is made: {named}, embedded pack, fp32, {setting.device}")
    _windows(section, pair, base, whole, 5 if setting.quick else WINDOWS)
    for readers in (1, 3, 4):
        same = compare(map_of(pair, {**base, "readers": readers}), whole)
        section.add(f"{readers} readers", same, "largest", 0.0)
    ceiling = compare(map_of(pair, {**base, "max_memory": _tight()}), whole)
    section.add("--max-memory, in strips if need be", ceiling, "largest", 0.0)
    for batch in (1, 2, 8, 16):
        section.add(f"batch {batch}", compare(map_of(pair, {**base, "batch_size": batch}), whole), "by over 1e-5", 0.0)
    section.add("2 threads", compare(map_of(pair, {**base, "threads": 2}), whole), "by over 1e-5", 0.0)
    if setting.device.type == "cuda" or shutil.which("g++") is not None:
        section.add("compiled", compare(map_of(pair, {**base, "compile": True}), whole), "by over 1e-5", 0.0)
    for precision in ("bf16", *(("fp16",) if setting.device.type == "cuda" else ())):
        section.add(precision, compare(map_of(pair, {**base, "precision": precision}), whole))
    section.notes.append(
        "Against batch 4, two readers, one thread, the whole scene. Columns are shares of all pixels, and"
    )
    section.notes.append(
        "the largest change of a probability; windows: the worst of them. Reduced precisions have no bound."
    )
    return [section]


def _windows(section: Section, pair: Pair, base: dict[str, Any], whole: Pixels, count: int) -> None:
    """Compare random windows, of one pixel to a quarter of the scene a side, with their part of the whole."""
    random = np.random.default_rng(0)
    height, width = whole[1].shape
    worst: dict[str, float] = {}
    request = MapRequest.of(pair.optical, pair.sar, MapOptions(**{"allow_resolution": True, **pair.said, **base}))
    with ExitStack() as stack:
        stack.enter_context(bounded_gdal_cache())
        opened = stack.enter_context(open_map(request))
        for _ in range(count):
            tall, wide = (int(random.integers(1, max(2, edge // 4))) for edge in (height, width))
            row, col = int(random.integers(0, height - tall + 1)), int(random.integers(0, width - wide + 1))
            window = Window(row, col, tall, wide)
            there = window.slices_in(Window(0, 0, height, width))
            part = whole[0][(slice(None), *there)], whole[1][there]
            found = compare(run_window(opened, window), part)
            worst = {name: max(value, worst.get(name, 0.0)) for name, value in found.items()}
    section.add(f"{count} random windows", worst, "largest", 0.0)


def _tight() -> str:
    """Return a ceiling a little above what this process and a few tiles need."""
    from gopt_geo.ceiling import FIRST_USE, GDAL_CACHE, resident_memory

    return f"{(resident_memory() + FIRST_USE + GDAL_CACHE + (700 << 20)) >> 20}MiB"
