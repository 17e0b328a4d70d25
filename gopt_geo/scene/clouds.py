"""Cloud masks: Sentinel-2's scene classification, Landsat's QA bits, or a raster that isn't 0 where clouds are."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from os import PathLike
from pathlib import Path, PurePath
from typing import Any, Literal, cast, get_args

import numpy as np
from numpy.typing import NDArray

from gopt_geo.errors import BandError, GoptGeoError, SourceError
from gopt_geo.grid import GeoBox, Window
from gopt_geo.scene.bandfile import BandFile
from gopt_geo.scene.bandfiles import Source, band_files
from gopt_geo.scene.bandnames import find_band
from gopt_geo.scene.footprint import surely_blank
from gopt_geo.scene.source import PixelSource, RasterSource
from gopt_geo.scene.unchanged import check_unchanged
from gopt_geo.scene.warp import AlignedSource

__all__ = ["ClearSource", "CloudKind", "CloudMask", "CloudSource", "find_mask"]

CloudKind = Literal["scl", "qa-pixel", "mask"]

SCL_HIDDEN = (0, 1, 3, 8, 9, 10)
"""Classes of the scene classification that count as missing: no data, saturated or defective, cloud shadow, cloud of
medium and of high probability, thin cirrus. Dark areas (2), vegetation, bare soil, water, unclassified (7) and snow
(11) are kept."""
_SCL_LAST = 11

QA_HIDDEN = 0b11111
"""Bits of Collection 2's QA_PIXEL that count as missing: fill, dilated cloud, cirrus, cloud, cloud shadow. Snow, water
and the confidences are kept."""

_QA_LAST = 0xFFFF

KEYWORDS: dict[str, CloudKind] = {"SCL": "scl", "QA_PIXEL": "qa-pixel"}
"""Words that stand for a band of the optical source itself."""

_IN_NAME: dict[CloudKind, re.Pattern[str]] = {
    "scl": re.compile(r"(?<![^\W_])SCL(?![^\W_])", re.IGNORECASE),
    "qa-pixel": re.compile(r"(?<![^\W_])QA_?PIXEL(?![^\W_])", re.IGNORECASE),
}
_CALLED: dict[CloudKind, str] = {"scl": "a scene classification", "qa-pixel": "QA_PIXEL of Landsat", "mask": "a mask"}


@dataclass(frozen=True)
class CloudMask:
    """A raster that tells where optical pixels are not to be used.

    Attributes
    ----------
    path
        Its file; or "SCL" or "QA_PIXEL", which stand for that band of the optical source.
    kind
        "scl", "qa-pixel" or "mask" (hidden where it isn't 0); None goes by the keyword, else by the name of file and
        band, else takes "mask".
    band
        Band by 1-based index or name; None where the file has but one.
    """

    path: str | PathLike[str]
    kind: CloudKind | None = None
    band: int | str | None = None

    def __post_init__(self) -> None:
        if self.kind not in (None, *get_args(CloudKind)):
            found = "there is no such kind of cloud mask"
            raise GoptGeoError(f"--cloud-mask-kind {self.kind}", found, f"use {', '.join(get_args(CloudKind))}")

    @property
    def keyword(self) -> str | None:
        """The keyword in capitals, None for a file."""
        word = str(self.path).upper()
        return word if word in KEYWORDS else None


class CloudSource:
    """A cloud mask on its own grid: 1 where pixels are hidden, 0 where the ground is clear.

    Parameters
    ----------
    mask
        From `find_mask`, its kind known.

    Raises
    ------
    BandError
        If it isn't one band of integers.
    SourceError
        If it can't be opened, or its integers can't hold such values.
    """

    def __init__(self, mask: CloudMask) -> None:
        self.kind: CloudKind = mask.kind or "mask"
        self._file = RasterSource(mask.path, None if mask.band is None else [mask.band], honour_nodata=False)
        self.name: str = self._file.name
        self.grid: GeoBox = self._file.grid
        self.count = 1
        self.tags, self.band_names, self.file_tags = self._file.tags, self._file.band_names, self._file.file_tags
        self.control, self.not_placed, self.has_palette = self._file.control, self._file.not_placed, False
        self.dtype: np.dtype[Any] = self._file.dtype
        try:
            self._check()
        except BaseException:
            self._file.close()
            raise

    def _check(self) -> None:
        bands = "1 band" if self._file.count == 1 else f"{self._file.count} bands"
        if self._file.count != 1 or self.dtype.kind not in "iub":
            found = f"a mask is one band of integers, this has {bands} of {self.dtype}"
            raise BandError(self.name, found, "give a raster that is 0 where the ground is clear")
        if self.kind == "qa-pixel" and self.dtype.itemsize < 2:
            found = f"QA_PIXEL has 16 bits, this is {self.dtype}"
            raise SourceError(self.name, found, "say what it is with --cloud-mask-kind scl|mask")

    def read(self, window: Window) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """Read a window, which may hang over the edges; beyond them nothing is hidden.

        Raises
        ------
        SourceError
            If the bytes are damaged, or a value isn't a class of the scene classification.
        """
        stored, inside = self._file.read(window)
        hidden = _DECODERS[self.kind](stored[0].astype(np.int64), self.name) & inside
        return hidden[None].astype(np.float32), inside

    def check_unchanged(self) -> None:
        """Raise SourceError if the file has changed since it was opened."""
        self._file.check_unchanged()

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def _scene_classes(values: NDArray[np.int64], name: str) -> NDArray[np.bool_]:
    strange = (values < 0) | (values > _SCL_LAST)
    if strange.any():
        found = f"{values[strange][0]} is no class of the scene classification, which has 0 to {_SCL_LAST}"
        raise SourceError(name, found, "say what it is with --cloud-mask-kind qa-pixel|mask")
    return np.isin(values, SCL_HIDDEN)


def _qa_bits(values: NDArray[np.int64], name: str) -> NDArray[np.bool_]:
    strange = (values < 0) | (values > _QA_LAST)
    if strange.any():
        found = f"{values[strange][0]} is no value of QA_PIXEL, which has 16 bits"
        raise SourceError(name, found, "say what it is with --cloud-mask-kind scl|mask")
    return cast("NDArray[np.bool_]", (values & QA_HIDDEN) != 0)


def _any_value(values: NDArray[np.int64], name: str) -> NDArray[np.bool_]:
    del name
    return cast("NDArray[np.bool_]", values != 0)


_DECODERS: dict[CloudKind, Callable[[NDArray[np.int64], str], NDArray[np.bool_]]] = {
    "scl": _scene_classes,
    "qa-pixel": _qa_bits,
    "mask": _any_value,
}


class ClearSource:
    """A source without its pixels under clouds, so that no kernel mixes them into their neighbours.

    Parameters
    ----------
    source
        The source; its grid must not change any more.
    clouds
        The mask on the source's grid.
    """

    def __init__(self, source: PixelSource, clouds: AlignedSource) -> None:
        self._source, self._clouds = source, clouds
        self.name, self.grid, self.count, self.dtype = source.name, source.grid, source.count, source.dtype
        self.tags, self.band_names, self.file_tags = source.tags, source.band_names, source.file_tags
        self.control, self.not_placed, self.has_palette = source.control, source.not_placed, source.has_palette

    def read(self, window: Window) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """Read a window, which may hang over the edges; pixels under clouds are invalid, and 0."""
        values, valid = self._source.read(window)
        hidden, _ = self._clouds.read(window)
        valid = valid & (hidden[0] == 0)
        return np.where(valid, values, np.float32(0)), valid

    def blank(self, window: Window) -> bool:
        """Return True only if surely no pixel of a window is valid; the clouds aren't looked at."""
        return surely_blank(self._source, window)

    def check_unchanged(self) -> None:
        """Raise SourceError if a file has changed since it was opened."""
        check_unchanged([self._source, self._clouds])

    def close(self) -> None:
        """Drop the cache and close all files."""
        self._source.close()
        self._clouds.close()


def find_mask(
    mask: str | PathLike[str] | CloudMask, source: Source | Sequence[BandFile]
) -> tuple[CloudMask, list[str]]:
    """Find the file of a cloud mask, and what kind it is of.

    Parameters
    ----------
    mask
        As the user gives it.
    source
        The optical source, which a keyword is about.

    Returns
    -------
    mask : CloudMask
        With a file and a kind.
    notices : list of str
        What was taken for granted.

    Raises
    ------
    SourceError
        If the optical source doesn't have the band that a keyword stands for.
    GoptGeoError
        If a kind is given that the keyword contradicts.
    """
    given = mask if isinstance(mask, CloudMask) else CloudMask(mask)
    if given.keyword is None:
        return _with_kind(given)
    kind = KEYWORDS[given.keyword]
    if given.kind not in (None, kind):
        found = f"{given.keyword} of the optical source is of the kind {kind}"
        raise GoptGeoError(f"--cloud-mask-kind {given.kind}", found, "leave it out")
    path, band = _own_band(given.keyword, source)
    return CloudMask(path, kind, band), []


def _with_kind(mask: CloudMask) -> tuple[CloudMask, list[str]]:
    if mask.kind is not None:
        return mask, []
    names = [PurePath(str(mask.path).split("?")[0]).stem]
    if mask.band is None:
        with RasterSource(mask.path, honour_nodata=False) as file:
            names += file.band_names if file.count == 1 else ()
    else:
        names.append(str(mask.band))
    for kind, pattern in _IN_NAME.items():
        if any(pattern.search(name) for name in names):
            said = f"{mask.path}: taken as {_CALLED[kind]} by its name (say --cloud-mask-kind otherwise)"
            return replace(mask, kind=kind), [said]
    return replace(mask, kind="mask"), []


def _own_band(keyword: str, source: Source | Sequence[BandFile]) -> tuple[str, int | str | None]:
    """Return the file, and the band in it, that a keyword stands for."""
    from gopt_geo.scene.safe import is_safe, read_safe

    path = Path(source) if isinstance(source, str | PathLike) else None
    if path is not None and path.is_dir():
        if is_safe(path):
            classes = read_safe(path).scene_classes if keyword == "SCL" else None
            found: list[tuple[str, int | str | None]] = [] if classes is None else [(str(classes), None)]
        else:
            pattern = _IN_NAME[KEYWORDS[keyword]]
            there = sorted(p for p in path.iterdir() if p.is_file() and pattern.search(p.stem))
            found = [(str(p), None) for p in there if p.suffix.casefold() in (".tif", ".tiff", ".jp2", ".vrt", ".img")]
    else:
        found = _among(keyword, source)
    name = str(source) if path is not None else "the optical source"
    if not found:
        remedy = "give a file: --cloud-mask FILE --cloud-mask-kind scl|qa-pixel|mask"
        raise SourceError(name, f"it has no {keyword}, which --cloud-mask {keyword} asks for", remedy)
    if len(found) > 1:
        names = ", ".join(PurePath(file).name for file, _ in found[:3])
        raise SourceError(name, f"several files are {keyword} ({names})", "name one: --cloud-mask FILE")
    return found[0]


def _among(keyword: str, source: Source | Sequence[BandFile]) -> list[tuple[str, int | str | None]]:
    """Find a band among the files of a list, or in one raster."""
    files = band_files(source)
    if files is not None:
        pattern = _IN_NAME[KEYWORDS[keyword]]
        named = [file.name or (keyword if pattern.search(PurePath(file.path).stem) else "") for file in files]
        return [(files[i].path, files[i].index) for i in find_band(keyword, named)]
    if not isinstance(source, str | PathLike):
        return []
    with RasterSource(source, honour_nodata=False) as file:
        indexes = list(file.file_names)
        return [(str(source), indexes[i]) for i in find_band(keyword, list(file.file_names.values()))]
