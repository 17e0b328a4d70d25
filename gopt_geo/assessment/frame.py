"""The ground that a sample is drawn from: a map's classes, block by block, inside an area of interest."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from os import PathLike

import numpy as np
from numpy.typing import NDArray

from gopt_geo.aoi import Aoi
from gopt_geo.errors import SampleError, SourceError
from gopt_geo.grid import Window, lattice
from gopt_geo.outputs.areas import pixel_areas
from gopt_geo.outputs.legend import read_legend
from gopt_geo.scene import BLOCK, RasterSource

__all__ = ["NO_CLASS", "FrameStrata", "MapFrame"]

NO_CLASS = 255
_VALUES = 256


@dataclass(frozen=True)
class FrameStrata:
    """The classes that occur in a frame, by value: the strata of a sample.

    Attributes
    ----------
    values, pixels
        int64 [H]: class values, ascending, and their pixels.
    areas
        float64 [H]: square metres; NaN where the map has no CRS.
    names
        From the map's legend.
    """

    values: NDArray[np.int64]
    pixels: NDArray[np.int64]
    areas: NDArray[np.float64]
    names: tuple[str, ...]

    @property
    def sizes(self) -> NDArray[np.float64]:
        """Areas, or pixels where areas aren't known."""
        known = bool(np.isfinite(self.areas).all())
        return self.areas if known else self.pixels.astype(np.float64)

    @property
    def weights(self) -> NDArray[np.float64]:
        """Shares of the whole, [H]."""
        return np.asarray(self.sizes / self.sizes.sum())


class MapFrame:
    """A class map as a frame for samples; to be closed, or used in a ``with`` statement.

    Parameters
    ----------
    path
        A raster with one band of whole numbers. Its nodata value and 255 carry no class.
    aoi
        Only pixels whose centre lies in it belong to the frame.

    Attributes
    ----------
    grid : GeoBox
        The map's.
    legend : dict
        Names by value; empty where the map has none.
    notices : tuple of str
        The area's.

    Raises
    ------
    SourceError
        If it can't be read or is no class map.
    AoiError
        If the area doesn't fit the map.
    """

    def __init__(self, path: str | PathLike[str], aoi: Aoi | None = None) -> None:
        self._source = RasterSource(path)
        self.name = self._source.name
        try:
            _check_map(self._source)
            self.grid = self._source.grid
            self._mask = None if aoi is None else aoi.on(self.grid)
        except BaseException:
            self._source.close()
            raise
        self.notices = () if self._mask is None else self._mask.notices
        self.window = Window(0, 0, *self.grid.shape) if self._mask is None else self._mask.window
        self.legend = {entry.value: entry.name for entry in read_legend(path)}

    def __enter__(self) -> MapFrame:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the map."""
        self._source.close()

    def class_name(self, value: int) -> str:
        """Return a class's name."""
        return self.legend.get(value, f"class {value}")

    def classes(self, window: Window) -> NDArray[np.uint8]:
        """Return the class values of a window, uint8 [h, w]; 255 where there is none, or outside of the frame.

        Raises
        ------
        SampleError
            If a value isn't from 0 to 254.
        """
        (values,), valid = self._source.read(window)
        if self._mask is not None:
            valid = valid & self._mask.read(window)
        strange = valid & ((values < 0) | (values > NO_CLASS))
        if strange.any():
            found = f"it holds {values[strange].flat[0]:g}, and classes are 0 to 254"
            raise SampleError(self.name, found, "recode it, or set such pixels to nodata")
        return np.where(valid, values, NO_CLASS).astype(np.uint8)

    def blocks(self, progress: Callable[[int, int], None] | None = None) -> Iterator[tuple[Window, NDArray[np.uint8]]]:
        """Yield all blocks of the frame that hold a class, in a fixed order, with their class values.

        `progress` is called with the pixels done and all pixels.
        """
        done, total = 0, self.window.height * self.window.width
        for whole in lattice(self.window, BLOCK):
            part = whole.intersect(self.window)
            if part is None:
                continue
            values = self.classes(part)
            if (values != NO_CLASS).any():
                yield part, values
            done += part.height * part.width
            if progress is not None:
                progress(done, total)

    def at(self, rows: NDArray[np.int64], cols: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the class values of single pixels, int64 [n]; 255 where there is none. Blocks are read once."""
        found = np.full(len(rows), NO_CLASS, np.int64)
        height, width = self.grid.shape
        inside = (rows >= 0) & (rows < height) & (cols >= 0) & (cols < width)
        places = np.stack((rows // BLOCK, cols // BLOCK), axis=1)
        for row, col in np.unique(places[inside], axis=0).tolist():
            window = Window(row * BLOCK, col * BLOCK, BLOCK, BLOCK).clip(self.grid.shape)
            assert window is not None
            here = inside & (places == (row, col)).all(axis=1)
            found[here] = self.classes(window)[rows[here] - window.row, cols[here] - window.col]
        return found

    def strata(self, progress: Callable[[int, int], None] | None = None) -> FrameStrata:
        """Count the frame's classes and their areas in one pass.

        Raises
        ------
        SampleError
            If no pixel has a class.
        """
        areas_of = pixel_areas(self.grid)
        pixels, areas = np.zeros(_VALUES, np.int64), np.zeros(_VALUES)
        for window, values in self.blocks(progress):
            flat = values.ravel()
            pixels += np.bincount(flat, minlength=_VALUES)
            rows = areas_of(np.arange(window.row, window.row_stop, dtype=np.float64))
            own = rows if rows.shape[1] == 1 else rows[:, window.col : window.col_stop]
            areas += np.bincount(flat, np.broadcast_to(own, values.shape).ravel(), _VALUES)
        seen = np.flatnonzero(pixels[:NO_CLASS])
        if len(seen) == 0:
            raise SampleError(self.name, "no pixel of it has a class there", "give a map, and an area, with classes")
        names = tuple(self.class_name(value) for value in seen.tolist())
        return FrameStrata(seen.astype(np.int64), pixels[seen], areas[seen], names)

    def pixel_areas(self, rows: NDArray[np.int64], cols: NDArray[np.int64]) -> NDArray[np.float64]:
        """Return the areas of single pixels in square metres, [n]; NaN without a CRS."""
        areas_of = pixel_areas(self.grid)
        found = np.empty(len(rows))
        for start in range(0, len(rows), BLOCK):
            part = slice(start, start + BLOCK)
            by_row = areas_of(rows[part].astype(np.float64))
            found[part] = by_row[:, 0] if by_row.shape[1] == 1 else by_row[np.arange(len(by_row)), cols[part]]
        return found


def _check_map(source: RasterSource) -> None:
    if source.count != 1 or source.dtype.kind not in "iu":
        found = f"{source.count} band(s) of type {source.dtype}, not one band of classes"
        raise SourceError(source.name, found, "give a class map, such as predict writes")
