"""Names of bands: how they stand in file names, and which names mean the same band."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import PurePath

__all__ = ["SCENE_CLASSES", "band_in_file_name", "find_band", "names_of"]

SCENE_CLASSES = "SCL"
"""Name of Sentinel-2's scene classification among band files."""

_TOKEN = re.compile(r"(B\d{1,2}|B8A|VV|VH|HH|HV|RED|GREEN|BLUE|NIR|SCL)", re.IGNORECASE | re.ASCII)
_SENTINEL2 = {
    "b1": "coastal", "b2": "blue", "b3": "green", "b4": "red", "b5": "rededge1", "b6": "rededge2", "b7": "rededge3",
    "b8": "nir", "b8a": "nir08", "b9": "watervapour", "b10": "cirrus", "b11": "swir16", "b12": "swir22",
}  # fmt: skip
_LANDSAT = {
    "b1": "coastal", "b2": "blue", "b3": "green", "b4": "red", "b5": "nir", "b6": "swir16", "b7": "swir22",
    "b8": "pan", "b9": "cirrus", "b10": "lwir11", "b11": "lwir12",
}  # fmt: skip


def band_in_file_name(path: str) -> str | None:
    """Return the band that a file's name states: "B8A" of T31TCJ_20240601_B8A_20m.jp2; None where it states none.

    Of several, the last counts: what comes first is place and date.
    """
    parts = re.split(r"[^0-9A-Za-z]+", PurePath(path.split("?")[0]).stem)
    found = [part for part in parts if _TOKEN.fullmatch(part)]
    return found[-1].upper() if found else None


def names_of(band: str, among: Iterable[str]) -> set[str]:
    """Return all names of a band, in lower case: its own, without leading zero, and by colour.

    Parameters
    ----------
    band
        As a file or sensor calls it.
    among
        The names beside it: B04 to B8A are Sentinel-2's, B4 and B5 without zeros are Landsat's, whose B5 is near
        infrared.
    """
    own = band.casefold()
    short = re.sub(r"(?<=\bb)0(?=\d$)", "", own)
    sentinel2 = any(re.fullmatch(r"b0\d|b8a|b12", name.casefold()) for name in among)
    landsat = not sentinel2 and any(re.fullmatch(r"b[1-9]", name.casefold()) for name in among)
    colours = _SENTINEL2 if sentinel2 else _LANDSAT if landsat else {}
    names = {own, short} | ({colours[short]} if short in colours else set())
    return names - {""}


def find_band(wanted: str, bands: Sequence[str]) -> list[int]:
    """Return which of `bands` (positions from 0) are called `wanted`: by their own names, else by other names."""
    key = wanted.casefold()
    own = [i for i, band in enumerate(bands) if band and band.casefold() == key]
    return own or [i for i, band in enumerate(bands) if band and key in names_of(band, bands)]
