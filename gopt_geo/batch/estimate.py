"""What a batch is going to take: pixels by area, time by what earlier regions took, and disk space at most."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import shapely
from pyproj import Geod, Transformer

from gopt_geo.batch.jobs import JobMaker
from gopt_geo.batch.planning import Plan

if TYPE_CHECKING:
    from gopt_geo.batch.regions import Region

__all__ = ["Estimate", "estimate"]


@dataclass(frozen=True)
class Estimate:
    """What is left to do.

    Attributes
    ----------
    regions
        To be mapped.
    pixels
        Of their maps, about; None where no pixel size is known.
    seconds
        Of one worker, from the pixels that this folder's earlier regions took; None without any.
    size
        Bytes of the results, from those of earlier regions; None without any.
    """

    regions: int
    pixels: int | None
    seconds: float | None
    size: int | None


def estimate(plan: Plan, make: JobMaker, records: Mapping[str, Mapping[str, Any]]) -> Estimate:
    """Estimate what a plan takes.

    Parameters
    ----------
    plan
        From `gopt_geo.batch.planning.make_plan`.
    make
        Of its jobs.
    records
        Of the folder's manifest.
    """
    shares = [_pixels(todo.region, make) for todo in plan.todo]
    pixels = sum(share for share in shares if share is not None) if None not in shares else None
    done = [record for record in records.values() if record.get("status") == "done" and record.get("pixels")]
    mapped = sum(record["pixels"] for record in done)
    seconds = sum(record.get("seconds", 0.0) for record in done)
    size = sum(one["size"] for record in done for one in record.get("outputs", ()))
    known = pixels is not None and mapped > 0
    return Estimate(
        regions=len(plan.todo),
        pixels=round(pixels) if pixels is not None else None,
        seconds=pixels * seconds / mapped if known and pixels is not None else None,
        size=round(pixels * size / mapped) if known and pixels is not None else None,
    )


def _pixels(region: Region, make: JobMaker) -> float | None:
    """Pixels of the window around a region, about."""
    edge = make.pixel_size(region)
    if edge is None:
        return None
    west, south, east, north = _bounds(region)
    geod = Geod(ellps="WGS84")
    middle = (south + north) / 2
    width = geod.line_length([west, (west + east) / 2, east], [middle] * 3)
    height = geod.line_length([west, west], [south, north])
    return float(width * height / edge**2)


def _bounds(region: Region) -> tuple[float, float, float, float]:
    """Bounds in longitude and latitude."""
    transformer = Transformer.from_crs(region.crs, "EPSG:4326", always_xy=True)
    west, south, east, north = transformer.transform_bounds(*shapely.bounds(region.geometry))
    return float(west), float(south), float(east), float(north)
