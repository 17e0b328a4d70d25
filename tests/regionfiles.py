"""Files of regions for tests, and what is said when they are refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import geopandas
import pytest
import shapely
from pyproj import CRS

from gopt_geo.batch.regions import read_regions
from gopt_geo.errors import BatchError

WGS84, UTM = CRS.from_epsg(4326), CRS.from_epsg(32632)
SQUARE = shapely.box(9, 50, 9.1, 50.1)
HOLED = SQUARE.difference(shapely.box(9.02, 50.02, 9.04, 50.04))
TWO = shapely.MultiPolygon([SQUARE, shapely.box(9.2, 50, 9.3, 50.1)])
BOW_TIE = shapely.Polygon([(9, 50), (9.1, 50.1), (9.1, 50), (9, 50.1)])

Row = dict[str, Any]


def collection(path: Path, *features: tuple[Row, Any], **further: Any) -> Path:
    """Write GeoJSON by hand: columns and a geometry a feature, a shape or as it stands in the file."""
    listed = [
        {
            "type": "Feature",
            "properties": row,
            "geometry": shapely.geometry.mapping(shape) if isinstance(shape, shapely.Geometry) else shape,
        }
        for row, shape in features
    ]
    path.write_text(json.dumps({"type": "FeatureCollection", "features": listed, **further}))
    return path


def table(path: Path, rows: list[Row], shapes: list[Any], crs: CRS | None = WGS84) -> Path:
    frame = geopandas.GeoDataFrame(rows, geometry=shapes, crs=crs)
    if path.suffix in (".parquet", ".geoparquet"):
        frame.to_parquet(path)
    else:
        frame.to_file(path, driver={".json": "GeoJSON"}.get(path.suffix))
    return path


def refusal(path: Path, *words: str, **how: Any) -> str:
    with pytest.raises(BatchError) as caught:
        read_regions(path, **how)
    text = str(caught.value)
    assert "\n" not in text
    for word in (path.name, *words):
        assert word in text, text
    return text
