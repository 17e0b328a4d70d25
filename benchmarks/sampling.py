"""Rate and accuracy of sampling co-registered pairs in different CRSs, against plain torchgeo on the same files.

Optical (three bands, uint16, UTM 32N) and SAR (one band, float32, UTM 33N) are made in a temporary folder. Both
libraries read the same random windows through a DataLoader with one worker, in turns within one run. Accuracy is that
of our SAR samples against one bilinear warp in double precision (pyproj and scipy), relative to the signal's range.

Run: python benchmarks/sampling.py [--size 4000] [--samples 400] [--turns 3] [--output benchmarks/results/sampling.json]
Exit code 1 where a budget is missed.
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
from torch.utils.data import DataLoader

REPO = Path(__file__).parents[1]
sys.path.insert(0, str(REPO))
LEAST_RATE, MOST_ERROR, TILE = 3.0, 0.005, 256
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


def ours(optical: Path, sar: Path, cache_bytes: int) -> Any:
    from gopt_geo.datasets.geo import OpticalDataset, SarDataset

    options: dict[str, Any] = {"cache_bytes": cache_bytes}
    return OpticalDataset(optical, units="dn10000", **options) & SarDataset(sar, units="db", **options)


def turn(make: Callable[[], Any], queries: list[Any]) -> dict[str, float]:
    """Time one pass with a fresh data set and one worker; processor time includes the worker's."""
    before, begin = _processor_seconds(), time.perf_counter()
    loader = DataLoader(make(), batch_size=1, sampler=queries, num_workers=1)
    count = sum(len(next(iter(batch.values()))) for batch in loader)
    seconds = time.perf_counter() - begin
    del loader
    return {"samples_s": count / seconds, "wall_s": seconds, "processor_s": _processor_seconds() - before}


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


def main() -> int:
    from gopt_geo.datasets.compat import random_sampler

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", type=int, default=4000)
    parser.add_argument("--samples", type=int, default=400)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--output", type=Path, default=REPO / "benchmarks/results/sampling.json")
    options = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        optical, sar = make_files(Path(folder), options.size)
        generator = torch.Generator().manual_seed(1)
        queries = list(random_sampler(ours(optical, sar, 0), TILE, options.samples, generator=generator))
        blocks = (-(-options.size // 512)) ** 2
        makers: dict[str, Callable[[], Any]] = {
            "torchgeo": lambda: plain(optical, sar),
            "gopt_geo": lambda: ours(optical, sar, 512 << 20),
            # a scene 16 times as large as the cache: nearly every sample warps its blocks anew
            "gopt_geo, small cache": lambda: ours(optical, sar, max(blocks // 16, 1) * 512 * 512 * 5),
        }
        turns: dict[str, list[dict[str, float]]] = {name: [] for name in makers}
        for _ in range(options.turns):
            for name, make in makers.items():
                turns[name].append(turn(make, queries))
        errors = {
            "gopt_geo": error_of(ours(optical, sar, 512 << 20), queries[:40], sar, "sar"),
            "torchgeo": error_of(plain(optical, sar), queries[:40], sar, "image"),
        }
    result: dict[str, Any] = {"cpus": os.cpu_count(), "size": options.size, "samples": options.samples, "tile": TILE}
    for name, runs in turns.items():
        result[name] = {key: statistics.median(run[key] for run in runs) for key in runs[0]}
    base = [run["samples_s"] for run in turns["torchgeo"]]
    for name in makers:
        ratios = [run["samples_s"] / slow for run, slow in zip(turns[name], base, strict=True)]
        result[name]["ratio"] = statistics.median(ratios)
        result[name]["relative_rms"] = errors.get(name, errors["gopt_geo"])
    met = result["gopt_geo"]["ratio"] >= LEAST_RATE and errors["gopt_geo"] <= MOST_ERROR
    result["budget"] = {"least_ratio": LEAST_RATE, "most_relative_rms": MOST_ERROR, "met": met}
    for name in makers:
        row = result[name]
        line = (
            f"{name:22} {row['samples_s']:8.1f} samples/s {row['ratio']:7.2f} x   processor {row['processor_s']:7.1f} s"
        )
        sys.stdout.write(f"{line}   error {100 * row['relative_rms']:.4f} % of the range\n")
    sys.stdout.write(f"budget: {LEAST_RATE} x and {100 * MOST_ERROR} %: {'met' if met else 'MISSED'}\n")
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main())
