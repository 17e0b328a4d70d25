"""The landscape as a C-band SAR sees it: backscatter in power, with speckle, corner reflections and layover."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from gopt_geo.simulate.fields import smooth_field
from gopt_geo.simulate.landscape import Landscape
from gopt_geo.simulate.materials import BACKSCATTER_DB, Material

__all__ = ["SAR_BANDS", "backscatter", "speckle"]

Float = NDArray[np.float32]

SAR_BANDS = ("VV", "VH")


def backscatter(land: Landscape, seed: int, bands: int) -> Float:
    """Mean backscatter of the ground, before speckle.

    The radar looks from the left: slopes that face it are brighter, walls return corner reflections, and tall
    ones fold over towards the sensor as short bright streaks.

    Parameters
    ----------
    land
        The landscape.
    seed
        Seed of the scene.
    bands
        1 (VV) or 2 (VV, VH).

    Returns
    -------
    float32 [bands, H, W], power.
    """
    rng = np.random.default_rng(np.random.SeedSequence((seed, 3)))
    shape = land.label.shape
    table = BACKSCATTER_DB + rng.normal(0.0, 0.6, (len(Material), 1))
    decibel = table.astype(np.float32)[land.material].transpose(2, 0, 1)[:bands]
    # Soil moisture and roughness differ from parcel to parcel and within it; the wind roughens open water.
    field = 3.2 * land.tone + 0.7 * smooth_field(rng, shape, 120.0 / land.pixel_size)
    wind = 1.6 * smooth_field(rng, shape, 700.0 / land.pixel_size) * (land.material == Material.WATER)
    slope = np.gradient(land.height, land.pixel_size, axis=1) if shape[1] > 1 else np.zeros(shape, np.float32)
    facing = np.clip(9.0 * slope, -4.0, 5.0)  # the side that rises away from a radar on the left faces it
    power = np.power(np.float32(10.0), (decibel + field + wind + facing) / 10.0)
    return np.asarray(power + _corner_reflections(land, rng, bands), dtype=np.float32)


def _corner_reflections(land: Landscape, rng: np.random.Generator, bands: int) -> Float:
    """Power that walls send back, [bands, H, W]: few strong, many weak, spread towards the sensor."""
    shape = land.label.shape
    # An exponential law of strength; a wall returns the more the better it faces the radar, which chance decides.
    strength = 0.55 * rng.exponential(1.0, shape) * (rng.uniform(size=shape) < 0.5) * land.building
    streak = strength.copy()
    reach = max(round(25.0 / land.pixel_size), 1)
    for step in range(1, reach + 1):
        streak[:, :-step] += strength[:, step:] * 0.5**step
    cross_polarised = np.array([1.0, 0.16], dtype=np.float32)[:bands]
    return np.asarray(cross_polarised[:, None, None] * streak, dtype=np.float32)


def speckle(power: Float, looks: float, seed: int) -> Float:
    """Multiply by gamma-distributed speckle of mean 1 and variance 1 / looks.

    Parameters
    ----------
    power
        Mean backscatter in power, any shape.
    looks
        Equivalent number of looks, above 0; each value is drawn on its own.
    seed
        Seed of the scene.
    """
    rng = np.random.default_rng(np.random.SeedSequence((seed, 4)))
    return np.asarray(power * rng.gamma(looks, 1.0 / looks, power.shape), dtype=np.float32)
