"""The segmentation head: a light multi-layer perceptron over four taps of the backbone (GOPT.md, step 12)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gopt_geo.models.prompter import normalise_tokens

__all__ = ["MLPHead", "tap_layers"]


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
        cells: Tensor = self.classify(hidden).transpose(1, 2).unflatten(2, grid)
        if self.upscale > 1:
            cells = F.pixel_shuffle(cells, self.upscale)
        if tuple(cells.shape[-2:]) == size:
            return cells
        resized: Tensor = F.interpolate(cells, size=size, mode="bilinear", align_corners=False)
        return resized
