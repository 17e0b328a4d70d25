"""Two workers against one, and a batch on one worker against calling predict for each region."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from costs.common import BUSY, Section
from numpy.typing import NDArray
from speed.inputs import make_model_files, simulate_pair

from batches.regionfile import write_same
from batches.setting import Setting, lines_of

__all__ = ["measure"]

LEAST_SPEED_UP = 1.8
MOST_OVER_PREDICT = 1.03
DIRECT = ("predict", "predict, model kept")
ONE, TWO = "1 worker", "2 workers"

Task = dict[str, Any]
Times = dict[str, float]


def measure(setting: Setting) -> list[Section]:
    """Map the same regions by predict, on one worker and on two, turn by turn; every run in fresh processes.

    A time is from the first region's begin to the last one's end, loading the model included, starting processes and
    importing libraries not.
    """
    files = make_model_files(setting.folder, setting.model, setting.tile_size, setting.overlap)
    pair = simulate_pair(setting.folder, setting.size, setting.size)
    said = {"backbone_weights": str(files.weights), "device": "cpu", "precision": "fp32", "threads": 1}
    said |= {"readers": 1, "batch_size": 1, **pair.said}
    regions = write_same(setting.folder / "regions.gpkg", pair.optical, pair.sar, setting.regions)
    task = {"regions": str(regions), "pack": str(files.pack), "said": said}
    times: dict[str, list[Times]] = defaultdict(list)
    places: list[str] = []
    for turn in range(setting.turns):
        for number, name in enumerate((*DIRECT, ONE, TWO)):
            places.append(f"turn{turn}-{number}")
            if name in DIRECT:
                found = _direct(setting, task, places[-1], keep=name != DIRECT[0])
            else:
                found = _batch(setting, task, places[-1], workers=1 if name == ONE else 2)
            times[name].append(found)
    alike = Section("maps of all runs")
    alike.add("pixels that aren't those of predict", {"pixels": _different(setting.folder, places)}, "pixels", 0)
    return [_section(setting, times), alike]


def _direct(setting: Setting, task: Task, name: str, keep: bool) -> Times:
    place = setting.folder / name
    (found,) = lines_of("direct", {**task, "output": str(place), "keep": keep}, place)
    return found


def _batch(setting: Setting, task: Task, name: str, workers: int) -> Times:
    place = setting.folder / name
    with setting.cluster(f"{name}-cluster", workers) as cluster:
        own = {"output": str(place), "scheduler_file": str(cluster.file), "cluster": cluster.pids}
        (found,) = lines_of("batch", {**task, **own}, place)
    return found


def _section(setting: Setting, times: Mapping[str, list[Times]]) -> Section:
    count, edge = setting.regions, setting.size
    how = f"{setting.model}, tiles of {setting.tile_size}, overlap {setting.overlap}, one thread a worker"
    section = Section(f"{count} regions of {edge} x {edge}, {how}", judged=not setting.quick)
    total = {name: {key: sum(turn[key] for turn in turns) for key in turns[0]} for name, turns in times.items()}
    for name, one in total.items():
        each = one["regions"]
        row = {"wall s": one["wall"] / len(times[name]), "wall s a region": one["wall"] / each}
        section.add(name, {**row, "processor s a region": one["processor"] / each, "pixels": one["pixels"]})
    wall, processor = ({name: one[key] for name, one in total.items()} for key in ("wall", "processor"))
    section.add(
        "2 workers / 1 worker",
        {"speed-up": wall[ONE] / wall[TWO], "time over": wall[TWO] / wall[ONE]},
        "time over",
        1 / LEAST_SPEED_UP,
    )
    for name in DIRECT:
        over = {"time over": wall[ONE] / wall[name], "of processor time": processor[ONE] / processor[name]}
        section.add(f"1 worker / {name}", over, "time over", MOST_OVER_PREDICT)
    section.notes += [
        f"Turns: {setting.turns}, one after the other, in fresh processes each; loading the model counts, importing "
        "libraries doesn't. Ratios are of wall time.",
        "Processor time is of all processes: client, scheduler and workers.",
    ]
    if not setting.quick and processor["predict"] * BUSY < wall["predict"]:
        section.notes.append(
            f"predict had {100 * processor['predict'] / wall['predict']:.0f} % of a core: the machine was busy with "
            "other things, and ratios of wall time are rough."
        )
    return section


def _different(folder: Path, names: Iterable[str]) -> int:
    """Count the pixels in which the maps of any run differ from those of the first."""
    first, *others = names
    count = 0
    for path in sorted((folder / first).glob("*.tif")):
        wanted = _pixels(path)
        for other in others:
            found = _pixels(folder / other / path.name)
            count += wanted.size if found.shape != wanted.shape else int((found != wanted).sum())
    return count


def _pixels(path: Path) -> NDArray[np.uint8]:
    with rasterio.open(path) as file:
        pixels: NDArray[np.uint8] = file.read(1)
    return pixels
