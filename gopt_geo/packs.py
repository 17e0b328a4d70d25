"""Prompt packs: everything trained, and everything needed to use it, in one safetensors file of a few MB.

A pack holds the prompters, the head and the mask token as tensors, and one JSON document with its checksum in the
file's metadata; reading one executes nothing. The format is described in ``docs/packs.md``. One loaded backbone serves
any number of packs: `load_model` puts a pack on it within milliseconds.
"""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path

import torch
from pydantic import ValidationError
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor

from gopt_geo.errors import PackError
from gopt_geo.models.backbone import Backbone, load_backbone, state_digest
from gopt_geo.models.gopt import GoPT
from gopt_geo.packmeta import (
    FORMAT_VERSION,
    BackboneRef,
    ClassInfo,
    ModalityInfo,
    PackMeta,
    Provenance,
    upgrade_from_1,
)

__all__ = [
    "FORMAT_VERSION",
    "BackboneRef",
    "ClassInfo",
    "ModalityInfo",
    "Pack",
    "PackMeta",
    "Provenance",
    "demo_pack_path",
    "load_model",
    "read_pack",
    "write_pack",
]

_KEY = "gopt_geo_pack"
_CHECKSUM_KEY = "meta_sha256"
_DAMAGED = "get the pack again, or train it anew"


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
        if version == 1:
            raw = upgrade_from_1(raw)
        elif version != FORMAT_VERSION:
            raise PackError(
                path, f"format version {version}; this reads versions 1 and {FORMAT_VERSION}", "use a matching gopt-geo"
            )
        return PackMeta.model_validate(raw)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "pack"
        raise PackError(path, f"{where}: {first['msg']}", _DAMAGED) from error
    except (json.JSONDecodeError, AttributeError, RecursionError) as error:
        raise PackError(path, "its description isn't a JSON object", _DAMAGED) from error


def load_model(pack: Pack, backbone: Backbone | None = None) -> GoPT:
    """Put a pack on its backbone: build its model, in evaluation mode, on the backbone's device.

    One loaded backbone serves any number of packs, one after the other or side by side; the models share it, and
    nothing of it is copied, read or hashed again.

    Parameters
    ----------
    pack
        From `read_pack`; its tensors are copied.
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
    if pack.meta.channels != backbone.in_chans:
        raise PackError(
            subject,
            f"brings pixels to {pack.meta.channels} channels, and its backbone expects {backbone.in_chans}",
            "train it anew",
        )
    device = next(backbone.parameters()).device
    try:
        with torch.device("meta"):  # shapes alone: starting values would be drawn for nothing
            model = GoPT(backbone, pack.meta.config)
        state = {k: v.to(device, torch.float32, copy=True) for k, v in pack.state.items()}
        model.load_trainable_state(state, assign=True)
    except (RuntimeError, ValueError, KeyError) as error:
        raise PackError(subject, f"its tensors don't fit its description ({error})", "train it anew") from error
    return model.eval()
