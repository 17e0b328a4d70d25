"""What commands say besides their result: notices on stderr, written paths on stdout."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import typer

__all__ = ["say_notices", "say_written"]


def say_notices(notices: Iterable[str]) -> None:
    """Print each notice as one ``note: ...`` line on stderr; one that starts with ``warning: `` keeps its word."""
    for notice in notices:
        line = " ".join(notice.split())
        typer.echo(line if line.startswith(("note: ", "warning: ")) else f"note: {line}", err=True)


def say_written(paths: Iterable[Path]) -> None:
    """Print the path of each result on stdout, one a line, for scripts to read."""
    for path in paths:
        typer.echo(str(path))
