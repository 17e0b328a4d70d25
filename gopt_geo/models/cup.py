"""CUP, the class-aware uni-modal prompter: class tokens group the tokens of one auxiliary modality.

A reconstruction of GoPT (He, AAAI 2024) from its abstract, figures and relatives; step numbers are those of the
equations in ``docs/model.md``. Shapes: B batch, N tokens, K class tokens (groups), r rank.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["ClassAwareUniModalPrompter", "Grouping"]


@dataclass(frozen=True)
class Grouping:
    """What CUP found in one layer.

    Attributes
    ----------
    representation
        P, [B, K, r]: what each group stands for (step 7).
    assignment
        A^, [B, K, N]: which group each token chose (step 6); zero for invalid tokens.
    tokens
        Z', [B, N, r]: the auxiliary tokens after joint self-attention (step 3).
    layer, modality
        Where it was found: the prompted layer, counted from 1, and the auxiliary modality.
    """

    representation: Tensor
    assignment: Tensor
    tokens: Tensor
    layer: int = 0
    modality: str = ""


class ClassAwareUniModalPrompter(nn.Module):
    """CUP (steps 3 to 7).

    Parameters
    ----------
    rank
        r, the width inside the prompter.
    hard
        One-hot assignment with a straight-through gradient; else soft.
    temperature
        tau of the Gumbel-softmax.
    sharpness
        a, the factor of the bounded similarity: unbounded dot products grow until groups die.
    """

    def __init__(self, rank: int, *, hard: bool = True, temperature: float = 1.0, sharpness: float = 5.0) -> None:
        super().__init__()
        self.hard = hard
        self.temperature = temperature
        self.sharpness = sharpness
        self.qkv = nn.Linear(rank, 3 * rank)
        self.project = nn.Linear(rank, rank)
        self.group_query = nn.Linear(rank, rank)
        self.token_key = nn.Linear(rank, rank)
        self.value = nn.Linear(rank, rank)
        self.output = nn.Linear(rank, rank)

    def forward(self, groups: Tensor, tokens: Tensor, valid: Tensor | None = None) -> Grouping:
        """Group tokens.

        Parameters
        ----------
        groups
            G, [B, K, r].
        tokens
            Z, [B, N, r].
        valid
            bool [B, N]; invalid tokens take part in no group. None: all are valid.
        """
        groups, tokens = self.attend(groups, tokens, valid)
        assignment = self.assign(self.similarity(groups, tokens))
        if valid is not None:
            assignment = assignment * valid.unsqueeze(1)
        assignment = assignment.to(tokens.dtype)
        gathered = assignment @ self.value(tokens) / (assignment.sum(dim=2, keepdim=True) + 1.0)
        return Grouping(groups + self.output(gathered), assignment, tokens)

    def attend(self, groups: Tensor, tokens: Tensor, valid: Tensor | None) -> tuple[Tensor, Tensor]:
        """Joint self-attention of groups and tokens, one head (step 3); invalid tokens are no keys."""
        count = groups.shape[1]
        joint = torch.cat([groups, tokens], dim=1)
        visible = None if valid is None else F.pad(valid, (count, 0), value=True)[:, None, None, :]
        query, key, value = self.qkv(joint).unsqueeze(1).chunk(3, dim=-1)
        attended = F.scaled_dot_product_attention(query, key, value, attn_mask=visible).squeeze(1)
        joint = joint + self.project(attended)
        return joint[:, :count], joint[:, count:]

    def similarity(self, groups: Tensor, tokens: Tensor) -> Tensor:
        """S, float32 (float64 in double precision) [B, K, N] (step 4)."""
        query, key = self.group_query(groups), self.token_key(tokens)
        # In fp32 at least, whatever the precision of the rest: half precision would tie groups that differ.
        with torch.autocast(query.device.type, enabled=False):
            wide = torch.promote_types(query.dtype, torch.float32)
            query, key = F.normalize(query.to(wide), dim=-1), F.normalize(key.to(wide), dim=-1)
            return self.sharpness * (query @ key.transpose(1, 2))

    def assign(self, similarity: Tensor) -> Tensor:
        """Assign each token to a group (steps 5 and 6).

        Parameters
        ----------
        similarity
            S, float32 or float64 [B, K, N].

        Returns
        -------
        The like of ``similarity``; over K it sums to 1, and where hard it is one-hot.
        """
        logits = similarity
        if self.training:
            # -log of an exponential variate is a Gumbel variate.
            gumbel = -torch.empty_like(similarity).exponential_().clamp_min_(1e-20).log()
            logits = (similarity + gumbel) / self.temperature
        if not self.hard:
            return torch.softmax(logits if self.training else similarity / self.temperature, dim=1)
        chosen = logits.argmax(dim=1, keepdim=True)
        one_hot = torch.zeros_like(logits).scatter_(1, chosen, 1.0)
        if not self.training:
            return one_hot
        soft = torch.softmax(logits, dim=1)
        return one_hot + (soft - soft.detach())  # the bracket is 0 exactly, so that the sum stays one-hot
