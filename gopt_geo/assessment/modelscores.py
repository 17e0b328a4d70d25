"""A model on ground with reference labels, through the tiler that predicts: confusion matrix, calibration, borders.

Tiles without a labelled pixel are never forwarded. Nothing is held but counts, and, where borders are asked for, the
classes of one area (in a temporary file where it is large).
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gopt_geo.assessment.boundary import BoundaryCounts, count_boundaries
from gopt_geo.assessment.calibration import BINS, Calibration
from gopt_geo.assessment.metrics import Scores
from gopt_geo.assessment.reference import UNLABELLED, ReferenceArea
from gopt_geo.errors import GoptGeoError
from gopt_geo.grid import Window
from gopt_geo.inference import BlendedRows, TileModel, TileOptions, TilePlan, TileProgress, run_tiles

__all__ = ["ModelScores", "area_options", "check_labels", "count_tiles", "evaluate_model", "labelled_in"]

_IN_MEMORY = 1 << 26  # pixels


@dataclass(frozen=True)
class ModelScores:
    """What `evaluate_model` counted; sums of several are sums of counts.

    Attributes
    ----------
    matrix
        int64 [K, K + 1]: labelled pixels by true class (down) and predicted class; the last column has none, where no
        modality carries data.
    calibration
        Of the pixels with a prediction.
    boundary
        None where borders weren't asked for.
    """

    matrix: NDArray[np.int64]
    calibration: Calibration
    boundary: BoundaryCounts | None = None

    @classmethod
    def empty(cls, classes: int, *, bins: int = BINS, boundary: int | None = None) -> ModelScores:
        """Return the counts of no pixel."""
        borders = None if boundary is None else BoundaryCounts.empty(classes, boundary)
        return cls(np.zeros((classes, classes + 1), np.int64), Calibration.empty(bins), borders)

    def __add__(self, other: ModelScores) -> ModelScores:
        """Return the counts of both together."""
        if (self.boundary is None) != (other.boundary is None):
            raise ValueError("borders were counted in one part alone")
        borders = self.boundary + other.boundary if self.boundary is not None and other.boundary is not None else None
        return ModelScores(self.matrix + other.matrix, self.calibration + other.calibration, borders)

    @property
    def scores(self) -> Scores:
        """Figures of the confusion matrix."""
        return Scores.from_matrix(self.matrix)

    @property
    def boundary_f1(self) -> tuple[float, ...] | None:
        """Boundary F1 of each class; None where borders weren't counted. `boundary` has their mean."""
        return None if self.boundary is None else self.boundary.f1

    def counts(self) -> NDArray[np.float64]:
        """Return all counts as one vector, for sums over processes; see `from_counts`."""
        parts = [
            self.matrix,
            self.calibration.pixels,
            self.calibration.right,
            self.calibration.confidence,
            [self.calibration.squares, self.calibration.surprise],
            [] if self.boundary is None else self.boundary.counts,
        ]
        return np.concatenate([np.asarray(part, np.float64).ravel() for part in parts])

    @classmethod
    def from_counts(
        cls, counts: NDArray[np.floating], classes: int, *, bins: int = BINS, boundary: int | None = None
    ) -> ModelScores:
        """Make it of a vector from `counts`, or a sum of such vectors.

        Parameters
        ----------
        counts
            float64 [n]; whole numbers are exact up to 2^53.
        classes, bins, boundary
            K, and what `evaluate_model` was asked for.

        Raises
        ------
        ValueError
            If the vector has another length.
        """
        sizes = [classes * (classes + 1), bins, bins, bins, 2, 0 if boundary is None else 4 * classes]
        if counts.shape != (sum(sizes),):
            raise ValueError(f"{counts.shape} counts; {sum(sizes)} are needed")
        matrix, pixels, right, confidence, sums, borders = np.split(counts, np.cumsum(sizes)[:-1])
        whole = [np.rint(part).astype(np.int64) for part in (matrix, pixels, right, borders)]
        return cls(
            whole[0].reshape(classes, classes + 1),
            Calibration(whole[1], whole[2], np.asarray(confidence, np.float64), float(sums[0]), float(sums[1])),
            None if boundary is None else BoundaryCounts(boundary, whole[3].reshape(4, classes)),
        )

    def to_dict(self) -> dict[str, Any]:
        """Return all figures for JSON, undefined ones as None."""
        return {
            "confusion_matrix": self.matrix[:, :-1].tolist(),
            "unpredicted_pixels": self.matrix[:, -1].tolist(),
            "scores": self.scores.to_dict(),
            "boundary": None if self.boundary is None else self.boundary.to_dict(),
            "calibration": self.calibration.to_dict(),
        }


