"""Several rasters of one modality on one grid: the first with data wins, each warped as if it were alone."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from affine import Affine
from numpy.typing import NDArray

from gopt_geo.errors import BandError, GoptGeoError, GridError, ShiftError, SourceError
from gopt_geo.grid import GeoBox, Window, corner_distance, crop, whole_pixel_offset
from gopt_geo.scene import SceneMosaic, SourceSpec, open_scene
from gopt_geo.scene.bandfiles import band_files, input_files, input_name
from gopt_geo.scene.shift.placing import place_sources

UTM, NEXT_ZONE = "EPSG:32631", "EPSG:32632"


def at(x: float, y: float, size: float = 10.0) -> Affine:
    return Affine(size, 0, 500000 + x, 0, -size, 4600000 - y)


def optical(*paths: Path, **changes: Any) -> SourceSpec:
    settings = {"bands": None, "units": "raw", "target_units": "reflectance", "count": 1, **changes}
    return SourceSpec(SceneMosaic(paths) if len(paths) > 1 else paths[0], **settings)


def sar(path: Path) -> SourceSpec:
    return SourceSpec(path, None, "db", "db", 1)


def noise(height: int, width: int, seed: int = 0, count: int = 1) -> NDArray[np.float32]:
    return np.random.default_rng(seed).uniform(1, 2, (count, height, width)).astype(np.float32)


def read(*paths: Path, window: Window | None = None, **options: Any) -> tuple[Any, Any, GeoBox]:
    """Read an optical source, whole or in part: values [C, h, w], validity [h, w], the scene grid."""
    spec = {key: options.pop(key) for key in ("units", "count", "mask", "bands") if key in options}
    with open_scene(optical(*paths, **spec), {}, **options) as scene:
        block = scene.read(Window(0, 0, *scene.shape) if window is None else window)
        return block.values["optical"], block.valid["optical"], scene.grid


def message(call: Any, kind: type[GoptGeoError], *words: str) -> None:
    with pytest.raises(kind) as caught:
        call()
    assert "\n" not in str(caught.value)
    for word in words:
        assert word in str(caught.value), caught.value


@pytest.fixture
def mixed(raster: Any) -> list[Path]:
    """Three overlapping rasters with holes: on two lattices of one zone, and in the neighbouring zone."""
    first, second, third = noise(90, 110), noise(700, 640, 1), noise(120, 130, 2)
    first[:, 30:50, 20:60] = np.nan
    second[:, 300:330, :] = np.nan
    a = raster("a.tif", first, UTM, at(0, 0))
    b = raster("b.tif", second, UTM, at(303, -205, 9))
    zone = GeoBox((90, 110), at(0, 0), UTM).to_crs(NEXT_ZONE, resolution=12)
    c = raster("c.tif", third, NEXT_ZONE, Affine(12, 0, zone.affine.c - 200, 0, -12, zone.affine.f + 150))
    return [a, b, c]


@pytest.mark.brief
def test_the_first_with_data_wins_and_the_next_fills_its_holes(raster: Any) -> None:
    first, second = noise(20, 30), noise(25, 30, 1)
    first[:, 5:9, 25:] = np.nan
    a, b = raster("a.tif", first, UTM, at(0, 0)), raster("b.tif", second, UTM, at(200, -100))
    values, valid, grid = read(a, b)
    assert corner_distance(grid, GeoBox((30, 50), at(0, -100), UTM)) < 1e-6
    expected = np.zeros((30, 50), np.float32)
    expected[0:25, 20:50] = second[0]
    expected[10:30, 0:30] = np.where(np.isnan(first[0]), expected[10:30, 0:30], first[0])
    assert (values[0] == expected).all()
    assert (valid == (expected != 0)).all()
    assert valid.sum() == 20 * 30 + 25 * 30 - 15 * 10


def test_each_raster_is_warped_as_if_it_were_alone(mixed: list[Path]) -> None:
    values, valid, grid = read(*mixed)
    expected, filled = np.zeros(values.shape, np.float32), np.zeros(valid.shape, bool)
    for path in mixed:
        own, usable, _ = read(path, grid=grid)
        expected = np.where(usable & ~filled, own, expected)
        filled |= usable
    assert values.tobytes() == expected.tobytes()
    assert (valid == filled).all()
    assert 0 < valid.mean() < 1
    other, _, _ = read(*mixed[::-1], grid=grid)
    assert (other != values).any(), "the order decides"


def test_every_window_is_the_cut_of_the_whole(mixed: list[Path]) -> None:
    values, valid, grid = read(*mixed)
    for row, col in np.random.default_rng(0).integers(-20, 600, (12, 2)).tolist():
        window = Window(row, col, 70, 90)
        part, usable, _ = read(*mixed, window=window, cache_bytes=0)
        inside = window.clip(grid.shape)
        assert inside is not None
        here, there = inside.slices_in(window), inside.slices_in(Window(0, 0, *grid.shape))
        assert part[:, here[0], here[1]].tobytes() == values[:, there[0], there[1]].tobytes()
        assert (usable[here] == valid[there]).all()


def test_the_grid_is_the_firsts_lattice_over_the_ground_of_all(mixed: list[Path]) -> None:
    a, b, c = mixed
    _, _, grid = read(a, b, c)
    assert whole_pixel_offset(grid, GeoBox((90, 110), at(0, 0), UTM)) is not None
    for path in mixed:
        with open_scene(optical(path), {}) as alone:
            box = alone.grid.extent.to_crs(UTM).boundingbox
        bounds = grid.boundingbox
        assert bounds.left <= box.left + 0.1 <= box.right - 0.1 <= bounds.right
        assert bounds.bottom <= box.bottom + 0.1 <= box.top - 0.1 <= bounds.top


def test_rasters_apart_leave_a_gap(raster: Any) -> None:
    a, b = raster("a.tif", noise(10, 10), UTM, at(0, 0)), raster("b.tif", noise(10, 10, 1), UTM, at(400, 0))
    _, valid, grid = read(a, b)
    assert grid.shape == (10, 50)
    assert (valid.all(axis=0) == ([True] * 10 + [False] * 30 + [True] * 10)).all()


def test_units_are_each_rasters_own(raster: Any) -> None:
    stored = np.full((1, 10, 10), 1000, np.uint16)
    a = raster("a.tif", stored, UTM, at(0, 0), scales=(1e-4,), offsets=(-0.05,))
    b = raster("b.tif", stored, UTM, at(100, 0), scales=(2e-4,), offsets=(0.0,))
    values, valid, _ = read(a, b, units=None)
    assert valid.all()
    assert values[0, 0] == pytest.approx([0.05] * 10 + [0.2] * 10)


def test_what_clouds_hide_in_one_another_shows(raster: Any) -> None:
    clear, clouds = np.full((10, 10), 4, np.uint16), np.full((10, 10), 4, np.uint16)
    clouds[:, :6] = 9
    names = {"descriptions": ("B04", "SCL")}
    a = raster("a.tif", np.stack([np.full((10, 10), 100, np.uint16), clouds]), UTM, at(0, 0), **names)
    b = raster("b.tif", np.stack([np.full((10, 10), 200, np.uint16), clear]), UTM, at(-40, 0), **names)
    values, valid, grid = read(a, b, mask="SCL", bands=["B04"])
    assert grid.shape == (10, 14)
    assert valid.all()
    assert (values[0, 0] == [200] * 10 + [100] * 4).all()
    alone, usable, _ = read(a, mask="SCL", bands=["B04"])
    assert (usable[0] == [False] * 6 + [True] * 4).all()
    assert (alone[0, 0] == [0] * 6 + [100] * 4).all()


def test_a_mask_of_other_ground_is_refused(raster: Any) -> None:
    a, b = (raster(f"{name}.tif", noise(10, 10, i), UTM, at(100 * i, 0)) for i, name in enumerate("ab"))
    far = raster("far.tif", np.zeros((1, 10, 10), np.uint8), UTM, at(90000, 0))
    message(lambda: read(a, b, mask=far), GridError, "far.tif", "doesn't overlap")


@pytest.mark.brief
def test_neighbouring_regions_on_one_lattice_hold_the_same_pixels(mixed: list[Path], raster: Any) -> None:
    lattice = raster("grid.tif", np.zeros((1, 900, 1000), np.uint8), UTM, at(-1007, -2003, 9.7))
    a, b, c = mixed
    west, seen_west, one = read(b, c, grid=lattice, extent="grid")
    east, seen_east, other = read(b, a, grid=lattice, extent="grid")
    assert one == other == crop(one, Window(0, 0, 900, 1000))
    _, by_b, _ = read(b, grid=lattice, extent="grid")
    assert by_b.sum() > 100_000
    assert west[:, by_b].tobytes() == east[:, by_b].tobytes()
    assert seen_west[by_b].all()
    assert seen_east[by_b].all()
    assert (west != east).any(), "beyond it they show different rasters"


def test_all_of_a_grid_needs_a_raster(mixed: list[Path]) -> None:
    message(lambda: read(mixed[0], extent="grid"), GridError, "--extent grid", "--grid FILE")


@pytest.mark.parametrize(("crs", "size"), [(NEXT_ZONE, 11.0), ("EPSG:4326", 1e-4), ("EPSG:3035", 13.7)])
def test_a_crs_has_one_lattice_for_all_scenes(mixed: list[Path], crs: str, size: float) -> None:
    _, valid, one = read(mixed[0], mixed[1], crs=crs, resolution=size)
    _, _, other = read(mixed[2], crs=crs, resolution=size)
    assert valid.any()
    for grid in (one, other):
        a, b, c, d, e, f = grid.affine[:6]
        assert (a, b, d, e) == (size, 0, 0, -size)
        assert c / size == pytest.approx(round(c / size), abs=1e-6)
        assert f / size == pytest.approx(round(f / size), abs=1e-6)
        assert grid.crs == crs
    assert whole_pixel_offset(one, other) is not None


def test_a_crs_holds_the_same_ground(mixed: list[Path]) -> None:
    path = mixed[2]
    _, valid, grid = read(path, crs=UTM, resolution=10.0)
    box, wanted = grid.boundingbox, GeoBox((120, 130), *_place(path)).extent.to_crs(UTM).boundingbox
    for ours, theirs in zip(box.bbox, wanted.bbox, strict=True):
        assert abs(ours - theirs) <= 10.1
    assert valid.sum() * 100 == pytest.approx(120 * 130 * 144, rel=0.01)


def _place(path: Path) -> tuple[Affine, Any]:
    import rasterio

    with rasterio.open(path) as file:
        return file.transform, file.crs.to_wkt()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"crs": "EPSG:32631"}, ("--crs EPSG:32631", "--resolution")),
        ({"crs": "nonsense", "resolution": 10.0}, ("--crs nonsense", "no such CRS")),
        ({"crs": "EPSG:4978", "resolution": 10.0}, ("--crs EPSG:4978", "two axes")),
        ({"crs": UTM, "resolution": -1.0}, ("--resolution", "positive")),
        ({"crs": UTM, "resolution": 10.0, "grid": "sar"}, ("--crs", "--grid sar", "leave one")),
        ({"crs": UTM, "resolution": 1e-9}, ("--resolution", "more than a raster file can have")),
    ],
)
def test_a_crs_that_cannot_be_taken(mixed: list[Path], options: dict[str, Any], words: tuple[str, ...]) -> None:
    message(lambda: read(mixed[0], **options), GridError, *words)


def test_sar_needs_to_show_ground_of_one_of_them(raster: Any) -> None:
    a, b = raster("a.tif", noise(10, 10), UTM, at(0, 0)), raster("b.tif", noise(10, 10, 1), UTM, at(900, 0))
    near = raster("near.tif", noise(10, 10, 2), UTM, at(950, 0))
    between = raster("between.tif", noise(10, 10, 3), UTM, at(400, 0))
    with open_scene(optical(a, b), {"sar": sar(near)}) as scene:
        assert scene.shape == (10, 100)
        assert scene.shared == pytest.approx(0.05, abs=1e-6)
        assert scene.read(Window(0, 0, 10, 100)).valid["sar"].sum() == 50
    message(lambda: open_scene(optical(a, b), {"sar": sar(between)}), GridError, "between.tif", "doesn't overlap")


def test_a_mosaic_of_sar_covers_more(raster: Any) -> None:
    a = raster("a.tif", noise(10, 40), UTM, at(0, 0))
    west, east = (raster(f"s{i}.tif", noise(10, 20, i), UTM, at(200 * i, 0)) for i in range(2))
    both = SourceSpec(SceneMosaic((west, east)), None, "db", "db", 1)
    with open_scene(optical(a), {"sar": both}) as scene:
        assert scene.shared == 1
        assert scene.read(Window(0, 0, 10, 40)).valid["sar"].all()
        assert scene.counts == {"optical": 1, "sar": 1}
    with pytest.raises(ShiftError, match="--coregister: SAR is a mosaic of 2 rasters"):
        place_sources({"optical": optical(a), "sar": both}, correct=True)


def test_rasters_that_do_not_go_together(raster: Any, tmp_path: Path) -> None:
    a = raster("a.tif", noise(10, 10), UTM, at(0, 0))
    two = raster("two.tif", noise(10, 10, count=2), UTM, at(0, 0))
    message(lambda: read(a, two, count=None), BandError, "two.tif has 2 bands", "a.tif has 1")
    message(lambda: read(a, two), BandError, "two.tif: it has 2 bands, the pack expects 1")
    message(lambda: read(a, tmp_path / "no.tif"), SourceError, "no.tif", "no such file")
    message(lambda: read(a, a, pixel_grid=True), GridError, "mosaic of", "--pixel-grid")


@pytest.mark.parametrize("sources", [(), "a.tif", (SceneMosaic(("a.tif",)), "b.tif"), None])
def test_what_is_no_mosaic(sources: Any) -> None:
    message(lambda: SceneMosaic(sources), SourceError, "SceneMosaic")


def test_a_mosaic_is_a_value() -> None:
    mosaic = SceneMosaic(["a.tif", "b1.tif,b2.tif"])  # type: ignore[arg-type]
    assert mosaic == SceneMosaic(("a.tif", "b1.tif,b2.tif"))
    assert pickle.loads(pickle.dumps(mosaic)) == mosaic
    assert input_name(mosaic) == "a.tif; b1.tif,b2.tif"
    assert {path.name for path in input_files(mosaic)} >= {"a.tif", "b1.tif", "b2.tif"}
    message(lambda: band_files(mosaic), SourceError, "mosaic of a.tif, b1.tif,b2.tif", "one by one")


def test_a_change_of_any_raster_is_seen(raster: Any) -> None:
    a, b = raster("a.tif", noise(10, 10), UTM, at(0, 0)), raster("b.tif", noise(10, 10, 1), UTM, at(100, 0))
    with open_scene(optical(a, b), {}) as scene:
        scene.check_unchanged()
        b.write_bytes(b.read_bytes() + b"x")
        message(scene.check_unchanged, SourceError, "b.tif", "changed while it was read")
