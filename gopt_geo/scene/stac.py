"""STAC items as sources: which of their assets are bands, where those lie, and how their values are meant."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from http.client import HTTPException
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

from gopt_geo.errors import BandError, SourceError
from gopt_geo.paths import StrPath
from gopt_geo.scene.bandfile import BandFile, find_file

if TYPE_CHECKING:
    import pystac
    from pystac.stac_io import DefaultStacIO

__all__ = ["cloud_cover", "is_rtc", "item_bands", "item_files", "item_time", "open_item", "platform_names", "stac_io"]

TIMEOUT = 20.0
"""Seconds to wait for a server."""

_BASELINE_WITH_OFFSET = (4, 0)  # Sentinel-2 processing baseline from which digital numbers are raised by 1000
_IMAGES = ("image/tiff", "image/jp2", "image/vnd.stac.geotiff", "image/x.geotiff", "application/x-geotiff")
# Sentinel-2's and Landsat's names for the common names of the EO extension, for items that state but one of them.
_COMMON = {
    "blue": ("B02", "B2"), "green": ("B03", "B3"), "red": ("B04", "B4"), "nir": ("B08", "B5"),
    "nir08": ("B8A",), "swir16": ("B11", "B6"), "swir22": ("B12", "B7"), "coastal": ("B01", "B1"),
    "rededge1": ("B05",), "rededge2": ("B06",), "rededge3": ("B07",),
}  # fmt: skip


def stac_io() -> DefaultStacIO:
    """Return a reader of STAC documents that gives up after `TIMEOUT` seconds."""
    from urllib.request import Request, urlopen

    from pystac.stac_io import DefaultStacIO

    class _Patient(DefaultStacIO):
        def read_text_from_href(self, href: str) -> str:
            if urlsplit(href).scheme in ("http", "https"):
                request = Request(href, headers={"User-Agent": "gopt-geo", **self.headers})
                with urlopen(request, timeout=TIMEOUT) as answer:
                    text: str = answer.read().decode("utf-8")
                    return text
            return Path(_local(href)).read_text(encoding="utf-8")

    return _Patient()


def _local(href: str) -> str:
    return unquote(urlsplit(href).path) if href.startswith("file:") else href


def open_item(location: StrPath) -> pystac.Item:
    """Read a STAC item from a file or an http(s) URL; its assets' hrefs become absolute.

    Raises
    ------
    SourceError
        If it can't be read, or isn't an item.
    """
    import pystac

    name = str(location)
    try:
        text = stac_io().read_text_from_href(name)
    except (OSError, HTTPException, UnicodeError, ValueError) as error:
        raise SourceError(name, f"the STAC item can't be read ({error})", "check the path or URL") from error
    try:
        item = pystac.Item.from_dict(_document(text, name), href=_absolute(name))
    except SourceError:
        raise
    except Exception as error:  # pystac raises whatever a wrong document makes it stumble over
        found = f"it isn't a valid STAC item ({type(error).__name__}: {error})"
        raise SourceError(name, found, "give a STAC item (a GeoJSON Feature with stac_version)") from error
    item.make_asset_hrefs_absolute()
    return item


def _absolute(name: str) -> str:
    return name if "://" in name else str(Path(name).resolve())


def _document(text: str, name: str) -> dict[str, Any]:
    import json

    try:
        found = json.loads(text)
    except ValueError as error:
        raise SourceError(name, f"it isn't JSON ({error})", "give a STAC item") from error
    kind = found.get("type") if isinstance(found, dict) else type(found).__name__
    if kind != "Feature" or "stac_version" not in found:
        remedy = "search it with --catalog" if kind in ("Catalog", "Collection") else "give a STAC item"
        raise SourceError(name, f"it is no STAC item but {kind or 'something else'}", remedy)
    document: dict[str, Any] = found
    return document


def item_time(item: pystac.Item) -> datetime | None:
    """Acquisition time in UTC: the item's, or the middle of its range; None where it states none."""
    moment = item.datetime
    if moment is None:
        start, end = item.common_metadata.start_datetime, item.common_metadata.end_datetime
        if start is None or end is None:
            return None
        moment = start + (end - start) / 2
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)


def cloud_cover(item: pystac.Item) -> float | None:
    """Cloud cover in percent as the item states it; None where it doesn't."""
    found = item.properties.get("eo:cloud_cover")
    return float(found) if isinstance(found, (int, float)) and not isinstance(found, bool) else None


def item_bands(item: pystac.Item, wanted: Sequence[str]) -> list[BandFile]:
    """Find bands among an item's assets.

    Parameters
    ----------
    item
        From `open_item` or a search.
    wanted
        Names of bands: of an asset, of a band within it, or the common name of the EO extension ("red"); upper and
        lower case alike.

    Returns
    -------
    The bands in the order asked for.

    Raises
    ------
    BandError
        If a name fits no asset, or several; the message lists what there is.
    """
    there = item_files(item)
    found = []
    for name in wanted:
        fits = find_file(name, there)
        if len(fits) != 1:
            known = ", ".join(sorted({file.name for file in there})) or "none"
            what = f"no asset is band {name!r}" if not fits else f"{len(fits)} assets are band {name!r}"
            raise BandError(item.get_self_href() or item.id, what, f"choose from its bands {known}")
        found.append(replace(there[fits[0]], name=name))
    return found


