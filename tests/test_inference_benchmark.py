"""The benchmarks of prediction run: on a tiny network and small scenes."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import rasterio.warp

from benchmarkmodule import BENCHMARKS


@pytest.fixture
def benchmark(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return importlib.import_module


def test_all_sections_are_measured_shown_and_written(tmp_path: Path) -> None:
    target = tmp_path / "speed.json"
    command = [sys.executable, BENCHMARKS / "inference.py", "--quick", "--json", target]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, timeout=900, check=False, env=environment)
    assert done.returncode == 0, done.stderr[-2000:] + done.stdout[-2000:]
    document = json.loads(target.read_text())
    assert {"end-to-end", "half-empty", "exact", "reduced", "stages"} <= set(document)
    assert document["missed"] == []
    rows = document["exact"][0]["rows"]
    assert {"5 random windows", "1 readers", "4 readers", "batch 16", "2 threads", "bf16"} <= set(rows)
    assert rows["bf16"]["other class"] < 0.05
    (empty,) = document["half-empty"]
    assert empty["rows"]["half empty"]["tiles forwarded"] == empty["rows"]["half empty"]["skipped"] > 0
    assert 2 * empty["rows"]["half empty"]["tiles forwarded"] == empty["rows"]["full"]["tiles forwarded"]
    for title in ("bare / predict", "slots of batches that held a tile"):
        assert title in done.stdout


def test_maps_that_differ_are_told_apart(benchmark: Any) -> None:
    compare = benchmark("speed.exact").compare
    one = np.full((2, 4, 5), 0.5, np.float32)
    one[0] += 0.01
    other, valid = one.copy(), np.ones((4, 5), bool)
    assert set(compare((one, valid), (other, valid)).values()) == {0.0}
    other[:, 0, 0] = other[::-1, 0, 0]
    other[0, 1, 1] += 1e-6
    seen = valid.copy()
    seen[3] = False
    assert compare((one, valid), (other, seen)) == {
        "pixels that differ": 2 / 20,
        "by over 1e-5": 1 / 20,
        "largest": pytest.approx(0.01, rel=1e-4),
        "other class": 1 / 20,
        "other validity": 5 / 20,
    }


def test_the_rivals_rasters_hold_the_same_pixels(benchmark: Any, tmp_path: Path) -> None:
    rasters = benchmark("against_terratorch").make_rasters(tmp_path, 150, 64)
    read = {}
    for name, path in rasters.items():
        with rasterio.open(path) as file:
            read[name] = file.read()
            assert (file.height, file.width, str(file.crs)) == (150, 150, "EPSG:32632")
    assert np.array_equal(read["stack"], np.concatenate([read["optical"], read["sar"]]))
    assert np.array_equal(read["stack"][:, :64, :64], read["stack"][:, 64:128, 64:128])


def test_maps_of_the_two_are_compared_by_class(benchmark: Any, tmp_path: Path) -> None:
    module = benchmark("against_terratorch")
    profile = {"driver": "GTiff", "width": 10, "height": 10, "count": 1, "dtype": "int16"}
    places = np.arange(100).reshape(10, 10) % len(module.CLASS_VALUES)
    values = np.array(module.CLASS_VALUES)[places]
    values[0, :3] = 255
    for name, pixels in (("own.tif", values), ("theirs_pred.tif", places)):
        with rasterio.open(tmp_path / name, "w", **profile) as file:
            file.write(pixels.astype(np.int16), 1)
    assert module.alike(tmp_path) == pytest.approx(0.97)


def test_a_rival_that_fails_ends_the_benchmark(benchmark: Any) -> None:
    with pytest.raises(SystemExit, match="failed:"):
        benchmark("against_terratorch").run_once([sys.executable, "-c", "raise ValueError('no TerraTorch')"])


def test_memory_is_measured_shown_and_written(tmp_path: Path) -> None:
    target = tmp_path / "memory.json"
    command = [sys.executable, BENCHMARKS / "inference_memory.py", "--quick", "--json", target]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, timeout=900, check=False, env=environment)
    assert done.returncode == 0, done.stderr[-2000:] + done.stdout[-2000:]
    document = json.loads(target.read_text())
    (taller,), (sparse,) = document["taller"], document["sparse"]
    base, tall = taller["rows"]["base: 96 rows"], taller["rows"]["16 times as tall: 1536 rows"]
    assert tall["forwarded"] > 10 * base["forwarded"] > 0
    assert taller["rows"]["taller / base"]["peak"] == pytest.approx(tall["peak MiB"] / base["peak MiB"], rel=1e-3)
    rows = sparse["rows"]
    assert 0 < rows["predict"]["forwarded"] < rows["predict"]["tiles"]
    assert 0 < rows["model loaded"]["own MiB"] < rows["model loaded"]["held MiB"]
    above = rows["predict"]["peak MiB"] - rows["model loaded"]["held MiB"]
    assert rows["above the model"]["peak MiB"] == pytest.approx(above, rel=0.02)


def test_a_pattern_is_written_where_it_should_be(benchmark: Any, tmp_path: Path) -> None:
    module = benchmark("memory.scenes")
    assert {(0, 0), (1, 1), (0, 2), (2, 3)} <= set(module.places(1800, 2000, 5))
    pair = module.write_pair(tmp_path, 1100, 1300, patches=[(0, 0), (1, 2)])
    with rasterio.open(pair.optical) as optical, rasterio.open(pair.sar) as sar:
        pixels = optical.read(1)
        there = (pixels != optical.nodata).nonzero()
        assert set(zip(there[0] // 512, there[1] // 512, strict=True)) == {(0, 0), (1, 2)}
        assert str(sar.crs) != str(optical.crs)
        # SAR lies under all that the optical image shows.
        xs, ys = rasterio.transform.xy(optical.transform, [5, 500, 1000], [5, 500, 1290])
        places = rasterio.warp.transform(optical.crs, sar.crs, xs, ys)
        assert all(value[0] != sar.nodata for value in sar.sample(zip(*places, strict=True)))
