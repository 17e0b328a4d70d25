"""What training minimises: cross-entropy over labelled pixels, with Dice or Lovasz-Softmax beside it on request."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gopt_geo.assessment.reference import UNLABELLED

__all__ = ["UNLABELLED", "LossKind", "SegmentationLoss"]

LossKind = Literal["cross_entropy", "cross_entropy+dice", "cross_entropy+lovasz"]


class SegmentationLoss(nn.Module):
    """Mean loss over the labelled pixels of a step, whatever parts the step's tiles are forwarded in.

    Each part's loss is divided by the weight of the whole step, so that the parts add up to the step's mean. For the
    cross-entropy this is exact. Dice (Milletari et al. 2016, "V-Net") and Lovasz-Softmax (Berman et al. 2018) compare
    areas, not pixels: they are taken over the tiles of each part, over the classes labelled there, and count by the
    part's share of the labelled pixels.

    Parameters
    ----------
    kind
        "cross_entropy", or with "+dice" or "+lovasz".
    weights
        Of the classes in the cross-entropy, float32 [K]; None: all alike.
    """

    weights: Tensor | None

    def __init__(self, kind: LossKind, weights: Tensor | None = None) -> None:
        super().__init__()
        self.kind = kind
        self.register_buffer("weights", weights, persistent=False)
        self._areas: nn.Module | None = None
        if kind != "cross_entropy":
            from segmentation_models_pytorch.losses import MULTICLASS_MODE, DiceLoss, LovaszLoss

            loss = DiceLoss if kind == "cross_entropy+dice" else LovaszLoss
            self._areas = loss(MULTICLASS_MODE, ignore_index=UNLABELLED)

    def weight(self, labels: Tensor) -> Tensor:
        """Return what labels weigh, a scalar: labelled pixels, or the sum of their classes' weights.

        Parameters
        ----------
        labels
            int64 [B, h, w], 255 unlabelled.
        """
        labelled = labels != UNLABELLED
        if self.weights is None:
            return labelled.sum().float()
        return torch.where(labelled, self.weights[labels.clamp_max(len(self.weights) - 1)], 0.0).sum()

    def forward(self, logits: Tensor, labels: Tensor, total: Tensor) -> Tensor:
        """Return the part of a step's loss that comes from some of its tiles; 0 without a labelled pixel.

        Parameters
        ----------
        logits
            [B, K, h, w].
        labels
            int64 [B, h, w], 255 unlabelled.
        total
            `weight` of all labels of the step.
        """
        logits = logits.float()
        total = total.clamp_min(torch.finfo(torch.float32).tiny)
        loss = F.cross_entropy(logits, labels, self.weights, ignore_index=UNLABELLED, reduction="sum") / total
        if self._areas is None:
            return loss
        own = self.weight(labels)
        if not bool(own > 0):  # areas of nothing are undefined, and the library's Lovasz isn't even a number there
            return loss
        return loss + self._over_classes(logits, labels) * (own / total)

    def _over_classes(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Dice or Lovasz, the mean over the classes that are labelled."""
        assert self._areas is not None
        areas: Tensor = self._areas(logits, labels)
        if self.kind == "cross_entropy+dice":
            # The library's mean is over all classes, and 0 for those without a labelled pixel.
            counts = torch.bincount(labels[labels != UNLABELLED], minlength=logits.shape[1])
            areas = areas * (logits.shape[1] / (counts > 0).sum())
        return areas
