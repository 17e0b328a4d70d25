"""A map against a reference raster on any grid."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from contextlib import closing
from dataclasses import dataclass
from os import PathLike
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gopt_geo.assessment.metrics import NODATA, Scores
from gopt_geo.errors import GoptGeoError, GridError
from gopt_geo.grid import Window
from gopt_geo.outputs.legend import read_legend
from gopt_geo.scene import BLOCK, AlignedSource, RasterSource
from gopt_geo.scene.extent import place_scene

__all__ = ["Assessment", "evaluate_map"]

_VALUES = 256


@dataclass(frozen=True)
class Assessment:
    """What `evaluate_map` found.

    Attributes
    ----------
    prediction, reference
        The two rasters.
    class_values, class_names
        The K classes, in the order of the matrix.
    matrix
        int64 [K, K + 1]: reference classes down, mapped classes across, the last column without a class.
    scores
        Over all labelled pixels inside the map's frame; what the map leaves without a class counts as an error.
    mapped_scores
        Over those that the map gives a class.
    notices
        What the reader of the figures should know.
    """

    prediction: str
    reference: str
    class_values: tuple[int, ...]
    class_names: tuple[str, ...]
    matrix: NDArray[np.int64]
    scores: Scores
    mapped_scores: Scores
    notices: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return all figures as plain types for JSON; undefined ones are None."""
        return {
            "prediction": self.prediction,
            "reference": self.reference,
            "classes": [
                {"value": value, "name": name} for value, name in zip(self.class_values, self.class_names, strict=True)
            ],
            "confusion_matrix": self.matrix[:, :-1].tolist(),
            "unpredicted_pixels": self.matrix[:, -1].tolist(),
            "scores": self.scores.to_dict(),
            "scores_of_mapped_pixels": self.mapped_scores.to_dict(),
            "notices": list(self.notices),
        }


def evaluate_map(
    prediction: str | PathLike[str],
    reference: str | PathLike[str],
    class_values: Sequence[int] | None = None,
    ignore: Collection[int] = (),
) -> Assessment:
    """Compare a class map with reference labels, row band by row band.

    The labels are taken onto the map's grid by their nearest pixel. Without a CRS on either side, rasters of
    equal shape are compared pixel by pixel.

    Parameters
    ----------
    prediction
        The class map, as predict writes it. 255 and its nodata value carry no class.
    reference
        A raster with one band of class values. Its nodata value and 255 are unlabelled.
    class_values
        The classes; by default those of the map's legend, and without a legend the values that occur.
    ignore
        Further values of the reference that are unlabelled.

    Returns
    -------
    Assessment
        The matrix and its scores.

    Raises
    ------
    SourceError
        If a raster can't be read.
    GridError
        If the rasters don't overlap, or only one has a CRS.
    GoptGeoError
        If no labelled pixel lies within the map, or values occur that are none of the classes.
    """
    with closing(RasterSource(prediction, [1])) as mapped, closing(_onto(mapped, reference)) as labels:
        pairs, strange = _count_pairs(mapped, labels, ignore)
    legend = {entry.value: entry.name for entry in read_legend(prediction)}
    seen = np.flatnonzero(pairs.sum(axis=1)), np.flatnonzero(pairs.sum(axis=0))
    if class_values is None:
        listed = tuple(legend) or tuple(sorted({*seen[0].tolist(), *seen[1].tolist()} - {NODATA}))
    else:
        listed = tuple(int(value) for value in class_values)
        if not all(0 <= value < NODATA for value in listed) or len(set(listed)) < len(listed):
            raise ValueError(f"class values must be distinct and in 0..254: {listed}")
    _check_classes(reference, {*strange, *seen[0].tolist()}, listed)
    _check_classes(prediction, {*seen[1].tolist()} - {NODATA}, listed)
    if not pairs.any():
        found = "none of its labelled pixels lies within the map"
        raise GoptGeoError(reference, found, "give labels of the same ground")
    matrix = pairs[np.ix_(listed, [*listed, NODATA])]
    scores = Scores.from_matrix(matrix)
    return Assessment(
        prediction=str(prediction),
        reference=str(reference),
        class_values=listed,
        class_names=tuple(legend.get(value, f"class {value}") for value in listed),
        matrix=matrix,
        scores=scores,
        mapped_scores=Scores.from_matrix(matrix[:, :-1]),
        notices=_notices(scores, len(listed), guessed=class_values is None and not legend),
    )


