"""Simulated scenes in memory: determinism, sizes, grids, classes, clouds."""

from __future__ import annotations

import numpy as np
import pytest
from pyproj import Transformer

from gopt_geo.errors import GridError
from gopt_geo.simulate import CLASS_NAMES, LandCover, SceneSpec, simulate_scene

GEOGRAPHIC = {"crs": "EPSG:4326", "resolution": 1e-4, "origin": (11.0, 48.0)}
FIELDS = ("optical", "sar", "labels", "clouds")


@pytest.fixture(scope="module")
def scenes():
    return [simulate_scene(SceneSpec(seed, 320, 320)) for seed in (9101, 9103, 9104, 9105)]


@pytest.mark.brief
def test_a_seed_draws_the_same_scene_and_another_seed_another():
    spec = SceneSpec(5, 40, 60, sar_bands=2, cloud=0.4)
    first, again, other = simulate_scene(spec), simulate_scene(spec), simulate_scene(SceneSpec(6, 40, 60, sar_bands=2))
    for name in FIELDS:
        assert np.array_equal(getattr(first, name), getattr(again, name)), name
    for name in ("optical", "sar", "labels"):
        assert not np.array_equal(getattr(first, name), getattr(other, name)), name


def test_what_is_asked_of_one_sensor_leaves_the_rest_as_it_was():
    plain = simulate_scene(SceneSpec(5, 40, 60))
    other = simulate_scene(SceneSpec(5, 40, 60, cloud=0.5, looks=1.0, sar_bands=2, sar_resolution=23.0))
    assert np.array_equal(plain.labels, other.labels)
    clear = other.clouds == 0
    assert np.array_equal(plain.optical[:, clear], other.optical[:, clear])
    assert not np.allclose(plain.optical[:, ~clear], other.optical[:, ~clear])


@pytest.mark.brief
@pytest.mark.parametrize("size", [(1, 1), (1, 50), (50, 1), (33, 47), (7, 130)])
@pytest.mark.parametrize("grid", [{}, GEOGRAPHIC, {"sar_crs": "EPSG:3857"}])
def test_any_size_on_any_grid(size, grid):
    spec = SceneSpec(1, *size, sar_bands=2, cloud=0.3, **grid)
    scene = simulate_scene(spec)
    assert scene.optical.shape == (4, *size)
    assert scene.optical.dtype == np.float32
    assert scene.labels.shape == scene.clouds.shape == size
    assert scene.labels.max() < len(CLASS_NAMES)
    assert scene.sar.shape == (2, *spec.sar_grid.shape)
    assert np.isfinite(scene.optical).all()
    assert ((scene.optical > 0) & (scene.optical <= 1.2)).all()
    assert (scene.sar[np.isfinite(scene.sar)] > 0).all()
    assert np.isfinite(scene.sar).all() or grid  # off the ground there is no backscatter


def test_huge_seeds_are_seeds_too():
    scene = simulate_scene(SceneSpec(2**70 + 1, 8, 8))
    assert np.isfinite(scene.optical).all()


@pytest.mark.parametrize("resolution", [0.1, 500.0, float("nan")])
def test_pixels_that_no_feature_fits_are_refused(resolution):
    with pytest.raises(GridError, match="--resolution"):
        simulate_scene(SceneSpec(1, 8, 8, resolution=resolution))


@pytest.mark.brief
@pytest.mark.parametrize(
    ("optical", "sar"),
    [
        ({}, {"sar_resolution": 13.0}),
        ({}, {"sar_crs": "EPSG:32633"}),
        ({}, {"sar_crs": "EPSG:4326", "sar_resolution": 1.1e-4}),
        (GEOGRAPHIC, {"sar_crs": "EPSG:32632", "sar_resolution": 9.0}),
    ],
)
def test_sar_on_another_grid_lies_where_the_ground_is(optical, sar):
    looks = 1e6  # no speckle to speak of, so that single pixels can be compared
    same, other = (SceneSpec(9, 150, 120, looks=looks, **optical, **more) for more in ({}, sar))
    on_ground, elsewhere = simulate_scene(same).sar[0], simulate_scene(other).sar[0]
    rows, cols = np.nonzero(np.isfinite(elsewhere))
    grid = other.sar_grid.affine
    x, y = grid.c + grid.a * (cols + 0.5), grid.f + grid.e * (rows + 0.5)
    x, y = Transformer.from_crs(other.sar_crs or other.crs, other.crs, always_xy=True).transform(x, y)
    left, top = other.origin
    row, col = (np.floor(v / other.resolution + 1e-6).astype(int) for v in (top - y, x - left))
    inside = (row >= 0) & (row < 150) & (col >= 0) & (col < 120)
    ratio = elsewhere[rows[inside], cols[inside]] / on_ground[row[inside], col[inside]]
    assert inside.sum() > 1000
    assert np.mean(np.abs(ratio - 1) < 0.01) > 0.995  # but for centres on the border of two pixels
    for corner in ((0, 0), (0, 119), (149, 0), (149, 119)):  # all of the optical grid is seen
        assert np.hypot(row - corner[0], col - corner[1]).min() < 4


