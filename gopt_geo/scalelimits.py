"""Which factors of size are taken, by configurations and options alike."""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["SCALES", "wrong_scale"]

SCALES = (0.1, 10.0)
"""Smallest and largest factor of size."""


def wrong_scale(scales: Sequence[float], *, distinct: bool = False) -> tuple[int, str, str] | None:
    """Return place, finding and remedy of the first factor that isn't taken; None where all are.

    Parameters
    ----------
    scales
        The factors.
    distinct
        Whether each may be there once alone.
    """
    for i, scale in enumerate(scales):
        if not SCALES[0] <= scale <= SCALES[1]:
            return i, f"{scale:g} is no factor of size", f"give {SCALES[0]:g} to {SCALES[1]:g}"
        if distinct and scale in scales[:i]:
            return i, f"{scale:g} is there twice", "give each size once"
    return None
