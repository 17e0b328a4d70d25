"""Random changes of training tiles, on tensors: symmetry, size, brightness, speckle, clouds, missing modalities.

All of them draw from the generator that they are given, and from nothing else.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from gopt_geo.datasets.base import IGNORED, Sample
from gopt_geo.errors import DatasetError
from gopt_geo.simulate.fields import smooth_field
from gopt_geo.training.config import AugmentationConfig

__all__ = ["Augmentation", "make_augmentation", "resize", "turn"]

_DROPOUT = 0.15
_CLOUD_SCALE = 16.0, 60.0  # pixels; correlation length of cloud patches
_CLOUD_COVER = 0.05, 0.7  # share of a tile's pixels
_TO_DB = 10 / math.log(10)


def turn(sample: Sample, number: int) -> Sample:
    """Return a sample turned by `number` // 2 quarter turns, mirrored first where `number` is odd.

    0 to 7 are the eight symmetries of the square; those of 2, 3, 6 and 7 exchange height and width.
    """
    if number == 0:
        return sample
    turned = {}
    for key, value in sample.items():
        value = value.flip(-1) if number % 2 else value
        turned[key] = torch.rot90(value, number // 2, (-2, -1)).contiguous()
    return turned


def resize(sample: Sample, shape: tuple[int, int]) -> Sample:
    """Return a sample in another size: images bilinear, labels and validity by the nearest pixel.

    Invalid pixels weigh nothing in their neighbours.
    """
    resized: Sample = {}
    for key, value in sample.items():
        if key == "mask":
            resized[key] = F.interpolate(value[None, None].to(torch.uint8), shape, mode="nearest-exact")[0, 0].long()
        elif key.startswith("validity_"):
            resized[key] = F.interpolate(value[None, None].to(torch.uint8), shape, mode="nearest-exact")[0, 0].bool()
    for key, value in sample.items():
        if key in resized:
            continue
        weight = sample[f"validity_{key}"].to(value.dtype)[None, None]
        both = torch.cat([value[None] * weight, weight], dim=1)
        smaller = shape[0] < value.shape[-2]
        both = F.interpolate(both, shape, mode="bilinear", align_corners=False, antialias=smaller)
        valid = resized[f"validity_{key}"] & (both[0, -1] > 1e-3)
        resized[f"validity_{key}"] = valid
        resized[key] = torch.where(valid, both[0, :-1] / both[0, -1].clamp(min=1e-3), 0.0)
    _unseen(resized)
    return resized


def _unseen(sample: Sample) -> None:
    """Ignore labels where no modality has data: nothing is to be learnt there."""
    seen = torch.stack([value for key, value in sample.items() if key.startswith("validity_")]).any(dim=0)
    sample["mask"] = torch.where(seen, sample["mask"], IGNORED)


@dataclass(frozen=True)
class Augmentation:
    """What is done to training tiles; made by `make_augmentation`.

    Attributes
    ----------
    config
        As asked for.
    dropout
        Share of tiles without a modality, by name; together at most 1, as never more than one is left out.
    speckled
        Modalities that get speckle: True where their values are dB, False where they are power.
    spread
        Standard deviation of each auxiliary modality's bands, [bands].
    """

    config: AugmentationConfig
    dropout: Mapping[str, float] = field(default_factory=dict)
    speckled: Mapping[str, bool] = field(default_factory=dict)
    spread: Mapping[str, tuple[float, ...]] = field(default_factory=dict)

    def symmetry(self, rng: np.random.Generator) -> int:
        """Draw one of the symmetries of `turn`."""
        kinds = {"none": 1, "flip": 2, "dihedral": 8}
        return int(rng.integers(kinds[self.config.symmetry]))

    def scale(self, rng: np.random.Generator) -> float:
        """Draw a factor of size; its logarithm is uniform."""
        low, high = self.config.scales
        return math.exp(rng.uniform(math.log(low), math.log(high))) if (low, high) != (1, 1) else 1.0

    def __call__(self, sample: Sample, rng: np.random.Generator) -> Sample:
        """Change values and validity of a sample; its labels go where nothing is left to see, never all of them."""
        sample = dict(sample)
        names = [key.removeprefix("validity_") for key in sample if key.startswith("validity_")]
        for name in names:
            self._change_values(sample, name, rng)
        self._hide(sample, self._clouds(sample, rng))
        self._hide(sample, self._dropped(sample, rng))
        for name in names:
            sample[name] = torch.where(sample[f"validity_{name}"], sample[name], 0.0)
        _unseen(sample)
        return sample

    def _change_values(self, sample: Sample, name: str, rng: np.random.Generator) -> None:
        config, values = self.config, sample[name]
        if name == "optical":
            if config.brightness:
                sample[name] = values * math.exp(rng.normal(0, config.brightness))
            return
        if config.speckle is not None and name in self.speckled:
            looks = config.speckle
            noise = torch.from_numpy(rng.gamma(looks, 1 / looks, tuple(values.shape)).astype(np.float32))
            noise = noise.clamp(min=1e-6)
            values = values + _TO_DB * noise.log() if self.speckled[name] else values * noise
        if config.offset:
            step = torch.tensor(self.spread[name], dtype=torch.float32)[:, None, None]
            values = values + float(rng.normal(0, config.offset)) * step
        sample[name] = values

    def _clouds(self, sample: Sample, rng: np.random.Generator) -> dict[str, Tensor]:
        if "optical" not in sample or rng.uniform() >= self.config.clouds:
            return {}
        valid = sample["validity_optical"]
        clouds = smooth_field(rng, (valid.shape[0], valid.shape[1]), float(rng.uniform(*_CLOUD_SCALE)))
        clear = clouds < np.quantile(clouds, 1 - rng.uniform(*_CLOUD_COVER))
        return {"optical": valid & torch.from_numpy(clear)}

    def _dropped(self, sample: Sample, rng: np.random.Generator) -> dict[str, Tensor]:
        draw = float(rng.uniform())
        for name, share in self.dropout.items():
            if draw < share:
                return {name: torch.zeros_like(sample[f"validity_{name}"])}
            draw -= share
        return {}

    def _hide(self, sample: Sample, valid: Mapping[str, Tensor]) -> None:
        """Take over a smaller validity, unless no label that a modality shows would be left."""
        if not valid:
            return
        keys = [key for key in sample if key.startswith("validity_")]
        new = {key: valid.get(key.removeprefix("validity_"), sample[key]) for key in keys}
        if ((sample["mask"] != IGNORED) & torch.stack(list(new.values())).any(dim=0)).any():
            sample.update(new)


def make_augmentation(
    config: AugmentationConfig, units: Mapping[str, str], spread: Mapping[str, tuple[float, ...]]
) -> Augmentation:
    """Check what is asked for against the modalities that there are.

    Parameters
    ----------
    config
        As asked for.
    units
        Unit of each modality's values, the primary modality first.
    spread
        Standard deviation of each modality's bands.

    Raises
    ------
    DatasetError
        If speckle is asked for and no modality is in dB or power; or a modality is to be left out that isn't there, or
        is the only one.
    """
    dropout = dict(config.dropout)
    if not dropout and len(units) > 1:
        dropout = dict.fromkeys(units, min(_DROPOUT, 1 / len(units)))
    for name, share in dropout.items():
        if name not in units:
            raise DatasetError("augmentation.dropout", f"there is no modality {name}", f"use {', '.join(units)}")
        if len(units) == 1 and share > 0:
            raise DatasetError("augmentation.dropout", f"{name} is the only modality", "leave dropout out")
    speckled = {name: unit == "db" for name, unit in units.items() if unit in ("db", "power") and name != "optical"}
    if config.speckle is not None and not speckled:
        found = f"no modality is in dB or power ({', '.join(f'{n} {u}' for n, u in units.items())})"
        raise DatasetError("augmentation.speckle", found, "leave it out, or state SAR's units (--sar-units)")
    return Augmentation(config, dropout, speckled, dict(spread))
