"""Sensor profiles: their data, what they decide about files, and what contradicts them."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from gopt_geo import sensortable
from gopt_geo.errors import BandError, GoptGeoError, RadiometryError, SourceError
from gopt_geo.grid import Window
from gopt_geo.scene import RasterSource, SourceSpec, open_scene
from gopt_geo.scene.identity import identify
from gopt_geo.scene.sensors import Sensor, find_sensor, sensor, sensor_names, sensors
from realdata import DATA, needs
from safefolder import write_safe

RGB = ("red", "green", "blue")
LANDSAT = "LC08_L2SP_196023_20200613_20200824_02_T1_SR_B4.TIF"
OPERA = "OPERA_L2_RTC-S1_T063-133417-IW3_20240701T001410Z_20240701T044329Z_S1A_30_v1.0_VV.tif"


def read(path: Path, modality: str = "optical", count: int = 1, **said: object):
    """Open one source; its values and validity, and the notices."""
    target = said.pop("target_units", "reflectance" if modality == "optical" else "db")
    spec = SourceSpec(path, said.pop("bands", None), said.pop("units", None), target, count, **said)  # type: ignore[arg-type]
    optical, others = (spec, {}) if modality == "optical" else (None, {modality: spec})
    with open_scene(optical, others) as scene:
        block = scene.read(Window(0, 0, *scene.shape))
    return block.values[modality], block.valid[modality], scene.notices


def refused(kind: type[GoptGeoError], path: Path, *args: object, **said: object) -> str:
    with pytest.raises(kind) as caught:
        read(path, *args, **said)  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.brief
def test_there_are_profiles() -> None:
    assert set(sensor_names("optical")) == {
        "gf-1",
        "landsat-8-9-l1",
        "landsat-8-9-l2",
        "rgb",
        "sentinel-2-l1c",
        "sentinel-2-l2a",
    }
    assert set(sensor_names("sar")) == {"gf-3", "sar", "sentinel-1-grd", "sentinel-1-rtc"}
    assert [profile.name for profile in sensors()] == sorted(sensor_names())


@pytest.mark.brief
@pytest.mark.parametrize("table", ["sensors", "bands", "normalisation"])
def test_the_documentation_shows_the_data(table: str) -> None:
    page = (Path(__file__).parents[2] / "docs/sensors.md").read_text()
    found = re.search(rf"<!-- table: {table} -->\n(.*?)\n<!-- end -->", page, re.DOTALL)
    assert found is not None
    assert found[1] == getattr(sensortable, {"sensors": "sensor", "bands": "band"}.get(table, table) + "_table")()


def test_numbers_of_normalisation_are_attributed() -> None:
    for profile in sensors():
        if profile.normalisation is not None:
            assert profile.normalisation.origin
    assert sensor("sar").statistics(["SAR"]) is None
    assert sensor("sentinel-1-rtc").statistics(["VH", "vv"]) == ((-20.26, -12.59), (5.91, 5.26))
    assert sensor("sentinel-2-l2a").statistics(["red", "B8A"]) == ((0.05902, 0.22665), (0.06759, 0.13561))
    assert sensor("landsat-8-9-l2").statistics(["nir", "SR_B4"]) == ((0, 0), (1, 1))
    assert sensor("sentinel-2-l2a").statistics(["red", "thermal"]) is None


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"bands": [{"name": "a"}, {"name": "b", "aliases": ["A"]}]}, "one name"),
        ({"valid_range": [1, 1]}, "empty"),
        ({"stored": [{"types": ["uint16"]}, {"types": ["uint16"]}]}, "twice"),
        ({"stored": [{"types": ["uint17"]}]}, "uint17"),
        ({"normalisation": {"unit": "db", "origin": "x", "mean": [1, 2, 3], "std": [1]}}, "of these bands"),
        ({"normalisation": {"unit": "db", "origin": "x", "mean": [1], "std": [0]}}, "isn't positive"),
        ({"colour": "blue"}, "colour"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_profile_that_cannot_be(change, said) -> None:
    document = {
        "name": "x",
        "title": "X",
        "modality": "sar",
        "products": [],
        "bands": [{"name": "a"}, {"name": "b"}],
        "valid_range": [0, 1],
        "stored": [],
        "origin": "a test",
    }
    Sensor(**document)
    with pytest.raises((ValidationError, TypeError), match=said):
        Sensor(**(document | change))


@pytest.mark.parametrize(
    ("name", "dtype", "stored", "expected"),
    [
        ("sentinel-2-l2a", "uint16", [0, 1, 1200, 65534, 65535], [None, 0.0001, 0.12, 6.5534, None]),
        ("sentinel-2-l1c", "float32", [-0.2, -0.05, 0.4, 9999, 0.5], [None, -0.05, 0.4, None, 0.5]),
        ("landsat-8-9-l2", "uint16", [0, 7272, 7273, 18639, 43637], [None, None, 7.5e-6, 0.3125725, None]),
        ("landsat-8-9-l1", "uint16", [0, 1, 10000, 65535, 5000], [None, -0.09998, 0.1, 1.2107, 0.0]),
        ("rgb", "uint8", [0, 51, 255], [0, 0.2, 1]),
        ("rgb", "float32", [0.5, 1.5, -9999], [0.5, None, None]),
        ("gf-1", "uint8", [51, 255, 0], [0.2, 1, 0]),
    ],
)
def test_optical_values(raster, name, dtype, stored, expected) -> None:
    path = raster("a.tif", np.array([[stored]], dtype))
    values, valid, _ = read(path, sensor=name)
    assert valid[0].tolist() == [value is not None for value in expected]
    np.testing.assert_allclose(values[0, 0], [value or 0 for value in expected], rtol=1e-5, atol=1e-8)


@pytest.mark.parametrize(
    ("name", "said", "stored", "expected"),
    [
        ("sentinel-1-rtc", {}, [0.1, 1, 0, -32768, 1e-9, 1e9], [-10, 0, None, None, None, None]),
        ("sentinel-1-rtc", {"units": "db"}, [-12, 3, -99, -32768, 70, -60], [-12, 3, None, None, None, -60]),
        ("sentinel-1-rtc", {"target_units": "power"}, [0.1, 1, 1e9], [0.1, 1, None]),
        ("sar", {"units": "amplitude"}, [1, 10, 1e-5, 1e5], [0, 20, None, None]),
        ("sar", {"units": "raw"}, [-9999, 1e5], [-9999, 1e5]),
        ("gf-3", {"target_units": "raw"}, [3, 250], [3, 250]),
    ],
)
def test_sar_values(raster, name, said, stored, expected) -> None:
    path = raster("a.tif", np.array([[stored]], "float32"))
    values, valid, _ = read(path, "sar", sensor=name, **said)
    assert valid[0].tolist() == [value is not None for value in expected]
    np.testing.assert_allclose(values[0, 0], [value or 0 for value in expected], rtol=1e-5, atol=1e-5)


@given(st.lists(st.integers(0, 65535), min_size=1, max_size=40))
def test_what_a_landsat_file_holds(numbers) -> None:
    """The plan of a profile: valid within USGS's range alone, and scaled as USGS says."""
    from types import SimpleNamespace

    from gopt_geo.scene import plan_radiometry
    from gopt_geo.scene.source import BandTags

    source = SimpleNamespace(name="x", dtype=np.dtype("uint16"), count=1, tags=(BandTags(1.0, 0.0, ""),))
    plan, _ = plan_radiometry(source, None, "reflectance", "--optical-units", sensor("landsat-8-9-l2"))  # type: ignore[arg-type]
    stored = np.array([[numbers]], np.float32)
    values, valid = plan.before_warp(stored.copy(), np.ones((1, len(numbers)), bool))
    assert valid[0].tolist() == [7273 <= n <= 43636 for n in numbers]
    np.testing.assert_allclose(values[0, valid], stored[0, valid] * 2.75e-5 - 0.2, rtol=1e-6, atol=1e-8)


