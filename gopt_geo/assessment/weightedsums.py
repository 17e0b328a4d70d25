"""How a stratified estimate varies when the strata's shares are known, and where those shares fit a sample best.

An estimate T = sum of W_h x_h / n_h is a weighted sum of independent binomial counts. Its distribution has neither a
closed form nor, with few expected units, the shape of a normal one; its characteristic function is a plain product,

    E exp(i t T) = product of (1 + p_h (exp(i t W_h / n_h) - 1))^n_h,

and Fourier's series of an interval's indicator turns that into probabilities (Feller 1971, An Introduction to
Probability Theory and Its Applications II, chapter XIX; Poisson's formula).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["constrained_shares", "tails"]

_Float = NDArray[np.float64]
_FARTHEST = 80.0  # of log(1 + |lambda|): a multiplier of 1e34 drives any share to 0 or 1
_HALVINGS = 50
_WAVES = 120
_PERIOD = 24.0  # in standard deviations; what lies farther from the middle comes in again from the other side
_REACH = 4.0  # least ratio of the period to the distance asked about
_BLUR = 1 / 200  # of the period, a standard deviation; the last wave is damped to 0.007 then


def constrained_shares(shares: _Float, pull: _Float, weights: _Float, whole: _Float) -> _Float:
    """Return the likeliest shares of strata among those whose weighted sum is given.

    Parameters
    ----------
    shares
        Found in the strata, [H, B].
    pull
        W_h (1 - f_h) / n_h, how far a stratum gives way, [H, B].
    weights
        W_h [H].
    whole
        Sums asked about, [B]; where the strata can't have one, their shares are those of the nearest sum.

    Returns
    -------
    float64 [H, B]
    """
    sign = np.where(weights @ shares > whole, 1.0, -1.0)
    near, far = np.zeros(whole.shape), np.full(whole.shape, _FARTHEST)
    for _ in range(_HALVINGS):
        middle = (near + far) / 2
        beyond = (weights @ _fitted(shares, sign * np.expm1(middle) * pull) - whole) * sign > 0
        near, far = np.where(beyond, middle, near), np.where(beyond, far, middle)
    return _fitted(shares, sign * np.expm1((near + far) / 2) * pull)


def tails(shares: _Float, units: _Float, steps: _Float, distance: _Float) -> _Float:
    """Return the probability that a sum of binomial counts is farther from its mean than a distance.

    Where the sum can lie at just that distance, half of its probability counts (mid-p, Lancaster 1961); the edge is
    blurred by an eighth of the sum's standard deviation, so that what differs by rounding alone counts as equal.

    Parameters
    ----------
    shares
        The true ones, [H, B].
    units
        n_h [H], whole numbers.
    steps
        [H]: by how much one more unit raises the sum.
    distance
        [B], 0 or above.

    Returns
    -------
    float64 [B]
    """
    deviation = np.sqrt((units * steps**2) @ (shares * (1 - shares)))
    period = np.maximum(_PERIOD * deviation, _REACH * distance)
    first = 2 * np.pi / np.where(period > 0, period, 1)
    number = np.arange(1, _WAVES + 1)
    modulus, phase = np.zeros((2, len(distance), _WAVES))
    for share, n, step in zip(shares, units, steps, strict=True):
        open_ = np.flatnonzero((share > 0) & (share < 1))
        if not len(open_):
            continue
        p = share[open_, None]
        half = (first[open_] * step / 2)[:, None] * number
        sine, cosine = np.sin(half), np.cos(half)
        with np.errstate(divide="ignore"):  # log 0 where the sum can't have the wave, p = 1/2 and half a turn
            modulus[open_] += n / 2 * np.log1p(np.maximum(-4 * p * (1 - p) * sine**2, -1))
        phase[open_] += n * (np.arctan2(2 * p * sine * cosine, 1 - 2 * p * sine**2) - 2 * p * half)
    blurred = (2 * np.pi * _BLUR * number) ** 2 / 2
    damping = (1 + blurred) * np.exp(-blurred)  # a kernel of the fourth order: it adds nothing to the variance
    wave = np.exp(modulus) * np.cos(phase) * np.sin((first * distance)[:, None] * number)
    inside = first * distance / np.pi + wave @ (2 / np.pi * damping / number)
    return np.clip(1 - inside, 0, 1)


def _fitted(shares: _Float, pull: _Float) -> _Float:
    """Solve p^ - p = c p (1 - p) for p in [0, 1]."""
    root = np.sqrt(np.maximum((1 + pull) ** 2 - 4 * pull * shares, 0))
    # Of the two forms of one root, each is free of cancellation on its own side of 0.
    down = 2 * shares / np.maximum(1 + pull + root, np.finfo(float).tiny)
    up = 1 - 2 * (1 - shares) / np.maximum(1 - pull + root, np.finfo(float).tiny)
    return np.clip(np.where(pull >= 0, down, up), 0, 1)
