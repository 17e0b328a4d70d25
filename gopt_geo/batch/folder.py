"""The folder of a batch: its lock, manifest and list of failures."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

from gopt_geo.errors import BatchError

if TYPE_CHECKING:
    from gopt_geo.batch.regions import Region

__all__ = ["BatchFolder"]

_MANIFEST, _FAILURES, _LOCK = "manifest.jsonl", "failures.geojson", ".batch.lock"


class BatchFolder:
    """The folder that a batch writes into, locked while the context lasts.

    Parameters
    ----------
    path
        Made where its parent exists.

    Raises
    ------
    BatchError
        On entering: if it can't be made or written, or another batch is writing into it.
    """

    def __init__(self, path: Path) -> None:
        self.path = path.absolute()
        self._descriptor: int | None = None

    @property
    def manifest(self) -> Path:
        """Where the manifest lies."""
        return self.path / _MANIFEST

    @property
    def manifest_size(self) -> int:
        """Its bytes; 0 where there is none."""
        try:
            return self.manifest.stat().st_size
        except OSError:
            return 0

    @property
    def failures(self) -> Path:
        """Where regions that failed are listed, if there are any."""
        return self.path / _FAILURES

    def check(self) -> None:
        """Refuse a folder that can't be one, before anything is written.

        Raises
        ------
        BatchError
            If it isn't a folder that can be written, or can't be made.
        """
        if not self.path.parent.is_dir():
            raise BatchError(self.path, f"the folder {self.path.parent} doesn't exist", "make it first")
        if self.path.exists() and not self.path.is_dir():
            raise BatchError(self.path, "it isn't a folder", "choose a folder you may write to")
        if not os.access(self.path if self.path.exists() else self.path.parent, os.W_OK | os.X_OK):
            raise BatchError(self.path, "it can't be written", "choose a folder you may write to")

    def __enter__(self) -> BatchFolder:
        self.check()
        try:
            self.path.mkdir(exist_ok=True)
            self._descriptor = os.open(self.path / _LOCK, os.O_RDWR | os.O_CREAT, 0o644)
        except OSError as error:
            reason = error.strerror or str(error)
            raise BatchError(self.path, f"can't be used ({reason})", "choose a folder you may write to") from error
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            self._release()
            found = "another batch is writing into it"
            raise BatchError(self.path, found, "wait for its end, or choose another folder") from error
        except OSError:
            pass  # a file system without locks, where nobody can tell
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._release()

    def write_failures(self, regions: Sequence[Region]) -> Path | None:
        """List regions that failed, as a file that can be given as regions; return its path, None if there are none.

        Raises
        ------
        OutputError
            If it can't be written.
        """
        from gopt_geo.batch.regions import write_regions

        if not regions:
            self.failures.unlink(missing_ok=True)
            return None
        write_regions(self.failures, regions)
        return self.failures

    def _release(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None
