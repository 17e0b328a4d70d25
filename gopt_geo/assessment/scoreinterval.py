"""Confidence intervals of a share that is estimated from several strata: the exact stratified score interval.

With few errors in a stratum the usual interval, estimate -+ z standard errors, is too short: where no error was found
its standard error is 0. Wilson (1927) took the standard error not at the estimate but at each share P asked about;
with several strata P = sum of W_h p_h leaves the p_h open, and they are put where they fit the sample best (Miettinen
and Nurminen 1985 for a difference, Yan and Su 2010 and others for weighted sums). By Lagrange p_h solves a quadratic,

    p^_h - p_h = lambda W_h (1 - f_h) / n_h * p_h (1 - p_h),

so that all shares lie on one curve, which lambda runs along.

Whether |estimate - P| is too large for chance is then told not by a normal variable but by the estimate's own
distribution with these p_h, a sum of binomial counts (`gopt_geo.assessment.weightedsums`): the interval holds all P
of which a sample at least as far from P as this one has a probability of 1 - level or more, mid-p. With a normal
variable a skewed distribution makes it too wide or too short, by the classes' sizes.

The likeliest shares of a P above the estimate put nearly all that it lacks into the one stratum whose units weigh
most, if few were found there. Age-adjusted rates have the same question: Fay and Feuer (1997) take the largest weight
for the next unit, which is too wide, Tiwari, Clegg and Zou (2006) the mean one. Here strata whose shares are below
1/2 and must rise give way by a weight between their own and their common one: 1/2 / (1 + (X / 10)^2) of the way, which
is halfway where they hold no unit, and hardly any where they hold many. X counts their units as if all weighed the same
(Fay and Feuer's scaling): the square of the sum of W_h p^_h over the sum of W_h^2 p^_h / n_h. Strata whose shares
are above 1/2 and must fall, likewise. Equal weights leave all as it is.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from gopt_geo.assessment.weightedsums import constrained_shares, tails

__all__ = ["normal_quantile", "score_interval", "score_probability"]

_Float = NDArray[np.float64]
_NET = 96  # sums asked about on the way from the estimate to 0 or 1, each 13 % farther from it than the last
_NEAREST = 1e-5  # of that way
_HALVINGS = 24  # between two of them
_CHUNK = 512  # questions at a time, so that the arrays stay in the processor's cache
_COMMON = 0.5  # part of the common weight where no unit was found; chosen by simulation, see docs/benchmarks.md
_FADING = 10.0  # units found at which it is half of that; likewise


def normal_quantile(level: float) -> float:
    """Return z with the level of a normal variable within -+ z.

    Raises
    ------
    ValueError
        If the level isn't between 0 and 1.
    """
    from scipy.special import ndtri

    _check(level)
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
        Sampled units of each stratum, [H], whole numbers.
    weights
        W_h [H], the strata's shares of the whole.
    level
        Of confidence, such as 0.95.
    fractions
        f_h [H], the sampled part of each stratum; None stands for 0. At 1 the share is known.

    Returns
    -------
    lower, upper : float64 [...]

    Raises
    ------
    ValueError
        If the level isn't between 0 and 1.
    """
    _check(level)
    flat = shares.reshape(len(units), -1)
    estimate = weights @ flat
    ends = [_end(flat, units, weights, 1 - level, fractions, end) for end in (0.0, 1.0)]
    lower, upper = np.clip(ends[0], 0, estimate), np.clip(ends[1], estimate, 1)
    return lower.reshape(shares.shape[1:]), upper.reshape(shares.shape[1:])


def _end(
    shares: _Float, units: _Float, weights: _Float, least: float, fractions: _Float | None, limit: float
) -> _Float:
    """Return the farthest sum towards 0 or 1 that the sample agrees with, [B].

    Few counts leave gaps in what it agrees with: the outermost is looked for, on a net first.
    """
    estimate = weights @ shares
    questions = np.arange(len(estimate))
    net = np.geomspace(_NEAREST, 1, _NET)[:, None] * (limit - estimate) + estimate
    every = np.broadcast_to(shares[:, None], (len(units), *net.shape))
    agrees = score_probability(every, units, weights, net, fractions) >= least
    last = np.where(agrees.any(axis=0), _NET - 1 - agrees[::-1].argmax(axis=0), -1)
    near = np.where(last >= 0, net[last, questions], estimate)
    far = net[np.minimum(last + 1, _NET - 1), questions]
    for _ in range(_HALVINGS):
        middle = (near + far) / 2
        inside = score_probability(shares, units, weights, middle, fractions) >= least
        near, far = np.where(inside, middle, near), np.where(inside, far, middle)
    return near


def score_probability(
    shares: _Float, units: _Float, weights: _Float, whole: _Float, fractions: _Float | None = None
) -> _Float:
    """Return how probable a sample as far from a sum, or farther, would be: the mid-p-value of the score test.

    `score_interval` is the smallest that holds all sums of which it is at least 1 - level.

    Parameters
    ----------
    shares, units, weights, fractions
        As for `score_interval`.
    whole
        The weighted sums asked about, [...].

    Returns
    -------
    float64 [...]
    """
    count = len(units)
    found, sums = shares.reshape(count, -1), np.asarray(whole, np.float64).reshape(-1)
    free = np.ones(count) if fractions is None else 1 - fractions
    parts = [slice(at, at + _CHUNK) for at in range(0, len(sums), _CHUNK)]
    answers = [_probability(found[:, part], units, weights, sums[part], free) for part in parts]
    return np.concatenate([np.zeros(0), *answers]).reshape(np.shape(whole))


def _probability(shares: _Float, units: _Float, weights: _Float, whole: _Float, free: _Float) -> _Float:
    estimate = weights @ shares
    pull = _pull(shares, units, weights * free, whole > estimate)
    likely = constrained_shares(shares, pull, weights, whole)
    # A sample without replacement varies like one with it, by sqrt(1 - f) less.
    return tails(likely, np.rint(units), weights * np.sqrt(free) / units, np.abs(estimate - whole))


def _pull(shares: _Float, units: _Float, weights: _Float, rises: NDArray[np.bool_]) -> _Float:
    """Return how far each stratum gives way, [H, B]: W_h / n_h, drawn to their mean where shares of few units rise."""
    tiny = np.finfo(float).tiny
    own = np.broadcast_to((weights / units)[:, None], shares.shape)
    growing = np.where(rises, shares, 1 - shares)
    weighed = (growing < 0.5) * weights[:, None]
    common = (weighed * own).sum(axis=0) / np.maximum(weighed.sum(axis=0), tiny)
    found = (weighed * growing).sum(axis=0) ** 2 / np.maximum((weighed * own * growing).sum(axis=0), tiny)
    drawn = _COMMON / (1 + (found / _FADING) ** 2)
    return np.where(weighed > 0, own + drawn * (common - own), own)


def _check(level: float) -> None:
    if not 0 < level < 1:
        raise ValueError(f"a level of {level}")
