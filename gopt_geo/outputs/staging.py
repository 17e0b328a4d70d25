"""A command's results appear at their paths whole or not at all.

Each result is written into a hidden folder beside its final path and renamed when all of the command's
results are complete. Its file name there is the final one, so that sidecars (`.aux.xml`) get theirs; the folder
holds a lock while the process lives, by which a later run tells a dead run's leavings from a living one's work.
"""

from __future__ import annotations

import errno
import os
import re
import secrets
import shutil
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from gopt_geo.errors import GoptGeoError, OutputError
from gopt_geo.outputs.locks import FolderLock, deferred_signals, exit_on_termination

__all__ = ["RASTER_ENDINGS", "VECTOR_ENDINGS", "Staging"]

RASTER_ENDINGS = (".tif", ".tiff")
VECTOR_ENDINGS = (".gpkg", ".geojson", ".fgb", ".parquet")
_SIDECARS = (".aux.xml", ".ovr", ".ovr.aux.xml", ".msk", ".msk.ovr", "-wal", "-shm", "-journal")
_REMOTE = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:/|/vsi", re.ASCII)  # two letters: C:/ is a drive
_FULL = {errno.ENOSPC, errno.EDQUOT}
_LITTLE = 1 << 20  # bytes; a disk with less is full: GDAL reports it as a plain write error


@dataclass(frozen=True, slots=True)
class _Staged:
    """One result: its final path, the hidden folder it is written in, and that folder's lock."""

    final: Path
    lock: FolderLock

    @property
    def file(self) -> Path:
        return self.lock.folder / self.final.name

    def sidecars(self) -> list[Path]:
        return [p for p in self.lock.files() if p != self.file]


