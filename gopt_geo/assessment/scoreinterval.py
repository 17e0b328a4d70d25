"""Confidence intervals of a share that is estimated from several strata: the stratified score interval.

With few errors in a stratum the usual interval, estimate -+ z standard errors, is too short: where no error was found
its standard error is 0. Wilson (1927) took the standard error not at the estimate but at each share asked about; with
several strata the share in question, P = sum of W_h p_h, leaves the p_h open, and they are put where they fit the
sample best (Miettinen and Nurminen 1985 for a difference, Yan and Su 2010 and others for weighted sums). The interval
holds all P with

    (estimate - P)^2 <= z^2 * sum of W_h^2 (1 - f_h) p_h (1 - p_h) / (n_h - 1),

where p_h, subject to sum W_h p_h = P, have the largest likelihood. By Lagrange p_h solves a quadratic,

    p^_h - p_h = lambda W_h (1 - f_h) / n_h * p_h (1 - p_h),

so that all shares lie on one curve, which lambda runs along.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["normal_quantile", "score_interval"]

_Float = NDArray[np.float64]
_FARTHEST = 80.0  # of log(1 + |lambda|): a multiplier of 1e34 drives any share to 0 or 1
_HALVINGS = 64


def normal_quantile(level: float) -> float:
    """Return z with the level of a normal variable within -+ z.

    Raises
    ------
    ValueError
        If the level isn't between 0 and 1.
    """
    from scipy.special import ndtri

    if not 0 < level < 1:
        raise ValueError(f"a level of {level}")
    return float(ndtri(0.5 + level / 2))


def score_interval(
    shares: _Float, units: _Float, weights: _Float, level: float, fractions: _Float | None = None
) -> tuple[_Float, _Float]:
    """Return the score interval of weighted sums of shares.

    Parameters
    ----------
    shares
        Share of each stratum's units that have the property, [H, ...]; all but the first axis are further questions.
    units
        Sampled units of each stratum, [H]; at least 2 where not all of it was sampled.
    weights
        W_h [H], the strata's shares of the whole.
    level
        Of confidence, such as 0.95.
    fractions
        f_h [H], the sampled part of each stratum; None stands for 0. At 1 the share is known.

    Returns
    -------
    lower, upper : float64 [...]
    """
    z = normal_quantile(level)
    column = (-1, *[1] * (shares.ndim - 1))
    free = np.ones(len(units)) if fractions is None else 1 - fractions
    weight = weights.reshape(column)
    pull = (weights * free / units).reshape(column)
    spread = (weights**2 * free / np.maximum(units - 1, 1)).reshape(column)
    estimate = (weight * shares).sum(axis=0)

    def at(steps: _Float, sign: int) -> tuple[_Float, NDArray[np.bool_]]:
        """Return the share at a multiplier, and whether the sample agrees with it."""
        fitted = _fitted(shares, sign * np.expm1(steps) * pull)
        whole = (weight * fitted).sum(axis=0)
        variance = (spread * fitted * (1 - fitted)).sum(axis=0)
        return whole, (estimate - whole) ** 2 <= z**2 * variance

    ends = []
    for sign in (1, -1):
        near, far = np.zeros(estimate.shape), np.full(estimate.shape, _FARTHEST)
        for _ in range(_HALVINGS):
            middle = (near + far) / 2
            agrees = at(middle, sign)[1]
            near, far = np.where(agrees, middle, near), np.where(agrees, far, middle)
        ends.append(at(near, sign)[0])
    return np.minimum(ends[0], estimate), np.maximum(ends[1], estimate)


def _fitted(shares: _Float, pull: _Float) -> _Float:
    """Solve p^ - p = c p (1 - p) for p in [0, 1]."""
    root = np.sqrt(np.maximum((1 + pull) ** 2 - 4 * pull * shares, 0))
    # Of the two forms of one root, each is free of cancellation on its own side of 0.
    down = 2 * shares / np.maximum(1 + pull + root, np.finfo(float).tiny)
    up = 1 - 2 * (1 - shares) / np.maximum(1 - pull + root, np.finfo(float).tiny)
    return np.clip(np.where(pull >= 0, down, up), 0, 1)
