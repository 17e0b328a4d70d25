"""Multi-scale and mirrored prediction of tiles: a model around a model, run by the same tiler."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from gopt_geo.errors import GoptGeoError
from gopt_geo.inference import TileModel

__all__ = ["SCALES", "AugmentedModel"]

SCALES = (0.5, 0.75, 1.0, 1.25, 1.5, 1.75)
"""Sizes in general use where figures are said to be multi-scale."""


class AugmentedModel:
    """Averages a model's probabilities over sizes of the tile, and over each tile and its mirror image.

    A tile is resampled to the nearest multiple of the patch, predicted, and brought back. Pixels without data have no
    part in any resampling, neither of the image nor of the probabilities. With the one size 1 and no mirror the result
    is the model's own, bit for bit.

    Parameters
    ----------
    model
        What predicts.
    patch_size
        Edge of the patches that its tiles are cut into.
    scales
        Sizes as factors, above 0.
    flip
        Whether tiles are also predicted mirrored left to right.

    Raises
    ------
    GoptGeoError
        If there are no scales, or one isn't above 0.
    """

    def __init__(
        self, model: TileModel, patch_size: int, scales: Sequence[float] = (1.0,), *, flip: bool = False
    ) -> None:
        wrong = [scale for scale in scales if not 0 < scale < float("inf")]
        if wrong or not scales:
            found = f"{wrong[0]:g} is no size" if wrong else "there are none"
            raise GoptGeoError("--scales", found, "give factors above 0, such as 0.75,1,1.25")
        self._model, self._patch, self._scales, self._flip = model, patch_size, tuple(scales), flip
        self.num_classes = model.num_classes
        self.modalities: tuple[str, ...] = model.modalities

    def __call__(self, values: dict[str, Tensor], valid: dict[str, Tensor], /) -> Tensor:
        """Probabilities float32 [B, K, t, t] of values float32 [B, C, t, t] and validity bool [B, t, t]."""
        edge = next(iter(values.values())).shape[-1]
        total: Tensor | None = None
        sizes = self.sizes(edge)
        for size in sizes:
            for mirrored in (False, True) if self._flip else (False,):
                found = self._predict(values, valid, edge, size, mirrored)
                total = found if total is None else total + found
        assert total is not None
        count = len(sizes) * (2 if self._flip else 1)
        return total if count == 1 else total / count

    def sizes(self, edge: int) -> list[int]:
        """Return the edges at which tiles of an edge are predicted, in pixels."""
        patch = self._patch
        return [max(1, round(edge * scale / patch)) * patch if scale != 1 else edge for scale in self._scales]

    def _predict(
        self, values: dict[str, Tensor], valid: dict[str, Tensor], edge: int, size: int, mirrored: bool
    ) -> Tensor:
        images, masks = dict(values), dict(valid)
        if size != edge:
            for name in values:
                images[name], masks[name] = resample(values[name], valid[name], size)
        if mirrored:
            images = {name: image.flip(-1) for name, image in images.items()}
            masks = {name: mask.flip(-1) for name, mask in masks.items()}
        found = self._model(images, masks).float()
        if mirrored:
            found = found.flip(-1)
        if size == edge:
            return found
        anywhere = torch.stack([mask.flip(-1) if mirrored else mask for mask in masks.values()]).any(dim=0)
        # Where no pixel with data is near there is nothing to keep out, and the tiler takes nothing from there.
        back, known = resample(found, anywhere, edge, least=0.0)
        return torch.where(known[:, None], back, 1 / self.num_classes)


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
    weights = valid[:, None].float()

    def sized(tensor: Tensor) -> Tensor:
        return F.interpolate(tensor, (size, size), mode="bilinear", align_corners=False, antialias=True)

    if bool(valid.all()):
        return sized(values), torch.ones((len(values), size, size), dtype=torch.bool, device=values.device)
    share = sized(weights)
    kept = share >= least if least else share > 1e-6
    mean = sized(torch.where(valid[:, None], values, 0)) / torch.where(kept, share, 1)
    return torch.where(kept, mean, 0), kept[:, 0]
