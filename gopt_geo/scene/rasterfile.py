"""Opening of raster files: listed drivers only, no code from files, and no truncated file taken for a whole one."""

from __future__ import annotations

import logging
import re
import threading
import warnings
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import rasterio
from rasterio.errors import NotGeoreferencedWarning, RasterioError
from rasterio.io import DatasetReader  # rasterio.open takes no list of drivers

from gopt_geo.errors import SourceError
from gopt_geo.scene.remote import REMOTE, gdal_name

__all__ = ["DRIVERS", "gdal_settings", "open_raster"]

DRIVERS = ("GTiff", "VRT", "JP2OpenJPEG", "PNG", "JPEG", "HFA", "ENVI")
"""GDAL drivers that sources are opened with; a COG is read by GTiff."""

# warnings.catch_warnings swaps process-wide state; one opening at a time keeps the order of restoring right.
_OPENING = threading.Lock()


def gdal_settings(remote: bool) -> AbstractContextManager[object]:
    """Return GDAL's settings for reading: no code from files, and damaged JPEG and PNG data is an error."""
    settings = {
        "GDAL_VRT_ENABLE_PYTHON": "NO",
        "GDAL_ERROR_ON_LIBJPEG_WARNING": "YES",
        "GDAL_PNG_WHOLE_IMAGE_OPTIM": "NO",  # it takes what memory holds for the pixels of a truncated file
    }
    env: AbstractContextManager[object] = rasterio.Env(**settings, **(REMOTE if remote else {}))
    return env


class _Losses(logging.Handler):
    """Gathers what GDAL says that it leaves out of the file this thread opens."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.found: list[str] = []
        self._thread = threading.get_ident()

    def emit(self, record: logging.LogRecord) -> None:
        text = record.getMessage()
        if record.thread == self._thread and "IO error during reading of" in text:
            self.found.append(text)


@contextmanager
def _losses() -> Iterator[list[str]]:
    """Listen to GDAL's warnings: of a truncated TIFF it opens what is there, without units, scales or georeference."""
    log, handler = logging.getLogger("rasterio._env"), _Losses()
    log.addHandler(handler)
    try:
        yield handler.found
    finally:
        log.removeHandler(handler)


def _is_stream(path: str) -> bool:
    """Tell whether a path is there and is neither file nor folder; opening a pipe would wait for its writer."""
    place = Path(path)
    return not path.startswith("/vsi") and place.exists() and not place.is_file() and not place.is_dir()


def open_raster(path: str, name: str, *, remote: bool) -> DatasetReader:
    """Open a raster of one of `DRIVERS`, and nothing else that GDAL could take it for.

    Parameters
    ----------
    path
        As GDAL's own or as a URL, see `gopt_geo.scene.remote.address`.
    name
        What messages call it.
    remote
        Whether it is a URL.

    Raises
    ------
    SourceError
        If it is missing, truncated, or can't be opened.
    """
    if not remote and not path.startswith("/vsi") and not Path(path).exists():
        unknown = re.match(r"([A-Za-z][A-Za-z0-9+.-]+):/", path)
        if unknown is not None:
            remedy = "give a path, or a URL of http, https, s3, gs or az"
            raise SourceError(name, f"{unknown[1]}: isn't a way to a raster", remedy)
        raise SourceError(name, "there is no such file", "check the path")
    if not remote and _is_stream(path):
        raise SourceError(name, "it is a pipe or a device", "give a file")
    try:
        with _OPENING, warnings.catch_warnings(), gdal_settings(remote), _losses() as lost:
            warnings.simplefilter("ignore", NotGeoreferencedWarning)  # `grid` says it, where it matters
            handle = DatasetReader(gdal_name(path), driver=list(DRIVERS), sharing=False)
    except (RasterioError, UnicodeDecodeError) as error:
        remedy = f"give a whole file in one of the formats {', '.join(DRIVERS)}"
        if remote:
            remedy = f"check the URL, the network and the rights to read it; or {remedy}"
        reason = str(error).replace(gdal_name(path), name)  # a URL's query may hold a key
        raise SourceError(name, f"it can't be opened ({reason})", remedy) from error
    if lost:
        handle.close()
        raise SourceError(name, f"it is damaged or truncated ({lost[0]})", "get the file again")
    return handle
