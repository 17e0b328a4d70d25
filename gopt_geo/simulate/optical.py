"""The landscape as an optical sensor sees it: red, green, blue and near-infrared reflectance, clouds and shadows."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from gopt_geo.simulate.fields import fractal_field, smooth_field
from gopt_geo.simulate.landscape import Landscape
from gopt_geo.simulate.materials import REFLECTANCE, Material

__all__ = ["OPTICAL_BANDS", "add_clouds", "hillshade", "render_optical"]

Float = NDArray[np.float32]

_SHADOW_REACH = 350.0  # metres, north or east, that a shadow lies away from its cloud at most

OPTICAL_BANDS = ("red", "green", "blue", "nir")


def hillshade(height: Float, pixel_size: float, azimuth: float, elevation: float) -> Float:
    """Cosine of the sun's angle to the surface normal, relative to flat ground; [H, W], about 1.

    Parameters
    ----------
    height
        Terrain height in metres, [H, W].
    pixel_size
        Pixel edge in metres.
    azimuth, elevation
        Of the sun, in radians; azimuth clockwise from the top of the image.
    """
    if min(height.shape) < 2:
        return np.ones_like(height)
    south, east = np.gradient(height, pixel_size)
    normal = np.sqrt(1.0 + south**2 + east**2)
    to_sun = (
        np.sin(elevation) + south * np.cos(elevation) * np.cos(azimuth) - east * np.cos(elevation) * np.sin(azimuth)
    )
    return np.asarray(np.maximum(to_sun, 0.15) / normal / np.sin(elevation), dtype=np.float32)


def render_optical(land: Landscape, seed: int) -> Float:
    """Render surface reflectance under one sun, one season and one air.

    Returns
    -------
    float32 [4, H, W], red, green, blue and near infrared, 0 to about 0.6.
    """
    rng = np.random.default_rng(np.random.SeedSequence((seed, 1)))
    shape = land.label.shape
    # Every scene has its own season and calibration: one spectrum a material and scene, not one for the world.
    spectra = REFLECTANCE * np.exp(rng.normal(0.0, 0.10, (len(Material), 1)))
    spectra = spectra * np.exp(rng.normal(0.0, 0.04, (len(Material), 4)))
    # A pond's plants are the same green as the scene's crops, whatever the season made of these.
    red_green_blue = spectra[Material.CROP_GREEN, :3]
    spectra[Material.FLOATING_PLANTS, :3] = red_green_blue
    grain = np.exp(0.11 * rng.standard_normal(shape)).astype(np.float32)
    patches = np.exp(land.tone + 0.07 * smooth_field(rng, shape, 30.0 / land.pixel_size))
    # Crowns and their shadows make forest coarse-grained where a field of one crop is smooth.
    crowns = np.exp(0.28 * rng.standard_normal(shape)).astype(np.float32)
    rough = np.isin(land.material, (Material.TREE,))
    light = hillshade(land.height, land.pixel_size, rng.uniform(2.1, 3.2), rng.uniform(0.7, 1.1))
    brightness = patches * np.where(rough, crowns, grain) * light
    haze = np.array([0.010, 0.014, 0.022, 0.004], dtype=np.float32) * rng.uniform(0.2, 1.2)
    scene = spectra.astype(np.float32)[land.material].transpose(2, 0, 1) * brightness
    # The sensor's point spread mixes neighbours; its noise comes after that.
    sigma = 5.0 / land.pixel_size
    scene = np.stack([ndimage.gaussian_filter(band, sigma) for band in scene]) + haze[:, None, None]
    scene += 0.004 * rng.standard_normal(scene.shape).astype(np.float32)
    return np.asarray(np.clip(scene, 0.001, 1.2), dtype=np.float32)


def add_clouds(scene: Float, pixel_size: float, share: float, seed: int) -> tuple[Float, NDArray[np.uint8]]:
    """Lay clouds and their shadows over a scene.

    Parameters
    ----------
    scene
        Reflectance, [4, H, W].
    pixel_size
        Pixel edge in metres.
    share
        Share of the scene under cloud or shadow, 0 to 1.
    seed
        Seed of the scene.

    Returns
    -------
    The cloudy scene, and a mask uint8 [H, W]: 0 clear, 1 cloud, 2 shadow.
    """
    shape = (scene.shape[1], scene.shape[2])
    mask = np.zeros(shape, dtype=np.uint8)
    if share <= 0:
        return scene, mask
    rng = np.random.default_rng(np.random.SeedSequence((seed, 2)))
    reach = int(np.ceil(_SHADOW_REACH / pixel_size))
    sky = fractal_field(rng, (shape[0] + 2 * reach, shape[1] + 2 * reach), 1400.0 / pixel_size, octaves=5, gain=0.5)
    north, east = (round(rng.uniform(150, _SHADOW_REACH) / pixel_size) for _ in range(2))
    field = sky[reach : reach + shape[0], reach : reach + shape[1]]
    # Clouds outside of the scene cast their shadows into it.
    cast = sky[reach + north : reach + north + shape[0], reach - east : reach - east + shape[1]]
    # Cloud and shadow overlap in part: the threshold is the one at which their union has the share asked for.
    threshold = float(np.quantile(np.maximum(field, cast), 1.0 - min(share, 1.0)))
    cloud, shadow = field > threshold, (cast > threshold) & (field <= threshold)
    thickness = np.clip(0.45 + 0.9 * (field - threshold), 0.45, 1.0) * cloud
    bright = 0.62 + 0.05 * smooth_field(rng, shape, 80.0 / pixel_size)
    covered = scene * np.where(shadow, 0.38, 1.0)
    covered = covered * (1 - thickness) + bright * thickness
    mask[shadow], mask[cloud] = 2, 1
    return covered.astype(np.float32), mask
