"""ACP, the alignment-induced cross-modal prompter: brings what the groups say to the tokens of the RGB stream.

And the two ways to do without groups that GoPT is compared with. Step numbers are those of ``docs/model.md``. Shapes:
B batch, N tokens, K groups, r rank.
"""

from __future__ import annotations

from typing import Literal

import torch.nn.functional as F
from torch import Tensor, nn

from gopt_geo.models.cup import Grouping

__all__ = ["AcpMode", "AlignmentInducedCrossModalPrompter", "CupMode", "UngroupedPrompter"]

AcpMode = Literal["assignment", "similarity", "both", "broadcast"]
CupMode = Literal["grouping", "cross_attention", "pointwise"]


class AlignmentInducedCrossModalPrompter(nn.Module):
    """ACP (step 9).

    Parameters
    ----------
    rank
        r, the width inside the prompter.
    mode
        ``assignment``: from the group that the pixel's own auxiliary token chose; ``similarity``: from the groups
        like the RGB token; ``both``: their sum; ``broadcast``: ACP off, the mean of all groups for every token.
    token_value
        Add the auxiliary token's own value.
    """

    def __init__(self, rank: int, *, mode: AcpMode = "assignment", token_value: bool = False) -> None:
        super().__init__()
        self.mode = mode
        self.token_value = token_value
        self.value = nn.Linear(rank, rank)
        if self.needs_rgb:
            self.query = nn.Linear(rank, rank)
            self.key = nn.Linear(rank, rank)

    @property
    def needs_rgb(self) -> bool:
        """Whether the RGB tokens are looked at."""
        return self.mode in ("similarity", "both")

    def forward(self, rgb: Tensor | None, grouping: Grouping) -> Tensor:
        """Return H, [B, N, r]; ``rgb`` is Q, [B, N, r], and needed where `needs_rgb`."""
        values = self.value(grouping.representation)
        parts = []
        if self.mode in ("assignment", "both"):
            parts.append(grouping.assignment.transpose(1, 2) @ values)
        if self.needs_rgb and rgb is not None:
            query, key = self.query(rgb).unsqueeze(1), self.key(grouping.representation).unsqueeze(1)
            parts.append(F.scaled_dot_product_attention(query, key, values.unsqueeze(1)).squeeze(1))
        if self.mode == "broadcast":
            parts.append(values.mean(dim=1, keepdim=True).expand_as(grouping.tokens))
        if self.token_value:
            parts.append(F.linear(grouping.tokens, self.value.weight))
        prompt: Tensor = parts[0]
        for part in parts[1:]:
            prompt = prompt + part
        return prompt


class UngroupedPrompter(nn.Module):
    """CUP off: prompts straight from the auxiliary tokens, without groups.

    Parameters
    ----------
    rank
        r.
    mode
        ``cross_attention``: each RGB token attends to all auxiliary tokens, H = softmax((Q W_q')(Z W_k')^T / sqrt(r))
        (Z W_v'); ``pointwise``: each gets its own auxiliary token's value, H = Z W_v'.
    """

    def __init__(self, rank: int, *, mode: Literal["cross_attention", "pointwise"]) -> None:
        super().__init__()
        self.mode = mode
        self.value = nn.Linear(rank, rank)
        if self.needs_rgb:
            self.query = nn.Linear(rank, rank)
            self.key = nn.Linear(rank, rank)

    @property
    def needs_rgb(self) -> bool:
        """Whether the RGB tokens are looked at."""
        return self.mode == "cross_attention"

    def forward(self, rgb: Tensor | None, tokens: Tensor, valid: Tensor | None = None) -> Tensor:
        """Return H, [B, N, r].

        Parameters
        ----------
        rgb
            Q, [B, N, r]; needed where `needs_rgb`.
        tokens
            Z, [B, N, r].
        valid
            bool [B, N]; invalid tokens are no keys. None: all are valid.
        """
        values: Tensor = self.value(tokens)
        if not self.needs_rgb or rgb is None:
            return values
        visible = None
        if valid is not None:
            # Where no token is valid nothing may be seen, and a softmax over nothing is NaN: there all are keys, and
            # the prompter drops the result.
            visible = (valid | ~valid.any(dim=1, keepdim=True))[:, None, None, :]
        query, key = self.query(rgb).unsqueeze(1), self.key(tokens).unsqueeze(1)
        attended: Tensor = F.scaled_dot_product_attention(query, key, values.unsqueeze(1), attn_mask=visible)
        return attended.squeeze(1)
