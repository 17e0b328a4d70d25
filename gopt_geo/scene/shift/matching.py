"""Where a SAR window's structure fits an optical template's best: correlation over all shifts, peaks between pixels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import fft

from gopt_geo.scene.shift.structure import DIRECTIONS, directions_mirrored

__all__ = ["MIRRORS", "Match", "correlate", "peak", "similarity"]

MIRRORS = 3
"""Ways of mirroring the SAR window: left and right, up and down, both."""

Structure = tuple[NDArray[np.float32], NDArray[np.bool_]]

_ROWS, _COLS = np.mgrid[-1:2, -1:2]
_FIT = np.linalg.pinv(
    np.stack([np.ones(9), *(a.ravel() for a in (_COLS, _ROWS, _COLS**2, _COLS * _ROWS, _ROWS**2))], axis=1)
)


@dataclass(frozen=True)
class Match:
    """Sums of products over a template, for every shift and for mirrored SAR; sums of several are of all together.

    Parameters
    ----------
    true
        float64 [3, n, n], n = 2 * search + 1: products of optical and SAR structure, energy of the optical where SAR
        has data, energy of the SAR where optical has data. Row and column 0 are a shift of -search.
    mirrors
        The same with the SAR mirrored [MIRRORS, 3, n, n]: what chance gives on this ground.
    """

    true: NDArray[np.float64]
    mirrors: NDArray[np.float64]

    @staticmethod
    def total(matches: Sequence[Match]) -> Match:
        """Sum matches of equal search, at least one."""
        return Match(sum_of([m.true for m in matches]), sum_of([m.mirrors for m in matches]))


def sum_of(arrays: Sequence[NDArray[np.float64]]) -> NDArray[np.float64]:
    """Sum arrays of equal shape."""
    return np.asarray(np.sum(np.stack(arrays), axis=0))


def correlate(optical: Structure, sar: Structure, search: int) -> Match:
    """Compare an optical template with a SAR window that is larger by `search` pixels on each side.

    Parameters
    ----------
    optical
        Channels [K, h, w] and support [h, w] of the template.
    sar
        Channels [K, h + 2 * search, w + 2 * search] and support of the window.
    search
        Largest shift, in pixels.
    """
    height, width = sar[1].shape
    size = fft.next_fast_len(height, True), fft.next_fast_len(width, True)
    template, window = _spectra(optical, size), _spectra(sar, size)
    mirrors = _mirrors(window, (height, width), size)
    true, *null = [_sums(template, s, size, 2 * search + 1) for s in (window, *mirrors)]
    return Match(true, np.stack(null))


def _mirrors(
    window: NDArray[np.complex64], shape: tuple[int, int], size: tuple[int, int]
) -> tuple[NDArray[np.complex64], ...]:
    """Return the spectra of a window of some shape mirrored left and right, up and down, and both.

    Mirrored in both axes, x[H - 1 - r, W - 1 - c] has the conjugate spectrum, moved by (H - 1, W - 1); mirrored in one,
    that of opposite frequencies along it. The directions of edges turn too.
    """
    rows, cols = window.shape[-2:]
    down = np.exp(-2j * np.pi * (shape[0] - 1) / size[0] * np.arange(rows)).astype(np.complex64)[:, None]
    across = np.exp(-2j * np.pi * (shape[1] - 1) / size[1] * np.arange(cols)).astype(np.complex64)
    opposite = window[:, (-np.arange(rows)) % rows]  # of the rows' frequencies; those of columns are stored by half
    turned = [*directions_mirrored(), *range(DIRECTIONS, len(window))]
    left_right = np.conj(opposite)[turned] * across
    up_down = opposite[turned] * down
    return left_right, up_down, np.conj(window) * (down * across)


def _spectra(structure: Structure, size: tuple[int, int]) -> NDArray[np.complex64]:
    """Transform channels, energy and support [K + 2, ...]."""
    channels, support = structure
    energy = np.square(channels).sum(axis=0)
    stack = np.concatenate([channels, energy[None], support.astype(np.float32)[None]])
    return np.asarray(fft.rfft2(stack, size))


def _sums(
    template: NDArray[np.complex64], window: NDArray[np.complex64], size: tuple[int, int], n: int
) -> NDArray[np.float64]:
    conjugate = np.conj(template)
    products = (conjugate[:-2] * window[:-2]).sum(axis=0)
    stack = np.stack([products, conjugate[-2] * window[-1], conjugate[-1] * window[-2]])
    return np.asarray(fft.irfft2(stack, size)[:, :n, :n], dtype=np.float64)


def similarity(sums: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the correlation coefficient, -1 to 1, for every shift [..., n, n]; 0 where the two share nothing."""
    products, optical, sar = np.moveaxis(sums, -3, 0)
    energy = np.sqrt(np.maximum(optical, 0) * np.maximum(sar, 0))
    # FFTs leave rounding errors where there is nothing; shifts that share little must not win by them.
    floor = 0.05 * energy.max(axis=(-2, -1), keepdims=True)
    return np.where(energy > floor, products / np.maximum(energy, 1e-12), 0)


def peak(surface: NDArray[np.float64]) -> tuple[float, float, float]:
    """Find the maximum of a surface [n, n] between its pixels, by a parabola through nine of them.

    Returns
    -------
    dx, dy : float
        Shift in pixels, right and down; NaN where the maximum lies on the border, so that the true one may lie beyond.
    height : float
        The surface's largest value.
    """
    n = surface.shape[0]
    row, col = np.unravel_index(int(surface.argmax()), surface.shape)
    height = float(surface[row, col])
    if height <= 0 or not (0 < row < n - 1 and 0 < col < n - 1):
        return float("nan"), float("nan"), height
    _, x, y, xx, xy, yy = (_FIT @ surface[row - 1 : row + 2, col - 1 : col + 2].ravel()).tolist()
    determinant = 4 * xx * yy - xy * xy
    dx, dy = 0.0, 0.0
    if xx < 0 and determinant > 0:
        dx = float(np.clip((xy * y - 2 * yy * x) / determinant, -1, 1))
        dy = float(np.clip((xy * x - 2 * xx * y) / determinant, -1, 1))
    return int(col) - (n - 1) / 2 + dx, int(row) - (n - 1) / 2 + dy, height
