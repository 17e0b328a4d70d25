"""What is said of a training by options, and the configuration that it makes with or without a file."""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gopt_geo_cli.say import say_notices

if TYPE_CHECKING:
    from gopt_geo.training.config import TrainConfig
    from gopt_geo.training.configfile import Override

__all__ = ["KEYS", "Accelerator", "Loss", "SetOption", "find_file", "overrides_of", "training_of"]

KEYS = {
    "aoi": "scene.aoi",
    "aoi_crs": "scene.aoi_crs",
    "optical": "scene.optical",
    "sar": "scene.sar",
    "labels": "scene.labels",
    "class_field": "scene.class_field",
    "optical_bands": "scene.optical_bands",
    "sar_bands": "scene.sar_bands",
    "optical_units": "scene.optical_units",
    "sar_units": "scene.sar_units",
    "sensor": "scene.sensor",
    "sar_sensor": "scene.sar_sensor",
    "cloud_mask": "scene.cloud_mask",
    "cloud_mask_kind": "scene.cloud_mask_kind",
    "grid": "scene.grid",
    "resolution": "scene.resolution",
    "coregister": "scene.coregister",
    "root": "root",
    "classes": "classes",
    "shares": "split.shares",
    "buffer": "split.buffer",
    "block": "split.block",
    "backbone": "model.backbone",
    "backbone_weights": "model.backbone_weights",
    "modalities": "model.modalities",
    "tile_size": "training.tile_size",
    "batch": "training.batch",
    "steps": "training.steps",
    "epochs": "training.epochs",
    "learning_rate": "training.learning_rate",
    "loss": "training.loss",
    "class_weights": "training.class_weights",
    "precision": "training.precision",
    "device": "training.accelerator",
    "devices": "training.devices",
    "workers": "training.workers",
    "seed": "training.seed",
    "title": "title",
    "output": "output",
}
"""Key of a configuration that each option stands for, by the option's name in Python."""


class Loss(Enum):
    """What is minimised."""

    cross_entropy = "cross_entropy"
    dice = "cross_entropy+dice"
    lovasz = "cross_entropy+lovasz"


class Accelerator(Enum):
    """Kind of device."""

    auto = "auto"
    cpu = "cpu"
    gpu = "gpu"


SetOption = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="KEY=VALUE", help="Any other value, such as training.clip=0.5; may be repeated; wins over all."
    ),
]


def overrides_of(given: Mapping[str, Any], settings: list[str] | None) -> list[Override]:
    """Return what options say, by the names of `KEYS`; those that are None weren't given.

    Raises
    ------
    ConfigError
        If a list of numbers or a ``--set`` can't be read.
    """
    from gopt_geo.training.configfile import Override, parse_setting

    found = []
    for name, value in given.items():
        if value is None:
            continue
        option = f"--{name.replace('_', '-')}"
        found.append(Override(tuple(KEYS[name].split(".")), _plain(name, value, option), option))
    return [*found, *(parse_setting(text) for text in settings or [])]


def _plain(name: str, value: Any, option: str) -> Any:
    """Return an option's value as a file would hold it."""
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, Path):
        return str(value)
    if name == "modalities":
        return [part.strip() for part in value.split(",")]
    if name == "shares":
        return _numbers(value, ",", float, option, "three numbers such as 0.7,0.15,0.15", (3,))
    if name == "tile_size":
        sides = _numbers(value, "x", int, option, "pixels such as 256, or height and width: 480x640", (1, 2))
        return sides[0] if len(sides) == 1 else sides
    return value


def _numbers(
    text: str, between: str, kind: type[int] | type[float], option: str, wanted: str, counts: tuple[int, ...]
) -> list[Any]:
    from gopt_geo.errors import ConfigError

    try:
        found = [kind(part) for part in text.split(between)]
    except ValueError:
        raise ConfigError(f"{option} {text}", "it can't be read", f"give {wanted}") from None
    if len(found) not in counts:
        raise ConfigError(f"{option} {text}", f"it holds {len(found)} numbers", f"give {wanted}")
    return found


def find_file(config: Path | None, output: Path | None, resume: bool) -> Path | None:
    """Return the configuration's file: the one named, the resumed run's own, or that of the working directory."""
    from gopt_geo.training.configfile import PROJECT_FILE

    if config is not None:
        return config
    if resume and output is not None:
        if not (output / "config.yaml").is_file():
            from gopt_geo.errors import CheckpointError

            raise CheckpointError(output, "there is no run to go on with", "check -o, or start one without --resume")
        return output / "config.yaml"
    project = Path(PROJECT_FILE)
    return project if project.exists() else None


def training_of(file: Path | None, overrides: list[Override], *, needs_data: bool = True) -> TrainConfig:
    """Return the configuration of a file, options over it.

    Parameters
    ----------
    file
        Of the configuration, or None.
    overrides
        What options say.
    needs_data
        Whether sources and labels must be named; else examples stand in for them where there is no file.

    Raises
    ------
    ConfigError
        If it can't be used, or says too little.
    """
    from gopt_geo.errors import ConfigError
    from gopt_geo.training.configfile import PROJECT_FILE, Override, read_train_config

    if file is None and not any(override.key[0] == "dataset" for override in overrides):
        named = {override.key[-1] for override in overrides if override.key[0] == "scene"}
        examples = {} if named & {"optical", "sar"} else {"optical": "optical.tif", "sar": "sar.tif"}
        if "labels" not in named:
            examples |= {"labels": "labels.gpkg", "class_field": "class"}
        if examples and needs_data:
            options = {"optical": "--optical or --sar", "labels": "--labels"}
            lacking = [option for name, option in options.items() if name in examples]
            found = f"it needs {' and '.join(lacking)}, and there is no {PROJECT_FILE} here"
            raise ConfigError("train", found, "give them, or --config FILE, or write that file with gopt-geo init")
        added = [Override(("scene", name), value, "example") for name, value in examples.items() if name not in named]
        config = read_train_config(None, [*added, *overrides])
        if added:
            say_notices([f"not all is named; examples stand in: {', '.join(one.key[-1] for one in added)}"])
        return config
    return read_train_config(file, overrides)
