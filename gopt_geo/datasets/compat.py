"""What differs between the versions of torchgeo that are supported: the only module that asks for its version.

0.8 (Python 3.11) and 0.10 (3.12 and newer) agree in what the data sets here rest on: a `GeoDataset` is known to
samplers by its `index` (a GeoDataFrame over time intervals), `bounds` and `res`, and asked with slices of x, y and
time. They differ in the samplers' names, in whether a sample may hold anything but tensors, and in the type of some
errors.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import geopandas
import numpy as np
import pandas as pd
import pyproj
import shapely
import torchgeo
from torchgeo.datasets import GeoDataset

from gopt_geo.errors import DatasetError

__all__ = ["TORCHGEO", "GeoDataset", "Query", "grid_sampler", "make_index", "random_sampler", "resolve"]


def _version(text: str) -> tuple[int, int]:
    major, minor = text.split(".")[:2]
    return int(major), int(minor)


TORCHGEO = _version(torchgeo.__version__)
"""Major and minor version of the torchgeo at hand."""

Query = slice | tuple[slice] | tuple[slice, slice] | tuple[slice, slice, slice]
"""Slices of x, y and time, each with a start, a stop and a step; missing parts mean the data set's own."""


def make_index(boxes: list[tuple[float, float, float, float]], crs: pyproj.CRS) -> geopandas.GeoDataFrame:
    """Return an index for torchgeo's samplers: a row for each box (xmin, ymin, xmax, ymax), valid at all times."""
    times = pd.IntervalIndex.from_tuples(
        [(pd.Timestamp.min, pd.Timestamp.max)] * len(boxes), closed="both", name="datetime"
    )
    geometry = shapely.box(*np.asarray(boxes, np.float64).reshape(-1, 4).T)
    return geopandas.GeoDataFrame({"filepath": [""] * len(boxes)}, index=times, geometry=geometry, crs=crs)


def resolve(dataset: GeoDataset, query: Query) -> tuple[slice, slice]:
    """Fill what a query leaves out with the data set's bounds and resolution; return the slices of x and y."""
    if isinstance(query, tuple) and len(query) >= 2:
        x, y = query[0], query[1]
        if None not in (x.start, x.stop, y.start, y.stop):  # as samplers ask; bounds take pandas a while
            return x, y
    x, y, _ = dataset._disambiguate_slice(query)
    return x, y


@cache
def _samplers() -> tuple[type[Any], type[Any]]:
    from torchgeo import samplers

    return samplers.RandomGeoSampler, samplers.GridGeoSampler


def random_sampler(dataset: GeoDataset, size: int, length: int | None = None, **options: Any) -> Any:
    """Return torchgeo's sampler of random windows of `size` pixels; `options` are its own (generator, roi, toi).

    Raises
    ------
    DatasetError
        If the data set is smaller than a window, of which torchgeo would draw none.
    """
    sampler = _quietly(_samplers()[0], dataset, size=size, length=length, **options)
    return _checked(sampler, dataset, size, len(sampler.bounds))


def grid_sampler(dataset: GeoDataset, size: int, stride: int | None = None, **options: Any) -> Any:
    """Return torchgeo's sampler of windows of `size` pixels, `stride` apart; `options` are its own (roi, toi).

    Raises
    ------
    DatasetError
        If the data set is smaller than a window, of which torchgeo would draw none.
    """
    sampler = _quietly(_samplers()[1], dataset, size=size, stride=stride, **options)
    return _checked(sampler, dataset, size, len(sampler))


def _checked(sampler: Any, dataset: GeoDataset, size: int, found: int) -> Any:
    if found == 0:
        remedy = f"make it with tile_size={size}, which pads it"
        raise DatasetError(str(dataset).splitlines()[0], f"it has no window of {size} pixels", remedy)
    return sampler


def _quietly(kind: type[Any], dataset: GeoDataset, **options: Any) -> Any:
    """Make a sampler; 0.10 warns that its name will change, which is nothing to tell a user."""
    import warnings

    with warnings.catch_warnings():
        if TORCHGEO >= (0, 10):
            warnings.simplefilter("ignore", DeprecationWarning)
        return kind(dataset, **options)
