"""The benchmark of coregister: which pairs serve what, and how its figures are made."""

from __future__ import annotations

import json
import math
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import rasterio
from scipy import ndimage

from benchmarkmodule import load_benchmark
from realdata import DATA, needs

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def benchmark() -> ModuleType:
    return load_benchmark("coregistration")


def pair_of(benchmark: ModuleType, folder: Path, name: str, seed: int) -> Any:
    """A pair of pictures without a CRS, cut from one of two noise images."""
    paths = []
    for kind, factor in (("optical", 1), ("sar", -1)):
        path = folder / f"{name}_{kind}.png"
        noise = ndimage.gaussian_filter(np.random.default_rng(seed).normal(size=(192, 192)), 3)
        pixels = np.clip(128 + 30 * factor * noise / noise.std(), 1, 255).astype(np.uint8)
        with rasterio.open(path, "w", driver="PNG", width=192, height=192, count=1, dtype="uint8") as file:
            file.write(pixels[None])
        paths.append(path)
    return benchmark.Pair("made", name, "report", (paths[0],), (paths[1],))


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
def test_known_shifts_are_measured_and_other_places_are_not_let_through(benchmark: ModuleType, tmp_path: Path) -> None:
    one, other = (pair_of(benchmark, tmp_path, name, seed) for seed, name in enumerate(("one", "other")))
    rows = benchmark.measure(one, one, [(0.0, 0.0), (3.5, -1.25)])
    assert all(row["reliable"] for row in rows)
    assert math.dist(rows[0]["best"], (0, 0)) < 0.2
    assert math.dist(rows[1]["best"], (3.5, -1.25)) < 0.2
    assert not benchmark.measure(one, other, [(0.0, 0.0)])[0]["reliable"]
    assert benchmark.same_ground(one, one)
    assert not benchmark.same_ground(one, other)


def test_shifts_are_fixed_and_reach_far_along_both_axes(benchmark: ModuleType) -> None:
    pair = benchmark.Pair("volkov", "020", "choice", (), ())
    shifts = np.array(benchmark.shifts_of(pair))
    assert shifts.shape == (12, 2)
    assert (np.abs(shifts) <= 8).all()
    assert (np.abs(shifts).max(axis=0) >= 5).all()
    assert (np.abs(shifts).max(axis=1) < 1).sum() >= 3
    np.testing.assert_array_equal(shifts, benchmark.shifts_of(pair))
    assert len(benchmark.shifts_of(benchmark.Pair("ombria test", "1", "report", (), ()))) == 4


def study(reliable: bool, error: float, own: float = 1.0, wrong: int = 0) -> dict[str, Any]:
    base = {"best": (own, 0.0), "shift": (0.0, 0.0), "reliable": True, "seconds": 0.1}
    trial = {"best": (own + 2 + error, 0.0), "shift": (2.0, 0.0), "reliable": reliable, "seconds": 0.1}
    false = [{"reliable": i < wrong} for i in range(10)]
    return {"dataset": "d", "part": "report", "name": "n", "true": [base, trial], "wrong": false}


def test_a_row_counts_what_it_says(benchmark: ModuleType) -> None:
    row = benchmark.row_of("d", [study(True, 0.2), study(True, 0.7), study(False, 0.1), study(True, 0, own=5, wrong=1)])
    assert (row["trials"], row["let_through"], row["good"], row["own_estimate_wrong"]) == (4, 3, 1, 1)
    assert (row["mismatched"], row["mismatched_let_through"]) == (40, 1)
    assert row["largest_error"] == pytest.approx(0.7)
    assert benchmark.verdict(row) == {"good": False, "let_through": True, "mismatched": False}
    nothing = benchmark.row_of("d", [study(False, 0)])
    assert benchmark.verdict(nothing) == {"good": False, "let_through": False, "mismatched": True}


def test_simulated_scenes_tell_the_true_error(benchmark: ModuleType) -> None:
    (row,) = benchmark.simulated_rows([128], 3)
    assert (row["pixels"], row["scenes"]) == (128, 3)
    assert row["good"] <= row["let_through"] <= 3
    assert row["median_error"] <= row["error_90_percent"] <= row["largest_error"] < 1.5


def test_published_figures_keep_the_budgets() -> None:
    document = json.loads((ROOT / "benchmarks/results/coregistration.json").read_text())
    assert document["budget"] == {"good": 0.9, "let_through": 0.7, "mismatched": 0.02}
    assert document["report"][-1]["data"] == "all"
    assert all(document["report"][-1]["keeps"].values())


class TestRealPairs:
    pytestmark = needs(DATA)

    def test_parts_share_no_pair_and_no_file(self, benchmark: ModuleType) -> None:
        pairs = benchmark.find_pairs()
        files = [path for pair in pairs for path in (*pair.optical, *pair.sar)]
        assert len(files) == len(set(files))
        choice = [pair for pair in pairs if pair.part == "choice"]
        assert {pair.dataset for pair in choice} == {"volkov", "ombria train"}
        assert len(choice) == 124
        assert len(pairs) == 711
        assert all(path.is_file() for path in files)
