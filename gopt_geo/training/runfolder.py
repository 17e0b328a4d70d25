"""The folder of a run: what lies in it, who may write there, and its table of figures."""

from __future__ import annotations

import csv
import fcntl
import io
import math
import os
import shutil
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any

from gopt_geo.errors import CheckpointError, OutputError
from gopt_geo.training.checkpoints import unwritable, write_atomically

__all__ = ["PACK_NAME", "MetricsTable", "RunFolder"]

PACK_NAME = "pack.gopt.safetensors"
_FILES = ("config.yaml", "data.json", "metrics.csv", "curves.png", "confusion.png", "examples.png", PACK_NAME)
_OWN = (*_FILES, "README.md", "checkpoints")
_SIGNS = ("config.yaml", "metrics.csv", "checkpoints")


class RunFolder:
    """The folder of one run, locked by this process while it is entered (flock, which ends with the process).

    Parameters
    ----------
    path
        Made on entering, with its parents.
    resume
        Go on with the run that it holds.
    overwrite
        Replace the run that it holds, once `begin` is called.

    Raises
    ------
    OutputError
        If it holds a run and neither was asked for, holds other files, or isn't a folder.
    CheckpointError
        If there is no run to go on with.
    """

    def __init__(self, path: Path, *, resume: bool = False, overwrite: bool = False) -> None:
        self.path, self.resume, self.overwrite = path, resume, overwrite
        self._lock: int | None = None
        self._made: list[Path] = []
        self.check()

    @property
    def last(self) -> Path:
        """The latest checkpoint."""
        return self.path / "checkpoints" / "last.ckpt"

    @property
    def best(self) -> Path:
        """The checkpoint of the best validation."""
        return self.path / "checkpoints" / "best.ckpt"

    @property
    def pack(self) -> Path:
        """The pack."""
        return self.path / PACK_NAME

    def check(self) -> None:
        """Refuse what can't be this run's folder; see the class."""
        path = self.path
        if self.resume and self.overwrite:
            raise OutputError(path, "--resume and --overwrite contradict each other", "give one of them")
        if os.path.lexists(path) and not path.is_dir():
            raise OutputError(path, "is a file, not a folder", "name a folder for the run")
        there = {entry.name for entry in path.iterdir()} if path.is_dir() else set()
        if self.resume:
            if not self.last.is_file() and not self.best.is_file():
                found = "it holds no checkpoint to go on from" if there else "there is no run to go on with"
                raise CheckpointError(path, found, "start one without --resume")
            return
        if not there:
            return
        if not any(sign in there for sign in _SIGNS):
            some = ", ".join(sorted(there)[:3])
            raise OutputError(path, f"it holds files that are no run's ({some})", "name a new folder for the run")
        if not self.overwrite:
            raise OutputError(path, "it holds a run", "go on with it by --resume, or replace it by --overwrite")

    def __enter__(self) -> RunFolder:
        try:
            missing = [p for p in (self.path, *self.path.parents) if not p.exists()]
            self.path.mkdir(parents=True, exist_ok=True)
            self._made = missing
            self._lock = os.open(self.path, os.O_RDONLY)
        except OSError as error:
            raise unwritable(self.path, error) from error
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            self._release()
            raise OutputError(self.path, "another training is writing there", "wait, or name another folder") from error
        except OSError:  # a file system without locks
            pass
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._release()
        with suppress(OSError):
            for folder in self._made:  # made for nothing: they go again, as long as they are empty
                folder.rmdir()

    def _release(self) -> None:
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def begin(self) -> None:
        """Make room for the run: remove the one before it where that was asked for, and what a killed one left."""
        try:
            if self.overwrite:
                for name in _OWN:
                    entry = self.path / name
                    if entry.is_dir():
                        shutil.rmtree(entry)
                    else:
                        entry.unlink(missing_ok=True)
            self.last.parent.mkdir(exist_ok=True)
            for folder in (self.path, self.last.parent):
                for leftover in folder.glob(".*.part"):
                    leftover.unlink(missing_ok=True)
        except OSError as error:
            raise unwritable(self.path, error) from error

    def write(self, name: str, content: str) -> Path:
        """Write a text file whole or not at all, and return its path."""
        path = self.path / name
        write_atomically(path, content.encode("utf-8"))
        return path


class MetricsTable:
    """``metrics.csv``: a row a step, with the figures of a validation where there was one.

    Parameters
    ----------
    path
        Of the file.
    columns
        After ``step``, ``loss``, ``learning_rate`` and ``seconds``.
    """

    def __init__(self, path: Path, columns: Sequence[str]) -> None:
        self.path = path
        self.columns = ("step", "loss", "learning_rate", "seconds", *columns)

    def begin(self, step: int) -> None:
        """Keep the rows of the first ``step`` steps; what a killed run wrote after its checkpoint goes."""
        rows = [row for row in self.rows() if row["step"] <= step]
        write_atomically(self.path, self._lines([self.columns, *map(self._cells, rows)]).encode("utf-8"))

    def append(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Add rows at the end; cells that a row doesn't have stay empty.

        Raises
        ------
        OutputError
            If they can't be written.
        """
        try:
            with self.path.open("a", encoding="utf-8", newline="") as file:
                file.write(self._lines([self._cells(row) for row in rows]))
        except OSError as error:
            raise unwritable(self.path, error) from error

    def rows(self) -> list[dict[str, float]]:
        """Read the whole rows of the file; empty cells are left out, and so is a last row that was cut off."""
        if not self.path.is_file():
            return []
        found = []
        with self.path.open(encoding="utf-8", newline="") as file:
            for row in csv.DictReader(file):
                try:
                    numbers = {name: float(cell) for name, cell in row.items() if cell}
                    if None not in row.values() and "step" in numbers:
                        found.append({**numbers, "step": int(numbers["step"])})
                except (TypeError, ValueError):
                    continue
        return found

    def _cells(self, row: Mapping[str, Any]) -> list[str]:
        return [_cell(row.get(name)) for name in self.columns]

    @staticmethod
    def _lines(rows: Sequence[Sequence[str]]) -> str:
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerows(rows)
        return text.getvalue()


def _cell(value: Any) -> str:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    return f"{value:.9g}" if isinstance(value, float) else str(value)
