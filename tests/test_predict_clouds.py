"""Maps under clouds: SAR alone decides there, and sensors and masks are named as users do."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from typer.testing import CliRunner

from gopt_geo.datasets.geo import OpticalDataset
from gopt_geo.errors import GoptGeoError
from gopt_geo.grid import Window
from gopt_geo.prediction import PredictReport
from gopt_geo.scene.clouds import CloudMask
from gopt_geo_cli.main import app
from realdata import DATA, needs
from safefolder import EDGE, ORIGIN, write_safe

Run = Callable[..., PredictReport]
Pixels = Callable[..., np.ndarray]
Files = dict[str, Path]


def copy(source: Path, target: Path, change: Callable[[np.ndarray], np.ndarray]) -> Path:
    """Copy a raster with what it says of its bands, its pixels changed."""
    with rasterio.open(source) as old, rasterio.open(target, "w", **old.profile) as new:
        new.write(change(old.read()))
        new.descriptions, new.scales, new.offsets, new.units = old.descriptions, old.scales, old.offsets, old.units
    return target


def scrambled(hidden: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    def change(pixels: np.ndarray) -> np.ndarray:
        noise = np.random.default_rng(8).integers(1, 9000, pixels.shape).astype(pixels.dtype)
        return np.where(hidden, noise, pixels)

    return change


@pytest.fixture
def scl(scene: Files, tmp_path: Path) -> tuple[Path, np.ndarray]:
    """The scene's clouds and shadows as classes of the scene classification, and where they hide."""
    with rasterio.open(scene["clouds"]) as file:
        clouds, profile = file.read(1), file.profile
    path = tmp_path / "T32TLR_SCL_20m.tif"
    with rasterio.open(path, "w", **profile) as file:
        file.write(np.array([4, 9, 3], "uint8")[clouds], 1)
    return path, clouds != 0


@pytest.mark.brief
@pytest.mark.parametrize("options", [{}, {"grid": "sar"}, {"resolution": 14.0}], ids=["optical", "sar", "coarser"])
def test_what_lies_under_clouds_has_no_influence(
    run: Run, scene: Files, scl: tuple[Path, np.ndarray], pixels: Pixels, tmp_path: Path, options: dict[str, Any]
) -> None:
    mask, hidden = scl
    if options.get("grid") == "sar":
        options = {"grid": scene["sar"], "allow_resolution": True}
    other = copy(scene["scene"], tmp_path / "other.tif", scrambled(hidden))
    assert 0.1 < hidden.mean() < 0.9
    for name, optical, cloud_mask in (("a", scene["scene"], mask), ("b", other, mask), ("c", other, None)):
        run(f"{name}.tif", optical=optical, cloud_mask=cloud_mask, confidence=f"{name}_percent.tif", **options)
    for kind in ("", "_percent"):
        first, second, unmasked = (pixels(tmp_path / f"{name}{kind}.tif") for name in "abc")
        np.testing.assert_array_equal(first, second)
        assert (first != unmasked).any(), "without the mask what lies under clouds would show"


