"""SUN RGB-D: indoor scenes in RGB and depth, in the two layouts that are in use."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path, PurePosixPath
from typing import Any, Literal

from gopt_geo.datasets.chipfiles import Chip, Layer, list_stems, open_layer, pair_up, some
from gopt_geo.datasets.chips import IMAGENET, ChipDataset, Holdings, Sample, Scoring, Statistics, split_of
from gopt_geo.datasets.legends import SUN37
from gopt_geo.datasets.nyudv2 import DEPTH_8BIT
from gopt_geo.errors import DatasetError
from gopt_geo.paths import StrPath

__all__ = ["SUNRGBD"]

_DEPTH_16BIT = Statistics((19025.15,), (9880.92,))
_PLACES = {
    "flat": "RGB/train_0.jpg, Depth/train_0.png, labels/train_0.png",
    "official": "allsplit.mat, and SUNRGBD/*/{image/*.jpg,depth_bfx/*.png,label/label.npy}",
}
_SPLIT_FILES = ("allsplit.mat", "SUNRGBDtoolbox/traintestSUNRGBD/allsplit.mat")


class SUNRGBD(ChipDataset):
    """Indoor scenes of up to 531 x 730 pixels, 37 classes (5285 training and 5050 test images).

    Layout "flat": ``{RGB/train_0.jpg,Depth/train_0.png,labels/train_0.png}`` and ``test_*``. Layout "official": folders
    with ``image/*.jpg``, ``depth_bfx/*.png`` and ``label/label.npy``, named by ``allsplit.mat`` (in the folder or in
    ``SUNRGBDtoolbox/traintestSUNRGBD``) under ``alltrain`` and ``alltest``. Modalities: ``optical`` and ``depth``.
    Sizes vary: batches want a crop.

    Parameters
    ----------
    root
        The folder.
    split
        ``train`` or ``test``; with `hold_out` also ``val`` and ``train+val``.
    layout
        Where a folder holds both, which; None takes the one that is there.
    hold_out
        Of so many training images in the order of their names, the last is held out for ``val``; 0: none.
    transforms
        Applied to each sample.

    Raises
    ------
    DatasetError
        If neither layout, or both, are there; if a folder or file is missing, or the split's file can't be read.
    """

    classes = SUN37
    scoring = Scoring(37, ("miou",), note="void is ignored")

    def __init__(
        self,
        root: StrPath,
        split: str = "train",
        *,
        layout: Literal["flat", "official"] | None = None,
        hold_out: int = 0,
        transforms: Callable[[Sample], Sample] | None = None,
    ) -> None:
        root = Path(root)
        kind = _find(root, layout)
        part = "test" if split == "test" else "train"
        chips = _flat(root, part) if kind == "flat" else _official(root, part)
        chips, notices = split_of(chips, part, split, hold_out, root)
        if not chips:
            raise DatasetError(root, f"no image is in split {split!r}", "complete the copy")
        with open_layer(chips[0].files["depth"], Layer(count=1, dtypes=("uint8", "uint16"))) as first:
            dtype = str(first.dtype)
        holdings = Holdings(
            chips,
            {"optical": Layer((1, 2, 3), dtypes=("uint8",)), "depth": Layer(count=1, dtypes=(dtype,), hole=0)},
            kind,
            statistics={"optical": IMAGENET, "depth": _DEPTH_16BIT if dtype == "uint16" else DEPTH_8BIT},
            notices=[f"{root}: {kind} layout found ({_PLACES[kind]}), depth is {dtype}", *notices],
        )
        super().__init__(root, split, holdings, transforms)


def _find(root: Path, layout: str | None) -> Literal["flat", "official"]:
    found: list[Literal["flat", "official"]] = []
    if (root / "RGB").is_dir():
        found.append("flat")
    if any((root / path).is_file() for path in _SPLIT_FILES):
        found.append("official")
    expected = f"expected {_PLACES['flat']}; or {_PLACES['official']}"
    if not found:
        there = some([entry.name for entry in root.iterdir()], 8) if root.is_dir() else "no such folder"
        raise DatasetError(root, f"neither of SUN RGB-D's layouts is there (found: {there or 'nothing'})", expected)
    if layout is None and len(found) > 1:
        raise DatasetError(root, "it holds both of SUN RGB-D's layouts", "choose one: layout='flat' or 'official'")
    for kind in found:
        if layout in (None, kind):
            return kind
    raise DatasetError(root, f"layout {layout!r} isn't there, {', '.join(found)} is", expected)


def _flat(root: Path, part: str) -> list[Chip]:
    def of_part(stem: str) -> bool:
        return stem.startswith(f"{part}_")

    roles = {
        "optical": list_stems(root, "RGB", (".jpg", ".png"), of_part),
        "depth": list_stems(root, "Depth", (".png",), of_part),
        "mask": list_stems(root, "labels", (".png",), of_part),
    }
    return pair_up(root, roles, source=f"files of {part}")


def _official(root: Path, part: str) -> list[Chip]:
    file = next(root / path for path in _SPLIT_FILES if (root / path).is_file())
    images = root / "SUNRGBD" if (root / "SUNRGBD").is_dir() else root
    chips, lacking = [], []
    for folder in _folders(file, part):
        files = {
            "optical": _only(images / folder / "image", (".jpg", ".png")),
            "depth": _only(images / folder / "depth_bfx", (".png",)),
            "mask": images / folder / "label" / "label.npy",
        }
        whole = {role: path for role, path in files.items() if path is not None and path.is_file()}
        if len(whole) == len(files):
            chips.append(Chip(folder, whole))
        else:
            lacking.append(f"{folder} ({', '.join(sorted(set(files) - set(whole)))})")
    if lacking:
        total = len(chips) + len(lacking)
        found = f"of {total} folders in {file.name} {len(chips)} are complete; incomplete: {some(lacking)}"
        remedy = f"expected image/, depth_bfx/ and label/label.npy in each, below {images}: complete the copy"
        raise DatasetError(root, found, remedy)
    return chips


def _only(folder: Path, endings: tuple[str, ...]) -> Path | None:
    """Return the one image in a folder; None if there is none, or several."""
    if not folder.is_dir():
        return None
    found = [path for path in folder.iterdir() if path.suffix.lower() in endings and not path.name.startswith(".")]
    return found[0] if len(found) == 1 else None


def _folders(file: Path, part: str) -> list[str]:
    """Read the folders of a part, relative to ``SUNRGBD``, from ``allsplit.mat``.

    It holds cell arrays ``alltrain`` and ``alltest`` of absolute paths on the authors' machine, of which what follows
    ``SUNRGBD`` counts.
    """
    from scipy.io import loadmat

    key = f"all{part}"
    remedy = "get SUNRGBDtoolbox/traintestSUNRGBD/allsplit.mat again"
    try:
        content: dict[str, Any] = loadmat(file, variable_names=[key], squeeze_me=True, chars_as_strings=True)
    except Exception as error:  # scipy raises what comes of damaged bytes: ValueError, TypeError, zlib.error, ...
        raise DatasetError(file, f"it can't be read ({type(error).__name__}: {error})", remedy) from error
    if key not in content:
        raise DatasetError(file, f"it has no {key}", remedy)
    listed: Iterable[Any] = content[key].ravel() if hasattr(content[key], "ravel") else [content[key]]
    folders = []
    for entry in listed:
        parts = PurePosixPath(str(entry)).parts
        if "SUNRGBD" not in parts or ".." in parts:
            raise DatasetError(file, f"{str(entry)[:80]!r} isn't a folder below SUNRGBD", remedy)
        folders.append("/".join(parts[parts.index("SUNRGBD") + 1 :]))
    return sorted(folders)