def test_what_user_and_tags_say_goes_first(raster) -> None:
    numbers = np.array([[[1000, 2000]]], "uint16")
    plain = raster("plain.tif", numbers)
    values, _, notices = read(plain, sensor="sentinel-2-l2a")
    np.testing.assert_allclose(values[0, 0], [0.1, 0.2], rtol=1e-6)
    assert "offset of processing baselines" in notices[0]
    tagged = raster("tagged.tif", numbers, scales=(1e-4,), offsets=(-0.1,))
    values, _, notices = read(tagged, sensor="sentinel-2-l2a")
    np.testing.assert_allclose(values[0, 0], [0, 0.1], atol=1e-7)
    assert notices == []
    strange = raster("strange.tif", numbers, scales=(2e-4,))
    values, _, notices = read(strange, sensor="sentinel-2-l2a")
    np.testing.assert_allclose(values[0, 0], [0.2, 0.4], rtol=1e-6)
    assert "its scale 0.0002 and offset 0 are used" in notices[0]
    with pytest.raises(RadiometryError, match="scale twice"):
        read(tagged, sensor="sentinel-2-l2a", units="dn10000")


def test_a_unit_tag_goes_before_the_profile(raster) -> None:
    path = raster("db.tif", np.array([[[-12.0, 3.0]]], "float32"), units=("dB",))
    values, _, notices = read(path, "sar", sensor="sentinel-1-rtc")
    assert values[0, 0].tolist() == [-12, 3]
    assert notices == [f"{path}: its unit tag dB is used; the sensor's values are power"]
    values, _, notices = read(path, "sar", units="db", sensor="sentinel-1-rtc")
    assert (values[0, 0].tolist(), notices) == ([-12, 3], [])


