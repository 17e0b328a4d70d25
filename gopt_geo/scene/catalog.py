"""Search of a STAC catalogue for the optical and the SAR item that show an area of interest best."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import shapely
import shapely.geometry
from shapely.geometry.base import BaseGeometry

from gopt_geo.errors import SourceError
from gopt_geo.scene.stac import TIMEOUT, cloud_cover, is_rtc, item_time, platform_names, stac_io

if TYPE_CHECKING:
    import pystac

__all__ = ["COMPLETE", "Found", "Listed", "TimeRange", "find_items", "list_items", "parse_time"]

COMPLETE = 0.999
"""Share of an area that counts as all of it."""


@dataclass(frozen=True)
class TimeRange:
    """From `start` to `end`, both in UTC and within the range."""

    start: datetime
    end: datetime


@dataclass(frozen=True)
class Found:
    """What a search chose.

    Attributes
    ----------
    optical, sar
        The items.
    covered
        Share of the area of interest that each shows, 0 to 1.
    considered
        How many items of each kind lay in area and time.
    notices
        What the user should know, one line each.
    """

    optical: pystac.Item
    sar: pystac.Item
    covered: tuple[float, float]
    considered: tuple[int, int]
    notices: tuple[str, ...] = ()


@dataclass(frozen=True)
class Listed:
    """What a catalogue has over an area in a time.

    Attributes
    ----------
    optical, sar
        Items of Sentinel-2 and of Sentinel-1 RTC.
    other
        How many other items.
    unread
        Documents that can't be read.
    """

    optical: list[pystac.Item]
    sar: list[pystac.Item]
    other: int
    unread: list[str]


def parse_time(text: str, option: str = "--time") -> TimeRange:
    """Read ``2024-06-01/2024-06-30``, a day, a month or a year; a day's end is its last moment.

    Raises
    ------
    SourceError
        If it is none of these, or ends before it starts.
    """
    remedy = f"write it as {option} 2024-06-01/2024-06-30, 2024-06 or 2024"
    parts = text.split("/")
    if len(parts) > 2 or not all(part.strip() for part in parts):
        raise SourceError(f"{option} {text}", "it isn't a range of time", remedy)
    try:
        start, end = _moments(parts[0].strip())[0], _moments(parts[-1].strip())[1]
    except ValueError as error:
        raise SourceError(f"{option} {text}", f"it isn't a range of time ({error})", remedy) from error
    if end < start:
        raise SourceError(f"{option} {text}", "it ends before it starts", "swap the two")
    return TimeRange(start, end)


def _moments(text: str) -> tuple[datetime, datetime]:
    """First and last moment of what is meant."""
    numbers = text.split("-")
    if len(numbers) <= 2 and all(part.isdecimal() for part in numbers):
        year, month = int(numbers[0]), int(numbers[1]) if len(numbers) == 2 else 1
        start = datetime(year, month, 1, tzinfo=UTC)
        last = 12 if len(numbers) == 1 else month
        following = datetime(year + last // 12, last % 12 + 1, 1, tzinfo=UTC)
        return start, following - timedelta(microseconds=1)
    moment = datetime.fromisoformat(text)
    moment = moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    if len(text) == len("2024-06-01"):
        return moment, moment + timedelta(days=1) - timedelta(microseconds=1)
    return moment, moment


def list_items(catalog: str, area: BaseGeometry, time: TimeRange, collections: tuple[str, ...] | None = None) -> Listed:
    """List the items over an area; see `find_items`.

    Raises
    ------
    SourceError
        If the catalogue can't be read.
    """
    unread: list[str] = []
    items = list(_items(catalog, area, time, collections, unread))
    optical, sar = [item for item in items if _is_optical(item)], [item for item in items if is_rtc(item)]
    return Listed(optical, sar, len(items) - len(optical) - len(sar), unread)


def find_items(
    catalog: str,
    area: BaseGeometry,
    time: TimeRange,
    *,
    max_cloud: float = 20.0,
    collections: tuple[str, ...] | None = None,
) -> Found:
    """Choose a Sentinel-2 and a Sentinel-1 RTC item.

    Items are ranked by the share of the area that they show; among those that show all of it the least cloudy
    optical one is chosen, and the SAR one nearest to it in time.

    Parameters
    ----------
    catalog
        URL or path of a STAC API or a static catalogue.
    area
        Area of interest, in longitude and latitude (EPSG:4326).
    time
        When both were acquired.
    max_cloud
        Most cloud cover of the optical item, in percent; an item that states none is taken as cloudier than all.
    collections
        Collections to look into; None: all.

    Raises
    ------
    SourceError
        If the catalogue can't be read, or holds no such item.
    """
    listed = list_items(catalog, area, time, collections)
    optical, sar, unread = listed.optical, listed.sar, listed.unread
    wide = f"in {time.start:%Y-%m-%d} to {time.end:%Y-%m-%d}"
    clear = [item for item in optical if _clouds(item) <= max_cloud]
    lost = f"; {len(unread)} documents can't be read, such as {unread[0]}" if unread else ""
    if not (optical or sar or listed.other):
        looked = f" in {', '.join(collections)}" if collections else ""
        found = f"no item over the area {wide}{looked}{lost}"
        raise SourceError(catalog, found, "check the area and --collection, or widen --time")
    if not optical:
        found = f"no Sentinel-2 item over the area {wide}{lost}"
        raise SourceError(catalog, found, "widen --time, or name --collection")
    if not clear:
        found = f"no Sentinel-2 item over the area {wide} has at most {max_cloud:g} % cloud ({len(optical)} have more)"
        raise SourceError(catalog, found, "widen --time, or raise --max-cloud")
    if not sar:
        raise SourceError(
            catalog, f"no Sentinel-1 RTC item over the area {wide}{lost}", "widen --time, or name --collection"
        )
    best = min(clear, key=lambda item: (-_covered(item, area), _clouds(item), _when(item), item.id))
    nearest = min(sar, key=lambda item: (-_covered(item, area), abs(_when(item) - _when(best)), _when(item), item.id))
    shares = (_share(best, area), _share(nearest, area))
    notices = tuple(
        f"{item.id}: it shows {100 * share:.0f} % of the area; the rest stays without it"
        for item, share in zip((best, nearest), shares, strict=True)
        if share < COMPLETE
    )
    if unread:
        notices += (f"{catalog}: {len(unread)} documents can't be read, such as {unread[0]}; passed over",)
    return Found(best, nearest, shares, (len(optical), len(sar)), notices)


def _share(item: pystac.Item, area: BaseGeometry) -> float:
    """Share of the area that the item's footprint covers, in degrees: a ratio, for one latitude."""
    if item.geometry is None:
        return 0.0
    footprint = shapely.make_valid(shapely.geometry.shape(item.geometry))
    if area.area == 0:
        return float(footprint.intersects(area))
    return float(footprint.intersection(area).area / area.area)


