"""Lists of names: a name a line, or the paths of a sample's files a line."""

from __future__ import annotations

from pathlib import Path, PurePosixPath

from gopt_geo.datasets.chipfiles import some
from gopt_geo.errors import DatasetError

__all__ = ["name_list", "read_text"]

_LARGEST = 16 << 20  # bytes of a list


def read_text(path: Path) -> str:
    """Read a list's text: UTF-8, else GB 18030, as some Chinese data sets have it.

    Raises
    ------
    DatasetError
        If it can't be read.
    """
    try:
        size = path.stat().st_size
        if size > _LARGEST:
            raise DatasetError(path, f"{size} bytes are no list of names", "give a text file")
        raw = path.read_bytes()
    except FileNotFoundError as error:
        raise DatasetError(
            path, "there is no such file", "it lists the names of this split: complete the copy"
        ) from error
    except OSError as error:
        raise DatasetError(path, f"it can't be read ({error.strerror})", "check the path") from error
    for encoding in ("utf-8-sig", "gb18030"):
        try:
            return raw.decode(encoding)
        except UnicodeDecodeError:
            continue
    raise DatasetError(path, "it isn't text", "give a list of names, one a line")


def name_list(path: Path) -> list[str]:
    """Read the names of a list: bare ones, or those of the files in a line, which must be the same.

    ``RGB/2.jpg<TAB>Label/2.png`` is read as ``2``.

    Raises
    ------
    DatasetError
        If the list can't be read or is empty, a line names several samples, or a name occurs twice.
    """
    names: list[str] = []
    for number, line in enumerate(read_text(path).splitlines(), 1):
        parts = line.split("\t") if "\t" in line else line.split()
        stems = [_stem(part.strip()) for part in parts if part.strip()]
        if not stems:
            continue
        if len(set(stems)) > 1:
            found = f"line {number} names different samples: {some(stems)}"
            raise DatasetError(path, found, "write one name a line, or the paths of one sample's files")
        names.append(stems[0])
    twice = {name for name in names if names.count(name) > 1} if len(set(names)) < len(names) else set()
    if twice or not names:
        found = f"{some(twice)} occur{'s' if len(twice) == 1 else ''} twice" if twice else "it names nothing"
        raise DatasetError(path, found, "write each name once, one a line")
    return names


def _stem(text: str) -> str:
    name = PurePosixPath(text.replace("\\", "/")).name
    stem, dot, ending = name.rpartition(".")
    return stem if dot and ending.lower() in ("png", "jpg", "jpeg", "tif", "tiff") else name
