"""The grouping prompter of one layer: CUP groups an auxiliary modality, ACP brings the groups to the RGB stream.

A reconstruction of GoPT (He, AAAI 2024) from its abstract, figures and relatives; step numbers are those of the
equations in ``docs/model.md``. Shapes: B batch, N tokens, K class tokens (groups), D width, r rank.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gopt_geo.models.acp import AcpMode, AlignmentInducedCrossModalPrompter, CupMode, UngroupedPrompter
from gopt_geo.models.cup import ClassAwareUniModalPrompter, Grouping
from gopt_geo.models.tokens import normalise_tokens

__all__ = ["GroupingPrompter", "expand_prompt"]


class GroupingPrompter(nn.Module):
    """The prompter of one layer, shared by all auxiliary modalities (steps 2 to 10).

    Parameters
    ----------
    width
        D of the backbone.
    rank
        r.
    cup_mode
        ``grouping``, or CUP off: see `UngroupedPrompter`.
    hard
        Hard or soft assignment.
    acp_mode, token_value
        See `AlignmentInducedCrossModalPrompter`; without groups they mean nothing.
    scale
        Start of the learned layer scale s.
    """

    def __init__(
        self,
        width: int,
        rank: int,
        *,
        cup_mode: CupMode = "grouping",
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
        self.cup: ClassAwareUniModalPrompter | None = None
        self.acp: AlignmentInducedCrossModalPrompter | UngroupedPrompter
        if cup_mode == "grouping":
            self.cup = ClassAwareUniModalPrompter(rank, hard=hard)
            self.acp = AlignmentInducedCrossModalPrompter(rank, mode=acp_mode, token_value=token_value)
        else:
            self.acp = UngroupedPrompter(rank, mode=cup_mode)

    @property
    def needs_rgb(self) -> bool:
        """Whether `forward` looks at the RGB tokens."""
        return self.acp.needs_rgb

    def reduction(self) -> tuple[Tensor, Tensor]:
        """Weight [r, D] and bias [r] of d (step 2) for tokens that are normalised already: LN's affine is folded in."""
        weight = self.down.weight * self.norm.weight
        return weight, F.linear(self.norm.bias, self.down.weight, self.down.bias)

    def reduce(self, normalised: Tensor) -> Tensor:
        """d(x) = LN(x) W_d + b_d (step 2) of x normalised by `normalise_tokens`, [..., D] to [..., r]."""
        return F.linear(normalised, *self.reduction())

    def expansion(self) -> tuple[Tensor, Tensor]:
        """Weight [D, r] and bias [D] of step 10, the layer scale s folded in."""
        return self.up.weight * self.scale[:, None], self.up.bias * self.scale

    def forward(
        self, rgb: Tensor | None, reduced: Tensor, class_tokens: Tensor | None, valid: Tensor | None = None
    ) -> tuple[Tensor, Tensor | None, Grouping | None]:
        """Make the prompt of one modality, still in r dimensions.

        Parameters
        ----------
        rgb
            Q, the reduced tokens of the RGB stream, [B, N, r]; needed where `needs_rgb`.
        reduced
            Z, the reduced tokens of the auxiliary stream, [B, N, r].
        class_tokens
            C_m, [B, K, D]; not looked at without groups.
        valid
            bool [B, N] of the auxiliary modality; None: all are valid.

        Returns
        -------
        H [B, N, r], zero where not valid; the class tokens for the next layer [B, K, D]; and the grouping. Without
        groups the class tokens come back as they are, and the grouping is None.
        """
        grouping = None
        if self.cup is not None:
            assert class_tokens is not None
            assert isinstance(self.acp, AlignmentInducedCrossModalPrompter)
            grouping = self.cup(self.reduce(normalise_tokens(class_tokens)), reduced, valid)
            prompt = self.acp(rgb, grouping)
            class_tokens = class_tokens + self.up(grouping.representation)
        else:
            prompt = self.acp(rgb, reduced, valid)
        if valid is not None:
            prompt = prompt * valid.unsqueeze(-1)
        return prompt, class_tokens, grouping


def expand_prompt(prompter: GroupingPrompter, prompt: Tensor, counts: Tensor | None, modalities: int) -> Tensor:
    """Bring the summed prompts of all modalities to full width (steps 10 and 11): s (sum of H_m W_u + b_u).

    Parameters
    ----------
    prompter
        Whose up-projection is used; the modalities share it, so one product serves all of them.
    prompt
        Sum over m of H_m, [B, N, r], each H_m zero where m isn't valid.
    counts
        [B, N, 1], in how many modalities a token is valid; None: in all of them.
    modalities
        Number of modalities that were summed.

    Returns
    -------
    p, [B, N, D]; exactly 0 where counts are 0.
    """
    weight, bias = prompter.expansion()
    if counts is None:
        return F.linear(prompt, weight, bias * modalities)
    # The bias counts once a valid modality: as a further column of the same product instead of a pass over [B, N, D].
    return F.linear(torch.cat([prompt, counts.to(prompt.dtype)], dim=-1), torch.cat([weight, bias[:, None]], dim=1))
