"""What a training's data hold, told before its first step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from gopt_geo.packmeta import ClassInfo, ModalityInfo
from gopt_geo.training.channels import describe_matrix

__all__ = ["PARTS", "DataReport", "Part", "class_notices", "shares"]

Part = Literal["train", "val", "test"]
PARTS: tuple[Part, ...] = ("train", "val", "test")


@dataclass(frozen=True)
class DataReport:
    """What was found.

    Attributes
    ----------
    ground
        What the data are: a scene's size and pixel size, or a data set.
    classes
        Legend.
    modalities
        Bands, channels and statistics.
    counts
        Labelled pixels as used, int64 [3, K], of training, validation and test.
    lost
        Labelled pixels that the parts lose to the buffer, int64 [3, K].
    tiles
        Of each part: tiles of a round in training, tiles or chips with labels in the others; None where not opened.
    overlap
        Share of the labelled pixels that all modalities show, that some show, and that none shows: those don't count.
    shown
        Share of the labelled pixels that each modality shows.
    measured
        What the statistics are of.
    notices
        What the user should know, one line each; "warning: " begins those that matter more.
    """

    ground: str
    classes: tuple[ClassInfo, ...]
    modalities: dict[str, ModalityInfo]
    counts: NDArray[np.int64]
    lost: NDArray[np.int64]
    tiles: dict[str, int]
    overlap: dict[str, float]
    shown: dict[str, float]
    measured: str
    notices: list[str] = field(default_factory=list)

    def lines(self) -> list[str]:
        """Return the report as lines of text."""
        said = [self.ground]
        for name, info in self.modalities.items():
            centre = ", ".join(f"{mean:.4g} +- {std:.3g}" for mean, std in zip(info.mean, info.std, strict=True))
            channels = describe_matrix(info.bands, info.channels)
            said.append(f"{name}: {info.units}, channels {channels}: {centre}")
        said.append(f"statistics of {self.measured}")
        said += self._table()
        if len(self.modalities) > 1:
            each = ", ".join(f"{name} {100 * share:.1f} %" for name, share in self.shown.items())
            both, some = 100 * self.overlap["all"], 100 * self.overlap["some"]
            said.append(f"labelled pixels with data in all modalities: {both:.1f} %, in some: {some:.1f} % ({each})")
        if self.overlap["none"]:
            said.append(f"labelled pixels without any data, which don't count: {100 * self.overlap['none']:.1f} %")
        return said + self.notices

    def _table(self) -> list[str]:
        width = max(len(info.name) for info in self.classes)
        parts = [i for i, part in enumerate(PARTS) if part in self.tiles]
        totals = self.counts.sum(axis=1)
        said = [f"{'class':<{width}}  " + "  ".join(f"{PARTS[i]:>8}" for i in parts)]
        for k, info in enumerate(self.classes):
            shares = [100 * self.counts[i, k] / max(int(totals[i]), 1) for i in parts]
            said.append(f"{info.name:<{width}}  " + "  ".join(f"{share:>6.2f} %" for share in shares))
        said.append(f"{'pixels':<{width}}  " + "  ".join(f"{int(totals[i]):>8}" for i in parts))
        said.append(f"{'tiles':<{width}}  " + "  ".join(f"{self.tiles[PARTS[i]]:>8}" for i in parts))
        return said

    def to_dict(self) -> dict[str, Any]:
        """Return the report as plain data."""
        by_part = {part: self.counts[i] for i, part in enumerate(PARTS) if part in self.tiles}
        return {
            "ground": self.ground,
            "classes": [
                {
                    "value": info.value,
                    "name": info.name,
                    "pixels": {part: int(counts[k]) for part, counts in by_part.items()},
                    "share": {part: float(counts[k] / max(counts.sum(), 1)) for part, counts in by_part.items()},
                    "lost_to_buffer": {part: int(self.lost[PARTS.index(part), k]) for part in by_part},
                }
                for k, info in enumerate(self.classes)
            ],
            "labelled_pixels": {part: int(counts.sum()) for part, counts in by_part.items()},
            "tiles": dict(self.tiles),
            "modalities": {name: info.model_dump(mode="json") for name, info in self.modalities.items()},
            "statistics_of": self.measured,
            "labelled_pixels_with_data": dict(self.overlap),
            "labelled_pixels_shown_by": dict(self.shown),
            "notices": list(self.notices),
        }


def class_notices(classes: Sequence[ClassInfo], counts: NDArray[np.int64], parts: Sequence[str]) -> list[str]:
    """Say which classes have no pixel at all, or none in a part."""
    said = []
    for k, info in enumerate(classes):
        called = info.name if info.name == f"class {info.value}" else f"class {info.name}"
        lacking = [part for part in parts if not counts[PARTS.index(part), k]]
        if len(lacking) == len(parts):
            said.append(f"warning: {called} is in the class list, and has no labelled pixel")
        elif "train" in lacking:
            said.append(f"warning: {called} has no pixel in train: it can't be learnt")
        elif lacking:
            said.append(f"warning: {called} has no pixel in {' and '.join(lacking)}: it isn't scored there")
    return said


def shares(seen_by: NDArray[np.int64]) -> dict[str, float]:
    """Return the shares of labelled pixels that all, some and none of the modalities show."""
    total = max(int(seen_by.sum()), 1)
    whole, none = int(seen_by[-1]), int(seen_by[0])
    return {"all": whole / total, "some": (int(seen_by.sum()) - whole - none) / total, "none": none / total}
