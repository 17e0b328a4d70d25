"""Mean and standard deviation of the channels over valid training pixels, window by window, in float64."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from gopt_geo.datasets.base import Region
from gopt_geo.datasets.sceneimages import SceneImages
from gopt_geo.grid import Window, lattice
from gopt_geo.scene import BLOCK

__all__ = ["BLOCKS", "Moments", "region_blocks", "region_moments", "with_bands"]

BLOCKS = 64
"""Blocks of 512 x 512 that the statistics of a scene are measured on, at most."""


class Moments:
    """Number, mean and variance of channels, gathered part by part (Chan, Golub and LeVeque 1979).

    Parameters
    ----------
    matrix
        [channels, bands]: from bands to channels.

    Attributes
    ----------
    count : int
        Pixels so far.
    mean : float64 [channels]
    """

    def __init__(self, matrix: Sequence[Sequence[float]]) -> None:
        self.matrix = np.asarray(matrix, np.float64)
        self.count = 0
        self.mean = np.zeros(len(self.matrix))
        self._squares = np.zeros(len(self.matrix))

    @classmethod
    def of(cls, matrix: Sequence[Sequence[float]], mean: NDArray[np.float64], std: NDArray[np.float64]) -> Moments:
        """Return moments that are known, as those of a single pixel."""
        moments = cls(matrix)
        moments.count, moments.mean, moments._squares = 1, mean, np.square(std)
        return moments

    @classmethod
    def standard(cls, matrix: Sequence[Sequence[float]]) -> Moments:
        """Return mean 0 and standard deviation 1, where nothing is measured."""
        return cls.of(matrix, np.zeros(len(matrix)), np.ones(len(matrix)))

    def first(self, channels: int) -> Moments:
        """Return the moments of the first so many channels."""
        part = Moments(self.matrix[:channels].tolist())
        part.count, part.mean, part._squares = self.count, self.mean[:channels], self._squares[:channels]
        return part

    def add(self, values: NDArray[np.float32], valid: NDArray[np.bool_]) -> None:
        """Add the valid pixels of values [bands, h, w]."""
        pixels = values[:, valid].astype(np.float64)
        if not pixels.shape[1]:
            return
        channels = self.matrix @ pixels
        mean = channels.mean(axis=1)
        squares = np.square(channels - mean[:, None]).sum(axis=1)
        self.merge(pixels.shape[1], mean, squares)

    def merge(self, count: int, mean: NDArray[np.float64], squares: NDArray[np.float64]) -> None:
        """Add `count` pixels of which mean and sum of squared deviations are known."""
        total = self.count + count
        step = mean - self.mean
        self.mean = self.mean + step * (count / total)
        self._squares = self._squares + squares + np.square(step) * (self.count * count / total)
        self.count = total

    @property
    def std(self) -> NDArray[np.float64]:
        """Standard deviation of each channel."""
        return np.asarray(np.sqrt(self._squares / max(self.count, 1)))


def with_bands(matrix: Sequence[Sequence[float]]) -> tuple[tuple[float, ...], ...]:
    """Return a matrix with a further row for each band, so that the bands are measured beside the channels."""
    bands = len(matrix[0])
    return (*map(tuple, matrix), *(tuple(float(i == j) for j in range(bands)) for i in range(bands)))


def region_blocks(region: Region, limit: int, seed: int) -> tuple[list[Window], int]:
    """Return the blocks that hold the region's pixels, or a random choice of `limit` of them; and how many there are.

    Only corners and counters of blocks are kept: memory grows by a few bytes a block.
    """
    keys = sorted({(block.row, block.col) for window in region.windows for block in lattice(window, BLOCK)})
    chosen: Iterable[int] = range(len(keys))
    if len(keys) > limit:
        chosen = np.sort(np.random.default_rng((seed, 3)).choice(len(keys), limit, replace=False)).tolist()
    return [Window(*keys[i], BLOCK, BLOCK) for i in chosen], len(keys)


def region_moments(
    images: SceneImages,
    region: Region,
    matrices: Mapping[str, Sequence[Sequence[float]]],
    blocks: Sequence[Window],
    done: Callable[[int], object] | None = None,
) -> dict[str, Moments]:
    """Measure each modality's channels over a region's valid pixels in some blocks.

    Parameters
    ----------
    images
        The scene.
    region
        Training ground; pixels outside of it don't count.
    matrices
        By modality, from bands to channels.
    blocks
        See `region_blocks`.
    done
        Called with the number of blocks done.
    """
    found = {name: Moments(matrix) for name, matrix in matrices.items()}
    for number, block in enumerate(blocks, 1):
        part = block.clip(images.shape)
        assert part is not None
        inside = region.read(part)
        pixels = images.block(part)
        for name, moments in found.items():
            moments.add(pixels.values[name], pixels.valid[name] & inside)
        if done is not None:
            done(number)
    return found