def test_a_profile_without_unit_leaves_the_question(raster) -> None:
    path = raster("a.tif", np.array([[[3, 4]]], "uint8"))
    for name in ("sar", "gf-3"):
        assert "uint8 values without a stated unit" in refused(RadiometryError, path, "sar", sensor=name)
    wide = raster("b.tif", np.array([[[3, 4]]], "uint16"))
    for name in ("rgb", "gf-1"):
        assert "uint16 values without a stated unit" in refused(RadiometryError, wide, sensor=name)


@pytest.mark.brief
def test_uncalibrated_sentinel_1_is_refused(raster, tmp_path) -> None:
    stored = np.array([[[120, 300]]], "uint16")
    path = raster("grd.tif", stored)
    for said in ({}, {"units": "amplitude"}, {"units": "db"}):
        text = refused(RadiometryError, path, "sar", sensor="sentinel-1-grd", **said)
        assert all(
            word in text for word in ("aren't calibrated", "gamma0", "sigma0", "SNAP", "pyroSAR", "sentinel-1-rtc")
        )
    values, _, notices = read(path, "sar", sensor="sentinel-1-grd", units="raw")
    assert values[0, 0].tolist() == [120, 300]
    assert "taken as they are" in notices[0]
    assert read(path, "sar", sensor="sentinel-1-grd", target_units="raw")[0][0, 0, 0] == 120
    calibrated = raster("sigma0.tif", np.array([[[0.1]]], "float32"), units=("power",))
    assert read(calibrated, "sar", sensor="sentinel-1-grd")[0][0, 0, 0] == pytest.approx(-10)
    folder = tmp_path / "S1A_IW_GRDH_1SDV_20240601T054321_20240601T054346_054120_0694C0_1A2B.SAFE"
    (folder / "measurement").mkdir(parents=True)
    assert "aren't calibrated" in refused(RadiometryError, folder, "sar")


def test_a_raster_says_that_it_is_uncalibrated(tmp_path, raster) -> None:
    import rasterio

    path = raster("s1.tif", np.array([[[120, 300]]], "uint16"))
    with rasterio.open(path, "r+") as file:
        file.update_tags(TIFFTAG_IMAGEDESCRIPTION="Sentinel-1A IW GRD HR L1")
    assert "aren't calibrated" in refused(RadiometryError, path, "sar", units="amplitude")
    assert "it is sentinel-1-grd by its tag" in refused(RadiometryError, path, "sar", sensor="sentinel-1-rtc")
    named = raster("s1a-iw-grd-vv-20240601t054321-20240601t054346-054120-0694c0-001.tiff", np.array([[[1]]], "uint16"))
    assert "aren't calibrated" in refused(RadiometryError, named, "sar", units="power")


@pytest.mark.parametrize(
    ("name", "dtype", "modality", "profile"),
    [
        (LANDSAT, "uint16", "optical", "landsat-8-9-l2"),
        ("LC09_L1TP_196023_20230613_20230613_02_T1_B4.TIF", "uint16", "optical", "landsat-8-9-l1"),
        (OPERA, "float32", "sar", "sentinel-1-rtc"),
        ("S1A_IW_20181102T155531_DVP_RTC30_G_gpuned_5685_VV.tif", "float32", "sar", "sentinel-1-rtc"),
    ],
)
def test_a_producers_name_tells_the_sensor(raster, name, dtype, modality, profile) -> None:
    path = raster(name, np.array([[[12000, 13000]]], dtype) if dtype == "uint16" else np.array([[[0.1]]], dtype))
    values, valid, notices = read(path, modality)
    assert valid.all()
    assert any(f"taken as {profile} by its name" in notice for notice in notices)
    assert values[0, 0, 0] == pytest.approx(
        {"landsat-8-9-l2": 0.13, "landsat-8-9-l1": 0.14}.get(profile, -10), rel=1e-5
    )


