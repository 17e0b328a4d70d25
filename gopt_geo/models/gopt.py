"""GoPT: a frozen RGB backbone, prompted by auxiliary modalities. And its single-modality relatives."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Literal

import torch
import torch.nn.functional as F
from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import Tensor, nn

from gopt_geo.models.backbone import Backbone
from gopt_geo.models.head import MLPHead, tap_layers
from gopt_geo.models.prompter import AcpMode, Grouping, GroupingPrompter, normalise_tokens

__all__ = ["GoPT", "GoptConfig", "token_validity"]


class GoptConfig(BaseModel):
    """Everything that fixes the trainable part's shape and way of working; part of every pack.

    Attributes
    ----------
    classes
        Number of classes.
    auxiliary
        Names of the auxiliary modalities; empty for the RGB-only model (frozen backbone + head).
    primary
        The modality that goes through the backbone's own stream: ``optical``, or an auxiliary one in a model that
        knows that alone.
    rank
        r of the prompters.
    groups
        K, class tokens a modality; the number of classes, but at least 8, where not given.
    hidden, upscale
        Of the head; see `MLPHead`.
    assignment
        Hard (default) or soft grouping.
    acp_mode, token_value
        See `AlignmentInducedCrossModalPrompter`.
    aux_stream
        ``embed_only``: prompters read the auxiliary embedding in every layer; ``frozen``: they read the output of
        the frozen blocks, at twice the cost.
    layers
        Prompted layers, counted from 1; None for 1 to L - 1.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    classes: int = Field(ge=2, le=255)
    auxiliary: tuple[str, ...] = ("sar",)
    primary: str = "optical"
    rank: int = Field(default=16, ge=1)
    groups: int = Field(default=8, ge=2)
    hidden: int = Field(default=64, ge=1)
    upscale: int = Field(default=1, ge=1)
    assignment: Literal["hard", "soft"] = "hard"
    acp_mode: AcpMode = "assignment"
    token_value: bool = False
    aux_stream: Literal["embed_only", "frozen"] = "embed_only"
    layers: tuple[int, ...] | None = None

    @model_validator(mode="before")
    @classmethod
    def _default_groups(cls, given: Any) -> Any:
        """Fill in K: a group is not a class, but more classes call for more groups."""
        if isinstance(given, Mapping) and "groups" not in given and isinstance(given.get("classes"), int):
            return {**given, "groups": max(8, given["classes"])}
        return given

    @model_validator(mode="after")
    def _distinct(self) -> GoptConfig:
        """Modality names become parts of tensor names: plain words, each once."""
        for name in self.modalities:
            if not name.isidentifier():
                raise ValueError(f"modality {name!r} is not a plain word")
        if len(set(self.modalities)) != len(self.modalities):
            raise ValueError(f"a modality is named twice in {self.modalities}")
        return self

    @property
    def modalities(self) -> tuple[str, ...]:
        """All modalities that the model reads, the primary one first."""
        return (self.primary, *self.auxiliary)


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


