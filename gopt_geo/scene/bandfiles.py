"""Sources made of several files, one band each: a folder, a pattern, a list, a Sentinel-2 product, a STAC item."""

from __future__ import annotations

import glob
import re
from collections.abc import Iterable, Sequence
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from gopt_geo.errors import SourceError
from gopt_geo.scene.bandfile import BandFile
from gopt_geo.scene.bandnames import SCENE_CLASSES, band_in_file_name
from gopt_geo.scene.mosaic import SceneMosaic
from gopt_geo.scene.remote import address, is_remote, name_of, shown

if TYPE_CHECKING:
    import pystac
    import xarray as xr
    from typing_extensions import TypeIs

__all__ = [
    "Source",
    "band_files",
    "input_files",
    "input_name",
    "is_array",
    "is_item",
    "is_one_url",
    "names_item",
    "read_item",
    "reads_urls",
    "source_name",
]

Source: TypeAlias = "str | PathLike[str] | pystac.Item | xr.DataArray | xr.Dataset | SceneMosaic"
"""What names a source: a path, URL, pattern or list as text; a STAC item; an array with coordinates; several."""

_ENDINGS = (".tif", ".tiff", ".jp2", ".vrt", ".img", ".png")
_LISTED = 3  # rasters of a mosaic that a message names
_JSON = re.compile(r"\.json(\?.*)?\Z", re.IGNORECASE | re.DOTALL)
# Where a STAC API has an item, by the standard that it follows; a raster there would have its ending.
_OF_API = re.compile(r"https?://[^?]+/collections/[^/?]+/items/[^/?]+(\?.*)?\Z", re.IGNORECASE | re.DOTALL)


def is_item(source: object) -> TypeIs[pystac.Item]:
    """Tell whether a source is a STAC item; without importing what would know it."""
    return any(kind.__name__ == "Item" and kind.__module__.startswith("pystac") for kind in type(source).__mro__)


def is_array(source: object) -> TypeIs[xr.DataArray | xr.Dataset]:
    """Tell whether a source is an array of xarray; without importing that."""
    kinds = type(source).__mro__
    return any(kind.__name__ in ("DataArray", "Dataset") and kind.__module__.startswith("xarray") for kind in kinds)


def names_item(path: str | PathLike[str]) -> bool:
    """Tell whether a path or URL is where a STAC item is."""
    text = address(path)
    of_api = _OF_API.match(text) is not None and not text.split("?")[0].lower().endswith(_ENDINGS)
    return of_api or _JSON.search(text) is not None


def read_item(source: Source) -> Source:
    """Return the STAC item that a path or URL names, also in a mosaic; any other source as it is.

    Items are paths and URLs that end in .json, and what STAC APIs call their items (.../collections/NAME/items/NAME).

    Raises
    ------
    SourceError
        If the item can't be read.
    """
    if isinstance(source, SceneMosaic):
        return SceneMosaic(tuple(read_item(part) for part in source))
    if not isinstance(source, str | PathLike) or not names_item(source):
        return source
    from gopt_geo.scene.stac import open_item

    return open_item(address(source))


def source_name(source: Source | Sequence[BandFile]) -> str:
    """Return what messages call a source."""
    if isinstance(source, str | PathLike):
        return shown(source)
    if is_item(source):
        return f"STAC item {source.id}"
    if isinstance(source, SceneMosaic):
        further = f" and {len(source) - _LISTED} more" if len(source) > _LISTED else ""
        return f"mosaic of {', '.join(source_name(part) for part in source.sources[:_LISTED])}{further}"
    if is_array(source):
        return f"array {getattr(source, 'name', None) or 'without a name'}"
    return f"{len(source)} files" if isinstance(source, Sequence) else type(source).__name__


def band_files(path: Source | Sequence[BandFile]) -> tuple[BandFile, ...] | None:
    """Take apart what names a source of several files.

    Parameters
    ----------
    path
        A `.SAFE` folder, a folder of single-band files, a pattern ("S2*_B0?.tif"), paths with commas in between, or a
        STAC item (itself, or the path or URL of its JSON).

    Returns
    -------
    The bands, or None where `path` names one raster.

    Raises
    ------
    SourceError
        If a folder or pattern holds no band files, a `.SAFE` can't be used, or it is a mosaic of several such sources.
    """
    if isinstance(path, SceneMosaic):
        raise SourceError(source_name(path), "one source is read here, and this is several", "give them one by one")
    if is_array(path):
        return None
    if is_item(path):
        return _of_item(path)
    if not isinstance(path, str | PathLike):
        return _given(path)
    if not str(path).strip():
        raise SourceError("the source", "its path is empty", "give a path")
    try:
        return _by_path(path)
    except (OSError, UnicodeError) as error:  # no right to look, a name too long
        reason = error.strerror if isinstance(error, OSError) else error
        raise SourceError(_printable(path), f"it can't be read ({reason})", "check the path and its rights") from error


