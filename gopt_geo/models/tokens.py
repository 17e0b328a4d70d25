"""Small things that all models do with tokens: normalise them, and tell which of them carry data."""

from __future__ import annotations

from collections.abc import Mapping

import torch.nn.functional as F
from torch import Tensor

__all__ = ["drop_complete", "normalise_tokens", "token_validity"]


def normalise_tokens(tokens: Tensor) -> Tensor:
    """Layer normalisation without affine; the affine of the prompters' LN is folded into their projections."""
    return F.layer_norm(tokens, tokens.shape[-1:], eps=1e-6)


def token_validity(valid: Tensor, patch: int) -> Tensor:
    """Tell which tokens are valid: those with data in at least half of their patch's pixels.

    Parameters
    ----------
    valid
        bool [B, H, W].
    patch
        Patch edge in pixels.

    Returns
    -------
    bool [B, N], N = (H / patch) (W / patch).
    """
    share = F.avg_pool2d(valid.unsqueeze(1).float(), patch)
    return share.flatten(1) >= 0.5


def drop_complete(valid: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Leave out the masks that are true everywhere; models take a missing mask as valid everywhere.

    For training: without an optical mask no gradient is wanted for the mask token, and the backward pass ends above
    the first block. It reads the masks' values, so on a GPU it waits for them; prediction has no use for it.
    """
    return {name: mask for name, mask in valid.items() if not bool(mask.all())}
