"""Test-time augmentation: a model around a model that averages over sizes, turns and mirror images of its tiles."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, Protocol, get_args

import torch
import torch.nn.functional as F
from torch import Tensor

from gopt_geo.errors import GoptGeoError
from gopt_geo.inference.forward import TileModel

__all__ = ["SCALES", "AugmentedModel", "MeasuredModel", "Symmetry", "augmented_memory", "resample"]

SCALES = (0.5, 0.75, 1.0, 1.25, 1.5, 1.75)
"""Sizes in general use where figures are said to be multi-scale."""

Symmetry = Literal["none", "flip", "dihedral"]
"""What a tile is averaged over: itself alone, its mirror image, or all eight turns and mirror images of a square."""

_Turn = tuple[bool, int]  # mirrored left to right first, then turned by so many quarters
_TURNS: dict[Symmetry, tuple[_Turn, ...]] = {
    "none": ((False, 0),),
    "flip": ((False, 0), (True, 0)),
    "dihedral": tuple((mirrored, quarters) for mirrored in (False, True) for quarters in range(4)),
}


class MeasuredModel(TileModel, Protocol):
    """A model that tells how much memory its forward pass takes."""

    def working_memory(self, tile_size: int, batch_size: int) -> int:
        """Return bytes besides the weights, an upper estimate."""
        ...


class AugmentedModel:
    """Averages a model's probabilities over sizes of the tile, and over turns and mirror images of it.

    A tile is resampled to the nearest multiple of the patch, predicted, and brought back. Pixels without data have no
    part in any resampling, neither of the image nor of the probabilities. With the one size 1 and no symmetry the
    result is the model's own, bit for bit; and a tile's result doesn't depend on what else is in its batch.

    Parameters
    ----------
    model
        What predicts.
    patch_size
        Edge of the patches that its tiles are cut into.
    scales
        Sizes as factors, above 0.
    symmetry
        "none", "flip" (also mirrored left to right) or "dihedral" (all eight turns and mirror images).

    Attributes
    ----------
    passes
        Forward passes for each batch.

    Raises
    ------
    GoptGeoError
        If there are no scales, one isn't above 0, or there is no such symmetry.
    """

    def __init__(
        self, model: TileModel, patch_size: int, scales: Sequence[float] = (1.0,), symmetry: Symmetry = "none"
    ) -> None:
        wrong = [scale for scale in scales if not 0 < scale < float("inf")]
        if wrong or not scales:
            found = f"{wrong[0]:g} is no size" if wrong else "there are none"
            raise GoptGeoError("--scales", found, "give factors above 0, such as 0.75,1,1.25")
        if symmetry not in _TURNS:
            raise GoptGeoError("--augment", f"{symmetry!r} is unknown", f"choose {', '.join(get_args(Symmetry))}")
        self._model, self._patch, self._scales = model, patch_size, tuple(scales)
        self._turns = _TURNS[symmetry]
        self.num_classes = model.num_classes
        self.modalities: tuple[str, ...] = model.modalities
        self.passes = len(self._scales) * len(self._turns)

    def __call__(self, values: dict[str, Tensor], valid: dict[str, Tensor], /) -> Tensor:
        """Probabilities float32 [B, K, t, t] of values float32 [B, C, t, t] and validity bool [B, t, t]."""
        edge = next(iter(values.values())).shape[-1]
        total: Tensor | None = None
        for size in self.sizes(edge):
            images, masks = dict(values), dict(valid)
            if size != edge:
                for name in values:
                    images[name], masks[name] = resample(values[name], valid[name], size)
            for turn in self._turns:
                found = self._predict(images, masks, turn)
                if size != edge:
                    found = self._back(found, masks, edge)
                total = found if total is None else total + found
        assert total is not None
        return total if self.passes == 1 else total / self.passes

    def sizes(self, edge: int) -> list[int]:
        """Return the edges at which tiles of an edge are predicted, in pixels."""
        patch = self._patch
        return [max(1, round(edge * scale / patch)) * patch if scale != 1 else edge for scale in self._scales]

    def _predict(self, images: dict[str, Tensor], masks: dict[str, Tensor], turn: _Turn) -> Tensor:
        """Return probabilities of images as they look after a turn, turned back."""
        if turn == (False, 0):
            return self._model(images, masks).float()
        turned = ({name: _turned(tensor, turn) for name, tensor in group.items()} for group in (images, masks))
        return _turned_back(self._model(*turned).float(), turn)

    def _back(self, found: Tensor, masks: dict[str, Tensor], edge: int) -> Tensor:
        anywhere = torch.stack(list(masks.values())).any(dim=0)
        # Where no pixel with data is near there is nothing to keep out, and the tiler takes nothing from there.
        back, known = resample(found, anywhere, edge, least=0.0)
        return torch.where(known[:, None], back, 1 / self.num_classes)


def augmented_memory(
    model: MeasuredModel, augmented: AugmentedModel, tile_size: int, batch_size: int, channels: int
) -> int:
    """Bytes that one batch takes at its widest moment besides the weights; an upper estimate.

    Parameters
    ----------
    model, augmented
        A model, and what averages over it.
    tile_size, batch_size
        In pixels, and tiles.
    channels
        Bands of all modalities together.
    """
    classes, tile = model.num_classes, tile_size**2
    widest = 0
    for size in augmented.sizes(tile_size):
        # The resampled images and their turned copies with masks; probabilities as found, weighted and back in their
        # own size; and the sum.
        images = 2 * size**2 * (4 * channels + len(model.modalities))
        probabilities = 4 * classes * (2 * size**2 + 3 * tile)
        widest = max(widest, model.working_memory(size, batch_size) + batch_size * (images + probabilities))
    return widest


def resample(values: Tensor, valid: Tensor, size: int, *, least: float = 0.5) -> tuple[Tensor, Tensor]:
    """Resample square images, bilinearly, from their valid pixels alone.

    Parameters
    ----------
    values
        float32 [B, C, t, t].
    valid
        bool [B, t, t].
    size
        Edge of the result in pixels.
    least
        Share of a pixel's kernel that must be valid; 0: any.

    Returns
    -------
    values : float32 [B, C, size, size]
        0 where not valid.
    valid : bool [B, size, size]
    """

    def sized(tensor: Tensor) -> Tensor:
        return F.interpolate(tensor, (size, size), mode="bilinear", align_corners=False, antialias=True)

    # Image by image: the same tile must give the same bits beside any others.
    whole = valid.flatten(1).all(dim=1)[:, None, None, None]
    plain = sized(values)
    if bool(whole.all()):
        return plain, torch.ones((len(values), size, size), dtype=torch.bool, device=values.device)
    share = sized(valid[:, None].float())
    kept = whole | (share >= least if least else share > 1e-6)
    mean = sized(torch.where(valid[:, None], values, 0)) / torch.where(kept, share, 1)
    return torch.where(kept, torch.where(whole, plain, mean), 0), kept[:, 0]


def _turned(tensor: Tensor, turn: _Turn) -> Tensor:
    mirrored, quarters = turn
    turned = torch.rot90(tensor.flip(-1) if mirrored else tensor, quarters, (-2, -1))
    return turned.contiguous()


def _turned_back(tensor: Tensor, turn: _Turn) -> Tensor:
    mirrored, quarters = turn
    back = torch.rot90(tensor, -quarters, (-2, -1))
    return (back.flip(-1) if mirrored else back).contiguous()
