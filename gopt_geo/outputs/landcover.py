"""Land-cover maps with their legend, and confidence maps beside them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from types import TracebackType

import numpy as np
from numpy.typing import NDArray

from gopt_geo.grid import GeoBox, Window
from gopt_geo.outputs.cog import CogWriter
from gopt_geo.outputs.legend import LegendEntry, add_legend, palette

__all__ = ["LandCoverWriter"]


class LandCoverWriter:
    """Write a land-cover COG, and a confidence COG on request, from row bands.

    The land cover is uint8 with nodata 255, a colour table, category names, a raster attribute table and
    overviews by mode; the confidence uint8 in percent with nodata 255 and averaged overviews. Memory holds
    one row of 512-pixel tiles a strip and a bounded GDAL cache, whatever the raster's height.

    Parameters
    ----------
    path
        The land-cover file to write; `Staging.path` gives one that is published as a whole.
    grid
        The grid of the whole map. The CRS may be None (pixel grid).
    legend
        The classes.
    tags
        Tags of both files.
    confidence
        The confidence file, or None.

    Raises
    ------
    ValueError
        If a class value isn't in 0..254 or occurs twice.
    """

    def __init__(
        self,
        path: Path,
        grid: GeoBox,
        legend: Sequence[LegendEntry],
        tags: Mapping[str, str],
        confidence: Path | None = None,
    ) -> None:
        self._classes = CogWriter(
            path,
            grid,
            tags=tags,
            description="land cover",
            resampling="mode",
            colors=palette(legend),
            decorate=partial(add_legend, legend=legend),
        )
        self._confidence: CogWriter | None = None
        if confidence is not None:
            self._confidence = CogWriter(
                confidence, grid, tags=tags, description="confidence in percent", resampling="average"
            )

    def __enter__(self) -> LandCoverWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def write(self, window: Window, classes: NDArray[np.uint8], confidence: NDArray[np.uint8] | None = None) -> None:
        """Take the rows of a window: top-down, in any heights; column strips one after the other.

        Parameters
        ----------
        window
            Inside the grid. What is never written is nodata.
        classes
            Class values, uint8 [h, w]; 255 is nodata.
        confidence
            Percent, uint8 [h, w]; 255 is nodata. Needed exactly if a confidence file is written.

        Raises
        ------
        ValueError
            If the window lies outside the grid, an array doesn't fit it, or confidence is missing.
        """
        if (confidence is None) is not (self._confidence is None):
            raise ValueError("confidence must be given exactly if a confidence file is written")
        self._classes.write(window, classes)
        if self._confidence is not None and confidence is not None:
            self._confidence.write(window, confidence)

    def finish(self) -> None:
        """Complete the files; nothing is written into them afterwards."""
        self._classes.finish()
        if self._confidence is not None:
            self._confidence.finish()

    def close(self) -> None:
        """Release the files without finishing; harmless after `finish`."""
        self._classes.close()
        if self._confidence is not None:
            self._confidence.close()
