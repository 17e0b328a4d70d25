"""Peak memory of prediction: of a scene sixteen times as tall, and of a huge one with data in a few places.

    OMP_NUM_THREADS=1 python benchmarks/inference_memory.py --json benchmarks/results/inference_memory.json

GoPT on ViT-Ti/16 with random weights (a small network hides least), tiles of 512 with an overlap of 64, one a batch,
seven classes; four optical bands and one of SAR in the next UTM zone. Each run is a process of its own that calls what
`gopt-geo predict` calls, to a COG with overviews. The figure that counts is VmHWM, the most that the process ever held
in main memory, the code of the libraries included, as Linux tells it when the run is over; "own" is what no file backs,
looked at every 20 ms, at each stage of the run. Ends with exit code 1 if a budget is missed, after printing everything.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from costs.common import Section
from costs.report import device_name, run_sections, section_parser
from memory.scenes import places, write_pair
from rich.console import Console
from speed.inputs import ModelFiles, Pair, make_model_files

TALLER = 16
MOST_GROWTH = 1.05  # of the peak, for a scene so much taller
MOST_ABOVE_MODEL = 2048.0  # MiB, of the sparse scene
HERE = Path(__file__).parent


@dataclass
class Setting:
    """What is measured.

    Attributes
    ----------
    folder
        For inputs and maps.
    turns
        Of each run; medians count.
    height, width
        Of the base scene, in pixels: so many rows that every bounded buffer is full, those of GDAL included.
    sparse, places
        Height and width of the sparse scene, and how many places of 1024 x 1024 pixels hold data.
    tile_size, overlap
        In pixels.
    quick
        Small scenes: whether everything runs. Budgets are not judged.
    """

    folder: Path
    turns: int = 1
    height: int = 2048
    width: int = 2048
    sparse: tuple[int, int] = (40_000, 60_000)
    places: int = 12
    tile_size: int = 512
    overlap: int = 64
    quick: bool = False
    files: ModelFiles | None = None

    def __post_init__(self) -> None:
        if self.quick:
            self.height, self.width, self.tile_size, self.overlap = 96, 256, 128, 16
            self.sparse, self.places = (1200, 2600), 1
        self.files = make_model_files(self.folder, "vit-t", self.tile_size, self.overlap)

    def run(self, what: str, pair: Pair | None = None) -> dict[str, Any]:
        """Run one process; what it found."""
        assert self.files is not None
        command = [
            sys.executable,
            HERE / "memory/one_run.py",
            what,
            "--tile",
            self.tile_size,
            "--overlap",
            self.overlap,
        ]
        command += ["--pack", self.files.pack, "--weights", self.files.weights]
        if pair is not None:
            command += ["--optical", pair.optical, "--sar", pair.sar, "--out", self.folder / "map.tif"]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        line = [str(part) for part in command]
        done = subprocess.run(line, capture_output=True, text=True, check=False, env=environment)
        if done.returncode:
            raise SystemExit(f"{' '.join(line[1:3])} failed:\n{done.stderr[-3000:]}")
        found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
        return found

    def medians(self, runs: list[dict[str, Any]]) -> dict[str, Any]:
        """Return the median of each figure."""
        return {key: statistics.median(run[key] for run in runs) for key in runs[0]}


def measure_taller(setting: Setting) -> list[Section]:
    """Compare a scene of some tile rows with one sixteen times as tall, both full of data."""
    heights = {"base": setting.height, f"{TALLER} times as tall": TALLER * setting.height}
    pairs = {name: write_pair(setting.folder, height, setting.width) for name, height in heights.items()}
    runs: dict[str, list[dict[str, Any]]] = {name: [] for name in pairs}
    for _ in range(setting.turns):
        for name, pair in pairs.items():
            runs[name].append(setting.run("predict", pair))
    section = Section(f"a taller scene, {setting.width} pixels wide", judged=not setting.quick)
    rows = {name: setting.medians(found) for name, found in runs.items()}
    for name, row in rows.items():
        section.add(f"{name}: {heights[name]} rows", row)
    base, tall = rows.values()
    ratio = {"peak": tall["peak MiB"] / base["peak MiB"], "own": tall["own MiB"] / base["own MiB"]}
    section.add("taller / base", ratio, "peak", MOST_GROWTH)
    section.notes.append(f"Turns: {setting.turns}; medians.")
    return [section]


def measure_sparse(setting: Setting) -> list[Section]:
    """Compare a huge scene with data in a few places with a process that has loaded the model and no more."""
    height, width = setting.sparse
    pair = write_pair(setting.folder, height, width, patches=places(height, width, setting.places))
    loaded = setting.medians([setting.run("load") for _ in range(setting.turns)])
    mapped = setting.medians([setting.run("predict", pair) for _ in range(setting.turns)])
    section = Section(f"a sparse scene, {height} x {width}, data in {setting.places} places", judged=not setting.quick)
    section.add("model loaded", loaded)
    section.add("predict", mapped)
    above = {"peak MiB": mapped["peak MiB"] - loaded["held MiB"], "own MiB": mapped["own MiB"] - loaded["own MiB"]}
    section.add("above the model", above, "peak MiB", MOST_ABOVE_MODEL)
    return [section]


SECTIONS: dict[str, Callable[[Setting], list[Section]]] = {"taller": measure_taller, "sparse": measure_sparse}


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = section_parser(__doc__, SECTIONS)
    parser.add_argument("--turns", type=int, default=1)
    parser.add_argument("--height", type=int, default=2048, help="rows of the base scene")
    parser.add_argument("--width", type=int, default=2048, help="columns of the base scene")
    parser.add_argument("--folder", type=Path, help="for scenes and maps, kept there; else a temporary one")
    parser.add_argument("--quick", action="store_true", help="small scenes, to see that all runs; judges nothing")
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> int:
    """Measure, print, and write the JSON file; the exit code."""
    given = parse(arguments)
    versions = {"python": platform.python_version(), "torch": torch.__version__}
    machine = {"device": device_name(torch.device("cpu")), "turns": given.turns, "versions": versions}
    with tempfile.TemporaryDirectory() as scratch:
        folder = given.folder or Path(scratch)
        folder.mkdir(exist_ok=True)
        setting = Setting(folder, given.turns, given.height, given.width, quick=given.quick)
        console = Console(width=190, highlight=False)
        return run_sections(SECTIONS, given.only, setting, machine, given.json, console)


if __name__ == "__main__":
    raise SystemExit(main())
