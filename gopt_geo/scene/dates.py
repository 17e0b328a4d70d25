"""When images were acquired, as far as their names, tags and metadata tell, and whether that lies far apart."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import combinations
from pathlib import PurePath

__all__ = ["LIMIT", "Acquired", "acquired", "date_in_name", "date_in_tags", "far_apart"]

LIMIT = timedelta(days=30)
"""Images further apart than this are worth a warning."""

# Names that the producers lay down, with the day of acquisition, and its time where the name has one.
_NAMES = tuple(
    re.compile(pattern, re.IGNORECASE | re.ASCII)
    for pattern in (
        r"(?<![^\W_])S2[A-D]_MSIL(?:1B|1C|2A)_(\d{8})T(\d{5,6})_",
        r"(?<![^\W_])T\d\d[A-Z]{3}_(\d{8})T(\d{6})_(?:B\d|SCL|TCI|AOT|WVP)",
        r"(?<![^\W_])S1[A-D]_(?:IW|EW|WV|S\d)_(?:GRD|SLC|OCN|RAW)\w_\w{4}_(\d{8})T(\d{6})(?!\d)",
        r"(?<![^\W_])s1[a-d]-(?:iw|ew|wv|s\d)\d?-(?:grd|slc)-[vh]{2}-(\d{8})T(\d{6})-",
        r"(?<![^\W_])S1[A-D]_(?:IW|EW)_(\d{8})T(\d{6})_\w{3}_RTC\d\d_",
        r"OPERA_L2_RTC-S1_[\w-]+?_(\d{8})T(\d{6})Z_",
        r"(?<![^\W_])L[COTEM]\d\d_L[12]\w\w_\d{6}_(\d{8})()_\d{8}_\d\d_(?:RT|T1|T2)(?![^\W_])",
        r"(?<![^\W_])GF\d[A-Z]?_[\w.-]+_[EW]\d+\.\d+_[NS]\d+\.\d+_(\d{8})()_L\d",
    )
)
# The last is by its definition the date of the file; satellite data providers put that of the image there.
_TAGS = (
    "ACQUISITIONDATETIME",
    "ACQUISITIONDATE",
    "ACQUISITIONTIME",
    "ACQUISITIONSTARTTIME",
    "ACQUIRED",
    "DATEACQUIRED",
    "SENSINGTIME",
    "SENSINGSTART",
    "DATATAKE1DATATAKESENSINGSTART",
    "DATATAKESENSINGSTART",
    "PRODUCTSTARTTIME",
    "TIFFTAGDATETIME",
)


@dataclass(frozen=True)
class Acquired:
    """When a source was acquired.

    Attributes
    ----------
    first, last
        In UTC; different where the source is made of several images.
    origin
        What states it.
    """

    first: datetime
    last: datetime
    origin: str

    def __str__(self) -> str:
        days = sorted({self.first.date().isoformat(), self.last.date().isoformat()})
        return f"{' to '.join(days)} ({self.origin})"

    def apart(self, other: Acquired) -> timedelta:
        """Return the time from the end of the earlier to the begin of the later; 0 where they overlap."""
        return max(self.first - other.last, other.first - self.last, timedelta(0))


def date_in_name(name: str) -> datetime | None:
    """Return the moment of acquisition that a file's or folder's name states, by the naming rules of its producer.

    Sentinel-1 and -2, Landsat, GF and the RTC products of OPERA and HyP3 are known; any other number that looks like a
    date is left alone, for it may be that of the processing.
    """
    for pattern in _NAMES:
        if found := pattern.search(name):
            moment = _moment(found[1], found[2])
            if moment is not None:
                return moment
    return None


def _moment(day: str, time: str) -> datetime | None:
    for text, form in ((day + time, "%Y%m%d%H%M%S"), (day, "%Y%m%d")):
        try:
            if len(text) in (8, 14):
                return datetime.strptime(text, form).replace(tzinfo=UTC)
        except ValueError:
            continue
    return None


def date_in_tags(tags: Mapping[str, str]) -> tuple[datetime, str] | None:
    """Return the moment of acquisition that a file's tags state, and the tag."""
    by_key = {re.sub(r"[^A-Z0-9]", "", key.upper()): key for key in tags}
    for wanted in _TAGS:
        key = by_key.get(wanted)
        moment = _parsed(str(tags[key]).strip()) if key is not None else None
        if moment is not None and key is not None:
            return moment, key
    return None


def _parsed(text: str) -> datetime | None:
    text = re.sub(r"\A(\d{4}):(\d\d):(\d\d)(?!\d)", r"\1-\2-\3", text)  # TIFF's own form
    if not re.match(r"\d{4}-\d\d-\d\d|\d{8}(?!\d)", text, re.ASCII):
        return None
    try:
        moment = datetime.fromisoformat(text)
        return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    except (ValueError, OverflowError):
        return None


def acquired(paths: Iterable[str], tags: Sequence[Mapping[str, str]], known: datetime | None = None) -> Acquired | None:
    """Tell when a source was acquired.

    Parameters
    ----------
    paths
        Of its files, or its folder.
    tags
        Of its files.
    known
        What its metadata state (`.SAFE`, STAC item): this goes before all else, and tags before names.

    Returns
    -------
    None where nothing states it.
    """
    if known is not None:
        moment = known if known.tzinfo is not None else known.replace(tzinfo=UTC)
        return Acquired(moment, moment, "its metadata")
    tagged = [found for found in map(date_in_tags, tags) if found is not None]
    if tagged and len(tagged) == len(tags):
        moments = [moment for moment, _ in tagged]
        return Acquired(min(moments), max(moments), f"tag {tagged[0][1]}")
    named = [moment for moment in map(_in_path, paths) if moment is not None]
    return Acquired(min(named), max(named), "by name") if named else None


def _in_path(path: str) -> datetime | None:
    """Return what a file's name states, else its folder's."""
    place = PurePath(path.split("?")[0])
    return date_in_name(place.name) or date_in_name(place.parent.name)


def far_apart(found: Mapping[str, Acquired]) -> list[str]:
    """Return a warning for each two modalities that were acquired more than `LIMIT` apart."""
    lines = []
    for (one, first), (other, second) in combinations(found.items(), 2):
        apart = first.apart(second)
        if apart > LIMIT:
            lines.append(
                f"warning: {one} was acquired {first}, {other} {second}: {apart.days} days apart, in which the ground"
                " may have changed"
            )
    return lines