def item_files(item: pystac.Item) -> tuple[BandFile, ...]:
    """Return all bands of an item's raster assets.

    Each is called by its asset, and known by the names that the item gives it, then by its other names: Landsat's B5
    is nir, Sentinel-2's B05 is not. Where the same band is there as GeoTIFF and as JPEG 2000, the former is taken: it
    is read in parts.
    """
    listed = list(_bands(item))
    tiffs = [file for file in listed if not _is_jp2(file)]
    better = {name for file in tiffs for name in _band_names(file)}
    chosen = [file for file in listed if not _is_jp2(file) or not (_band_names(file) & better)]
    return tuple({(file.path, file.index): file for file in reversed(chosen)}.values())[::-1]


def _is_jp2(file: BandFile) -> bool:
    return Path(urlsplit(file.path).path).suffix.casefold() == ".jp2"


def _band_names(file: BandFile) -> frozenset[str]:
    """Return all names but that of the asset itself, which tells formats apart."""
    return frozenset().union(*file.names) - {file.name.casefold()}


def _bands(item: pystac.Item) -> Iterable[BandFile]:
    for key, asset in item.assets.items():
        media = (asset.media_type or "").split(";")[0].strip().casefold()
        ending = Path(urlsplit(asset.href).path).suffix.casefold()
        if media not in _IMAGES and ending not in (".tif", ".tiff", ".jp2", ".vrt"):
            continue
        if set(asset.roles or ()) & {"thumbnail", "overview", "visual"}:
            continue
        listed = _listed(asset.extra_fields)
        for index, stated in enumerate(listed, start=1):
            own = {str(n).casefold() for n in (stated.get("name"),) if n}
            # The asset's key names a band only where the asset is that band alone.
            own |= {key.casefold()} if len(listed) == 1 else set()
            common = stated.get("eo:common_name") or stated.get("common_name")
            further = {str(common).casefold()} if common else set()
            for name in own | further:
                further |= {alias.casefold() for alias in _COMMON.get(name, ())}
            scale, offset, nodata = _values(item, stated)
            label = key if len(listed) == 1 else str(stated.get("name") or f"{key} {index}")
            names = frozenset(own), frozenset(further)
            yield BandFile(label, _local(asset.get_absolute_href() or asset.href), index, scale, offset, nodata, names)


def _listed(fields: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Gather what an asset says of its bands: STAC 1.1's ``bands``, 1.0's ``eo:bands`` and ``raster:bands``."""
    lists = [fields.get(key) or [] for key in ("bands", "eo:bands", "raster:bands")]
    count = max([len(entries) for entries in lists] + [1])
    listed = []
    for index in range(count):
        merged = {k: v for k, v in fields.items() if k in ("nodata", "raster:scale", "raster:offset", "eo:common_name")}
        for entries in lists:
            if index < len(entries) and isinstance(entries[index], dict):
                merged.update(entries[index])
        listed.append(merged)
    return listed


def _values(item: pystac.Item, stated: Mapping[str, Any]) -> tuple[float | None, float | None, float | None]:
    """Scale, offset and nodata; for Sentinel-2 the offset of newer baselines, unless it is applied already."""
    scale = _number(stated.get("raster:scale", stated.get("scale")))
    offset = _number(stated.get("raster:offset", stated.get("offset")))
    nodata = _number(stated.get("nodata"))
    if "sentinel-2" not in platform_names(item):
        return scale, offset, nodata
    spectral = scale is not None or bool(stated.get("common_name") or stated.get("eo:common_name"))
    spectral = spectral or re.fullmatch(r"B\d[\dA]", str(stated.get("name", ""))) is not None
    if not spectral:  # the scene classification, water vapour, angles
        return scale, offset, nodata
    applied = ("earthsearch:boa_offset_applied", "sentinel:boa_offset_applied")
    if any(item.properties.get(key) is True for key in applied):
        offset = 0.0
    elif offset is None:
        baseline = str(item.properties.get("s2:processing_baseline", item.properties.get("processing:version", "")))
        match = re.match(r"(\d+)\.(\d+)", baseline)
        if match is None:
            found = (
                f"its processing baseline is {baseline or 'not stated'}, so that the offset of its values isn't known"
            )
            raise SourceError(
                item.get_self_href() or item.id, found, "state raster:offset in the item, or give the files"
            )
        raised = (int(match[1]), int(match[2])) >= _BASELINE_WITH_OFFSET
        offset = -0.1 if raised else 0.0
    return scale if scale is not None else 1e-4, offset, 0.0 if nodata is None else nodata


def platform_names(item: pystac.Item) -> str:
    """Names of the constellation, platform and collection as the item states them, in small letters."""
    stated = (item.properties.get("constellation"), item.properties.get("platform"), item.collection_id)
    return " ".join(str(name).casefold() for name in stated if name)


def is_rtc(item: pystac.Item) -> bool:
    """Tell whether an item is radiometrically terrain corrected Sentinel-1."""
    names = platform_names(item)
    product = str(item.properties.get("sar:product_type", "")).casefold()
    return "sentinel-1" in names and (product == "rtc" or (not product and "rtc" in names) or "-rtc" in names)


def _number(value: object) -> float | None:
    if isinstance(value, str) and value.casefold() in ("nan", "inf", "-inf"):
        return float(value)
    return float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else None
