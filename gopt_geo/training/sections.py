"""Sections of a training's configuration: scene, split, model, optimisation, augmentation, evaluation."""

from __future__ import annotations

import math
from typing import Annotated, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from gopt_geo.modelfaults import key_fault
from gopt_geo.scalelimits import wrong_scale

__all__ = [
    "LEAST_BATCH",
    "AugmentationConfig",
    "EvaluationConfig",
    "ModelConfig",
    "OptimisationConfig",
    "SceneConfig",
    "SplitConfig",
    "Strict",
    "Text",
]


class Strict(BaseModel):
    """Base of all sections: no unknown keys, no conversion of types, unchangeable."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


def _as_text(value: object) -> object:
    """Take ``4`` and ``[4, 3, 2]`` for the lists of bands that they are."""
    if isinstance(value, list | tuple) and all(isinstance(one, str | int) for one in value):
        return ",".join(map(str, value))
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


LEAST_BATCH = 8
"""Tiles of a step where `OptimisationConfig.batch` is left open and much of each tile is labelled."""

_DEMO_BACKBONE = "gopt-geo:demo-vit-p8"  # gopt_geo.models.backbone.DEMO_BACKBONE: reading a file needs no torch
Text = Annotated[str, Field(min_length=1)]
_Bands = Annotated[str, BeforeValidator(_as_text), Field(min_length=1)]
_Seed = Annotated[int, Field(ge=0, lt=1 << 32)]


class SceneConfig(Strict):
    """One scene and its labels. Paths are relative to the working directory."""

    optical: Text | None = Field(default=None, description="optical source; docs/sources.md says what can be one")
    sar: Text | None = Field(default=None, description="SAR source")
    labels: Text = Field(description="label raster, or vector file with a class field")
    class_field: Text | None = Field(default=None, description="field of a vector file that holds the class")
    layer: Text | None = Field(default=None, description="layer of a vector file with several")
    label_resampling: Literal["nearest", "mode"] = Field(
        default="nearest", description="how a label raster is taken onto the scene grid"
    )
    aoi: Text | None = Field(default=None, description="area of interest: labels outside are ignored; docs/aoi.md")
    aoi_crs: Text | None = Field(default=None, description="CRS of an area given as text; else longitude, latitude")
    optical_bands: _Bands | None = Field(default=None, description="bands by number or name, such as 4,3,2; else all")
    sar_bands: _Bands | None = Field(default=None, description="bands by number or name, such as VV,VH; else all")
    optical_units: Literal["reflectance", "dn10000", "byte", "raw"] | None = Field(
        default=None, description="unit of optical values, where the file doesn't state it"
    )
    sar_units: Literal["db", "power", "amplitude", "raw"] | None = Field(
        default=None, description="unit of SAR values, where the file doesn't state it"
    )
    sensor: Text | None = Field(default=None, description="optical sensor; gopt-geo info --sensors lists them")
    sar_sensor: Text | None = Field(default=None, description="SAR sensor")
    cloud_mask: Text | None = Field(default=None, description="SCL, QA_PIXEL, or a raster")
    cloud_mask_kind: Literal["scl", "qa-pixel", "mask"] | None = Field(
        default=None, description="what the mask's values mean; else told by its name"
    )
    grid: Text = Field(
        default="optical", description="optical (of SAR alone: sar), sar, or a raster whose grid the scene takes"
    )
    resolution: float | None = Field(
        default=None, gt=0, description="pixel size in units of the grid's CRS; else its own"
    )
    coregister: bool = Field(default=False, description="move SAR to where it belongs, if the shift can be told")

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.optical is None and self.sar is None:
            raise key_fault((), "it has neither optical nor sar", "name one of them, or both")
        for kind in ("optical", "sar"):
            if getattr(self, kind) is None:
                for name in _SAID[kind]:
                    if getattr(self, name) is not None:
                        raise key_fault((name,), f"there is no {kind} source", f"name {kind}, or leave it out")
        if self.sar is None and self.grid == "sar":
            raise key_fault(("grid",), "there is no sar source", "name another grid")
        if self.coregister and (self.optical is None or self.sar is None):
            raise key_fault(("coregister",), "it needs optical and sar", "name both, or leave it out")
        for name, needed in (("aoi_crs", "aoi"), ("cloud_mask_kind", "cloud_mask")):
            if getattr(self, name) is not None and getattr(self, needed) is None:
                raise key_fault((name,), f"there is no {needed}", f"name {needed}, or leave it out")
        return self


_SAID = {
    "optical": ("optical_bands", "optical_units", "sensor", "cloud_mask"),
    "sar": ("sar_bands", "sar_units", "sar_sensor"),
}


class SplitConfig(Strict):
    """How the labels of a scene are split into blocks of ground (docs/splits.md)."""

    shares: tuple[float, float, float] = Field(
        default=(0.7, 0.15, 0.15), description="shares of training, validation and test, sum 1"
    )
    buffer: int | None = Field(default=None, ge=0, description="pixels kept free between parts; else a tile")
    block: int | None = Field(default=None, ge=1, description="edge of a block in pixels; else 4 tiles, or 2")
    seed: _Seed = Field(default=0, description="the same seed gives the same split")

    @model_validator(mode="after")
    def _sums_up(self) -> Self:
        if not all(0 <= share <= 1 for share in self.shares) or not math.isclose(sum(self.shares), 1, abs_tol=1e-6):
            found = f"{', '.join(map(str, self.shares))} don't sum to 1"
            raise key_fault(("shares",), found, "give three shares from 0 to 1 that sum to 1")
        if min(self.shares[:2]) == 0:
            raise key_fault(("shares",), "training and validation need labels", "give both a share above 0")
        return self


class ModelConfig(Strict):
    """Backbone, modalities, and the trained part's sizes and switches (docs/model.md)."""

    backbone: Text = Field(default=_DEMO_BACKBONE, description="timm:NAME, torchgeo:WEIGHTS, or the embedded small one")
    backbone_weights: Text | None = Field(default=None, description="file with its weights; else found or downloaded")
    modalities: tuple[Text, ...] | None = Field(
        default=None, min_length=1, description="of those that there are, the first goes through the backbone; else all"
    )
    rank: int | None = Field(default=None, ge=1, le=1024, description="width of the prompters; else 16, ViT-L 32")
    groups: int | None = Field(default=None, ge=2, le=1024, description="class tokens a modality; else classes, or 8")
    hidden: int | None = Field(
        default=None, ge=1, le=8192, description="width of the head; else 64, ViT-L and the embedded one 128"
    )
    upscale: int | None = Field(
        default=None, ge=1, le=64, description="cells that the head draws a patch and axis; else 8, or the patch size"
    )
    assignment: Literal["hard", "soft"] = Field(default="soft", description="how tokens are assigned to groups")
    aux_stream: Literal["embed_only", "frozen"] = Field(
        default="embed_only", description="what prompters read: the auxiliary embedding, or frozen blocks (slower)"
    )
    missing: Literal["mask", "auxiliary"] = Field(
        default="auxiliary", description="what the backbone sees where the first modality is missing"
    )

    @model_validator(mode="after")
    def _distinct(self) -> Self:
        named = self.modalities or ()
        for i, name in enumerate(named):
            if name in named[:i]:
                raise key_fault(("modalities", i), f"{name} is there twice", "name each modality once")
        return self


