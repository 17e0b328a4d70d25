"""The confidence raster of a map: whether it is one, and its calibration."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gopt_geo.assessment.calibration import BINS, Calibration
from gopt_geo.errors import GoptGeoError, GridError, SourceError
from gopt_geo.grid import SAME_PIXEL, Window, corner_distance
from gopt_geo.outputs.legend import read_legend
from gopt_geo.paths import StrPath
from gopt_geo.scene import RasterSource

__all__ = ["MapConfidence"]

_REMEDY = "give the confidence that predict wrote beside this map, in percent"


class MapConfidence:
    """A map's confidence in percent, read band by band of rows.

    Parameters
    ----------
    path
        A raster with one band on the map's pixels.
    mapped
        The map.

    Raises
    ------
    GoptGeoError
        If it can't be read, has several bands, a legend, or other pixels than the map.
    """

    def __init__(self, path: StrPath, mapped: RasterSource) -> None:
        self._source, self._map = RasterSource(path), mapped.name
        self._calibration = Calibration.empty(BINS)
        self._smallest, self._largest, self._same = math.inf, -math.inf, True
        wrong = self._wrong(mapped)
        if wrong is not None:
            self.close()
            raise wrong

    def _wrong(self, mapped: RasterSource) -> GoptGeoError | None:
        source = self._source
        if source.count != 1:
            return SourceError(source.name, f"it has {source.count} bands", _REMEDY)
        if source.grid.shape != mapped.grid.shape or not corner_distance(mapped.grid, source.grid) <= SAME_PIXEL:
            return GridError(source.name, f"its pixels aren't those of {mapped.name}", _REMEDY)
        if read_legend(source.name):
            found = "it has a legend of classes, so that it is a map and no confidence"
            return SourceError(source.name, found, _REMEDY)
        return None

    def add(self, band: Window, use: NDArray[np.bool_], found: NDArray[Any], right: NDArray[np.bool_]) -> None:
        """Count a band of rows.

        Parameters
        ----------
        band
            Where it lies.
        use
            Pixels that count, bool [h, w].
        found
            The map's values [h, w].
        right
            Where they are right, bool [h, w].

        Raises
        ------
        GoptGeoError
            If a value anywhere in the band is no percentage.
        """
        (values,), known = self._source.read(band)
        there = values[known]
        if there.size and not (there.min() >= 0 and there.max() <= 100):
            worst = float(there.max() if there.max() > 100 else there.min())
            raise GoptGeoError(self._source.name, f"it holds {worst:g}, which is no percentage", _REMEDY)
        use = use & known
        if use.any():
            self._smallest = min(self._smallest, float(values[use].min()))
            self._largest = max(self._largest, float(values[use].max()))
            self._same = self._same and bool((values[use] == found[use]).all())
        self._calibration += Calibration.of_confidence(values[use].astype(np.float64) / 100, right[use], BINS)

    def finish(self) -> Calibration:
        """Return the calibration of what was counted.

        Raises
        ------
        GoptGeoError
            If the values are the map's own, or shares of 1.
        """
        if 0 < self._largest <= 1:
            raise GoptGeoError(self._source.name, f"its largest value is {self._largest:g} %", _REMEDY)
        if self._same and self._smallest < self._largest:  # one equal value may be chance
            raise GoptGeoError(self._source.name, f"its values are the classes of {self._map}", _REMEDY)
        return self._calibration

    def close(self) -> None:
        """Let go of the file."""
        self._source.close()