def test_coarse_sar_is_the_mean_of_the_ground_it_covers():
    same, coarse = (SceneSpec(9, 160, 120, looks=1e6, sar_resolution=r) for r in (None, 40.0))
    ground, seen = simulate_scene(same).sar[0], simulate_scene(coarse).sar[0]
    assert seen.shape == (40, 30)
    np.testing.assert_allclose(seen, ground.reshape(40, 4, 30, 4).mean(axis=(1, 3)), rtol=0.01)


def test_sar_by_class_is_the_same_on_both_grids():
    same, other = (SceneSpec(9101, 256, 256, sar_resolution=r) for r in (None, 13.0))
    scene, labels = simulate_scene(same), simulate_scene(other).labels
    elsewhere = simulate_scene(other).sar[0]
    rows, cols = (np.minimum(((np.arange(n) + 0.5) * 1.3).astype(int), 255) for n in elsewhere.shape)
    there = labels[np.ix_(rows, cols)]
    for index in np.unique(labels):
        if (there == index).sum() > 800:
            a, b = scene.sar[0][labels == index].mean(), elsewhere[there == index].mean()
            assert abs(10 * np.log10(a / b)) < 0.7, CLASS_NAMES[index]


def test_the_landscape_has_all_classes_in_sensible_shares(scenes):
    shares = np.mean([np.bincount(s.labels.ravel(), minlength=7) / s.labels.size for s in scenes], axis=0)
    by_name = dict(zip(CLASS_NAMES, shares, strict=True))
    assert all(share > 0.01 for share in shares), by_name
    assert max(by_name, key=by_name.get) == "farmland"
    assert by_name["farmland"] < 0.75


def test_the_landscape_is_made_of_areas_and_not_of_grains(scenes):
    for scene in scenes:
        alike = [np.mean(scene.labels[1:] == scene.labels[:-1]), np.mean(scene.labels[:, 1:] == scene.labels[:, :-1])]
        assert min(alike) > 0.9


@pytest.mark.brief
@pytest.mark.parametrize("share", [0.0, 0.1, 0.3, 0.6, 1.0])
@pytest.mark.parametrize("seed", [1, 2])
def test_clouds_and_shadows_cover_what_is_asked_and_the_mask_says_where(share, seed):
    clear = simulate_scene(SceneSpec(seed, 200, 240))
    scene = simulate_scene(SceneSpec(seed, 200, 240, cloud=share))
    assert np.mean(scene.clouds > 0) == pytest.approx(share, abs=0.02)
    assert set(np.unique(scene.clouds)) <= {0, 1, 2}
    changed = (scene.optical != clear.optical).any(axis=0)
    assert np.array_equal(changed, scene.clouds > 0)
    assert (scene.optical[:, scene.clouds == 2] < clear.optical[:, scene.clouds == 2]).all()
    if 0 < share < 1:
        covered = scene.clouds == 1
        assert scene.optical[:3, covered].mean() > 2 * clear.optical[:3, covered].mean()
        assert (scene.clouds == 2).any()


def test_water_is_dark_and_cities_are_bright_in_sar(scenes):
    def decibel(index):
        return 10 * np.log10(np.concatenate([s.sar[0][s.labels == index] for s in scenes]).mean())

    assert decibel(LandCover.WATER) < decibel(LandCover.FARMLAND) - 6
    assert decibel(LandCover.CITY) > decibel(LandCover.FARMLAND) + 3
    assert decibel(LandCover.ROAD) < decibel(LandCover.FARMLAND) - 2
