"""The benchmark of batches runs, tells what is wrong, and misses no budget in silence."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import rasterio

from benchmarkmodule import BENCHMARKS
from gopt_geo.batch import read_regions


@pytest.fixture
def benchmark(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return importlib.import_module


def test_a_killed_client_is_gone_on_from_in_processes_of_their_own(tmp_path: Path) -> None:
    target = tmp_path / "batch.json"
    command = [sys.executable, BENCHMARKS / "batch.py", "--quick", "--only", "resumption", "--json", target]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False, env=environment)
    assert done.returncode == 0, done.stderr[-2000:] + done.stdout[-2000:]
    document = json.loads(target.read_text())
    assert document["missed"] == []
    row = document["resumption"][0]["rows"]["kill 1"]
    assert 0 < row["done at the kill"] == row["not done again"] < 300
    assert row["mapped by the rerun"] == 300 - row["done at the kill"]
    assert row["wrong"] == 0


def lines(ended: int, seconds: float, memory: float = 100e6) -> list[dict[str, Any]]:
    during = [{"ended": n, "memory": 100e6, "scheduler": 100e6} for n in range(1, 11)]
    during[-1] |= {"memory": memory}
    plan = {"planned": 10, "kept": 0, "wall": 0.01, "processor": 0.01}
    return [plan, *during, {"finished": ended, "failed": 0, "wall": 2 * seconds, "processor": seconds}]


@pytest.mark.parametrize(
    ("first", "second", "missed"),
    [
        (lines(10, 0.04), 10, []),
        (lines(10, 0.06), 10, ["client ms a region is 6"]),
        (lines(10, 0.04, memory=110e6), 10, ["growth is 1.1"]),
        (lines(9, 0.04), 10, ["lost or failed: regions is 1"]),
        (lines(10, 0.04), 8, ["done again by a second run: regions is 2"]),
    ],
)
def test_costs_memory_and_lost_regions_are_judged(
    benchmark: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, first: Any, second: int, missed: list[str]
) -> None:
    scheduling = benchmark("batches.scheduling")
    again = [
        {"planned": 10 - second, "kept": second, "wall": 0.0, "processor": 0.0},
        {"finished": 0, "failed": 0, "wall": 0.0, "processor": 0.0},
    ]
    runs = iter([first, again])

    def tell(kind: str, task: Any, place: Path) -> Any:
        place.mkdir(exist_ok=True)
        (place / "manifest.jsonl").touch()
        return next(runs)

    monkeypatch.setattr(scheduling, "lines_of", tell)
    setting = benchmark("batches.setting").Setting(tmp_path, many=10)
    setting.shared = SimpleNamespace(file="scheduler.json", scheduler=1)
    found = [line for section in scheduling.measure(setting) for line in section.missed]
    assert len(found) == len(missed)
    assert all(wanted in line for wanted, line in zip(missed, found, strict=True))


def test_a_region_that_is_lost_or_told_as_done_without_its_map_is_wrong(benchmark: Any, tmp_path: Path) -> None:
    scheduling = benchmark("batches.scheduling")
    records = [{"id": f"r{n:06}", "status": status} for n in range(3) for status in ("started", "done")]
    (tmp_path / "manifest.jsonl").write_text("".join(json.dumps(one) + "\n" for one in records) + '{"id": "torn')
    for n in range(3):
        (tmp_path / f"r{n:06}.tif").touch()
    plan, end = {"kept": 1, "planned": 2}, {"finished": 2, "failed": 0}
    assert scheduling._statuses(tmp_path) == {"done": 3}
    assert scheduling._wrong(tmp_path, 3, 1, plan, end) == 0
    assert scheduling._wrong(tmp_path, 3, 2, plan, end) == 1  # one was done again
    assert scheduling._wrong(tmp_path, 4, 1, plan, end) == 2  # one has neither map nor line
    (tmp_path / "r000001.tif").unlink()
    assert scheduling._wrong(tmp_path, 3, 1, plan, end) == 1


def test_speed_up_and_overhead_are_of_wall_time_and_judged(benchmark: Any, tmp_path: Path) -> None:
    scaling = benchmark("batches.scaling")
    setting = benchmark("batches.setting").Setting(tmp_path)

    def told(wall: float) -> list[dict[str, float]]:
        return [{"regions": 16, "pixels": 16, "wall": wall, "processor": 100.0}]

    kept = {"predict": told(100), "predict, model kept": told(98), "1 worker": told(100.9), "2 workers": told(56)}
    assert scaling._section(setting, kept).missed == []
    section = scaling._section(setting, {**kept, "1 worker": told(104), "2 workers": told(60)})
    assert [line.split(": ")[1] for line in section.missed] == [
        "2 workers / 1 worker",
        "1 worker / predict",
        "1 worker / predict, model kept",
    ]
    assert section.rows["2 workers / 1 worker"]["speed-up"] == pytest.approx(104 / 60)


def test_maps_that_differ_in_place_or_shape_are_counted(benchmark: Any, tmp_path: Path) -> None:
    different = benchmark("batches.scaling")._different
    one = np.arange(12, dtype=np.uint8).reshape(3, 4)
    other = one.copy()
    other[1, 2] = 255
    for name, pixels in (("a", one), ("b", one), ("c", other), ("d", one[:2])):
        (tmp_path / name).mkdir()
        shape = {"height": pixels.shape[0], "width": pixels.shape[1]}
        with rasterio.open(tmp_path / name / "r.tif", "w", driver="GTiff", count=1, dtype="uint8", **shape) as file:
            file.write(pixels, 1)
    assert different(tmp_path, ["a", "b"]) == 0
    assert different(tmp_path, ["a", "b", "c"]) == 1
    assert different(tmp_path, ["a", "d"]) == 12


def test_files_of_regions_can_be_read_and_hold_all(benchmark: Any, tmp_path: Path) -> None:
    files = benchmark("batches.regionfile")
    optical, sar = tmp_path / "optical.tif", tmp_path / "sar.tif"
    sar.touch()
    place = {"crs": "EPSG:32632", "transform": rasterio.transform.from_origin(500_000, 5_600_000, 10, 10)}
    with rasterio.open(optical, "w", driver="GTiff", count=1, dtype="uint8", height=30, width=40, **place):
        pass
    same = read_regions(files.write_same(tmp_path / "same.gpkg", optical, sar, 3))
    assert [region.id for region in same] == ["region00", "region01", "region02"]
    assert {region.geometry.bounds for region in same} == {(500_000, 5_599_700, 500_400, 5_600_000)}
    assert {(*region.optical, *region.sar) for region in same} == {(str(optical), str(sar))}
    many = read_regions(files.write_many(tmp_path / "many.geojson", optical, sar, 1002))
    assert len({region.geometry.wkt for region in many}) == len(many) == 1002
    assert {(*region.optical, *region.sar) for region in many} == {(str(optical), str(sar))}


def test_a_child_that_fails_ends_the_benchmark_with_its_log(benchmark: Any, tmp_path: Path) -> None:
    setting = benchmark("batches.setting")
    with pytest.raises(RuntimeError, match="KeyError: 'unheard-of'"):
        setting.lines_of("unheard-of", {}, tmp_path / "task")
