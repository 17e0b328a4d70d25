"""NYUDv2: indoor scenes in RGB and depth, in the two layouts that are in use."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Literal

from gopt_geo.datasets.chipfiles import Chip, Layer, list_stems, pair_up
from gopt_geo.datasets.chips import IMAGENET, ChipDataset, Holdings, Sample, Scoring, Statistics, split_of
from gopt_geo.datasets.legends import NYU40
from gopt_geo.datasets.lists import name_list
from gopt_geo.errors import DatasetError
from gopt_geo.paths import StrPath

__all__ = ["DEPTH_8BIT", "NYUDv2"]

DEPTH_8BIT = Statistics((0.48,), (0.28,), 255.0)
"""Of depth in 8 bits."""
_DEPTH_MM = Statistics((2841.949,), (1417.259,))
_PLACES = {
    "A": "RGB/*.jpg, HHA/*.jpg, Label/*.png, train.txt, test.txt",
    "B": "{train,test}/{rgb,depth,labels_40}/*.png",
}
_CHOICES = {"A": ("hha", "depth"), "B": ("depth", "depth_raw")}


class NYUDv2(ChipDataset):
    """Indoor scenes of 480 x 640 pixels, 40 classes (795 training and 654 test images).

    Layout A (names from 0): ``RGB/*.jpg``, ``HHA/*.jpg``, ``Label/*.png``, with ``train.txt`` and ``test.txt``, in the
    folder or in ``NYUDepthv2`` below it. Layout B (names from 1): ``{rgb,depth,depth_raw,labels_40}/*.png`` in
    ``train`` and ``test``, depth in mm. Modalities: ``optical``, and ``hha`` or ``depth``.

    Parameters
    ----------
    root
        The folder.
    split
        ``train`` or ``test``; with `hold_out` also ``val`` and ``train+val``.
    auxiliary
        "hha" or "depth" (8 bits, from ``Depth/*.png``) in layout A; "depth" or "depth_raw" (with the sensor's holes)
        in layout B. None takes the first. Depth of 0 is a hole.
    layout
        Where a folder holds both, which; None takes the one that is there.
    hold_out
        Of so many training images in the order of their names, the last is held out for ``val``; 0: none.
        Neighbouring images show one room, so that this validation flatters.
    transforms
        Applied to each sample.

    Raises
    ------
    DatasetError
        If neither layout, or both, are there; if a folder, list or file is missing.
    """

    classes = NYU40
    scoring = Scoring(
        40, ("miou",), note="void is ignored; single scale, and multi-scale with flip, are reported apart"
    )

    def __init__(
        self,
        root: StrPath,
        split: str = "train",
        *,
        auxiliary: Literal["hha", "depth", "depth_raw"] | None = None,
        layout: Literal["A", "B"] | None = None,
        hold_out: int = 0,
        transforms: Callable[[Sample], Sample] | None = None,
    ) -> None:
        root, kind = _find(Path(root), layout)
        chosen = auxiliary or _CHOICES[kind][0]
        if chosen not in _CHOICES[kind]:
            remedy = f"choose from {', '.join(_CHOICES[kind])}"
            raise DatasetError(root, f"layout {kind} has no auxiliary {chosen!r}", remedy)
        chips, notices = (_chips_a if kind == "A" else _chips_b)(root, split, chosen, hold_out)
        modality = "hha" if chosen == "hha" else "depth"
        layer, statistics = _auxiliary(kind, modality)
        holdings = Holdings(
            chips,
            {"optical": Layer((1, 2, 3), dtypes=("uint8",)), modality: layer},
            kind,
            statistics={"optical": IMAGENET, modality: statistics},
            notices=[f"{root}: layout {kind} found ({_PLACES[kind]}), {modality} from {chosen}", *notices],
        )
        super().__init__(root, split, holdings, transforms)


def _find(root: Path, layout: str | None) -> tuple[Path, Literal["A", "B"]]:
    """Return the layout's own folder, and which it is."""
    found: dict[Literal["A", "B"], Path] = {}
    for place in (root, root / "NYUDepthv2"):
        if (place / "RGB").is_dir() and (place / "Label").is_dir():
            found.setdefault("A", place)
    if any((root / part / "rgb").is_dir() for part in ("train", "test")):
        found["B"] = root
    expected = f"expected A: {_PLACES['A']}; or B: {_PLACES['B']}"
    if not root.is_dir() or not found:
        there = ", ".join(sorted(entry.name for entry in root.iterdir())[:8]) if root.is_dir() else "no such folder"
        raise DatasetError(root, f"neither of NYUDv2's layouts is there (found: {there or 'nothing'})", expected)
    if layout is None and len(found) > 1:
        raise DatasetError(root, "it holds both of NYUDv2's layouts", "choose one: layout='A' or 'B'")
    for kind, place in found.items():
        if layout in (None, kind):
            return place, kind
    raise DatasetError(root, f"layout {layout!r} isn't there, {', '.join(found)} is", expected)


def _chips_a(root: Path, split: str, auxiliary: str, hold_out: int) -> tuple[list[Chip], list[str]]:
    part = "test" if split == "test" else "train"
    folder, endings = ("HHA", (".jpg", ".png")) if auxiliary == "hha" else ("Depth", (".png",))
    roles = {
        "optical": list_stems(root, "RGB", (".jpg", ".png")),
        "hha" if auxiliary == "hha" else "depth": list_stems(root, folder, endings),
        "mask": list_stems(root, "Label", (".png",)),
    }
    chips = pair_up(root, roles, name_list(root / f"{part}.txt"), f"{part}.txt")
    return split_of(chips, part, split, hold_out, root)


def _chips_b(root: Path, split: str, auxiliary: str, hold_out: int) -> tuple[list[Chip], list[str]]:
    part = "test" if split == "test" else "train"
    place = root / part
    folders = {"optical": "rgb", "depth": auxiliary, "mask": "labels_40"}
    chips = pair_up(place, {role: list_stems(place, folder, (".png",)) for role, folder in folders.items()})
    return split_of(chips, part, split, hold_out, root)


def _auxiliary(kind: str, modality: str) -> tuple[Layer, Statistics]:
    """Return how the auxiliary modality is read, and its statistics."""
    if modality == "hha":
        return Layer(count=3, dtypes=("uint8",)), IMAGENET
    dtype, statistics = ("uint16", _DEPTH_MM) if kind == "B" else ("uint8", DEPTH_8BIT)
    return Layer(count=1, dtypes=(dtype,), hole=0), statistics
