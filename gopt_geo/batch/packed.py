"""Tasks as bytes: the scheduler, which unpacks the tasks that it hands on, is spared torch, GDAL and all that is heavy.

What stands here is imported there; it must stay light.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import gopt_geo

__all__ = ["other_version", "pack", "run_packed"]

T = TypeVar("T")


def pack(work: Callable[[T], Any], job: T) -> bytes:
    """Return a function and what it is called with as bytes, for `run_packed`."""
    from distributed.protocol.pickle import dumps

    packed: bytes = dumps((work, job))  # type: ignore[no-untyped-call]
    return packed


def run_packed(task: bytes) -> Any:
    """Unpack a task on a worker, run it, and return what it gives."""
    from distributed.protocol.pickle import loads

    work, job = loads(task)  # type: ignore[no-untyped-call]
    return work(job)


def other_version(version: str) -> str | None:
    """Say that this process has another version of gopt-geo than a batch, None if it hasn't."""
    own = gopt_geo.__version__
    return None if own == version else f"it has gopt-geo {own}, the batch was begun with {version}"
