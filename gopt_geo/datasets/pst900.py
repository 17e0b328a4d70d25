"""PST900: subterranean scenes in RGB and thermal infrared."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Literal

from gopt_geo.datasets.chipfiles import Layer, list_stems, pair_up
from gopt_geo.datasets.chips import IMAGENET, ChipDataset, Holdings, Sample, Scoring, split_of
from gopt_geo.datasets.legends import PST900_CLASSES
from gopt_geo.paths import StrPath

__all__ = ["PST900"]


class PST900(ChipDataset):
    """RGB and thermal scenes of 720 x 1280 pixels, five classes with background.

    Reads ``{train,test}/{rgb,thermal,thermal_raw,labels}/*.png``. Modalities: ``optical`` and ``thermal``. Published
    counts disagree, so that the files are counted, and none is expected.

    Parameters
    ----------
    root
        The folder with ``train`` and ``test``.
    split
        ``train``, ``val``, ``test``, or ``train+val`` (the whole training part).
    thermal
        "thermal": 8 bits, 0 is a hole; "thermal_raw": the sensor's 16 bits.
    hold_out
        Of so many training images in the order of their names, the last is held out for ``val``; 0: none.
    transforms
        Applied to each sample.

    Raises
    ------
    DatasetError
        If a folder is missing, or names lack a partner.
    """

    classes = PST900_CLASSES
    scoring = Scoring(5, ("miou",), note="background is trained and scored")

    def __init__(
        self,
        root: StrPath,
        split: str = "train",
        *,
        thermal: Literal["thermal", "thermal_raw"] = "thermal",
        hold_out: int = 10,
        transforms: Callable[[Sample], Sample] | None = None,
    ) -> None:
        root = Path(root)
        part = "test" if split == "test" else "train"
        place = root / part
        folders = {"optical": "rgb", "thermal": thermal, "mask": "labels"}
        chips = pair_up(place, {role: list_stems(place, folder, (".png",)) for role, folder in folders.items()})
        counted = f"{root}: {len(chips)} images in {part}, thermal from {thermal}"
        chips, notices = split_of(chips, part, split, hold_out, root)
        layers = {
            "optical": Layer((1, 2, 3), dtypes=("uint8",)),
            "thermal": Layer(count=1, dtypes=("uint8",), hole=0)
            if thermal == "thermal"
            else Layer(count=1, dtypes=("uint16",)),
        }
        holdings = Holdings(chips, layers, thermal, statistics={"optical": IMAGENET}, notices=[counted, *notices])
        super().__init__(root, split, holdings, transforms)
