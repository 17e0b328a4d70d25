"""What the reader of an evaluation's figures should know of its classes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from gopt_geo.assessment.metrics import Scores
from gopt_geo.classnames import first_few

__all__ = ["map_notices", "only_predicted"]


def map_notices(
    matrix: NDArray[np.int64],
    values: Sequence[int],
    names: Sequence[str],
    ignored: Sequence[tuple[int, str, int]],
    *,
    guessed: bool,
) -> tuple[str, ...]:
    """Return what the reader of a map's figures should know.

    Parameters
    ----------
    matrix
        int64 [K, K + 1], see `gopt_geo.assessment.evaluate.Assessment`.
    values, names
        The K classes.
    ignored
        Value, name and labelled pixels of ignored classes of the map.
    guessed
        Whether values were taken as classes.
    """
    scores, notices = Scores.from_matrix(matrix), []
    if guessed:
        notices.append("warning: the map has no legend: every value in either raster is taken as a class")
    if scores.absent:
        notices.append(f"{scores.absent} of {len(values)} classes are in neither raster and are left out of the means")
    notices += only_predicted(matrix, values, names, remedy="--ignore VALUE leaves such a class out")
    holes = int(matrix[:, -1].sum()) - sum(pixels for _, _, pixels in ignored)
    if holes:
        notices.append(
            f"the map has no class for {holes / scores.pixels:.2%} of the labelled pixels; they count as errors"
        )
    if ignored:
        shown = first_few(_counted(*one) for one in ignored)
        notices.append(f"labelled pixels that the map gives an ignored class count as errors: {shown}")
    return tuple(notices)


def only_predicted(
    matrix: NDArray[np.int64], values: Sequence[int], names: Sequence[str], remedy: str | None = None
) -> list[str]:
    """Tell of classes that are predicted and nowhere in the reference: their IoU of 0 lowers the means.

    Parameters
    ----------
    matrix
        int64 [K, K + 1], see `gopt_geo.assessment.evaluate.Assessment`.
    values, names
        The K classes.
    remedy
        What can be done about it, if anything.
    """
    rows, columns = matrix.sum(axis=1), matrix[:, : len(values)].sum(axis=0)
    alone = [k for k in range(len(values)) if not rows[k] and columns[k]]
    if not alone:
        return []
    shown = first_few(_counted(values[k], names[k], int(columns[k])) for k in alone)
    ending = "" if remedy is None else f"; {remedy}"
    return [f"warning: predicted, but nowhere in the reference, so that the means count it as 0: {shown}{ending}"]


def _counted(value: int, name: str, pixels: int) -> str:
    known = name if name and name != f"class {value}" else "class"
    return f"{known} {value} ({pixels} pixels)"
