"""The four rasters of a simulated scene: georeferencing, tags, units, and reading them back as a scene."""

from __future__ import annotations

import math

import numpy as np
import pytest
import rasterio
from rasterio.enums import ColorInterp
from typer.testing import CliRunner

from gopt_geo.api import simulate_files
from gopt_geo.errors import GoptGeoError
from gopt_geo.grid import Window
from gopt_geo.scene import SourceSpec, open_scene
from gopt_geo.simulate import CLASS_COLORS, CLASS_NAMES, CLASS_VALUES, SceneSpec, simulate_scene, write_scene
from gopt_geo_cli.main import app

STEMS = ("scene", "sar", "labels", "clouds")


@pytest.fixture
def written(tmp_path):
    spec = SceneSpec(9101, 70, 90, sar_bands=2, cloud=0.3)
    paths = {stem: tmp_path / f"{stem}.tif" for stem in STEMS}
    write_scene(spec, paths)
    return spec, paths, simulate_scene(spec)


@pytest.mark.brief
def test_what_the_files_say(written):
    spec, paths, _ = written
    for stem, dtype, nodata, names in (
        ("scene", "uint16", 0, ("red", "green", "blue", "nir")),
        ("sar", "float32", math.nan, ("VV", "VH")),
        ("labels", "uint8", 0, ("label",)),
        ("clouds", "uint8", None, ("cloud",)),
    ):
        with rasterio.open(paths[stem]) as file:
            assert file.crs.to_epsg() == 32632
            assert file.transform == spec.grid.affine
            assert file.shape == (70, 90)
            assert set(file.dtypes) == {dtype}
            assert file.nodata == nodata or (math.isnan(file.nodata) and math.isnan(nodata))
            assert file.descriptions == names
            assert set(file.block_shapes) == {(256, 256)}
            assert "seed 9101" in file.tags()["GOPT_GEO_SIMULATED"]
    with rasterio.open(paths["scene"]) as file:
        assert file.scales == pytest.approx((1e-4,) * 4)
        assert file.colorinterp[:3] == (ColorInterp.red, ColorInterp.green, ColorInterp.blue)
        assert ColorInterp.alpha not in file.colorinterp
    with rasterio.open(paths["sar"]) as file:
        assert file.units == ("dB", "dB")
    with rasterio.open(paths["labels"]) as file:
        table = file.colormap(1)
        for value, name, color in zip(CLASS_VALUES, CLASS_NAMES, CLASS_COLORS, strict=True):
            assert "#{:02x}{:02x}{:02x}".format(*table[value][:3]) == color
            assert f"{value} {name}" in file.tags()["CLASSES"]


@pytest.mark.brief
def test_read_back_as_a_scene_the_values_are_those_simulated(written):
    _, paths, scene = written
    optical = SourceSpec(paths["scene"], ["red", "green", "blue", "nir"], None, "reflectance", 4)
    sar = SourceSpec(paths["sar"], ["VV", "VH"], None, "db", 2)
    with open_scene(optical, {"sar": sar}) as opened:
        block = opened.read(Window(0, 0, 70, 90))
        assert opened.notices == []
    assert block.valid["optical"].all()
    assert block.valid["sar"].all()
    assert np.abs(block.values["optical"] - scene.optical).max() <= 0.5e-4 * 1.01
    assert np.abs(block.values["sar"] - 10 * np.log10(scene.sar)).max() <= 0.5 / 256 * 1.01
    with rasterio.open(paths["labels"]) as file:
        assert np.array_equal(file.read(1), np.array(CLASS_VALUES)[scene.labels])
    with rasterio.open(paths["clouds"]) as file:
        assert np.array_equal(file.read(1), scene.clouds)


@pytest.mark.parametrize("crs", ["EPSG:32633", "EPSG:4326", "EPSG:3035"])
def test_the_verb_writes_the_same_scene_into_a_folder(tmp_path, crs):
    resolution = 1e-4 if crs == "EPSG:4326" else 10.0
    paths = simulate_files(tmp_path / "new", seed=4, size=(20, 30), crs=crs, resolution=resolution, sar_crs="EPSG:3857")
    assert sorted(p.name for p in (tmp_path / "new").iterdir()) == sorted(f"{s}.tif" for s in STEMS)
    with rasterio.open(paths["scene"]) as file, rasterio.open(paths["sar"]) as sar:
        assert file.crs.to_epsg() == int(crs.split(":")[1])
        assert sar.crs.to_epsg() == 3857
        spec = SceneSpec(4, 20, 30, crs, resolution, (file.transform.c, file.transform.f), sar_crs="EPSG:3857")
        assert sar.transform.almost_equals(spec.sar_grid.affine, 1e-9)
        numbers = file.read()
    assert np.array_equal(numbers, np.rint(simulate_scene(spec).optical * 10000))


def test_the_command_writes_what_the_verb_writes(tmp_path):
    simulate_files(tmp_path / "a", seed=4, size=(20, 30), sar_bands=2, looks=2.0, cloud=0.2, sar_resolution=15.0)
    options = ["--seed", "4", "--size", "20x30", "--sar-bands", "2", "--looks", "2", "--cloud", "0.2"]
    options += ["--sar-resolution", "15"]
    run = CliRunner().invoke(app, ["simulate", "-o", str(tmp_path / "b"), *options])
    assert run.exit_code == 0, run.output
    for stem in STEMS:
        assert (tmp_path / "a" / f"{stem}.tif").read_bytes() == (tmp_path / "b" / f"{stem}.tif").read_bytes(), stem


@pytest.mark.parametrize(
    "wrong",
    [{"looks": 0.0}, {"cloud": 1.1}, {"crs": "EPSG:1"}, {"resolution": 1e6}, {"sar_bands": 3}, {"size": (0, 5)}],
)
def test_options_out_of_range_are_refused_and_nothing_is_written(tmp_path, wrong):
    with pytest.raises(GoptGeoError) as caught:
        simulate_files(tmp_path / "d", **{"size": (8, 8), **wrong})
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.rglob("*.tif"))


def test_a_refused_scene_leaves_no_folder(tmp_path):
    with pytest.raises(GoptGeoError, match="--resolution"):
        simulate_files(tmp_path / "new", crs="EPSG:4326", resolution=10.0)
    assert not (tmp_path / "new").exists()
    (tmp_path / "old").mkdir()
    with pytest.raises(GoptGeoError, match="--resolution"):
        simulate_files(tmp_path / "old", crs="EPSG:4326", resolution=10.0)
    assert (tmp_path / "old").is_dir()