class Staging:
    """Context manager for one command's results.

    Leaving it without `publish` (an error, Ctrl-C, SIGTERM, SIGHUP) removes everything that was staged.

    Parameters
    ----------
    overwrite
        Whether files that exist may be replaced. They stay untouched until `publish`.
    inputs
        The command's inputs; none of them may be an output.

    Examples
    --------
    >>> with Staging(overwrite=False) as staging:  # doctest: +SKIP
    ...     write_map(staging.path("landcover.tif"))
    ...     staging.publish()
    """

    def __init__(self, overwrite: bool = False, inputs: Iterable[str | os.PathLike[str]] = ()) -> None:
        self.overwrite = overwrite
        self._inputs = [os.fspath(i) for i in inputs]
        self._staged: list[_Staged] = []
        self._termination = exit_on_termination()

    def __enter__(self) -> Staging:
        self._termination.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        better = self._in_users_words(error) if error is not None else None
        try:
            with deferred_signals():
                for staged in self._staged:
                    staged.lock.remove()
        finally:
            self._termination.__exit__(None, None, None)
        if better is not None:
            raise better from error

    def path(
        self,
        final: str | os.PathLike[str],
        endings: Sequence[str] = RASTER_ENDINGS + VECTOR_ENDINGS,
    ) -> Path:
        """Return the path to write the result for `final` to; call it for all results before any work.

        Parameters
        ----------
        final
            Where the result shall appear: a local file in a folder that exists.
        endings
            The endings (lower case, with the dot) that are known here.

        Returns
        -------
        Path
            Same file name, in a hidden folder beside `final`. Whatever else is written into that folder is a
            sidecar and is published too.

        Raises
        ------
        OutputError
            If the result couldn't be written or published there.
        """
        try:
            path = self._check(os.fspath(final), endings)
            for entry in _leftovers(path):
                FolderLock.remove_if_dead(entry)
        except OSError as error:
            raise _unwritable(Path(final), error) from error
        for _ in range(16):  # another run's clean-up may take a folder before it is locked
            lock = FolderLock(path.parent / f".{path.name}.{secrets.token_hex(6)}.part")
            staged = _Staged(path, lock)
            self._staged.append(staged)  # before the folder exists: a signal may come in between
            try:
                taken = lock.acquire()
            except OSError as error:
                raise _unwritable(path, error) from error
            if taken:
                return staged.file
            self._staged.remove(staged)
        raise OutputError(path, "its folder loses new files at once", "write to another folder")

    def drop(self, path: Path) -> None:
        """Give up one result, by the path that `path` returned: it isn't published."""
        for staged in [staged for staged in self._staged if staged.file == path]:
            staged.lock.remove()
            self._staged.remove(staged)

    def publish(self) -> None:
        """Rename all results to their final paths: sidecars and further products first, the first TIFF last.

        Raises
        ------
        OutputError
            If a file appeared at a final path meanwhile, or a rename fails.
        RuntimeError
            If a result was staged but never written.
        """
        for staged in self._staged:
            if not staged.file.is_file():
                raise RuntimeError(f"nothing was written for {staged.final}")
        with deferred_signals():
            ordered = list(reversed(self._staged))
            ordered.sort(key=lambda s: s.final.suffix.lower() in RASTER_ENDINGS)
            try:
                for staged in ordered:
                    for file in (*staged.sidecars(), staged.file):
                        _flush(file)
                for staged in ordered:
                    self._check_absent(staged.final)
                for staged in ordered:
                    _move(staged)
            except OSError as error:
                raise _unwritable(self._staged[0].final, error) from error

    def _check(self, final: str, endings: Sequence[str]) -> Path:
        if _REMOTE.match(final):
            raise OutputError(final, "is not a local path", "write to a local folder and copy the file")
        path = Path(final)
        if path.suffix.lower() not in endings:
            found = f"unknown ending {path.suffix!r}" if path.suffix else "no ending"
            raise OutputError(final, found, f"use one of {', '.join(endings)}")
        nearest = next((folder for folder in path.parents if folder.exists()), None)
        if nearest is not None and not nearest.is_dir():
            raise OutputError(final, f"{nearest} is a file, not a folder", "choose a folder")
        if not path.parent.is_dir():
            raise OutputError(final, f"the folder {path.parent} doesn't exist", "make it first")
        path = path.parent.resolve() / path.name  # not path.resolve(): a link is replaced, not its target
        if path.is_dir():
            raise OutputError(final, "is a folder", "name a file")
        if any(staged.final == path for staged in self._staged):
            raise OutputError(final, "is named twice as an output", "give each output its own path")
        for source in self._inputs:
            same = path.exists() and Path(source).exists() and path.samefile(source)
            if same or Path(source).absolute() == path:
                raise OutputError(final, "is also an input", "write to another path")
        self._check_absent(path)
        return path

    def _check_absent(self, path: Path) -> None:
        """Refuse to replace anything; a lone sidecar, too, for it would attach itself to the new file."""
        if self.overwrite:
            return
        for name in (path.name, *(path.name + s for s in _SIDECARS)):
            if os.path.lexists(path.with_name(name)):
                found = "exists" if name == path.name else f"its sidecar {name} exists"
                raise OutputError(path, found, "use --overwrite or another path")

    def _in_users_words(self, error: BaseException) -> GoptGeoError | None:
        """Return the error to raise instead: of a full disk, or naming a final path for a hidden one."""
        if isinstance(error, GoptGeoError):
            for staged in self._staged:
                if error.subject == str(staged.file):
                    return type(error)(staged.final, error.found, error.remedy)
        elif isinstance(error, Exception):
            for staged in self._staged:
                full = isinstance(error, OSError) and error.errno in _FULL
                if not full and staged.lock.folder.exists():
                    full = shutil.disk_usage(staged.lock.folder).free < _LITTLE
                if full:
                    return _full_disk(staged.final)
        return None


def _leftovers(path: Path) -> list[Path]:
    """Return the hidden folders that runs for this path, dead or living, have made."""
    pattern = re.compile(rf"\.{re.escape(path.name)}\.[0-9a-f]{{12}}\.part(\.dead)?")
    return [Path(entry.path) for entry in os.scandir(path.parent) if pattern.fullmatch(entry.name)]


def _flush(file: Path) -> None:
    """Bring a file's bytes to the disk: a rename must not outlive the content it names."""
    descriptor = os.open(file, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _move(staged: _Staged) -> None:
    """Rename one result and its sidecars into place; sidecars of the file it replaces go first."""
    sidecars = staged.sidecars()
    new = {p.name for p in sidecars}
    for name in (staged.final.name + s for s in _SIDECARS):
        if name not in new:
            staged.final.with_name(name).unlink(missing_ok=True)
    for file in (*sidecars, staged.file):
        file.replace(staged.final.with_name(file.name))
    _flush(staged.final.parent)


def _unwritable(path: Path, error: OSError) -> OutputError:
    """Return the error for a result that the operating system refuses."""
    if error.errno in _FULL:
        return _full_disk(path)
    reason = error.strerror or str(error)
    return OutputError(path, f"can't be written ({reason})", "choose a folder you may write to")


def _full_disk(path: Path) -> OutputError:
    return OutputError(path, "the disk is full", "free some space or write elsewhere")
