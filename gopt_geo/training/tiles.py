"""The tiles that a training sees: sample after sample without end, each drawn from the seed and its number alone."""

from __future__ import annotations

from typing import Protocol

import numpy as np
from torch.utils.data import Dataset

from gopt_geo.datasets.base import IGNORED, Sample
from gopt_geo.training.augment import Augmentation, resize, turn

__all__ = ["Ground", "TrainingTiles"]

_PLACE, _CHANGE, _AGAIN = 0, 1, 2  # streams of random numbers of one sample


class Ground(Protocol):
    """What tiles are drawn from."""

    @property
    def rounds(self) -> int:
        """Tiles that cover it about once."""
        ...

    @property
    def labelled(self) -> float:
        """Share of labelled pixels in the tile around one."""
        ...

    def draw(self, number: int, rng: np.random.Generator, shape: tuple[int, int]) -> Sample:
        """Draw tile `number` in a shape; it holds a labelled pixel."""
        ...


class TrainingTiles(Dataset[Sample]):
    """Training samples by number: 0, 1, 2, ... without end.

    A sample holds for each modality NAME its values, float32 [bands, h, w] in the pack's units, 0 where invalid;
    ``validity_NAME``, bool [h, w]; and ``mask``, int64 [h, w], class indexes, 255 where there is no label. Everything
    random of sample ``number`` derives from (seed, number) alone: neither the order of the samples, nor the number of
    worker processes, nor what was drawn before plays a part.

    Parameters
    ----------
    ground
        What tiles are drawn from.
    shape
        Height and width of a tile.
    augmentation
        What is done to them.
    seed
        Of all random draws.
    """

    def __init__(self, ground: Ground, shape: tuple[int, int], augmentation: Augmentation, seed: int) -> None:
        self.ground, self.shape, self.augmentation, self.seed = ground, shape, augmentation, seed

    @property
    def rounds(self) -> int:
        """Samples of one epoch: sample `number` belongs to epoch number // rounds."""
        return self.ground.rounds

    @property
    def labelled(self) -> float:
        """Share of labelled pixels in the tile around one, about."""
        return self.ground.labelled

    def __getitem__(self, number: int) -> Sample:
        """Return sample `number`.

        Raises
        ------
        IndexError
            If it is negative.
        GoptGeoError
            If pixels can't be read.
        """
        if number < 0:
            raise IndexError(f"samples count from 0, not {number}")
        rng = np.random.default_rng((self.seed, number, _PLACE))
        symmetry, scale = self.augmentation.symmetry(rng), self.augmentation.scale(rng)
        turned = self.shape if symmetry // 2 % 2 == 0 else self.shape[::-1]
        asked = max(round(turned[0] / scale), 1), max(round(turned[1] / scale), 1)
        sample = self.ground.draw(number, rng, asked)
        if asked != turned:
            sample = resize(sample, turned)
            if not (sample["mask"] != IGNORED).any():  # a label of a single pixel may fall between those that stay
                again = np.random.default_rng((self.seed, number, _AGAIN))
                sample = self.ground.draw(number, again, turned)
        sample = turn(sample, symmetry)
        return self.augmentation(sample, np.random.default_rng((self.seed, number, _CHANGE)))
