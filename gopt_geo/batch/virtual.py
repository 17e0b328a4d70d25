"""Virtual rasters that nobody vouches for: what they name must be rasters on this machine's disk."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterable, Iterator
from pathlib import Path
from xml.etree import ElementTree

from rasterio.errors import RasterioError
from rasterio.io import DatasetReader

from gopt_geo.batch.regionpaths import leaves_disk
from gopt_geo.errors import SourceError
from gopt_geo.scene.rasterfile import DRIVERS, gdal_settings
from gopt_geo.scene.remote import shown

__all__ = ["check_virtual"]

_HEAD = 4096  # bytes; GDAL looks for the root element in fewer
_MOST = 64 << 20  # bytes of XML
_NAMES_FILE = ("sourcefilename", "sourcedataset")
_FREE = ("mdi", "description", "category", "f", "name", "pixelfunctioncode")  # never opened; nor is code run
_SYSTEMS = ("srs", "sourcesrs", "targetsrs", "projection")  # of coordinates: EPSG:4326 is no driver's syntax
_DRIVER = re.compile(r"[A-Za-z][A-Za-z0-9_]+:(?![\\/]?$)", re.ASCII)  # WMS:..., NETCDF:..., at least two letters
_REMEDY = "allow it with --allow-remote, or give rasters that are on this machine's disk"


def check_virtual(paths: Iterable[str]) -> None:
    """Refuse virtual rasters (VRT) that name anything but local files of the drivers in `DRIVERS`.

    GDAL opens what a VRT names with any driver, from any server. Files that aren't there, or aren't virtual, pass.

    Parameters
    ----------
    paths
        Local files that are to be opened as rasters.

    Raises
    ------
    SourceError
        If one names something else, or can't be looked through.
    """
    seen: set[Path] = set()
    todo = [Path(path) for path in paths]
    while todo:
        path = todo.pop()
        if path in seen or not path.is_file():
            continue
        seen.add(path)
        if _is_virtual(path):
            todo += _named(path)
        overviews = _overviews(path)
        if overviews is not None and _elsewhere(overviews, "overviews"):
            raise _refusal(path, overviews)


def _is_virtual(path: Path) -> bool:
    with path.open("rb") as file:
        return b"<vrtdataset" in file.read(_HEAD).lower()


def _named(path: Path) -> Iterator[Path]:
    """Yield the files that a virtual raster names, each a raster; refuse whatever else GDAL might open."""
    for name, text, beside in _texts(_root(path)):
        if _elsewhere(text, name):
            raise _refusal(path, text)
        if name in _NAMES_FILE:
            inner = path.parent / text if beside else Path(text)
            if not inner.is_file():
                raise _refusal(path, text)
            yield inner
            if not _is_virtual(inner) and _open(inner) is None:
                found = f"it names {inner}, which isn't a raster of {', '.join(DRIVERS)}"
                raise SourceError(path, found, "give it rasters of these formats")


def _refusal(path: Path, text: str) -> SourceError:
    found = f"it names {shown(text)[:90]!r}, which is no file on this machine's disk"
    return SourceError(path, found, _REMEDY)


def _root(path: Path) -> ElementTree.Element:
    if path.stat().st_size > _MOST:
        raise SourceError(path, "it is too large to be looked through", _REMEDY)
    content = path.read_bytes()
    if b"<!" in re.sub(rb"<!--.*?-->|<!\[CDATA\[", b"", content, flags=re.DOTALL):
        raise SourceError(path, "it declares entities of XML", "write it without")
    try:
        return ElementTree.fromstring(content.split(b"\0")[0])
    except ElementTree.ParseError as error:  # GDAL may make something of it all the same
        raise SourceError(path, f"it is no sound XML ({error})", "correct it") from error


def _texts(root: ElementTree.Element) -> Iterator[tuple[str, str, bool]]:
    """Yield all texts of a document: what each is called, itself, and whether it is relative to the document.

    To GDAL an attribute is as good as an element, in either case of letters.
    """
    for element in root.iter():
        name = element.tag.rpartition("}")[2].lower()
        attributes = {key.lower(): value for key, value in element.attrib.items()}
        beside = attributes.get("relativetovrt") == "1"
        for key, value in attributes.items():
            yield key, value.strip(), beside
        for text in (element.text, *(child.tail for child in element)):
            if text is not None and text.strip() and name not in _FREE:
                yield name, text.strip(), beside


def _elsewhere(text: str, name: str) -> bool:
    """Tell whether GDAL could take a text for a server, a virtual file system, a driver's own syntax or inline XML."""
    if leaves_disk(text) or "://" in text or "/vsi" in text or text.startswith("<"):
        return True
    return name not in _SYSTEMS and _DRIVER.match(text) is not None and not Path(text).exists()


def _open(path: Path) -> DatasetReader | None:
    """Open a raster of one of the listed drivers; None if it is none."""
    try:
        with gdal_settings(remote=False), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return DatasetReader(str(path), driver=list(DRIVERS), sharing=False)
    except RasterioError:
        return None


def _overviews(path: Path) -> str | None:
    """Return the file that a raster, or the sidecar of one, states for its overviews; GDAL would open anything."""
    handle = _open(path)
    if handle is None:
        return None  # whoever maps it says so
    with handle:
        stated: str | None = handle.tags(ns="OVERVIEWS").get("OVERVIEW_FILE")
    return stated
