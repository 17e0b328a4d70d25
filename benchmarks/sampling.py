"""Rate and accuracy of sampling co-registered pairs in different CRSs, against plain torchgeo on the same files.

Optical (three bands, uint16, UTM 32N) and SAR (one band, float32, UTM 33N) are made in a temporary folder. An epoch is
as many random windows of 256 x 256 pixels as cover the ground three times. All variants read the same windows through a
DataLoader with one worker process, in turns within one run:

- torchgeo: `RasterDataset & RasterDataset` with its defaults (file handles kept);
- gopt_geo: with its defaults. "first" is the first epoch, with nothing read yet; "next" another epoch's windows, by the
  same worker. What opening the data set and starting the worker take is told apart ("start");
- default collate: the same, with torch's own collation instead of `collate_samples`;
- small cache: memory for a sixteenth of the scene's blocks, as with a scene of sixteen times the memory;
- small cache, cache_dir: the same, with finished blocks in a file.

Accuracy is that of the SAR samples against one bilinear warp in double precision (pyproj and scipy), relative to the
signal's range.

Run: python benchmarks/sampling.py [--size 4000] [--batch 8] [--turns 3] [--output benchmarks/results/sampling.json]
Exit code 1 where a budget is missed: the ratio of the first epochs, and the accuracy, count.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
import torch
from affine import Affine
from pyproj import Transformer
from scipy.ndimage import gaussian_filter, map_coordinates
from torch.utils.data import DataLoader, default_collate

REPO = Path(__file__).parents[1]
sys.path.insert(0, str(REPO))
LEAST_RATE, MOST_ERROR, TILE, COVER = 3.0, 0.005, 256, 3
OPTICAL_CRS, SAR_CRS = "EPSG:32632", "EPSG:32633"
ORIGIN = (680000.0, 5010000.0)


def make_files(folder: Path, size: int) -> tuple[Path, Path]:
    """Write an optical and a SAR raster of the same ground, SAR a little larger and turned by its CRS."""
    rng = np.random.default_rng(0)
    optical, sar = folder / "optical.tif", folder / "sar.tif"
    tiled = {"driver": "GTiff", "tiled": True, "blockxsize": 512, "blockysize": 512}
    smooth = gaussian_filter(rng.standard_normal((size, size)).astype(np.float32), 2)
    bands = [((2000 + 4000 * smooth + 300 * i).clip(1, 10000)).astype(np.uint16) for i in range(3)]
    transform = Affine(10, 0, ORIGIN[0], 0, -10, ORIGIN[1])
    shape: dict[str, Any] = {"height": size, "width": size, "crs": OPTICAL_CRS, "transform": transform}
    with rasterio.open(optical, "w", count=3, dtype="uint16", **shape, **tiled) as file:
        file.write(np.stack(bands))
    corners = np.array([(0, 0), (size, 0), (0, size), (size, size)]) * (10, -10) + ORIGIN
    x, y = Transformer.from_crs(OPTICAL_CRS, SAR_CRS, always_xy=True).transform(*corners.T)
    left, top = np.floor(min(x)) - 203.7, np.ceil(max(y)) + 201.3  # no whole pixels apart
    height, width = int((top - min(y)) / 10) + 40, int((max(x) - left) / 10) + 40
    backscatter = 4 * gaussian_filter(rng.standard_normal((height, width)).astype(np.float32), 1.5) * 3 - 12
    shape = {"height": height, "width": width, "crs": SAR_CRS, "transform": Affine(10, 0, left, 0, -10, top)}
    with rasterio.open(sar, "w", count=1, dtype="float32", **shape, **tiled) as file:
        file.write(backscatter[None])
    return optical, sar


def plain(optical: Path, sar: Path) -> Any:
    """Combine the two as torchgeo does."""
    from torchgeo.datasets import RasterDataset
    from torchgeo.datasets.utils import concat_samples

    class WithoutCrs(RasterDataset):
        def __getitem__(self, query: Any) -> dict[str, Any]:  # what can't be collated goes, at no cost
            return {"image": super().__getitem__(query)["image"]}

    pairs = WithoutCrs(str(optical)) & WithoutCrs(str(sar))
    pairs.collate_fn = concat_samples
    return pairs


def ours(optical: Path, sar: Path, cache_bytes: int = 512 << 20, cache_dir: Path | None = None) -> Any:
    from gopt_geo.datasets.geo import OpticalDataset, SarDataset

    options: dict[str, Any] = {"cache_bytes": cache_bytes, "cache_dir": cache_dir}
    return OpticalDataset(optical, units="dn10000", **options) & SarDataset(sar, units="db", **options)


def turn(make: Callable[[], Any], collate: Any, epochs: list[list[Any]], batch: int) -> dict[str, float]:
    """Time epochs with a fresh data set and one worker, and the start of both; processor time includes the worker's."""
    before = _processor_seconds()
    sampler: list[Any] = []
    begin = time.perf_counter()
    workers: dict[str, Any] = {"num_workers": 1, "persistent_workers": True}
    loader = DataLoader(make(), batch_size=batch, sampler=sampler, collate_fn=collate, **workers)
    list(loader)  # starts the worker; no sample is asked for yet
    start = time.perf_counter() - begin
    rates = []
    for queries in epochs:
        begin = time.perf_counter()
        sampler[:] = queries
        count = sum(len(next(iter(sample.values()))) for sample in loader)
        rates.append(count / (time.perf_counter() - begin))
    del loader
    return {"start_s": start, "first": rates[0], "next": rates[-1], "processor_s": _processor_seconds() - before}


