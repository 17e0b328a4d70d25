"""Geometries of regions: polygons that can be mapped, all of a file looked at together."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import numpy as np
import shapely
from numpy.typing import NDArray
from pyproj import CRS

from gopt_geo.batch.regionfile import FeatureFault
from gopt_geo.shapes import units_per_degree

__all__ = ["distinct", "places", "shape_faults"]

_POLYGONS = (int(shapely.GeometryType.POLYGON), int(shapely.GeometryType.MULTIPOLYGON))
_LITTLE = 1e-9  # degrees; rounding takes coordinates that far beyond the poles


def shape_faults(shapes: NDArray[np.object_], crs: Sequence[CRS]) -> list[tuple[int, FeatureFault]]:
    """Tell what is wrong with geometries without heights, each with its index.

    Parameters
    ----------
    shapes
        Object [n]; None where there is none.
    crs
        That of each.
    """
    missing = shapely.is_missing(shapes) | shapely.is_empty(shapes)
    polygons = np.isin(shapely.get_type_id(shapes), _POLYGONS)
    bounds = shapely.bounds(shapes)
    spans = {key: _span(one) for key, one in distinct(crs).items()}
    with np.errstate(invalid="ignore"):
        beyond = np.abs(bounds) > np.array([spans[id(one)] for one in crs], float).reshape(-1, 4)
    faults = []
    points, owners = shapely.get_coordinates(shapes, return_index=True)
    endless = np.zeros(len(shapes), bool)
    endless[owners[~np.isfinite(points).all(axis=1)]] = True
    sound = polygons & ~missing & ~endless
    invalid = np.zeros(len(shapes), bool)
    invalid[sound] = ~shapely.is_valid(shapes[sound])
    for index in np.flatnonzero(missing | ~polygons | endless | invalid | beyond.any(axis=1)).tolist():
        shape = shapes[index]
        if missing[index]:
            found, remedy = "its geometry is empty" if shape is not None else "it has no geometry", "draw its polygon"
        elif not polygons[index]:
            found, remedy = f"its geometry is a {shape.geom_type}", "give a polygon, such as a buffer around it"
        elif endless[index]:
            found, remedy = "some of its coordinates aren't finite", "correct them"
        elif invalid[index]:
            found = f"its geometry is invalid ({shapely.is_valid_reason(shape)})"
            remedy = "repair it, as with Fix geometries of QGIS or shapely.make_valid"
        else:
            found = f"it reaches beyond the longitudes or latitudes that are possible in {crs[index].name}"
            remedy = "state the CRS of its coordinates; longitude comes first"
        faults.append((index, FeatureFault(found, remedy)))
    return faults


def distinct(crs: Iterable[CRS]) -> dict[int, CRS]:
    """Return each object once: to compare CRSs is slow, and those of a file are one."""
    return {id(one): one for one in crs}


def _span(crs: CRS) -> tuple[float, float, float, float]:
    """Return the largest absolute values that bounds may have: a turn either way, for both conventions of longitude."""
    unit = units_per_degree(crs)
    if not unit:
        return (math.inf,) * 4
    return (360 * unit, (90 + _LITTLE) * unit) * 2


def places(crs: object) -> bool:
    """Tell whether something is a CRS that places things on the ground."""
    return isinstance(crs, CRS) and (crs.is_geographic or crs.is_projected)
