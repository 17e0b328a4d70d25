"""Progress of long work: a bar on a terminal, plain lines in a log, both with rate and time left."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol, TextIO

__all__ = ["PlainLines", "Progress", "clock", "progress_display", "talking_display"]

_MEGA = 1e6


class Progress(Protocol):
    """What the display reads of ``gopt_geo.api.Progress``, which counts pixels.

    ``gopt_geo.training.progress.TrainProgress`` has three fields more, which are shown where they are there: ``unit``,
    what it counts in place of pixels, ``loss`` and ``miou``.
    """

    @property
    def stage(self) -> str:
        """What is being done, in a word or two."""

    @property
    def done(self) -> int:
        """Pixels of the scene grid finished in this stage."""

    @property
    def total(self) -> int:
        """Pixels of the scene grid in all."""


def clock(seconds: float) -> str:
    """Return a time as minutes and seconds, and hours where there are any."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def _amount(progress: Progress) -> str:
    unit = getattr(progress, "unit", None)
    if unit is None:
        return f"{progress.done / _MEGA:.2f} of {max(progress.total, 1) / _MEGA:.2f} megapixels"
    return f"{progress.done} of {progress.total} {unit}"


def _rate(progress: Progress, rate: float, mega: str) -> str:
    unit = getattr(progress, "unit", None)
    return f"{rate / _MEGA:.3g} {mega}/s" if unit is None else f"{rate:.3g} {unit}/s"


def _figures(progress: Progress) -> list[str]:
    """Return what a training has reached so far."""
    loss, miou = getattr(progress, "loss", None), getattr(progress, "miou", None)
    return [
        *([] if loss is None else [f"loss {loss:.4f}"]),
        *([] if miou is None else [f"validation mIoU {miou:.4f}"]),
    ]


@dataclass
class _Stage:
    """When a stage began, its latest line, and whether it had begun before."""

    start: float
    first_done: int
    last_time: float
    last_done: int
    seen: int
    again: bool


class PlainLines:
    """One line about every ten seconds or ten per cent, whichever comes first, at most one a second.

    A stage may be left for another and come back, as training does for validation; one that begins anew counts anew.
    The end of a stage is always told, unless it went quickly and not for the first time.

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
        self._stages: dict[str, _Stage] = {}

    def __call__(self, progress: Progress) -> None:
        """Print a line if one is due."""
        now, done, total = self._now(), progress.done, max(progress.total, 1)
        stage = self._stages.get(progress.stage)
        if stage is None or done < stage.seen:
            self._stages[progress.stage] = _Stage(now, done, now, done, done, stage is not None)
            return
        stage.seen = done
        waited = now - stage.last_time
        finished = done >= total > stage.last_done and not stage.again
        if not finished and (waited < 1.0 or (waited < 10.0 and done - stage.last_done < total / 10)):
            return
        stage.last_time, stage.last_done = now, done
        rate = (done - stage.first_done) / max(now - stage.start, 1e-9)
        parts = [_amount(progress), _rate(progress, rate, "megapixels"), *_figures(progress)]
        if rate > 0 and done < total:
            parts.append(f"{clock((total - done) / rate)} left")
        print(
            f"{self._command}: {progress.stage} {100 * done // total} %, {', '.join(parts)}",
            file=self._stream,
            flush=True,
        )


@contextmanager
def progress_display(command: str) -> Iterator[Callable[[Progress], None]]:
    """Yield the callback to hand to the API; the bar is removed when the work ends, however it ends."""
    with talking_display(command) as (show, _):
        yield show


@contextmanager
def talking_display(command: str) -> Iterator[tuple[Callable[[Progress], None], Callable[[str], None]]]:
    """Yield that callback, and one that prints a line on stderr, above the bar where there is one."""
    if not sys.stderr.isatty():
        yield PlainLines(command, sys.stderr), lambda line: print(line, file=sys.stderr, flush=True)
        return
    from rich.console import Console
    from rich.progress import BarColumn, TaskID, TaskProgressColumn, TextColumn, TimeRemainingColumn
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
        waiting = bar.add_task(command, total=None, rate="")
        tasks: dict[str, TaskID] = {}

        def show(progress: Progress) -> None:
            total = max(progress.total, 1)
            if progress.stage not in tasks:
                bar.update(waiting, visible=False)
                tasks[progress.stage] = bar.add_task(progress.stage, total=total, completed=progress.done, rate="")
            own = tasks[progress.stage]
            for task in bar.tasks:
                if task.id != own and task.visible:
                    bar.update(task.id, visible=False)
            task = next(one for one in bar.tasks if one.id == own)
            if progress.done < task.completed:
                bar.reset(own, total=total)
            bar.update(own, completed=progress.done, total=total, visible=True)
            rate = _rate(progress, task.speed, "Mpx") if task.speed else ""
            bar.update(own, rate=", ".join([*([rate] if rate else []), *_figures(progress)]))

        yield show, lambda line: bar.console.print(line, markup=False, highlight=False, soft_wrap=True)
