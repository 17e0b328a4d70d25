"""The shift between two modalities of a scene: its sign, its accuracy, and the gate."""

from __future__ import annotations

import math

import numpy as np
import pytest
from affine import Affine
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from gopt_geo.grid import GeoBox, Window
from gopt_geo.scene.arrays import ArrayScene
from gopt_geo.scene.shift import ShiftEstimate, ShiftPoint, estimate_shift
from gopt_geo.scene.shift.layout import place_templates, template_edge
from gopt_geo.scene.shift.matching import Match, correlate, peak, similarity
from gopt_geo.scene.shift.structure import DIRECTIONS, MARGIN, directions_mirrored, structure
from gopt_geo.simulate import SceneSpec, SimulatedScene, simulate_scene

SIZE, BORDER = 256, 16


@pytest.fixture(scope="module")
def simulated() -> SimulatedScene:
    return simulate_scene(SceneSpec(seed=4, height=SIZE + 2 * BORDER, width=SIZE + 2 * BORDER))


def scene_of(simulated: SimulatedScene, dx: int = 0, dy: int = 0, **valid: np.ndarray) -> ArrayScene:
    """Cut optical and SAR out of a simulated scene; the SAR content lies dx to the right, dy below where it belongs."""
    sar = 10 * np.log10(simulated.sar)
    at = slice(BORDER, BORDER + SIZE)
    moved = sar[:, BORDER - dy : BORDER - dy + SIZE, BORDER - dx : BORDER - dx + SIZE]
    return ArrayScene({"optical": simulated.optical[:3, at, at], "sar": moved}, valid)


@pytest.mark.brief
@pytest.mark.parametrize(("dx", "dy"), [(3, 0), (0, -4), (-8, 5), (7, 8)])
def test_a_known_shift_is_found_with_its_sign(simulated: SimulatedScene, dx: int, dy: int) -> None:
    before = estimate_shift(scene_of(simulated))
    after = estimate_shift(scene_of(simulated, dx, dy))
    assert before.reliable
    assert before.length < 0.6  # the simulated radar folds walls over to the left
    assert after.reliable
    assert math.hypot(after.dx - before.dx - dx, after.dy - before.dy - dy) < 0.25
    assert after.reason == ""
    assert after.spread < 1.5
    assert len(after.trusted) >= 4
    assert after.length == pytest.approx(math.hypot(after.dx, after.dy))


def test_a_shift_of_a_fraction_of_a_pixel_is_found() -> None:
    """Two samplings of one fine pattern, a quarter of a pixel apart."""
    fine = ndimage.gaussian_filter(np.random.default_rng(0).normal(size=(800, 800)), 12)

    def sampled(right: int, down: int) -> np.ndarray:
        rolled = np.roll(fine, (down, right), axis=(0, 1))
        return rolled.reshape(200, 4, 200, 4).mean(axis=(1, 3)).astype(np.float32)[None]

    base = sampled(0, 0)
    for right, down in ((1, 0), (2, -1), (-3, 3)):
        found = estimate_shift(ArrayScene({"optical": base, "sar": -sampled(right, down)}))
        assert found.reliable
        assert math.hypot(found.dx - right / 4, found.dy - down / 4) < 0.1


@pytest.mark.brief
def test_contrast_and_its_sign_do_not_matter(simulated: SimulatedScene) -> None:
    grey = scene_of(simulated).read(Window(0, 0, SIZE, SIZE)).values["optical"][:1]
    for other in (-grey, 5 - 100 * grey, np.log(grey + 0.01)):
        found = estimate_shift(ArrayScene({"optical": grey, "sar": other.astype(np.float32)}))
        assert found.reliable
        assert found.length < 0.15


@pytest.mark.brief
@pytest.mark.parametrize("seed", range(3))
def test_other_places_are_not_let_through(simulated: SimulatedScene, seed: int) -> None:
    other = simulate_scene(SceneSpec(seed=100 + seed, height=SIZE, width=SIZE))
    optical = scene_of(simulated).read(Window(0, 0, SIZE, SIZE)).values["optical"]
    found = estimate_shift(ArrayScene({"optical": optical, "sar": 10 * np.log10(other.sar)}))
    assert not found.reliable
    assert math.isnan(found.dx)
    assert math.isnan(found.dy)
    assert math.isnan(found.spread)
    assert found.reason


def test_noise_and_flat_ground_are_not_let_through() -> None:
    rng = np.random.default_rng(1)
    noise = rng.normal(size=(2, 1, 200, 200)).astype(np.float32)
    assert not estimate_shift(ArrayScene({"optical": noise[0], "sar": noise[1]})).reliable
    flat = np.full((1, 200, 200), 7, np.float32)
    found = estimate_shift(ArrayScene({"optical": flat, "sar": noise[0]}))
    assert not found.reliable
    assert found.points == ()
    assert "no point" in found.reason


