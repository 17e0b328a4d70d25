"""Names of bands: how they stand in file names, and which names mean the same band."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import PurePath
from typing import Literal

from gopt_geo.scene.sensors import Sensor, sensor

__all__ = ["SCENE_CLASSES", "band_in_file_name", "find_band", "kind_of", "lacking", "names_of"]

SCENE_CLASSES = "SCL"
"""Name of Sentinel-2's scene classification among band files."""

_POLARISATIONS = frozenset(("vv", "vh", "hh", "hv"))
_TOKEN = re.compile(
    r"(B\d{1,2}|B8A|VV|VH|HH|HV|RED|GREEN|BLUE|NIR|NIR0[89]|SWIR16|SWIR22|COASTAL|REDEDGE\d|SCL)",
    re.IGNORECASE | re.ASCII,
)


def band_in_file_name(path: str) -> str | None:
    """Return the band that a file's name states: "B8A" of T31TCJ_20240601_B8A_20m.jp2; None where it states none.

    Of several, the last counts: what comes first is place and date.
    """
    parts = re.split(r"[^0-9A-Za-z]+", PurePath(path.split("?")[0]).stem)
    found = [part for part in parts if _TOKEN.fullmatch(part)]
    return found[-1].upper() if found else None


def kind_of(bands: Sequence[str]) -> Literal["optical", "sar"] | None:
    """Tell from the names of all bands of a raster whether it is optical or SAR; None where they don't say."""
    names = [band.casefold() for band in bands if band]
    if len(names) < len(bands) or not names:
        return None
    if all(name in _POLARISATIONS for name in names):
        return "sar"
    return "optical" if all(_TOKEN.fullmatch(name) and name not in _POLARISATIONS for name in names) else None


def lacking(wanted: Sequence[str], bands: Sequence[str], profile: Sensor | None = None) -> str | None:
    """Say which wanted bands aren't there, or several times, among bands that are all called by names sensors use.

    None where the names say nothing (a raster whose bands have none, or names of its own), or where all are there once.
    """
    if not wanted or not bands or not all(band and _TOKEN.fullmatch(band) for band in bands):
        return None
    counts = [len(find_band(band, bands, profile)) for band in wanted]
    missing = [band for band, count in zip(wanted, counts, strict=True) if count == 0]
    if missing:
        return f"there is no band {', '.join(missing)}"
    twice = [band for band, count in zip(wanted, counts, strict=True) if count > 1]
    return f"several bands are {', '.join(twice)}" if twice else None


def names_of(band: str, among: Iterable[str], profile: Sensor | None = None) -> set[str]:
    """Return all names of a band, in lower case: its own, without leading zero, and the common ones ("red").

    Parameters
    ----------
    band
        As a file or sensor calls it.
    among
        The names beside it: B04 to B8A are Sentinel-2's, B4 and B5 without zeros are Landsat's, whose B5 is near
        infrared.
    profile
        The sensor where it is known; `among` doesn't matter then.
    """
    own = band.casefold()
    names = {own, re.sub(r"(?<=\bb)0(?=\d$)", "", own)}
    profile = profile or _seeming(among)
    return (names | (profile.names_of(band) if profile is not None else set())) - {""}


def _seeming(among: Iterable[str]) -> Sensor | None:
    """Return the profile with all the bands of the sensor that uses such names."""
    names = [name.casefold() for name in among]
    if any(re.fullmatch(r"b0\d|b8a|b12", name) for name in names):
        return sensor("sentinel-2-l1c")
    if any(re.fullmatch(r"b[1-9]", name) for name in names):
        return sensor("landsat-8-9-l1")
    return None


def find_band(wanted: str, bands: Sequence[str], profile: Sensor | None = None) -> list[int]:
    """Return which of `bands` (positions from 0) are called `wanted`: by their own names, else by other names.

    Parameters
    ----------
    wanted
        A name, upper and lower case alike.
    bands
        Names of the bands there are, "" where one has none.
    profile
        See `names_of`.
    """
    key = wanted.casefold()
    own = [i for i, band in enumerate(bands) if band and band.casefold() == key]
    return own or [i for i, band in enumerate(bands) if band and key in names_of(band, bands, profile)]
