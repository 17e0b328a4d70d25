"""Area of each class and accuracy of a map, from a stratified random sample with reference classes.

The estimators are those of Olofsson, Foody, Herold, Stehman, Woodcock and Wulder (2014), "Good practices for
estimating area and assessing accuracy of land change", Remote Sensing of Environment 148, 42-57 (equation numbers
below), in the general form of Stehman (2014), "Estimating area and map accuracy for stratified random sampling when
the strata are different from the map classes", International Journal of Remote Sensing 35, 4923-4939, to which they
belong as the case where the strata are the map's classes. Variances carry the finite population correction
1 - n_h / N_h where the strata's pixels are known; Olofsson et al. leave it out, for it is next to 1 on real maps.

The estimate and its standard error are the unbiased ones. The interval beside them is the score interval of
`gopt_geo.assessment.scoreinterval`, for the plain one, estimate -+ z standard errors, covers the true area too
seldom where a class is rare or few errors were found; both are given.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gopt_geo.assessment.scoreinterval import normal_quantile, score_interval
from gopt_geo.errors import SampleError

__all__ = ["INTERVAL", "AreaEstimates", "Strata", "estimate_areas"]

_Float = NDArray[np.float64]
INTERVAL = "stratified score interval; plain: estimate -+ z standard errors"
"""What the intervals are, for outputs."""


@dataclass(frozen=True)
class Strata:
    """The strata that a sample was drawn from.

    Attributes
    ----------
    names
        Of the H strata, for messages.
    areas
        float64 [H], above 0: square metres, or pixels where no CRS gives areas.
    pixels
        int64 [H], N_h; None where they aren't known, and variances carry no finite population correction then.
    """

    names: tuple[str, ...]
    areas: _Float
    pixels: NDArray[np.int64] | None = None

    @property
    def weights(self) -> _Float:
        """W_h [H], the shares of the whole."""
        return np.asarray(self.areas / self.areas.sum())


@dataclass(frozen=True)
class AreaEstimates:
    """What `estimate_areas` found, all by class [K] unless said otherwise; undefined figures are NaN.

    Attributes
    ----------
    level
        Of the intervals.
    total_area
        Of all strata, in the unit of their areas.
    share, share_se
        Estimated share of each class (eq. 9) and its standard error (eq. 10).
    lower, upper
        Score interval of the share.
    plain_lower, plain_upper
        share -+ z share_se (eq. 11), not cut at 0.
    users, users_se, producers, producers_se
        User's and producer's accuracy (eq. 2 and 3) and their standard errors (eq. 6 and 7).
    overall, overall_se, overall_lower, overall_upper
        Overall accuracy (eq. 1), its standard error (eq. 5) and score interval; numbers.
    proportions
        float64 [K, K]: the error matrix in shares of the whole (eq. 4), map classes down, reference across.
    mapped_units, reference_units
        int64: sampled units that the map, and the reference, give the class.
    """

    level: float
    total_area: float
    share: _Float
    share_se: _Float
    lower: _Float
    upper: _Float
    plain_lower: _Float
    plain_upper: _Float
    users: _Float
    users_se: _Float
    producers: _Float
    producers_se: _Float
    overall: float
    overall_se: float
    overall_lower: float
    overall_upper: float
    proportions: _Float
    mapped_units: NDArray[np.int64]
    reference_units: NDArray[np.int64]

    @property
    def area(self) -> _Float:
        """Estimated area of each class, in the unit of the strata's areas."""
        return self.share * self.total_area

    def to_dict(self) -> dict[str, Any]:
        """Return the figures for JSON, undefined ones as None."""
        found: dict[str, Any] = {"interval": INTERVAL}
        for name in self.__dataclass_fields__:
            found[name] = _plain(getattr(self, name))
        return found


