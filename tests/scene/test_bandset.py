"""Sources in several files: which bands they are, on which grid, and that each is warped once."""

from __future__ import annotations

import os
import pickle
from pathlib import Path

import numpy as np
import pytest
from affine import Affine
from hypothesis import given
from hypothesis import strategies as st

from gopt_geo.errors import BandError, GoptGeoError, GridError, SourceError
from gopt_geo.grid import Window
from gopt_geo.scene import AlignedSource, RasterSource, Scene, SourceSpec, open_scene
from gopt_geo.scene.bandfile import BandFile
from gopt_geo.scene.bandfiles import band_files, input_files, input_name
from gopt_geo.scene.bandnames import band_in_file_name, find_band
from gopt_geo.scene.bandset import open_groups
from realdata import DATA, needs
from scene.conftest import write_raster

WHOLE = Window(0, 0, 60, 60)


def spec(path: object, bands: list[int | str] | None, count: int, **changes: object) -> SourceSpec:
    given_ = {"units": "raw", "target_units": "reflectance", **changes}
    return SourceSpec(path, bands, count=count, **given_)  # type: ignore[arg-type]


def values_of(band: str, size: int) -> np.ndarray:
    edge = 600 // size
    return np.random.default_rng(sum(band.encode())).uniform(1, 2, (edge, edge)).astype(np.float32)


@pytest.fixture
def folder(raster, tmp_path) -> Path:
    """B02, B03, B04 at 10 m, B8A at 20 m, B01 at 60 m, and files that aren't bands."""
    for band, size in (("B02", 10), ("B03", 10), ("B04", 10), ("B8A", 20), ("B01", 60)):
        raster(f"S2A_20240601_{band}.tif", values_of(band, size), "EPSG:32631", Affine(size, 0, 5e5, 0, -size, 46e5))
    raster("S2A_20240601_SCL.tif", np.ones((30, 30), np.uint8), "EPSG:32631", Affine(20, 0, 5e5, 0, -20, 46e5))
    raster("quicklook.tif", np.ones((30, 30), np.uint8))
    (tmp_path / "notes_B05.txt").write_text("not a raster")
    return tmp_path


def message(call, kind: type[GoptGeoError]) -> str:
    with pytest.raises(kind) as caught:
        call()
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("name", "band"),
    [
        ("S2A_MSIL2A_20170617T113321_36_85_B8A.tif", "B8A"),
        ("T31TCJ_20240601T105621_B02_10m.jp2", "B02"),
        ("LC08_L2SP_197030_20230712_02_T1_SR_B4.TIF", "B4"),
        ("S1A_IW_GRDH_1SDV_20170617T064724_29UPU_36_85_VV.tif", "VV"),
        ("sar_hh.tif", "HH"),
        ("https://host/a/B04.tif?token=B05.tif", "B04"),
        ("red.tif", "RED"),
        ("scene_nir08.tif", "NIR08"),
        ("rededge1.tif", "REDEDGE1"),
        ("B040.tif", None),
        ("scene.tif", None),
        ("", None),
    ],
)
def test_a_file_name_states_a_band(name, band) -> None:
    assert band_in_file_name(name) == band


@pytest.mark.parametrize(
    ("wanted", "bands", "found"),
    [
        ("red", ["B02", "B03", "B04"], [2]),
        ("red", ["B2", "B3", "B4"], [2]),
        ("nir", ["B5", "B4"], [0]),  # Landsat
        ("nir", ["B05", "B08"], [1]),  # Sentinel-2
        ("B5", ["B05", "B08"], [0]),
        ("b04", ["B4"], []),  # Landsat's B4 isn't called B04
        ("vv", ["VH", "VV"], [1]),
        ("VV", ["VV", "vv"], [0, 1]),
        ("swir16", ["B11", "B12"], [0]),
        ("", ["", "B02"], []),
    ],
)
def test_names_of_one_band(wanted, bands, found) -> None:
    assert find_band(wanted, bands) == found


