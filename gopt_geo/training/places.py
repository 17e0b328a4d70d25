"""Paths of a configuration that hold wherever one is: a run's folder is read from elsewhere, too."""

from __future__ import annotations

import os
from pathlib import Path

from gopt_geo.training.config import TrainConfig

__all__ = ["placed"]

_PATTERN = frozenset("*?[")


def placed(config: TrainConfig) -> TrainConfig:
    """Return a configuration whose local paths are absolute; URLs, texts and words stay as they are."""
    scene = config.scene
    if scene is not None:
        names = ("optical", "sar", "labels", "aoi", "cloud_mask", "grid")
        told = {name: getattr(scene, name) for name in names}
        scene = scene.model_copy(update={name: _placed(text) for name, text in told.items() if text is not None})
    model, weights = config.model, config.model.backbone_weights
    if weights is not None:
        model = model.model_copy(update={"backbone_weights": _placed(weights)})
    classes = _placed(config.classes) if isinstance(config.classes, str) else config.classes
    root = _placed(config.root) if config.root is not None else None
    return config.model_copy(update={"scene": scene, "model": model, "classes": classes, "root": root})


def _placed(text: str) -> str:
    """Make a path, a list of paths, a pattern or ``FILE|LAYER`` absolute; leave what names no local file."""
    if Path(text).expanduser().exists():
        return os.path.abspath(Path(text).expanduser())  # noqa: PTH100 (links stay links)
    parts = text.split(",")
    if len(parts) > 1 and all(Path(part.strip()).expanduser().exists() for part in parts):
        return ",".join(_placed(part.strip()) for part in parts)
    path, bar, layer = text.rpartition("|")
    if bar and Path(path).expanduser().exists():
        return f"{_placed(path)}|{layer}"
    if _PATTERN & set(text) and Path(text).expanduser().parent.is_dir():
        return os.path.abspath(Path(text).expanduser())  # noqa: PTH100 (as above)
    return text
