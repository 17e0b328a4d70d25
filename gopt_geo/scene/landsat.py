"""Landsat's level 1: the sun's elevation, which its reflectance is still to be divided by."""

from __future__ import annotations

import math
import re
from pathlib import Path

from gopt_geo.scene.sensors import Sensor

__all__ = ["sun_corrected", "sun_elevation"]

_BAND = re.compile(r"(.+_02_(?:RT|T1|T2))_B\d{1,2}\.TIF", re.IGNORECASE)
_ELEVATION = re.compile(r"^\s*SUN_ELEVATION\s*=\s*([-+.\dEe]+)\s*$", re.MULTILINE)
_LARGEST = 1 << 20  # bytes; real ones have some 20 KB


def sun_elevation(band: str) -> float | None:
    """Return the sun's elevation in degrees from the metadata (_MTL.txt) beside a band's file.

    None where the file isn't called as USGS calls it, or has no such metadata.
    """
    path = Path(band)
    named = _BAND.fullmatch(path.name)
    if named is None:
        return None
    try:
        with path.with_name(f"{named[1]}_MTL.txt").open(encoding="ascii", errors="replace") as file:
            found = _ELEVATION.search(file.read(_LARGEST))
        elevation = float(found[1]) if found is not None else 0.0
    except (OSError, ValueError):
        return None
    return elevation if 0 < elevation <= 90 else None


def sun_corrected(profile: Sensor, elevation: float) -> Sensor:
    """Return the profile of a scene whose sun stood at an elevation (degrees): values that await it are divided."""
    factor = 1 / math.sin(math.radians(elevation))
    stored = tuple(
        values.model_copy(
            update={
                "scale": values.scale * factor,
                "offset": values.offset * factor,
                "awaits_sun": False,
                "note": None,
            }
        )
        if values.awaits_sun
        else values
        for values in profile.stored
    )
    low, high = profile.valid_range
    return profile.model_copy(update={"stored": stored, "valid_range": (low * factor, high * factor)})