@given(st.lists(st.text(max_size=8), max_size=6), st.text(max_size=8))
def test_any_names_are_compared(bands, wanted) -> None:
    assert all(0 <= i < len(bands) for i in find_band(wanted, bands))


def test_a_folder_holds_its_bands(folder) -> None:
    files = band_files(folder)
    assert files is not None
    assert sorted(file.name for file in files) == ["B01", "B02", "B03", "B04", "B8A"]


def test_bands_of_mixed_resolution_in_the_asked_order(folder) -> None:
    with open_scene(spec(folder, ["B8A", "B04", "B01", "B02"], 4), {}) as scene:
        assert scene.shape == (60, 60)
        block = scene.read(WHOLE)
        assert scene.cache_bytes > 0
        assert scene.block_memory > 0
    valid = block.valid["optical"]
    assert valid[3:-3].all()  # in the outmost corners less than half of the kernel lies on the 60 m band
    assert valid[:, 3:-3].all()
    np.testing.assert_array_equal(block.values["optical"][1][valid], values_of("B04", 10)[valid])
    np.testing.assert_array_equal(block.values["optical"][3][valid], values_of("B02", 10)[valid])
    for place, band in ((0, "B8A"), (2, "B01")):  # the same as that file's one warp alone
        source = RasterSource(folder / f"S2A_20240601_{band}.tif")
        with source:
            alone = AlignedSource(source, scene.grid).read(WHOLE)[0][0]
        np.testing.assert_array_equal(block.values["optical"][place][valid], alone[valid])


def test_bands_on_one_grid_are_one_source(folder) -> None:
    files = band_files(folder)
    assert files is not None
    groups, order = open_groups(files, "folder")
    try:
        assert [group.count for group in groups] == [3, 1, 1]
        assert [group.grid.resolution.x for group in groups] == [10, 20, 60]
        names = [name for group in groups for name in group.band_names]
        assert [names[i] for i in order] == [file.name for file in files]
    finally:
        for group in groups:
            group.close()


def test_a_window_is_a_part_of_the_whole(folder) -> None:
    with open_scene(spec(folder, ["B01", "B04"], 2), {}) as scene:
        whole = scene.read(WHOLE).values["optical"]
        np.testing.assert_array_equal(scene.read(Window(7, 11, 20, 30)).values["optical"], whole[:, 7:27, 11:41])
        assert not scene.read(Window(-5, -5, 5, 5)).valid["optical"].any()


def test_validity_is_joined(raster, tmp_path) -> None:
    fine, coarse = values_of("B04", 10), values_of("B8A", 20)
    fine[0, 0], coarse[10, 10] = np.nan, np.nan
    raster("B04.tif", fine, "EPSG:32631", Affine(10, 0, 5e5, 0, -10, 46e5))
    raster("B8A.tif", coarse, "EPSG:32631", Affine(20, 0, 5e5, 0, -20, 46e5))
    with open_scene(spec(tmp_path, ["B04", "B8A"], 2), {}) as scene:
        block = scene.read(WHOLE)
    valid = block.valid["optical"]
    assert not valid[0, 0]
    assert not valid[20:22, 20:22].any()
    assert valid.sum() == 60 * 60 - 5
    assert not block.values["optical"][:, ~valid].any()


def test_a_list_and_a_pattern(folder) -> None:
    listed = ",".join(str(folder / f"S2A_20240601_{band}.tif") for band in ("B04", "B03", "B02"))
    pattern = str(folder / "S2A_*_B0[234].tif")
    with (
        open_scene(spec(listed, None, 3), {}) as by_list,
        open_scene(spec(pattern, ["B04", "B03", "B02"], 3), {}) as by_pattern,
        open_scene(spec(folder, None, 3, band_names=("red", "green", "blue")), {}) as by_pack,
    ):
        expected = by_list.read(WHOLE).values["optical"]
        np.testing.assert_array_equal(expected[0], values_of("B04", 10))
        np.testing.assert_array_equal(by_pattern.read(WHOLE).values["optical"], expected)
        np.testing.assert_array_equal(by_pack.read(WHOLE).values["optical"], expected)
    assert len(input_files(listed)) == 4
    assert input_name(listed) == "S2A_20240601_B04.tif,S2A_20240601_B03.tif,S2A_20240601_B02.tif"


