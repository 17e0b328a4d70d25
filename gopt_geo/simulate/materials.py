"""What the ground is made of: class legend, and each material's optical reflectance and SAR backscatter.

Reflectances (red, green, blue, near infrared; 0 to 1) and C-band backscatter (gamma0, dB, VV and VH) are typical
values of the remote-sensing literature, rounded; a simulation needs plausible contrasts, not a spectral library.
"""

from __future__ import annotations

from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

__all__ = ["BACKSCATTER_DB", "CLASS_COLORS", "CLASS_NAMES", "CLASS_VALUES", "REFLECTANCE", "LandCover", "Material"]


class LandCover(IntEnum):
    """The seven classes of WHU-OPT-SAR, by index."""

    FARMLAND = 0
    CITY = 1
    VILLAGE = 2
    WATER = 3
    FOREST = 4
    ROAD = 5
    OTHERS = 6


CLASS_NAMES = tuple(c.name.lower() for c in LandCover)
CLASS_VALUES = (10, 20, 30, 40, 50, 60, 70)  # WHU-OPT-SAR's encoding; 0 is "no label"
CLASS_COLORS = ("#e3c567", "#d1344b", "#f08a4b", "#3b7dd8", "#2f7d4f", "#6b6b6b", "#b9a7c9")


class Material(IntEnum):
    """What a pixel is covered with; several materials make up a class, and some occur in several classes."""

    WATER = 0
    FLOATING_PLANTS = 1
    CROP_GREEN = 2
    CROP_RIPE = 3
    SOIL = 4
    SOIL_MOIST = 5
    TREE = 6
    GRASS = 7
    ROOF_BRIGHT = 8
    ROOF_RED = 9
    ROOF_GREY = 10
    ASPHALT = 11
    CONCRETE = 12
    SAND = 13
    ROCK = 14
    SHED = 15
    CROP_DARK = 16


_TABLE: dict[Material, tuple[float, ...]] = {
    #                            red   green  blue  NIR    VV     VH
    Material.WATER: (0.035, 0.050, 0.055, 0.025, -20.0, -27.0),
    # Lotus, duckweed and water hyacinth look like a green crop; the water under them is as smooth as open water.
    Material.FLOATING_PLANTS: (0.050, 0.090, 0.040, 0.340, -19.0, -26.0),
    Material.CROP_GREEN: (0.050, 0.090, 0.040, 0.360, -10.5, -16.5),
    Material.CROP_RIPE: (0.160, 0.145, 0.085, 0.280, -11.0, -17.5),
    Material.SOIL: (0.180, 0.140, 0.105, 0.230, -12.0, -19.5),
    Material.SOIL_MOIST: (0.085, 0.070, 0.055, 0.120, -10.0, -18.0),
    Material.TREE: (0.030, 0.050, 0.030, 0.290, -9.0, -14.0),
    Material.GRASS: (0.075, 0.105, 0.060, 0.320, -12.5, -19.0),
    Material.ROOF_BRIGHT: (0.300, 0.290, 0.270, 0.330, -11.0, -18.0),
    Material.ROOF_RED: (0.220, 0.140, 0.110, 0.250, -11.0, -18.0),
    Material.ROOF_GREY: (0.150, 0.150, 0.150, 0.180, -11.0, -18.0),
    Material.ASPHALT: (0.105, 0.105, 0.105, 0.130, -16.5, -24.0),
    Material.CONCRETE: (0.240, 0.230, 0.210, 0.270, -13.0, -21.0),
    Material.SAND: (0.320, 0.280, 0.220, 0.360, -15.0, -23.0),
    Material.ROCK: (0.220, 0.200, 0.180, 0.240, -11.0, -18.5),
    # Greenhouses and garden sheds: as bright as roofs, but low, of plastic or wood: no corner reflection.
    Material.SHED: (0.210, 0.165, 0.140, 0.250, -10.5, -17.0),
    # Maize, hops and sunflower before harvest: as dark as a wood, but smooth, and in straight-sided fields.
    Material.CROP_DARK: (0.032, 0.053, 0.031, 0.300, -9.5, -15.0),
}

REFLECTANCE: NDArray[np.float32] = np.array([_TABLE[m][:4] for m in Material], dtype=np.float32)
BACKSCATTER_DB: NDArray[np.float32] = np.array([_TABLE[m][4:] for m in Material], dtype=np.float32)
