"""What a training is made of, as plain data: sources or data set, split, model, optimisation, augmentation, evaluation.

A configuration names files, numbers and words; it names no Python class and imports nothing.
"""

from __future__ import annotations

from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from gopt_geo.models.backbone import DEMO_BACKBONE

__all__ = [
    "AugmentationConfig",
    "ClassEntry",
    "EvaluationConfig",
    "ModelConfig",
    "OptimisationConfig",
    "SceneConfig",
    "SplitConfig",
    "SplitNames",
    "TrainConfig",
]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


class ClassEntry(_Strict):
    """One class: its label value, name, and colour in the map."""

    value: int = Field(description="label value")
    name: str = Field(min_length=1, description="class name")
    color: str | None = Field(default=None, pattern=r"^#[0-9a-fA-F]{6}$", description="#rrggbb; else chosen")


class SceneConfig(_Strict):
    """One scene and its labels. Paths are relative to the working directory."""

    optical: str | None = Field(default=None, description="optical source; docs/sources.md says what can be one")
    sar: str | None = Field(default=None, description="SAR source")
    labels: str = Field(description="label raster, or vector file with a class field")
    class_field: str | None = Field(default=None, description="field of a vector file that holds the class")
    layer: str | None = Field(default=None, description="layer of a vector file with several")
    label_resampling: Literal["nearest", "mode"] = Field(
        default="nearest", description="how a label raster is taken onto the scene grid"
    )
    aoi: str | None = Field(default=None, description="area of interest: labels outside are ignored; docs/aoi.md")
    aoi_crs: str | None = Field(default=None, description="CRS of an area given as text; else longitude, latitude")
    optical_bands: str | None = Field(default=None, description="bands by number or name, such as 4,3,2; else all")
    sar_bands: str | None = Field(default=None, description="bands by number or name, such as VV,VH; else all")
    optical_units: Literal["reflectance", "dn10000", "byte", "raw"] | None = Field(
        default=None, description="unit of optical values, where the file doesn't state it"
    )
    sar_units: Literal["db", "power", "amplitude", "raw"] | None = Field(
        default=None, description="unit of SAR values, where the file doesn't state it"
    )
    sensor: str | None = Field(default=None, description="optical sensor; gopt-geo info --sensors lists them")
    sar_sensor: str | None = Field(default=None, description="SAR sensor")
    cloud_mask: str | None = Field(default=None, description="SCL, QA_PIXEL, or a raster")
    cloud_mask_kind: Literal["scl", "qa-pixel", "mask"] | None = Field(
        default=None, description="what the mask's values mean; else told by its name"
    )
    grid: str = Field(default="optical", description="optical, sar, or a raster whose grid the scene takes")
    resolution: float | None = Field(
        default=None, gt=0, description="pixel size in units of the grid's CRS; else its own"
    )
    coregister: bool = Field(default=False, description="move SAR to where it belongs, if the shift can be told")


class SplitConfig(_Strict):
    """How the labels of a scene are split; see `gopt_geo.datasets.splits.split_labels`."""

    shares: tuple[float, float, float] = Field(
        default=(0.7, 0.15, 0.15), description="shares of training, validation and test, sum 1"
    )
    buffer: int | None = Field(default=None, ge=0, description="pixels kept free between parts; else a tile")
    block: int | None = Field(default=None, ge=1, description="edge of a block in pixels; else 4 tiles, or 2")
    seed: int = Field(default=0, ge=0, description="the same seed gives the same split")


class SplitNames(_Strict):
    """Which part of a data set serves for what."""

    train: str
    val: str
    test: str


class ModelConfig(_Strict):
    """Backbone, modalities, and the trained part's sizes and switches (docs/model.md)."""

    backbone: str = Field(default=DEMO_BACKBONE, description="timm:NAME, torchgeo:WEIGHTS, or the embedded small one")
    backbone_weights: str | None = Field(default=None, description="file with its weights; else found or downloaded")
    modalities: tuple[str, ...] | None = Field(
        default=None, min_length=1, description="of those that there are, the first goes through the backbone; else all"
    )
    rank: int | None = Field(default=None, ge=1, le=1024, description="width of the prompters; else 16, ViT-L 32")
    groups: int | None = Field(default=None, ge=2, le=1024, description="class tokens a modality; else classes, or 8")
    hidden: int | None = Field(default=None, ge=1, le=8192, description="width of the head; else 64, ViT-L 128")
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


class OptimisationConfig(_Strict):
    """Steps, rates, loss, devices and checkpoints."""

    tile_size: int | tuple[int, int] | None = Field(
        default=None, description="training crop in pixels, or its height and width; else 128 (patch 8) or 256"
    )
    batch: int = Field(default=8, ge=1, description="tiles of a step on each device, over all accumulated passes")
    accumulate: int = Field(default=1, ge=1, description="forward passes that a step's batch is divided into")
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
    seed: int = Field(default=0, ge=0, description="of all random draws")
    validate_every: int | None = Field(default=None, ge=1, description="steps; else a tenth of all")
    checkpoint_every: int | None = Field(default=None, ge=1, description="steps; else as validate_every")
    patience: int | None = Field(
        default=None, ge=1, description="validations without a better mIoU until it stops; null for never"
    )


class AugmentationConfig(_Strict):
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
        default_factory=dict, description="share of tiles without a modality, by name; else 0.15 each if there are two"
    )


class EvaluationConfig(_Strict):
    """How validation and `gopt-geo evaluate` run the model: through the tiler that predicts."""

    tile_size: int | None = Field(default=None, ge=8, description="in pixels; else the training tile's larger side")
    overlap: int | None = Field(default=None, ge=0, description="in pixels, at most half a tile; else a quarter")
    batch: int = Field(default=4, ge=1, description="tiles of a forward pass")
    scales: tuple[float, ...] = Field(default=(1.0,), min_length=1, description="sizes that are averaged")
    flip: bool = Field(default=False, description="also average mirrored tiles")
    boundary: int = Field(default=3, ge=1, description="pixels within which borders agree, for the boundary F1")


class TrainConfig(_Strict):
    """A training: either a ``scene``, or a ``dataset`` with its ``root`` and ``splits``."""

    scene: SceneConfig | None = Field(default=None, description="one scene and its labels")
    dataset: str | None = Field(default=None, description="a data set of chips instead; docs/datasets.md")
    root: str | None = Field(default=None, min_length=1, description="its folder, relative to the working directory")
    splits: SplitNames | None = Field(default=None, description="which of its parts serves for what")
    options: dict[str, Any] = Field(default_factory=dict, description="of the data set")
    classes: str | tuple[ClassEntry, ...] | None = Field(
        default=None, description="a class list, or its file; else that of the data set"
    )
    ignore: tuple[int, ...] = Field(default=(), description="label values that mean: not labelled")
    split: SplitConfig = Field(default_factory=SplitConfig, description="of a scene's labels")
    model: ModelConfig = Field(default_factory=ModelConfig, description="what is trained")
    training: OptimisationConfig = Field(default_factory=OptimisationConfig, description="how it is trained")
    augmentation: AugmentationConfig = Field(default_factory=AugmentationConfig, description="changes of tiles")
    evaluation: EvaluationConfig = Field(default_factory=EvaluationConfig, description="how it is evaluated")
    title: str | None = Field(default=None, min_length=1, description="the pack's name; else the output's")
    output: str | None = Field(default=None, min_length=1, description="folder of the run")

    @model_validator(mode="after")
    def _one_kind(self) -> Self:
        if (self.scene is None) == (self.dataset is None):
            raise ValueError("give either a scene (its labels, at least) or a dataset")
        return self
