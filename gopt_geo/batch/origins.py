"""What a file that isn't trusted may name as a source."""

from __future__ import annotations

from pathlib import Path

from gopt_geo.errors import SourceError
from gopt_geo.scene.bandfiles import Source, band_files, is_item, read_item
from gopt_geo.scene.remote import is_remote, shown

__all__ = ["check_origin", "named_source"]


def named_source(text: str, folder: Path, subject: str, allow_remote: bool) -> str:
    """Return a source that a file names, its relative paths taken from the file's folder.

    Parameters
    ----------
    text
        As `gopt_geo.predict` takes it: a path, a pattern, paths with commas in between, a URL.
    folder
        Where the file lies.
    subject
        What messages call the place where it is named.
    allow_remote
        Whether it may lie on a server.

    Raises
    ------
    SourceError
        If it is empty, or on a server and may not be.
    """
    text = text.strip()
    if not text or "\0" in text:
        raise SourceError(subject, "it names no raster", "give a path")
    if is_remote(text) or text.startswith("/vsi"):
        if not allow_remote:
            raise SourceError(subject, f"it names {shown(text)}, which is read over the network", "use --allow-remote")
        return text
    if "," not in text or (folder / text).exists():
        return str(folder / text)
    parts = [part.strip() for part in text.split(",")]
    return ",".join(named_source(part, folder, subject, allow_remote) for part in parts)


def check_origin(source: Source, subject: str, allow_remote: bool) -> None:
    """Refuse a STAC item whose rasters are on a server, where that isn't allowed; nothing else is looked at.

    Raises
    ------
    SourceError
        If one is, or the item can't be read.
    """
    if allow_remote:
        return
    item = read_item(source)
    if not is_item(item):
        return
    far = next((file.path for file in band_files(item) or () if is_remote(file.path) or "/vsi" in file.path), None)
    if far is not None:
        found = f"STAC item {item.id} names {shown(far)}, which is read over the network"
        raise SourceError(subject, found, "use --allow-remote")
