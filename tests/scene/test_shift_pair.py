"""Moving grids by a shift, and the shift of two sources whatever their grids."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import rasterio
from affine import Affine
from hypothesis import given, settings
from hypothesis import strategies as st

from gopt_geo.errors import GridError
from gopt_geo.grid import GeoBox, Window, corner_distance
from gopt_geo.scene import SourceSpec, open_scene
from gopt_geo.scene.geometry import PixelMap
from gopt_geo.scene.moving import LITTLE, compose, move_grid, move_notice
from gopt_geo.scene.shift import PairShift, estimate_pair
from gopt_geo.simulate import SceneSpec, write_scene
from realdata import DATA, needs

UTM = GeoBox((300, 400), Affine(10, 0, 600000, 0, -10, 5400000), "EPSG:32632")


def turned(degrees: float, pixel: float = 12.0) -> GeoBox:
    """Return a grid around the middle of `UTM`, turned about it."""
    cos, sin = pixel * math.cos(math.radians(degrees)), pixel * math.sin(math.radians(degrees))
    x, y = 602000 - 200 * cos - 200 * sin, 5398500 + 200 * cos - 200 * sin
    return GeoBox((400, 400), Affine(cos, sin, x, sin, -cos, y), "EPSG:32632")


GRIDS = {
    "same": UTM,
    "south-up": GeoBox((300, 400), Affine(10, 0, 600000, 0, 10, 5397000), "EPSG:32632"),
    "turned": turned(30),
    "turned far": turned(170, 7.0),
    "degrees": GeoBox((400, 400), Affine(0.00014, 0, 10.36, 0, -0.00009, 48.745), "EPSG:4326"),
    "Mercator": GeoBox((300, 300), Affine(20, 0, 1153500, 0, -20, 6230500), "EPSG:3857"),
}


@pytest.mark.brief
@pytest.mark.parametrize("name", GRIDS)
@settings(deadline=None, max_examples=15)
@given(st.floats(-9, 9), st.floats(-9, 9))
def test_what_is_seen_at_a_shift_comes_to_lie_where_it_belongs(name: str, dx: float, dy: float) -> None:
    grid = GRIDS[name]
    moved, error = move_grid(grid, UTM, dx, dy)
    before, after = PixelMap(UTM, grid, "a"), PixelMap(UTM, moved, "b")
    points = np.array([(200.0, 150.0), (180.0, 140.0), (230.0, 170.0)])
    seen, there = before(points + np.array([dx, dy])), after(points)
    pixels = np.hypot(*(seen - there).T)
    assert pixels.max() < 0.02
    assert error < LITTLE
    assert moved.shape == grid.shape
    assert moved.affine[:2] == grid.affine[:2]  # pixel size and direction stay
    assert moved.affine[3:5] == grid.affine[3:5]
    back, _ = move_grid(moved, UTM, -dx, -dy)
    assert corner_distance(grid, back) < 0.01


def test_a_shift_to_the_right_and_down_moves_to_the_left_and_up() -> None:
    moved, error = move_grid(UTM, UTM, 2, 3)
    assert (moved.affine.c, moved.affine.f) == pytest.approx((600000 - 20, 5400000 + 30))
    assert error == pytest.approx(0, abs=1e-9)


def test_a_move_over_a_wide_scene_says_how_far_off_it_is() -> None:
    """Degrees of longitude shorten to the north: one step in degrees is no one step in metres."""
    wide = GeoBox((3000, 3000), Affine(100, 0, 400000, 0, -100, 7800000), "EPSG:32632")
    degrees = GeoBox((3000, 9000), Affine(0.001, 0, 5, 0, -0.001, 70.5), "EPSG:4326")
    _, error = move_grid(degrees, wide, 8, 0)
    assert LITTLE < error < 2
    assert f"{error:.2f}" in move_notice("sar.tif", error)


def test_grids_apart_cannot_be_moved() -> None:
    far = GeoBox((10, 10), Affine(10, 0, 900000, 0, -10, 5400000), "EPSG:32632")
    with pytest.raises(GridError, match="shares no ground"):
        move_grid(far, UTM, 1, 1, "sar.tif")


def test_a_small_raster_on_a_large_one_is_moved() -> None:
    small = GeoBox((3, 3), Affine(10, 0, 602013, 0, -10, 5398513), "EPSG:32632")
    moved, _ = move_grid(small, UTM, 1, 0)
    assert moved.affine.c == pytest.approx(602003)


def test_composed_affines_apply_the_inner_first() -> None:
    outer, inner = Affine(2, 0, 1, 0, 2, 5), Affine(0, 1, 3, -1, 0, 4)
    a, b, c, d, e, f = compose(outer, inner)[:6]
    assert (a, b, c, d, e, f) == (0, 2, 7, -2, 0, 13)


# --- pairs of files -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def pair_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., tuple[SourceSpec, SourceSpec]]:
    folder = tmp_path_factory.mktemp("pairs")

    def make(dx: float = 0, dy: float = 0, **spec: object) -> tuple[SourceSpec, SourceSpec]:
        """Simulate a pair whose SAR content lies dx, dy SAR pixels from where it belongs."""
        paths = {stem: folder / f"{stem}.tif" for stem in ("scene", "sar", "labels", "clouds")}
        write_scene(SceneSpec(**{"seed": 6, "height": 320, "width": 320} | spec), paths)
        with rasterio.open(paths["sar"], "r+") as file:
            a, b, c, d, e, f = file.transform[:6]
            file.transform = Affine(a, b, c + dx * a + dy * b, d, e, f + dx * d + dy * e)
        return specs(paths["scene"], paths["sar"])

    return make


def specs(optical: Path, sar: Path, units: str | None = None) -> tuple[SourceSpec, SourceSpec]:
    radar = SourceSpec(sar, None, units, "raw" if units == "raw" else "db", None)
    return SourceSpec(optical, None, "raw", "raw", None, band_names=("red", "green", "blue")), radar


def added(after: PairShift, before: PairShift) -> tuple[float, float]:
    return after.estimate.dx - before.estimate.dx, after.estimate.dy - before.estimate.dy


@pytest.mark.brief
def test_the_sign_of_a_pair_of_files(pair_of: Callable[..., tuple[SourceSpec, SourceSpec]]) -> None:
    before, after = estimate_pair(*pair_of()), estimate_pair(*pair_of(3.5, -2.25))
    assert before.estimate.reliable
    assert after.estimate.reliable
    assert added(after, before) == pytest.approx((3.5, -2.25), abs=0.25)
    assert after.pixel_size == pytest.approx(10, rel=0.01)
    assert {(0 < p.x < 320, 0 < p.y < 320) for p in after.estimate.points} == {(True, True)}


def test_another_crs(pair_of: Callable[..., tuple[SourceSpec, SourceSpec]]) -> None:
    other = {"sar_crs": "EPSG:4326", "sar_resolution": 0.00009}  # 10 m from south to north, 6.6 m from west to east
    before, after = estimate_pair(*pair_of(**other)), estimate_pair(*pair_of(3, 3, **other))
    east = 0.00009 * math.cos(math.radians(48.7)) * 111_320 / 10
    assert added(after, before) == pytest.approx((3 * east, 3 * 0.00009 * 111_200 / 10), abs=0.3)


def test_coarser_sar_is_looked_at_in_its_own_pixels(pair_of: Callable[..., tuple[SourceSpec, SourceSpec]]) -> None:
    """A shift of 8 pixels of 25 m is one of 20 optical ones, beyond the search if it were made in these."""
    coarse = {"sar_crs": "EPSG:32632", "sar_resolution": 25.0, "height": 600, "width": 600, "seed": 9}
    before, after = estimate_pair(*pair_of(**coarse)), estimate_pair(*pair_of(8, -4, **coarse))
    assert after.common_grid.shape[0] < 250
    assert after.estimate.reliable
    assert added(after, before) == pytest.approx((20, -10), abs=1)
    assert max(p.x for p in after.estimate.points) > 300  # in optical pixels


def test_points_lie_on_the_shared_ground(tmp_path: Path) -> None:
    paths = {stem: tmp_path / f"{stem}.tif" for stem in ("scene", "sar", "labels", "clouds")}
    write_scene(SceneSpec(seed=6, height=400, width=400), paths)
    with rasterio.open(paths["sar"]) as file:
        part, profile = file.read(window=((180, 400), (200, 400))), file.profile
        profile |= {"height": 220, "width": 200, "transform": file.window_transform(((180, 400), (200, 400)))}
    with rasterio.open(tmp_path / "part.tif", "w", **profile) as file:
        file.write(part)
    found = estimate_pair(*specs(paths["scene"], tmp_path / "part.tif"))
    assert len(found.estimate.points) == 16
    assert min(p.x for p in found.estimate.points) > 200
    assert min(p.y for p in found.estimate.points) > 180


def test_the_scene_is_moved_in_its_one_warp(pair_of: Callable[..., tuple[SourceSpec, SourceSpec]]) -> None:
    """Opened with the shift, SAR holds what it holds when it was never shifted."""
    window = Window(40, 40, 200, 200)
    with open_scene(pair_of()[0], {"sar": pair_of()[1]}) as scene:
        true = scene.read(window).values["sar"]
    optical, sar = pair_of(3, -2)
    with open_scene(optical, {"sar": sar}) as scene:
        assert not np.allclose(scene.read(window).values["sar"], true)
    with open_scene(optical, {"sar": sar}, shifts={"sar": (3.0, -2.0)}) as scene:
        np.testing.assert_allclose(scene.read(window).values["sar"], true, atol=1e-4)


class TestRealPairs:
    pytestmark = needs(DATA / "volkov")

    @pytest.mark.parametrize("name", ["020", "102"])
    def test_a_known_shift_of_a_real_pair(self, tmp_path: Path, name: str) -> None:
        optical, sar = (DATA / f"volkov/{name}_{kind}.tif" for kind in ("opt", "sar"))
        with rasterio.open(sar) as file:
            pixels, profile = file.read(), file.profile
        a, b, c, d, e, f = profile["transform"][:6]
        profile["transform"] = Affine(a, b, c - 5.3 * a, d, e, f + 0.6 * e)
        with rasterio.open(tmp_path / "moved.tif", "w", **profile) as file:
            file.write(pixels)
        before = estimate_pair(*specs(optical, sar, "raw"), points=36)
        after = estimate_pair(*specs(optical, tmp_path / "moved.tif", "raw"), points=36)
        assert before.estimate.reliable
        assert after.estimate.reliable
        assert math.dist(added(after, before), (-5.3, 0.6)) < 0.5
