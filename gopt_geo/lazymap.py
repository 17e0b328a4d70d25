"""Maps as lazy arrays: blocks of the map's grid, each made when dask asks for it, in whichever process."""

from __future__ import annotations

import threading
import uuid
from collections import OrderedDict
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import dataclass, field, replace
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gopt_geo.ceiling import bounded_gdal_cache
from gopt_geo.errors import GoptGeoError, PackError
from gopt_geo.grid import Window
from gopt_geo.inference.execution import Execution
from gopt_geo.maparrays import MapPixels, as_dataset, map_pixels
from gopt_geo.maprequest import MapRequest
from gopt_geo.openmap import OpenMap, open_map
from gopt_geo.sharedmodels import shared_model

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["CHUNK", "LazyMap", "predict_lazily"]

CHUNK = 2048
"""Edge of the blocks of a lazy map where nobody says, in pixels."""

_KEPT = 2  # maps that a process keeps open


class LazyMap:
    """A map to be made in blocks: opaque to dask, which must not compute lazy sources in it, and picklable.

    Parameters
    ----------
    request
        What is asked for, with its pack named and its shifts settled.
    sha256
        The pack's.
    probabilities
        Whether blocks hold those of all classes.
    """

    def __init__(self, request: MapRequest, sha256: str, probabilities: bool) -> None:
        self.request, self.sha256, self.probabilities = request, sha256, probabilities
        self.token = uuid.uuid4().hex

    def block(self, row: int, col: int, height: int, width: int) -> MapPixels:
        """Make a block of the scene grid, with sources and model that stay open in this process.

        Blocks of one map are made in turn in a process: each takes all of its threads.

        Raises
        ------
        GoptGeoError
            Whatever is wrong with sources, pack or options by now.
        """
        held = _held(self)
        with held.lock, bounded_gdal_cache():
            opened = held.open(self)
            with _alone(opened.pack_model.execution):
                return map_pixels(opened, Window(row, col, height, width), probabilities=self.probabilities)[0]


@dataclass
class _Held:
    """A map that a process keeps open."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    stack: ExitStack = field(default_factory=ExitStack)
    opened: OpenMap | None = None

    def open(self, lazy: LazyMap) -> OpenMap:
        if self.opened is None:
            opened = self.stack.enter_context(open_map(lazy.request, load=shared_model))
            if opened.pack.sha256 != lazy.sha256:
                self.close()
                subject = opened.pack.path or opened.pack.meta.title
                raise PackError(subject, "it isn't the pack that the map was asked of", "call predict again")
            self.opened = opened
        return self.opened

    def close(self) -> None:
        self.opened = None
        self.stack.close()


_OPEN: OrderedDict[str, _Held] = OrderedDict()
_OPENING = threading.Lock()
_GRAPHS = threading.Lock()


def _alone(execution: Execution) -> AbstractContextManager[object]:
    """Keep blocks of several maps apart where the model runs as a CUDA graph: its buffers are the next run's, too."""
    return _GRAPHS if execution.compiled and execution.device.type == "cuda" else nullcontext()


def _held(lazy: LazyMap) -> _Held:
    """Return a map's place in this process; close those that were used longest ago and aren't in use."""
    with _OPENING:
        held = _OPEN.setdefault(lazy.token, _Held())
        _OPEN.move_to_end(lazy.token)
        for token, other in list(_OPEN.items())[:-_KEPT]:
            if other.lock.acquire(blocking=False):
                try:
                    other.close()
                    del _OPEN[token]
                finally:
                    other.lock.release()
        return held


def predict_lazily(
    request: MapRequest, *, probabilities: bool = False, chunks: int | tuple[int, int] | None = None
) -> xr.Dataset:
    """Open and check all that a map needs, and return it as lazy arrays; see `gopt_geo.maparrays.as_dataset`.

    Parameters
    ----------
    request
        What is asked for.
    probabilities
        Whether to give those of all classes.
    chunks
        Height and width of the blocks in pixels, or one number for both; else `CHUNK`. Tiles over the border of
        blocks run for each of them.

    Raises
    ------
    GoptGeoError
        Whatever is wrong with sources, pack or options.
    """
    height, width = _edges(chunks)
    with bounded_gdal_cache(), open_map(request, load=shared_model) as opened:
        weights = request.backbone_weights
        settled = replace(
            opened.request,
            pack=Path(opened.pack.path).absolute() if opened.pack.path is not None else None,
            backbone_weights=weights.absolute() if weights is not None else None,
        )
        lazy = LazyMap(settled, opened.pack.sha256, probabilities)
        pixels = _blocks(lazy, opened.window, len(opened.classes), height, width)
        return as_dataset(opened.grid, opened.classes, opened.tags, opened.notices, pixels)


def _edges(chunks: int | tuple[int, int] | None) -> tuple[int, int]:
    try:
        pair = (CHUNK, CHUNK) if chunks is None else (chunks, chunks) if isinstance(chunks, int) else tuple(chunks)
        height, width = (int(edge) for edge in pair)
    except (TypeError, ValueError):
        height = width = 0
    if min(height, width) < 1:
        raise GoptGeoError("chunks", f"{chunks!r} is no size of blocks", "give pixels, such as 2048 or (1024, 2048)")
    return height, width


def _blocks(lazy: LazyMap, area: Window, classes: int, height: int, width: int) -> dict[str, Any]:
    """Return the arrays of dask by name, a task a block that all of them share."""
    from dask.delayed import delayed

    da: Any = import_module("dask.array")  # its functions aren't annotated

    # One node of the graph, not one copy in each task; its inside is none of dask's business.
    job = delayed(lazy, name=f"gopt-geo-map-{lazy.token}", traverse=False)
    kinds = {"landcover": "u1", "confidence": "u1", **({"probabilities": "f4"} if lazy.probabilities else {})}
    grids: dict[str, list[Any]] = {name: [] for name in kinds}
    for row in range(0, area.height, height):
        lines: dict[str, list[Any]] = {name: [] for name in kinds}
        for col in range(0, area.width, width):
            shape = (min(height, area.height - row), min(width, area.width - col))
            key = f"gopt-geo-block-{lazy.token}-{row}-{col}"
            make = delayed(_made, pure=False, traverse=False)
            made = make(job, area.row + row, area.col + col, *shape, dask_key_name=key)
            for number, (name, dtype) in enumerate(kinds.items()):
                whole = (classes, *shape) if name == "probabilities" else shape
                lines[name].append(da.from_delayed(made[number], whole, dtype=dtype))
        for name, line in lines.items():
            grids[name].append(da.concatenate(line, axis=-1))
    return {name: da.concatenate(grid, axis=-2) for name, grid in grids.items()}


def _made(lazy: LazyMap, row: int, col: int, height: int, width: int) -> MapPixels:
    return lazy.block(row, col, height, width)
