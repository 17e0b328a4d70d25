"""Whether files are still what they were when they were opened."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple, Protocol, runtime_checkable

from gopt_geo.errors import SourceError

__all__ = ["FileStates", "Watched", "check_unchanged"]


@runtime_checkable
class Watched(Protocol):
    """What can tell whether the files behind it have changed."""

    def check_unchanged(self) -> None:
        """Raise SourceError if a file has changed since it was opened."""
        ...


def check_unchanged(sources: Iterable[object]) -> None:
    """Check those of `sources` that have files behind them.

    Raises
    ------
    SourceError
        If one has changed since it was opened.
    """
    for source in sources:
        if isinstance(source, Watched):
            source.check_unchanged()


class _State(NamedTuple):
    size: int
    changed: int  # nanoseconds
    inode: int
    device: int

    @classmethod
    def of(cls, path: str) -> _State | None:
        try:
            found = Path(path).stat()
        except OSError:
            return None
        return cls(found.st_size, found.st_mtime_ns, found.st_ino, found.st_dev)


class FileStates:
    """Size, time of the last change and place on the disk of files.

    Parameters
    ----------
    names
        As GDAL lists them. Of a file inside an archive (/vsizip/...) the archive counts; what isn't on this machine's
        file system (a server's, one in memory) isn't watched.
    """

    def __init__(self, names: Iterable[str]) -> None:
        self._states: dict[str, _State] = {}
        self.add(names)

    def add(self, names: Iterable[str]) -> None:
        """Watch further files; those that are watched already keep their earlier state."""
        for path in filter(None, map(_on_disk, names)):
            state = _State.of(path) if path not in self._states else None
            if state is not None:
                self._states[path] = state

    def check(self, name: str) -> None:
        """Compare the files with what they were.

        Parameters
        ----------
        name
            What messages call the source.

        Raises
        ------
        SourceError
            If one differs.
        """
        for path, before in self._states.items():
            now = _State.of(path)
            if now == before:
                continue
            if now is None:
                found = "it is gone"
            elif now.inode != before.inode or now.device != before.device:
                found = "another file has taken its place"
            elif now.size != before.size:
                found = f"{before.size} bytes have become {now.size}"
            else:
                found = "it has been written to"
            file = "" if name.endswith(Path(path).name) else f" {Path(path).name}"
            remedy = "run again when nothing changes it any more"
            raise SourceError(name, f"its file{file} changed while it was read: {found}", remedy)


def _on_disk(name: str) -> str | None:
    """Return the file on disk behind a name of GDAL's, None where there is none."""
    if not name.startswith("/vsi"):
        return name if Path(name).is_file() else None
    inner = name
    while inner.startswith("/vsi"):  # handlers may be stacked: /vsigzip//vsizip/...
        prefix, _, inner = inner[1:].partition("/")
        inner = inner if inner.startswith("/vsi") else _archive(prefix, inner)
    return inner or None


def _archive(handler: str, path: str) -> str:
    """Return the longest part of a path that is a file; "" for handlers that read from elsewhere."""
    if handler not in ("vsizip", "vsitar", "vsi7z", "vsirar", "vsigzip", "vsisubfile", "vsisparse"):
        return ""
    for part in (Path(path), *Path(path).parents):
        if part.is_file():
            return str(part)
    return ""
