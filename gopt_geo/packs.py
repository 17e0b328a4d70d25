"""Prompt packs: everything trained, and everything needed to use it, in one safetensors file of a few MB.

A pack holds the prompters, the head and the mask token as tensors, and one JSON document with its checksum in the
file's metadata; reading one executes nothing. The format is described in ``docs/packs.md``. One loaded backbone serves
any number of packs: `load_model` puts a pack on it within milliseconds.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
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
from gopt_geo.models.backbone import DEMO_ARCHITECTURE, DEMO_BACKBONE, Backbone, load_backbone, state_digest
from gopt_geo.models.gopt import GoPT
from gopt_geo.packmeta import (
    FORMAT_VERSION,
    BackboneRef,
    ClassInfo,
    ModalityInfo,
    PackMeta,
    Provenance,
    upgrade_from_1,
    upgrade_from_2,
)
from gopt_geo.packwords import in_words
from gopt_geo.paths import StrPath

__all__ = [
    "FORMAT_VERSION",
    "BackboneRef",
    "ClassInfo",
    "ModalityInfo",
    "Pack",
    "PackMeta",
    "Provenance",
    "demo_pack_path",
    "is_pack",
    "load_model",
    "read_pack",
    "write_pack",
]

_KEY = "gopt_geo_pack"
_CHECKSUM_KEY = "meta_sha256"
_DAMAGED = "get the pack again, or train it anew"
_NO_PACK = "name a pack that gopt-geo wrote"
_MOST_HEADER = 16 << 20  # bytes; a pack's own takes some thousands
_MOST = 1 << 30  # bytes; packs take a few MB


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


def read_pack(path: StrPath) -> Pack:
    """Read and verify a pack; nothing in it is executed, and what isn't a pack isn't read beyond its header.

    Raises
    ------
    PackError
        If the file is missing, isn't a pack, is damaged or of another format version, or says of itself what can't be.
    """
    path = Path(path)
    try:
        content = _read_whole(path)
    except OSError as error:
        raise PackError(path, f"can't be read ({error.strerror})", "name an existing pack with --pack") from error
    except ValueError as error:  # a NUL character, which no path has
        raise PackError(path, "can't be read (no path)", "name an existing pack with --pack") from error
    try:
        state = load_tensors(content)
        (length,) = struct.unpack("<Q", content[:8])
        header = json.loads(content[8 : 8 + length]).get("__metadata__", {})
    except (SafetensorError, ValueError, struct.error) as error:
        raise PackError(path, f"not a whole safetensors file ({error})", _DAMAGED) from error
    document = header.get(_KEY)
    if document is None:
        raise PackError(path, "a safetensors file, but not a prompt pack", _NO_PACK)
    if header.get(_CHECKSUM_KEY) != _sha256(document):
        raise PackError(path, "its description doesn't match its checksum", _DAMAGED)
    meta = _parse(path, document)
    if state_digest(state) != meta.tensors_sha256:
        raise PackError(path, "its tensors don't match their checksum", _DAMAGED)
    if meta.backbone.id == DEMO_BACKBONE:
        shape = DEMO_ARCHITECTURE
        _check_fit(path, meta, shape["depth"], shape["patch_size"], shape.get("in_chans", 3))
    return Pack(meta, state, hashlib.sha256(content).hexdigest(), path)


def is_pack(path: StrPath) -> bool:
    """Tell from a file's first bytes, whatever its ending, whether it is a prompt pack, whole or damaged."""
    path = Path(path)
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            return False
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            return length <= _MOST_HEADER and _KEY.encode() in file.read(length)
    except OSError:
        return False


def _read_whole(path: Path) -> bytes:
    """Read a file that begins as a pack does; anything else, such as a device or an image, is refused unread."""
    if not stat.S_ISREG(path.stat().st_mode):
        what = "a folder" if path.is_dir() else "a device or a pipe"
        raise PackError(path, f"can't be read: it is {what}, not a file", "name an existing pack with --pack")
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        start = file.read(8)
        length = int.from_bytes(start, "little")
        if len(start) < 8 or length > min(size - 8, _MOST_HEADER):
            raise PackError(path, "not a whole safetensors file: it doesn't begin as one", _NO_PACK)
        start += file.read(length)
        if size > _MOST or (size > _MOST_HEADER and _KEY.encode() not in start):
            found = f"not a prompt pack: it has {size >> 20} MiB" + (", a pack a few" if size > _MOST else "")
            raise PackError(path, found, _NO_PACK)
        return start + file.read()