def test_level_1_is_corrected_for_the_sun(raster, tmp_path) -> None:
    scene = "LC09_L1TP_196023_20230613_20230613_02_T1"
    path = raster(f"{scene}_B4.TIF", np.array([[[10000, 65535]]], "uint16"))
    values, _, notices = read(path)
    assert any(notice.startswith(f"warning: {path}: top-of-atmosphere reflectance isn't") for notice in notices)
    assert values[0, 0, 0] == pytest.approx(0.1)
    metadata = tmp_path / f"{scene}_MTL.txt"
    metadata.write_text(
        "GROUP = IMAGE_ATTRIBUTES\n    SUN_AZIMUTH = 150.2\n    SUN_ELEVATION = 30.00000000\nEND_GROUP\n"
    )
    values, valid, notices = read(path)
    np.testing.assert_allclose(values[0, 0], [0.2, 2.4214], rtol=1e-5)
    assert valid.all()
    assert not any("sun" in notice for notice in notices)
    for nothing in ("SUN_ELEVATION = -5.0", "SUN_ELEVATION = high", "SUN_ELEVATION = 1e", ""):
        metadata.write_text(nothing)
        assert any("isn't corrected for the sun's elevation" in notice for notice in read(path)[2])


def test_names_that_say_nothing() -> None:
    for name in ("LC08_SR_B4.tif", "S1A_IW_x_RTC30_G_gduned_5685_VV.tif", "sentinel-2.tif", "", LANDSAT + ".tif"):
        assert find_sensor({}, name) is None
    assert find_sensor({"PRODUCT_TYPE": "S2MSI2A"}) is not None
    assert find_sensor({"PRODUCT_TYPE": "S2MSI2Ap"}) is None


@given(st.text(max_size=60), st.text(max_size=60))
def test_any_text_is_looked_at_without_an_error(tag, name) -> None:
    found = find_sensor({"PRODUCT_TYPE": tag, "TIFFTAG_IMAGEDESCRIPTION": tag}, name, tag)
    assert found is None or found[0].name in sensor_names()


def test_bands_by_the_sensors_order(raster) -> None:
    stack = np.arange(1, 13, dtype="uint16").reshape(12, 1, 1) * 100 * np.ones((1, 2, 2), "uint16")
    path = raster("stack.tif", stack)
    values, _, _ = read(path, count=3, sensor="sentinel-2-l2a", band_names=RGB)
    np.testing.assert_allclose(values[:, 0, 0], [0.04, 0.03, 0.02], rtol=1e-6)
    values, _, _ = read(path, count=2, sensor="sentinel-2-l2a", bands=["B8A", "swir22"])
    np.testing.assert_allclose(values[:, 0, 0], [0.09, 0.12], rtol=1e-6)
    assert "it has 12 bands" in refused(BandError, path, count=3, units="dn10000", band_names=RGB)
    fewer = raster("ten.tif", stack[:10])  # which ten they are isn't told
    assert "it has 10 bands" in refused(BandError, fewer, count=3, sensor="sentinel-2-l2a", band_names=RGB)
    with pytest.raises(BandError, match="no band 'red'"):
        read(fewer, count=1, sensor="sentinel-2-l2a", bands=["red"])


def test_colours_find_the_bands_of_one_raster(raster) -> None:
    stack = np.array([2000, 3000, 4000, 8000], "uint16").reshape(4, 1, 1)
    sentinel = raster("s2.tif", stack, descriptions=("B02", "B03", "B04", "B08"))
    for said in ({"units": "dn10000"}, {"sensor": "sentinel-2-l2a"}):
        values, _, _ = read(sentinel, count=3, band_names=RGB, **said)
        np.testing.assert_allclose(values[:, 0, 0], [0.4, 0.3, 0.2], rtol=1e-6)
    landsat = raster("l8.tif", stack * 4, descriptions=("SR_B2", "SR_B3", "SR_B4", "SR_B5"))
    values, _, _ = read(landsat, count=2, bands=["nir", "red"], sensor="landsat-8-9-l2")
    np.testing.assert_allclose(values[:, 0, 0], [32000 * 2.75e-5 - 0.2, 16000 * 2.75e-5 - 0.2], rtol=1e-5)


def test_a_product_states_its_level(tmp_path) -> None:
    safe = write_safe(tmp_path)
    bands = {"bands": ["B04"]}
    plain, _, notices = read(safe, **bands)
    assert notices == []
    asked, _, _ = read(safe, **bands, sensor="sentinel-2-l2a")
    np.testing.assert_array_equal(asked, plain)
    read(safe, **bands, sensor="rgb")
    text = refused(RadiometryError, safe, **bands, sensor="sentinel-2-l1c")
    assert "it is sentinel-2-l2a by its metadata, --sensor says sentinel-2-l1c; leave --sensor out" in text


