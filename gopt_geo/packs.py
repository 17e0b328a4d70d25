"""Prompt packs: everything trained, and everything needed to use it, in one safetensors file of a few MB.

A pack holds the prompters, the head and the mask token as tensors, and one JSON document with its checksum in the
file's metadata; reading one executes nothing. Format version 1 is described in ``docs/packs.md``.
"""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import Any

import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError, ValidationInfo, field_validator, model_validator
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor

from gopt_geo.errors import PackError
from gopt_geo.models.backbone import Backbone, load_backbone, state_digest
from gopt_geo.models.config import GoptConfig
from gopt_geo.models.gopt import GoPT

__all__ = [
    "FORMAT_VERSION",
    "BackboneRef",
    "ClassInfo",
    "ModalityInfo",
    "Pack",
    "PackMeta",
    "demo_pack_path",
    "load_model",
    "read_pack",
    "write_pack",
]

FORMAT_VERSION = 1
_KEY = "gopt_geo_pack"
_CHECKSUM_KEY = "meta_sha256"
_DAMAGED = "get the pack again, or train it anew"


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
        3 x bands matrix T_m that maps bands to the backbone's three channels, before normalisation.
    mean, std
        Of the three channels, over the training data.
    """

    bands: tuple[str, ...] = Field(min_length=1)
    units: str
    channels: tuple[tuple[float, ...], ...]
    mean: tuple[float, float, float]
    std: tuple[float, float, float]

    @model_validator(mode="after")
    def _fits(self) -> ModalityInfo:
        if len(self.channels) != 3 or any(len(row) != len(self.bands) for row in self.channels):
            raise ValueError(f"channels must be 3 x {len(self.bands)}")
        if any(not s > 0 for s in self.std):
            raise ValueError("std must be above 0")
        return self


class BackboneRef(_Strict):
    """Which backbone a pack belongs to: its id, and the SHA-256 of its weights as loaded."""

    id: str
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")


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
        Pixel size of the training data on the ground, in metres.
    tile_size, overlap
        Recommended for prediction, in pixels.
    tensors_sha256
        Over the tensors, as `state_digest`: tells a damaged file.
    provenance
        Data, seed, versions and scores of the training; plain JSON.
    """

    format_version: int = FORMAT_VERSION
    title: str
    notice: str = ""
    backbone: BackboneRef
    config: GoptConfig
    classes: tuple[ClassInfo, ...]
    modalities: dict[str, ModalityInfo]
    resolution_m: float = Field(gt=0)
    tile_size: int = Field(ge=8)
    overlap: int = Field(ge=0)
    tensors_sha256: str = ""
    provenance: dict[str, Any] = Field(default_factory=dict)

    @field_validator("modalities")
    @classmethod
    def _in_order(cls, infos: dict[str, ModalityInfo], given: ValidationInfo) -> dict[str, ModalityInfo]:
        """Restore the model's order: the keys of a JSON object have none."""
        config: GoptConfig | None = given.data.get("config")
        if config is None or set(infos) != set(config.modalities):
            return infos
        return {name: infos[name] for name in config.modalities}

    @field_validator("provenance")
    @classmethod
    def _plain(cls, provenance: dict[str, Any]) -> dict[str, Any]:
        """Refuse what JSON can't say; it would come back as something else."""
        try:
            plain: dict[str, Any] = json.loads(json.dumps(provenance, allow_nan=False))
        except TypeError as error:
            raise ValueError(str(error)) from error
        return plain

    @model_validator(mode="after")
    def _fits(self) -> PackMeta:
        if len(self.classes) != self.config.classes:
            raise ValueError(f"{len(self.classes)} classes in the legend, {self.config.classes} in the model")
        if len({c.value for c in self.classes}) != len(self.classes):
            raise ValueError("two classes have the same value")
        if tuple(self.modalities) != self.config.modalities:
            raise ValueError(f"modalities {tuple(self.modalities)} don't match {self.config.modalities}")
        return self


@dataclass(frozen=True)
class Pack:
    """A prompt pack in memory.

    Attributes
    ----------
    meta
        Its description.
    state
        Its tensors.
    sha256
        Of the file it was read from; empty where it wasn't.
    path
        Where it was read from.
    """

    meta: PackMeta
    state: Mapping[str, Tensor] = field(repr=False)
    sha256: str = ""
    path: Path | None = None