def _given(files: object) -> tuple[BandFile, ...]:
    if isinstance(files, Sequence) and files and all(isinstance(file, BandFile) for file in files):
        return tuple(files)
    remedy = "give a path, a URL, a STAC item, an array of xarray with coordinates, or BandFiles"
    raise SourceError(f"{type(files).__name__}", "it is no source", remedy)


def _printable(path: str | PathLike[str]) -> str:
    return str(path).encode("utf-8", "replace").decode()


def _by_path(path: str | PathLike[str]) -> tuple[BandFile, ...] | None:
    from gopt_geo.scene.safe import is_safe, read_safe

    item = read_item(path)
    if is_item(item):
        return _of_item(item)
    text = address(path)
    place = Path(path)
    if text.startswith("/vsi") or is_remote(text):
        return _named(text.split(",")) if "," in text and not is_one_url(text) else None
    if place.is_dir():
        return read_safe(place).bands if is_safe(place) else _in_folder(place)
    if place.exists():
        return None
    if place.suffix.casefold() == ".safe":
        raise SourceError(place, "there is no such folder", "check the path")
    pattern = any(letter in text for letter in "*?[")
    found = sorted(glob.glob(text, recursive=True)) if pattern else []  # noqa: PTH207  # may be absolute
    if "," in text and not found:
        return _named(part.strip() for part in text.split(","))
    if pattern:
        if not found:
            raise SourceError(text, "no file fits the pattern", "check it, and quote it in the shell")
        return _named(found)
    return None


def is_one_url(text: str) -> bool:
    """Tell whether text with a comma is one URL all the same: a list's further parts are URLs, or paths to rasters."""
    further = text.split(",")[1:]
    return not all(is_remote(part.strip()) or Path(part).suffix.casefold() in _ENDINGS for part in further)


def _of_item(item: pystac.Item) -> tuple[BandFile, ...]:
    from gopt_geo.scene.stac import item_files

    files = item_files(item)
    if not files:
        raise SourceError(source_name(item), "none of its assets is a raster", "choose another item")
    return files


def input_files(path: Source) -> list[Path]:
    """Return the local files that a source is read from, for the check that no result replaces one."""
    return [Path(file) for file in _all_files(path) if not is_remote(file)]


def reads_urls(path: Source) -> bool:
    """Return whether a source, or a part of it, is read from servers."""
    return any(is_remote(file) for file in _all_files(path))


def _all_files(path: Source) -> list[str]:
    if isinstance(path, SceneMosaic):
        return [file for part in path for file in _all_files(part)]
    try:
        files = band_files(path)
    except SourceError:
        files = None  # opening it says what is wrong
    own = [str(path)] if isinstance(path, str | PathLike) else []
    return [*own, *(file.path for file in files or ())]


def input_name(path: Source) -> str:
    """Return what a source is called in a result's tags: the names of its file, folder, listed files, or rasters."""
    if isinstance(path, SceneMosaic):
        return "; ".join(input_name(part) for part in path)
    if not isinstance(path, str | PathLike):
        return source_name(path)
    if is_remote(path) or Path(path).exists():
        return name_of(path)
    return ",".join(name_of(part) for part in str(path).split(","))


def _named(paths: Iterable[str]) -> tuple[BandFile, ...]:
    files = tuple(BandFile(band_in_file_name(path) or "", path) for path in paths)
    if not all(file.path for file in files):
        listed = ",".join(file.path for file in files)
        raise SourceError(listed, "a path is missing in the list", "write it as B04.tif,B03.tif")
    return files


def _in_folder(folder: Path) -> tuple[BandFile, ...]:
    """Bands among a folder's files; those whose names state no band are no bands."""
    paths = sorted(p for p in folder.iterdir() if p.suffix.casefold() in _ENDINGS and p.is_file())
    files = [BandFile(name, str(p)) for p in paths if (name := band_in_file_name(p.name)) not in (None, SCENE_CLASSES)]
    if not files:
        found = f"none of the {len(paths)} rasters in this folder has a band's name (B04, VV, red) in its own"
        raise SourceError(folder, found, "give the files, with commas in between, in the pack's order")
    return tuple(files)
