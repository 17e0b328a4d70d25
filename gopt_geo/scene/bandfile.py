"""One band in a file of its own, and the choice among several."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from gopt_geo.errors import BandError
from gopt_geo.scene.bandnames import find_band, lacking

__all__ = ["BandFile", "choose_bands", "find_file"]

_LISTED = 12  # names in a message


@dataclass(frozen=True)
class BandFile:
    """One band of a source made of several files.

    Attributes
    ----------
    name
        As the sensor calls it, "B04"; "" where nothing states it.
    path
        File, or URL.
    index
        1-based index of the band in the file; None where it must be the only one.
    scale, offset
        physical = stored * scale + offset; None takes the file's tags.
    nodata
        Stored value that means no data, in addition to what the file declares.
    names
        Its further names in small letters, in ranks: those of an earlier rank go first.
    """

    name: str
    path: str
    index: int | None = None
    scale: float | None = None
    offset: float | None = None
    nodata: float | None = None
    names: tuple[frozenset[str], ...] = ()


def find_file(wanted: str, files: Sequence[BandFile]) -> list[int]:
    """Return which of `files` (positions from 0) are the band `wanted`: by their names, rank for rank."""
    key = wanted.casefold()
    for rank in range(max((len(file.names) for file in files), default=0)):
        found = [i for i, file in enumerate(files) if rank < len(file.names) and key in file.names[rank]]
        if found:
            return found
    return find_band(wanted, [file.name for file in files])


def choose_bands(
    files: Sequence[BandFile],
    bands: Sequence[int | str] | None,
    band_names: Sequence[str],
    count: int | None,
    name: str,
    option: str,
) -> list[BandFile]:
    """Choose a source's bands in the order the pack wants.

    Parameters
    ----------
    files
        What there is.
    bands
        As the user names them, by number from 1 or name; None goes by `band_names`, else takes all if there are
        `count`.
    band_names, count
        The pack's; a count of None takes any.
    name, option
        The source and the option of its bands in messages.

    Raises
    ------
    BandError
        If a band isn't there or not plain, or their number isn't the pack's.
    """
    wanted: Sequence[int | str] | None = bands
    if wanted is None and band_names and all(find_file(band, files) for band in band_names):
        wanted = band_names
    if wanted is None:
        wanted = range(1, len(files) + 1)
    named = [file.name for file in files]
    if bands is None and count is not None and (fault := lacking(band_names, named)) is not None:
        raise BandError(name, fault, f"the pack expects {', '.join(band_names)}; choose others with {option}")
    listed = ", ".join(file.name or Path(file.path).name for file in files[:_LISTED])
    listed += f" and {len(files) - _LISTED} more" if len(files) > _LISTED else ""
    if count is not None and len(wanted) != count:
        known = f" ({', '.join(band_names)})" if band_names else ""
        found = f"{len(wanted)} bands, the pack expects {count}{known}"
        raise BandError(name, found, f"choose with {option} from {listed}")
    chosen = []
    for band in wanted:
        found_at = find_file(band, files) if isinstance(band, str) else []
        if not found_at and str(band).isdecimal() and 1 <= int(band) <= len(files):
            found_at = [int(band) - 1]
        if not found_at:
            raise BandError(name, f"there is no band {band!r}", f"choose with {option} from {listed}")
        if len(found_at) > 1:
            same = ", ".join(Path(files[i].path).name for i in found_at[:3])
            raise BandError(name, f"several files are band {band!r} ({same})", "name the files, with commas in between")
        chosen.append(files[found_at[0]])
    return chosen
