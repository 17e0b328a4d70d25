"""Chips as areas of an evaluation: small ones one below the other, a tile each; larger ones each an area of its own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gopt_geo.assessment.reference import ReferenceArea
from gopt_geo.datasets.base import IGNORED
from gopt_geo.grid import Window
from gopt_geo.scene.blockcache import BlockCache
from gopt_geo.scene.scene import SceneBlock
from gopt_geo.training.chipground import Chips

__all__ = ["chip_areas"]

_CACHE_BYTES, _LABEL_BYTES = 64 << 20, 64 << 20


class _Cached:
    """Chips as arrays: the tiler asks for labels, pixels, and labels again, from several threads."""

    def __init__(self, chips: Chips) -> None:
        self._chips = chips
        self._pixels: BlockCache[tuple[SceneBlock, NDArray[np.uint8]]] = BlockCache(_CACHE_BYTES, _bytes)
        self._labels: BlockCache[NDArray[np.uint8]] = BlockCache(_LABEL_BYTES, lambda labels: labels.nbytes)

    def pixels(self, index: int) -> SceneBlock:
        return self._whole(index)[0]

    def labels(self, index: int) -> NDArray[np.uint8]:
        return self._labels.get(index, lambda: self._whole(index)[1])

    def _whole(self, index: int) -> tuple[SceneBlock, NDArray[np.uint8]]:
        return self._pixels.get(index, lambda: self._read(index))

    def _read(self, index: int) -> tuple[SceneBlock, NDArray[np.uint8]]:
        sample = self._chips.read(index)
        names = self._chips.bands
        values = {name: sample[name].numpy() for name in names}
        valid = {name: sample[f"validity_{name}"].numpy() for name in names}
        return SceneBlock(values, valid), sample["mask"].numpy().astype(np.uint8)


def _bytes(chip: tuple[SceneBlock, NDArray[np.uint8]]) -> int:
    block, labels = chip
    return labels.nbytes + sum(a.nbytes for part in (block.values, block.valid) for a in part.values())


@dataclass(frozen=True)
class _Column:
    """Chips one below the other, each in the upper left corner of a square cell; what is left of a cell is invalid.

    Attributes
    ----------
    chips
        Read by index.
    indexes
        Of the chips, from top to bottom.
    cell
        Height and width of a cell in pixels.
    """

    chips: _Cached
    indexes: Sequence[int]
    cell: tuple[int, int]

    @property
    def shape(self) -> tuple[int, int]:
        return len(self.indexes) * self.cell[0], self.cell[1]

    def read(self, window: Window, /) -> SceneBlock:
        values: dict[str, NDArray[np.float32]] = {}
        valid: dict[str, NDArray[np.bool_]] = {}
        for index, place in self._cells(window):
            block = self.chips.pixels(index)
            for name, pixels in block.values.items():
                if name not in values:
                    values[name] = np.zeros((len(pixels), *window.shape), np.float32)
                    valid[name] = np.zeros(window.shape, np.bool_)
                _paste(pixels, place, values[name], window)
                _paste(block.valid[name], place, valid[name], window)
        return SceneBlock(values, valid)

    def labels(self, window: Window) -> NDArray[np.uint8]:
        labels = np.full(window.shape, IGNORED, np.uint8)
        for index, place in self._cells(window):
            _paste(self.chips.labels(index), place, labels, window)
        return labels

    def _cells(self, window: Window) -> list[tuple[int, tuple[int, int]]]:
        """Return the chips in a window of the source, with the upper left pixel of each."""
        inside = window.clip(self.shape)
        if inside is None:
            return []
        height = self.cell[0]
        numbers = range(inside.row // height, -(-inside.row_stop // height))
        return [(self.indexes[number], (number * height, 0)) for number in numbers]


def _paste(pixels: NDArray[np.generic], place: tuple[int, int], into: NDArray[np.generic], window: Window) -> None:
    own = Window(*place, pixels.shape[-2], pixels.shape[-1])
    part = own.intersect(window)
    if part is None:
        return
    to, source = part.slices_in(window), part.slices_in(own)
    into[..., to[0], to[1]] = pixels[..., source[0], source[1]]


def chip_areas(chips: Chips, shapes: NDArray[np.int64], labelled: Sequence[int], tile_size: int) -> list[ReferenceArea]:
    """Return chips as areas for the tiler.

    Chips no larger than a tile make one area with an overlap of 0, in which each tile is a chip: batches are full, and
    no tile shows two chips. Each larger chip is an area, whose tiles overlap and are blended.

    Parameters
    ----------
    chips
        Of one part.
    shapes
        Height and width of each, [n, 2].
    labelled
        Indexes of those with labels; the others are left out.
    tile_size
        Edge of the tiles in pixels.
    """
    cached = _Cached(chips)
    split = chips.dataset.split or "all"
    small = [i for i in labelled if max(shapes[i].tolist()) <= tile_size]
    areas = []
    if small:
        column = _Column(cached, small, (tile_size, tile_size))
        areas.append(
            ReferenceArea(f"{split}: {len(small)} chips", column, Window(0, 0, *column.shape), column.labels, 0)
        )
    for i in labelled:
        if max(shapes[i].tolist()) > tile_size:
            height, width = shapes[i].tolist()
            one = _Column(cached, [i], (height, width))
            name = f"{split}: {chips.dataset.name(i)}"
            areas.append(ReferenceArea(name, one, Window(0, 0, height, width), one.labels))
    return areas
