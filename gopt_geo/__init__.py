"""Land-cover maps from optical and SAR imagery with GoPT: grouping prompts on a frozen vision transformer."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gopt_geo.api import (
        coregister,
        evaluate,
        evaluate_pack,
        evaluate_sample,
        find_scene,
        info,
        predict,
        predict_rows,
        sample,
        simulate_files,
        vectorize,
    )
    from gopt_geo.models import load_backbone
    from gopt_geo.packs import load_model, read_pack
    from gopt_geo.scene.mosaic import SceneMosaic

    __version__: str

__all__ = [
    "SceneMosaic",
    "__version__",
    "coregister",
    "evaluate",
    "evaluate_pack",
    "evaluate_sample",
    "find_scene",
    "info",
    "load_backbone",
    "load_model",
    "predict",
    "predict_rows",
    "read_pack",
    "sample",
    "simulate_files",
    "train",
    "vectorize",
]

_ELSEWHERE = {
    "SceneMosaic": "gopt_geo.scene.mosaic",
    "load_backbone": "gopt_geo.models",
    "load_model": "gopt_geo.packs",
    "read_pack": "gopt_geo.packs",
}


def __getattr__(name: str) -> Any:
    """Load what is used when it is first used: torch and GDAL take seconds, and ``--help`` needs neither."""
    value: Any
    if name == "__version__":
        value = _version()
    elif name == "batch":
        value = import_module("gopt_geo.batch")
    elif name in __all__:
        value = getattr(import_module(_ELSEWHERE.get(name, "gopt_geo.api")), name)
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = value
    return value


def _version() -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("gopt-geo")
    except PackageNotFoundError:  # a source tree that isn't installed
        return "0+unknown"
