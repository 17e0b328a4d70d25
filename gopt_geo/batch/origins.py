"""What a file that isn't trusted may name as a source."""

from __future__ import annotations

from pathlib import Path

from gopt_geo.batch.regionfile import FeatureFault
from gopt_geo.batch.regionpaths import PathReader, leaves_disk
from gopt_geo.errors import SourceError
from gopt_geo.scene.bandfiles import Source, band_files, is_item, read_item
from gopt_geo.scene.remote import shown

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
        If it is empty, or on a server and may not be; a STAC item, if its rasters are.
    """
    if not text.strip():
        raise SourceError(subject, "it names no raster", "give a path")
    try:
        return PathReader(folder.absolute(), allow_remote=allow_remote).raster(text)
    except FeatureFault as fault:
        raise SourceError(subject, fault.found, fault.remedy) from fault


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
    far = next((file.path for file in band_files(item) or () if leaves_disk(file.path)), None)
    if far is not None:
        found = f"STAC item {item.id} names {shown(far)}, which is read over the network"
        raise SourceError(subject, found, "use --allow-remote")
