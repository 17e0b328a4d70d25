"""Configurations as YAML text: plain, or with a comment to each key; `read_train_config` reads it back equal."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from gopt_geo.datasets.registry import dataset_options
from gopt_geo.training.config import TrainConfig
from gopt_geo.yamlfile import yaml_text

__all__ = ["described", "dump_config"]

_WIDTH = 120
_HEAD = "# Configuration of a training; docs/configuration.md. Paths are relative to the working directory."
_OF_DATASETS = ("dataset", "root", "splits", "options")
_OF_SCENES = ("scene", "split")


def dump_config(config: TrainConfig, *, comments: bool = True, template: bool = False) -> str:
    """Return a configuration as YAML.

    Parameters
    ----------
    config
        The configuration. What is of data sets alone is left out of a scene's, and the reverse.
    comments
        Whether to describe each key, its choices and units.
    template
        Whether to comment out what has its default value, for people to edit.
    """
    left_out = _OF_DATASETS if config.dataset is None else _OF_SCENES
    lines = [_HEAD] if comments else []
    for name, info in TrainConfig.model_fields.items():
        if name == "options" and name not in left_out:
            lines += _options(config, comments)
        elif name not in left_out:
            lines += _entry(name, getattr(config, name), info, "", comments, template)
    return "\n".join(lines) + "\n"


def described(info: FieldInfo) -> str:
    """Return the description of a field with its choices."""
    found = _choices(info.annotation)
    listed = f" ({', '.join(found[:-1])} or {found[-1]})" if len(found) > 1 else ""
    return (info.description or "") + listed


def _choices(annotation: Any) -> list[str]:
    if get_origin(annotation) is Literal:
        return [str(choice) for choice in get_args(annotation)]
    if get_origin(annotation) in (Union, UnionType):
        return [choice for part in get_args(annotation) for choice in _choices(part)]
    return []


def _entry(name: str, value: Any, info: FieldInfo, indent: str, comments: bool, template: bool) -> Iterator[str]:
    """Yield the lines of one key and what is below it."""
    comment = described(info) if comments else ""
    if isinstance(value, BaseModel):
        yield from _line(f"{indent}{name}:", comment)
        for inner, inner_info in type(value).model_fields.items():
            yield from _entry(inner, getattr(value, inner), inner_info, indent + "  ", comments, template)
    elif value and isinstance(value, Sequence) and isinstance(value[0], BaseModel):
        yield from _line(f"{indent}{name}:", comment)
        for one in value:
            yield f"{indent}  - {yaml_text(one.model_dump(exclude_none=True))}"
    else:
        default = info.get_default(call_default_factory=True, validated_data={})
        quiet = "# " if template and not info.is_required() and value == default else ""
        yield from _line(f"{indent}{quiet}{name}: {yaml_text(_plain(value))}", comment, indent)


def _options(config: TrainConfig, comments: bool) -> Iterator[str]:
    """Yield a data set's options; with comments also those that it would take."""
    info = TrainConfig.model_fields["options"]
    others = dataset_options(config.dataset or "").model_fields if comments else {}
    if not config.options:
        yield from _line("options: {}", described(info) if comments else "")
    else:
        yield from _line("options:", described(info) if comments else "")
        for name, value in config.options.items():
            yield f"  {name}: {yaml_text(value)}"
    for name, other in others.items():
        if name not in config.options:
            yield f"  # {name}: {yaml_text(_plain(other.default))}"


def _line(text: str, comment: str, indent: str = "") -> Iterator[str]:
    """Yield a line with its comment behind it, or above where it is too long."""
    if not comment:
        yield text
    elif len(text) + len(comment) + 3 <= _WIDTH:
        yield f"{text} # {comment}"
    else:
        yield f"{indent}# {comment}"
        yield text


def _plain(value: Any) -> Any:
    return [_plain(one) for one in value] if isinstance(value, tuple | list) else value