def _covered(item: pystac.Item, area: BaseGeometry) -> float:
    """Return the share in steps of 0.1 %, so that rounding doesn't decide between items that show all."""
    return round(_share(item, area), 3)


def _clouds(item: pystac.Item) -> float:
    found = cloud_cover(item)
    return 101.0 if found is None else found


def _when(item: pystac.Item) -> datetime:
    moment = item_time(item)
    assert moment is not None, "items without a time were left out"
    return moment


def _is_optical(item: pystac.Item) -> bool:
    return "sentinel-2" in platform_names(item)


def _items(
    catalog: str, area: BaseGeometry, time: TimeRange, collections: tuple[str, ...] | None, unread: list[str]
) -> Iterator[pystac.Item]:
    """Items over the area in the time, from an API by its search, else by walking through the catalogue."""
    import pystac

    try:
        root = pystac.Catalog.from_file(catalog, stac_io=stac_io())
        found = (
            _search(catalog, area, time, collections)
            if root.get_single_link("search") is not None
            else _walk(root, collections, unread)
        )
        for item in found:
            moment = item_time(item)
            if moment is None or item.geometry is None:
                continue
            if time.start <= moment <= time.end and shapely.geometry.shape(item.geometry).intersects(area):
                if item.get_self_href() is not None:  # without it, an API's assets are absolute as they are
                    item.make_asset_hrefs_absolute()
                yield item
    except SourceError:
        raise
    except Exception as error:  # pystac and pystac-client raise whatever a server or a document makes them meet
        reason = f"{type(error).__name__}: {error}".rstrip(": ")
        raise SourceError(catalog, f"the catalogue can't be read ({reason})", "check the URL or path") from error


def _walk(
    root: pystac.Catalog, collections: tuple[str, ...] | None, unread: list[str], seen: set[str] | None = None
) -> Iterator[pystac.Item]:
    """Items of a static catalogue and of those below it; what can't be read is named in `unread`, and passed over."""
    import pystac

    seen = set() if seen is None else seen
    for link in root.links:
        if link.rel not in (pystac.RelType.CHILD, pystac.RelType.ITEM):
            continue
        place = link.get_absolute_href() or str(link.target)
        if place in seen:  # a catalogue that names itself has no end
            continue
        seen.add(place)
        try:
            found = link.resolve_stac_object(root=root.get_root()).target
        except Exception:  # whatever a document that is missing or wrong makes pystac meet
            unread.append(place)
            continue
        if isinstance(found, pystac.Catalog):
            yield from _walk(found, collections, unread, seen)
        elif isinstance(found, pystac.Item) and (collections is None or found.collection_id in collections):
            yield found


def _search(
    catalog: str, area: BaseGeometry, time: TimeRange, collections: tuple[str, ...] | None
) -> Iterator[pystac.Item]:
    try:
        import pystac_client
    except ImportError as error:
        remedy = "install it: pip install 'gopt-geo[stac]'"
        raise SourceError(catalog, "a STAC API needs pystac-client, which isn't installed", remedy) from error
    client = pystac_client.Client.open(catalog, timeout=TIMEOUT)
    wanted = list(collections) if collections is not None else _fitting(client)
    geometry: dict[str, Any] = shapely.geometry.mapping(area)
    yield from client.search(collections=wanted, intersects=geometry, datetime=(time.start, time.end)).items()


def _fitting(client: Any) -> list[str]:
    """Name the collections of an API that may hold what is looked for: all of it would be millions of items."""
    names = [collection.id for collection in client.get_collections()]
    return [name for name in names if "sentinel-2" in name.casefold() or "sentinel-1" in name.casefold()]
