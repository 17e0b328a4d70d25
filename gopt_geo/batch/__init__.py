"""Maps of many regions on a dask cluster: `run`, and what it gives."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gopt_geo.batch.clusters import connect
    from gopt_geo.batch.finding import open_finder
    from gopt_geo.batch.regions import Region, read_regions
    from gopt_geo.batch.results import BatchProgress, BatchRun, RegionResult
    from gopt_geo.batch.running import run
    from gopt_geo.batch.together import mosaic_maps

__all__ = [
    "BatchProgress",
    "BatchRun",
    "Region",
    "RegionResult",
    "connect",
    "mosaic_maps",
    "open_finder",
    "read_regions",
    "run",
]

_ROOMS = {
    "BatchProgress": "results",
    "BatchRun": "results",
    "Region": "regions",
    "RegionResult": "results",
    "connect": "clusters",
    "mosaic_maps": "together",
    "open_finder": "finding",
    "read_regions": "regions",
    "run": "running",  # a room called run would stand in the function's place once it is imported
}


def __getattr__(name: str) -> Any:
    """Load what is used when it is first used."""
    if name not in _ROOMS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"gopt_geo.batch.{_ROOMS[name]}"), name)
    globals()[name] = value
    return value
