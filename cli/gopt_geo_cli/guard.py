"""How a command ends: every expected failure is one line on stderr and an exit code, never a stack trace."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, NoReturn

import typer
from typer.core import TyperGroup

from gopt_geo.errors import GoptGeoError, RunInterrupted

__all__ = ["EXIT_ERROR", "EXIT_PIPE", "GuardedGroup", "Terminated", "flush_or_drop", "on_signals"]

EXIT_ERROR = 2
EXIT_INTERRUPT = 128 + signal.SIGINT
EXIT_PIPE = 141  # 128 + SIGPIPE, what a shell shows for a writer whose reader went away


class Terminated(KeyboardInterrupt):
    """SIGTERM or SIGHUP arrived. A KeyboardInterrupt, so that whatever cleans up after Ctrl-C does so here."""

    def __init__(self, number: int) -> None:
        self.number = number
        super().__init__(signal.Signals(number).name)


def _terminate(number: int, _frame: FrameType | None) -> NoReturn:
    raise Terminated(number)


@contextmanager
def on_signals() -> Iterator[None]:
    """Turn SIGTERM and SIGHUP into `Terminated` while a command runs; signals that are ignored (nohup) stay so."""
    names = [name for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]
    previous = {}
    for number in (getattr(signal, name) for name in names):
        handler = signal.getsignal(number)
        if handler is not signal.SIG_IGN:
            previous[number] = handler
            signal.signal(number, _terminate)
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def flush_or_drop() -> bool:
    """Flush stdout; when its reader has gone, point it at the null device so that the interpreter ends quietly.

    Returns
    -------
    bool
        False if the pipe was closed.
    """
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, sys.stdout.fileno())
        os.close(null)
        return False
    return True


def _say(text: str) -> None:
    # A path may hold a line break; the message stays one line all the same.
    typer.echo(text.replace("\r", " ").replace("\n", " "), err=True)


class GuardedGroup(TyperGroup):
    """The command group; the one place where failures of any command become a line and an exit code."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command; errors in the options themselves are left to typer (exit code 2)."""
        try:
            return super().invoke(ctx)
        except GoptGeoError as error:
            _say(f"error: {error}")
            raise typer.Exit(EXIT_ERROR) from error
        except MemoryError as error:
            _say("error: memory: there isn't enough for this; work on a smaller area, or close other programs")
            raise typer.Exit(EXIT_ERROR) from error
        except RunInterrupted as stop:
            _say(f"error: {stop}")
            raise typer.Exit(128 + stop.number) from stop
        except Terminated as stop:
            _say(f"error: stopped by {stop}; nothing was written")
            raise typer.Exit(128 + stop.number) from stop
        except KeyboardInterrupt as stop:
            _say("error: interrupted by Ctrl-C; nothing was written")
            raise typer.Exit(EXIT_INTERRUPT) from stop
        except BrokenPipeError as error:
            flush_or_drop()
            raise typer.Exit(EXIT_PIPE) from error