def _onto(mapped: RasterSource, reference: str | PathLike[str]) -> AlignedSource:
    """Open the reference on the map's grid, after a check that both share some ground."""
    source = RasterSource(reference, [1])
    without = [s.name for s in (mapped, source) if s.grid.crs is None]
    if len(without) == 1:
        source.close()
        raise GridError(without[0], "it has no CRS, and the other raster has one", "set it with gdal_edit -a_srs")
    if without and source.grid.shape != mapped.grid.shape:
        source.close()
        found = f"without a CRS, its shape {source.grid.shape} differs from the map's {mapped.grid.shape}"
        raise GridError(reference, found, "give a reference of the same pixels")
    try:
        if not without:
            grids = {"map": (mapped.name, mapped.grid), "reference": (source.name, source.grid)}
            place_scene(grids, mapped.grid, "optical")
        return AlignedSource(source, mapped.grid, "nearest", by_pixel=bool(without))
    except GridError:
        source.close()
        raise


def _count_pairs(
    mapped: RasterSource, labels: AlignedSource, ignore: Collection[int]
) -> tuple[NDArray[np.int64], set[int | float]]:
    """Count (reference, mapped) pairs of values, [256, 256]; and reference values that no class can have."""
    pairs = np.zeros((_VALUES, _VALUES), np.int64)
    strange: set[int | float] = set()
    height, width = mapped.grid.shape
    for row in range(0, height, BLOCK):
        window = Window(row, 0, min(BLOCK, height - row), width)
        (truth,), labelled = labels.read(window)
        (found,), classified = mapped.read(window)
        labelled = labelled & (truth != NODATA) & ~np.isin(truth, list(ignore))
        possible = (truth >= 0) & (truth < _VALUES) & (truth == np.floor(truth))
        strange.update(float(v) for v in np.unique(truth[labelled & ~possible]))
        use = labelled & possible
        column = np.where(classified[use], found[use], NODATA)
        wrong = (column < 0) | (column >= _VALUES) | (column != np.floor(column))
        if wrong.any():
            _check_classes(mapped.name, {float(v) for v in np.unique(column[wrong])}, ())
        cells = truth[use].astype(np.int64) * _VALUES + column.astype(np.int64)
        pairs += np.bincount(cells, minlength=_VALUES**2).reshape(_VALUES, _VALUES)
    return pairs, strange


def _check_classes(subject: str | PathLike[str], values: Collection[int | float], classes: Collection[int]) -> None:
    """Refuse values that are none of the classes: to drop them would hide errors."""
    others = sorted({float(value) for value in values} - {float(value) for value in classes})
    if not others:
        return
    shown = ", ".join(f"{value:g}" for value in others[:10]) + (", ..." if len(others) > 10 else "")
    known = ", ".join(str(value) for value in sorted(classes)) or "integers from 0 to 254"
    found = f"it holds values that are none of the classes: {shown} (classes: {known})"
    raise GoptGeoError(subject, found, "recode them, or set them to nodata where they mean unlabelled")


def _notices(scores: Scores, count: int, *, guessed: bool) -> tuple[str, ...]:
    notices = []
    if guessed:
        notices.append("warning: the map has no legend: every value in either raster is taken as a class")
    if scores.absent:
        notices.append(f"{scores.absent} of {count} classes are in neither raster and are left out of the mean IoU")
    if scores.unpredicted:
        notices.append(
            f"the map has no class for {scores.unpredicted:.2%} of the labelled pixels; they count as errors"
        )
    return tuple(notices)