def test_a_band_twice_is_opened_once(folder) -> None:
    with open_scene(spec(folder, ["B04", "B04"], 2), {}) as scene:
        values = scene.read(WHOLE).values["optical"]
    np.testing.assert_array_equal(values[0], values[1])


def test_a_file_whose_name_has_a_comma_is_one_file(raster) -> None:
    assert band_files(raster("a,b.tif", np.ones((4, 5), np.float32))) is None


def test_stated_scale_offset_and_nodata(raster) -> None:
    path = raster("item.tif", np.array([[[0, 5], [2000, 3000]]], np.uint16))
    files = [BandFile("red", str(path), 1, 1e-4, -0.1, 0)]
    with open_scene(spec(files, ["red"], 1, units=None), {}) as scene:
        block = scene.read(Window(0, 0, 2, 2))
    np.testing.assert_array_equal(block.valid["optical"], [[False, True], [True, True]])
    np.testing.assert_allclose(block.values["optical"][0], [[0, -0.0995], [0.1, 0.2]], atol=1e-7)


def test_groups_can_be_pickled(folder) -> None:
    files = band_files(folder)
    assert files is not None
    groups, _ = open_groups(files[:3], "folder")
    copies = pickle.loads(pickle.dumps(groups))
    for group, copy in zip(groups, copies, strict=True):
        window = Window(0, 0, *group.grid.shape)
        np.testing.assert_array_equal(copy.read(window)[0], group.read(window)[0])
        copy.close()
        group.close()


def test_what_is_refused(folder, raster) -> None:
    text = message(lambda: open_scene(spec(folder, None, 3), {}), BandError)
    assert "5 bands, the pack expects 3" in text
    assert "choose with --optical-bands from" in text
    assert "no band 'B12'" in message(lambda: open_scene(spec(folder, ["B12"], 1), {}), BandError)
    assert "no band 9" in message(lambda: open_scene(spec(folder, [9], 1), {}), BandError)
    assert "no file fits" in message(lambda: band_files(folder / "*.jp2"), SourceError)
    assert "is missing in the list" in message(lambda: band_files(f"{folder}/a.tif,,b.tif"), SourceError)
    raster("S2B_B04.tif", np.ones((4, 5), np.float32))
    assert "several files are band 'B04'" in message(lambda: open_scene(spec(folder, ["B04"], 1), {}), BandError)


def test_a_folder_without_bands(tmp_path, raster) -> None:
    raster("scene.tif", np.ones((4, 5), np.float32))
    assert "none of the 1 rasters in this folder" in message(lambda: band_files(tmp_path), SourceError)


def test_a_file_of_several_bands_among_others(tmp_path, raster) -> None:
    raster("B04.tif", np.ones((2, 4, 5), np.float32))
    assert "it has 2 bands" in message(lambda: open_scene(spec(tmp_path, ["B04"], 1), {}), BandError)


def test_a_missing_file_in_a_list(folder) -> None:
    listed = f"{folder / 'S2A_20240601_B04.tif'},{folder / 'gone_B03.tif'}"
    assert "gone_B03.tif: there is no such file" in message(lambda: open_scene(spec(listed, None, 2), {}), SourceError)


def test_pixel_grid_needs_one_shape(folder) -> None:
    call = lambda: open_scene(spec(folder, ["B04", "B8A"], 2), {}, pixel_grid=True)  # noqa: E731
    assert "2 pixel sizes" in message(call, GridError)


