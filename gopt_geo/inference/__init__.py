"""Tiled inference: tile plan, blending, the read -> forward -> blend pipeline; knows no file format."""

from gopt_geo.inference.blend import BlendedRows, BlendKind, LikelyRows, blend_window, most_likely
from gopt_geo.inference.engine import RunReport, TileOptions, TileProgress, run_tiles
from gopt_geo.inference.forward import TileModel
from gopt_geo.inference.reading import BlockSource
from gopt_geo.inference.tiles import TilePlan

__all__ = [
    "BlendKind",
    "BlendedRows",
    "BlockSource",
    "LikelyRows",
    "RunReport",
    "TileModel",
    "TileOptions",
    "TilePlan",
    "TileProgress",
    "blend_window",
    "most_likely",
    "run_tiles",
]
