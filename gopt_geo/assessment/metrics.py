"""Confusion matrices and the scores drawn from them.

Conventions: a pixel that the reference doesn't label leaves both reference and prediction. A pixel that the
reference labels and the map leaves without a class (nodata) is an omission: it has its own column, counts against
the class's IoU, the overall accuracy and kappa, and its share is reported. Leaving such pixels out would reward a
map for its holes; `Scores.from_matrix(matrix[:, :-1])` gives those figures where only mapped ground matters.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["NODATA", "Scores", "confusion_matrix"]

NODATA = 255


def confusion_matrix(
    truth: NDArray[np.integer], prediction: NDArray[np.integer], classes: Sequence[int]
) -> NDArray[np.int64]:
    """Count pixels by reference class (rows) and mapped class (columns).

    Parameters
    ----------
    truth, prediction
        Class values of any equal shape; 255 is unlabelled and nodata.
    classes
        The K class values, in the order of rows and columns.

    Returns
    -------
    numpy.ndarray
        int64 [K, K + 1]; the last column counts labelled pixels that the map leaves without a class.

    Raises
    ------
    ValueError
        If the shapes differ, or a value is neither among `classes` nor 255.
    """
    if truth.shape != prediction.shape:
        raise ValueError(f"shapes differ: {truth.shape} and {prediction.shape}")
    labelled = truth != NODATA
    rows = _positions(truth[labelled], classes)
    columns = _positions(prediction[labelled], [*classes, NODATA])
    count = len(classes)
    cells = np.bincount(rows * (count + 1) + columns, minlength=count * (count + 1))
    return cells.reshape(count, count + 1).astype(np.int64)


def _positions(values: NDArray[np.integer], classes: Sequence[int]) -> NDArray[np.int64]:
    """Return where each value stands in `classes`."""
    order = np.argsort(np.asarray(classes, dtype=np.int64))
    listed = np.asarray(classes, dtype=np.int64)[order]
    if len(listed) == 0 and values.size:
        raise ValueError("no classes")
    if values.size == 0:
        return np.empty(0, np.int64)
    found = np.minimum(np.searchsorted(listed, values), len(listed) - 1)
    strange = np.unique(values[listed[found] != values])
    if strange.size:
        raise ValueError(f"values outside the classes: {strange.tolist()}")
    return np.asarray(order[found], dtype=np.int64)


@dataclass(frozen=True, slots=True)
class Scores:
    """Figures of a confusion matrix; NaN where a figure is undefined.

    Attributes
    ----------
    iou
        Intersection over union of each class; NaN for a class that is neither in truth nor prediction.
    producers_accuracy, users_accuracy
        Recall and precision of each class.
    f1
        Harmonic mean of both: 2 x right / (row + column); NaN where the IoU is.
    mean_iou, mean_f1
        Means over the classes present in truth or prediction.
    absent
        How many classes that leaves out.
    overall_accuracy
        Share of the labelled pixels whose class is right.
    kappa
        (OA - pe) / (1 - pe) with pe = sum(row * column) / n^2.
    pixels
        Labelled pixels, n.
    unpredicted
        Share of the labelled pixels that the map leaves without a class.
    """

    iou: tuple[float, ...]
    producers_accuracy: tuple[float, ...]
    users_accuracy: tuple[float, ...]
    f1: tuple[float, ...]
    mean_iou: float
    mean_f1: float
    absent: int
    overall_accuracy: float
    kappa: float
    pixels: int
    unpredicted: float

    @classmethod
    def from_matrix(cls, matrix: NDArray[np.integer]) -> Scores:
        """Draw the scores from a matrix [K, K] or [K, K + 1], whose last column is "without a class".

        Raises
        ------
        ValueError
            If the matrix has another shape.
        """
        count = matrix.shape[0]
        if matrix.ndim != 2 or matrix.shape[1] not in (count, count + 1):
            raise ValueError(f"not a confusion matrix: {matrix.shape}")
        cells = matrix.astype(np.float64)  # exact up to 2^53 pixels
        right = np.diagonal(cells)
        rows, columns = cells.sum(axis=1), cells[:, :count].sum(axis=0)
        total = float(rows.sum())
        iou = _share(right, rows + columns - right)
        f1 = _share(2 * right, rows + columns)
        present = ~np.isnan(iou)
        accuracy = float(right.sum()) / total if total else math.nan
        chance = float((rows * columns).sum()) / total**2 if total else math.nan
        return cls(
            iou=tuple(iou.tolist()),
            producers_accuracy=tuple(_share(right, rows).tolist()),
            users_accuracy=tuple(_share(right, columns).tolist()),
            f1=tuple(f1.tolist()),
            mean_iou=float(iou[present].mean()) if present.any() else math.nan,
            mean_f1=float(f1[present].mean()) if present.any() else math.nan,
            absent=int(np.count_nonzero(~present)),
            overall_accuracy=accuracy,
            kappa=(accuracy - chance) / (1 - chance) if chance != 1 else math.nan,
            pixels=int(total),
            unpredicted=float(cells[:, count:].sum()) / total if total else math.nan,
        )

    def to_dict(self) -> dict[str, Any]:
        """Return the figures for JSON, undefined ones as None."""
        return {name: _plain(getattr(self, name)) for name in self.__slots__}


def _share(part: NDArray[np.float64], whole: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(np.divide(part, whole, out=np.full(len(part), np.nan), where=whole > 0))


def _plain(value: Any) -> Any:
    if isinstance(value, tuple):
        return [_plain(v) for v in value]
    return None if isinstance(value, float) and math.isnan(value) else value
