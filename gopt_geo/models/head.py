"""Segmentation heads (step 12): a light multi-layer perceptron over four taps of the backbone, or one linear layer."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gopt_geo.models.tokens import normalise_tokens

__all__ = ["HeadKind", "LinearHead", "MLPHead", "build_head", "tap_layers"]

HeadKind = Literal["mlp", "linear"]


def tap_layers(depth: int) -> tuple[int, ...]:
    """Layers whose outputs the head reads: L/4, L/2, 3L/4 and L, counted from 1; fewer where L is below 4."""
    return tuple(sorted({max(1, round(depth * quarter / 4)) for quarter in (1, 2, 3, 4)}))


class MLPHead(nn.Module):
    """Project each tap, fuse, classify; bilinear to full size.

    Parameters
    ----------
    width
        D of the backbone.
    taps
        Number of taps.
    hidden
        Width of the perceptron.
    classes
        Number of classes.
    upscale
        Each token predicts ``upscale`` x ``upscale`` cells instead of one, before the bilinear step: with the
        coarse tokens of a small backbone this is what draws roads and field borders. 1 is the plain head.
    """

    def __init__(self, width: int, taps: int, hidden: int, classes: int, upscale: int = 1) -> None:
        super().__init__()
        self.upscale = upscale
        self.project = nn.ModuleList(nn.Linear(width, hidden) for _ in range(taps))
        self.fuse = nn.Linear(taps * hidden, hidden)
        self.classify = nn.Linear(hidden, classes * upscale**2)

    def forward(self, taps: list[Tensor], grid: tuple[int, int], size: tuple[int, int]) -> Tensor:
        """Predict logits.

        Parameters
        ----------
        taps
            Patch tokens of the tapped layers, each [B, N, D].
        grid
            Rows and columns of tokens; their product is N.
        size
            Height and width of the result in pixels.

        Returns
        -------
        Logits [B, classes, height, width].
        """
        projected = [layer(normalise_tokens(tap)) for layer, tap in zip(self.project, taps, strict=True)]
        hidden = F.gelu(self.fuse(F.gelu(torch.cat(projected, dim=-1))))
        return to_pixels(self.classify(hidden), self.upscale, grid, size)


class LinearHead(nn.Module):
    """Classify the last tap alone by one linear layer; bilinear to full size.

    Parameters
    ----------
    width, classes, upscale
        As of `MLPHead`.
    """

    def __init__(self, width: int, classes: int, upscale: int = 1) -> None:
        super().__init__()
        self.upscale = upscale
        self.classify = nn.Linear(width, classes * upscale**2)

    def forward(self, taps: list[Tensor], grid: tuple[int, int], size: tuple[int, int]) -> Tensor:
        """Predict logits [B, classes, height, width]; see `MLPHead.forward`."""
        return to_pixels(self.classify(normalise_tokens(taps[-1])), self.upscale, grid, size)


def to_pixels(cells: Tensor, upscale: int, grid: tuple[int, int], size: tuple[int, int]) -> Tensor:
    """Lay out what each token says, [B, N, classes upscale^2], as an image [B, classes, height, width]."""
    if cells.dtype in (torch.bfloat16, torch.float16):
        cells = cells.float()  # between cells the eight bits of bf16 are too coarse
    image: Tensor = cells.transpose(1, 2).unflatten(2, grid)
    if upscale > 1:
        image = F.pixel_shuffle(image, upscale)
    if tuple(image.shape[-2:]) == size:
        return image
    resized: Tensor = F.interpolate(image, size=size, mode="bilinear", align_corners=False)
    return resized


def build_head(kind: HeadKind, width: int, taps: int, hidden: int, classes: int, upscale: int) -> nn.Module:
    """Build the head that a configuration names."""
    if kind == "linear":
        return LinearHead(width, classes, upscale)
    return MLPHead(width, taps, hidden, classes, upscale)