class OptimisationConfig(Strict):
    """Steps, rates, loss, devices and checkpoints."""

    tile_size: int | tuple[int, int] | None = Field(
        default=None, description="training crop in pixels, or its height and width; else 128 (patch 8) or 256"
    )
    batch: int | None = Field(
        default=None, ge=1, description="tiles of a step on each device, over all passes; else 8 to 24, by the labels"
    )
    accumulate: int | None = Field(
        default=None, ge=1, description="forward passes that a step is divided into; else 1, or one for 8 tiles"
    )
    steps: int | None = Field(default=None, ge=1, description="optimiser steps; else 2000, or as many as epochs has")
    epochs: int | None = Field(default=None, ge=1, description="instead of steps: rounds through the training tiles")
    optimizer: Literal["adamw"] = Field(default="adamw", description="the one there is")
    learning_rate: float = Field(default=3e-3, gt=0, description="highest rate")
    weight_decay: float = Field(default=0.01, ge=0, description="on matrices alone")
    warmup_steps: int | None = Field(default=None, ge=0, description="steps to the full rate; else 5 % of all")
    warmup_epochs: int | None = Field(default=None, ge=0, description="instead of warmup_steps")
    schedule: Literal["cosine", "poly", "constant"] = Field(default="cosine", description="how the rate falls to 0")
    power: float = Field(default=0.9, gt=0, description="of poly: (1 - step / steps) ** power")
    clip: float | None = Field(default=1.0, gt=0, description="largest norm of the gradients; null for none")
    class_weights: bool = Field(default=False, description="weigh classes by their share of the training pixels")
    loss: Literal["cross_entropy", "cross_entropy+dice", "cross_entropy+lovasz"] = Field(
        default="cross_entropy", description="what is minimised, over labelled pixels"
    )
    precision: Literal["auto", "fp32", "bf16", "fp16"] = Field(
        default="auto", description="auto: bf16 or fp16 on a GPU, fp32 on a CPU"
    )
    accelerator: Literal["auto", "cpu", "gpu"] = Field(default="auto", description="where it is trained")
    devices: int = Field(default=1, ge=1, description="devices that train together")
    workers: int | None = Field(
        default=None, ge=0, description="reading processes a device; else 0 on a CPU, 8 at most"
    )
    seed: _Seed = Field(default=0, description="of all random draws")
    validate_every: int | None = Field(default=None, ge=1, description="steps; else a tenth of all")
    checkpoint_every: int | None = Field(default=None, ge=1, description="steps; else as validate_every")
    patience: int | None = Field(
        default=None, ge=1, description="validations without a better mIoU until it stops; null for never"
    )

    @model_validator(mode="after")
    def _fits(self) -> Self:
        sides = (self.tile_size,) if isinstance(self.tile_size, int) else self.tile_size or ()
        if any(not 8 <= side <= 8192 for side in sides):
            raise key_fault(("tile_size",), f"a side of {min(sides)} to {max(sides)} pixels", "give 8 to 8192 pixels")
        for one, other in (("steps", "epochs"), ("warmup_steps", "warmup_epochs")):
            if getattr(self, one) is not None and getattr(self, other) is not None:
                raise key_fault((other,), f"{one} is there, too", "give one of the two")
        for unit in ("steps", "epochs"):
            long, warm = getattr(self, unit), getattr(self, f"warmup_{unit}")
            if long is not None and warm is not None and warm > long:
                raise key_fault((f"warmup_{unit}",), f"{warm} of {long} {unit}", f"give at most {long}")
        batch, passes = self.batch or LEAST_BATCH, self.accumulate or 1
        if batch % passes:
            found = f"a batch of {batch} can't be divided into {passes} equal passes"
            raise key_fault(("accumulate",), found, "give a divisor of the batch")
        return self


