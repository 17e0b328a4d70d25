from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from affine import Affine

from gopt_geo.errors import BandError, GoptGeoError, GridError, RadiometryError, SourceError
from gopt_geo.grid import GeoBox, Window, corner_distance
from gopt_geo.scene import Scene, SourceSpec, open_scene

UTM = "EPSG:32631"


def at(x: float, y: float, size: float = 10.0) -> Affine:
    """Return a north-up transform whose corner lies x metres east and y metres south of a fixed point."""
    return Affine(size, 0, 500000 + x, 0, -size, 4600000 - y)


def optical(path: Path, **changes: object) -> SourceSpec:
    settings = {"bands": None, "units": "raw", "target_units": "reflectance", "count": 3, **changes}
    return SourceSpec(path, **settings)  # type: ignore[arg-type]


def sar(path: Path, **changes: object) -> SourceSpec:
    settings = {"bands": None, "units": "db", "target_units": "db", "count": 1, **changes}
    return SourceSpec(path, **settings)  # type: ignore[arg-type]


def noise(count: int, height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).uniform(1, 2, (count, height, width)).astype(np.float32)


def message(call, kind: type[GoptGeoError], *words: str) -> str:
    with pytest.raises(kind) as caught:
        call()
    text = str(caught.value)
    assert "\n" not in text
    for word in words:
        assert word in text, text
    return text


@pytest.fixture
def pair(raster):
    """Optical 60 x 80 at 10 m; SAR 40 x 40 at 12 m, off the corner and reaching beyond the bottom."""
    a = raster("optical.tif", noise(3, 60, 80), UTM, at(0, 0))
    b = raster("sar.tif", noise(1, 40, 40, 1), UTM, at(203, 251, 12))
    return a, b


@pytest.mark.brief
def test_the_optical_grid_is_the_scene_grid(pair) -> None:
    a, b = pair
    with open_scene(optical(a), {"sar": sar(b)}) as scene:
        assert scene.modalities == ("optical", "sar")
        assert scene.shape == (60, 80)
        assert corner_distance(scene.grid, GeoBox((60, 80), at(0, 0), UTM)) < 1e-9
        assert scene.shared == pytest.approx(48 * (60 - 25.1) / (60 * 80), abs=1e-6)
        block = scene.read(Window(-1, -2, 62, 90))
    assert list(block.values) == list(block.valid) == ["optical", "sar"]
    assert block.values["optical"].shape == (3, 62, 90)
    assert block.values["sar"].shape == (1, 62, 90)
    np.testing.assert_array_equal(block.values["optical"][:, 1:61, 2:82], noise(3, 60, 80))
    assert block.valid["optical"].sum() == 60 * 80
    # a pixel is valid where its centre lies in the footprint
    assert block.valid["sar"].sum() == 48 * 35
    assert ((block.values["sar"][0] >= 1) == block.valid["sar"]).all()


@pytest.mark.parametrize(
    ("extent", "row", "col", "height", "width"),
    [("optical", 0, 0, 60, 80), ("intersection", 25, 20, 35, 49), ("union", 0, 0, 74, 80)],
)
def test_extents_on_the_optical_lattice(pair, extent, row, col, height, width) -> None:
    a, b = pair
    with open_scene(optical(a), {"sar": sar(b)}, extent=extent) as scene:
        assert scene.shape == (height, width)
        assert corner_distance(scene.grid, GeoBox((height, width), at(10 * col, 10 * row), UTM)) < 1e-6
        whole = scene.read(Window(0, 0, height, width))
        assert whole.valid["optical"].sum() == (60 - row) * (80 - col if extent != "intersection" else 49)
        shared = 48 * (60 - 25.1) / (height * width)
        assert scene.shared == pytest.approx(shared, abs=1e-6)


@pytest.mark.parametrize(
    ("extent", "shape", "corner"),
    [("optical", (51, 67), (-1, -1)), ("intersection", (30, 40), (203, 251)), ("union", (61, 67), (-1, -1))],
)
def test_extents_on_the_sar_lattice(pair, extent, shape, corner) -> None:
    a, b = pair
    with open_scene(optical(a), {"sar": sar(b)}, grid="sar", extent=extent) as scene:
        assert scene.shape == shape
        assert scene.grid.resolution.x == 12
        # whole SAR pixels before the optical corner: 203 = 16 * 12 + 11, 251 = 20 * 12 + 11
        assert (scene.grid.affine.c - 500000, 4600000 - scene.grid.affine.f) == pytest.approx(corner)
        np.testing.assert_allclose(((scene.grid.affine.c - 500203) / 12) % 1, 0, atol=1e-9)
        block = scene.read(Window(0, 0, *shape))
        assert block.valid["sar"].sum() == (1600 if extent == "union" else 30 * 40)


