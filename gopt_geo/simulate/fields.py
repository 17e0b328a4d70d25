"""Random fields: the raw material of a simulated landscape. All lengths are in pixels of the base grid."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import BSpline
from scipy.spatial import cKDTree

__all__ = ["cell_hash", "fractal_field", "jittered_points", "nearest_points", "smooth_field"]

Float = NDArray[np.float32]

# Mean over x of the sum of squared cubic B-splines: the variance, an axis, of a spline with N(0,1) coefficients.
_CUBIC_VARIANCE = 151.0 / 315.0


def smooth_field(rng: np.random.Generator, shape: tuple[int, int], scale: float) -> Float:
    """Draw a Gaussian random field of zero mean and unit variance.

    A cubic B-spline surface with independent N(0,1) coefficients on a lattice of spacing ``scale``; its cost
    doesn't depend on the scale, as a convolution's would.

    Parameters
    ----------
    rng
        Source of randomness.
    shape
        Height and width in pixels.
    scale
        Correlation length in pixels; below 1 counts as 1.

    Returns
    -------
    float32 array of the given shape.
    """
    scale = max(scale, 1.0)
    bases = []
    for n in shape:
        knots = np.arange(int(np.ceil(n / scale)) + 9, dtype=np.float64)
        positions = 3.0 + rng.uniform(0.0, 1.0) + np.arange(n) / scale  # the lattice doesn't start at the corner
        bases.append(BSpline.design_matrix(positions, knots, 3))
    coefficients = rng.standard_normal((bases[0].shape[1], bases[1].shape[1]))
    down = np.asarray(bases[0] @ coefficients)
    surface = np.asarray(bases[1] @ down.T).T
    return np.asarray(surface / _CUBIC_VARIANCE, dtype=np.float32)


def fractal_field(
    rng: np.random.Generator, shape: tuple[int, int], scale: float, octaves: int = 4, gain: float = 0.5
) -> Float:
    """Draw a sum of smooth fields, each at half the scale and ``gain`` times the amplitude; unit variance.

    Parameters are those of `smooth_field`; ``octaves`` is the number of terms.
    """
    amplitudes = gain ** np.arange(octaves)
    total = np.zeros(shape, dtype=np.float32)
    for octave, amplitude in enumerate(amplitudes):
        total += np.float32(amplitude) * smooth_field(rng, shape, scale / 2**octave)
    return total / np.float32(np.sqrt(np.sum(amplitudes**2)))


def jittered_points(rng: np.random.Generator, shape: tuple[int, int], spacing: float) -> NDArray[np.float64]:
    """Scatter points (row, column), one at random in each square of side ``spacing``, one square beyond the edge.

    Returns
    -------
    float64 array [n, 2].
    """
    rows, cols = (np.arange(-1, int(np.ceil(n / spacing)) + 1) for n in shape)
    corners = np.stack(np.meshgrid(rows, cols, indexing="ij"), axis=-1).reshape(-1, 2)
    return np.asarray((corners + rng.uniform(0.0, 1.0, corners.shape)) * spacing)


def nearest_points(
    points: NDArray[np.float64], rows: NDArray[np.floating], cols: NDArray[np.floating], k: int = 1
) -> tuple[NDArray[np.float64], NDArray[np.intp]]:
    """Distance to, and index of, the ``k`` nearest points for every (row, column), shapes [..., k] or [...]."""
    distance, index = cKDTree(points).query(np.stack([rows, cols], axis=-1), k=k)
    return np.asarray(distance), np.asarray(index)


def cell_hash(seed: int, *parts: NDArray[np.integer]) -> Float:
    """Hash integer arrays to uniform values in [0, 1): one draw a parcel, without a table of parcels.

    Parameters
    ----------
    seed
        Tells hashes of the same parcels apart.
    parts
        Integer arrays of one shape, such as district, row and column of a parcel.

    Returns
    -------
    float32 array of that shape.
    """
    state = np.full(np.broadcast_shapes(*(p.shape for p in parts)), seed % 2**64, dtype=np.uint64)
    for part in parts:
        # splitmix64's finaliser: well mixed for small neighbouring integers, and the same everywhere.
        state = state + part.astype(np.int64).view(np.uint64) + np.uint64(0x9E3779B97F4A7C15)
        state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        state = state ^ (state >> np.uint64(31))
    return ((state >> np.uint64(40)).astype(np.float32)) / np.float32(2**24)
