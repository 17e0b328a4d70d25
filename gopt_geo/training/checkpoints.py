"""Checkpoints: all that a training goes on from, as plain types and tensors, without the backbone's weights.

A checkpoint is one file that ``torch.load(path, weights_only=True)`` reads; ``docs/checkpoints.md`` lists its keys. It
appears at its path whole or not at all, and the one before it stays until then.
"""

from __future__ import annotations

import errno
import hashlib
import io
import json
import os
import pickle
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from gopt_geo.errors import CheckpointError, OutputError, TrainingError
from gopt_geo.models.backbone import state_digest
from gopt_geo.training.identity import Identity

__all__ = ["FORMAT", "Checkpoint", "Standing", "read_checkpoint", "unwritable", "write_atomically", "write_checkpoint"]

FORMAT = 1
_MARK = "gopt-geo training"


@dataclass(frozen=True)
class Standing:
    """Where a training stands.

    Attributes
    ----------
    step
        Steps finished.
    seconds
        Time that they took, interruptions left out.
    miou
        Of the latest validation.
    best_step, best_miou
        The best validation so far.
    waited
        Validations since then.
    """

    step: int = 0
    seconds: float = 0.0
    miou: float | None = None
    best_step: int | None = None
    best_miou: float | None = None
    waited: int = 0


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint in memory.

    Attributes
    ----------
    identity, standing
        What it belongs to, and where it stands.
    model
        Trained tensors, float32.
    optimizer, scaler
        State of the optimiser, and of the loss scale (half precision alone).
    """

    identity: Identity
    standing: Standing
    model: Mapping[str, Tensor]
    optimizer: dict[str, Any]
    scaler: dict[str, Any]


def write_checkpoint(path: Path, checkpoint: Checkpoint) -> None:
    """Write a checkpoint; what stood at the path stays until the new one is whole.

    Raises
    ------
    TrainingError
        If a weight isn't finite: such a checkpoint would be of no use, and replace one that is.
    OutputError
        If it can't be written.
    """
    for name, tensor in checkpoint.model.items():
        if not bool(torch.isfinite(tensor).all()):
            step = checkpoint.standing.step
            found = f"{name} isn't finite any more; {path.name} isn't written"
            raise TrainingError(f"step {step}", found, "lower learning_rate, or train in fp32 (precision)")
    content: dict[str, Any] = {
        "kind": _MARK,
        "format": FORMAT,
        **asdict(checkpoint.identity),
        "standing": asdict(checkpoint.standing),
        "model": {name: tensor.detach().cpu() for name, tensor in checkpoint.model.items()},
        "optimizer": _on_cpu(checkpoint.optimizer),
        "scaler": _on_cpu(checkpoint.scaler),
    }
    content["digest"] = _digest(content)
    buffer = io.BytesIO()
    torch.save(content, buffer)
    write_atomically(path, buffer.getbuffer())


def read_checkpoint(path: Path) -> Checkpoint:
    """Read and verify a checkpoint; nothing in it is executed.

    Raises
    ------
    CheckpointError
        If it is missing, isn't a checkpoint, is damaged or of another format. Where another one lies beside it, the
        message names that.
    """
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise CheckpointError(path, "there is no such file", _instead(path)) from error
    except OSError as error:
        raise CheckpointError(path, f"it can't be read ({error.strerror or error})", _instead(path)) from error
    except (RuntimeError, pickle.UnpicklingError, EOFError, ValueError, KeyError, IndexError, TypeError) as error:
        raise CheckpointError(path, "it is damaged, or isn't a checkpoint", _instead(path)) from error
    if not isinstance(content, dict) or content.get("kind") != _MARK:
        raise CheckpointError(path, "it isn't a checkpoint of gopt-geo", _instead(path))
    if content.get("format") != FORMAT:
        found = f"it has format {content.get('format')!r}, and this reads format {FORMAT}"
        raise CheckpointError(path, found, "go on with the version that wrote it, or start anew with --overwrite")
    digest = content.pop("digest", None)
    try:
        if digest != _digest(content):
            raise CheckpointError(path, "it is damaged: its content doesn't match its checksum", _instead(path))
        identity = Identity(**{key: content[key] for key in ("version", "config", "backbone", "data")})
        standing = Standing(**content["standing"])
        return Checkpoint(identity, standing, content["model"], content["optimizer"], content["scaler"])
    except (KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(path, f"it is damaged ({error})", _instead(path)) from error


def write_atomically(path: Path, content: bytes | memoryview) -> None:
    """Write a file whole or not at all: beside its place, to the disk, then renamed.

    Raises
    ------
    OutputError
        If it can't be written; what stood at the path is untouched then.
    """
    temporary = path.with_name(f".{path.name}.part")
    try:
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    except OSError as error:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise unwritable(path, error) from error


def unwritable(path: Path, error: OSError) -> OutputError:
    """Return the error for a file that the operating system refuses to write."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        remedy = "free some space and go on with --resume" if path.suffix in (".ckpt", ".csv") else "free some space"
        return OutputError(path, "the disk is full", remedy)
    if error.errno == errno.EFBIG:
        return OutputError(path, "it would be larger than files may be here", "raise the limit (ulimit -f)")
    return OutputError(path, f"can't be written ({error.strerror or error})", "choose a folder you may write to")


def _instead(path: Path) -> str:
    """Return the remedy for a checkpoint that can't be used; it names the other one of the run, if there is one."""
    others = [name for name in ("last.ckpt", "best.ckpt") if name != path.name and path.with_name(name).is_file()]
    if not others:
        return "start anew with --overwrite"
    return f"{path.with_name(others[0])} is there too: move it to {path.name} to go on from it, or use --overwrite"


def _on_cpu(state: Any) -> Any:
    """Copy nested plain types with all tensors brought to the CPU."""
    if isinstance(state, Tensor):
        return state.detach().cpu()
    if isinstance(state, Mapping):
        return {key: _on_cpu(value) for key, value in state.items()}
    if isinstance(state, (list, tuple)):
        return [_on_cpu(value) for value in state]
    return state


def _digest(content: Mapping[str, Any]) -> str:
    """SHA-256 over all that a checkpoint holds: tensors by their bytes, the rest as JSON."""
    tensors: dict[str, Tensor] = {}
    plain: list[tuple[str, Any]] = []
    for key, value in _flatten(content):
        if isinstance(value, Tensor):
            tensors[key] = value
        else:
            plain.append((key, value))
    document = json.dumps(plain) + state_digest(tensors)
    return hashlib.sha256(document.encode()).hexdigest()


def _flatten(content: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield what isn't a container, under a name that tells its place; empty containers too."""
    if isinstance(content, Mapping) and content:
        for key, value in content.items():
            yield from _flatten(value, f"{prefix}/{key}")
    elif isinstance(content, (list, tuple)) and content:
        for number, value in enumerate(content):
            yield from _flatten(value, f"{prefix}/{number}")
    else:
        yield prefix, content
