"""What a prompt pack says of itself: legend, modalities, backbone, configuration and provenance, as plain data.

The document of a pack's file, described in ``docs/packs.md``; `gopt_geo.packs` reads and writes it.
"""

from __future__ import annotations

import json
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator, model_validator

from gopt_geo.models.config import GoptConfig

__all__ = [
    "FORMAT_VERSION",
    "BackboneRef",
    "ClassInfo",
    "ModalityInfo",
    "PackMeta",
    "Provenance",
    "upgrade_from_1",
    "upgrade_from_2",
]

FORMAT_VERSION = 3
_LARGEST_TILE = 8192


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class ClassInfo(_Strict):
    """One class of the legend.

    Attributes
    ----------
    value
        Pixel value in the map, 0 to 254 (255 is nodata).
    name
        Class name.
    color
        ``#rrggbb``.
    """

    value: int = Field(ge=0, le=254)
    name: str = Field(min_length=1)
    color: str = Field(pattern=r"^#[0-9a-fA-F]{6}$")


class ModalityInfo(_Strict):
    """How the pixels of one modality become what the backbone expects.

    Attributes
    ----------
    bands
        Band names in order.
    units
        Unit of the values (``reflectance``, ``db``, ``power``, ``raw``).
    channels
        C x bands matrix T_m that maps bands to the C channels that the backbone expects (3 of an RGB backbone), before
        normalisation.
    mean, std
        Of the C channels, over the training data.
    """

    bands: tuple[str, ...] = Field(min_length=1)
    units: Literal["reflectance", "db", "power", "raw"]
    channels: tuple[tuple[float, ...], ...] = Field(min_length=1)
    mean: tuple[float, ...]
    std: tuple[float, ...]

    @model_validator(mode="after")
    def _fits(self) -> ModalityInfo:
        count = len(self.mean)
        if len(self.channels) != count or any(len(row) != len(self.bands) for row in self.channels):
            raise ValueError(f"channels must be {count} (as many as means) x {len(self.bands)} (bands)")
        if len(self.std) != count:
            raise ValueError(f"{count} means, but {len(self.std)} standard deviations")
        if any(not s > 0 for s in self.std):
            raise ValueError("std must be above 0")
        return self


class BackboneRef(_Strict):
    """Which backbone a pack belongs to: its id, and the SHA-256 of its weights as loaded."""

    id: str
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")


class Provenance(_Strict):
    """Where a pack comes from.

    Attributes
    ----------
    data
        What it was trained on: names of files or data sets, or a description.
    aoi
        Area that it was trained on, WKT in EPSG:4326; None where it has none (chips, simulated scenes).
    seed
        Of the training; None where there isn't one.
    versions
        Of gopt-geo and its libraries, by name.
    scores
        What was measured, by name (``validation_miou``).
    details
        Anything else, plain JSON.
    """

    data: tuple[str, ...] = ()
    aoi: str | None = None
    seed: int | None = None
    versions: dict[str, str] = Field(default_factory=dict)
    scores: dict[str, float] = Field(default_factory=dict)
    details: dict[str, Any] = Field(default_factory=dict)

    @field_validator("details")
    @classmethod
    def _plain(cls, details: dict[str, Any]) -> dict[str, Any]:
        """Refuse what JSON can't say; it would come back as something else."""
        try:
            plain: dict[str, Any] = json.loads(json.dumps(details, allow_nan=False))
        except TypeError as error:
            raise ValueError(str(error)) from error
        return plain


