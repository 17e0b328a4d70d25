"""``gopt-geo train`` for real, on a copy of the sample scene: a few steps, and what stops it before the first."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import rasterio
from typer.testing import CliRunner, Result

from gopt_geo.packs import read_pack
from gopt_geo.training.configfile import read_train_config
from gopt_geo_cli.main import app

ROOT = Path(__file__).parents[2]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    copy = tmp_path / "sample"
    shutil.copytree(ROOT / "sample_tiles", copy, ignore=shutil.ignore_patterns("runs"))
    monkeypatch.chdir(copy)
    return copy


def run(*arguments: str) -> Result:
    return CliRunner().invoke(app, list(arguments))


def refused(*arguments: str) -> str:
    before = sorted(Path().rglob("*"))
    found = run("train", *arguments)
    assert found.exit_code == 2, found.output
    *_, last = found.stderr.splitlines()
    assert last.startswith("error: ")
    assert sorted(Path().rglob("*")) == before, "nothing is left behind"
    return last.removeprefix("error: ")


def test_the_bare_command_trains_the_sample_scene(folder: Path) -> None:
    found = run("train", "--aoi", "aoi.geojson", "--steps", "2", "--set", "evaluation.boundary=2")
    assert found.exit_code == 0, found.output
    assert found.stdout == "runs/sample/pack.gopt.safetensors\n"
    assert "note: configuration gopt-geo.yaml" in found.stderr
    assert "2 steps in " in found.stderr.splitlines()[-1]
    pack = read_pack(folder / "runs/sample/pack.gopt.safetensors")
    assert [info.name for info in pack.meta.classes][:2] == ["farmland", "city"]
    resolved = read_train_config(folder / "runs/sample/config.yaml")
    assert resolved.scene is not None
    assert resolved.scene.aoi == str(folder / "aoi.geojson")  # holds wherever it is read
    assert (resolved.training.steps, resolved.training.tile_size) == (2, (64, 64))
    assert resolved.model.modalities == ("optical", "sar")
    assert "it holds a run" in refused("--aoi", "aoi.geojson")


@pytest.mark.brief
def test_a_dry_run_reports_and_writes_nothing(folder: Path) -> None:
    before = sorted(folder.rglob("*"))
    found = run("train", "--aoi", "aoi.geojson", "--dry-run")
    assert found.exit_code == 0, found.output
    for name in ("farmland", "road", "optical", "sar", "train", "val", "test"):
        assert name in found.stderr
    assert sorted(folder.rglob("*")) == before


@pytest.mark.brief
def test_what_stops_before_the_first_step(folder: Path) -> None:
    assert refused("--optical", "nothing.tif").startswith("nothing.tif: ")
    assert refused("--labels", "nothing.gpkg").startswith("nothing.gpkg: there is no such file")
    assert refused("--aoi", "30,10,31,11").startswith("30,10,31,11")
    config = str(ROOT / "configs/mfnet.yaml")
    assert refused("--config", config, "--root", "nowhere", "-o", "runs/x").startswith("nowhere")
    assert "nowhere.yaml" in refused("--classes", "nowhere.yaml")
    assert "100" in refused("--set", "evaluation.tile_size=100")


def test_one_class_alone_is_refused(folder: Path) -> None:
    with rasterio.open("labels.tif") as file:
        profile, labels = file.profile, file.read(1)
    with rasterio.open("one.tif", "w", **profile) as file:
        file.write(np.where(labels == 10, labels, 0).astype(np.uint8), 1)
    assert "class" in refused("--labels", "one.tif")


def test_labels_of_another_place_are_refused(folder: Path) -> None:
    with rasterio.open("labels.tif") as file:
        profile, labels = file.profile, file.read(1)
    profile["transform"] = rasterio.Affine(10, 0, 700000, 0, -10, 5000000)
    with rasterio.open("away.tif", "w", **profile) as file:
        file.write(labels, 1)
    assert "away.tif" in refused("--labels", "away.tif")
