"""Training crops from simulated scenes held in memory, with the faults of real ones: clouds, swaths, calibration."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gopt_geo.simulate import SceneSpec, simulate_scene
from gopt_geo.simulate.fields import smooth_field

__all__ = ["Batch", "CropSampler", "Faults", "SceneStore", "Statistics"]

Triple = tuple[float, float, float]
Statistics = dict[str, tuple[Triple, Triple]]


@dataclass(frozen=True)
class Batch:
    """One batch: ``images`` [B, 3, t, t] and ``valid`` [B, t, t] by modality, ``labels`` int64 [B, t, t]."""

    images: dict[str, Tensor]
    valid: dict[str, Tensor]
    labels: Tensor


@dataclass(frozen=True)
class Faults:
    """How often training crops lack something, as shares of the crops.

    Attributes
    ----------
    cloudy
        A patchy part of the optical pixels is invalid.
    no_optical, no_sar
        The whole modality is invalid.
    half_sar
        One side of the crop lies outside the swath.
    """

    cloudy: float = 0.0
    no_optical: float = 0.0
    no_sar: float = 0.0
    half_sar: float = 0.0


class SceneStore:
    """Simulated scenes in memory, half precision: reflectance (red, green, blue), SAR in dB, labels.

    Parameters
    ----------
    seeds
        One scene each.
    size
        Edge of the square scenes in pixels.
    """

    def __init__(self, seeds: Iterable[int], size: int = 512) -> None:
        scenes = [simulate_scene(SceneSpec(seed, size, size)) for seed in seeds]
        self.optical = np.stack([s.optical[:3].astype(np.float16) for s in scenes])
        self.sar = np.stack([(10 * np.log10(s.sar[:1])).astype(np.float16) for s in scenes])
        self.labels = np.stack([s.labels for s in scenes])

    @classmethod
    def from_arrays(
        cls, optical: NDArray[np.float16], sar: NDArray[np.float16], labels: NDArray[np.uint8]
    ) -> SceneStore:
        """Take scenes that were simulated before: [S, 3, H, W], [S, 1, H, W] in dB and [S, H, W]."""
        store = cls.__new__(cls)
        store.optical, store.sar, store.labels = optical, sar, labels
        return store

    def statistics(self, modality: str) -> tuple[Triple, Triple]:
        """Mean and standard deviation of the backbone's three channels over all scenes; SAR fills all three."""
        data = self.optical if modality == "optical" else self.sar
        mean, std = (f((0, 2, 3), dtype=np.float64).tolist() for f in (data.mean, data.std))
        first, second, third = (0, 1, 2) if modality == "optical" else (0, 0, 0)
        return (mean[first], mean[second], mean[third]), (std[first], std[second], std[third])

    def class_shares(self, classes: int) -> NDArray[np.float64]:
        """Share of the pixels of each class."""
        counts = np.bincount(self.labels.ravel(), minlength=classes)
        return np.asarray(counts / counts.sum())


class CropSampler:
    """Draws batches of random crops with random symmetry, calibration and faults.

    Parameters
    ----------
    store
        The scenes.
    statistics
        Modality to (mean, std) of its three channels; SAR is repeated to three.
    size, batch
        Crop edge in pixels, crops a batch.
    faults
        See `Faults`.
    seed
        Batch i depends on (seed, i) alone.
    """

    def __init__(
        self,
        store: SceneStore,
        statistics: Statistics,
        *,
        size: int,
        batch: int,
        faults: Faults,
        seed: int,
    ) -> None:
        self.store, self.statistics = store, statistics
        self.size, self.batch, self.faults, self.seed = size, batch, faults, seed

    def __call__(self, index: int) -> Batch:
        """Draw batch ``index``."""
        rng = np.random.default_rng((self.seed, index))
        crops = [self._crop(rng) for _ in range(self.batch)]
        images = {name: torch.from_numpy(np.stack([c[i] for c in crops])) for i, name in enumerate(("optical", "sar"))}
        valid = {
            name: torch.from_numpy(np.stack([c[i + 2] for c in crops])) for i, name in enumerate(("optical", "sar"))
        }
        labels = torch.from_numpy(np.stack([c[4] for c in crops])).long()
        return Batch(images, valid, labels)

    def _crop(self, rng: np.random.Generator) -> tuple[NDArray[np.generic], ...]:
        """One crop: optical and SAR image, their validity, and labels."""
        count, height, width = self.store.labels.shape
        scene = int(rng.integers(count))
        row, col = (int(rng.integers(n - self.size + 1)) for n in (height, width))
        at = (..., slice(row, row + self.size), slice(col, col + self.size))
        turns, flip = int(rng.integers(4)), bool(rng.integers(2))

        def turn(array: NDArray[np.generic]) -> NDArray[np.generic]:
            array = np.rot90(array, turns, axes=(-2, -1))
            return np.ascontiguousarray(array[..., ::-1] if flip else array)

        optical = turn(self.store.optical[scene][at]).astype(np.float32) * np.float32(np.exp(rng.normal(0, 0.05)))
        sar = np.repeat(turn(self.store.sar[scene][at]).astype(np.float32), 3, axis=0) + np.float32(rng.normal(0, 0.5))
        images = []
        for name, image in (("optical", optical), ("sar", sar)):
            mean, std = (np.array(v, dtype=np.float32)[:, None, None] for v in self.statistics[name])
            images.append((image - mean) / std)
        optical_valid, sar_valid = self._validity(rng)
        return (*images, optical_valid, sar_valid, turn(self.store.labels[scene][at]))

    def _validity(self, rng: np.random.Generator) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
        """Draw what the crop lacks; never both modalities as a whole."""
        shape = (self.size, self.size)
        optical, sar = np.ones(shape, dtype=bool), np.ones(shape, dtype=bool)
        draw, faults = float(rng.uniform()), self.faults
        if draw < faults.no_optical:
            optical[:] = False
        elif draw < faults.no_optical + faults.no_sar:
            sar[:] = False
        elif draw < faults.no_optical + faults.no_sar + faults.half_sar:
            edge = int(rng.integers(1, self.size))
            half = np.arange(self.size) < edge
            sar &= half[:, None] if rng.integers(2) else half[None, :]
        if optical.any() and rng.uniform() < faults.cloudy:
            field = smooth_field(rng, shape, float(rng.uniform(16, 60)))
            optical &= field < np.quantile(field, rng.uniform(0.3, 0.95))
        return optical, sar