def estimate_areas(
    counts: NDArray[np.integer] | _Float,
    strata: Strata,
    *,
    level: float = 0.95,
    units: NDArray[np.integer] | None = None,
) -> AreaEstimates:
    """Estimate areas and accuracies from a sample's counts.

    Parameters
    ----------
    counts
        Sampled units [K, K], map classes down and reference classes across, where the strata are the K map classes;
        or [H, K, K] by stratum, map class and reference class. Units may count by the size of their pixels, as long
        as each stratum's sum is its number of units.
    strata
        H strata; a map class without any ground can't be a stratum: give [H, K, K] then.
    level
        Of the intervals.
    units
        The units themselves where `counts` are weighted, for the record; same shape.

    Returns
    -------
    AreaEstimates

    Raises
    ------
    SampleError
        If a stratum has no unit, one alone of several, or more than it has pixels.
    ValueError
        If shapes don't fit, or an area or level makes no sense.
    """
    cells = np.asarray(counts, np.float64)
    if cells.ndim == 2:
        cells = _by_stratum(cells)
        units = None if units is None else _by_stratum(np.asarray(units))
    _check(cells, strata)
    sampled = cells.sum(axis=(1, 2))
    weights = strata.weights
    fractions = np.zeros(len(weights)) if strata.pixels is None else np.minimum(sampled / strata.pixels, 1.0)
    factors = weights**2 * (1 - fractions) / np.maximum(sampled - 1, 1)
    means = cells / sampled[:, None, None]
    z = normal_quantile(level)

    of_reference, of_map = means.sum(axis=1), means.sum(axis=2)  # [H, K]
    right = np.diagonal(means, axis1=1, axis2=2)
    share = weights @ of_reference
    share_se = np.sqrt(factors @ (of_reference * (1 - of_reference)))
    lower, upper = score_interval(of_reference, sampled, weights, level, fractions)
    agreement = right.sum(axis=1)
    overall = float(weights @ agreement)
    overall_ends = score_interval(agreement, sampled, weights, level, fractions)
    users, users_se = _ratio(right, of_map, weights, factors)
    producers, producers_se = _ratio(right, of_reference, weights, factors)
    plain_units = np.rint(cells if units is None else units).astype(np.int64)
    return AreaEstimates(
        level=level,
        total_area=float(strata.areas.sum()),
        share=share,
        share_se=share_se,
        lower=lower,
        upper=upper,
        plain_lower=share - z * share_se,
        plain_upper=share + z * share_se,
        users=users,
        users_se=users_se,
        producers=producers,
        producers_se=producers_se,
        overall=overall,
        overall_se=math.sqrt(float(factors @ (agreement * np.maximum(1 - agreement, 0)))),
        overall_lower=float(overall_ends[0]),
        overall_upper=float(overall_ends[1]),
        proportions=np.tensordot(weights, means, axes=1),
        mapped_units=plain_units.sum(axis=(0, 2)),
        reference_units=plain_units.sum(axis=(0, 1)),
    )


def _by_stratum(matrix: NDArray[Any]) -> NDArray[Any]:
    """Spread an error matrix [K, K] over the strata that its rows are, [K, K, K]."""
    count = len(matrix)
    cells = np.zeros((count, *matrix.shape), matrix.dtype)
    cells[np.arange(count), np.arange(count)] = matrix
    return cells


def _ratio(part: _Float, whole: _Float, weights: _Float, factors: _Float) -> tuple[_Float, _Float]:
    """Return the ratio of two estimated shares by class and its standard error (Stehman 2014, eq. 27 and 28).

    `part` [H, K] is the mean in each stratum of an indicator y that is 1 only where that of `whole`, x, is: the
    variance of y - R x, which is 1 - R where y is 1, -R where x alone is, needs no more than the means.
    """
    of_whole = weights @ whole
    with np.errstate(invalid="ignore", divide="ignore"):
        ratio = np.where(of_whole > 0, (weights @ part) / of_whole, np.nan)
        squares = part * (1 - ratio) ** 2 + (whole - part) * ratio**2
        variance = factors @ np.maximum(squares - (part - ratio * whole) ** 2, 0)
        return ratio, np.sqrt(variance) / of_whole


def _check(cells: _Float, strata: Strata) -> None:
    if cells.ndim != 3 or cells.shape[1] != cells.shape[2] or len(cells) != len(strata.areas):
        raise ValueError(f"counts {cells.shape} for {len(strata.areas)} strata")
    if not (np.isfinite(strata.areas).all() and (strata.areas > 0).all()):
        raise ValueError(f"strata's areas must be above 0: {strata.areas}")
    if not (np.isfinite(cells).all() and (cells >= 0).all()):
        raise ValueError("counts must be 0 or above")
    for index, (name, units) in enumerate(zip(strata.names, np.rint(cells.sum(axis=(1, 2))), strict=True)):
        pixels = None if strata.pixels is None else int(strata.pixels[index])
        if units == 0:
            raise SampleError(
                f"stratum {name}", "it has no sampled unit, so that nothing is known of it", "sample it, or draw anew"
            )
        if pixels is not None and units > pixels:
            found = f"it has {int(units)} sampled units but {pixels} pixels"
            raise SampleError(f"stratum {name}", found, "give each pixel once, and the sample's own map")
        if units == 1 and pixels != 1:
            found = "it has one sampled unit, which can't tell a variance"
            raise SampleError(f"stratum {name}", found, "sample at least two units of it, better 50")


def _plain(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return [_plain(v) for v in value.tolist()]
    if isinstance(value, list):
        return [_plain(v) for v in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
