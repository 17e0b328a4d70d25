"""Numbers in sentences."""

from __future__ import annotations

__all__ = ["counted"]


def counted(number: int, noun: str) -> str:
    """Return a number of things, such as "1 region" or "2 regions"."""
    return f"{number} {noun}{'' if number == 1 else 's'}"
