"""What a source says of itself: its sensor and when it was acquired."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from gopt_geo.errors import RadiometryError
from gopt_geo.scene.bandfile import BandFile
from gopt_geo.scene.bandfiles import Source, is_item, read_item
from gopt_geo.scene.dates import Acquired, acquired
from gopt_geo.scene.landsat import sun_corrected, sun_elevation
from gopt_geo.scene.sensors import Sensor, find_sensor, sensor
from gopt_geo.scene.source import PixelSource

if TYPE_CHECKING:
    import pystac

__all__ = ["Identity", "asked_sensor", "identify", "sensor_option", "stated_sensor"]

_LEVELS = {"L1C": "sentinel-2-l1c", "L2A": "sentinel-2-l2a"}
Statement = tuple[Sensor, Literal["tag", "name", "item", "metadata"], str]


@dataclass(frozen=True)
class Identity:
    """What is known of a source besides its pixels.

    Attributes
    ----------
    profile
        Its sensor, as asked for or as it says itself; None where neither.
    acquired
        None where nothing tells.
    notices
        What was taken for granted.
    """

    profile: Sensor | None
    acquired: Acquired | None
    notices: list[str]


def sensor_option(modality: str) -> str:
    """Return the option that names a modality's sensor."""
    return "--sensor" if modality == "optical" else f"--{modality}-sensor"


def asked_sensor(modality: str, name: str | None) -> Sensor | None:
    """Return the profile that the user asks for; None where none is.

    Raises
    ------
    RadiometryError
        If there is none of this name for this modality.
    """
    if name is None:
        return None
    return sensor(name, "sar" if modality == "sar" else "optical", sensor_option(modality))


def stated_sensor(path: str, tags: Mapping[str, str]) -> Sensor | None:
    """Return the sensor that a raster says it is of; None where it doesn't."""
    found = find_sensor(tags, path)
    return None if found is None else found[0]


def identify(
    modality: str,
    path: Source | Sequence[BandFile],
    asked: Sensor | None,
    sources: Sequence[PixelSource],
    files: Sequence[str],
    known: datetime | None = None,
) -> Identity:
    """Tell a source's sensor and date.

    Parameters
    ----------
    modality
        Its modality, for messages.
    path
        As it was given.
    asked
        The sensor that the user names.
    sources
        Its opened groups of bands.
    files
        Paths of its files.
    known
        When it was acquired, where that is known already (from a catalog).

    Raises
    ------
    RadiometryError
        If the source says that it is of another sensor than the one asked for.
    """
    name, option = sources[0].name, sensor_option(modality)
    notices: list[str] = []
    stated, moment = _product(path)
    if stated is None:
        stated = find_sensor(sources[0].file_tags, files[0] if files else "")
    if stated is not None and asked is not None and _contradicts(asked, stated[0], sources[0].dtype):
        found = f"it is {stated[0].name} by {stated[2]}, {option} says {asked.name}"
        raise RadiometryError(name, found, f"leave {option} out")
    if stated is not None and asked is None and stated[1] == "name":
        notices.append(f"{name}: taken as {stated[0].name} by its name (say {option} otherwise)")
    when = acquired(files, [source.file_tags for source in sources], known or moment)
    return Identity(_of_this_scene(asked or (stated[0] if stated is not None else None), files), when, notices)


def _of_this_scene(profile: Sensor | None, files: Sequence[str]) -> Sensor | None:
    """Return the profile with what the scene's own metadata add to it."""
    if profile is None or not files or not any(stored.awaits_sun for stored in profile.stored):
        return profile
    elevation = sun_elevation(files[0])
    return profile if elevation is None else sun_corrected(profile, elevation)


def _product(path: Source | Sequence[BandFile]) -> tuple[Statement | None, datetime | None]:
    """Return sensor and date of a Sentinel-2 product or a STAC item, None for what it doesn't tell."""
    if is_item(path):
        return _of_item(path)
    if not isinstance(path, str | PathLike):
        return None, None
    item = read_item(path)
    if is_item(item):
        return _of_item(item)
    from gopt_geo.scene.safe import is_safe, read_safe

    if is_safe(Path(path)):
        product = read_safe(Path(path))
        return (sensor(_LEVELS[product.level]), "metadata", "its metadata"), product.acquired
    return None, None


def _of_item(item: pystac.Item) -> tuple[Statement | None, datetime | None]:
    from gopt_geo.scene.stac import is_rtc, item_time

    found = find_sensor({}, collection=item.collection_id or "")
    if found is None and is_rtc(item):
        found = sensor("sentinel-1-rtc"), "item", "its item"
    return found, item_time(item)


def _contradicts(asked: Sensor, stated: Sensor, dtype: np.dtype[Any]) -> bool:
    """Tell whether the sensor that a file states has something to say about its values, and isn't the one asked for."""
    return asked != stated and not asked.generic and stated.values_of(dtype) is not None
