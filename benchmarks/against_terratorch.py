"""Prediction against TerraTorch's tiled inference: time and peak memory, with the same network, tiles and overlap.

    python3.12 -m venv /tmp/terratorch && /tmp/terratorch/bin/pip install terratorch
    OMP_NUM_THREADS=1 python benchmarks/against_terratorch.py --terratorch-python /tmp/terratorch/bin/python \
        --json benchmarks/results/terratorch.json

GoPT on ViT-S/16 with random weights, tiles of 512 with an overlap of 64; a simulated scene, repeated to size: four
optical bands and one of SAR, float32, on one grid (TerraTorch warps nothing). TerraTorch gets them in one file, which
its dataset reads; its `save_prediction` writes. Each run is a process of its own, one thread, in turns; time begins
after the imports. Processor time counts. Ends with exit code 1 if a budget is missed, after printing everything.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from costs.common import Section
from rich.console import Console
from speed.inputs import ModelFiles, make_model_files

from gopt_geo.simulate import CLASS_VALUES, SceneSpec, simulate_scene

MOST_TIME = 1.0
MOST_GROWTH = 0.05  # of the rival's, from the smallest scene to the largest
ALIKE = 0.97  # share of pixels of one class in both maps: they blend logits, not probabilities
PATTERN = 1024
OWN, THEIRS = "gopt-geo", "TerraTorch"
HERE = Path(__file__).parent


def make_rasters(folder: Path, size: int, pattern: int) -> dict[str, Path]:
    """Write a scene of a size as two rasters, and as one stack of all bands."""
    spec = SceneSpec(1, pattern, pattern)
    scene = simulate_scene(spec)
    bands = np.concatenate([scene.optical, 10 * np.log10(scene.sar[:1])]).astype(np.float32)
    grid = {"crs": spec.crs, "transform": spec.grid.transform, "width": size, "height": size}
    layout = {"driver": "GTiff", "dtype": "float32", "tiled": True, "blockxsize": 512, "blockysize": 512, **grid}
    paths = {}
    for name, part in {"stack": bands, "optical": bands[:-1], "sar": bands[-1:]}.items():
        paths[name] = folder / name / f"{size}.tif"
        paths[name].parent.mkdir(exist_ok=True)
        with rasterio.open(paths[name], "w", **layout, count=len(part), nodata=-9999.0, compress="deflate") as file:
            for row in range(0, size, pattern):
                rows = part[:, : min(pattern, size - row)]
                wide = np.tile(rows, (1, 1, -(-size // pattern)))[:, :, :size]
                file.write(wide, window=((row, row + wide.shape[1]), (0, size)))
            file.descriptions = (*spec_names(), "VV")[-len(part) :] if name != "optical" else spec_names()
    return paths


def spec_names() -> tuple[str, ...]:
    """Names of the optical bands."""
    return ("red", "green", "blue", "nir")


def run_once(command: list[str]) -> dict[str, Any]:
    """Run one prediction in a process of its own; what it found."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    if done.returncode:
        raise SystemExit(f"{' '.join(command[:2])} failed:\n{done.stderr[-3000:]}")
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def commands(
    given: argparse.Namespace, rasters: dict[str, Path], files: ModelFiles, folder: Path
) -> dict[str, list[str]]:
    """Return the command line of each of the two."""
    common = ["--pack", files.pack, "--weights", files.weights, "--tile", given.tile, "--overlap", given.overlap]
    common += ["--batch", given.batch]
    own = [sys.executable, HERE / "rivals/own_tiles.py", "--optical", rasters["optical"], "--sar", rasters["sar"]]
    own += [*common, "--out", folder / "own.tif"]
    theirs = [given.terratorch_python, HERE / "rivals/terratorch_tiles.py", "--project", HERE.parent]
    theirs += ["--stack", rasters["stack"], "--classes", len(CLASS_VALUES), *common, "--out", folder / "theirs.tif"]
    return {OWN: [str(part) for part in own], THEIRS: [str(part) for part in theirs]}


