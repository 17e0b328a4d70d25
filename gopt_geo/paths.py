"""Paths as callers give them: texts or path objects, one or several."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

__all__ = ["StrPath", "as_paths", "optional_path"]

StrPath = str | os.PathLike[str]


def optional_path(path: StrPath | None) -> Path | None:
    """Return a path, or None for None."""
    return None if path is None else Path(path)


def as_paths(paths: StrPath | Iterable[StrPath]) -> tuple[Path, ...]:
    """Return several paths; a single one, though a text is a series of letters, as one."""
    return (Path(paths),) if isinstance(paths, str | os.PathLike) else tuple(Path(path) for path in paths)
