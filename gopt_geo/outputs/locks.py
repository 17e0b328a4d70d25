"""Folders that are locked while their process lives, and signals that wait for a clean end."""

from __future__ import annotations

import fcntl
import os
import shutil
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

__all__ = ["FolderLock", "deferred_signals", "exit_on_termination"]

_LOCK = ".lock"
_TERMINATION = (signal.SIGTERM, signal.SIGHUP)


class FolderLock:
    """A new folder, locked by this process (flock, which the system releases however the process ends).

    Parameters
    ----------
    folder
        The folder to make; it must not exist.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._descriptor: int | None = None

    def acquire(self) -> bool:
        """Make and lock the folder; False if another run's clean-up took it before it was locked.

        Raises
        ------
        OSError
            If the folder can't be made.
        """
        self.folder.mkdir()
        try:
            self._descriptor = os.open(self.folder / _LOCK, os.O_RDWR | os.O_CREAT, 0o600)
        except FileNotFoundError:
            return False
        if not _try_lock(self._descriptor):
            self._release()
            return False
        return self._is_mine()

    def files(self) -> list[Path]:
        """Return the files in the folder, without the lock, sorted by name."""
        return sorted(p for p in self.folder.iterdir() if p.name != _LOCK)

    def remove(self) -> None:
        """Remove the folder with all it holds, and release the lock; nothing happens if it is gone."""
        shutil.rmtree(self.folder, ignore_errors=True)
        self._release()

    @staticmethod
    def remove_if_dead(folder: Path) -> bool:
        """Remove the folder of a run that no longer lives; tell whether it was removed.

        The folder is renamed before it is removed: a run that is just starting in it then finds it gone.
        """
        try:
            descriptor = os.open(folder / _LOCK, os.O_RDWR | os.O_CREAT, 0o600)
        except OSError:  # gone meanwhile, or another user's
            return False
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            doomed = folder if folder.suffix == ".dead" else folder.with_name(f"{folder.name}.dead")
            folder.rename(doomed)
            shutil.rmtree(doomed, ignore_errors=True)
        except OSError:  # alive, or a file system without locks, where nobody can tell
            return False
        finally:
            os.close(descriptor)
        return True

    def _is_mine(self) -> bool:
        """Tell whether the lock's path still names the file that is locked."""
        assert self._descriptor is not None
        try:
            there = (self.folder / _LOCK).stat()
        except FileNotFoundError:
            self._release()
            return False
        return there.st_ino == os.fstat(self._descriptor).st_ino

    def _release(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


def _try_lock(descriptor: int) -> bool:
    """Lock a file; False if another process holds it. A file system without locks counts as locked."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return True
    return True


@contextmanager
def exit_on_termination() -> Iterator[None]:
    """Let SIGTERM and SIGHUP unwind the stack as Ctrl-C does, so that clean-up runs.

    Works in the main thread and only where the signal's handling is the default one; else it does nothing.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def leave(signum: int, _frame: FrameType | None) -> None:
        raise SystemExit(128 + signum)

    changed = [s for s in _TERMINATION if signal.getsignal(s) is signal.SIG_DFL]
    for signum in changed:
        signal.signal(signum, leave)
    try:
        yield
    finally:
        for signum in changed:
            signal.signal(signum, signal.SIG_DFL)


@contextmanager
def deferred_signals() -> Iterator[None]:
    """Hold back Ctrl-C, SIGTERM and SIGHUP inside the block; they take effect at its end."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    came: list[int] = []
    before = {s: signal.getsignal(s) for s in (signal.SIGINT, *_TERMINATION)}
    for held in before:
        signal.signal(held, lambda number, _frame: came.append(number))
    try:
        yield
    finally:
        for signum, handler in before.items():
            signal.signal(signum, handler if handler is not None else signal.SIG_DFL)
    if came:
        signal.raise_signal(came[0])
