"""What each sensor can tell apart and what it can't, on flat test grounds of two materials; speckle; fields."""

from __future__ import annotations

import numpy as np
import pytest

from gopt_geo.simulate.fields import cell_hash, fractal_field, smooth_field
from gopt_geo.simulate.landscape import Landscape, make_landscape
from gopt_geo.simulate.materials import BACKSCATTER_DB, REFLECTANCE, LandCover, Material
from gopt_geo.simulate.optical import hillshade, render_optical
from gopt_geo.simulate.sar import backscatter, speckle

SHAPE = (96, 192)
LEFT, RIGHT = (slice(8, -8), slice(8, 88)), (slice(8, -8), slice(104, -8))


def ground(left, right, *, walls=False, height=None):
    """Two materials side by side, buildings on every other pixel of the left one if asked."""
    material = np.full(SHAPE, left, dtype=np.uint8)
    material[:, 96:] = right
    building = np.zeros(SHAPE, dtype=bool)
    building[::2, :96:2] = walls
    flat = np.zeros(SHAPE, dtype=np.float32)
    return Landscape(material, material, flat if height is None else height, building, flat, 10.0)


def contrast(image):
    """Difference of the two sides' means in units of the noise within one side (smallest over bands first axis)."""
    return np.array([abs(b[LEFT].mean() - b[RIGHT].mean()) / max(b[LEFT].std(), b[RIGHT].std()) for b in image])


@pytest.mark.brief
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_floating_plants_look_like_green_crops_to_the_eye_but_not_to_the_radar(seed):
    land = ground(Material.FLOATING_PLANTS, Material.CROP_GREEN)
    assert (contrast(render_optical(land, seed)[:3]) < 0.5).all()
    decibel = 10 * np.log10(speckle(backscatter(land, seed, 2), 4, seed))
    assert (contrast(decibel) > 1.5).all()


def test_floating_plants_look_like_open_water_to_the_radar_but_not_to_the_eye():
    """The wind roughens each scene's open water its own way, so the mean over scenes is compared."""
    land, seeds = ground(Material.FLOATING_PLANTS, Material.WATER), range(24)
    decibels = [10 * np.log10(speckle(backscatter(land, s, 1), 4, s)) for s in seeds]
    assert abs(np.mean([d[0][LEFT].mean() - d[0][RIGHT].mean() for d in decibels])) < 2.0
    assert np.mean([contrast(render_optical(land, s)[1:2])[0] for s in seeds]) > 2


@pytest.mark.brief
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_buildings_on_the_same_ground_are_seen_by_the_radar_alone(seed):
    """A built-up block against a cleared one."""
    land = ground(Material.ROOF_GREY, Material.ROOF_GREY, walls=True)
    power = backscatter(land, seed, 1)[0]
    assert power[LEFT].mean() > 2 * power[RIGHT].mean()
    bare = ground(Material.ROOF_GREY, Material.ROOF_GREY)
    assert np.array_equal(render_optical(land, seed), render_optical(bare, seed))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (Material.CROP_RIPE, Material.ROCK),
        (Material.SOIL_MOIST, Material.TREE),
        (Material.CROP_GREEN, Material.CROP_RIPE),
    ],
)
def test_some_materials_are_seen_apart_by_the_optical_sensor_alone(one, other):
    """The scene's own spectra and backscatters vary, so the mean over scenes is compared."""
    seeds = range(6)
    land = ground(one, other)
    optical = np.mean([contrast(render_optical(land, s)[:3]).max() for s in seeds])
    radar = np.mean([contrast(10 * np.log10(speckle(backscatter(land, s, 1), 4, s))).max() for s in seeds])
    assert optical > 2
    assert radar < 0.7


def test_every_material_has_plausible_numbers():
    assert REFLECTANCE.shape == (len(Material), 4)
    assert ((REFLECTANCE > 0) & (REFLECTANCE < 0.6)).all()
    assert ((BACKSCATTER_DB > -30) & (BACKSCATTER_DB < 0)).all()
    assert (BACKSCATTER_DB[:, 0] > BACKSCATTER_DB[:, 1]).all()  # VV above VH


