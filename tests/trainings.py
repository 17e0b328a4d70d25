"""Small trainings for the trainer's tests: a simulated scene, and configurations of seconds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from gopt_geo.simulate import CLASS_COLORS, CLASS_NAMES, CLASS_VALUES, SceneSpec, write_scene
from gopt_geo.training.config import TrainConfig

STEPS = 8


def small_scene(folder: Path) -> dict[str, Path]:
    """Write a scene of 128 x 192 pixels."""
    paths = {stem: folder / f"{stem}.tif" for stem in ("scene", "sar", "labels", "clouds")}
    write_scene(SceneSpec(seed=7, height=128, width=192), paths)
    return paths


def small_config(scene: dict[str, Path], output: Path, **changes: Any) -> TrainConfig:
    """Return a training of a few seconds; changes are keys of the section "training", or sections as dicts."""
    training = {"tile_size": 32, "batch": 2, "steps": STEPS, "validate_every": 3, "checkpoint_every": 2, "workers": 0}
    training |= {"accelerator": "cpu"}
    sections = {name: value for name, value in changes.items() if isinstance(value, dict)}
    training |= {name: value for name, value in changes.items() if name not in sections}
    content: dict[str, Any] = {
        "scene": {
            "optical": str(scene["scene"]),
            "optical_bands": "red,green,blue",
            "sar": str(scene["sar"]),
            "labels": str(scene["labels"]),
        },
        "classes": tuple(
            {"value": v, "name": n, "color": c} for v, n, c in zip(CLASS_VALUES, CLASS_NAMES, CLASS_COLORS, strict=True)
        ),
        "ignore": (0,),
        "split": {"block": 32, "buffer": 16, "shares": (0.6, 0.2, 0.2)},
        "training": training,
        "title": "small",
        "output": str(output),
    }
    return TrainConfig.model_validate({**content, **sections})