def test_a_stac_item_states_its_collection(raster, tmp_path) -> None:
    path = raster("red.tif", np.array([[[1000]]], "uint16"))
    item = {
        "type": "Feature", "stac_version": "1.0.0", "id": "i", "links": [], "assets": {}, "geometry": None,
        "collection": "sentinel-2-l2a", "properties": {"datetime": "2024-06-03T10:20:30Z"},
    }  # fmt: skip
    document = tmp_path / "item.json"
    with RasterSource(path) as source:
        for collection, name in (
            ("sentinel-2-l2a", "sentinel-2-l2a"),
            ("landsat-c2-l2", "landsat-8-9-l2"),
            ("x", None),
        ):
            document.write_text(json.dumps(item | {"collection": collection}))
            known = identify("optical", document, None, [source], [str(path)])
            assert (known.profile and known.profile.name) == name
            assert str(known.acquired) == "2024-06-03 (its metadata)"
            assert known.notices == []
        document.write_text(json.dumps(item))
        with pytest.raises(
            RadiometryError, match="it is sentinel-2-l2a by its collection sentinel-2-l2a, --sensor says"
        ):
            identify("optical", document, sensor("landsat-8-9-l2"), [source], [str(path)])


def test_profiles_that_are_not_there(raster) -> None:
    path = raster("a.tif", np.ones((1, 2, 2), "float32"))
    text = refused(RadiometryError, path, sensor="spot-9")
    assert text.startswith("--sensor spot-9: there is no such sensor profile; choose from gf-1, landsat-8-9-l1,")
    text = refused(RadiometryError, path, "sar", sensor="rgb")
    assert text == "--sar-sensor rgb: it is the profile of an optical sensor; choose from " + ", ".join(
        sensor_names("sar")
    )
    assert "of a SAR sensor" in refused(RadiometryError, path, sensor="sentinel-1-rtc")


def test_only_values_beyond_the_range(raster) -> None:
    path = raster("a.tif", np.full((1, 2, 2), -9999.0, "float32"))
    assert "outside of the sensor's range" in refused(SourceError, path, sensor="rgb")


@pytest.mark.parametrize(("share", "warned"), [(0.4, False), (0.6, True)])
def test_a_wrong_unit_leaves_a_trace(raster, share, warned) -> None:
    decibels = np.full((10, 10), 3.0, "float32")
    decibels.flat[: int(share * 100)] = -12
    decibels = np.pad(np.pad(decibels, 2, constant_values=np.nan), 9, constant_values=0)  # neither says anything
    path = raster("a.tif", decibels)
    _, valid, notices = read(path, "sar", sensor="sentinel-1-rtc")
    assert valid.sum() == 100 - share * 100
    lines = [notice for notice in notices if notice.startswith("warning")]
    assert len(lines) == warned
    if warned:
        assert "of the pixels looked at, 60.0 % can't be of the unit or the sensor" in lines[0]
        assert lines[0].endswith("check --sar-units and --sar-sensor")


class TestRealRasters:
    pytestmark = needs(DATA)

    def test_worldcereal(self) -> None:
        stack = DATA / "worldcereal/S2_2021-06-01.tif"
        asked, valid, _ = read(stack, count=3, bands=[3, 2, 1], sensor="sentinel-2-l2a")
        stated, same, _ = read(stack, count=3, bands=[3, 2, 1], units="dn10000")
        np.testing.assert_array_equal(asked, stated)
        np.testing.assert_array_equal(valid, same)
        assert valid.any()

    def test_bigearthnet(self) -> None:
        folder = DATA / "bigearthnet/33UUP_87_48"
        optical = str(folder / "S2A*_B??.tif")
        values, valid, notices = read(optical, count=3, sensor="sentinel-2-l2a", band_names=RGB)  # type: ignore[arg-type]
        assert valid.mean() > 0.99
        assert 0 < values[:, valid].mean() < 0.3
        assert sum("processing baselines" in notice for notice in notices) == 1

    def test_a_tag_tells_that_it_is_terrain_corrected(self) -> None:
        values, valid, notices = read(DATA / "robustness/cog_nodata_nan.tif", "sar")
        assert -40 < np.median(values[0, valid]) < 0
        assert notices == []

    def test_a_real_product_without_calibration(self) -> None:
        assert "aren't calibrated" in refused(RadiometryError, DATA / "robustness/cog_gcps.tif", "sar", units="power")
