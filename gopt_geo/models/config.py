"""The configuration of a model: everything that fixes the trained part's shape and way of working."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from gopt_geo.models.acp import AcpMode, CupMode
from gopt_geo.models.head import HeadKind

__all__ = ["GoptConfig"]

_LARGE_WIDTH = 1024  # of ViT-L, from which on prompters and head are twice as wide and still below 1 %


def _enough_groups(given: Mapping[str, Any]) -> int:
    """K where it isn't given: a group is not a class, but more classes call for more groups."""
    return max(8, int(given.get("classes", 0)))


class GoptConfig(BaseModel):
    """Shape and switches of GoPT and of the models it is compared with; part of every pack.

    The ablation in ``docs/benchmarks.md`` chose the defaults of the switches.

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
    head, hidden, upscale
        ``mlp`` or ``linear``; see `MLPHead` and `LinearHead`.
    cup
        ``grouping``, or CUP off: ``cross_attention`` or ``pointwise``; see `UngroupedPrompter`.
    assignment
        Soft (default) or hard grouping, in training and evaluation alike.
    acp_mode, token_value
        See `AlignmentInducedCrossModalPrompter`; ``broadcast`` without token value is ACP off.
    inject
        ``add``: F + p; ``mul``: F (1 + p).
    aux_stream
        ``embed_only``: prompters read the auxiliary embedding in every layer; ``frozen``: they read the output of
        the frozen blocks, at twice the cost.
    layers
        Prompted layers, counted from 1; None for 1 to L - 1.
    missing
        What goes through the backbone where the primary modality is invalid: ``mask``, the mask token alone;
        ``auxiliary``: the auxiliary image's embedding plus the mask token, so that an auxiliary modality alone is seen
        by the backbone as in a model of its own.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    classes: int = Field(ge=2, le=255)
    auxiliary: tuple[str, ...] = ("sar",)
    primary: str = "optical"
    rank: int = Field(default=16, ge=1, le=1024)
    groups: int = Field(default_factory=_enough_groups, ge=2, le=1024)
    head: HeadKind = "mlp"
    hidden: int = Field(default=64, ge=1, le=8192)
    upscale: int = Field(default=1, ge=1, le=64)
    cup: CupMode = "grouping"
    assignment: Literal["hard", "soft"] = "soft"
    acp_mode: AcpMode = "assignment"
    token_value: bool = True
    inject: Literal["add", "mul"] = "add"
    aux_stream: Literal["embed_only", "frozen"] = "embed_only"
    layers: tuple[int, ...] | None = None
    missing: Literal["mask", "auxiliary"] = "mask"

    @classmethod
    def for_width(cls, width: int, **values: Any) -> GoptConfig:
        """Build the default configuration for a backbone of ``width`` D; ``values`` override it.

        Up to ViT-B: rank 16, hidden 64; from ViT-L on: rank 32, hidden 128. Both train less than 1 % there.
        """
        sizes = {"rank": 32, "hidden": 128} if width >= _LARGE_WIDTH else {"rank": 16, "hidden": 64}
        return cls(**{**sizes, **values})

    @model_validator(mode="after")
    def _distinct(self) -> GoptConfig:
        """Modality names become parts of tensor names: plain words, each once. So do layers."""
        for name in self.modalities:
            if not name.isidentifier():
                raise ValueError(f"modality {name!r} is not a plain word")
        if len(set(self.modalities)) != len(self.modalities):
            raise ValueError(f"a modality is named twice in {self.modalities}")
        if self.layers is not None and len(set(self.layers)) != len(self.layers):
            raise ValueError(f"a layer is named twice in {self.layers}")
        if self.layers is not None and any(layer < 1 for layer in self.layers):
            raise ValueError(f"layers names {min(self.layers)}, and layers are counted from 1")
        return self

    @property
    def modalities(self) -> tuple[str, ...]:
        """All modalities that the model reads, the primary one first."""
        return (self.primary, *self.auxiliary)

    def prompted_layers(self, depth: int) -> tuple[int, ...]:
        """Prompted layers of a backbone of ``depth`` layers, in order; ValueError if one lies outside of 1 to L - 1."""
        layers = self.layers if self.layers is not None else tuple(range(1, depth))
        if any(not 1 <= layer < depth for layer in layers):
            raise ValueError(f"prompted layers {layers} must lie in 1 to {depth - 1}")
        return tuple(sorted(layers))
