"""One training loop for the small models that the package makes of simulated scenes."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from gopt_geo.training.crops import Batch, CropSampler

__all__ = ["class_weights", "fit"]

logger = logging.getLogger(__name__)


def class_weights(shares: NDArray[np.float64], power: float = 0.3) -> Tensor:
    """Weights that grow as a class gets rarer, ``share ** -power``, of mean 1 over the pixels; float32 [K]."""
    weights = np.maximum(shares, 1e-4) ** -power
    return torch.from_numpy(weights / (weights * shares).sum()).float()


def fit(
    model: nn.Module,
    forward: Callable[[Batch], Tensor],
    sampler: CropSampler,
    *,
    steps: int,
    rate: float,
    weights: Tensor,
    decay: float = 1e-2,
) -> float:
    """Train the parameters that require gradients: AdamW, one cycle with 10 % warm-up, clipping at 1.

    The warm-up takes at least two steps.

    Parameters
    ----------
    model
        Whose parameters are trained, in place.
    forward
        Batch to logits [B, K, t, t].
    sampler
        Gives batch i.
    steps, rate
        Number of steps, highest learning rate.
    weights
        Of the classes in the cross-entropy, [K]; label 255 is ignored.
    decay
        Weight decay, on matrices alone.

    Returns
    -------
    Mean loss over the last tenth of the steps.

    Raises
    ------
    FloatingPointError
        If the loss stops being finite.
    """
    parameters = [p for p in model.parameters() if p.requires_grad]
    matrices, others = [p for p in parameters if p.ndim > 1], [p for p in parameters if p.ndim <= 1]
    groups = [{"params": matrices, "weight_decay": decay}, {"params": others, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=rate)
    # A warm-up of exactly one step would be one of no length to the schedule, and divide by zero.
    warm_up = max(0.1, 2 / max(steps, 3))
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, total_steps=steps, pct_start=warm_up)
    model.train()
    losses: list[float] = []
    started = time.monotonic()
    for step in range(steps):
        batch = sampler(step)
        loss = F.cross_entropy(forward(batch), batch.labels, weight=weights, ignore_index=255)
        if not torch.isfinite(loss):
            raise FloatingPointError(f"loss {loss.item()} at step {step}")
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        schedule.step()
        losses.append(loss.item())
        if (step + 1) % 50 == 0:
            rate_now = (step + 1) / (time.monotonic() - started)
            recent = float(np.mean(losses[-50:]))
            logger.info("step %d of %d, loss %.4f, %.2f steps/s", step + 1, steps, recent, rate_now)
    model.eval()
    return float(np.mean(losses[-max(1, steps // 10) :]))