def demo_pack_path() -> Path:
    """Path of the embedded demo pack."""
    return Path(str(files("gopt_geo") / "data" / "demo" / "demo.gopt.safetensors"))


def write_pack(path: Path, meta: PackMeta, state: Mapping[str, Tensor]) -> None:
    """Write a pack; the folder must exist. Tensors are stored in the dtype they have, under their checksum.

    The same description and tensors give the same bytes.
    """
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in state.items()}
    meta = meta.model_copy(update={"tensors_sha256": state_digest(tensors)})
    document = json.dumps(meta.model_dump(mode="json"), sort_keys=True)
    content = save_tensors(tensors, metadata={_KEY: document, _CHECKSUM_KEY: _sha256(document)})
    temporary = path.with_name(f".{path.name}.part")
    temporary.write_bytes(_in_fixed_order(content))
    temporary.replace(path)


def _in_fixed_order(content: bytes) -> bytes:
    """Sort the metadata in a safetensors file's header: the library writes them in an order drawn anew each time."""
    (length,) = struct.unpack("<Q", content[:8])
    header = json.loads(content[8 : 8 + length])
    header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    text = json.dumps(header, separators=(",", ":")).encode("ascii")
    text += b" " * (-len(text) % 8)  # the tensors start at a multiple of eight bytes
    return struct.pack("<Q", len(text)) + text + content[8 + length :]


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8")).hexdigest()


def read_pack(path: Path) -> Pack:
    """Read and verify a pack; nothing in it is executed.

    Raises
    ------
    PackError
        If the file is missing, isn't a pack, is damaged or of another format version.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise PackError(path, f"can't be read ({error.strerror})", "name an existing pack with --pack") from error
    try:
        state = load_tensors(content)
        (length,) = struct.unpack("<Q", content[:8])
        header = json.loads(content[8 : 8 + length]).get("__metadata__", {})
    except (SafetensorError, ValueError, struct.error) as error:
        raise PackError(path, f"not a whole safetensors file ({error})", _DAMAGED) from error
    document = header.get(_KEY)
    if document is None:
        raise PackError(path, "a safetensors file, but not a prompt pack", "name a pack that gopt-geo wrote")
    if header.get(_CHECKSUM_KEY) != _sha256(document):
        raise PackError(path, "its description doesn't match its checksum", _DAMAGED)
    meta = _parse(path, document)
    if state_digest(state) != meta.tensors_sha256:
        raise PackError(path, "its tensors don't match their checksum", _DAMAGED)
    return Pack(meta, state, hashlib.sha256(content).hexdigest(), path)


def _parse(path: Path, document: str) -> PackMeta:
    """Validate the JSON document of a pack."""
    try:
        raw = json.loads(document)
        version = raw.get("format_version")
        if version != FORMAT_VERSION:
            raise PackError(
                path, f"format version {version}; this is version {FORMAT_VERSION}", "use a matching gopt-geo"
            )
        return PackMeta.model_validate(raw)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "pack"
        raise PackError(path, f"{where}: {first['msg']}", _DAMAGED) from error
    except (json.JSONDecodeError, AttributeError, RecursionError) as error:
        raise PackError(path, "its description isn't a JSON object", _DAMAGED) from error


def load_model(pack: Pack, backbone: Backbone | None = None) -> GoPT:
    """Build the model of a pack on its backbone, in evaluation mode.

    Parameters
    ----------
    pack
        From `read_pack`.
    backbone
        One that is loaded already; else the one that the pack names is loaded.

    Raises
    ------
    PackError
        If the backbone's weights aren't those the pack was trained on, or its tensors don't fit its description.
    """
    subject = str(pack.path or pack.meta.title)
    backbone = backbone if backbone is not None else load_backbone(pack.meta.backbone.id)
    found = backbone.digest()
    if found != pack.meta.backbone.sha256:
        raise PackError(
            subject,
            f"made for backbone {pack.meta.backbone.id} with SHA-256 {pack.meta.backbone.sha256[:12]}, "
            f"but the one loaded ({backbone.identity}) has {found[:12]}",
            "use the backbone it was trained on",
        )
    try:
        model = GoPT(backbone, pack.meta.config)
        model.load_trainable_state({k: v.to(torch.float32) for k, v in pack.state.items()})
    except (RuntimeError, ValueError, KeyError) as error:
        raise PackError(subject, f"its tensors don't fit its description ({error})", "train it anew") from error
    return model.eval()