def evaluate_model(
    model: TileModel,
    areas: Sequence[ReferenceArea],
    classes: int,
    options: TileOptions,
    *,
    boundary: int | None = None,
    bins: int = BINS,
    progress: Callable[[int, int], None] | None = None,
) -> ModelScores:
    """Run a model over areas with labels and compare what the tiler makes of it with them.

    Parameters
    ----------
    model
        Gives probabilities of `classes` classes.
    areas
        Ground with labels; each is run by itself.
    classes
        K.
    options
        Tiles, as for prediction; an area's own overlap goes before.
    boundary
        Also count borders, which agree within this many pixels.
    bins
        Of the calibration.
    progress
        Called with the tiles done and all tiles, over all areas.

    Returns
    -------
    ModelScores

    Raises
    ------
    GoptGeoError
        Whatever `run_tiles` meets, or if a label isn't one of the classes.
    ValueError
        If the model has another number of classes.
    """
    if model.num_classes != classes:
        raise ValueError(f"the model has {model.num_classes} classes, not {classes}")
    total = sum(count_tiles(area, options) for area in areas)
    done = 0
    found = ModelScores.empty(classes, bins=bins, boundary=boundary)
    for area in areas:

        def tick(state: TileProgress, before: int = done) -> None:
            if progress is not None:
                progress(before + state.done, total)

        found += _evaluate_area(model, area, classes, area_options(area, options), boundary, bins, tick)
        done += count_tiles(area, options)
    return found


def area_options(area: ReferenceArea, options: TileOptions) -> TileOptions:
    """Return the tile options of an area: its own overlap goes before."""
    return options if area.overlap is None else replace(options, overlap=area.overlap)


def count_tiles(area: ReferenceArea, options: TileOptions) -> int:
    """Return the number of tiles that touch an area's window."""
    own = area_options(area, options)
    rows, cols = TilePlan(area.source.shape, own.tile_size, own.overlap).touching(area.window)
    return len(rows) * len(cols)


def labelled_in(area: ReferenceArea) -> Callable[[Window], NDArray[np.bool_]]:
    """Return what tells the labelled pixels of an area inside its window, as `run_tiles` asks."""

    def wanted(window: Window) -> NDArray[np.bool_]:
        found = np.zeros(window.shape, bool)
        inside = window.intersect(area.window)
        if inside is not None:
            found[inside.slices_in(window)] = area.labels(inside) != UNLABELLED
        return found

    return wanted


def _evaluate_area(
    model: TileModel,
    area: ReferenceArea,
    classes: int,
    options: TileOptions,
    boundary: int | None,
    bins: int,
    tick: Callable[[TileProgress], None],
) -> ModelScores:
    matrix = np.zeros((classes, classes + 1), np.int64)
    calibration = Calibration.empty(bins)
    with _class_map(area.window, wanted=boundary is not None) as mapped:

        def sink(rows: BlendedRows) -> None:
            nonlocal calibration
            labels = area.labels(rows.window)
            labelled = labels != UNLABELLED
            check_labels(area, labels[labelled], classes)
            scored = labelled & rows.valid
            truth, probabilities = labels[scored].astype(np.int64), rows.probabilities[:, scored]
            found = probabilities.argmax(axis=0) if truth.size else truth
            cells = np.bincount(truth * (classes + 1) + found, minlength=matrix.size)
            np.add(matrix, cells.reshape(matrix.shape), out=matrix)
            matrix[:, classes] += np.bincount(labels[labelled & ~rows.valid], minlength=classes)
            calibration += Calibration.of_probabilities(probabilities, truth, bins)
            if mapped is not None:
                part = np.full(rows.window.shape, UNLABELLED, np.uint8)
                part[scored] = found
                mapped[rows.window.slices_in(area.window)] = part

        run_tiles(area.source, model, options, window=area.window, wanted=labelled_in(area), sink=sink, progress=tick)
        borders = None
        if mapped is not None and boundary is not None:
            read = partial(_part, mapped, area.window)
            borders = count_boundaries(area.labels, read, area.window, classes, boundary)
    return ModelScores(matrix, calibration, borders)


def check_labels(area: ReferenceArea, labels: NDArray[np.uint8], classes: int) -> None:
    """Refuse class indexes that are none of the classes."""
    if labels.size and int(labels.max()) >= classes:
        found = f"label index {int(labels.max())} is none of the {classes} classes"
        raise GoptGeoError(area.name, found, "give labels of these classes")


def _part(mapped: NDArray[np.uint8], outer: Window, window: Window) -> NDArray[np.uint8]:
    return mapped[window.slices_in(outer)]


@contextmanager
def _class_map(window: Window, *, wanted: bool) -> Iterator[NDArray[np.uint8] | None]:
    """Yield room for the classes of a window; in a file that goes again, where memory would grow with the scene."""
    if not wanted:
        yield None
    elif math.prod(window.shape) <= _IN_MEMORY:
        yield np.full(window.shape, UNLABELLED, np.uint8)
    else:
        with tempfile.TemporaryDirectory() as folder:
            mapped = np.memmap(Path(folder) / "classes", np.uint8, "w+", shape=window.shape)
            yield mapped
            del mapped