class PackMeta(_Strict):
    """All of a pack but its tensors.

    Attributes
    ----------
    format_version
        Version of the file format.
    title
        A name for people.
    notice
        A line that every use of the pack repeats; empty for none.
    backbone
        What the prompts belong to.
    config
        Architecture of the trained part.
    classes
        Legend; class index k of the model is ``classes[k]``.
    modalities
        By name, the primary one first.
    resolution_m
        Pixel size of the training data on the ground, in metres; None where nothing tells (images without a place).
    tile_size, overlap
        Recommended for prediction, in pixels: 8 to 8192, and at most half of it.
    temperature
        What logits are divided by before the softmax, so that the confidence means what it says.
    tensors_sha256
        Over the tensors, as `state_digest`: tells a damaged file.
    provenance
        Data, area, seed, versions and scores of the training.
    """

    format_version: int = FORMAT_VERSION
    title: str
    notice: str = ""
    backbone: BackboneRef
    config: GoptConfig
    classes: tuple[ClassInfo, ...]
    modalities: dict[str, ModalityInfo]
    resolution_m: float | None = Field(gt=0)
    tile_size: int = Field(ge=8, le=_LARGEST_TILE)
    overlap: int = Field(ge=0)
    temperature: float = Field(default=1.0, gt=0)
    tensors_sha256: str = ""
    provenance: Provenance = Field(default_factory=Provenance)

    @field_validator("modalities")
    @classmethod
    def _in_order(cls, infos: dict[str, ModalityInfo], given: ValidationInfo) -> dict[str, ModalityInfo]:
        """Restore the model's order: the keys of a JSON object have none."""
        config: GoptConfig | None = given.data.get("config")
        if config is None or set(infos) != set(config.modalities):
            return infos
        return {name: infos[name] for name in config.modalities}

    @model_validator(mode="after")
    def _fits(self) -> PackMeta:
        if len(self.classes) != self.config.classes:
            raise ValueError(f"{len(self.classes)} classes in the legend, {self.config.classes} in the model")
        if len({c.value for c in self.classes}) != len(self.classes):
            raise ValueError("two classes have the same value")
        if tuple(self.modalities) != self.config.modalities:
            raise ValueError(f"modalities {tuple(self.modalities)} don't match {self.config.modalities}")
        if len({len(info.mean) for info in self.modalities.values()}) != 1:
            raise ValueError("modalities have different numbers of channels, and the backbone expects one number")
        if self.overlap > self.tile_size // 2:
            raise ValueError(f"overlap is {self.overlap}, it must be at most half of tile_size, {self.tile_size // 2}")
        return self

    @property
    def channels(self) -> int:
        """C, the channels that every modality is brought to and that the backbone expects."""
        return len(self.modalities[self.config.primary].mean)

    def misfit(self, depth: int, patch_size: int, in_chans: int) -> str | None:
        """Say what doesn't go with a backbone of this depth, patch size and number of channels; None if all does."""
        beyond = [layer for layer in self.config.layers or () if layer >= depth]
        if beyond:
            return f"config.layers names {beyond[0]}, it must be 1 to {depth - 1}: its backbone has {depth} layers"
        if self.tile_size % patch_size:
            return f"tile_size is {self.tile_size}, it must be a multiple of its backbone's patch, {patch_size}"
        if self.channels != in_chans:
            return f"brings pixels to {self.channels} channels, and its backbone expects {in_chans}"
        return None


def upgrade_from_1(raw: dict[str, Any]) -> dict[str, Any]:
    """Bring a document of version 1 to version 2: switches that version 1 didn't have, provenance by its parts."""
    config = raw.get("config")
    if isinstance(config, dict):
        new = {"head": "mlp", "cup": "grouping", "inject": "add"}
        # A key that version 1 didn't know stays, so that it is refused or understood as in any document.
        raw = {**raw, "config": {**new, **config}}
    provenance = raw.get("provenance")
    if isinstance(provenance, dict):
        details = dict(provenance)
        versions = details.pop("versions", {})
        data = details.pop("data", ())
        raw["provenance"] = {
            "data": [data] if isinstance(data, str) else data,
            "versions": versions,
            "details": details,
        }
    return {**raw, "format_version": 2}


def upgrade_from_2(raw: dict[str, Any]) -> dict[str, Any]:
    """Bring a document of version 2 to version 3: logits as they are."""
    return {"temperature": 1.0, **raw, "format_version": 3}
