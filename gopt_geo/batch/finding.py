"""Finds the scenes of a region: in a STAC catalogue, or in an index of footprints."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import lru_cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import shapely
import shapely.geometry
from numpy.typing import NDArray
from pyproj import CRS, Transformer
from pyproj.exceptions import CRSError, ProjError
from shapely.geometry.base import BaseGeometry

from gopt_geo.batch.footprints import INDEX_ENDINGS, FootprintIndex, Modality
from gopt_geo.batch.origins import check_origin
from gopt_geo.errors import SourceError
from gopt_geo.paths import StrPath
from gopt_geo.scene.bandfiles import Source, names_item
from gopt_geo.scene.catalog import COMPLETE, TimeRange, list_items, parse_time
from gopt_geo.scene.mosaic import one_source
from gopt_geo.scene.remote import address, is_remote
from gopt_geo.scene.stac import cloud_cover, item_time
from gopt_geo.search import MAX_CLOUD

if TYPE_CHECKING:
    import pystac

__all__ = ["CatalogFinder", "FoundScenes", "IndexFinder", "SceneFinder", "find_scenes", "open_finder"]

_BOTH: tuple[Modality, ...] = ("optical", "sar")
_CALLED = {"optical": "optical", "sar": "SAR"}
_LEAST = 0.001  # share of a region that is worth one more scene
_DENSIFY = 64  # points along a region's longer side, where its CRS is another


@dataclass(frozen=True)
class FoundScenes:
    """The scenes of one region.

    Attributes
    ----------
    optical, sar
        Paths or URLs of those that cover it, the first on top; none where the modality wasn't looked for.
    covered
        Which share of the region they show together, 0 to 1, by modality.
    notices
        What the user should know, one line each.
    """

    optical: tuple[str, ...] = ()
    sar: tuple[str, ...] = ()
    covered: dict[str, float] = field(default_factory=dict)
    notices: tuple[str, ...] = ()

    @property
    def sources(self) -> tuple[Source | None, Source | None]:
        """Optical and SAR as `gopt_geo.predict` takes them: several as a mosaic, None where there is none."""
        return one_source(self.optical), one_source(self.sar)


class SceneFinder(Protocol):
    """What finds the scenes of regions."""

    def find(self, area: BaseGeometry, crs: str) -> FoundScenes:
        """Find the scenes that show an area, given in a CRS that PROJ knows.

        Of the scenes that cover most of what is still uncovered the least cloudy is taken, then the one nearest in time
        to the first optical one; as many as are needed.

        Raises
        ------
        SourceError
            If a modality has none there, or what holds them can't be read.
        """
        ...


@dataclass(frozen=True)
class _Candidate:
    source: str
    geometry: BaseGeometry
    time: datetime | None
    clouds: float
    name: str


class IndexFinder:
    """Finds scenes in an index of footprints.

    Parameters
    ----------
    path
        See `FootprintIndex`.
    time
        When they were acquired (``2024-06-01/2024-06-30``, a day, a month, a year); scenes whose date isn't known don't
        count then. None: at any time.
    max_cloud
        Most cloud cover of optical scenes in percent, where the index has a column for it; one that states none is
        taken as cloudier than all.
    modalities
        What to look for; each must be found.
    allow_remote
        Whether the index may name URLs.

    Raises
    ------
    SourceError
        If the index can't be used.
    """

    def __init__(
        self,
        path: StrPath,
        *,
        time: str | None = None,
        max_cloud: float = MAX_CLOUD,
        modalities: Sequence[Modality] = _BOTH,
        allow_remote: bool = False,
    ) -> None:
        _check_cloud(max_cloud)
        self._time = parse_time(time) if time is not None else None
        self._max_cloud, self._modalities, self._allow_remote = max_cloud, tuple(modalities), allow_remote
        self._index = FootprintIndex(path, allow_remote=allow_remote)

    def find(self, area: BaseGeometry, crs: str) -> FoundScenes:
        """Find the scenes that show an area; see `SceneFinder.find`."""
        there = _transformed(area, crs, self._index.crs)
        candidates: dict[str, list[_Candidate]] = {modality: [] for modality in self._modalities}
        seen: dict[str, int] = dict.fromkeys(self._modalities, 0)
        for scene in self._index.near(there.bounds):
            if scene.modality not in candidates or not scene.geometry.intersects(there):
                continue
            seen[scene.modality] += 1
            unknown = 101.0 if self._index.has_clouds and scene.modality == "optical" else 0.0
            clouds = unknown if scene.clouds is None or scene.modality == "sar" else scene.clouds
            if clouds <= self._max_cloud and _within(scene.time, self._time):
                candidates[scene.modality].append(
                    _Candidate(scene.source, scene.geometry, scene.time, clouds, scene.subject)
                )
        found = _choose(candidates, seen, there, self._index.name)
        for modality in _BOTH:
            for source in getattr(found, modality):
                check_origin(source, self._index.name, self._allow_remote)
        return found


class CatalogFinder:
    """Finds Sentinel-2 and Sentinel-1 RTC scenes in a STAC API or a static catalogue.

    Parameters
    ----------
    catalog
        URL or path of the API (needs the extra ``stac``) or the catalogue.
    time
        When they were acquired: ``2024-06-01/2024-06-30``, a day, a month or a year.
    max_cloud
        Most cloud cover of optical scenes, in percent.
    collections
        Collections to look into; None: all of a static catalogue, those called after Sentinel-1 and -2 of an API.
    modalities
        What to look for; each must be found.
    allow_remote
        Whether catalogue and rasters may be on a server.

    Raises
    ------
    SourceError
        If the catalogue is on a server and may not be, or an option doesn't serve.
    """

    def __init__(
        self,
        catalog: StrPath,
        time: str,
        *,
        max_cloud: float = MAX_CLOUD,
        collections: Sequence[str] | None = None,
        modalities: Sequence[Modality] = _BOTH,
        allow_remote: bool = False,
    ) -> None:
        _check_cloud(max_cloud)
        self._catalog = address(catalog)
        if is_remote(self._catalog) and not allow_remote:
            raise SourceError(f"--catalog {self._catalog}", "it is read over the network", "use --allow-remote")
        self._time, self._max_cloud, self._allow_remote = parse_time(time), max_cloud, allow_remote
        self._collections = None if collections is None else tuple(collections)
        self._modalities = tuple(modalities)

    def find(self, area: BaseGeometry, crs: str) -> FoundScenes:
        """Find the scenes that show an area; see `SceneFinder.find`."""
        there = _transformed(area, crs, CRS.from_epsg(4326))
        listed = list_items(self._catalog, there, self._time, self._collections)
        items: dict[str, list[pystac.Item]] = {"optical": listed.optical, "sar": listed.sar}
        candidates: dict[str, list[_Candidate]] = {}
        for modality in self._modalities:
            found = [_of_item(item, modality) for item in items[modality]]
            candidates[modality] = [candidate for candidate in found if candidate.clouds <= self._max_cloud]
        seen: dict[str, int] = {modality: len(items[modality]) for modality in self._modalities}
        chosen = _choose(candidates, seen, there, self._catalog, listed.unread)
        for modality in _BOTH:
            for source in getattr(chosen, modality):
                check_origin(source, self._catalog, self._allow_remote)
        return chosen


def open_finder(
    catalog: StrPath,
    *,
    time: str | None = None,
    max_cloud: float = MAX_CLOUD,
    collections: Sequence[str] | None = None,
    modalities: Sequence[Modality] = _BOTH,
    allow_remote: bool = False,
) -> SceneFinder:
    """Open what ``--catalog`` names: an index of footprints by its ending, else a STAC catalogue.

    Raises
    ------
    SourceError
        If it can't be used, or an option doesn't go with it.
    """
    if Path(address(catalog)).suffix.lower() in INDEX_ENDINGS and not is_remote(catalog):
        if collections:
            raise SourceError("--collection", f"{catalog} is an index, which has none", "leave it out")
        return IndexFinder(catalog, time=time, max_cloud=max_cloud, modalities=modalities, allow_remote=allow_remote)
    if time is None:
        raise SourceError(f"--catalog {catalog}", "it needs --time", "add it, such as --time 2024-06")
    return CatalogFinder(
        catalog,
        time,
        max_cloud=max_cloud,
        collections=collections or None,
        modalities=modalities,
        allow_remote=allow_remote,
    )


def find_scenes(asked: Mapping[str, Any], area: str, crs: str) -> FoundScenes:
    """Find the scenes of an area by a finder that the process keeps.

    Parameters
    ----------
    asked
        Keywords of `open_finder`, plain values.
    area, crs
        As WKT, and its CRS.

    Raises
    ------
    SourceError
        See `SceneFinder.find` and `open_finder`.
    """
    place = Path(str(asked["catalog"]))
    state = place.stat() if place.is_file() else None
    written = None if state is None else (state.st_size, state.st_mtime_ns)
    return _kept_finder(json.dumps(dict(asked), sort_keys=True), written).find(shapely.from_wkt(area), crs)


@lru_cache(maxsize=2)  # it may hold a million footprints
def _kept_finder(asked: str, written: object) -> SceneFinder:
    """Open a finder once; anew where its file was written since."""
    del written
    options = json.loads(asked)
    return open_finder(options.pop("catalog"), **options)


def _check_cloud(max_cloud: float) -> None:
    if not 0 <= max_cloud <= 100:
        raise SourceError(f"--max-cloud {max_cloud:g}", "it isn't a share in percent", "give 0 to 100")


def _of_item(item: pystac.Item, modality: str) -> _Candidate:
    assert item.geometry is not None, "items without a place were left out"
    clouds = cloud_cover(item) if modality == "optical" else 0.0
    footprint = shapely.make_valid(shapely.geometry.shape(item.geometry))
    href = item.get_self_href()
    if href is None or not names_item(href):
        found = "it doesn't say where it can be read again" if href is None else f"{href} isn't where items are"
        raise SourceError(f"STAC item {item.id}", found, "name its rasters in an index instead")
    return _Candidate(href, footprint, item_time(item), 101.0 if clouds is None else clouds, item.id)


def _within(moment: datetime | None, wanted: TimeRange | None) -> bool:
    return wanted is None or (moment is not None and wanted.start <= moment <= wanted.end)


def _transformed(area: BaseGeometry, crs: str, target: CRS) -> BaseGeometry:
    """Bring an area to another CRS, its long edges bent as they have to be."""
    try:
        own = CRS.from_user_input(crs)
        if own.equals(target, ignore_axis_order=True):
            return area
        transformer = Transformer.from_crs(own, target, always_xy=True)
    except (CRSError, ProjError) as error:
        raise SourceError("region", f"its CRS {crs} can't be brought to the catalogue's", "use EPSG:4326") from error

    def forward(points: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.stack(transformer.transform(*points.T), axis=1)

    left, bottom, right, top = area.bounds
    moved = shapely.transform(shapely.segmentize(area, max(right - left, top - bottom) / _DENSIFY), forward)
    if not np.isfinite(shapely.get_coordinates(moved)).all():
        raise SourceError("region", "it has no place in the catalogue's CRS", "check its coordinates and CRS")
    return shapely.make_valid(moved)


def _choose(
    candidates: dict[str, list[_Candidate]],
    seen: dict[str, int],
    area: BaseGeometry,
    name: str,
    unread: Sequence[str] = (),
) -> FoundScenes:
    """Choose the scenes of each modality; one that has none is an error, one that leaves a gap a notice."""
    chosen: dict[str, tuple[str, ...]] = {}
    covered: dict[str, float] = {}
    notices = [f"{name}: {len(unread)} documents can't be read, such as {unread[0]}; passed over"] if unread else []
    near: datetime | None = None
    for modality, those in candidates.items():
        picked, share = _cover(those, area, near)
        if not picked:
            found = f"no {_CALLED[modality]} scene shows the region"
            if seen[modality]:
                found += f" in the time and below the cloud cover asked for ({seen[modality]} do otherwise)"
            raise SourceError(name, found, "widen --time, raise --max-cloud, or check the region's CRS")
        if share < COMPLETE:
            notices.append(
                f"{name}: {_CALLED[modality]} scenes show {100 * share:.0f} % of the region; the rest stays without"
            )
        near = near or picked[0].time
        chosen[modality] = tuple(candidate.source for candidate in picked)
        covered[modality] = share
    return FoundScenes(chosen.get("optical", ()), chosen.get("sar", ()), covered, tuple(notices))


def _cover(
    candidates: Sequence[_Candidate], area: BaseGeometry, near: datetime | None
) -> tuple[list[_Candidate], float]:
    """Pick scenes until they cover an area; return them, and the share that they cover."""
    left, picked, rest = area, list[_Candidate](), list(candidates)
    while rest and left.area > (1 - COMPLETE) * area.area:
        gains = [(one, float(left.intersection(one.geometry).area / area.area)) for one in rest]
        worth = [(one, gain) for one, gain in gains if gain >= _LEAST]
        if not worth:
            break
        around = near or (picked[0].time if picked else None)
        best, _ = min(worth, key=partial(_rank, near=around))
        rest = [one for one, _ in worth if one is not best]
        picked.append(best)
        left = left.difference(best.geometry)
    return picked, float(1 - left.area / area.area) if area.area else 0.0


def _rank(one: tuple[_Candidate, float], near: datetime | None) -> tuple[float, float, timedelta, str, str, str]:
    """Return by what scenes are compared; the smallest goes first."""
    scene, gain = one
    # Shares in steps of 0.1 %, so that rounding doesn't decide between scenes that show all.
    return -round(gain, 3), scene.clouds, _apart(scene.time, near), str(scene.time), scene.name, scene.source


def _apart(moment: datetime | None, near: datetime | None) -> timedelta:
    if near is None:
        return timedelta(0)
    return abs(moment - near) if moment is not None else timedelta.max