class AugmentationConfig(Strict):
    """Random changes of training tiles; shares are of the tiles."""

    symmetry: Literal["none", "flip", "dihedral"] = Field(
        default="dihedral", description="flip: left to right; dihedral: the eight turns and flips"
    )
    scales: tuple[float, float] = Field(default=(1.0, 1.0), description="smallest and largest factor of size")
    brightness: float = Field(default=0.05, ge=0, description="std of the logarithm of a factor on optical values")
    offset: float = Field(default=0.1, ge=0, description="std of an offset on auxiliary values, in their std")
    speckle: float | None = Field(
        default=None, gt=0, description="looks of speckle added to SAR in dB or power; null for none"
    )
    clouds: float = Field(
        default=0.2, ge=0, le=1, description="share of tiles with clouds cut out of the optical image"
    )
    dropout: dict[str, float] = Field(
        default_factory=dict, description="share of tiles without a modality, by name; {}: 0.15 each, if there are two"
    )

    @model_validator(mode="after")
    def _fits(self) -> Self:
        _check_scales(self.scales)
        if self.scales[0] > self.scales[1]:
            found = f"{self.scales[0]} is larger than {self.scales[1]}"
            raise key_fault(("scales",), found, "give the smallest factor first")
        for name, share in self.dropout.items():
            if not 0 <= share <= 1:
                raise key_fault(("dropout", name), f"{share} is no share", "give 0 to 1")
        if sum(self.dropout.values()) > 1:
            found = f"the shares sum to {sum(self.dropout.values()):g}"
            raise key_fault(("dropout",), found, "a tile goes without one modality at most: give shares of 1 in all")
        return self


class EvaluationConfig(Strict):
    """How validation and `gopt-geo evaluate` run the model: through the tiler that predicts."""

    tile_size: int | None = Field(default=None, ge=8, description="in pixels; else the training tile's larger side")
    overlap: int | None = Field(default=None, ge=0, description="in pixels, at most half a tile; else a quarter")
    batch: int = Field(default=4, ge=1, description="tiles of a forward pass")
    scales: tuple[float, ...] = Field(default=(1.0,), min_length=1, description="sizes that are averaged")
    flip: bool = Field(default=False, description="also average mirrored tiles")
    boundary: int = Field(default=3, ge=1, description="pixels within which borders agree, for the boundary F1")

    @model_validator(mode="after")
    def _fits(self) -> Self:
        _check_scales(self.scales, distinct=True)
        if self.overlap is not None and self.tile_size is not None and 2 * self.overlap > self.tile_size:
            found = f"{self.overlap} is more than half of a tile of {self.tile_size} pixels"
            raise key_fault(("overlap",), found, f"give at most {self.tile_size // 2}")
        return self


def _check_scales(scales: tuple[float, ...], *, distinct: bool = False) -> None:
    wrong = wrong_scale(scales, distinct=distinct)
    if wrong is not None:
        place, found, remedy = wrong
        raise key_fault(("scales", place), found, remedy)
