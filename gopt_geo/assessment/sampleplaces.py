"""Where the units of a sample lie on a map, and the strata they were drawn from."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gopt_geo.aoi import Aoi
from gopt_geo.assessment.frame import NO_CLASS, FrameStrata, MapFrame
from gopt_geo.assessment.samplefile import UnitTable, map_check
from gopt_geo.errors import SampleError

__all__ = ["Placed", "place_units"]

_Int = NDArray[np.int64]


@dataclass(frozen=True)
class Placed:
    """Units on a map.

    Attributes
    ----------
    mapped
        int64 [n]: the map's class at each unit.
    strata
        What was sampled.
    members
        int64 [n]: which stratum each unit was drawn from, as an index.
    lost
        Units that were drawn and have no row any more.
    """

    mapped: _Int
    strata: FrameStrata
    members: _Int
    lost: int = 0


def place_units(table: UnitTable, frame: MapFrame, aoi: Aoi | None, *, other_strata: bool = False) -> Placed:
    """Look units up on a map, after a check that they were drawn from it.

    Parameters
    ----------
    table
        The units.
    frame
        The map, in the area of a blind sample.
    aoi
        The area, where one was named.
    other_strata
        The units were drawn from another map: they are looked up by their coordinates.

    Raises
    ------
    SampleError
        If the sample isn't this map's or this area's, isn't whole, or a pixel is in it twice.
    """
    _check_twice(table)
    if other_strata:
        if table.stratum is None:
            found = "it is blind, and doesn't tell the strata of another map"
            raise SampleError(table.name, found, "give a sample drawn without --blind")
        if aoi is not None:
            found = "with strata of another map, the area is the one that the sample was drawn in"
            raise SampleError("--aoi", found, "leave it out")
        return Placed(_elsewhere(table, frame), *_told_strata(table), _lost(table))
    mapped = frame.at(table.rows, table.cols)
    if table.stratum is None:
        return Placed(mapped, *_counted_strata(table, frame, mapped))
    strata, members = _told_strata(table)
    if aoi is not None:
        counted = frame.strata()
        if not (np.array_equal(counted.values, strata.values) and np.array_equal(counted.pixels, strata.pixels)):
            found = f"the sample was drawn from other ground, or from another map than {frame.name}"
            raise SampleError("--aoi", found, "give the same area, or leave it out")
    differ = int((mapped != table.stratum).sum())
    if differ:
        found = f"{differ} of {len(mapped)} sampled pixels have another class than in {table.map}, which was sampled"
        raise SampleError(frame.name, found, "give that map; of another one with its strata, say --other-strata")
    names = tuple(frame.class_name(value) for value in strata.values.tolist())
    strata = FrameStrata(strata.values, strata.pixels, strata.areas, names)
    return Placed(mapped, strata, members, _lost(table))


def _told_strata(table: UnitTable) -> tuple[FrameStrata, _Int]:
    """Return the strata as the rows tell them, after a check that the rows agree and that no stratum is missing."""
    assert table.stratum is not None
    assert table.stratum_pixels is not None
    assert table.stratum_areas is not None
    values, first, members = np.unique(table.stratum, return_index=True, return_inverse=True)
    pixels, areas = table.stratum_pixels[first], table.stratum_areas[first]
    if not (
        np.array_equal(pixels[members], table.stratum_pixels)
        and np.allclose(areas[members], table.stratum_areas, rtol=1e-9, atol=0, equal_nan=True)
    ):
        found = "rows of one stratum tell different sizes of it"
        raise SampleError(table.name, found, "give the units of one sample, unchanged")
    if pixels.sum() != table.frame_pixels:
        found = f"its rows' strata make up {pixels.sum()} of {table.frame_pixels} pixels: all units of one are missing"
        raise SampleError(table.name, found, "give the sample whole")
    names = tuple(f"class {value}" for value in values.tolist())
    return FrameStrata(values, pixels, areas, names), members


def _counted_strata(table: UnitTable, frame: MapFrame, mapped: _Int) -> tuple[FrameStrata, _Int]:
    """Return the strata of a blind sample as the map tells them, after a check that it is the map."""
    if table.check != map_check(frame, table.rows, table.cols):
        found = (
            f"it isn't the map that was sampled ({table.map}), or units of the blind sample {table.name} are missing"
        )
        raise SampleError(frame.name, found, "give that map and the sample whole; leave units without entry in it")
    strata = frame.strata()
    if strata.pixels.sum() != table.frame_pixels or (mapped == NO_CLASS).any():
        found = f"a blind sample of {table.frame_pixels} pixels of ground, and here are {strata.pixels.sum()}"
        raise SampleError(table.name, found, "give the --aoi that it was drawn in")
    return strata, np.searchsorted(strata.values, mapped)


def _elsewhere(table: UnitTable, frame: MapFrame) -> _Int:
    """Return the map's classes at the coordinates of units that were drawn from another map."""
    from pyproj import Transformer

    if not np.isfinite(table.points).all() or table.crs is None or frame.grid.crs is None:
        without = frame.name if frame.grid.crs is None else table.name
        raise SampleError(without, "it has no place on the ground (geometries, CRS)", "give one with a CRS")
    x, y = Transformer.from_crs(table.crs, frame.grid.crs.proj, always_xy=True).transform(*table.points.T)
    a, b, c, d, e, f = (~frame.grid.affine)[:6]
    cols, rows = a * x + b * y + c, d * x + e * y + f
    inside = np.isfinite(rows) & np.isfinite(cols)
    row, col = (np.where(inside, np.floor(np.where(inside, v, 0)), -1).astype(np.int64) for v in (rows, cols))
    mapped = frame.at(row, col)
    beyond = int((mapped == NO_CLASS).sum())
    if beyond:
        found = f"it has no class at {beyond} of {len(mapped)} units of {table.name}"
        raise SampleError(frame.name, found, "give a map of all the ground that was sampled")
    return mapped


def _check_twice(table: UnitTable) -> None:
    places = np.stack((table.rows, table.cols), axis=1)
    unique, counts = np.unique(places, axis=0, return_counts=True)
    if len(unique) < len(places):
        row, col = unique[counts.argmax()].tolist()
        found = f"the pixel in row {row}, column {col} is in it {counts.max()} times"
        raise SampleError(table.name, found, "keep one of them")


def _lost(table: UnitTable) -> int:
    """Count drawn units without a row: their number follows from the inclusion probabilities, if those are there."""
    if table.stratum is None or table.stratum_pixels is None or table.inclusion is None:
        return 0
    _, first, counts = np.unique(table.stratum, return_index=True, return_counts=True)
    drawn = np.nan_to_num(np.rint(table.stratum_pixels[first] * table.inclusion[first]))
    return int(np.maximum(drawn - counts, 0).sum())
