"""Sentinel-2 `.SAFE` folders: their bands, scales and offsets, as the product's metadata state them."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from gopt_geo.errors import RadiometryError, SourceError
from gopt_geo.scene.bandfile import BandFile
from gopt_geo.scene.sensors import sensor

__all__ = ["SafeProduct", "is_safe", "read_safe"]

_BANDS = ("B01", "B02", "B03", "B04", "B05", "B06", "B07", "B08", "B8A", "B09", "B10", "B11", "B12")  # by band_id
_IMAGE = re.compile(r"_(B\d[0-9A]|SCL)(?:_(10|20|60)m)?\.jp2", re.ASCII)
_OFFSETS_SINCE = (4, 0)
_NODATA = 0.0
_LARGEST = 64 << 20  # bytes of metadata; real ones have some 50 KB
_WHOLE = "get the product again, whole"


@dataclass(frozen=True)
class SafeProduct:
    """What a `.SAFE` folder holds.

    Attributes
    ----------
    level
        "L1C" or "L2A".
    baseline
        Processing baseline, such as "05.10".
    bands
        The spectral bands that are there, in the sensor's order, each at its finest resolution; reflectance is
        stored * scale + offset.
    scene_classes
        The scene classification (level 2A), None where it isn't there.
    acquired
        When sensing began, in UTC; None where the metadata don't state it.
    """

    level: str
    baseline: str
    bands: tuple[BandFile, ...]
    scene_classes: Path | None
    acquired: datetime | None


def is_safe(folder: Path) -> bool:
    """Tell whether a folder is, or is meant to be, a `.SAFE` product."""
    return folder.is_dir() and (folder.suffix.casefold() == ".safe" or any(folder.glob("MTD_MSIL*.xml")))


def read_safe(folder: Path) -> SafeProduct:
    """Read a product's metadata and find its bands.

    Raises
    ------
    SourceError
        If the metadata are missing, damaged or of another mission, offsets are due but not stated, the product has
        several granules, or no band is there.
    RadiometryError
        If it is a Sentinel-1 product, whose values aren't calibrated.
    """
    if re.match(r"S1[A-D]_", folder.name.upper()) or any(folder.glob("measurement/s1*.tif*")):
        digital = sensor("sentinel-1-grd").stored[0].refused
        assert digital is not None
        raise RadiometryError(folder, digital.found, digital.remedy)
    metadata = sorted(folder.glob("MTD_MSIL*.xml"))
    if len(metadata) != 1:
        found = f"there are {len(metadata) or 'no'} files MTD_MSIL1C.xml or MTD_MSIL2A.xml"
        raise SourceError(folder, f"it isn't a Sentinel-2 product: {found}", f"give a .SAFE folder; or {_WHOLE}")
    root = _parse(metadata[0])
    level = "L1C" if "L1C" in metadata[0].name else "L2A"
    baseline = _text(root, "PROCESSING_BASELINE") or ""
    stated = re.match(r"(\d+)\.(\d+)", baseline)
    if stated is None:
        raise SourceError(metadata[0], "it states no PROCESSING_BASELINE", _WHOLE)
    files = _images(folder)
    spectral = [name for name in _BANDS if name in files]
    if not spectral:
        found = "it has no bands (no *_B??.jp2 under GRANULE/*/IMG_DATA)"
        raise SourceError(folder, found, _WHOLE)
    quantum = _number(root, "QUANTIFICATION_VALUE" if level == "L1C" else "BOA_QUANTIFICATION_VALUE", metadata[0])
    offsets = _offsets(root, "RADIO_ADD_OFFSET" if level == "L1C" else "BOA_ADD_OFFSET", metadata[0])
    due = (int(stated[1]), int(stated[2])) >= _OFFSETS_SINCE
    missing = [name for name in spectral if name not in offsets] if due or offsets else []
    if missing:
        found = f"processing baseline {baseline} adds an offset, and none is stated for {', '.join(missing)}"
        raise SourceError(metadata[0], found, _WHOLE)
    bands = tuple(
        BandFile(name, str(files[name]), scale=1 / quantum, offset=offsets.get(name, 0.0) / quantum, nodata=_NODATA)
        for name in spectral
    )
    return SafeProduct(level, baseline, bands, files.get("SCL"), _acquired(root))


def _parse(path: Path) -> ET.Element:
    """Parse metadata; a document type, which could define entities without end, is refused."""
    try:
        if path.stat().st_size > _LARGEST:
            raise SourceError(path, f"metadata of {path.stat().st_size} bytes", _WHOLE)
        content = path.read_bytes()
        # In any encoding that expat reads, a declaration begins with these letters, perhaps with zeros in between.
        if b"<!DOCTYPE" in content.replace(b"\0", b""):
            raise SourceError(path, "it defines a document type, which these metadata don't", _WHOLE)
        return ET.fromstring(content)
    except ET.ParseError as error:
        raise SourceError(path, f"it isn't valid XML ({error})", _WHOLE) from error
    except OSError as error:
        raise SourceError(path, f"it can't be read ({error.strerror})", "check the folder's permissions") from error


def _find(root: ET.Element, tag: str) -> list[ET.Element]:
    """Find elements by name; their namespace differs from version to version."""
    return [element for element in root.iter() if element.tag.rpartition("}")[2] == tag]


def _text(root: ET.Element, tag: str) -> str | None:
    found = _find(root, tag)
    return (found[0].text or "").strip() or None if found else None


def _number(root: ET.Element, tag: str, path: Path) -> float:
    text = _text(root, tag)
    try:
        value = float(text or "")
    except ValueError:
        value = 0.0
    if not 0 < value < float("inf"):
        raise SourceError(path, f"{tag} is {text or 'missing'}, not a positive number", _WHOLE)
    return value


def _offsets(root: ET.Element, tag: str, path: Path) -> dict[str, float]:
    """Offset of the digital numbers by band."""
    offsets = {}
    for element in _find(root, tag):
        try:
            offsets[_BANDS[int(element.get("band_id", ""))]] = float(element.text or "")
        except (ValueError, IndexError) as error:
            raise SourceError(path, f"a {tag} can't be read ({error})", _WHOLE) from error
    return offsets


def _images(folder: Path) -> dict[str, Path]:
    """Find each band's finest image."""
    granules: set[str] = set()
    found: dict[str, tuple[int, Path]] = {}
    for path in sorted(folder.glob("GRANULE/*/IMG_DATA/**/*.jp2")):
        match = _IMAGE.search(path.name)
        if match is None:
            continue
        granules.add(path.relative_to(folder).parts[1])
        size = int(match[2] or 0)
        if match[1] not in found or size < found[match[1]][0]:
            found[match[1]] = size, path
    if len(granules) > 1:
        remedy = "give the band files of one granule, GRANULE/*/IMG_DATA"
        raise SourceError(folder, f"it has {len(granules)} granules", remedy)
    return {name: path for name, (_, path) in found.items()}


def _acquired(root: ET.Element) -> datetime | None:
    from datetime import UTC

    text = _text(root, "DATATAKE_SENSING_START") or _text(root, "PRODUCT_START_TIME")
    try:
        moment = datetime.fromisoformat(text or "")
    except ValueError:
        return None
    return moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)
