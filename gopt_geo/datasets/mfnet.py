"""MFNet: street scenes in RGB and thermal infrared, by day and by night."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from gopt_geo.datasets.chipfiles import Layer, list_stems, pair_up
from gopt_geo.datasets.chips import IMAGENET, ChipDataset, Holdings, Sample, Scoring
from gopt_geo.datasets.legends import MFNET
from gopt_geo.datasets.lists import name_list
from gopt_geo.errors import DatasetError
from gopt_geo.paths import StrPath

__all__ = ["MFNet"]

_SPLITS = ("train", "val", "test", "test_day", "test_night")


class MFNet(ChipDataset):
    """RGB and thermal street scenes of 480 x 640 pixels, nine classes with "unlabelled" (784 / 392 / 393 samples).

    Reads ``images/*.png``, whose fourth channel is thermal, ``labels/*.png``, and lists of names: ``train.txt``,
    ``val.txt``, ``test.txt``, ``test_day.txt``, ``test_night.txt``. Modalities: ``optical`` and ``thermal``, 8 bits.

    Parameters
    ----------
    root
        The folder with ``images``, ``labels`` and the lists.
    split
        ``train``, ``val``, ``test``, ``test_day``, ``test_night``, or ``train+val``, which some published figures
        are trained on.
    transforms
        Applied to each sample.

    Raises
    ------
    DatasetError
        If a folder, a list, or a file of the list is missing.
    """

    classes = MFNET
    scoring = Scoring(
        9,
        ("miou",),
        note="unlabelled is trained and scored; some publications train on train+val: say which",
    )

    def __init__(
        self,
        root: StrPath,
        split: str = "train",
        *,
        transforms: Callable[[Sample], Sample] | None = None,
    ) -> None:
        root = Path(root)
        parts = split.split("+") if split == "train+val" else [split]
        if unknown := [part for part in parts if part not in _SPLITS]:
            remedy = f"choose from {', '.join((*_SPLITS, 'train+val'))}"
            raise DatasetError(root, f"there is no split {unknown[0]!r}", remedy)
        images = list_stems(root, "images", (".png",))
        roles = {"optical": images, "thermal": images, "mask": list_stems(root, "labels", (".png",))}
        names = [name for part in parts for name in name_list(root / f"{part}.txt")]
        chips = pair_up(root, roles, names, " and ".join(f"{part}.txt" for part in parts))
        layers = {
            "optical": Layer((1, 2, 3), dtypes=("uint8",), honour_nodata=False, alpha_is_data=True),
            "thermal": Layer((4,), dtypes=("uint8",), honour_nodata=False, alpha_is_data=True),
        }
        holdings = Holdings(chips, layers, "images", statistics={"optical": IMAGENET})
        super().__init__(root, split, holdings, transforms)
