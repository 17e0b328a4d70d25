"""A map against reference labels on any grid."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from os import PathLike
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gopt_geo.aoi import Aoi
from gopt_geo.assessment.boundary import BoundaryCounts, count_boundaries
from gopt_geo.assessment.calibration import Calibration
from gopt_geo.assessment.conventions import conventions
from gopt_geo.assessment.mapconfidence import MapConfidence
from gopt_geo.assessment.mapreference import MapReference, open_map_reference
from gopt_geo.assessment.metrics import NODATA, Scores
from gopt_geo.assessment.scorenotices import map_notices
from gopt_geo.errors import GoptGeoError, SourceError
from gopt_geo.grid import Window
from gopt_geo.outputs.legend import read_legend
from gopt_geo.scene import BLOCK, RasterSource

__all__ = ["Assessment", "evaluate_map"]

_VALUES = 256


@dataclass(frozen=True)
class Assessment:
    """What `evaluate_map` found.

    Attributes
    ----------
    prediction, reference
        The map and the labels.
    class_values, class_names
        The K classes, in the order of the matrix.
    matrix
        int64 [K, K + 1]: reference classes down, mapped classes across, the last column without a class, or with an
        ignored one.
    scores
        Over all labelled pixels inside the map's frame; what the map leaves without a class counts as an error.
    mapped_scores
        Over those that the map gives a class.
    notices
        What the reader of the figures should know.
    boundary
        Borders; None where they weren't asked for.
    calibration
        Of the map's confidence; None where it wasn't given.
    aoi
        Name of the area that the comparison is limited to.
    """

    prediction: str
    reference: str
    class_values: tuple[int, ...]
    class_names: tuple[str, ...]
    matrix: NDArray[np.int64]
    scores: Scores
    mapped_scores: Scores
    notices: tuple[str, ...]
    boundary: BoundaryCounts | None = None
    calibration: Calibration | None = None
    aoi: str | None = None

    @property
    def conventions(self) -> tuple[str, ...]:
        """How the figures are made, a line each."""
        bins = None if self.calibration is None else len(self.calibration.pixels)
        return conventions(self.scores, None if self.boundary is None else self.boundary.tolerance, bins)

    def to_dict(self) -> dict[str, Any]:
        """Return all figures as plain types for JSON; undefined ones are None."""
        return {
            "prediction": self.prediction,
            "reference": self.reference,
            "aoi": self.aoi,
            "classes": [
                {"value": value, "name": name} for value, name in zip(self.class_values, self.class_names, strict=True)
            ],
            "confusion_matrix": self.matrix[:, :-1].tolist(),
            "unpredicted_pixels": self.matrix[:, -1].tolist(),
            "scores": self.scores.to_dict(),
            "scores_of_mapped_pixels": self.mapped_scores.to_dict(),
            "boundary": None if self.boundary is None else self.boundary.to_dict(),
            "calibration": None if self.calibration is None else self.calibration.to_dict(),
            "conventions": list(self.conventions),
            "notices": list(self.notices),
        }


def evaluate_map(
    prediction: str | PathLike[str],
    reference: str | PathLike[str],
    class_values: Sequence[int] | None = None,
    ignore: Collection[int] = (),
    *,
    class_field: str | None = None,
    aoi: Aoi | None = None,
    confidence: str | PathLike[str] | None = None,
    boundary: int | None = None,
) -> Assessment:
    """Compare a class map with reference labels, row band by row band.

    A label raster is taken onto the map's grid by its nearest pixel; of a vector file, a polygon labels the pixels
    whose centre it holds, a point the pixel it lies in. Without a CRS on either side, rasters of equal shape are
    compared pixel by pixel.

    Parameters
    ----------
    prediction
        The class map, as predict writes it. 255 and its nodata value carry no class.
    reference
        A raster with one band of class values, or a vector file. The raster's nodata value and 255 are unlabelled.
    class_values
        The classes; by default those of the map's legend, and without a legend the values that occur.
    ignore
        Further values of the reference that are unlabelled. A class of the map among them isn't scored: it has no row
        and no part in any mean, and labelled pixels that the map gives it count as errors of their reference class.
    class_field
        Field of a vector file that holds the class, its value or its name in the map's legend.
    aoi
        Area that the comparison is limited to: pixels with their centre in it.
    confidence
        The map's confidence in percent, on its grid, for the calibration: one band, 0 to 100, and no class map.
    boundary
        Also compare borders, which agree within this many pixels.

    Returns
    -------
    Assessment
        The matrix and its scores.

    Raises
    ------
    GoptGeoError
        If a file can't be read, the map and the labels show other ground or have none in common in the area, values
        occur that are none of the classes, or all are ignored.
    """
    with ExitStack() as stack:
        mapped = stack.enter_context(closing(_class_map(prediction)))
        names = {entry.value: entry.name for entry in read_legend(prediction)}
        if names and not set(names) - set(ignore):
            found = f"all {len(names)} classes of {mapped.name} are ignored"
            raise GoptGeoError("--ignore", found, "ignore fewer values, so that a class is left to be scored")
        area = None if aoi is None else aoi.on(mapped.grid)
        window = Window(0, 0, *mapped.grid.shape) if area is None else area.window
        labels = stack.enter_context(
            closing(open_map_reference(reference, mapped, names, class_field=class_field, ignore=ignore, area=area))
        )
        surety = None if confidence is None else stack.enter_context(closing(MapConfidence(confidence, mapped)))
        pairs, strange, calibration = _count_pairs(mapped, labels, window, surety)
        if not pairs.any() and not strange:
            raise _nothing_labelled(reference, aoi, ignore)
        unscored = _fold_ignored(pairs, ignore)
        listed = _classes(prediction, reference, pairs, strange, tuple(names), class_values, ignore)
        borders = None if boundary is None else _borders(mapped, labels, window, listed, boundary)
    matrix = pairs[np.ix_(listed, [*listed, NODATA])]
    scores = Scores.from_matrix(matrix)
    class_names = tuple(names.get(value, f"class {value}") for value in listed)
    said = (*labels.notices, *(area.notices if area is not None else ()))
    ignored = [(value, names.get(value, ""), pixels) for value, pixels in unscored.items()]
    said += map_notices(matrix, listed, class_names, ignored, guessed=class_values is None and not names)
    return Assessment(
        prediction=str(prediction),
        reference=str(reference),
        class_values=listed,
        class_names=class_names,
        matrix=matrix,
        scores=scores,
        mapped_scores=Scores.from_matrix(matrix[:, :-1]),
        notices=said,
        boundary=borders,
        calibration=calibration,
        aoi=None if aoi is None else aoi.name,
    )


def _classes(
    prediction: str | PathLike[str],
    reference: str | PathLike[str],
    pairs: NDArray[np.int64],
    strange: Collection[int | float],
    legend: tuple[int, ...],
    class_values: Sequence[int] | None,
    ignore: Collection[int],
) -> tuple[int, ...]:
    """Return the classes that are scored, after a check that no other values occur."""
    seen = np.flatnonzero(pairs.sum(axis=1)), np.flatnonzero(pairs.sum(axis=0))
    if class_values is None:
        listed = legend or tuple(sorted({*seen[0].tolist(), *seen[1].tolist()} - {NODATA}))
    else:
        listed = tuple(int(value) for value in class_values)
        if not all(0 <= value < NODATA for value in listed) or len(set(listed)) < len(listed):
            raise ValueError(f"class values must be distinct and in 0..254: {listed}")
    listed = tuple(value for value in listed if value not in ignore)
    _check_classes(reference, {*strange, *seen[0].tolist()}, listed)
    _check_classes(prediction, {*seen[1].tolist()} - {NODATA}, listed)
    return listed


def _nothing_labelled(reference: str | PathLike[str], aoi: Aoi | None, ignore: Collection[int]) -> GoptGeoError:
    where = "the map" if aoi is None else f"{aoi.name}, the area of interest,"
    if not ignore:
        found = f"none of its labelled pixels lies within {where}"
        return GoptGeoError(reference, found, "give labels of the same ground")
    found = f"no labelled pixel is left within {where} (--ignore {', '.join(map(str, sorted(ignore)))})"
    return GoptGeoError(reference, found, "ignore fewer values, or give labels of the same ground")


def _fold_ignored(pairs: NDArray[np.int64], ignore: Collection[int]) -> dict[int, int]:
    """Count labelled pixels that are mapped as an ignored class as without one; return them by value."""
    found: dict[int, int] = {}
    for value in sorted({value for value in ignore if 0 <= value < NODATA}):
        pixels = int(pairs[:, value].sum())
        if pixels:
            found[value] = pixels
            pairs[:, NODATA] += pairs[:, value]
            pairs[:, value] = 0
    return found


def _class_map(path: str | PathLike[str]) -> RasterSource:
    """Open the map, after a check that it may be one."""
    source = RasterSource(path)
    if source.count != 1:
        source.close()
        raise SourceError(path, f"it has {source.count} bands", "give a class map, which has one")
    return source


def _bands(window: Window) -> Iterator[Window]:
    for row in range(window.row, window.row_stop, BLOCK):
        yield Window(row, window.col, min(BLOCK, window.row_stop - row), window.width)


def _count_pairs(
    mapped: RasterSource, labels: MapReference, window: Window, confidence: MapConfidence | None
) -> tuple[NDArray[np.int64], set[int | float], Calibration | None]:
    """Count (reference, mapped) pairs of values, [256, 256]; reference values that no class can have; calibration."""
    pairs = np.zeros((_VALUES, _VALUES), np.int64)
    strange: set[int | float] = set()
    for band in _bands(window):
        truth, labelled = labels.read(band)
        (found,), classified = mapped.read(band)
        possible = (truth >= 0) & (truth < _VALUES) & (truth == np.floor(truth))
        strange.update(float(v) for v in np.unique(truth[labelled & ~possible]))
        use = labelled & possible
        column = np.where(classified[use], found[use], NODATA)
        wrong = (column < 0) | (column >= _VALUES) | (column != np.floor(column))
        if wrong.any():
            _check_classes(mapped.name, {float(v) for v in np.unique(column[wrong])}, ())
        cells = truth[use].astype(np.int64) * _VALUES + column.astype(np.int64)
        pairs += np.bincount(cells, minlength=_VALUES**2).reshape(_VALUES, _VALUES)
        if confidence is not None:
            confidence.add(band, use & classified & (found != NODATA), found, truth == found)
    return pairs, strange, None if confidence is None else confidence.finish()


def _borders(
    mapped: RasterSource, labels: MapReference, window: Window, listed: Sequence[int], tolerance: int
) -> BoundaryCounts:
    index = np.full(_VALUES, NODATA, np.uint8)
    index[list(listed)] = np.arange(len(listed))

    def truth(part: Window) -> NDArray[np.uint8]:
        values, labelled = labels.read(part)
        return index[np.where(labelled, values, NODATA).astype(np.uint8)]

    def classes(part: Window) -> NDArray[np.uint8]:
        (values,), known = mapped.read(part)
        # only labelled pixels were checked, and others may hold what no class is
        known = known & (values >= 0) & (values < _VALUES) & (values == np.floor(values))
        return index[np.where(known, values, NODATA).astype(np.uint8)]

    return count_boundaries(truth, classes, window, len(listed), tolerance)


def _check_classes(subject: str | PathLike[str], values: Collection[int | float], classes: Collection[int]) -> None:
    """Refuse values that are none of the classes: to drop them would hide errors."""
    others = sorted({float(value) for value in values} - {float(value) for value in classes})
    if not others:
        return
    shown = ", ".join(f"{value:g}" for value in others[:10]) + (", ..." if len(others) > 10 else "")
    known = ", ".join(str(value) for value in sorted(classes)) or "integers from 0 to 254"
    found = f"it holds values that are none of the classes: {shown} (classes: {known})"
    raise GoptGeoError(subject, found, "recode them, or set them to nodata where they mean unlabelled")
