"""Stratified random samples of a map's pixels, without replacement.

Every pixel has a random number of 64 bits, a bijection of its place in the map that the seed chooses (the finaliser of
SplitMix64: Steele, Lea and Flood 2014). Of each stratum the pixels with the smallest numbers are drawn: a simple random
sample, for all orders of the numbers are alike. It depends on the seed and the map alone, never on blocks, threads or
the order of reading; two numbers are never equal; and a larger sample of the same seed holds the smaller one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gopt_geo.assessment.frame import NO_CLASS, FrameStrata, MapFrame
from gopt_geo.grid import Window

__all__ = ["DrawnUnits", "draw_units"]

_UInt = NDArray[np.uint64]
_GAMMA, _FIRST, _SECOND = (np.uint64(n) for n in (0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB))
_ALL = np.uint64(2**64 - 1)


@dataclass(frozen=True)
class DrawnUnits:
    """Drawn pixels in random order.

    Attributes
    ----------
    rows, cols
        int64 [n]: places in the map.
    strata
        int64 [n]: which stratum each was drawn from, as an index.
    """

    rows: NDArray[np.int64]
    cols: NDArray[np.int64]
    strata: NDArray[np.int64]


def draw_units(
    frame: MapFrame,
    strata: FrameStrata,
    units: NDArray[np.int64],
    seed: int,
    progress: Callable[[int, int], None] | None = None,
) -> DrawnUnits:
    """Draw a stratified random sample of pixels in one pass.

    Parameters
    ----------
    frame
        The map and the area.
    strata
        The frame's.
    units
        How many to draw of each stratum, [H]; at most its pixels.
    seed
        0 or above.
    progress
        Called with the pixels done and all pixels.
    """
    first, second, third = np.random.SeedSequence(seed).generate_state(3, np.uint64)
    width = frame.grid.shape[1]
    index_of = np.full(NO_CLASS + 1, -1, np.int64)
    index_of[strata.values] = np.arange(len(strata.values))
    pools = [_Smallest(int(count)) for count in units]
    limits = np.zeros(NO_CLASS + 1, np.uint64)  # by class value; a pixel above its class's limit can't be drawn
    limits[strata.values[units > 0]] = _ALL
    for window, values in frame.blocks(progress):
        places, numbers = _numbers(window, width, first, second)
        possible = (numbers <= limits[values]) & (index_of[values] >= 0)
        found, classes = numbers[possible], values[possible]
        for value in np.unique(classes).tolist():
            own = classes == value
            pool = pools[index_of[value]]
            pool.add(found[own], places[possible][own])
            limits[value] = pool.limit
    drawn = [pool.finish() for pool in pools]
    places = np.concatenate(drawn)
    stratum = np.repeat(np.arange(len(drawn)), [len(part) for part in drawn])
    order = np.argsort(_mix(_mix(places * _GAMMA + third) ^ first), kind="stable")
    rows, cols = np.divmod(places[order].astype(np.int64), width)
    return DrawnUnits(rows, cols, stratum[order])


def _mix(numbers: _UInt) -> _UInt:
    """Scramble numbers of 64 bits, each to another one."""
    numbers = (numbers ^ (numbers >> np.uint64(30))) * _FIRST
    numbers = (numbers ^ (numbers >> np.uint64(27))) * _SECOND
    return numbers ^ (numbers >> np.uint64(31))


def _numbers(window: Window, width: int, first: np.uint64, second: np.uint64) -> tuple[_UInt, _UInt]:
    """Return places in the map and random numbers of a window's pixels, uint64 [h, w]."""
    rows = np.arange(window.row, window.row_stop, dtype=np.uint64)[:, None]
    cols = np.arange(window.col, window.col_stop, dtype=np.uint64)
    places = rows * np.uint64(width) + cols
    return places, _mix(_mix(places * _GAMMA + first) ^ second)


class _Smallest:
    """Keeps the n smallest numbers and their places; memory is bounded by n and what one block adds."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._numbers = np.empty(0, np.uint64)
        self._places = np.empty(0, np.uint64)
        self.limit = _ALL

    def add(self, numbers: _UInt, places: _UInt) -> None:
        self._numbers = np.concatenate((self._numbers, numbers))
        self._places = np.concatenate((self._places, places))
        if len(self._numbers) > self._count:
            kept = np.argpartition(self._numbers, self._count - 1)[: self._count]
            self._numbers, self._places = self._numbers[kept], self._places[kept]
            self.limit = self._numbers.max()

    def finish(self) -> _UInt:
        return self._places[np.argsort(self._numbers)]
