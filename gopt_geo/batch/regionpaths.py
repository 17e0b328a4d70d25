"""Paths in region files: made absolute, and none that leaves this machine unless that is allowed."""

from __future__ import annotations

import glob
import json
import os
import re
from pathlib import Path
from typing import Any

from gopt_geo.batch.regionfile import FeatureFault
from gopt_geo.errors import SourceError
from gopt_geo.scene.bandfiles import is_item, is_one_url, names_item, read_item, source_name
from gopt_geo.scene.remote import address, is_remote, shown

__all__ = ["PathReader", "leaves_disk"]

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+):/", re.ASCII)
_HANDLER = re.compile(r"/vsi([A-Za-z0-9_]*)(?=(/?))")  # the slash may begin the next
_HANDLERS = (
    {f"{kind}{how}" for kind in ("curl", "s3", "gs", "az", "adls", "oss", "swift") for how in ("", "_streaming")}
    | {"zip", "tar", "gzip", "7z", "rar"}
)  # fmt: skip
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]")
_ARCHIVE = re.compile(r"(/vsi(?:zip|tar|gzip|7z|rar)/)(?=[^/{])")  # of a relative path
_ALLOW = "allow it with --allow-remote, or name a file on this machine's disk"


class PathReader:
    """Reads paths as a region file has them.

    Parameters
    ----------
    folder
        Absolute; relative paths are relative to it.
    allow_remote
        Whether URLs and GDAL's virtual file systems of servers and archives are taken.
    """

    def __init__(self, folder: Path, *, allow_remote: bool) -> None:
        self._folder = folder
        self._allow_remote = allow_remote
        self._items: dict[str, str | None] = {}

    def scenes(self, value: Any) -> tuple[str, ...]:
        """Return the scenes of a modality: one as text, several with ``;`` in between, or a list.

        Raises
        ------
        FeatureFault
            If it is something else, or one of them can't be taken.
        """
        return tuple(self.raster(text) for text in _listed(value))

    def raster(self, text: str) -> str:
        """Return a source of pixels: absolute paths with commas in between, a pattern, a folder, or a URL.

        Raises
        ------
        FeatureFault
            If it can't be taken.
        """
        text = _clean(text)
        if leaves_disk(text):
            if "," not in text or is_one_url(text):
                return self._address(text)
            return ",".join(self._part(part.strip()) for part in text.split(","))
        path = os.path.join(self._folder, text)  # noqa: PTH118  # pathlib would change a pattern or a list
        if names_item(text):
            self._check_item(path)
        if any(letter in text for letter in "*?[") and not os.path.lexists(path):
            if "," in text:  # what no file fits would be taken for a list
                raise FeatureFault(f"{text!r:.60} is a pattern and a list with commas at once", "write one of them")
            return os.path.join(glob.escape(str(self._folder)), text)  # noqa: PTH118
        if "," in text and not os.path.lexists(path):
            return ",".join(self._part(part.strip()) for part in text.split(","))
        return path

    def file(self, value: Any) -> str:
        """Return the absolute path of a file that is no raster and must be on this machine's disk.

        Raises
        ------
        FeatureFault
            If it is something else.
        """
        if not isinstance(value, str):
            raise FeatureFault(f"{value!r:.60} is no path", "write it as text")
        text = _clean(value)
        if leaves_disk(text):
            raise FeatureFault(f"{shown(text)} isn't on this machine's disk", "copy it there, and name the copy")
        return os.path.join(self._folder, text)  # noqa: PTH118

    def _part(self, text: str) -> str:
        """Return one path of a list with commas in between."""
        if not text:
            raise FeatureFault("a path is missing in the list", "write it as B04.tif,B03.tif")
        if leaves_disk(text):
            return self._address(text)
        if "," in str(self._folder) and not os.path.isabs(text):  # noqa: PTH117
            found = f"the folder {self._folder} has a comma in its name, and the files are a list with commas"
            raise FeatureFault(found, "rename the folder, or write the bands into one file")
        return os.path.join(self._folder, text)  # noqa: PTH118

    def _address(self, text: str) -> str:
        """Return a URL or a path of GDAL's virtual file systems, if it may be read."""
        virtual = not is_remote(text) or text.startswith("/")
        if virtual and not text.startswith("/"):
            raise FeatureFault(
                f"{shown(text)} isn't a way to a raster", "give a path, or a URL of http, https, s3, gs or az"
            )
        if virtual and not all(name in _HANDLERS and end for name, end in _HANDLER.findall(_flat(text))):
            raise FeatureFault(f"{text!r:.90} isn't a way to a raster", "give a path or a URL")
        if not self._allow_remote:
            raise FeatureFault(f"{shown(text)} isn't on this machine's disk", _ALLOW)
        archive = _ARCHIVE.match(text)
        if archive is not None:
            return archive[1] + os.path.join(self._folder, text[archive.end() :])  # noqa: PTH118
        return address(text)

    def _check_item(self, path: str) -> None:
        """Refuse a STAC item whose pixels are on a server; one that can't be read is its job's to report."""
        if self._allow_remote:
            return
        if path not in self._items:
            self._items[path] = _afar(path)
        if self._items[path] is not None:
            raise FeatureFault(f"{self._items[path]}, which isn't on this machine's disk", _ALLOW)


def _listed(value: Any) -> list[str]:
    """Take apart what names scenes."""
    if isinstance(value, str):
        text = value.strip()
        value = [part.strip() for part in text.split(";")]
        if text.startswith("[") and text.endswith("]"):
            try:
                value = json.loads(text)
            except ValueError:  # a pattern such as [ab]*.[t]
                value = [text]
    if not isinstance(value, list | tuple) or not all(isinstance(part, str) for part in value):
        raise FeatureFault(f"{value!r:.60} names no scenes", "write a path, or several with ; in between")
    if not value or not all(part.strip() for part in value):
        raise FeatureFault("a scene is missing in the list", "write a path, or several with ; in between")
    return list(value)


def _clean(text: str) -> str:
    text = text.strip()
    if _CONTROL.search(text):
        raise FeatureFault(f"{text!r:.60} holds a control character", "correct the path")
    if not text:
        raise FeatureFault("the path is empty", "name a file, or leave it out")
    return text


def _flat(text: str) -> str:
    """Return a path without the detours that would hide GDAL's virtual file systems: //vsi, /./vsi, /a/../vsi."""
    return "/" + os.path.normpath(text).lstrip("/") if text.startswith("/") else text


def leaves_disk(text: str) -> bool:
    """Tell whether a path isn't one of this machine's disk: a URL or the like, or in a virtual file system of GDAL."""
    return _flat(text).startswith("/vsi") or is_remote(text) or _SCHEME.match(text) is not None


def _afar(path: str) -> str | None:
    """Say which asset of a STAC item isn't on this machine's disk, None if all are."""
    try:
        item = read_item(path)
    except SourceError:
        return None
    hrefs = [asset.href for asset in item.assets.values()] if is_item(item) else []
    far = next((href for href in hrefs if leaves_disk(href)), None)
    return None if far is None else f"{source_name(item)} names {shown(far)}"
