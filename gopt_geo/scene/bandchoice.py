"""The choice of bands of one raster by number or name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from gopt_geo.errors import BandError

__all__ = ["choose_indexes", "listed"]


def choose_indexes(bands: Sequence[int | str], names: Mapping[int, str], source: str) -> tuple[int, ...]:
    """Return the 1-based indexes of bands in a raster.

    Parameters
    ----------
    bands
        Indexes or names; a name that is a number is meant as a name only where the raster has it.
    names
        Name of each data band by its index, "" where it has none.
    source
        The raster in messages.

    Raises
    ------
    BandError
        If a band isn't there, or a name isn't plain.
    """
    by_name: dict[str, list[int]] = {}
    for index, name in names.items():
        by_name.setdefault(name.casefold(), []).append(index)
    chosen = []
    for band in bands:
        found = by_name.get(str(band).casefold(), []) if isinstance(band, str) and band else []
        if len(found) > 1:
            raise BandError(source, f"several bands are called {band!r}", f"choose by index: {found}")
        if not found:
            index = int(band) if str(band).isdecimal() else 0
            found = [index] if index in names else []
        if not found:
            raise BandError(source, f"there is no band {band!r}", f"choose from {listed(names)}")
        chosen += found
    return tuple(chosen)


def listed(names: Mapping[int, str]) -> str:
    """Return a raster's data bands for a message: "bands 1 (B02), 2 (B03)"."""
    each = [f"{i} ({name})" if name else str(i) for i, name in names.items()]
    return "bands " + ", ".join(each) + ("" if any(names.values()) else " (without names)")