def test_under_clouds_sar_decides(run: Run, scene: Files, pixels: Pixels, tmp_path: Path) -> None:
    overcast = copy(scene["clouds"], tmp_path / "overcast.tif", np.ones_like)
    brighter = copy(scene["sar"], tmp_path / "brighter.tif", lambda values: values + 6)
    dark = copy(scene["scene"], tmp_path / "dark.tif", lambda values: values // 3 + 1)
    maps = []
    for optical, sar in ((scene["scene"], scene["sar"]), (dark, scene["sar"]), (dark, brighter)):
        run("map.tif", optical=optical, sar=sar, cloud_mask=overcast, overwrite=True)
        maps.append(pixels(tmp_path / "map.tif"))
    np.testing.assert_array_equal(maps[0], maps[1])
    assert (maps[0] != 255).any()
    assert (maps[1] != maps[2]).mean() > 0.05


def test_the_kind_of_a_mask(
    run: Run, scl: tuple[Path, np.ndarray], scene: Files, pixels: Pixels, tmp_path: Path
) -> None:
    mask, _ = scl
    report = run("named.tif", cloud_mask=mask)
    assert any("taken as a scene classification by its name" in notice for notice in report.notices)
    plain = tmp_path / "plain.tif"
    mask.rename(plain)
    report = run("said.tif", cloud_mask=plain, cloud_mask_kind="scl")
    assert not any("taken as" in notice and "classification" in notice for notice in report.notices)
    run("mask.tif", cloud_mask=scene["clouds"])
    named, said, simple = (pixels(tmp_path / f"{name}.tif") for name in ("named", "said", "mask"))
    np.testing.assert_array_equal(named, said)
    np.testing.assert_array_equal(named, simple)
    with pytest.raises(GoptGeoError, match="--cloud-mask-kind: it needs --cloud-mask"):
        run("none.tif", cloud_mask_kind="scl")
    with pytest.raises(GoptGeoError, match="--cloud-mask-kind cloudy: there is no such kind of cloud mask"):
        run("none.tif", cloud_mask=plain, cloud_mask_kind="cloudy")
    with pytest.raises(GoptGeoError, match="is no class of the scene classification"):
        run("none.tif", cloud_mask=_strange(tmp_path, scene))
    assert not (tmp_path / "none.tif").exists()


def _strange(folder: Path, scene: Files) -> Path:
    return copy(scene["clouds"], folder / "strange_SCL.tif", lambda values: values + 40)


@pytest.fixture
def product(tmp_path: Path) -> Files:
    """A Sentinel-2 product whose middle is cloudy, and SAR of the same ground."""
    classes = np.full((36, 36), 4)
    classes[8:24, 8:24] = 8
    safe = write_safe(tmp_path, classes=classes)
    sar = tmp_path / "S1A_IW_20240801T155531_DVP_RTC30_G_gpuned_5685_VV.tif"
    size = EDGE // 10
    values = np.random.default_rng(4).gamma(4, 0.02, (size, size)).astype("float32")
    transform = rasterio.Affine(10, 0, ORIGIN[0], 0, -10, ORIGIN[1])
    options = {"crs": "EPSG:32631", "transform": transform, "dtype": "float32", "count": 1, "driver": "GTiff"}
    with rasterio.open(sar, "w", height=size, width=size, **options) as file:
        file.write(values, 1)
    return {"safe": safe, "sar": sar}


@pytest.mark.brief
def test_a_product_with_its_own_classification(product: Files, tiny_pack: Path, tmp_path: Path, pixels: Pixels) -> None:
    """By name of pattern, tag and keyword: no option says a unit or a band."""
    result = tmp_path / "map.tif"
    common = ["predict", str(product["safe"]), str(product["sar"]), "--pack", str(tiny_pack), "-o", str(result)]
    run = CliRunner().invoke(app, [*common, "--cloud-mask", "SCL"])
    assert run.exit_code == 0, run.output
    assert "taken as sentinel-1-rtc by its name" in run.stderr
    assert "optical was acquired 2024-06-01 (its metadata), sar 2024-08-01 (by name): 61 days apart" in run.stderr
    assert "both rasters have data on 80.2 % of the map" in run.stderr  # 1 - (32 * 32 + 1) / 72 ** 2
    assert pixels(result).shape == (72, 72)
    wrong = CliRunner().invoke(app, [*common, "--overwrite", "--cloud-mask", "QA_PIXEL"])
    assert wrong.exit_code == 2
    assert wrong.stderr.splitlines()[-1].startswith(f"error: {product['safe']}: it has no QA_PIXEL")
    wrong = CliRunner().invoke(app, [*common, "--overwrite", "--sensor", "sentinel-2"])
    assert wrong.stderr.splitlines()[-1].startswith("error: --sensor sentinel-2: there is no such sensor profile")
    assert run.stdout == f"{result}\n"


def test_a_sensor_tells_the_units(run: Run, aligned_scene: Files, tmp_path: Path, pixels: Pixels) -> None:
    with rasterio.open(aligned_scene["scene"]) as file:
        numbers, profile = (file.read() * file.scales[0] * 1e4).round().astype("uint16"), file.profile
    bare = tmp_path / "bare.tif"
    with rasterio.open(bare, "w", **(profile | {"dtype": "uint16", "nodata": None})) as file:
        file.write(numbers)
        file.descriptions = ("B04", "B03", "B02", "B08")
    given = {"sar": aligned_scene["sar"], "optical": bare, "optical_bands": None}
    with pytest.raises(GoptGeoError, match="uint16 values without a stated unit"):
        run("map.tif", **given)
    report = run("map.tif", **given, sensor="sentinel-2-l2a")
    assert any("digital numbers are divided by 10000" in notice for notice in report.notices)
    run("same.tif", **given, optical_units="dn10000")
    np.testing.assert_array_equal(pixels(tmp_path / "map.tif"), pixels(tmp_path / "same.tif"))


def test_clouds_in_training(product: Files) -> None:
    clear = OpticalDataset(product["safe"], bands=["B04", "B03", "B02"])
    for mask in ("SCL", CloudMask("SCL")):
        masked = OpticalDataset(product["safe"], bands=["B04", "B03", "B02"], mask=mask)
        sample, whole = masked.read(Window(0, 0, 72, 72)), clear.read(Window(0, 0, 72, 72))
        assert not sample["validity_optical"][16:48, 16:48].any()
        assert (sample["optical"][:, 16:48, 16:48] == 0).all()
        assert int(sample["validity_optical"].sum()) == 72 * 72 - 32 * 32 - 1
        assert (sample["optical"][:, :16] == whole["optical"][:, :16]).all()


@pytest.mark.parametrize("place", ["33UUP_87_48", "35VPK_69_24"])
@pytest.mark.realdata
def test_real_pairs_by_their_sensors(run: Run, place: str, tmp_path: Path) -> None:
    folder = DATA / "bigearthnet" / place
    if not folder.is_dir():
        pytest.skip(needs(DATA)[1].kwargs["reason"])
    optical, sar = str(folder / "S2*_B0[234].tif"), str(folder / "S1*_VV.tif")
    report = run(optical=optical, sar=sar, optical_bands=None, sensor="sentinel-2-l2a", sar_units="db", tile_size=64)
    assert report.shape == (120, 120)
    assert not any("apart" in notice for notice in report.notices)
    assert report.shared > 0.95
