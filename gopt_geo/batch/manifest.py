"""What became of each region of a batch: an append-only file of JSON lines, read again by the next run.

A line is written whole, by one write at the file's end, so that a process that dies leaves at most one torn line, the
last; it is skipped when read, and cut off before the next line is written.
"""

from __future__ import annotations

import errno
import json
import os
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from gopt_geo.errors import BatchError

__all__ = ["Manifest", "read_manifest"]

_SYNC_SECONDS = 1.0  # a power cut may cost the lines of so long; a killed process costs none
_FULL = "free some space and run again: it goes on"

Record = dict[str, Any]


def read_manifest(path: Path) -> dict[str, Record]:
    """Return the latest record of each region; none where there is no file.

    Parameters
    ----------
    path
        Of the manifest.

    Raises
    ------
    BatchError
        If it can't be read, or a line but the last is no record: the file isn't a manifest, or was edited.
    """
    latest: dict[str, Record] = {}
    for record in _records(path):
        before = latest.get(record["id"])
        if record["status"] == "started" and before is not None:
            record = {**before, "started_again": True}  # what is known of the last result stays known
        latest[record["id"]] = record
    return latest


def _records(path: Path) -> Iterator[Record]:
    try:
        file = path.open("rb")
    except FileNotFoundError:
        return
    except OSError as error:
        raise _unreadable(path, error.strerror or str(error)) from error
    with file:
        for number, line in enumerate(file, 1):
            if not line.endswith(b"\n"):
                return  # torn: what it told isn't known, and is done again
            yield _record(path, number, line)


def _record(path: Path, number: int, line: bytes) -> Record:
    try:
        record = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise _unreadable(path, f"line {number} isn't JSON") from error
    if not (isinstance(record, dict) and isinstance(record.get("id"), str) and isinstance(record.get("status"), str)):
        raise _unreadable(path, f"line {number} is no record of a region")
    return record


def _unreadable(path: Path, found: str) -> BatchError:
    return BatchError(path, f"can't be read as a manifest: {found}", "move it away; results stay, and are made again")


class Manifest:
    """The open manifest of a run. A context manager; leaving it brings all lines to the disk.

    Parameters
    ----------
    path
        Made where there is none.

    Raises
    ------
    BatchError
        If it can't be opened.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self._descriptor = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o644)
            _cut_torn_line(self._descriptor)
        except OSError as error:
            reason = error.strerror or str(error)
            raise BatchError(path, f"can't be written ({reason})", "choose a folder you may write to") from error
        self._synced = time.monotonic()

    def append(self, record: Mapping[str, Any]) -> None:
        """Write a line.

        Raises
        ------
        BatchError
            If it can't be written; the file then ends with the line before.
        """
        line = json.dumps(record, ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode() + b"\n"
        begin = os.fstat(self._descriptor).st_size
        try:
            _write_whole(self._descriptor, line)
            if time.monotonic() - self._synced > _SYNC_SECONDS:
                self.sync()
        except OSError as error:
            os.ftruncate(self._descriptor, begin)
            raise BatchError(self.path, f"can't be written ({error.strerror or error})", _FULL) from error

    def sync(self) -> None:
        """Bring all lines to the disk."""
        os.fsync(self._descriptor)
        self._synced = time.monotonic()

    def close(self) -> None:
        """Bring all lines to the disk and close the file."""
        if self._descriptor >= 0:
            descriptor, self._descriptor = self._descriptor, -1
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)

    def __enter__(self) -> Manifest:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _write_whole(descriptor: int, line: bytes) -> None:
    if os.write(descriptor, line) < len(line):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))  # what a full disk leaves of a write


def _cut_torn_line(descriptor: int) -> None:
    """Shorten a file to its last whole line."""
    end = os.fstat(descriptor).st_size
    position, step = end, 1 << 16
    while position > 0:
        begin = max(0, position - step)
        found = os.pread(descriptor, position - begin, begin).rfind(b"\n")
        if found >= 0:
            position = begin + found + 1
            break
        position = begin
    if position < end:
        os.ftruncate(descriptor, position)
