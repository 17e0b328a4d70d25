"""What the embedded demo pack can do on simulated scenes that training never saw, and what it is compared with.

A smaller run of ``benchmarks/demo_accuracy.py``, with the same bounds.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml

from benchmarkmodule import load_benchmark
from gopt_geo.models.backbone import demo_backbone_path
from gopt_geo.packs import demo_pack_path, read_pack

ROOT = Path(__file__).resolve().parents[1]
PACKS = ROOT / "benchmarks" / "packs"
SCENES = 4
BOTH, OPTICAL, SAR = {"optical", "sar"}, {"optical"}, {"sar"}


@cache
def benchmark() -> ModuleType:
    """Load the benchmark, which is no part of the package."""
    return load_benchmark("demo_accuracy")


@cache
def miou(path: Path, use: tuple[str, ...], cloud: float) -> float:
    return float(benchmark().score(benchmark().pack_predictor(path, use=set(use)), SCENES, cloud)["miou"])


def prompted(cloud: float = 0.0, *, sar: bool = True) -> float:
    return miou(demo_pack_path(), ("optical", "sar") if sar else ("optical",), cloud)


def test_two_modalities_map_unseen_scenes() -> None:
    assert prompted() >= 0.75


@pytest.mark.parametrize(("pack", "use"), [("optical_only", ("optical",)), ("sar_only", ("sar",))])
def test_one_modality_alone_is_clearly_worse(pack: str, use: tuple[str, ...]) -> None:
    assert miou(PACKS / f"{pack}.safetensors", use, 0.0) <= prompted() - 0.05


def test_sar_decides_under_clouds() -> None:
    assert prompted(0.3) >= prompted(0.3, sar=False) + 0.05


def test_single_pixels_are_not_enough() -> None:
    boosted: dict[str, Any] = benchmark().score(benchmark().boosting_predictor(20, 100_000), SCENES, 0.0)
    assert boosted["miou"] < 0.55


@pytest.mark.brief
def test_the_pack_says_what_it_is_and_is_small() -> None:
    meta = read_pack(demo_pack_path()).meta
    assert meta.notice == "demo, trained on simulated scenes"
    assert demo_pack_path().stat().st_size + demo_backbone_path().stat().st_size < 12 * 2**20


def test_no_test_scene_was_seen_in_training() -> None:
    scenes = yaml.safe_load((ROOT / "configs" / "demo_pack.yaml").read_text())["scenes"]
    first, last = scenes["first_seed"], scenes["first_seed"] + scenes["count"] - 1
    for path in (demo_pack_path(), *PACKS.glob("*.safetensors")):
        assert f"seeds {first} to {last}" in read_pack(path).meta.provenance.data[0]
    assert last < benchmark().FIRST_TEST_SEED
