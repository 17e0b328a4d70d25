"""What tells that a region's inputs are still the same: size and time of files, entity tags of what servers hold."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from gopt_geo.scene.remote import address, is_remote, shown

__all__ = ["InputState", "changed_inputs", "input_states"]

InputState = dict[str, Any]
"""Of a file: ``path``, ``size`` in bytes, ``mtime_ns``. Of a URL: ``path``, ``size``, ``etag``, ``modified``, as the
server tells them. What can't be told is None."""

_PATIENCE = 20.0  # seconds
_TOLD = {"size": "Content-Length", "etag": "ETag", "modified": "Last-Modified"}


def input_states(paths: Iterable[str | Path]) -> list[InputState]:
    """Return the state of each input, in order, each path once.

    Parameters
    ----------
    paths
        Files, or URLs; of a URL the query, which may hold a key, isn't in the state.
    """
    return [_state(path) for path in dict.fromkeys(map(str, paths))]


def changed_inputs(states: Iterable[InputState]) -> list[str]:
    """Return the paths whose state isn't any more what it was.

    A URL of which the server tells nothing counts as unchanged: nobody could say otherwise. So does a URL whose query
    was left out of the state, if the server doesn't answer without it.
    """
    return [before["path"] for before in states if _differs(before)]


def _differs(before: InputState) -> bool:
    now = _state(before["path"])
    if is_remote(before["path"]):
        known = [name for name in _TOLD if before.get(name) is not None and now[name] is not None]
        return any(now[name] != before[name] for name in known)
    return now != before


def _state(path: str) -> InputState:
    if is_remote(path):
        return {"path": shown(path), **_remote(address(path))}
    try:
        found = Path(path).stat()
    except OSError:
        return {"path": path, "size": None, "mtime_ns": None}
    return {"path": path, "size": found.st_size, "mtime_ns": found.st_mtime_ns}


def _remote(url: str) -> InputState:
    nothing = dict.fromkeys(_TOLD)
    if not url.startswith(("http://", "https://")):
        return nothing  # a bucket's address: its objects are GDAL's to ask for, with keys that only it knows
    import requests

    try:
        answer = requests.head(url, allow_redirects=True, timeout=_PATIENCE)
        answer.raise_for_status()
    except requests.RequestException:
        return nothing
    told = {name: answer.headers.get(header) for name, header in _TOLD.items()}
    size = told["size"]
    return {**told, "size": int(size) if size is not None and size.isdigit() else None}
