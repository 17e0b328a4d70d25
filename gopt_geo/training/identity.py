"""What a checkpoint belongs to, and whether a run may go on from it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gopt_geo.errors import CheckpointError

__all__ = ["MAY_DIFFER", "Identity"]

_FREE = ("output", "title", "model.backbone_weights")
_FREE_TRAINING = ("training.accelerator", "training.workers", "training.checkpoint_every")
_FREE_EVALUATION = ("evaluation.scales", "evaluation.flip", "evaluation.boundary")
MAY_DIFFER = frozenset((*_FREE, *_FREE_TRAINING, *_FREE_EVALUATION))
"""Keys of a configuration that change where and how fast it is trained, but not what comes out."""


@dataclass(frozen=True)
class Identity:
    """What a checkpoint belongs to; a run goes on only from one of its own.

    Attributes
    ----------
    version
        Of gopt-geo.
    config
        The resolved configuration, plain.
    backbone
        Its id and SHA-256.
    data
        Classes, modalities with their statistics, and labelled pixels of the parts, plain.
    """

    version: str
    config: dict[str, Any]
    backbone: dict[str, str]
    data: dict[str, Any]

    def check(self, other: Identity, path: Path) -> None:
        """Refuse a checkpoint, at ``path``, of another identity.

        Raises
        ------
        CheckpointError
            Names the first thing that differs.
        """
        if other.version != self.version:
            found = f"it was written by gopt-geo {other.version}, and this is {self.version}"
            raise CheckpointError(path, found, "go on with that version, or start anew with --overwrite")
        key = _first_difference(self.config, other.config)
        if key is not None:
            found = f"it is of another configuration: {key} was {_value(other.config, key)}, and is "
            found += f"{_value(self.config, key)} now"
            raise CheckpointError(path, found, "go on with the run's own config.yaml, or start anew with --overwrite")
        if other.backbone["sha256"] != self.backbone["sha256"]:
            found = f"it was trained on {other.backbone['id']} with SHA-256 {other.backbone['sha256'][:12]}, and the "
            found += f"weights loaded have {self.backbone['sha256'][:12]}"
            raise CheckpointError(path, found, "name the file of those weights with --backbone-weights")
        key = _first_difference(self.data, other.data)
        if key is not None:
            found = f"the data have changed since it was written: {key} was {_value(other.data, key)}, and is "
            found += f"{_value(self.data, key)} now"
            raise CheckpointError(path, found, "bring back the data as they were, or start anew with --overwrite")


def _first_difference(mine: Any, other: Any, prefix: str = "") -> str | None:
    """Return the dotted key of the first difference, None if there is none; keys of `MAY_DIFFER` aren't looked at."""
    if prefix in MAY_DIFFER:
        return None
    if isinstance(mine, Mapping) and isinstance(other, Mapping):
        for key in (*mine, *(key for key in other if key not in mine)):
            found = _first_difference(mine.get(key), other.get(key), f"{prefix}.{key}" if prefix else str(key))
            if found is not None:
                return found
        return None
    return None if _same(mine, other) else prefix


def _same(mine: Any, other: Any) -> bool:
    """Compare plain values; lists and tuples are alike, and statistics that were summed in another order."""
    if isinstance(mine, (list, tuple)) and isinstance(other, (list, tuple)):
        return len(mine) == len(other) and all(_same(a, b) for a, b in zip(mine, other, strict=True))
    if isinstance(mine, Mapping) and isinstance(other, Mapping):
        return mine.keys() == other.keys() and all(_same(mine[key], other[key]) for key in mine)
    if isinstance(mine, float) and isinstance(other, float):
        return abs(mine - other) <= 1e-6 * max(abs(mine), abs(other))
    return bool(mine == other)


def _value(config: Any, key: str) -> str:
    """Return a value of a nested configuration as it would be written in a file, cut where it is long."""
    for part in key.split("."):
        config = config.get(part) if isinstance(config, Mapping) else None
    text = json.dumps(config)
    return text if len(text) <= 60 else f"{text[:57]}..."
