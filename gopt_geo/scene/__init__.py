"""Sources brought onto one grid: validity, units and one warp each."""

from gopt_geo.scene.clouds import CloudMask
from gopt_geo.scene.mosaic import SceneMosaic
from gopt_geo.scene.radiometry import OpticalUnits, Radiometry, SarUnits, Units, plan_radiometry
from gopt_geo.scene.scene import Scene, SceneBlock, SourceSpec, open_scene
from gopt_geo.scene.source import RasterSource
from gopt_geo.scene.warp import BLOCK, AlignedSource

__all__ = [
    "BLOCK",
    "AlignedSource",
    "CloudMask",
    "OpticalUnits",
    "Radiometry",
    "RasterSource",
    "SarUnits",
    "Scene",
    "SceneBlock",
    "SceneMosaic",
    "SourceSpec",
    "Units",
    "open_scene",
    "plan_radiometry",
]
