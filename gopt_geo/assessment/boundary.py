"""Boundary F1: how well the borders of a map's classes lie where the reference has them.

After Csurka, Larlus, Perronnin and Meylan (2013), "What is a good evaluation measure for semantic segmentation?": of
each class, precision is the share of the map's border pixels within a tolerance of a border pixel of the reference,
recall the share of the reference's within the tolerance of one of the map's, and F1 their harmonic mean. There it is
taken image by image and averaged; here border pixels are counted over all of the ground, so that the figure doesn't
depend on how a scene is cut.

A border pixel of a class is one of that class with another class above, below, left or right of it. Unlabelled pixels
and the edges of the ground make no borders, neither in the reference nor in the map; labelled ground that the map
leaves without a class does.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gopt_geo.grid import Window, lattice

__all__ = ["BoundaryCounts", "count_boundaries"]

_UNLABELLED = 255
_BLOCK = 512


@dataclass(frozen=True)
class BoundaryCounts:
    """Border pixels of each class, and how many have a counterpart; sums of several are sums of counts.

    Attributes
    ----------
    tolerance
        Pixels (Euclidean distance) within which borders agree.
    counts
        int64 [4, K]: border pixels of the map, those near the reference's; of the reference, those near the map's.
    """

    tolerance: int
    counts: NDArray[np.int64]

    @classmethod
    def empty(cls, classes: int, tolerance: int) -> BoundaryCounts:
        """Return the counts of no pixel."""
        return cls(tolerance, np.zeros((4, classes), np.int64))

    def __add__(self, other: BoundaryCounts) -> BoundaryCounts:
        """Return the counts of both together."""
        if self.tolerance != other.tolerance:
            raise ValueError(f"counts within {self.tolerance} and {other.tolerance} pixels can't be summed")
        return BoundaryCounts(self.tolerance, self.counts + other.counts)

    @property
    def precision(self) -> tuple[float, ...]:
        """Share of the map's borders near the reference's, by class; NaN where the map has none."""
        return _shares(self.counts[1], self.counts[0])

    @property
    def recall(self) -> tuple[float, ...]:
        """Share of the reference's borders near the map's, by class; NaN where the reference has none."""
        return _shares(self.counts[3], self.counts[2])

    @property
    def f1(self) -> tuple[float, ...]:
        """Harmonic mean of both; NaN where the reference has no borders (of points), 0 where the map alone has none."""
        pairs = zip(self.precision, self.recall, strict=True)
        return tuple(_harmonic(precision, recall) for precision, recall in pairs)

    @property
    def mean(self) -> float:
        """Mean F1 of the classes with borders in the reference; NaN without any."""
        known = [value for value in self.f1 if not math.isnan(value)]
        return sum(known) / len(known) if known else math.nan

    def to_dict(self) -> dict[str, Any]:
        """Return the figures for JSON, undefined ones as None."""
        figures = {"precision": self.precision, "recall": self.recall, "f1": self.f1}
        return {
            "method": "border pixels counted over all ground, 4-neighbours, Euclidean distance (Csurka et al. 2013)",
            "tolerance_pixels": self.tolerance,
            "mean_f1": None if math.isnan(self.mean) else self.mean,
            **{name: [None if math.isnan(v) else v for v in values] for name, values in figures.items()},
        }


def count_boundaries(
    truth: Callable[[Window], NDArray[np.uint8]],
    mapped: Callable[[Window], NDArray[np.uint8]],
    window: Window,
    classes: int,
    tolerance: int,
    block: int = _BLOCK,
) -> BoundaryCounts:
    """Count border pixels and their counterparts, block by block; the blocks don't change what is counted.

    Parameters
    ----------
    truth, mapped
        Return class indexes of a window, uint8 [h, w]: 255 where there is no label, or no class in the map. Asked for
        windows inside ``window`` alone.
    window
        The ground.
    classes
        K.
    tolerance
        In pixels, at least 0.
    block
        Edge of a block in pixels.

    Raises
    ------
    ValueError
        If the tolerance is negative.
    """
    if tolerance < 0:
        raise ValueError(f"a tolerance of {tolerance} pixels")
    counts = np.zeros((4, classes), np.int64)
    halo = tolerance + 1  # a counterpart lies within the tolerance, and a border takes one pixel more to be told
    for whole in lattice(window, block):
        core = whole.intersect(window)
        if core is None:
            continue
        around = Window(core.row - halo, core.col - halo, core.height + 2 * halo, core.width + 2 * halo)
        area = around.intersect(window)
        assert area is not None
        reference = truth(area)
        if (reference[core.slices_in(area)] != _UNLABELLED).any():
            _count(reference, mapped(area), core.slices_in(area), tolerance, counts)
    return BoundaryCounts(tolerance, counts)


def _count(
    truth: NDArray[np.uint8],
    mapped: NDArray[np.uint8],
    core: tuple[slice, slice],
    tolerance: int,
    counts: NDArray[np.int64],
) -> None:
    labelled = truth != _UNLABELLED
    sides = [np.where(_border(classes, labelled), classes, _UNLABELLED) for classes in (mapped, truth)]
    for index, (own, other) in enumerate((sides, sides[::-1])):
        inner = own[core]
        for value in np.unique(inner[inner != _UNLABELLED]).tolist():
            points = inner == value
            counts[2 * index, value] += np.count_nonzero(points)
            counterpart = other == value
            if counterpart.any():
                counts[2 * index + 1, value] += np.count_nonzero(points & _near(counterpart, tolerance)[core])


def _border(classes: NDArray[np.uint8], labelled: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Tell the labelled pixels with a labelled neighbour of another class, bool [h, w]."""
    border = np.zeros(classes.shape, bool)
    for near, far in ((np.s_[1:], np.s_[:-1]), (np.s_[:, 1:], np.s_[:, :-1])):
        differ = (classes[near] != classes[far]) & labelled[near] & labelled[far]
        border[near] |= differ
        border[far] |= differ
    return border


def _near(points: NDArray[np.bool_], tolerance: int) -> NDArray[np.bool_]:
    """Tell the pixels within the tolerance of one of the points."""
    from scipy.ndimage import distance_transform_edt

    # squared distances are whole numbers: half of one is room for rounding
    near: NDArray[np.bool_] = distance_transform_edt(~points) <= math.sqrt(tolerance**2 + 0.5)
    return near


def _shares(part: NDArray[np.int64], whole: NDArray[np.int64]) -> tuple[float, ...]:
    return tuple(p / w if w else math.nan for p, w in zip(part.tolist(), whole.tolist(), strict=True))


def _harmonic(precision: float, recall: float) -> float:
    if math.isnan(recall):
        return math.nan
    if not precision > 0 or not recall > 0:
        return 0.0
    return 2 * precision * recall / (precision + recall)
