"""Files of regions for the benchmarks."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import geopandas
import rasterio
import shapely

__all__ = ["write_many", "write_same"]

_COLUMNS = 1000  # squares in a row
_EDGE = 0.01  # degrees


def write_same(path: Path, optical: Path, sar: Path, count: int) -> Path:
    """Write regions that all are the whole of one pair of scenes, in the optical one's CRS."""
    with rasterio.open(optical) as file:
        area, crs = shapely.box(*file.bounds), file.crs
    columns = {"id": [f"region{n:02}" for n in range(count)], "optical": str(optical), "sar": str(sar)}
    geopandas.GeoDataFrame(columns, geometry=[area] * count, crs=crs).to_file(path, driver="GPKG")
    return path


def write_many(path: Path, optical: Path, sar: Path, count: int) -> Path:
    """Write a GeoJSON of small squares side by side, all of one pair of scenes."""
    with path.open("w", encoding="utf-8") as file:
        file.write('{"type": "FeatureCollection", "features": [\n')
        file.writelines(_features(optical, sar, count))
        file.write("]}\n")
    return path


def _features(optical: Path, sar: Path, count: int) -> Iterator[str]:
    for number in range(count):
        row, column = divmod(number, _COLUMNS)
        west, south = -30 + column * _EDGE, -50 + row * _EDGE
        ring = [
            [round(west + east * _EDGE, 6), round(south + north * _EDGE, 6)]
            for east, north in ((0, 0), (1, 0), (1, 1), (0, 1), (0, 0))
        ]
        feature = {
            "type": "Feature",
            "properties": {"id": f"r{number:06}", "optical": optical.name, "sar": sar.name},
            "geometry": {"type": "Polygon", "coordinates": [ring]},
        }
        yield json.dumps(feature) + (",\n" if number + 1 < count else "\n")
