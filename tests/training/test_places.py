"""Configurations in run folders hold wherever they are read."""

from __future__ import annotations

import json

import pytest

from gopt_geo.training.config import TrainConfig
from gopt_geo.training.places import placed


def config(**scene):
    return TrainConfig.model_validate_json(json.dumps({"scene": {"labels": "labels.tif", **scene}}))


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    for name in ("labels.tif", "a.tif", "b.tif", "area with blank.geojson"):
        (tmp_path / name).touch()
    (tmp_path / "bands").mkdir()
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.brief
def test_files_lists_patterns_and_layers_become_absolute(here):
    found = placed(
        config(optical="a.tif,b.tif", sar="bands/*.tif", aoi="area with blank.geojson|one", grid="a.tif")
    ).scene
    assert found.labels == str(here / "labels.tif")
    assert found.optical == f"{here / 'a.tif'},{here / 'b.tif'}"
    assert found.sar == str(here / "bands" / "*.tif")
    assert found.aoi == f"{here / 'area with blank.geojson'}|one"
    assert found.grid == str(here / "a.tif")


@pytest.mark.parametrize(
    "text", ["https://example.org/a.tif", "s3://bucket/*.tif", "POLYGON((0 0,1 0,1 1,0 0))", "1,2,3,4"]
)
def test_what_is_no_local_path_stays(text):
    found = placed(config(optical="optical", sar=text, aoi=text, cloud_mask="SCL")).scene
    assert (found.sar, found.aoi, found.cloud_mask, found.grid) == (text, text, "SCL", "optical")


def test_data_sets_and_class_files(here):
    (here / "classes.yaml").touch()
    document = {
        "dataset": "pair_folder",
        "root": "bands",
        "splits": {"train": "train", "val": "val", "test": "test"},
        "classes": "classes.yaml",
        "model": {"backbone_weights": "b.tif"},
    }
    found = placed(TrainConfig.model_validate_json(json.dumps(document)))
    assert (found.root, found.classes) == (str(here / "bands"), str(here / "classes.yaml"))
    assert found.model.backbone_weights == str(here / "b.tif")
    assert placed(found) == found
