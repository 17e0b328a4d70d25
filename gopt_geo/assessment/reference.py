"""Ground with reference labels, as models are evaluated on it: a source of pixels, a window, and the labels there."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gopt_geo.datasets.classes import IGNORED
from gopt_geo.grid import Window
from gopt_geo.inference import BlockSource

__all__ = ["UNLABELLED", "ReferenceArea"]

UNLABELLED = IGNORED
"""Class index of pixels that no score counts."""


@dataclass(frozen=True)
class ReferenceArea:
    """A source and its labels.

    Attributes
    ----------
    name
        What it is called in messages.
    source
        Pixels in the pack's units, by modality.
    window
        The part of the source that is looked at.
    labels
        Class indexes of a window of the source, uint8 [h, w]; 255 where no pixel is scored. Several threads call it.
    overlap
        Overlap of tiles in pixels; None: as the evaluation says. 0 where tiles are images of their own (`chip_areas`).
    """

    name: str
    source: BlockSource
    window: Window
    labels: Callable[[Window], NDArray[np.uint8]]
    overlap: int | None = None