def test_a_file_gives_the_lattice(pair, raster) -> None:
    a, b = pair
    lattice = raster("lattice.tif", np.zeros((1, 5, 5), np.uint8), UTM, at(-1003, -1003, 7))
    with open_scene(optical(a), {"sar": sar(b)}, grid=lattice) as scene:
        assert scene.grid.resolution.x == 7
        np.testing.assert_allclose(((scene.grid.affine.c - 500000 + 1003) / 7) % 1, 0, atol=1e-9)
        left, top = scene.grid.affine.c - 500000, 4600000 - scene.grid.affine.f
        assert -7 < left <= 0
        assert -7 < top <= 0
        assert left + 7 * scene.shape[1] >= 800
        assert top + 7 * scene.shape[0] >= 600


def test_a_lattice_in_another_crs_covers_the_optical(pair, raster) -> None:
    a, b = pair
    place = Affine(0.0001, 0, 3.0, 0, -0.0001, 41.55)
    lattice = raster("degrees.tif", np.zeros((1, 5, 5), np.uint8), "EPSG:4326", place)
    with open_scene(optical(a), {"sar": sar(b)}, grid=lattice) as scene:
        assert scene.grid.crs.epsg == 4326
        block = scene.read(Window(0, 0, *scene.shape))
        assert 0.9 < block.valid["optical"].mean() <= 1


@pytest.mark.parametrize(("resolution", "shape"), [(20, (30, 40)), (37, (17, 22)), (5, (120, 160))])
@pytest.mark.brief
def test_resolution(pair, resolution, shape) -> None:
    a, b = pair
    with open_scene(optical(a), {"sar": sar(b)}, resolution=resolution) as scene:
        assert scene.shape == shape
        assert (scene.grid.affine.c, scene.grid.affine.f) == (500000, 4600000)
        assert abs(scene.grid.resolution.x) == abs(scene.grid.resolution.y) == resolution
        assert scene.read(Window(0, 0, *shape)).valid["optical"].any()


@pytest.mark.parametrize("resolution", [0, -10, float("nan"), float("inf")])
def test_a_resolution_that_is_none(pair, resolution) -> None:
    a, _ = pair
    message(lambda: open_scene(optical(a), {}, resolution=resolution), GridError, "--resolution")


def test_one_source_is_a_scene(pair) -> None:
    a, b = pair
    with open_scene(optical(a), {}) as scene:
        assert scene.modalities == ("optical",)
        assert scene.shared == pytest.approx(1)
    with open_scene(None, {"sar": sar(b)}) as scene:
        assert scene.modalities == ("sar",)
        assert scene.shape == (40, 40)
        np.testing.assert_array_equal(scene.read(Window(0, 0, 40, 40)).values["sar"], noise(1, 40, 40, 1))
    with pytest.raises(ValueError, match="at least one"):
        open_scene(None, {})
    message(lambda: open_scene(optical(a), {}, grid="sar"), GridError, "no SAR")


def test_no_overlap(pair, raster) -> None:
    a, _ = pair
    apart = raster("apart.tif", noise(1, 20, 20), UTM, at(801, 0))
    for extent in ("optical", "intersection", "union"):
        message(
            lambda extent=extent: open_scene(optical(a), {"sar": sar(apart)}, extent=extent),
            GridError, "apart.tif", "overlap", "optical.tif",
        )  # fmt: skip
    elsewhere = raster("elsewhere.tif", noise(1, 20, 20), "EPSG:4326", Affine(0.1, 0, 100, 0, -0.1, 0))
    message(lambda: open_scene(optical(a), {"sar": sar(elsewhere)}), GridError, "elsewhere.tif", "overlap")