def _parse(path: Path, document: str) -> PackMeta:
    """Validate the JSON document of a pack."""
    try:
        raw = json.loads(document)
        version = raw.get("format_version")
        # True == 1, and 2.0 == 2, but neither is a version
        if type(version) is not int or not 1 <= version <= FORMAT_VERSION:
            found = f"format version {json.dumps(version)[:40]}; this reads versions 1 to {FORMAT_VERSION}"
            raise PackError(path, found, "use a matching gopt-geo")
        if version == 1:
            raw = upgrade_from_1(raw)
        if version <= 2:
            raw = upgrade_from_2(raw)
        return PackMeta.model_validate_json(json.dumps(raw), strict=True)
    except ValidationError as error:
        raise PackError(path, in_words(error), _DAMAGED) from error
    except (json.JSONDecodeError, AttributeError, RecursionError) as error:
        raise PackError(path, "its description isn't a JSON object", _DAMAGED) from error


def _check_fit(subject: StrPath, meta: PackMeta, depth: int, patch_size: int, in_chans: int) -> None:
    """Refuse a description that contradicts the pack's backbone."""
    found = meta.misfit(depth, patch_size, in_chans)
    if found is not None:
        raise PackError(subject, found, _DAMAGED)


def load_model(pack: Pack, backbone: Backbone | None = None, *, weights: StrPath | None = None) -> GoPT:
    """Put a pack on its backbone: build its model, in evaluation mode, on the backbone's device.

    One loaded backbone serves any number of packs, one after the other or side by side; the models share it, and
    nothing of it is copied, read or hashed again.

    Parameters
    ----------
    pack
        From `read_pack`; its tensors are copied.
    backbone
        One that is loaded already; else the one that the pack names is loaded.
    weights
        File with the weights of the backbone to load; else see `gopt_geo.models.load_backbone`.

    Raises
    ------
    PackError
        If the backbone can't be loaded, its weights aren't those the pack was trained on, or the pack's tensors don't
        fit its description.
    ValueError
        If both ``backbone`` and ``weights`` are given.
    """
    if backbone is not None and weights is not None:
        raise ValueError("give a loaded backbone or the file of its weights, not both")
    subject = str(pack.path or pack.meta.title)
    backbone = backbone if backbone is not None else _load_backbone(pack, weights)
    found = backbone.digest()
    if found != pack.meta.backbone.sha256:
        wanted = f"{pack.meta.backbone.id} with SHA-256 {pack.meta.backbone.sha256[:12]}"
        if weights is not None:
            what = f"not the weights that {subject} was trained on: {wanted}, and these have {found[:12]}"
            raise PackError(weights, what, "name the file of these weights with --backbone-weights")
        raise PackError(
            subject,
            f"made for backbone {wanted}, but the one loaded ({backbone.identity}) has {found[:12]}",
            "use the backbone it was trained on",
        )
    _check_fit(subject, pack.meta, backbone.depth, backbone.patch_size, backbone.in_chans)
    device = next(backbone.parameters()).device
    try:
        with torch.device("meta"):  # shapes alone: starting values would be drawn for nothing
            model = GoPT(backbone, pack.meta.config)
        state = {k: v.to(device, torch.float32, copy=True) for k, v in pack.state.items()}
        model.load_trainable_state(state, assign=True)
    except (RuntimeError, ValueError, KeyError) as error:
        raise PackError(subject, f"its tensors don't fit its description ({error})", "train it anew") from error
    return model.eval()


def _load_backbone(pack: Pack, weights: StrPath | None) -> Backbone:
    """Load the backbone that a pack names; an error about the backbone's id names the pack too."""
    identity = pack.meta.backbone.id
    try:
        return load_backbone(identity) if weights is None else load_backbone(identity, weights)
    except PackError as error:
        if error.subject != identity:
            raise
        subject = pack.path or pack.meta.title
        raise PackError(subject, f"its backbone {identity}: {error.found}", error.remedy) from error
