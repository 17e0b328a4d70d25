"""How a model uses its groups, layer by layer: their shares, entropies, and the dead ones.

Shapes: B batch, K groups, N tokens. Groups are counted from 1, as layers are. A group is not a class, and its number
means something else in each layer.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from gopt_geo.models.cup import Grouping

__all__ = ["DEAD_BELOW", "GroupUsage", "LayerUsage"]

DEAD_BELOW = 0.02
"""A group with a smaller share of the tokens counts as dead."""


@dataclass(frozen=True)
class LayerUsage:
    """How one layer groups one modality. All entropies are divided by log K: 0 to 1.

    Attributes
    ----------
    layer, modality
        The prompted layer, counted from 1, and the auxiliary modality.
    tokens
        Number of valid tokens. Where it is 0, shares and entropies are 0 and no group counts as dead.
    shares
        s_k: share of the tokens in each group, [K], sum 1; where soft, of the probability.
    entropies
        -s_k log s_k / log K: each group's part of `entropy`, [K].
    token_entropies
        How undecided the group's tokens are, [K]: the mean entropy of a token's own probabilities, weighted by how
        much of the token belongs to the group. 0 where the assignment is hard.
    dead
        Numbers of the groups with a share below the threshold, from 1.
    """

    layer: int
    modality: str
    tokens: int
    shares: tuple[float, ...]
    entropies: tuple[float, ...]
    token_entropies: tuple[float, ...]
    dead: tuple[int, ...]

    @property
    def entropy(self) -> float:
        """Entropy of the shares: 1 where all groups are equally large, 0 where one has all tokens."""
        return min(math.fsum(self.entropies), 1.0)

    @property
    def used(self) -> int:
        """Number of groups that aren't dead; 0 without tokens."""
        return len(self.shares) - len(self.dead) if self.tokens else 0

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON data; groups by number."""
        columns = zip(self.shares, self.entropies, self.token_entropies, strict=True)
        return {
            "layer": self.layer,
            "modality": self.modality,
            "tokens": self.tokens,
            "entropy": self.entropy,
            "used": self.used,
            "dead": list(self.dead),
            "groups": [
                {"group": number, "share": share, "entropy": entropy, "token_entropy": own}
                for number, (share, entropy, own) in enumerate(columns, 1)
            ],
        }


class GroupUsage:
    """Adds up how groups are used over any number of forward passes.

    Sums are kept in float64 and integers on the groupings' device, and read from there only when asked for: counts
    of hard assignments are exact, and `update` never waits for a GPU.

    Parameters
    ----------
    dead_below
        Share under which a group counts as dead; with K groups an even share is 1 / K.

    Raises
    ------
    ValueError
        If ``dead_below`` isn't between 0 and 1.

    Examples
    --------
    >>> usage = GroupUsage()
    >>> groupings: list[Grouping] = []
    >>> model(images, valid, groupings=groupings)  # doctest: +SKIP
    >>> usage.update(groupings)
    >>> [(layer.layer, layer.entropy, layer.dead) for layer in usage.layers()]
    []
    """

    def __init__(self, dead_below: float = DEAD_BELOW) -> None:
        if not 0 <= dead_below <= 1:
            raise ValueError(f"a share lies between 0 and 1, not {dead_below}")
        self.dead_below = dead_below
        # By layer and modality: float64 [2, K] of sum_n A_kn and sum_n A_kn h_n, and int64 [] of valid tokens.
        self._sums: dict[tuple[int, str], tuple[Tensor, Tensor]] = {}

    @torch.no_grad()
    def update(self, groupings: Iterable[Grouping]) -> None:
        """Add the groupings of one forward pass.

        Parameters
        ----------
        groupings
            As `GoPT.forward` appends them; a token whose column of ``assignment`` [B, K, N] is zero isn't counted.

        Raises
        ------
        ValueError
            If a layer has another number of groups than before.
        """
        for grouping in groupings:
            key = (grouping.layer, grouping.modality)
            assignment = grouping.assignment.detach().double()
            own = torch.special.entr(assignment.clamp(0, 1)).sum(dim=1, keepdim=True)  # [B, 1, N]
            sums = torch.stack([assignment.sum(dim=(0, 2)), (assignment * own).sum(dim=(0, 2))])
            tokens = (assignment.sum(dim=1) > 0.5).sum()
            if key in self._sums:
                before, counted = self._sums[key]
                if before.shape != sums.shape:
                    found = f"{sums.shape[1]} groups after {before.shape[1]}"
                    raise ValueError(f"layer {key[0]}, {key[1]}: {found}; use a GroupUsage for each model")
                sums, tokens = before + sums, counted + tokens  # not in place: a sum may be an inference tensor
            self._sums[key] = sums, tokens

    def layers(self) -> list[LayerUsage]:
        """Usage of each layer and modality seen so far, in order of layers."""
        return [self._usage(key) for key in sorted(self._sums)]

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON data: the threshold, and `LayerUsage.to_dict` of each layer and modality."""
        return {"dead_below": self.dead_below, "layers": [layer.to_dict() for layer in self.layers()]}

    def _usage(self, key: tuple[int, str]) -> LayerUsage:
        sums, counted = self._sums[key]
        mass, undecided = sums.cpu()
        tokens = int(counted)
        # By the sum of the masses, which is the number of tokens but for the rounding of soft probabilities.
        shares = mass / mass.sum() if tokens else torch.zeros_like(mass)
        scale = math.log(max(len(mass), 2))
        own = torch.where(mass > 0, undecided / mass.clamp_min(torch.finfo(mass.dtype).tiny), 0.0)
        dead = (shares < self.dead_below).nonzero().flatten() + 1 if tokens else torch.zeros(0)
        return LayerUsage(
            layer=key[0],
            modality=key[1],
            tokens=tokens,
            shares=tuple(shares.tolist()),
            # the entropy of 1 is -0.0, and -0.0 + 0.0 is 0.0
            entropies=tuple((torch.special.entr(shares) / scale + 0.0).tolist()),
            token_entropies=tuple((own / scale + 0.0).tolist()),
            dead=tuple(int(number) for number in dead.tolist()),
        )