class TestReal:
    pytestmark = needs(DATA)

    def test_bigearthnet(self) -> None:
        patch = DATA / "bigearthnet" / "33UUP_87_48"
        optical = spec(patch, ["B04", "B8A", "B01"], 3, units="dn10000")
        sar = SourceSpec(patch, ["VV", "VH"], "db", "db", 2)
        with open_scene(optical, {"sar": sar}) as scene:
            assert scene.shape == (120, 120)
            assert isinstance(scene, Scene)
            block = scene.read(Window(0, 0, 120, 120))
        with RasterSource(next(patch.glob("*_B04.tif"))) as red:
            stored = red.read(Window(0, 0, 120, 120))[0][0]
        valid = block.valid["optical"]
        assert valid.mean() > 0.9
        np.testing.assert_allclose(block.values["optical"][0][valid], stored[valid] * 1e-4, rtol=1e-6)
        with RasterSource(next(patch.glob("*_B01.tif"))) as coastal:
            coarse = coastal.read(Window(0, 0, 20, 20))[0][0] * 1e-4
        assert block.values["optical"][2].mean() == pytest.approx(coarse.mean(), rel=0.02)
        assert -25 < block.values["sar"][0][block.valid["sar"]].mean() < 0


@pytest.mark.brief
@pytest.mark.parametrize(
    ("names", "found"),
    [
        (("B02", "B03", "B08"), "there is no band red"),
        (("B04", "B04", "B02"), "there is no band green"),
        (("red", "green", "red"), "there is no band blue"),
        (("red", "red", "green", "blue"), "several bands are red"),
    ],
)
def test_bands_that_are_called_otherwise_are_never_taken_for_the_packs(
    tmp_path: Path, names: tuple[str, ...], found: str
) -> None:
    pixels = np.ones((len(names), 8, 8), np.float32)
    pack = ("red", "green", "blue")
    files = [write_raster(tmp_path / f"{i}_{name}.tif", pixels[:1]) for i, name in enumerate(names)]
    one = write_raster(tmp_path / "one.tif", pixels, descriptions=names)
    for path in (one, ",".join(map(str, files))):
        with pytest.raises(BandError, match=found):
            open_scene(spec(path, None, 3, band_names=pack, units="reflectance"), {})
    chosen = spec(one, [1, 2, 3], 3, band_names=pack, units="reflectance")
    with open_scene(chosen, {}) as scene:
        assert scene.counts["optical"] == 3
    mute = write_raster(tmp_path / "mute.tif", pixels[:3])
    with open_scene(spec(mute, None, 3, band_names=pack, units="reflectance"), {}) as scene:
        assert scene.counts["optical"] == 3


@pytest.mark.parametrize(
    ("given", "found"),
    [
        ("", "its path is empty"),
        (3, "it is no source"),
        (["a.tif"], "it is no source"),
        (np.ones(3), "it is no source"),
    ],
)
def test_what_is_no_source(given: object, found: str) -> None:
    with pytest.raises(SourceError, match=found):
        open_scene(spec(given, None, 1), {})


def test_a_pipe_and_a_name_without_end(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.tif")
    with pytest.raises(SourceError, match="it is a pipe or a device"):
        open_scene(spec(tmp_path / "pipe.tif", None, 1), {})
    with pytest.raises(SourceError, match="it can't be read"):
        open_scene(spec(tmp_path / ("n" * 300 + ".tif"), None, 1), {})


def test_a_pattern_in_a_folder_with_a_comma(tmp_path: Path) -> None:
    folder = tmp_path / "a, b"
    folder.mkdir()
    for band in ("B04", "B03"):
        write_raster(folder / f"x_{band}.tif", np.ones((1, 8, 8), np.float32))
    files = band_files(f"{folder}/*_B0[34].tif")
    assert files is not None
    assert [file.name for file in files] == ["B03", "B04"]
