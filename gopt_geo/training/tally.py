"""Where labels are: counted once, block by block, before training; and where the tiles of training begin."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gopt_geo.datasets.base import IGNORED, Region
from gopt_geo.datasets.sceneimages import LabelledScene
from gopt_geo.grid import Window, lattice
from gopt_geo.scene import BLOCK

__all__ = ["LabelCells", "Tally", "tally_labels"]


@dataclass(frozen=True)
class Tally:
    """Labels of a scene by class and by what shows them.

    Attributes
    ----------
    classes
        Labelled pixels of each class that an image shows, int64 [K].
    seen_by
        Labelled pixels by the number of modalities with data there, int64 [modalities + 1].
    shown
        Labelled pixels at which each modality has data, int64 [modalities].
    """

    classes: NDArray[np.int64]
    seen_by: NDArray[np.int64]
    shown: NDArray[np.int64]


def tally_labels(scene: LabelledScene, classes: int) -> Tally:
    """Count the labels of a scene; images are read where labels are, in blocks."""
    names = scene.images.modalities
    counts = np.zeros(classes, np.int64)
    seen_by, shown = np.zeros(len(names) + 1, np.int64), np.zeros(len(names), np.int64)
    for block in lattice(scene.footprint, BLOCK):
        part = block.intersect(scene.footprint)
        assert part is not None
        labels = scene.all_labels(part)
        there = labels != IGNORED
        if not there.any():
            continue
        valid = scene.images.block(part).valid
        each = np.stack([valid[name][there] for name in names])
        number = each.sum(axis=0)
        seen_by += np.bincount(number, minlength=len(seen_by))
        shown += each.sum(axis=1)
        counts += np.bincount(labels[there][number > 0], minlength=classes)[:classes]
    return Tally(counts, seen_by, shown)


class LabelCells:
    """The cells of a lattice that hold labels of a region, with the pixels of each class; tiles are drawn by them.

    Attributes
    ----------
    shape : tuple of int
        Height and width of a cell, those of a training tile.
    count : int
        Cells with labels: as many tiles cover the labelled ground about once.
    labelled : float
        Share of labelled pixels in the cell of a labelled pixel, mean over these pixels.
    classes : int64 [n]
        Classes with pixels.
    chances : float64 [n]
        How often each is drawn: by the square root of its pixels, so that rare classes are seen more often than their
        share, and no class takes over.

    Notes
    -----
    Kept are a row, a column and a number for each cell and class: 20 bytes, however many pixels a cell has.
    """

    def __init__(self, scene: LabelledScene, region: Region, shape: tuple[int, int]) -> None:
        self.shape = shape
        part = scene.within(region)
        found = [cells for window in region.windows for cells in self._in_window(part, window)]
        table = np.concatenate(found) if found else np.zeros((0, 4), np.int64)
        # A cell may lie in several rectangles and blocks: its numbers are summed.
        keys, place = np.unique(table[:, :3], axis=0, return_inverse=True)
        pixels = np.bincount(place.reshape(-1), weights=table[:, 3], minlength=len(keys)).astype(np.int64)
        cells, place = np.unique(keys[:, 1:], axis=0, return_inverse=True)
        self.count = len(cells)
        each = np.bincount(place.reshape(-1), weights=pixels)
        self.labelled = float((each**2).sum() / max(each.sum() * shape[0] * shape[1], 1.0))
        self.classes = np.unique(keys[:, 0])
        self._cells: list[NDArray[np.int32]] = []
        self._upto: list[NDArray[np.int64]] = []
        totals = []
        for label in self.classes:
            own = keys[:, 0] == label
            self._cells.append(keys[own, 1:].astype(np.int32))
            self._upto.append(pixels[own].cumsum())
            totals.append(float(self._upto[-1][-1]))
        roots = np.sqrt(totals)
        self.chances = roots / max(roots.sum(), 1e-300)

    def _in_window(self, part: LabelledScene, window: Window) -> list[NDArray[np.int64]]:
        height, width = self.shape
        found = []
        for block in lattice(window, BLOCK):
            piece = block.intersect(window)
            assert piece is not None
            labels = part.read_labels(piece)
            rows, cols = np.nonzero(labels != IGNORED)
            if not len(rows):
                continue
            place = np.stack(
                [labels[rows, cols].astype(np.int64), (rows + piece.row) // height, (cols + piece.col) // width]
            )
            low = place.min(axis=1, keepdims=True)
            size = (place - low).max(axis=1) + 1
            flat = np.ravel_multi_index(tuple(place - low), tuple(size.tolist()))
            numbers = np.bincount(flat)
            used = np.flatnonzero(numbers)
            keys = np.stack(np.unravel_index(used, tuple(size.tolist())), axis=1) + low[:, 0]
            found.append(np.concatenate([keys, numbers[used, None]], axis=1))
        return found

    def draw(self, rng: np.random.Generator) -> tuple[int, Window]:
        """Draw a class, and a cell by the number of its pixels of that class; return both."""
        kind = int(rng.choice(len(self.classes), p=self.chances))
        upto = self._upto[kind]
        row, col = self._cells[kind][np.searchsorted(upto, rng.integers(upto[-1]), "right")].tolist()
        height, width = self.shape
        return int(self.classes[kind]), Window(row * height, col * width, height, width)