class GoPT(nn.Module):
    """A frozen backbone with grouping prompters and a head, which alone are trained.

    Parameters
    ----------
    backbone
        Frozen; not part of `trainable_state`.
    config
        Shape and switches.
    """

    def __init__(self, backbone: Backbone, config: GoptConfig) -> None:
        super().__init__()
        self.backbone = backbone
        self.config = config
        width, depth = backbone.embed_dim, backbone.depth
        layers = config.layers if config.layers is not None else tuple(range(1, depth))
        if any(not 1 <= layer < depth for layer in layers):
            raise ValueError(f"prompted layers {layers} must lie in 1 to {depth - 1}")
        self.taps = tap_layers(depth)
        self.head = MLPHead(width, len(self.taps), config.hidden, config.classes, config.upscale)
        self.mask_token = nn.Parameter(torch.zeros(width))
        self.prompters = nn.ModuleDict()
        self.class_tokens = nn.ParameterDict()
        if config.auxiliary:
            for layer in layers:
                self.prompters[str(layer)] = GroupingPrompter(
                    width,
                    config.rank,
                    hard=config.assignment == "hard",
                    acp_mode=config.acp_mode,
                    token_value=config.token_value,
                )
            for name in config.auxiliary:
                self.class_tokens[name] = nn.Parameter(0.02 * torch.randn(config.groups, width))

    def trainable_state(self) -> dict[str, Tensor]:
        """State of everything but the backbone: what a pack holds."""
        return {k: v for k, v in self.state_dict().items() if not k.startswith("backbone.")}

    def load_trainable_state(self, state: Mapping[str, Tensor]) -> None:
        """Load what `trainable_state` gave; RuntimeError if names or shapes don't fit."""
        wanted = set(self.trainable_state())
        if wanted != set(state):  # the backbone's own tensors are refused too: other models may share it
            odd = ", ".join(sorted(wanted ^ set(state))[:3])
            raise RuntimeError(
                f"{len(wanted - set(state))} tensors lack, {len(set(state) - wanted)} are foreign: {odd}"
            )
        self.load_state_dict(dict(state), strict=False)

    def forward(
        self, images: Mapping[str, Tensor], valid: Mapping[str, Tensor], groupings: list[Grouping] | None = None
    ) -> Tensor:
        """Predict logits.

        Parameters
        ----------
        images
            Modality to normalised image [B, 3, H, W]; H and W multiples of the patch size (the caller pads). An
            auxiliary modality that isn't there is left out; the primary one too is left out, not faked: its
            tokens become mask tokens.
        valid
            Modality to bool [B, H, W]; values at invalid pixels never change the result.
        groupings
            If given, each prompter's grouping is appended, layer by layer and modality by modality.

        Returns
        -------
        Logits [B, classes, H, W].
        """
        primary = self.config.primary
        some = next(iter(images.values()))
        size = (int(some.shape[2]), int(some.shape[3]))
        patch = self.backbone.patch_size
        prefix = self.backbone.num_prefix_tokens
        image = images.get(primary)
        if image is None:
            image, pixels = torch.zeros_like(some), torch.zeros_like(some[:, 0], dtype=torch.bool)
        else:
            pixels = valid[primary]
        tokens = self.backbone.embed(
            torch.where(pixels.unsqueeze(1), image, 0.0), ~token_validity(pixels, patch), self.mask_token
        )
        streams = self._embed_auxiliary(images, valid)
        classes = {n: self.class_tokens[n].expand(some.shape[0], -1, -1) for n in streams}
        taps = []
        for layer in range(1, self.backbone.depth + 1):
            tokens = self.backbone.block(layer, tokens)
            if layer in self.taps:
                taps.append(tokens[:, prefix:])
            frozen = self.config.aux_stream == "frozen"
            if frozen and layer < self.backbone.depth:
                self._advance(streams, layer)
            if str(layer) in self.prompters:
                tokens = self._prompt(layer, tokens, streams, classes, groupings)
        logits: Tensor = self.head(taps, (size[0] // patch, size[1] // patch), size)
        return logits

    @torch.no_grad()
    def _embed_auxiliary(
        self, images: Mapping[str, Tensor], valid: Mapping[str, Tensor]
    ) -> dict[str, tuple[Tensor, Tensor]]:
        """Tokens [B, P + N, D] and token validity [B, N] of the auxiliary modalities that are there."""
        streams = {}
        for name in self.config.auxiliary:
            if name in images:
                image = torch.where(valid[name].unsqueeze(1), images[name], 0.0)
                streams[name] = (self.backbone.embed(image), token_validity(valid[name], self.backbone.patch_size))
        return streams

    @torch.no_grad()
    def _advance(self, streams: dict[str, tuple[Tensor, Tensor]], layer: int) -> None:
        """Run the auxiliary streams through one frozen block, in place."""
        for name, (tokens, valid) in streams.items():
            streams[name] = (self.backbone.block(layer, tokens), valid)

    def _prompt(
        self,
        layer: int,
        tokens: Tensor,
        streams: Mapping[str, tuple[Tensor, Tensor]],
        classes: dict[str, Tensor],
        groupings: list[Grouping] | None,
    ) -> Tensor:
        """Add the prompts of all modalities to the RGB stream (step 11); CLS and registers stay as they are."""
        prefix = self.backbone.num_prefix_tokens
        rgb = tokens[:, prefix:]
        total = None
        for name, (auxiliary, valid) in streams.items():
            normalised = normalise_tokens(auxiliary[:, prefix:])
            prompt, classes[name], grouping = self.prompters[str(layer)](rgb, normalised, classes[name], valid)
            total = prompt if total is None else total + prompt
            if groupings is not None:
                groupings.append(replace(grouping, layer=layer, modality=name))
        if total is None:
            return tokens
        return torch.cat([tokens[:, :prefix], rgb + total], dim=1) if prefix else tokens + total