def test_a_shift_beyond_the_search_is_not_let_through(simulated: SimulatedScene) -> None:
    found = estimate_shift(scene_of(simulated, 9, 0), search=4)
    assert not found.reliable


def test_points_without_data_are_left_out(simulated: SimulatedScene) -> None:
    left = np.zeros((SIZE, SIZE), bool)
    left[:, : SIZE // 2] = True
    before = estimate_shift(scene_of(simulated, sar=left))
    found = estimate_shift(scene_of(simulated, 2, 1, sar=left))
    assert found.reliable
    assert {point.x < SIZE / 2 for point in found.points} == {True}
    assert (found.dx - before.dx, found.dy - before.dy) == pytest.approx((2, 1), abs=0.25)
    clouded = estimate_shift(scene_of(simulated, 2, 1, optical=left, sar=~left))
    assert not clouded.reliable
    assert clouded.points == ()


def test_a_hole_in_sar_is_not_taken_for_structure(simulated: SimulatedScene) -> None:
    """The border of a hole is the strongest edge there is, and lies at another place in optical."""
    holes = [np.ones((SIZE, SIZE), bool) for _ in range(2)]
    holes[0][60:140, 60:140] = False
    holes[1][66:146, 66:146] = False
    found = estimate_shift(scene_of(simulated, optical=holes[0], sar=holes[1]))
    assert found.reliable
    assert found.length < 0.6


def test_few_points_are_not_let_through(simulated: SimulatedScene) -> None:
    corner = np.zeros((SIZE, SIZE), bool)
    corner[:64, :128] = True
    found = estimate_shift(scene_of(simulated, sar=corner))
    assert not found.reliable
    assert "2 points only" in found.reason


@pytest.mark.parametrize("shape", [(1, 1), (23, 400), (30, 30)])
def test_scenes_that_hold_no_points_have_none(shape: tuple[int, int]) -> None:
    values = np.random.default_rng(0).normal(size=(1, *shape)).astype(np.float32)
    found = estimate_shift(ArrayScene({"optical": values, "sar": values}))
    assert not found.reliable
    assert len(found.points) <= 1


def test_an_estimate_is_told_in_pixels_of_another_grid() -> None:
    point = ShiftPoint(10, 20, 1, -2, 3.0)
    found = ShiftEstimate(True, 1.5, -0.5, 0.25, (point,), 4, 0.2, "", (1.5, -0.5))
    fine = GeoBox((100, 100), Affine(10, 0, 500, 0, -10, 900), "EPSG:32631")
    coarse = GeoBox((20, 20), Affine(30, 0, 560, 0, -30, 870), "EPSG:32631")
    there = found.on(coarse, fine)
    assert (there.dx, there.dy, there.spread) == pytest.approx((4.5, -1.5, 0.75))
    assert there.best == pytest.approx((4.5, -1.5))
    (moved,) = there.points
    assert (moved.x, moved.y, moved.dx, moved.dy) == pytest.approx((36, 63, 3, -6))
    assert moved.confidence == 3
    assert found.on(fine, fine).points[0] == point


# --- where the points lie -------------------------------------------------------------------------------------------


@pytest.mark.brief
@settings(deadline=None, max_examples=60)
@given(st.integers(24, 6000), st.integers(24, 6000), st.integers(4, 200))
def test_templates_lie_inside_apart_and_are_no_more_than_asked_for(height: int, width: int, points: int) -> None:
    edge = template_edge((height, width))
    placed = place_templates((height, width), points, edge)
    assert 1 <= len(placed) <= points
    assert len({(row, col) for row, col, _ in placed}) == len(placed)
    windows = [window for _, _, window in placed]
    for window in windows:
        assert window.shape == (edge, edge)
        assert window.clip((height, width)) == window
    for i, one in enumerate(windows):
        assert all(one.intersect(other) is None for other in windows[:i])


def test_on_large_scenes_a_template_costs_one_tile_of_a_file() -> None:
    around = 12 + MARGIN
    for _, _, window in place_templates((10980, 10980), 64, 128):
        assert (window.row - around) // 256 == (window.row_stop + around - 1) // 256
        assert (window.col - around) // 256 == (window.col_stop + around - 1) // 256


# --- structure and matching -----------------------------------------------------------------------------------------


def test_structure_of_a_mirrored_image_is_the_mirrored_structure() -> None:
    rng = np.random.default_rng(2)
    image = rng.normal(size=(2, 60, 70)).astype(np.float32)
    valid = rng.uniform(size=(60, 70)) > 0.01
    channels, support = structure(image, valid, 1.5)
    assert channels.shape == (DIRECTIONS, 60, 70)
    for axis in (1, 2):
        flipped, flipped_support = structure(np.flip(image, axis).copy(), np.flip(valid, axis - 1).copy(), 1.5)
        np.testing.assert_array_equal(flipped_support, np.flip(support, axis - 1))
        np.testing.assert_allclose(flipped, np.flip(channels[directions_mirrored()], axis), atol=1e-4)


@pytest.mark.brief
@pytest.mark.parametrize("shape", [(40, 54), (41, 54), (48, 47)])
def test_chance_is_the_fit_of_mirrored_images(shape: tuple[int, int]) -> None:
    rng = np.random.default_rng(5)
    image, valid = rng.normal(size=(1, *shape)).astype(np.float32), rng.uniform(size=shape) > 0.01
    channels, support = structure(image, valid, 1.0)
    template = channels[:, 4:-4, 4:-4].copy(), support[4:-4, 4:-4].copy()
    chance = correlate(template, (channels, support), 4).mirrors
    order = directions_mirrored()
    images = [
        (channels[order][:, :, ::-1], support[:, ::-1]),
        (channels[order][:, ::-1], support[::-1]),
        (channels[:, ::-1, ::-1], support[::-1, ::-1]),
    ]
    for found, mirrored in zip(chance, images, strict=True):
        wanted = correlate(template, mirrored, 4).true
        np.testing.assert_allclose(found, wanted, atol=2e-6 * np.abs(wanted).max())


def test_structure_is_nothing_where_there_is_no_data() -> None:
    image = np.random.default_rng(3).normal(size=(1, 50, 50)).astype(np.float32)
    valid = np.ones((50, 50), bool)
    valid[20:30, 20:30] = False
    channels, support = structure(image, valid, 2.0)
    assert not support[18:32, 18:32].any()
    assert not channels[:, ~support].any()
    changed = np.where(valid, image, np.float32(1e6))
    np.testing.assert_array_equal(structure(changed, valid, 2.0)[0], channels)


@settings(deadline=None, max_examples=60)
@given(st.floats(-3.4, 3.4), st.floats(-3.4, 3.4), st.floats(0.05, 1), st.floats(0.05, 1), st.floats(-0.9, 0.9))
def test_a_peak_is_found_between_pixels(dx: float, dy: float, xx: float, yy: float, skew: float) -> None:
    cols, rows = np.meshgrid(np.arange(-5, 6), np.arange(-5, 6))
    x, y = cols - dx, rows - dy
    surface = 500 - (xx * x**2 + yy * y**2 + skew * math.sqrt(xx * yy) * x * y)
    highest = np.unravel_index(surface.argmax(), surface.shape)
    off = abs(dx - (highest[1] - 5)), abs(dy - (highest[0] - 5))
    found = peak(surface)
    if max(off) <= 1:  # further from the highest pixel than that the estimate is bounded
        assert found[:2] == pytest.approx((dx, dy), abs=1e-6)
    assert found[2] == surface.max()


def test_a_peak_at_the_border_is_none() -> None:
    surface = np.add.outer(np.arange(7.0), np.arange(7.0))
    dx, dy, height = peak(surface)
    assert math.isnan(dx)
    assert math.isnan(dy)
    assert height == 12
    assert math.isnan(peak(np.zeros((7, 7)))[0])


def test_correlation_equals_the_sums_it_stands_for() -> None:
    rng = np.random.default_rng(4)
    search, h, w = 3, 12, 10
    support = rng.uniform(size=(h, w)) > 0.2, rng.uniform(size=(h + 6, w + 6)) > 0.2
    optical = rng.normal(size=(DIRECTIONS, h, w)).astype(np.float32) * support[0]
    sar = rng.normal(size=(DIRECTIONS, h + 6, w + 6)).astype(np.float32) * support[1]
    match = correlate((optical, support[0]), (sar, support[1]), search)
    for row in range(7):
        for col in range(7):
            part = sar[:, row : row + h, col : col + w]
            seen = support[1][row : row + h, col : col + w]
            expected = (optical * part).sum(), (optical**2 * seen).sum(), (part**2 * support[0]).sum()
            np.testing.assert_allclose(match.true[:, row, col], expected, rtol=1e-3, atol=1e-3)
    twice = Match.total([match, match])
    np.testing.assert_allclose(similarity(twice.true), similarity(match.true))
    assert np.abs(similarity(match.mirrors)).max() <= 1 + 1e-6


def test_nothing_in_common_is_no_likeness() -> None:
    assert not similarity(np.zeros((3, 5, 5))).any()
