"""``gopt-geo info``: what a file is, as gopt-geo sees it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

__all__ = ["info"]


def _lines(value: Any, indent: str = "") -> list[str]:
    """Nested plain data as indented ``key: value`` lines."""
    lines: list[str] = []
    items = value.items() if isinstance(value, dict) else ((f"- {i}", v) for i, v in enumerate(value, 1))
    for key, item in items:
        nested = isinstance(item, dict) or (isinstance(item, list) and any(isinstance(i, dict | list) for i in item))
        if nested and item:
            lines += [f"{indent}{key}:", *_lines(item, indent + "  ")]
        elif item in (None, {}, []):
            lines.append(f"{indent}{key}: -")
        elif isinstance(item, list):
            lines.append(f"{indent}{key}: {', '.join(str(i) for i in item)}")
        else:
            lines.append(f"{indent}{key}: {item}")
    return lines


def info(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A raster or a prompt pack.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Say what FILE is: grid, bands, units and nodata of a raster; classes, bands and backbone of a pack."""
    from gopt_geo import api

    found = api.info(file)
    typer.echo(json.dumps(found, indent=2) if as_json else "\n".join(_lines(found)))
