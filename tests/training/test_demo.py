"""The script that makes the demo pack, run whole with a handful of steps; and its configuration as committed."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest
import torch
import yaml
from pydantic import ValidationError

from gopt_geo.models import backbone
from gopt_geo.packs import load_model, read_pack
from gopt_geo.training import demo

COMMITTED = Path(demo.__file__).parents[2] / "configs" / "demo_pack.yaml"
PART = {"seed": 1, "steps": 10, "batch": 1, "rate": 1e-3, "decay": 0.01, "faults": {"cloudy": 0.5}}
CONFIG = {
    "scenes": {"first_seed": 9, "count": 1, "size": 128},
    "tile": 32,
    "head": {"hidden": 8, "upscale": 2},
    "parts": dict.fromkeys(demo.PARTS, PART),
    "gopt": {"token_value": True, "rank": 4},
}


@pytest.fixture
def data(tmp_path, monkeypatch):
    """A folder in the place of the package's own."""
    folder = tmp_path / "data"
    folder.mkdir()
    for module in (demo, backbone):
        monkeypatch.setattr(module, "demo_backbone_path", lambda: folder / "backbone.safetensors")
    monkeypatch.setattr(demo, "demo_pack_path", lambda: folder / "demo.gopt.safetensors")
    return folder


def test_all_parts_in_a_row_make_packs_on_one_backbone(data, tmp_path):
    trainer = demo.DemoTrainer(demo.DemoConfig.model_validate(CONFIG), tmp_path)
    for part in demo.PARTS:
        trainer.train(part)
    assert sorted(p.name for p in data.iterdir()) == ["backbone.safetensors", "demo.gopt.safetensors"]
    paths = [data / "demo.gopt.safetensors", tmp_path / "optical_only.safetensors", tmp_path / "sar_only.safetensors"]
    for path, modalities in zip(paths, (("optical", "sar"), ("optical",), ("sar",)), strict=True):
        pack = read_pack(path)
        model = load_model(pack)
        assert pack.meta.config.modalities == tuple(pack.meta.modalities) == modalities
        assert "simulated" in pack.meta.notice
        assert pack.meta.provenance.details["parts"]["gopt"]["steps"] == 10
        images = {n: torch.randn(1, 3, 32, 32) for n in modalities}
        with torch.no_grad():
            logits = model(images, {n: torch.ones(1, 32, 32, dtype=torch.bool) for n in modalities})
        assert torch.isfinite(logits).all()
    for path in (*paths, data / "backbone.safetensors"):
        assert stat.S_IMODE(path.stat().st_mode) & 0o044 == 0o044


def test_the_committed_configuration_is_valid_and_keeps_the_test_seeds_out():
    config = demo.DemoConfig.model_validate(yaml.safe_load(COMMITTED.read_text()))
    assert set(config.parts) == set(demo.PARTS)
    assert config.scenes.first_seed + config.scenes.count <= demo.FIRST_TEST_SEED


def test_seeds_kept_for_tests_are_refused(tmp_path):
    config = demo.DemoConfig.model_validate(CONFIG | {"scenes": {"first_seed": 8999, "count": 2, "size": 128}})
    with pytest.raises(ValueError, match="kept for tests"):
        demo.DemoTrainer(config, tmp_path)


@pytest.mark.parametrize("wrong", [{"tile": 0}, {"surplus": 1}, {"parts": {"other": PART}}])
def test_a_configuration_that_makes_no_sense_is_refused(wrong):
    with pytest.raises(ValidationError):
        demo.DemoConfig.model_validate(CONFIG | wrong)
