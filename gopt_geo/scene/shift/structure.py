"""Structure of an image that optical and SAR share: how strong edges are in each direction, whatever their sign."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

__all__ = ["DIRECTIONS", "MARGIN", "directions_mirrored", "structure"]

DIRECTIONS = 8
"""Channels of `structure`: directions of the gradient, evenly over half a turn."""

MARGIN = 8
"""Pixels at a window's edge that `structure` computes with too little around them; read them, and cut them off."""

_POOL = 0.7  # pixels; an edge may lie this far from its counterpart and still meet it
_LOCAL = 25  # pixels; what is even over this wide a square says nothing of place
_WEAK = 0.3  # of the median strength: below it edges count less and less
_CLIP = (1.0, 99.0)  # percentiles; beyond them lie clouds and corner reflectors
_FLAT = 1e-6  # of the values' size; less than this between the percentiles is rounding, not relief


def structure(
    values: NDArray[np.float32], valid: NDArray[np.bool_], sigma: float
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Describe each pixel by the strength of edges around it, direction by direction.

    Gradients of all bands are projected on `DIRECTIONS` directions without sign (a river is darker than its banks in
    one image and brighter in the other), summed, pooled over a small neighbourhood, brought to about unit length (so
    that contrast hardly matters), and freed of their local mean.

    Parameters
    ----------
    values
        float32 [C, h, w], any unit; SAR in dB or another logarithmic or byte scale.
    valid
        bool [h, w].
    sigma
        Width of the smoothing before the gradient, in pixels: more for speckle.

    Returns
    -------
    channels : float32 [DIRECTIONS, h, w]
        0 outside of the support.
    support : bool [h, w]
        Valid pixels far enough from invalid ones that their edge isn't seen as one.
    """
    support = ndimage.binary_erosion(valid, iterations=int(2 * sigma) + 1, border_value=0)
    channels = np.zeros((DIRECTIONS, *valid.shape), np.float32)
    if not support.any():
        return channels, support
    weight = _smooth(valid.astype(np.float32), sigma)
    angles = np.arange(DIRECTIONS) * np.pi / DIRECTIONS
    for band in values:
        low, high = np.percentile(band[valid], _CLIP)
        if high - low <= _FLAT * max(abs(low), abs(high)):
            continue
        scaled = np.where(valid, (np.clip(band, low, high) - low) / (high - low), 0).astype(np.float32)
        smooth = _smooth(scaled, sigma) / np.maximum(weight, 1e-3)
        across, down = ndimage.sobel(smooth, 1) * support, ndimage.sobel(smooth, 0) * support
        edges = np.stack([np.abs(across * np.float32(np.cos(a)) + down * np.float32(np.sin(a))) for a in angles])
        # The root of the sum of squares over all directions: their squared cosines add up to half of their number.
        mean = np.hypot(across, down)[support].mean() * math.sqrt(DIRECTIONS / 2)
        if mean > 0:
            channels += edges / mean
    channels = np.asarray(ndimage.gaussian_filter(channels, (0, _POOL, _POOL), truncate=3))
    length = np.sqrt(np.square(channels).sum(axis=0))
    typical = float(np.median(length[support]))
    channels /= length + _WEAK * typical + np.float32(1e-9)
    return _without_local_mean(channels, support), support


def directions_mirrored() -> list[int]:
    """Return for each channel which one shows its edges once the image is mirrored along an axis."""
    return [-direction % DIRECTIONS for direction in range(DIRECTIONS)]  # t becomes -t, which is half a turn minus t


def _smooth(image: NDArray[np.float32], sigma: float) -> NDArray[np.float32]:
    return np.asarray(ndimage.gaussian_filter(image, sigma, truncate=3))


def _without_local_mean(channels: NDArray[np.float32], support: NDArray[np.bool_]) -> NDArray[np.float32]:
    inside = support.astype(np.float32)
    share = ndimage.uniform_filter(inside, _LOCAL, mode="constant")
    mean = ndimage.uniform_filter(channels * inside, (0, _LOCAL, _LOCAL), mode="constant") / np.maximum(share, 1e-3)
    return np.asarray((channels - mean) * inside, dtype=np.float32)
