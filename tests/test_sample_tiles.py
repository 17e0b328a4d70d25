"""The sample scene in the repository is what its README says it is."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import rasterio

from gopt_geo import api
from gopt_geo.datasets.configs import listed_classes
from gopt_geo.datasets.geo import OpticalDataset, ScenePairs
from gopt_geo.datasets.labels import RasterLabels
from gopt_geo.datasets.splits import split_labels
from gopt_geo.simulate import CLASS_COLORS, CLASS_NAMES, CLASS_VALUES
from gopt_geo.training.configfile import read_train_config

SAMPLES = Path(__file__).resolve().parents[1] / "sample_tiles"


@pytest.mark.brief
def test_the_stated_command_makes_the_sample_scene(tmp_path: Path) -> None:
    made = api.simulate_files(tmp_path / "again", seed=7, size=(512, 640), sar_crs="EPSG:4326")
    for stem, tolerance in (("labels", 0), ("clouds", 0), ("scene", 1), ("sar", 1 / 128)):
        with rasterio.open(made[stem]) as new, rasterio.open(SAMPLES / f"{stem}.tif") as kept:
            assert new.crs == kept.crs
            assert np.allclose(np.array(new.transform), np.array(kept.transform), rtol=1e-12)
            assert (new.descriptions, new.scales, new.units) == (kept.descriptions, kept.scales, kept.units)
            difference = np.abs(new.read().astype(np.float64) - kept.read())
            # Another numpy or scipy may round a value on a threshold to the other side: a few pixels, no more.
            assert (difference > tolerance).mean() < 1e-3


@pytest.mark.brief
def test_the_configuration_fits_the_scene(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its area lies in the scene, its classes are those of the labels, and each part of the split holds all of them."""
    monkeypatch.chdir(SAMPLES)
    config = read_train_config("gopt-geo.yaml")
    scene = config.scene
    assert scene is not None
    assert isinstance(config.training.tile_size, int)
    classes = listed_classes(config.classes, config.ignore)
    assert classes is not None
    assert (classes.values, classes.names, classes.colours) == (CLASS_VALUES, CLASS_NAMES, CLASS_COLORS)
    labels = RasterLabels(scene.labels, classes)
    pairs = ScenePairs(OpticalDataset("scene.tif", bands=["red", "green", "blue"]), labels, aoi="aoi.geojson")
    split = split_labels(pairs, config.training.tile_size)
    assert (split.counts > 0).all()
    with rasterio.open("labels.tif") as file:
        whole = int((file.read(1) > 0).sum())
    assert 0.5 * whole < split.counts.sum() + split.lost.sum() < 0.95 * whole
