"""Areas and models that need no training."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gopt_geo.assessment.reference import ReferenceArea
from gopt_geo.grid import Window
from gopt_geo.scene.arrays import ArrayScene


class PixelModel:
    """Probabilities of each pixel alone: the softmax of its values, one band a class."""

    modalities = ("optical",)

    def __init__(self, classes: int) -> None:
        self.num_classes = classes
        self.tiles = 0

    def __call__(self, values: dict[str, Tensor], valid: dict[str, Tensor], /) -> Tensor:
        self.tiles += len(values["optical"])
        return torch.softmax(values["optical"], dim=1)


class BlurModel(PixelModel):
    """The same of a neighbourhood, so that tiles disagree where they overlap."""

    def __call__(self, values: dict[str, Tensor], valid: dict[str, Tensor], /) -> Tensor:
        blurred = torch.nn.functional.avg_pool2d(values["optical"], 5, stride=1, padding=2)
        return super().__call__({"optical": blurred}, valid)


def reader(labels: NDArray[np.uint8]) -> Callable[[Window], Any]:
    return lambda window: labels[window.row : window.row_stop, window.col : window.col_stop]


def area_of(
    values: NDArray[np.float32],
    labels: NDArray[np.uint8],
    *,
    valid: NDArray[np.bool_] | None = None,
    window: Window | None = None,
    overlap: int | None = None,
    name: str = "area",
) -> ReferenceArea:
    scene = ArrayScene({"optical": values}, None if valid is None else {"optical": valid})
    return ReferenceArea(name, scene, window or Window(0, 0, *labels.shape), reader(labels), overlap)


def random_area(
    seed: int, shape: tuple[int, int] = (70, 90), classes: int = 4, labelled: float = 0.7, sharpness: float = 1.0
) -> ReferenceArea:
    """Labels drawn from the softmax of the values: a model that knows the values is calibrated at sharpness 1."""
    rng = np.random.default_rng(seed)
    values = rng.normal(0, 1.5, (classes, *shape)).astype(np.float32)
    cumulated = torch.softmax(torch.from_numpy(values), 0).cumsum(0).numpy()
    labels = (rng.random(shape) > cumulated).sum(axis=0).clip(0, classes - 1).astype(np.uint8)
    labels[rng.random(shape) > labelled] = 255
    return area_of(values * np.float32(sharpness), labels)