def alike(folder: Path) -> float:
    """Share of pixels that have the same class in both maps."""
    values = np.array(CLASS_VALUES)
    with rasterio.open(folder / "own.tif") as own, rasterio.open(next(folder.glob("theirs*.tif"))) as theirs:
        same = 0
        for row in range(0, own.height, 512):
            window = ((row, min(row + 512, own.height)), (0, own.width))
            same += int((own.read(1, window=window) == values[theirs.read(1, window=window)]).sum())
        return same / (own.height * own.width)


def measure(given: argparse.Namespace, folder: Path) -> tuple[Section, dict[str, Any]]:
    """Run both on all sizes, in turns."""
    files = make_model_files(folder, given.model, given.tile, given.overlap)
    section = Section(
        f"{given.model}, tiles of {given.tile}, overlap {given.overlap}, batch {given.batch}, one thread, CPU",
        judged=not given.quick,
    )
    peaks: dict[str, list[float]] = {OWN: [], THEIRS: []}
    versions: dict[str, Any] = {}
    for size in given.sizes:
        lines = commands(given, make_rasters(folder, size, min(PATTERN, size)), files, folder)
        runs: dict[str, list[dict[str, Any]]] = {name: [] for name in lines}
        for _ in range(given.turns):
            for name, line in lines.items():
                runs[name].append(run_once(line))
        for name, found in runs.items():
            keys = ("wall s", "processor s", "peak MiB")
            row = {key: statistics.median(run[key] for run in found) for key in keys}
            peaks[name].append(row["peak MiB"])
            section.add(f"{size}: {name}", row)
            versions[name] = {key: found[0][key] for key in ("version", "torch") if key in found[0]}
        times, walls = (_medians(runs, key) for key in ("processor s", "wall s"))
        row = {
            "time ratio": times[0] / times[1],
            "of wall time": walls[0] / walls[1],
            "memory ratio": peaks[OWN][-1] / peaks[THEIRS][-1],
        }
        section.add(f"{size}: {OWN} / {THEIRS}", row, "time ratio", MOST_TIME)
        # Only where whole tiles fill the scene: else TerraTorch moves the last ones inwards.
        fits = (size - given.tile) % (given.tile - given.overlap) == 0
        section.add(
            f"{size}: pixels of another class", {"share": 1 - alike(folder)}, "share", 1 - ALIKE if fits else None
        )
    if len(given.sizes) > 1:
        own, theirs = (peaks[name][-1] - peaks[name][0] for name in (OWN, THEIRS))
        row = {f"{OWN} MiB": own, f"{THEIRS} MiB": theirs, "share": own / theirs}
        section.add(f"growth of the peak, {given.sizes[0]} to {given.sizes[-1]}", row, "share", MOST_GROWTH)
    return section, versions


def _medians(runs: dict[str, list[dict[str, Any]]], key: str) -> list[float]:
    return [statistics.median(run[key] for run in runs[name]) for name in (OWN, THEIRS)]


def main(arguments: list[str] | None = None) -> int:
    """Measure, print, and write the JSON file; the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--terratorch-python", type=Path, required=True, help="a Python that has TerraTorch")
    parser.add_argument("--sizes", type=int, nargs="+", default=[2048, 4096, 8192])
    parser.add_argument("--turns", type=int, default=1)
    parser.add_argument("--model", choices=["vit-t", "vit-s", "vit-b"], default="vit-s")
    parser.add_argument("--tile", type=int, default=512)
    parser.add_argument("--overlap", type=int, default=64)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--quick", action="store_true", help="judge nothing")
    parser.add_argument("--json", type=Path)
    given = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as scratch:
        section, versions = measure(given, Path(scratch))
    console = Console(width=170, highlight=False)
    section.show(console)
    if given.json is not None:
        document = {"versions": versions, "missed": section.missed, **section.to_dict()}
        given.json.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
    for line in section.missed:
        console.print(f"missed: {line}")
    return 1 if section.missed else 0


if __name__ == "__main__":
    raise SystemExit(main())
