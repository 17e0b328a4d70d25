"""Calibration: whether a confidence of 80 % is right in 80 % of the pixels, and the temperature that makes it so.

The expected calibration error is that of Guo et al. (2017), "On Calibration of Modern Neural Networks": the confidence
of a pixel is the largest probability, pixels fall into bins of equal width by it, (0, 1/B], (1/B, 2/B], ..., and

    ECE = sum over bins of n_b / n * |share of right pixels in b - mean confidence in b|.

Pixels without a label never count; nor do those without a prediction, which have no confidence.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["BINS", "Calibration"]

BINS = 15
"""Bins of equal width, as in the paper."""
_LEAST = float(np.finfo(np.float32).tiny)


@dataclass(frozen=True)
class Calibration:
    """Counts by bin of confidence, and what they say; sums of several are sums of counts.

    Attributes
    ----------
    pixels, right
        int64 [B]: labelled pixels with a prediction, and those of them whose class is right.
    confidence
        float64 [B]: sum of their confidences.
    squares, surprise
        Sums over the pixels of the squared distance between the probabilities and the truth, and of -log of the true
        class's probability; NaN where only the confidence is known (of a map).
    """

    pixels: NDArray[np.int64]
    right: NDArray[np.int64]
    confidence: NDArray[np.float64]
    squares: float
    surprise: float

    @classmethod
    def of_probabilities(
        cls, probabilities: NDArray[np.floating], truth: NDArray[np.integer], bins: int = BINS
    ) -> Calibration:
        """Count pixels whose probabilities of all classes are known.

        Parameters
        ----------
        probabilities
            [K, n], over the classes.
        truth
            Class indexes [n].
        bins
            B.
        """
        if probabilities.shape[1] == 0:
            return cls.of_confidence(np.empty(0), np.empty(0, bool), bins, squares=0.0, surprise=0.0)
        found = probabilities.argmax(axis=0)
        own = np.take_along_axis(probabilities, truth[None].astype(np.intp), axis=0)[0].astype(np.float64)
        squares = np.einsum("kn,kn->n", probabilities, probabilities, dtype=np.float64) - 2 * own + 1
        return cls.of_confidence(
            probabilities.max(axis=0),
            found == truth,
            bins,
            squares=float(squares.sum()),
            surprise=float(-np.log(own.clip(_LEAST)).sum()),
        )

    @classmethod
    def of_confidence(
        cls,
        confidence: NDArray[np.floating],
        right: NDArray[np.bool_],
        bins: int = BINS,
        *,
        squares: float = math.nan,
        surprise: float = math.nan,
    ) -> Calibration:
        """Count pixels of which the confidence, 0 to 1, and whether they are right are known; both [n]."""
        if bins < 1:
            raise ValueError(f"{bins} bins")
        place = (np.ceil(confidence.astype(np.float64) * bins) - 1).clip(0, bins - 1).astype(np.int64)
        return cls(
            np.bincount(place, minlength=bins).astype(np.int64),
            np.bincount(place[right], minlength=bins).astype(np.int64),
            np.bincount(place, weights=confidence.astype(np.float64), minlength=bins).astype(np.float64),
            squares,
            surprise,
        )

    @classmethod
    def empty(cls, bins: int = BINS) -> Calibration:
        """Return the counts of no pixel."""
        return cls.of_confidence(np.empty(0), np.empty(0, bool), bins, squares=0.0, surprise=0.0)

    def __add__(self, other: Calibration) -> Calibration:
        """Return the counts of both together."""
        if len(self.pixels) != len(other.pixels):
            raise ValueError(f"{len(self.pixels)} and {len(other.pixels)} bins can't be summed")
        return Calibration(
            self.pixels + other.pixels,
            self.right + other.right,
            self.confidence + other.confidence,
            self.squares + other.squares,
            self.surprise + other.surprise,
        )

    @property
    def total(self) -> int:
        """Pixels counted, n."""
        return int(self.pixels.sum())

    @property
    def ece(self) -> float:
        """Expected calibration error, 0 to 1; NaN without pixels."""
        return self._mean(float(np.abs(self.right - self.confidence).sum()))

    @property
    def overconfidence(self) -> float:
        """Mean confidence less the share of right pixels: above 0, the confidence promises too much."""
        return self._mean(float(self.confidence.sum() - self.right.sum()))

    @property
    def brier(self) -> float:
        """Mean squared distance between probabilities and truth, summed over the classes: 0 (best) to 2."""
        return self._mean(self.squares)

    @property
    def nll(self) -> float:
        """Mean of -log(probability of the true class), in nats."""
        return self._mean(self.surprise)

    def bins(self) -> list[dict[str, float | int | None]]:
        """Return the bins of the reliability diagram: borders, pixels, mean confidence and share of right pixels."""
        count = len(self.pixels)
        return [
            {
                "from": index / count,
                "to": (index + 1) / count,
                "pixels": int(n),
                "confidence": float(self.confidence[index] / n) if n else None,
                "accuracy": float(self.right[index] / n) if n else None,
            }
            for index, n in enumerate(self.pixels.tolist())
        ]

    def to_dict(self) -> dict[str, Any]:
        """Return the figures for JSON, undefined ones as None."""
        figures = {
            "ece": self.ece,
            "overconfidence": self.overconfidence,
            "brier": self.brier,
            "nll": self.nll,
        }
        return {
            "method": f"{len(self.pixels)} bins of equal width over the largest probability (Guo et al. 2017)",
            "pixels": self.total,
            **{name: None if math.isnan(value) else value for name, value in figures.items()},
            "bins": self.bins(),
        }

    def _mean(self, total: float) -> float:
        return total / self.total if self.total else math.nan
