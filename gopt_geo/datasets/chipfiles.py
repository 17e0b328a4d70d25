"""Files of data sets of chips: which belong together, and their pixels."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gopt_geo.errors import BandError, DatasetError, SourceError
from gopt_geo.grid import Window
from gopt_geo.scene import RasterSource

__all__ = [
    "IMAGES",
    "LOSSLESS",
    "Chip",
    "Layer",
    "Stems",
    "list_stems",
    "natural",
    "open_layer",
    "outside_swath",
    "pair_up",
    "read_labels",
    "read_layer",
    "some",
]

LOSSLESS = (".png", ".tif", ".tiff")
IMAGES = (*LOSSLESS, ".jpg", ".jpeg")
_GET_AGAIN = "get the file again"
_EDGE_SHARE = 8  # a run of one value along an eighth of an edge: speckle and noise don't make that
_SHORTEST_RUN = 8  # pixels; on small chips


@dataclass(frozen=True)
class Layer:
    """How the files of one modality, or of the labels, are read.

    Attributes
    ----------
    bands
        1-based; None takes all data bands, `count` of them.
    count
        Bands a file must have where `bands` is None; None: any number.
    dtypes
        Types of stored values that are right; empty: any.
    hole
        Value of pixels without data, in all bands at once; None: there is none beside what the files declare.
    constant_edge
        Whether large areas along the chip's edge carry no data where all of their pixels hold `hole`, or, without
        a `hole`, any one value; `hole` in the midst of a chip is data then.
    honour_nodata
        Whether nodata values, masks and alpha bands that a file declares are believed.
    alpha_is_data
        Whether a fourth band, which files may call alpha, is data.
    """

    bands: tuple[int, ...] | None = None
    count: int | None = None
    dtypes: tuple[str, ...] = ()
    hole: float | None = None
    constant_edge: bool = False
    honour_nodata: bool = True
    alpha_is_data: bool = False


@dataclass(frozen=True)
class Chip:
    """One sample: the files of its modalities and of its labels (``mask``), and the part of them it is."""

    name: str
    files: Mapping[str, Path]
    window: Window | None = None


@dataclass(frozen=True)
class Stems:
    """The files of one folder by their names without ending.

    Attributes
    ----------
    title
        What messages call them: ``HHA/*.jpg``.
    paths
        File of each stem.
    """

    title: str
    paths: Mapping[str, Path]


def natural(name: str) -> list[str | int]:
    """Return a key that sorts numbers in names by value: train_2 before train_10."""
    parts = re.split(r"([0-9]+)", name)
    return [int(part) if i % 2 else part for i, part in enumerate(parts)]


def some(names: Collection[str], limit: int = 5) -> str:
    """List names for a message, the first few in natural order."""
    shown = sorted(names, key=natural)[:limit]
    return ", ".join(shown) + (f" and {len(names) - limit} more" if len(names) > limit else "")


def list_stems(root: Path, folder: str, suffixes: Sequence[str], keep: Callable[[str], bool] = lambda _: True) -> Stems:
    """List a folder's files with one of these endings, by stem.

    Raises
    ------
    DatasetError
        If there is no such folder, or two files have one stem.
    """
    place = root / folder
    title = f"{folder}/ ({', '.join(suffixes)})" if len(suffixes) > 1 else f"{folder}/*{suffixes[0]}"
    if not place.is_dir():
        there = sorted(entry.name for entry in root.iterdir()) if root.is_dir() else []
        found = f"there is no folder {folder} (found: {some(there, 8) or 'nothing'})"
        raise DatasetError(root, found, f"expected {title} there; see docs/datasets.md for the layout")
    paths: dict[str, Path] = {}
    for path in place.iterdir():
        if path.suffix.lower() not in suffixes or path.name.startswith(".") or not keep(path.stem):
            continue
        if path.stem in paths:
            found = f"{paths[path.stem].name} and {path.name} have one name"
            raise DatasetError(place, found, "keep one of them")
        paths[path.stem] = path
    return Stems(title, paths)


def pair_up(
    root: Path, roles: Mapping[str, Stems], names: Sequence[str] | None = None, source: str = "the folders"
) -> list[Chip]:
    """Bring together the files of one name, in natural order, or in the order of a list.

    Parameters
    ----------
    root
        The data set, for messages.
    roles
        Files of each modality, and of ``mask``.
    names
        The names to take; None: all that any of the folders has.
    source
        Where `names` come from, for messages.

    Raises
    ------
    DatasetError
        If a name lacks a partner, or there are none.
    """
    if names is None:
        names = sorted({stem for stems in roles.values() for stem in stems.paths}, key=natural)
    titles = ", ".join(stems.title for stems in roles.values())
    if not names:
        raise DatasetError(root, f"{source}: there is nothing to read", f"expected files of one name in {titles}")
    absent = {stems.title: [name for name in names if name not in stems.paths] for stems in roles.values()}
    lacking = {title: missing for title, missing in absent.items() if missing}
    if lacking:
        counts = ", ".join(f"{sum(name in s.paths for name in names)} in {s.title}" for s in roles.values())
        lacks = "; ".join(f"{title} lacks {some(missing)}" for title, missing in lacking.items())
        found = f"of {len(names)} names ({source}) there are {counts}: {lacks}"
        raise DatasetError(root, found, f"expected files of one name in {titles}: complete the copy")
    return [Chip(name, {role: stems.paths[name] for role, stems in roles.items()}) for name in names]


def open_layer(path: Path, layer: Layer) -> RasterSource:
    """Open a file of a layer.

    Raises
    ------
    DatasetError
        If it can't be opened, or its bands or type aren't what the layer has.
    """
    try:
        source = RasterSource(path, layer.bands, honour_nodata=layer.honour_nodata, alpha_is_data=layer.alpha_is_data)
    except (BandError, SourceError) as error:
        raise DatasetError(error.subject, error.found, error.remedy) from error
    found = None
    if layer.count is not None and source.count != layer.count:
        found = f"it has {source.count} bands, expected {layer.count}"
    elif layer.dtypes and str(source.dtype) not in layer.dtypes:
        found = f"its values are {source.dtype}, expected {' or '.join(layer.dtypes)}"
    if found is not None:
        source.close()
        raise DatasetError(path, found, "see docs/datasets.md for the encoding")
    return source


def read_layer(
    path: Path, layer: Layer, window: Window | None = None
) -> tuple[NDArray[np.float32], NDArray[np.bool_], tuple[int, int]]:
    """Read stored values [C, h, w], validity [h, w], and the shape of the whole file.

    Raises
    ------
    DatasetError
        If the file is damaged, or isn't as the layer has it.
    """
    with open_layer(path, layer) as source:
        shape = (source.grid.shape[0], source.grid.shape[1])
        if source.has_palette:
            raise DatasetError(path, "its values index a colour table", "gdal_translate -expand rgb")
        values, valid = _read(source, window)
    if layer.constant_edge:
        valid &= ~outside_swath(values, layer.hole)
    elif layer.hole is not None:
        valid &= (values != layer.hole).any(axis=0)
    values[:, ~valid] = 0
    return values, valid, shape


def _read(source: RasterSource, window: Window | None) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    try:
        return source.read(window or Window(0, 0, *source.grid.shape))
    except SourceError as error:
        raise DatasetError(error.subject, error.found, error.remedy) from error


def read_labels(
    path: Path, layer: Layer, window: Window | None = None
) -> tuple[NDArray[np.int64], NDArray[np.bool_], tuple[int, int]]:
    """Read label values [h, w], where they are declared to be labels, and the shape of the whole file.

    ``.npy`` files hold an array of whole numbers [H, W].

    Raises
    ------
    DatasetError
        If the file is damaged, has several bands, or values that aren't whole.
    """
    if path.suffix == ".npy":
        stored = _load_array(path)
        part = stored if window is None else stored[window.row : window.row_stop, window.col : window.col_stop]
        return part.astype(np.int64), np.ones(part.shape, np.bool_), (stored.shape[0], stored.shape[1])
    with open_layer(path, layer) as source:
        if source.count != 1:
            raise DatasetError(path, f"it has {source.count} bands", "labels are one band of class values")
        shape = (source.grid.shape[0], source.grid.shape[1])
        values, valid = _read(source, window)
    labels = values[0].astype(np.int64)
    if (labels != values[0]).any():
        raise DatasetError(path, "its values aren't whole numbers", "labels are one band of class values")
    return labels, valid, shape


def _load_array(path: Path) -> NDArray[Any]:
    try:
        stored = np.load(path, allow_pickle=False)
    except FileNotFoundError as error:
        raise DatasetError(path, "there is no such file", "complete the copy") from error
    except (OSError, ValueError, EOFError) as error:
        raise DatasetError(path, f"it can't be read ({error})", _GET_AGAIN) from error
    if not isinstance(stored, np.ndarray) or stored.ndim != 2 or stored.dtype.kind not in "iu":
        kind = f"{stored.dtype} {list(stored.shape)}" if isinstance(stored, np.ndarray) else "an archive"
        raise DatasetError(path, f"it holds {kind}", "expected whole numbers [H, W]")
    return stored


def outside_swath(values: NDArray[np.float32], hole: float | None) -> NDArray[np.bool_]:
    """Find the areas along a chip's edges that were filled with one value; bool [h, w].

    An area is filled where its pixels, connected through their sides, are equal in all bands, and an eighth of one of
    the chip's edges (at least 8 pixels), in one piece, is part of it. Real pixels vary more, SAR by its speckle.

    Parameters
    ----------
    values
        [C, h, w].
    hole
        The filling; None: any value.
    """
    from scipy import ndimage

    height, width = values.shape[1:]
    filled = np.zeros((height, width), np.bool_)
    rows, cols = np.arange(height), np.arange(width)
    for along in ((0 * cols, cols), (0 * cols + height - 1, cols), (rows, 0 * rows), (rows, 0 * rows + width - 1)):
        edge = values[:, along[0], along[1]]
        length = edge.shape[1]
        starts = np.flatnonzero(np.r_[True, (edge[:, 1:] != edge[:, :-1]).any(axis=0)])
        runs = np.diff(np.r_[starts, length])
        for start in starts[runs >= max(length // _EDGE_SHARE, _SHORTEST_RUN)]:
            value, seed = edge[:, start], (along[0][start], along[1][start])
            if filled[seed] or (hole is not None and (value != hole).any()):
                continue
            areas, _ = ndimage.label((values == value[:, None, None]).all(axis=0))
            filled |= areas == areas[seed]
    return filled
