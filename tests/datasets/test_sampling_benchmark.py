"""The benchmark of sampling runs, and its accuracy holds; rates are for the machine that it is run on."""

from __future__ import annotations

import runpy
from pathlib import Path

BENCHMARK = Path(__file__).parents[2] / "benchmarks/sampling.py"


def test_it_measures(tmp_path: Path) -> None:
    result = runpy.run_path(str(BENCHMARK))["measure"](tmp_path, 520, 4, 1)
    assert result["samples"] == 13
    assert result["gopt_geo"]["relative_rms"] < 0.0005
    assert result["torchgeo"]["relative_rms"] > 0.005  # its warp takes the nearest pixel
    assert result["torchgeo"]["first_ratio"] == 1
    for name in ("gopt_geo", "default collate", "small cache", "small cache, cache_dir"):
        assert result[name]["first"] > 0
        assert result[name]["next_ratio"] > 0
