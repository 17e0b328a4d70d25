"""Reading tiles ahead of the model, in threads, in order, a bounded number of them."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple, Protocol, runtime_checkable

import numpy as np
import torch
from numpy.typing import NDArray

from gopt_geo.grid import Window
from gopt_geo.inference.tiles import TilePlan

if TYPE_CHECKING:
    from gopt_geo.scene.scene import SceneBlock

__all__ = [
    "BlockSource",
    "SparseSource",
    "Task",
    "TileData",
    "Wanted",
    "WatchedSource",
    "read_tiles",
    "used_modalities",
    "usual_readers",
]

Wanted = Callable[[Window], NDArray[np.bool_]]
"""Tells which pixels of a window are asked for, bool [h, w]; several threads call it at once."""


class BlockSource(Protocol):
    """What tiles are read from: a Scene, or its like; several threads call `read` at once."""

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width of the scene in pixels."""
        ...

    def read(self, window: Window, /) -> SceneBlock:
        """Return the pixels of a window that lies inside the scene."""
        ...


@runtime_checkable
class SparseSource(Protocol):
    """A source that can tell at little cost where it has no data."""

    def blank(self, window: Window, modalities: tuple[str, ...], /) -> bool:
        """Return True only if surely no pixel of a window is valid in any of these modalities."""
        ...


@runtime_checkable
class WatchedSource(Protocol):
    """A source of files, which others may change."""

    def check_unchanged(self) -> None:
        """Raise an error if a file has changed since it was opened."""
        ...


class Task(NamedTuple):
    """One tile to run: the column strip it is run for, its place in the plan, and its own pixels in that strip."""

    strip: int
    row: int
    col: int
    own: Window | None


@dataclass(frozen=True)
class TileData:
    """A tile as read: its part inside the scene.

    Parameters
    ----------
    task
        Which tile.
    values
        float32 [C, h, w] for each modality; empty for a tile without any valid pixel.
    valid
        bool [h, w] for each modality, likewise.
    any_valid
        bool [h, w], True where at least one modality carries data; None for a tile without any valid pixel.
    complete
        Number of the task's own pixels at which every modality carries data.
    """

    task: Task
    values: dict[str, NDArray[np.float32]]
    valid: dict[str, NDArray[np.bool_]]
    any_valid: NDArray[np.bool_] | None
    complete: int = 0


def usual_readers(device: torch.device) -> int:
    """Return how many threads read fast enough for a model on a device.

    On a CPU one does, and decodes no block of a file twice; each has a dataset handle, and so a cache, of its own.
    """
    return 1 if device.type == "cpu" else 4


def used_modalities(wanted: tuple[str, ...], block: SceneBlock) -> list[str]:
    """Return the modalities that the model takes and the source has, in the model's order.

    Raises
    ------
    ValueError
        If there are none.
    """
    used = [name for name in wanted if name in block.values]
    if not used:
        raise ValueError(f"the model takes {', '.join(wanted)}, the source has {', '.join(block.values)}")
    return used


def _read(
    source: BlockSource, plan: TilePlan, modalities: tuple[str, ...], wanted: Wanted | None, task: Task
) -> TileData:
    # What lies beyond the scene's edge isn't asked for: a source may hold pixels there that aren't the
    # scene's.
    window = plan.window(task.row, task.col).clip(plan.shape)
    if window is None:
        raise ValueError(f"{task} lies outside of the scene")
    asked = None if wanted is None else wanted(window)
    if asked is not None and not asked.any():
        return TileData(task, {}, {}, None)
    if isinstance(source, SparseSource) and source.blank(window, modalities):
        return TileData(task, {}, {}, None)
    block = source.read(window)
    used = used_modalities(modalities, block)
    any_valid = np.logical_or.reduce([block.valid[name] for name in used])
    if not any_valid.any():
        return TileData(task, {}, {}, None)
    return TileData(
        task,
        {name: block.values[name] for name in used},
        {name: block.valid[name] for name in used},
        any_valid,
        _complete(task, window, [*(block.valid[name] for name in used), *([] if asked is None else [asked])]),
    )


def _complete(task: Task, window: Window, valid: list[NDArray[np.bool_]]) -> int:
    if task.own is None:
        return 0
    rows, cols = task.own.slices_in(window)
    return int(np.logical_and.reduce([mask[rows, cols] for mask in valid]).sum())


def read_tiles(
    source: BlockSource,
    plan: TilePlan,
    tasks: Iterable[Task],
    *,
    modalities: tuple[str, ...],
    readers: int,
    ahead: int,
    wanted: Wanted | None = None,
) -> Generator[TileData]:
    """Yield the tiles of `tasks` in order, read by `readers` threads, at most `ahead` of them in advance.

    A tile without a pixel that `wanted` asks for isn't read: it is handed on as one without any valid pixel.

    Whichever way the generator ends (all read, an error of the source, closed by its user, Ctrl-C while it
    waits), reads that haven't begun are dropped and the threads end.
    """
    pool = ThreadPoolExecutor(readers, thread_name_prefix="gopt-geo-reader")
    waiting: deque[Future[TileData]] = deque()
    queue = iter(tasks)
    try:
        while True:
            while len(waiting) < ahead and (task := next(queue, None)) is not None:
                waiting.append(pool.submit(_read, source, plan, modalities, wanted, task))
            if not waiting:
                return
            yield waiting.popleft().result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