def test_no_crs(pair, raster) -> None:
    a, _ = pair
    bare = raster("bare.tif", noise(1, 20, 20), None, at(0, 0))
    text = message(lambda: open_scene(optical(a), {"sar": sar(bare)}), GridError, "bare.tif", "no CRS")
    assert "--pixel-grid" in text


@pytest.mark.brief
def test_pixel_grid(raster) -> None:
    a = raster("a.tif", noise(3, 30, 40), None, at(0, 0))
    b = raster("b.png", (noise(1, 30, 40, 2) * 100).astype(np.uint8), None, None, driver="PNG")
    with open_scene(optical(a), {"sar": sar(b)}, pixel_grid=True) as scene:
        assert scene.grid.crs is None
        assert scene.shape == (30, 40)
        assert scene.shared == 1
        assert any("no CRS" in notice for notice in scene.notices)
        block = scene.read(Window(3, 4, 10, 10))
    np.testing.assert_array_equal(block.values["optical"], noise(3, 30, 40)[:, 3:13, 4:14])
    stored = (noise(1, 30, 40, 2) * 100).astype(np.uint8)
    np.testing.assert_array_equal(block.values["sar"], stored[:, 3:13, 4:14])


def test_pixel_grid_refusals(raster) -> None:
    a = raster("a.tif", noise(3, 30, 40), UTM, at(0, 0))
    b = raster("b.tif", noise(1, 30, 41), None, at(0, 0))
    sources = optical(a), {"sar": sar(b)}
    message(lambda: open_scene(*sources, pixel_grid=True), GridError, "b.tif", "30 x 41", "30 x 40", "equal shape")
    message(lambda: open_scene(optical(a), {}, pixel_grid=True, resolution=5), GridError, "--pixel-grid")
    message(lambda: open_scene(optical(a), {}, pixel_grid=True, grid=b), GridError, "--pixel-grid")
    c = raster("c.tif", np.zeros((30, 41), np.uint8), None, at(0, 0))
    mask = optical(a, mask=c)
    message(lambda: open_scene(mask, {}, pixel_grid=True), GridError, "c.tif", "equal shape")
    message(lambda: open_scene(optical(a, mask=b), {}, pixel_grid=True), BandError, "b.tif", "mask", "float32")


def test_bands_by_the_packs_names_by_order_or_not_at_all(raster) -> None:
    array = noise(4, 8, 8)
    named = raster("named.tif", array, UTM, at(0, 0), descriptions=("b02", "B03", "B04", "B08"))
    names = ("B04", "B03", "B02")
    with open_scene(optical(named, band_names=names), {}) as scene:
        np.testing.assert_array_equal(scene.read(Window(0, 0, 8, 8)).values["optical"], array[[2, 1, 0]])
    with open_scene(optical(named, bands=[4, "B03", 1], band_names=names), {}) as scene:
        np.testing.assert_array_equal(scene.read(Window(0, 0, 8, 8)).values["optical"], array[[3, 1, 0]])
    text = message(lambda: open_scene(optical(named), {}), BandError, "named.tif", "4 bands", "expects 3")
    assert "--optical-bands" in text
    assert "4 (B08)" in text
    message(lambda: open_scene(optical(named, bands=[1]), {}), BandError, "--optical-bands", "expects 3")
    message(lambda: open_scene(optical(named, bands=["B05", 1, 2]), {}), BandError, "no band 'B05'")
    message(lambda: open_scene(None, {"sar": sar(named)}), SourceError, "it is optical (bands b02, B03, B04, B08)")
    insisting = sar(named, units="raw")
    message(lambda: open_scene(None, {"sar": insisting}), BandError, "--sar-bands")


@pytest.mark.brief
def test_all_nodata_is_found_wherever_the_one_pixel_hides(raster) -> None:
    array = np.full((1, 2100, 1100), -9999, np.float32)
    options = {"nodata": -9999, "compress": "deflate", "tiled": True}
    empty = raster("empty.tif", array, UTM, at(0, 0), **options)
    message(lambda: open_scene(None, {"sar": sar(empty)}), SourceError, "empty.tif", "no pixel carries data")
    array[0, 2099, 3] = 1
    with open_scene(None, {"sar": sar(raster("one.tif", array, UTM, at(0, 0), **options))}) as scene:
        assert scene.read(Window(2000, 0, 100, 100)).valid["sar"].sum() == 1
    zeros = raster("zeros.tif", np.zeros((1, 9, 9), np.float32), UTM, at(0, 0))
    message(lambda: open_scene(None, {"sar": sar(zeros, units="power")}), SourceError, "zeros.tif", "no pixel")


