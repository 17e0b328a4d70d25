"""How a modality's bands become the channels that the backbone expects, and what packs say of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np

from gopt_geo.errors import DatasetError
from gopt_geo.packmeta import ModalityInfo
from gopt_geo.training.statistics import Moments

__all__ = ["Units", "channel_matrix", "describe_matrix", "modality_info"]

Units = Literal["reflectance", "db", "power", "raw"]
Matrix = tuple[tuple[float, ...], ...]


def channel_matrix(bands: int, channels: int) -> Matrix:
    """Return the matrix [channels, bands] from bands to channels.

    As many bands as channels: each its own. One band: it fills all channels. Fewer bands: the further channels hold
    the mean of all bands (first, second, mean of two). More bands: the last channel holds the mean of those left.

    Parameters
    ----------
    bands, channels
        Their numbers, at least 1.
    """
    if bands <= channels:
        rows = [_row(bands, [i]) if i < bands else _row(bands, range(bands)) for i in range(channels)]
    else:
        own = [_row(bands, [i]) for i in range(channels - 1)]
        rows = [*own, _row(bands, range(channels - 1, bands))]
    return tuple(rows)


def _row(bands: int, of: Sequence[int]) -> tuple[float, ...]:
    return tuple(1 / len(of) if i in of else 0.0 for i in range(bands))


def describe_matrix(bands: Sequence[str], matrix: Matrix) -> str:
    """Say in a few words which bands each channel holds."""
    said = []
    for row in matrix:
        used = [band for band, weight in zip(bands, row, strict=True) if weight]
        said.append(used[0] if len(used) == 1 else f"mean of {', '.join(used)}")
    return " | ".join(said)


def modality_info(name: str, bands: Sequence[str], units: Units, matrix: Matrix, moments: Moments) -> ModalityInfo:
    """Put together what a pack says of a modality.

    Raises
    ------
    DatasetError
        If no training pixel carries data, or all carry the same value.
    """
    if moments.count == 0:
        raise DatasetError(name, "no pixel of the training ground carries data", "leave this modality out")
    mean, std = moments.mean, moments.std
    flat = ~(std > 1e-6 * np.maximum(np.abs(mean), 1e-6))  # warped float32 pixels of one value differ by rounding
    if flat.any():
        found = f"all {moments.count:,} training pixels have one value in channel {int(np.flatnonzero(flat)[0]) + 1}"
        raise DatasetError(name, found, "choose other bands, or leave this modality out")
    return ModalityInfo(
        bands=tuple(bands),
        units=units,
        channels=matrix,
        mean=tuple(float(value) for value in mean),
        std=tuple(float(value) for value in std),
    )
