"""Data sets of chips as training ground: what is in them, and the crops that are drawn from them."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from gopt_geo.datasets.base import IGNORED, Sample
from gopt_geo.datasets.chips import ChipDataset
from gopt_geo.training.statistics import Moments

__all__ = ["ChipGround", "ChipScan", "Chips", "scan_chips"]

_ROUND = 4  # stream of random numbers that orders the chips of a round
_READERS = 4


@dataclass(frozen=True)
class Chips:
    """A part of a data set, with the modalities and bands that are trained on.

    Attributes
    ----------
    dataset
        The part.
    bands
        Number of bands of each modality that is used; the first ones.
    """

    dataset: ChipDataset
    bands: dict[str, int]

    def __len__(self) -> int:
        """Return the number of chips."""
        return len(self.dataset)

    def read(self, index: int) -> Sample:
        """Return a chip; labels that none of the modalities shows are ignored."""
        whole = self.dataset[index]
        sample: Sample = {}
        for name, count in self.bands.items():
            sample[name] = whole[name][:count]
            sample[f"validity_{name}"] = whole[f"validity_{name}"]
        seen = torch.stack([sample[f"validity_{name}"] for name in self.bands]).any(dim=0)
        sample["mask"] = torch.where(seen, whole["mask"], IGNORED)
        return sample


@dataclass(frozen=True)
class ChipScan:
    """What a part of a data set holds.

    Attributes
    ----------
    shapes
        Height and width of each chip, int64 [n, 2].
    counts
        Labelled pixels of each chip by class, int64 [n, K].
    seen_by
        Labelled pixels by the number of modalities that show them, int64 [modalities + 1].
    shown
        Labelled pixels that each modality shows, int64 [modalities].
    """

    shapes: NDArray[np.int64]
    counts: NDArray[np.int64]
    seen_by: NDArray[np.int64]
    shown: NDArray[np.int64]

    @property
    def labelled(self) -> float:
        """Share of labelled pixels in the chip of a labelled pixel, mean over these pixels."""
        each = self.counts.sum(axis=1)
        return float((each**2 / self.shapes.prod(axis=1)).sum() / max(int(each.sum()), 1))


def scan_chips(
    chips: Chips,
    classes: int,
    moments: dict[str, Moments] | None = None,
    tick: Callable[[int], None] | None = None,
) -> ChipScan:
    """Read every chip once: sizes, labels, and what the statistics of the channels need.

    Parameters
    ----------
    chips
        Which.
    classes
        Number of classes.
    moments
        By modality; valid pixels are added, chip by chip in their order.
    tick
        Called with the number of chips done.
    """
    names = tuple(chips.bands)
    shapes, counts = np.zeros((len(chips), 2), np.int64), np.zeros((len(chips), classes), np.int64)
    seen_by, shown = np.zeros(len(names) + 1, np.int64), np.zeros(len(names), np.int64)
    for i, sample in enumerate(_read_all(chips)):
        mask = sample["mask"].numpy()
        there = mask != IGNORED
        shapes[i] = mask.shape
        counts[i] = np.bincount(mask[there], minlength=classes)[:classes]
        each = np.stack([sample[f"validity_{name}"].numpy()[there] for name in names])
        seen_by += np.bincount(each.sum(axis=0), minlength=len(seen_by))
        shown += each.sum(axis=1)
        for name, sums in (moments or {}).items():
            sums.add(sample[name].numpy(), sample[f"validity_{name}"].numpy())
        if tick is not None:
            tick(i + 1)
    return ChipScan(shapes, counts, seen_by, shown)


def _read_all(chips: Chips) -> Iterator[Sample]:
    """Yield all chips in order, read a few ahead: decoding runs beside counting."""
    readers = min(_READERS, os.cpu_count() or 1)
    waiting: deque[Future[Sample]] = deque()
    with ThreadPoolExecutor(readers, thread_name_prefix="gopt-geo-scan") as pool:
        try:
            for index in range(len(chips)):
                waiting.append(pool.submit(chips.read, index))
                if len(waiting) > 2 * readers:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


class ChipGround:
    """Draws crops of chips: each round goes once through all chips with labels, in an order of its own.

    Parameters
    ----------
    chips
        The training part.
    labelled
        Indexes of the chips with labels.
    seed
        Orders the chips: round r by (seed, r) alone.
    share
        Of labelled pixels in the chip of a labelled pixel, mean over these pixels.
    """

    def __init__(self, chips: Chips, labelled: Sequence[int], seed: int, share: float = 1.0) -> None:
        self._chips, self._labelled, self._seed = chips, np.asarray(labelled, np.int64), seed
        self.labelled = share
        self._order: tuple[int, NDArray[np.int64]] = (-1, self._labelled)

    @property
    def rounds(self) -> int:
        """Number of chips with labels."""
        return len(self._labelled)

    def draw(self, number: int, rng: np.random.Generator, shape: tuple[int, int]) -> Sample:
        """Draw a crop of chip `number` of the order; it holds a labelled pixel, and is padded where the chip ends."""
        sample = self._chips.read(int(self._in_order(number // self.rounds)[number % self.rounds]))
        height, width = sample["mask"].shape
        row, col = _start(rng, height, shape[0]), _start(rng, width, shape[1])
        part = _crop(sample, row, col, shape)
        if (part["mask"] != IGNORED).any():
            return part
        rows, cols = torch.nonzero(sample["mask"] != IGNORED, as_tuple=True)
        pick = int(rng.integers(len(rows)))
        row = _around(rng, int(rows[pick]), height, shape[0])
        col = _around(rng, int(cols[pick]), width, shape[1])
        return _crop(sample, row, col, shape)

    def _in_order(self, turn: int) -> NDArray[np.int64]:
        if self._order[0] != turn:
            rng = np.random.default_rng((self._seed, turn, _ROUND))
            self._order = turn, rng.permutation(self._labelled)
        return self._order[1]


def _start(rng: np.random.Generator, size: int, wanted: int) -> int:
    """Draw where a crop begins: inside the chip where it is larger, else so that the chip lies inside the crop."""
    low, high = min(0, size - wanted), max(0, size - wanted)
    return int(rng.integers(low, high + 1))


def _around(rng: np.random.Generator, pixel: int, size: int, wanted: int) -> int:
    """Draw where a crop begins that holds a pixel, and nothing beyond the chip's edges where that can be."""
    low, high = max(pixel - wanted + 1, min(0, size - wanted)), min(pixel, max(0, size - wanted))
    return int(rng.integers(low, high + 1))


def _crop(sample: Sample, row: int, col: int, shape: tuple[int, int]) -> Sample:
    """Cut a window, which may hang over the edges: 0, invalid and unlabelled there."""
    height, width = sample["mask"].shape
    top, left = max(row, 0), max(col, 0)
    bottom, right = min(row + shape[0], height), min(col + shape[1], width)
    to = slice(top - row, bottom - row), slice(left - col, right - col)
    part: Sample = {}
    for key, value in sample.items():
        filled = value.new_full((*value.shape[:-2], *shape), IGNORED if key == "mask" else 0)
        filled[..., to[0], to[1]] = value[..., top:bottom, left:right]
        part[key] = filled
    return part
