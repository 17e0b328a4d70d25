"""Synthetic optical + SAR + label scenes, for tests, the demo and controlled experiments."""

from gopt_geo.simulate.materials import CLASS_COLORS, CLASS_NAMES, CLASS_VALUES, LandCover
from gopt_geo.simulate.scenes import SceneSpec, SimulatedScene, simulate_scene, write_scene

__all__ = [
    "CLASS_COLORS",
    "CLASS_NAMES",
    "CLASS_VALUES",
    "LandCover",
    "SceneSpec",
    "SimulatedScene",
    "simulate_scene",
    "write_scene",
]
