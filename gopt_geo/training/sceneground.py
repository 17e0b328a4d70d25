"""A scene with labels as training ground: its split, where its tiles are drawn, and the areas of its evaluation."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from gopt_geo.assessment.reference import ReferenceArea
from gopt_geo.datasets.base import Region, Sample
from gopt_geo.datasets.sceneimages import LabelledScene, SceneImages
from gopt_geo.datasets.splits import Split
from gopt_geo.grid import Window
from gopt_geo.scene.scene import SceneBlock
from gopt_geo.training.tally import LabelCells

__all__ = ["SceneGround", "scene_area"]

_TRIALS = 4  # places that are tried for a tile; the one that shows most of the training ground is taken


class SceneGround:
    """Draws tiles of a scene's training region, each of which holds a labelled pixel.

    Parameters
    ----------
    scene
        Images and labels.
    region
        Training ground; images and labels outside of it are hidden.
    tile_shape
        Height and width of tiles that aren't scaled.
    """

    def __init__(self, scene: LabelledScene, region: Region, tile_shape: tuple[int, int]) -> None:
        self._part, self._region = scene.within(region), region
        self.cells = LabelCells(scene, region, tile_shape)
        self.modalities = scene.images.modalities

    @property
    def rounds(self) -> int:
        """Tiles that cover the labelled training ground about once."""
        return max(self.cells.count, 1)

    @property
    def labelled(self) -> float:
        """Share of labelled pixels in the cell of a labelled pixel, mean over these pixels."""
        return self.cells.labelled

    def draw(self, number: int, rng: np.random.Generator, shape: tuple[int, int]) -> Sample:  # noqa: ARG002
        """Draw a tile of `shape`; it depends on the generator alone, not on `number`.

        A class is drawn, then a pixel of it, then of four random places of the tile around that pixel the one that
        holds most of the training ground.
        """
        label, cell = self.cells.draw(rng)
        rows, cols = np.nonzero(self._part.read_labels(cell) == label)
        pick = int(rng.integers(len(rows)))
        row, col = cell.row + int(rows[pick]), cell.col + int(cols[pick])
        height, width = shape
        best, most = Window(row, col, height, width), -1
        for down, across in rng.integers(0, (height, width), (_TRIALS, 2)).tolist():
            window = Window(row - down, col - across, height, width)
            held = int(self._region.read(window).sum())
            if held > most:
                best, most = window, held
            if most == height * width:
                break
        return self._part.cut(best)


@dataclass(frozen=True)
class _Reader:
    """The scene as the tiler reads it."""

    images: SceneImages

    @property
    def shape(self) -> tuple[int, int]:
        return self.images.shape

    def read(self, window: Window, /) -> SceneBlock:
        return self.images.block(window)


@dataclass(frozen=True)
class _Labels:
    """The labels of a part of a scene."""

    part: LabelledScene

    def __call__(self, window: Window) -> NDArray[np.uint8]:
        return self.part.read_labels(window)


def scene_area(scene: LabelledScene, split: Split, part: Literal["train", "val", "test"]) -> list[ReferenceArea]:
    """Return a part of a split as an area; none where the part has no share.

    Images around the part's labels are shown, so that tiles at its edge have surroundings; those outside of the area
    of interest too.
    """
    regions: Mapping[str, Region | None] = {"train": split.train, "val": split.val, "test": split.test}
    region = regions[part]
    if region is None:
        return []
    windows = [cut for window in region.windows if (cut := window.intersect(scene.footprint)) is not None]
    row, col = min(w.row for w in windows), min(w.col for w in windows)
    stop, end = max(w.row_stop for w in windows), max(w.col_stop for w in windows)
    window = Window(row, col, stop - row, end - col)
    return [ReferenceArea(part, _Reader(scene.images), window, _Labels(scene.within(region)))]
