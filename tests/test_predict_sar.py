"""Maps from SAR alone: with packs that know optical images too, and with packs of SAR alone."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import geopandas
import numpy as np
import pytest
import rasterio
import torch

import gopt_geo
from gopt_geo.errors import GoptGeoError, PackError, ShiftError
from gopt_geo.grid import corner_distance, grid_of
from gopt_geo.models import Backbone, GoPT
from gopt_geo.models.config import GoptConfig
from gopt_geo.packs import read_pack, write_pack
from gopt_geo.prediction import PredictReport, predict

Run = Callable[..., PredictReport]
Pixels = Callable[..., np.ndarray]


@pytest.fixture
def sar_pack(tiny_pack: Path, tiny_backbone: Backbone, tmp_path: Path) -> Path:
    """A pack of SAR alone, untrained."""
    torch.manual_seed(8)
    meta = read_pack(tiny_pack).meta
    config = GoptConfig(classes=len(meta.classes), primary="sar", auxiliary=(), hidden=16, rank=4, upscale=8)
    model = GoPT(tiny_backbone, config)
    with torch.no_grad():
        model.head.classify.weight.mul_(40)
    meta = meta.model_copy(update={"config": model.config, "modalities": {"sar": meta.modalities["sar"]}})
    write_pack(tmp_path / "sar.safetensors", meta, model.trainable_state())
    return tmp_path / "sar.safetensors"


def test_it_is_what_both_give_under_full_clouds(
    run: Run, pixels: Pixels, aligned_scene: dict[str, Path], tmp_path: Path
) -> None:
    with rasterio.open(aligned_scene["clouds"]) as file:
        profile = file.profile
    with rasterio.open(tmp_path / "all.tif", "w", **profile) as file:
        file.write(np.ones((1, 90, 130), profile["dtype"]))
    both = {"optical": aligned_scene["scene"], "sar": aligned_scene["sar"], "cloud_mask": tmp_path / "all.tif"}
    run("both.tif", **both, confidence="both_c.tif")
    alone = {"optical": None, "sar": aligned_scene["sar"], "optical_bands": None}
    found = run("alone.tif", **alone, confidence="alone_c.tif", preview="view.png")
    for one, two in (("both.tif", "alone.tif"), ("both_c.tif", "alone_c.tif")):
        np.testing.assert_array_equal(pixels(tmp_path / one), pixels(tmp_path / two))
    assert (tmp_path / "view.png").stat().st_size > 0
    assert "warning: no optical raster is given: the map comes from SAR alone" in found.notices
    assert not any("in both rasters" in notice for notice in found.notices)
    with rasterio.open(tmp_path / "alone.tif") as result:
        assert result.tags()["GOPT_GEO_INPUT_SAR"] == "sar.tif"
        assert "GOPT_GEO_INPUT_OPTICAL" not in result.tags()


def test_a_pack_of_sar_alone(scene: dict[str, Path], sar_pack: Path, pixels: Pixels, tmp_path: Path) -> None:
    """The map lies on SAR's grid, geographic here, in files and arrays alike."""
    files = [tmp_path / "m.tif", tmp_path / "m.gpkg"]
    report = predict(None, scene["sar"], files, pack=sar_pack, allow_resolution=True, device="cpu")
    with rasterio.open(tmp_path / "m.tif") as result, rasterio.open(scene["sar"]) as sar:
        assert result.shape == sar.shape
        assert corner_distance(grid_of(sar), grid_of(result)) < 1e-6
    assert len(geopandas.read_file(tmp_path / "m.gpkg")) == report.polygons[0] > 0
    assert not any("alone" in notice for notice in report.notices)  # it is what the pack is for
    arrays = gopt_geo.predict(None, scene["sar"], pack=sar_pack, allow_resolution=True, device="cpu")
    np.testing.assert_array_equal(arrays.landcover.values, pixels(tmp_path / "m.tif"))


def test_what_does_not_go_with_it(scene: dict[str, Path], sar_pack: Path, run: Run, tmp_path: Path) -> None:
    target = tmp_path / "m.tif"
    for optical, sar in ((scene["scene"], scene["sar"]), (scene["sar"], None)):
        with pytest.raises(PackError, match=r"it knows sar, not optical; name SAR alone, gopt-geo predict --sar FILE"):
            predict(optical, sar, target, pack=sar_pack, device="cpu")
    for said in ({"optical_bands": "1"}, {"cloud_mask": scene["clouds"]}, {"sensor": "rgb"}):
        option = f"--{next(iter(said)).replace('_', '-')}"
        with pytest.raises(GoptGeoError, match=rf"^{option}: there is no optical raster; name one, or leave it out"):
            predict(None, scene["sar"], target, pack=sar_pack, **said)
    with pytest.raises(GoptGeoError, match=r"^--sar-units: there is no SAR raster"):
        run("m.tif", sar=None, sar_units="db")
    with pytest.raises(ShiftError, match="--coregister: it needs an optical and a SAR raster"):
        predict(None, scene["sar"], target, pack=sar_pack, coregister=True)
    with pytest.raises(GoptGeoError, match=r"^sources: there is neither an optical nor a SAR raster"):
        predict(None, None, target, pack=sar_pack)
    assert not target.exists()
