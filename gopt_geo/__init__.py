"""Land-cover maps from optical and SAR imagery with GoPT: grouping prompts on a frozen vision transformer."""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gopt_geo.api import evaluate, info, predict, simulate, vectorize

__all__ = ["__version__", "evaluate", "info", "predict", "simulate", "vectorize"]

try:
    __version__ = version("gopt-geo")
except PackageNotFoundError:  # a source tree that isn't installed
    __version__ = "0+unknown"


def __getattr__(name: str) -> Any:
    """Load the verbs when they are first used: torch and GDAL take seconds, and ``--help`` needs neither."""
    if name in __all__:
        return getattr(import_module("gopt_geo.api"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