def test_a_mask_takes_pixels_out(pair, raster) -> None:
    a, b = pair
    clouds = np.zeros((1, 30, 40), np.uint8)
    clouds[0, :10] = 2
    path = raster("clouds.tif", clouds, UTM, at(0, 0, 20), nodata=0)
    with open_scene(optical(a, mask=path), {"sar": sar(b)}) as scene:
        block = scene.read(Window(0, 0, 60, 80))
        assert not block.valid["optical"][:20].any()
        assert block.valid["optical"][20:].all()
        assert not block.values["optical"][:, :20].any()
        assert block.valid["sar"].any()
    apart = raster("apart.tif", clouds, UTM, at(5000, 0))
    message(lambda: open_scene(optical(a, mask=apart), {}), GridError, "apart.tif", "overlap")
    message(lambda: open_scene(optical(a, mask=apart.with_name("no.tif")), {}), SourceError, "no.tif")
    bare = raster("bare.tif", clouds, None, at(0, 0, 20))
    message(lambda: open_scene(optical(a, mask=bare), {}), GridError, "bare.tif", "no CRS")


def test_colour_tables_are_no_measurements(raster) -> None:
    import rasterio

    path = raster("palette.tif", np.ones((1, 9, 9), np.uint8), UTM, at(0, 0), photometric="palette")
    with rasterio.open(path, "r+") as file:
        file.write_colormap(1, {0: (0, 0, 0, 255), 1: (255, 0, 0, 255)})
    message(lambda: open_scene(optical(path, count=1), {}), RadiometryError, "palette.tif", "-expand rgb")


def test_notices_come_with_the_scene(pair) -> None:
    a, b = pair
    with open_scene(optical(a, units=None), {"sar": sar(b, units=None)}) as scene:
        assert len(scene.notices) == 2
        assert "optical.tif" in scene.notices[0]
        assert "sar.tif" in scene.notices[1]


def test_a_datum_shift_without_its_grid_is_told(pair, raster) -> None:
    # the British national grid needs a file that PROJ's packages don't carry
    a = raster("osgb.tif", noise(3, 40, 40), "EPSG:27700", Affine(10, 0, 530000, 0, -10, 180000))
    b = raster("wgs.tif", noise(1, 500, 500), "EPSG:4326", Affine(1e-4, 0, -0.14, 0, -1e-4, 51.52))
    with open_scene(optical(a), {"sar": sar(b)}) as scene:
        told = [notice for notice in scene.notices if "datum shift" in notice]
        assert len(told) == 1
        assert "wgs.tif" in told[0]
        assert scene.read(Window(0, 0, 40, 40)).valid["sar"].all()


def test_an_error_closes_what_was_opened(pair, raster, monkeypatch) -> None:
    from gopt_geo.scene import source as module

    closed: list[str] = []
    close = module.RasterSource.close
    monkeypatch.setattr(
        module.RasterSource, "close", lambda self: (closed.append(Path(self.path).name), close(self))[1]
    )
    a, _ = pair
    bare = raster("bare.tif", noise(1, 20, 20), None, at(0, 0))
    message(lambda: open_scene(optical(a), {"sar": sar(bare)}), GridError)
    assert {"optical.tif", "bare.tif"} <= set(closed)


def test_every_window_is_the_cut_of_the_whole_scene(pair) -> None:
    a, b = pair
    with (
        open_scene(optical(a), {"sar": sar(b)}, resolution=7) as whole,
        open_scene(optical(a), {"sar": sar(b)}, resolution=7, cache_bytes=0) as pieces,
    ):
        assert isinstance(whole, Scene)
        full = whole.read(Window(0, 0, *whole.shape))
        for row, col in np.random.default_rng(0).integers(0, 60, (20, 2)).tolist():
            part = pieces.read(Window(row, col, 20, 30))
            for name in whole.modalities:
                cut = full.values[name][:, row : row + 20, col : col + 30]
                assert part.values[name][:, : cut.shape[1], : cut.shape[2]].tobytes() == cut.tobytes()
