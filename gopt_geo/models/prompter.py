"""The grouping prompter of one layer: CUP groups an auxiliary modality, ACP brings the groups to the RGB stream.

A reconstruction of GoPT (He, AAAI 2024) from its abstract, figures and relatives; step numbers are those of the
equations in ``docs/model.md``. Shapes: B batch, N tokens, K class tokens (groups), D width, r rank.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = [
    "AcpMode",
    "AlignmentInducedCrossModalPrompter",
    "ClassAwareUniModalPrompter",
    "Grouping",
    "GroupingPrompter",
    "normalise_tokens",
]

AcpMode = Literal["assignment", "similarity", "both"]


def normalise_tokens(tokens: Tensor) -> Tensor:
    """Layer normalisation without affine; the affine of the prompters' LN is folded into their projections."""
    return F.layer_norm(tokens, tokens.shape[-1:], eps=1e-6)


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
    """CUP: class tokens group the tokens of one auxiliary modality (steps 3 to 7).

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

    def forward(self, groups: Tensor, tokens: Tensor, valid: Tensor) -> Grouping:
        """Group tokens.

        Parameters
        ----------
        groups
            G, [B, K, r].
        tokens
            Z, [B, N, r].
        valid
            bool [B, N]; invalid tokens take part in no group.
        """
        count = groups.shape[1]
        joint = torch.cat([groups, tokens], dim=1)
        visible = F.pad(valid, (count, 0), value=True)[:, None, None, :]
        query, key, value = self.qkv(joint).unsqueeze(1).chunk(3, dim=-1)  # one head
        attended = F.scaled_dot_product_attention(query, key, value, attn_mask=visible).squeeze(1)
        joint = joint + self.project(attended)
        groups, tokens = joint[:, :count], joint[:, count:]
        query, key = self.group_query(groups), self.token_key(tokens)
        cosine = F.normalize(query, dim=-1) @ F.normalize(key, dim=-1).transpose(1, 2)
        # In fp32 at least, whatever the precision of the rest: half precision would tie groups that differ.
        similarity = self.sharpness * cosine.to(torch.promote_types(cosine.dtype, torch.float32))
        assignment = self.assign(similarity) * valid.unsqueeze(1)
        assignment = assignment.to(tokens.dtype)
        gathered = assignment @ self.value(tokens) / (assignment.sum(dim=2, keepdim=True) + 1.0)
        return Grouping(groups + self.output(gathered), assignment, tokens)

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


class AlignmentInducedCrossModalPrompter(nn.Module):
    """ACP: brings class-aware representations to the pixels of the RGB stream (step 9).

    Parameters
    ----------
    rank
        r, the width inside the prompter.
    mode
        ``assignment``: from the group that the pixel's own auxiliary token chose; ``similarity``: from the groups
        like the RGB token; ``both``: their sum.
    token_value
        Add the auxiliary token's own value.
    """

    def __init__(self, rank: int, *, mode: AcpMode = "assignment", token_value: bool = False) -> None:
        super().__init__()
        self.mode = mode
        self.token_value = token_value
        self.value = nn.Linear(rank, rank)
        if mode != "assignment":
            self.query = nn.Linear(rank, rank)
            self.key = nn.Linear(rank, rank)

    def forward(self, rgb: Tensor | None, grouping: Grouping) -> Tensor:
        """Return H, [B, N, r]; ``rgb`` is Q, [B, N, r], and needed by the similarity alone."""
        values = self.value(grouping.representation)
        prompt = torch.zeros_like(grouping.tokens)
        if self.mode != "similarity":
            prompt = prompt + grouping.assignment.transpose(1, 2) @ values
        if self.mode != "assignment" and rgb is not None:
            query, key = self.query(rgb).unsqueeze(1), self.key(grouping.representation).unsqueeze(1)
            attended = F.scaled_dot_product_attention(query, key, values.unsqueeze(1))
            prompt = prompt + attended.squeeze(1)
        if self.token_value:
            prompt = prompt + F.linear(grouping.tokens, self.value.weight)
        return prompt


class GroupingPrompter(nn.Module):
    """The prompter of one layer, shared by all auxiliary modalities (steps 2 to 10).

    Parameters
    ----------
    width
        D of the backbone.
    rank
        r.
    hard
        Hard or soft assignment.
    acp_mode, token_value
        See `AlignmentInducedCrossModalPrompter`.
    scale
        Start of the learned layer scale s.
    """

    def __init__(
        self,
        width: int,
        rank: int,
        *,
        hard: bool = True,
        acp_mode: AcpMode = "assignment",
        token_value: bool = False,
        scale: float = 1e-2,
    ) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)  # its affine alone is used: the normalisation itself is shared
        self.down = nn.Linear(width, rank)
        self.up = nn.Linear(rank, width)
        self.scale = nn.Parameter(torch.full((width,), scale))
        self.cup = ClassAwareUniModalPrompter(rank, hard=hard)
        self.acp = AlignmentInducedCrossModalPrompter(rank, mode=acp_mode, token_value=token_value)

    def reduce(self, normalised: Tensor) -> Tensor:
        """d(x) = LN(x) W_d + b_d (step 2), given x already normalised: the affine is folded into the weights."""
        weight = self.down.weight * self.norm.weight
        bias = F.linear(self.norm.bias, self.down.weight, self.down.bias)
        return F.linear(normalised, weight, bias)

    def forward(
        self, rgb: Tensor, auxiliary: Tensor, class_tokens: Tensor, valid: Tensor
    ) -> tuple[Tensor, Tensor, Grouping]:
        """Make the prompt of one modality.

        Parameters
        ----------
        rgb
            Tokens of the RGB stream, [B, N, D].
        auxiliary
            Tokens of the auxiliary stream, normalised by `normalise_tokens`, [B, N, D].
        class_tokens
            C_m, [B, K, D].
        valid
            bool [B, N] of the auxiliary modality.

        Returns
        -------
        The prompt p_m [B, N, D], the class tokens for the next layer [B, K, D], and the grouping.
        """
        groups = self.reduce(normalise_tokens(class_tokens))
        grouping = self.cup(groups, self.reduce(auxiliary), valid)
        query = None if self.acp.mode == "assignment" else self.reduce(normalise_tokens(rgb))
        prompt = self.acp(query, grouping)
        # Layer scale folded into the up-projection: one multiplication of [D, r] instead of one of [B, N, D].
        prompt = F.linear(prompt, self.up.weight * self.scale[:, None], self.up.bias * self.scale)
        prompt = prompt * valid.unsqueeze(-1)
        return prompt, class_tokens + self.up(grouping.representation), grouping