@pytest.mark.brief
@pytest.mark.parametrize("looks", [1.0, 4.0, 16.5])
def test_speckle_has_mean_one_and_variance_one_over_looks(looks):
    drawn = speckle(np.full((400, 400), 0.25, dtype=np.float32), looks, 3) / 0.25
    assert drawn.mean() == pytest.approx(1.0, abs=0.01)
    assert drawn.var() == pytest.approx(1 / looks, rel=0.03)
    assert abs(np.corrcoef(drawn[:, 1:].ravel(), drawn[:, :-1].ravel())[0, 1]) < 0.01


def test_walls_fold_over_towards_the_sensor_on_the_left():
    building = np.zeros(SHAPE, dtype=bool)
    building[:, 100] = True
    land = ground(Material.GRASS, Material.GRASS)
    land = Landscape(land.label, land.material, land.height, building, land.tone, 10.0)
    bare = ground(Material.GRASS, Material.GRASS)
    more = (backscatter(land, 1, 1) - backscatter(bare, 1, 1))[0].mean(axis=0)
    assert more[100] > more[99] > more[98] > 0
    assert more[101] == pytest.approx(0, abs=1e-6)
    assert more[95] == pytest.approx(0, abs=1e-6)


def test_slopes_that_face_the_sensor_are_brighter():
    ridge = np.minimum(np.arange(192), 191 - np.arange(192)).astype(np.float32) * 2  # rises to the middle, then falls
    power = backscatter(ground(Material.TREE, Material.TREE, height=np.tile(ridge, (96, 1))), 1, 1)[0]
    assert power[LEFT].mean() > 1.5 * power[RIGHT].mean()


def test_slopes_that_face_the_sun_are_brighter():
    rises_east = np.tile(np.arange(20, dtype=np.float32), (20, 1))
    sun_in_west, sun_in_east = (hillshade(rises_east, 10.0, np.deg2rad(a), 0.8) for a in (270, 90))
    assert (sun_in_west > 1).all()
    assert (sun_in_east < 1).all()
    flat = hillshade(np.zeros((5, 5), dtype=np.float32), 10.0, 1.0, 0.8)
    np.testing.assert_allclose(flat, 1.0, rtol=1e-6)


def test_features_keep_their_size_on_the_ground():
    """Twice as fine pixels show borders half as dense, not another kind of land."""
    coarse, fine = make_landscape((300, 300), 10.0, 9103), make_landscape((600, 600), 5.0, 9103)

    def borders(land):
        return np.mean(land.label[:, 1:] != land.label[:, :-1])

    assert 1.4 < borders(coarse) / borders(fine) < 2.8


def test_a_landscape_is_consistent():
    land = make_landscape((300, 300), 10.0, 9101)
    assert (land.label[land.material == Material.FLOATING_PLANTS] == LandCover.WATER).all()
    assert np.isin(land.label[land.building], (LandCover.CITY, LandCover.VILLAGE)).all()
    assert np.isin(land.material[land.label == LandCover.FOREST], (Material.TREE,)).all()
    assert np.isfinite(land.height).all()
    assert (land.height > 0).all()


@pytest.mark.parametrize("scale", [0.5, 3.0, 40.0])
def test_fields_have_zero_mean_and_unit_variance(scale):
    rng = np.random.default_rng(0)
    values = np.stack([smooth_field(rng, (20, 30), scale)[::10, ::15] for _ in range(600)])
    assert abs(values.mean()) < 0.1
    assert values.var() == pytest.approx(1.0, abs=0.1)
    fractal = np.stack([fractal_field(rng, (20, 20), scale)[::19, ::19] for _ in range(400)])
    assert fractal.var() == pytest.approx(1.0, abs=0.15)


def test_cell_hashes_are_uniform_and_tell_neighbours_and_seeds_apart():
    rows, cols = np.meshgrid(np.arange(-150, 150), np.arange(-150, 150), indexing="ij")
    draw = cell_hash(1, rows, cols)
    assert ((draw >= 0) & (draw < 1)).all()
    assert np.histogram(draw, 10)[0].std() < 0.05 * draw.size / 10
    for other in (cell_hash(2, rows, cols), cell_hash(1, rows + 1, cols), cell_hash(1, cols, rows)):
        assert abs(np.corrcoef(draw.ravel(), other.ravel())[0, 1]) < 0.02
    assert np.array_equal(draw, cell_hash(1, rows, cols))
