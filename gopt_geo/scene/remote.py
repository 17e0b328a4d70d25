"""Rasters on servers: how their addresses are told from paths, and how GDAL reads them in parts."""

from __future__ import annotations

import re
from os import PathLike
from pathlib import PurePath
from urllib.parse import unquote, urlsplit

__all__ = ["REMOTE", "address", "gdal_name", "is_remote", "name_of", "shown"]

REMOTE: dict[str, str] = {
    # A listing of the folder around each file, and a look for its companions, would cost more than the pixels.
    "GDAL_DISABLE_READDIR_ON_OPEN": "EMPTY_DIR",
    "GDAL_HTTP_CONNECTTIMEOUT": "20",
    "GDAL_HTTP_TIMEOUT": "120",
    "GDAL_HTTP_LOW_SPEED_TIME": "15",  # a server that says nothing for so long is given up
    "GDAL_HTTP_LOW_SPEED_LIMIT": "1",
    "GDAL_HTTP_MAX_RETRY": "3",
    "GDAL_HTTP_RETRY_DELAY": "0.5",
    "GDAL_HTTP_MERGE_CONSECUTIVE_RANGES": "YES",
    "GDAL_HTTP_USERAGENT": "gopt-geo",
}
"""GDAL's settings for reading from servers: by range requests, with patience, and no files but the one named."""

_FILE_SYSTEMS = {
    "http": "/vsicurl/http://",
    "https": "/vsicurl/https://",
    "s3": "/vsis3/",
    "gs": "/vsigs/",
    "az": "/vsiaz/",
}
_ADDRESS = re.compile(r"(https?|s3|gs|az):/{1,2}(?!/)(.+)", re.IGNORECASE | re.DOTALL)
_NETWORK = re.compile(r"/vsi(curl|s3|gs|az|adls|oss|swift)(_streaming)?/")


def address(path: str | PathLike[str]) -> str:
    """Return a path as text; of a URL that went through pathlib, which makes one slash of two, the URL."""
    text = str(path)
    found = _ADDRESS.fullmatch(text)
    return text if found is None else f"{found[1].lower()}://{found[2]}"


def is_remote(path: str | PathLike[str]) -> bool:
    """Tell whether a path is on a server: a URL of http, https, s3, gs or az, or one of GDAL's network paths."""
    text = str(path)
    return _ADDRESS.fullmatch(text) is not None or _NETWORK.match(text) is not None


def gdal_name(path: str | PathLike[str]) -> str:
    """Return what GDAL opens for a path or URL."""
    text = address(path)
    scheme, there, rest = text.partition("://")
    return _FILE_SYSTEMS[scheme] + rest if there and scheme in _FILE_SYSTEMS else text


def name_of(path: str | PathLike[str]) -> str:
    """Return the file's name, without a URL's query, which may hold a key."""
    text = address(path)
    return unquote(PurePath(urlsplit(text).path).name) if is_remote(text) else PurePath(text).name


def shown(path: str | PathLike[str]) -> str:
    """Return a path as messages show it: a URL without its query and user, which may hold keys."""
    text = address(path)
    if not is_remote(text):
        return text
    bare = text.split("?")[0]
    return re.sub(r"(://)[^/@]*@", r"\1", bare)
