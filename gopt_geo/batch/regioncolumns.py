"""Columns of region files: which are known, and their values as predict wants them."""

from __future__ import annotations

import difflib
import math
import sys
import types
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from gopt_geo.batch.regionfile import FeatureFault
from gopt_geo.batch.regionpaths import PathReader
from gopt_geo.maprequest import MapOptions
from gopt_geo.scene.clouds import CloudMask

__all__ = ["OPTIONS", "REFUSED", "RowReader", "concerns", "is_set", "option_value"]

_AREA = "a region's area is its geometry"
_WORKERS = "it belongs to the workers: say it for the whole batch"
_RESULTS = "what is written is said for the whole batch"
REFUSED: Mapping[str, str] = {
    **dict.fromkeys(("aoi", "aoi_crs"), _AREA),
    **dict.fromkeys(("device", "threads", "readers", "max_memory", "compile"), _WORKERS),
    **dict.fromkeys(
        (
            "output",
            "outputs",
            "overwrite",
            "confidence",
            "probabilities",
            "probabilities_type",
            "preview",
            "reference",
        ),
        _RESULTS,
    ),
}
"""Options of predict that aren't a region's to say, and why."""

OPTIONS: Mapping[str, Any] = {
    name: hint for name, hint in get_type_hints(MapOptions).items() if name not in REFUSED and name != "pack"
}
"""Options of predict that a region may say for itself, and their types."""

_KNOWN = ("id", "optical", "sar", "pack", *OPTIONS)
_LIKE = 0.83  # of difflib's measure; "extend" is a misspelt "extent", "optical_id" no "optical"
_SHORT = 5  # letters; shorter names resemble too many: "fid" and "id", "gid" and "grid"
_SHOWN = 60

Value = Any


def is_set(value: object) -> bool:
    """Tell whether a cell says anything: null, not-a-number and blank text, as tables have them, don't."""
    if isinstance(value, float):
        return not math.isnan(value)
    return value is not None and not (isinstance(value, str) and not value.strip())


@lru_cache(4096)
def concerns(column: str) -> str | None:
    """Return the name that a column has or seems to mean, None if it is none of ours."""
    if column in _KNOWN or column in REFUSED:
        return column
    plain = column.strip().casefold().replace("-", "_").replace(" ", "_")
    if plain in _KNOWN or plain in REFUSED:
        return plain
    if len(plain) < _SHORT:
        return None
    close = difflib.get_close_matches(plain, [name for name in _KNOWN if len(name) >= _SHORT], 1, _LIKE)
    return close[0] if close else None


class RowReader:
    """Makes keywords of a region of what its columns say.

    Parameters
    ----------
    folder
        That relative paths are relative to.
    allow_remote
        Whether sources may be on servers or in archives.
    """

    def __init__(self, folder: Path, *, allow_remote: bool) -> None:
        self._paths = PathReader(folder, allow_remote=allow_remote)

    def read(self, row: Mapping[str, Value]) -> tuple[dict[str, Any], list[FeatureFault]]:
        """Return keywords of `Region` but for its id and geometry, and what is wrong with columns."""
        told: dict[str, Any] = {"options": {}}
        faults = []
        for column, value in row.items():
            if column == "id" or not is_set(value):
                continue
            try:
                self._column(column, value, told)
            except FeatureFault as fault:
                faults.append(FeatureFault(f"column {column!r}: {fault.found}", fault.remedy))
        return told, faults

    def _column(self, column: str, value: Value, told: dict[str, Any]) -> None:
        meant = concerns(column)
        if meant is not None and meant != column:
            raise FeatureFault(f"there is no such option, but {meant!r}", "rename the column")
        if column in REFUSED:
            raise FeatureFault("no region can say this", f"leave the column out; {REFUSED[column]}")
        if column in ("optical", "sar"):
            told[column] = self._paths.scenes(value)
        elif column == "pack":
            told["pack"] = self._paths.file(value)
        else:
            told["options"][column] = option_value(column, value, self._path_option)

    def _path_option(self, name: str, text: str) -> str:
        """Return the path that an option names, or the keyword that it has instead."""
        if (name == "grid" and text in ("optical", "sar")) or (name == "cloud_mask" and CloudMask(text).keyword):
            return text
        return self._paths.file(text) if name == "backbone_weights" else self._paths.raster(text)


def option_value(name: str, value: Value, path: Callable[[str, str], str]) -> Any:
    """Return an option's value of the type that predict wants.

    Parameters
    ----------
    name
        One of `OPTIONS`.
    value
        As a file has it.
    path
        Makes an absolute path of the option's name and text.

    Raises
    ------
    FeatureFault
        If it is of another type, or no such choice.
    """
    hint = OPTIONS[name]
    members = get_args(hint) if get_origin(hint) in (Union, types.UnionType) else (hint,)
    choices = [choice for member in members if get_origin(member) is Literal for choice in get_args(member)]
    kinds = [_kind(member) for member in members]
    if isinstance(value, str):
        value = value.strip()
        if choices and "int" in kinds and value.isascii() and value.isdecimal():  # such a column can only be of text
            value = int(value)
    if choices and value in choices:
        return value
    kind = next((kind for kind in _ORDER if kind in kinds), None)
    found = _ORDER[kind](value) if kind is not None else None
    if found is not None:
        return path(name, found) if kind == "path" else found
    if kind is not None and not choices:
        raise FeatureFault(f"{_short(value)} {_WORDS[kind][0]}", _WORDS[kind][1])
    also = " or a whole number" if kind == "int" else ""
    raise FeatureFault(f"{_short(value)} is no choice", f"use {', '.join(map(str, choices))}{also}")


def _kind(member: Any) -> str:
    origin = get_origin(member)
    if origin is Sequence:
        return "numbers"
    if isinstance(origin or member, type) and hasattr(origin or member, "__fspath__"):
        return "path"
    return getattr(member, "__name__", "")


def _short(value: Value) -> str:
    text = repr(value)
    return text if len(text) <= _SHOWN else f"{text[: _SHOWN - 3]}..."


def _bool(value: Value) -> bool | None:
    if isinstance(value, str):  # formats without such a type keep words
        return {"true": True, "false": False}.get(value.lower())
    return value if isinstance(value, bool) else None


def _int(value: Value) -> int | None:
    if isinstance(value, float) and value.is_integer():  # a column with gaps is one of floats
        return int(value)
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _float(value: Value) -> float | None:
    fits = isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= sys.float_info.max
    return float(value) if fits else None


def _str(value: Value) -> str | None:
    return value if isinstance(value, str) else None


def _floats(value: Value) -> tuple[float, ...] | None:
    if isinstance(value, str):  # formats without lists
        try:
            value = [float(part) for part in value.removeprefix("[").removesuffix("]").split(",")]
        except ValueError:
            return None
    numbers = [_float(part) for part in (value if isinstance(value, list | tuple) else [value])]
    sound = tuple(number for number in numbers if number is not None)
    return sound if sound and len(sound) == len(numbers) else None


_ORDER: Mapping[str, Callable[[Value], Any]] = {
    "bool": _bool,
    "int": _int,
    "float": _float,
    "numbers": _floats,
    "path": _str,
    "str": _str,
}
_WORDS = {
    "bool": ("is neither true nor false", "write one of them"),
    "int": ("is no whole number", "write a number such as 512"),
    "float": ("is no number", "write a number such as 10.5"),
    "numbers": ("isn't numbers", "write them as [0.75, 1, 1.25]"),
    "path": ("is no path", "write it as text"),
    "str": ("is no text", "write it as text"),
}
