"""How `gopt-geo batch` tells where it stands: a bar on a terminal, plain lines elsewhere, and what came of it."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from gopt_geo.wording import counted
from gopt_geo_cli.progress import clock

if TYPE_CHECKING:
    from gopt_geo.batch.results import BatchProgress, RegionResult

__all__ = ["NoticeCount", "batch_display", "failure_lines", "standing"]

_EVERY = 10.0  # seconds between plain lines
_SHOWN = 20  # failures, and notices, that are listed; all are in the files


def standing(state: BatchProgress) -> str:
    """Return where a batch stands, as a line: regions, megapixels, rate, failures, workers, time left."""
    mega = state.pixels / 1e6
    parts = [f"{state.ended} of {counted(state.total, 'region')}", f"{mega:.2f} megapixels"]
    if state.seconds > 0 and state.pixels:
        parts.append(f"{mega / state.seconds:.3g} megapixels/s")
    if state.failed:
        parts.append(f"{state.failed} failed")
    parts.append(counted(state.workers, "worker"))
    if 0 < state.ended < state.total:
        parts.append(f"{clock((state.total - state.ended) * state.seconds / state.ended)} left")
    return ", ".join(parts)


@contextmanager
def batch_display(total: int, dashboard: str | None) -> Iterator[Callable[[BatchProgress], None]]:
    """Yield what shows the progress of a batch on stderr.

    Parameters
    ----------
    total
        Regions of the run.
    dashboard
        Address of dask's page about the cluster, shown at the start.
    """
    if dashboard is not None and total:
        print(f"batch: the cluster's dashboard is {dashboard}", file=sys.stderr, flush=True)
    if not sys.stderr.isatty():
        yield _Lines()
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn

    columns = (TextColumn("batch"), BarColumn(20), TaskProgressColumn(), TextColumn("{task.fields[told]}"))
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("batch", total=max(total, 1), told="")
        yield lambda state: bar.update(task, completed=state.ended, told=standing(state))


class _Lines:
    """A line at the end, and every ten seconds where something has changed."""

    def __init__(self) -> None:
        self._last: tuple[float, int, int] = (time.monotonic(), -1, -1)

    def __call__(self, state: Any) -> None:
        now = time.monotonic()
        told, ended, workers = self._last
        changed = (state.ended, state.workers) != (ended, workers)
        if changed and (now - told >= _EVERY or state.ended == state.total):
            self._last = now, state.ended, state.workers
            print(f"batch: {standing(state)}", file=sys.stderr, flush=True)


class NoticeCount:
    """What regions' maps give to say, each notice once with the number of its regions; the manifest holds all."""

    def __init__(self) -> None:
        self._counts: dict[str, int] = {}
        self._more = 0

    def add(self, notices: Iterable[str]) -> None:
        """Count the notices of a region."""
        for notice in notices:
            if notice in self._counts or len(self._counts) < _SHOWN:
                self._counts[notice] = self._counts.get(notice, 0) + 1
            else:
                self._more += 1

    def lines(self) -> list[str]:
        """Return the first of them, a line each; the rest is counted."""
        lines = [f"{notice} ({count} regions)" if count > 1 else notice for notice, count in self._counts.items()]
        if self._more:
            lines.append(f"the manifest holds {counted(self._more, 'more notice')} of regions")
        return lines


def failure_lines(failed: list[RegionResult]) -> list[str]:
    """Return the failures, a line each; the rest is counted."""
    lines = [f"failed: {result.id}: {result.error}" for result in failed[:_SHOWN]]
    if len(failed) > _SHOWN:
        lines.append(f"failed: {len(failed) - _SHOWN} more")
    return lines