def _processor_seconds() -> float:
    usages = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def error_of(pairs: Any, queries: list[Any], sar: Path, key: str) -> float:
    """Root mean square difference to a bilinear warp in double precision, by the signal's range."""
    with rasterio.open(sar) as file:
        stored, transform = file.read(1).astype(np.float64), file.transform
    there = Transformer.from_crs(OPTICAL_CRS, SAR_CRS, always_xy=True)
    squares, count = 0.0, 0
    for query in queries:
        sample = pairs[query]
        left, top = query[0].start, query[1].stop
        rows, cols = np.mgrid[:TILE, :TILE] + 0.5
        x, y = there.transform(left + 10 * cols, top - 10 * rows)
        col, row = ~transform * (x, y)
        reference = map_coordinates(stored, [row - 0.5, col - 0.5], order=1)
        squares += float(((sample[key][-1].numpy().astype(np.float64) - reference) ** 2).sum())
        count += reference.size
    return (squares / count) ** 0.5 / float(np.ptp(stored))


def measure(folder: Path, size: int, batch: int, turns: int) -> dict[str, Any]:
    from gopt_geo.datasets.batches import collate_samples
    from gopt_geo.datasets.compat import random_sampler

    optical, sar = make_files(folder, size)
    length = -(-COVER * size**2 // TILE**2)
    every = ours(optical, sar)
    epochs = [
        list(random_sampler(every, TILE, length, generator=torch.Generator().manual_seed(seed))) for seed in (1, 2)
    ]
    sixteenth = max((-(-size // 512)) ** 2 // 16, 1) * 512 * 512 * 9  # of the mean of 3 and 1 bands, and validity
    variants: dict[str, tuple[Callable[[], Any], Any]] = {
        "torchgeo": (lambda: plain(optical, sar), default_collate),
        "gopt_geo": (lambda: ours(optical, sar), collate_samples),
        "default collate": (lambda: ours(optical, sar), default_collate),
        "small cache": (lambda: ours(optical, sar, sixteenth), collate_samples),
        "small cache, cache_dir": (lambda: ours(optical, sar, sixteenth, folder), collate_samples),
    }
    found: dict[str, list[dict[str, float]]] = {name: [] for name in variants}
    for _ in range(turns):
        for name, (make, collate) in variants.items():
            found[name].append(turn(make, collate, epochs, batch))
    result: dict[str, Any] = {
        name: {key: statistics.median(run[key] for run in runs) for key in runs[0]} for name, runs in found.items()
    }
    for name, runs in found.items():
        for epoch in ("first", "next"):
            ratios = [run[epoch] / slow[epoch] for run, slow in zip(runs, found["torchgeo"], strict=True)]
            result[name][f"{epoch}_ratio"] = statistics.median(ratios)
    result["torchgeo"]["relative_rms"] = error_of(plain(optical, sar), epochs[0][:40], sar, "image")
    result["gopt_geo"]["relative_rms"] = error_of(every, epochs[0][:40], sar, "sar")
    result["samples"] = length
    return result


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", type=int, default=4000)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--output", type=Path, default=REPO / "benchmarks/results/sampling.json")
    options = parser.parse_args()
    torch.set_num_threads(1)
    result: dict[str, Any] = {"cpus": os.cpu_count(), "size": options.size, "tile": TILE, "batch": options.batch}
    with tempfile.TemporaryDirectory() as folder:
        result |= measure(Path(folder), options.size, options.batch, options.turns)
    own = result["gopt_geo"]
    met = own["first_ratio"] >= LEAST_RATE and own["relative_rms"] <= MOST_ERROR
    result["budget"] = {"least_ratio": LEAST_RATE, "most_relative_rms": MOST_ERROR, "met": met}
    sys.stdout.write(f"{result['samples']} samples an epoch, batches of {options.batch}, one worker; samples/s\n")
    for name in ("torchgeo", "gopt_geo", "default collate", "small cache", "small cache, cache_dir"):
        row = result[name]
        line = f"{name:24} first epoch {row['first']:7.1f} {row['first_ratio']:6.2f} x"
        line += f"   next {row['next']:7.1f} {row['next_ratio']:6.2f} x   start {row['start_s']:.2f} s"
        line += f"   processor {row['processor_s']:5.1f} s"
        error = f"   error {100 * row['relative_rms']:.4f} % of the range" if "relative_rms" in row else ""
        sys.stdout.write(f"{line}{error}\n")
    sys.stdout.write(f"budget: {LEAST_RATE} x and {100 * MOST_ERROR} %: {'met' if met else 'MISSED'}\n")
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main())
