"""Tables of docs/configuration.md, made of the models; ``python tests/configpage.py`` writes them into the page."""

from __future__ import annotations

import re
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel

from gopt_geo.modelfaults import model_in
from gopt_geo.training.config import TrainConfig
from gopt_geo.yamlfile import yaml_text

PAGE = Path(__file__).parents[1] / "docs/configuration.md"
_MARKED = re.compile(r"(<!-- keys of (\S+) -->\n).*?(<!-- end -->)", re.DOTALL)
_WORDS = {int: "whole number", float: "number", str: "text", bool: "true or false", Any: "anything", NoneType: "null"}


def kind(annotation: Any) -> str:
    """Return in words what a value may be."""
    origin, parts = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return kind(parts[0])
    if origin is Literal:
        return ", ".join(f"`{choice}`" for choice in parts)
    if origin in (Union, UnionType):
        return " or ".join(kind(part) for part in parts if part is not NoneType)
    if origin is tuple:
        return f"list of {kind(parts[0])}s" if parts[-1] is Ellipsis else f"{len(parts)} {kind(parts[0])}s"
    if origin is dict:
        return f"{kind(parts[1])} by name"
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return "section"
    return _WORDS[annotation]


def table(model: type[BaseModel]) -> str:
    """Return a model's keys as a table in Markdown."""
    lines = ["| key | value | default | what |", "|---|---|---|---|"]
    for name, info in model.model_fields.items():
        default = "needed" if info.is_required() else info.get_default(call_default_factory=True, validated_data={})
        if isinstance(default, BaseModel):
            default = ""
        elif default != "needed":
            default = f"`{yaml_text(list(default) if isinstance(default, tuple) else default)}`"
        lines.append(f"| `{name}` | {kind(info.annotation)} | {default} | {info.description} |")
    return "\n".join(lines) + "\n"


def rendered(page: str) -> str:
    """Return a page with its tables made anew."""

    def fill(found: re.Match[str]) -> str:
        model: type[BaseModel] | None = TrainConfig
        if found[2] != "all":
            model = model_in(TrainConfig.model_fields[found[2]].annotation)
        assert model is not None
        return found[1] + table(model) + found[3]

    return _MARKED.sub(fill, page)


if __name__ == "__main__":
    PAGE.write_text(rendered(PAGE.read_text("utf-8")), "utf-8")
