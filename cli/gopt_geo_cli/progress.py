"""Progress of long work: a bar on a terminal, plain lines in a log, both with rate and time left."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Protocol, TextIO

__all__ = ["PlainLines", "Progress", "progress_display"]

_MEGA = 1e6


class Progress(Protocol):
    """What the display reads of ``gopt_geo.api.Progress``."""

    @property
    def stage(self) -> str:
        """What is being done, in a word or two."""

    @property
    def done(self) -> int:
        """Pixels of the scene grid finished in this stage."""

    @property
    def total(self) -> int:
        """Pixels of the scene grid in all."""


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


class PlainLines:
    """One line about every ten seconds or ten per cent, whichever comes first, at most one a second.

    Parameters
    ----------
    command
        Name put before each line.
    stream
        Where the lines go.
    now
        The clock, in seconds.
    """

    def __init__(self, command: str, stream: TextIO, now: Callable[[], float] = time.monotonic) -> None:
        self._command, self._stream, self._now = command, stream, now
        self._stage: str | None = None
        self._start = self._last_time = 0.0
        self._first_done = self._last_done = 0

    def __call__(self, progress: Progress) -> None:
        """Print a line if one is due."""
        now, done, total = self._now(), progress.done, max(progress.total, 1)
        if progress.stage != self._stage:
            self._stage, self._start, self._last_time = progress.stage, now, now
            self._first_done = self._last_done = done
            return
        waited = now - self._last_time
        finished = done >= total > self._last_done
        if not finished and (waited < 1.0 or (waited < 10.0 and done - self._last_done < total / 10)):
            return
        self._last_time, self._last_done = now, done
        rate = (done - self._first_done) / max(now - self._start, 1e-9)
        left = f", {_clock((total - done) / rate)} left" if rate > 0 and done < total else ""
        print(
            f"{self._command}: {progress.stage} {100 * done // total} %, {done / _MEGA:.2f} of {total / _MEGA:.2f} "
            f"megapixels, {rate / _MEGA:.3g} megapixels/s{left}",
            file=self._stream,
            flush=True,
        )


@contextmanager
def progress_display(command: str) -> Iterator[Callable[[Progress], None]]:
    """Yield the callback to hand to the API; the bar is removed when the work ends, however it ends."""
    if not sys.stderr.isatty():
        yield PlainLines(command, sys.stderr)
        return
    from rich.console import Console
    from rich.progress import BarColumn, TaskProgressColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar

    bar = Bar(
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        transient=True,
    )
    with bar:
        task = bar.add_task(command, total=None, rate="")

        def show(progress: Progress) -> None:
            if bar.tasks[0].description != progress.stage:
                bar.reset(task, description=progress.stage, total=max(progress.total, 1), rate="")
            bar.update(task, completed=progress.done)
            speed = bar.tasks[0].speed
            bar.update(task, rate=f"{speed / _MEGA:.3g} Mpx/s" if speed else "")

        yield show
