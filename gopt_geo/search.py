"""The search for a scene: an optical and a SAR image of an area of interest, from a STAC catalogue."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import shapely

from gopt_geo.aoi import read_aoi
from gopt_geo.errors import SourceError
from gopt_geo.paths import StrPath
from gopt_geo.scene.catalog import Found, find_items, parse_time
from gopt_geo.scene.remote import address
from gopt_geo.scene.stac import cloud_cover, item_time

__all__ = ["MAX_CLOUD", "FoundScene", "describe_found", "find_scene", "given_search"]

FoundScene = Found
MAX_CLOUD = 20.0
"""Most cloud cover of an optical image in percent, if nothing else is asked for."""


def given_search(catalog: object | None, said: Mapping[str, Any]) -> dict[str, Any]:
    """Return what is said of a search, without what is left open.

    Raises
    ------
    SourceError
        If there is no catalogue to search.
    """
    given = {name: value for name, value in said.items() if value not in (None, (), [])}
    if catalog is None and given:
        option = f"--{next(iter(given)).removesuffix('s').replace('_', '-')}"
        raise SourceError(option, "it needs --catalog", "name a catalogue, or leave it out")
    return given


def find_scene(
    catalog: StrPath,
    aoi: StrPath,
    time: str,
    *,
    aoi_crs: str | None = None,
    max_cloud: float = MAX_CLOUD,
    collections: Sequence[str] | None = None,
) -> FoundScene:
    """Find a Sentinel-2 and a Sentinel-1 RTC image of an area of interest.

    Parameters
    ----------
    catalog
        URL or path of a STAC API (needs the extra ``stac``) or of a static catalogue.
    aoi, aoi_crs
        Area of interest, see `gopt_geo.aoi.read_aoi`.
    time
        When both were acquired: ``2024-06-01/2024-06-30``, a day, a month or a year.
    max_cloud
        Most cloud cover of the optical image, in percent.
    collections
        Collections to look into; None: all of a static catalogue, those called after Sentinel-1 and -2 of an API.

    Returns
    -------
    FoundScene
        Its `optical` and `sar` are STAC items, which `gopt_geo.predict` takes as they are.

    Raises
    ------
    SourceError
        If the catalogue can't be read, or holds no such images.
    AoiError
        If the area of interest can't be used.
    """
    if not 0 <= max_cloud <= 100:
        raise SourceError(f"--max-cloud {max_cloud:g}", "it isn't a share in percent", "give 0 to 100")
    when = parse_time(time)
    area = read_aoi(aoi, aoi_crs)
    polygons = shapely.from_wkt(area.wkt)
    chosen = None if collections is None else tuple(collections)
    return find_items(address(catalog), polygons, when, max_cloud=max_cloud, collections=chosen)


def describe_found(found: FoundScene) -> list[str]:
    """Return what was found, a line for each image, and what the user should know."""
    lines = []
    images = zip(("optical", "SAR"), (found.optical, found.sar), found.covered, found.considered, strict=True)
    for kind, item, share, count in images:
        when, clouds = item_time(item), cloud_cover(item)
        told = f"{when:%Y-%m-%d %H:%M}" if when is not None else "time unknown"
        told += f", {clouds:.0f} % cloud" if clouds is not None else ""
        lines.append(f"{kind}: {item.id} ({told}; shows {100 * share:.0f} % of the area; the best of {count})")
    return lines + list(found.notices)
