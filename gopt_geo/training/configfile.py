"""Configurations of trainings as YAML files: read with errors that name the line, overridden by options."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from gopt_geo.datasets.configs import CONFIG_REMEDY
from gopt_geo.errors import ConfigError
from gopt_geo.modelfaults import Key, dotted
from gopt_geo.paths import StrPath
from gopt_geo.training.config import TrainConfig
from gopt_geo.training.configtext import dump_config
from gopt_geo.yamlfile import YamlDocument, parse_yaml, read_yaml

__all__ = ["PROJECT_FILE", "Override", "dump_config", "parse_setting", "read_train_config"]

PROJECT_FILE = "gopt-geo.yaml"
"""Configuration of the working directory, which `gopt-geo train` takes where none is named."""

_SECTIONS = ("split", "model", "training", "augmentation", "evaluation", "options")
_RIVALS = {
    "training.steps": ("training", "epochs"),
    "training.epochs": ("training", "steps"),
    "training.warmup_steps": ("training", "warmup_epochs"),
    "training.warmup_epochs": ("training", "warmup_steps"),
}


@dataclass(frozen=True, slots=True)
class Override:
    """A value that stands over the file's.

    Attributes
    ----------
    key
        Way to the value, such as ``("training", "steps")``.
    value
        Text, number, truth value, None, or lists and mappings of such.
    option
        What messages call its origin, such as "--steps".
    """

    key: tuple[str, ...]
    value: Any
    option: str


def parse_setting(text: str) -> Override:
    """Read ``training.clip=0.5``: a key, and its value in YAML.

    Raises
    ------
    ConfigError
        If there is no key, or the value isn't YAML.
    """
    name, equals, value = text.partition("=")
    key = tuple(part.strip() for part in name.split("."))
    if not equals or not all(key):
        raise ConfigError(f"--set {text}", "it isn't KEY=VALUE", "write it like --set training.clip=0.5")
    option = f"--set {name.strip()}"
    remedy = f"write it like --set {name.strip()}=0.5; quotes hold any text"
    return Override(key, parse_yaml(value, option, remedy=remedy, error=ConfigError).content, option)


def read_train_config(path: StrPath | None = None, overrides: Iterable[Override] = ()) -> TrainConfig:
    """Read a configuration, with some values from elsewhere.

    Parameters
    ----------
    path
        A YAML file; docs/configuration.md tells what it holds. None: ``overrides`` hold everything.
    overrides
        Values that stand over the file's. One that excludes another (``epochs`` and ``steps``) removes it.

    Raises
    ------
    ConfigError
        If the file can't be read, a key is unknown or missing, a value is of the wrong type, or values contradict each
        other. Line and key are named, or the option.

    Examples
    --------
    >>> setting = Override(("training", "steps"), 500, "--steps")
    >>> read_train_config("configs/ombria.yaml", [setting]).training.steps
    500
    """
    if path is None:
        document = YamlDocument("train", {}, {}, CONFIG_REMEDY, ConfigError)
    else:
        document = read_yaml(path, kind="configuration", remedy=CONFIG_REMEDY, error=ConfigError)
    content = copy.deepcopy(document.content)
    if content is None:
        content = {}
    if not isinstance(content, dict):
        return document.check(TrainConfig)  # which refuses it
    for name in _SECTIONS:
        if name in content and content[name] is None:
            del content[name]  # a section in which all is commented out
    options: dict[Key, str] = {}
    for override in overrides:
        _refuse_other_kind(document.source, content, override)
        _put(content, override, document.lines, options)
    return document.having(content, options).check(TrainConfig)


def _refuse_other_kind(source: str, content: Mapping[str, Any], override: Override) -> None:
    """Refuse an option of a scene over a data set's file."""
    if override.key[0] in ("scene", "split") and content.get("dataset") is not None:
        found = f"it is of a scene, and {source} is of the data set {content['dataset']}"
        raise ConfigError(override.option, found, "leave it out, or name another configuration")


def _put(content: dict[str, Any], override: Override, lines: Mapping[Key, int], options: dict[Key, str]) -> None:
    """Put one value into plain data; note in ``options`` whose it is."""
    section: Any = content
    for length, name in enumerate(override.key[:-1], 1):
        if section.get(name) is None:
            section[name] = {}
        section = section[name]
        if override.key[:length] not in lines:
            options.setdefault(override.key[:length], override.option)
        if not isinstance(section, dict):
            where = dotted(override.key[:length])
            raise ConfigError(override.option, f"{where} holds no keys", "name another key, or change the file")
    section[override.key[-1]] = copy.deepcopy(override.value)
    options[override.key] = override.option
    rival = _RIVALS.get(dotted(override.key))
    if rival is not None and rival not in options:
        section.pop(rival[-1], None)
