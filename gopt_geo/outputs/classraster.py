"""Class maps of any integer type, read window by window."""

from __future__ import annotations

import warnings
from os import PathLike
from types import TracebackType

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.errors import NotGeoreferencedWarning, RasterioError
from rasterio.windows import Window as RasterioWindow

from gopt_geo.errors import SourceError
from gopt_geo.grid import Window, grid_of

__all__ = ["ClassRaster"]

# Types of rasters, and types that hold one value more; no wider than needed: labelling passes over them once a class.
_WIDER: dict[str, np.dtype[np.signedinteger]] = {
    **dict.fromkeys(("int8", "uint8"), np.dtype(np.int16)),
    **dict.fromkeys(("int16", "uint16"), np.dtype(np.int32)),
    **dict.fromkeys(("int32", "uint32", "int64", "uint64"), np.dtype(np.int64)),
}


class ClassRaster:
    """An open raster with one band of whole numbers: classes, or percentages.

    Memory holds no more of it than the window that is read, besides GDAL's cache of file blocks.

    Parameters
    ----------
    path
        The file. Its masks (nodata value, mask band) tell which pixels are valid.

    Attributes
    ----------
    path : str or PathLike
        The file's.
    grid : GeoBox
        The raster's.
    nodata : int
        What `read` gives for pixels without data: a number that no pixel can have.

    Raises
    ------
    SourceError
        If the file can't be read, or isn't one band of an integer type.
    GridError
        If its geotransform or its CRS can't be used.
    """

    def __init__(self, path: str | PathLike[str]) -> None:
        self.path = path
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", NotGeoreferencedWarning)
            try:
                self._dataset = rasterio.open(path)
            except RasterioError as error:
                raise self._unreadable(error) from error
            try:
                self._wide = _wider(self._dataset, path)
                self.grid = grid_of(self._dataset)
            except BaseException:
                self._dataset.close()
                raise
        self.nodata = int(np.iinfo(self._wide).min)

    def __enter__(self) -> ClassRaster:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
        self._dataset.close()

    def pixels(self, window: Window) -> tuple[NDArray[np.integer], NDArray[np.bool_]]:
        """Read a window inside the raster: values and validity, each [h, w].

        Raises
        ------
        SourceError
            If the file's bytes are damaged.
        """
        place = RasterioWindow(window.col, window.row, window.width, window.height)
        try:
            values, masks = self._dataset.read(1, window=place), self._dataset.read_masks(1, window=place)
        except RasterioError as error:
            raise self._unreadable(error) from error
        return values.astype(np.int32, copy=False) if values.itemsize > 2 else values, masks > 0

    def read(self, window: Window) -> NDArray[np.integer]:
        """Read a window that may hang over the raster's edges: values [h, w], `nodata` where none is valid.

        Raises
        ------
        SourceError
            If the file's bytes are damaged.
        """
        found = np.full(window.shape, self.nodata, self._wide)
        part = window.clip(self.grid.shape)
        if part is not None:
            values, valid = self.pixels(part)
            np.copyto(found[part.slices_in(window)], values, where=valid)
        return found

    def _unreadable(self, error: RasterioError) -> SourceError:
        return SourceError(self.path, f"can't be read ({error})", "see gdalinfo for what is wrong")


def _wider(dataset: rasterio.DatasetReader, path: str | PathLike[str]) -> np.dtype[np.signedinteger]:
    """Return a type that holds a raster's values and one more; refuse a raster that is no class map."""
    kind = dataset.dtypes[0] if dataset.count else "none"
    if dataset.count != 1 or kind not in _WIDER:
        found = f"{dataset.count} band(s) of type {kind}, not one band of classes"
        raise SourceError(path, found, "give a class map, such as predict writes")
    return _WIDER[kind]
