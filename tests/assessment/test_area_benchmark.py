"""The benchmark of intervals runs, and its parts do what they say."""

from __future__ import annotations

import json
from types import ModuleType

import numpy as np
import pytest

from benchmarkmodule import BENCHMARKS, load_benchmark


@pytest.fixture(scope="module")
def bench() -> ModuleType:
    return load_benchmark("area_estimates")


def test_it_runs_and_writes(bench, tmp_path, capsys) -> None:
    target = tmp_path / "a.json"
    assert bench.main(["--scenarios", "3", "--assessments", "300", "--json", str(target)]) == 0
    document = json.loads(target.read_text())
    records = document["fixed"]["records"]
    assert {record["seed"] for record in records} == {6000, 6001, 6002}
    assert all(0.7 < record["coverage"]["score (gopt-geo)"] <= 1 for record in records)
    many = [record for record in records if record["units"] >= 50]
    outside = [[r["seed"], r["class"]] for r in many if not 0.94 <= r["coverage"]["score (gopt-geo)"] <= 0.96]
    assert document["fixed"]["outside"] == outside
    assert "fixed: outside 94 to 96 %" in capsys.readouterr().out


def test_scenarios_are_fixed_by_their_seed(bench) -> None:
    for seed in range(6000, 6030):
        plan = bench.design(seed)
        assert plan.weights.sum() == pytest.approx(1)
        assert plan.units.min() >= 2
        assert np.array_equal(plan.units, bench.design(seed).units)
        shares = bench.populations(plan, np.random.default_rng(0), 50)
        low, high = map(float, plan.accuracy.split(" to "))
        diagonal = np.diagonal(shares, axis1=1, axis2=2)
        assert shares.sum(axis=2) == pytest.approx(np.ones(shares.shape[:2]))
        assert low <= diagonal.min() <= diagonal.max() <= high


def test_the_plain_interval_is_that_of_the_estimates(bench) -> None:
    from gopt_geo.assessment.areaestimates import Strata, estimate_areas

    matrix = np.array([[40, 8, 2], [3, 60, 7], [0, 5, 85]])
    units, weights = matrix.sum(axis=1).astype(float), np.array([0.1, 0.3, 0.6])
    found = estimate_areas(matrix, Strata(("a", "b", "c"), weights))
    shares = (matrix / units[:, None])[:, None, :]
    lower, upper = bench.plain(shares, units, weights)
    assert lower[0] == pytest.approx(found.plain_lower)
    assert upper[0] == pytest.approx(found.plain_upper)
    lower, upper = bench.score(shares, units, weights)
    assert (lower[0], upper[0]) == (pytest.approx(found.lower), pytest.approx(found.upper))


def test_the_published_results_are_of_this_benchmark(bench) -> None:
    """A few scenarios drawn again must give the published coverages: the file is of the present code."""
    published = json.loads((BENCHMARKS / "results" / "area_estimates.json").read_text())
    assert (published["assessments"], published["scenarios"]) == (10_000, 100)
    by_seed = [record for record in published["fixed"]["records"] if record["seed"] == 6001]
    again = list(bench.measure(bench.design(6001), 10_000, varied=False))
    assert [r["units"] for r in again] == [r["units"] for r in by_seed]
    for new, old in zip(again, by_seed, strict=True):
        assert new["coverage"]["score (gopt-geo)"] == pytest.approx(old["coverage"]["score (gopt-geo)"], abs=1e-3)
