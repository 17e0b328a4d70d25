"""Arrays of xarray as sources: with coordinates or a CRS from rioxarray or odc-geo, in memory or lazy."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from affine import Affine
from numpy.typing import NDArray

from gopt_geo.errors import BandError, GridError, SourceError
from gopt_geo.grid import GeoBox, Window
from gopt_geo.scene.bandchoice import choose_indexes, listed
from gopt_geo.scene.bandfiles import source_name
from gopt_geo.scene.source import BandTags

if TYPE_CHECKING:
    import xarray as xr

    from gopt_geo.scene.controlpoints import ControlPoints

__all__ = ["ArraySource"]

_BAND_DIMENSIONS = ("band", "bands", "variable", "channel", "polarization", "polarisation")


class ArraySource:
    """Bands of an array, read like a raster file; see `gopt_geo.scene.source.PixelSource`.

    Parameters
    ----------
    array
        Of dimensions y and x (or latitude and longitude), and one for bands or none; or a dataset, whose variables are
        the bands. Evenly spaced coordinates place it, or the transform that rioxarray or odc-geo put beside it.
        ``nodata``, ``_FillValue``, ``scale_factor``, ``add_offset`` and ``units`` are understood as attributes; what
        stands in the encoding has been applied when the array was opened.
    bands
        Bands by 1-based index or name (the band dimension's coordinate); None takes all.
    honour_nodata
        Whether the declared nodata makes pixels invalid. Without, only NaN and infinities do.

    Raises
    ------
    SourceError
        If it has other dimensions, or holds no numbers.
    BandError
        If a band doesn't exist.
    GridError
        If the coordinates aren't evenly spaced.

    Notes
    -----
    A lazy array is computed window by window, in the thread that reads.
    """

    control: ControlPoints | None = None
    not_placed: GridError | None = None
    has_palette = False

    def __init__(
        self,
        array: xr.DataArray | xr.Dataset,
        bands: Sequence[int | str] | None = None,
        *,
        honour_nodata: bool = True,
    ) -> None:
        import odc.geo.xr  # noqa: F401  # gives arrays their accessor
        import xarray as xr

        self.name = source_name(array)
        if isinstance(array, xr.Dataset):
            array = _joined(array, self.name)
        across = array.odc.spatial_dims
        if across is None:
            found = f"its dimensions are {', '.join(map(str, array.dims))}"
            raise SourceError(self.name, found, "give an array of y and x, or of band, y and x")
        further = [dim for dim in array.dims if dim not in across]
        if len(further) > 1 or (further and str(further[0]).casefold() not in _BAND_DIMENSIONS):
            found = f"its dimensions are {', '.join(map(str, array.dims))}"
            remedy = "choose one of each but bands, such as array.isel(time=0), or name the bands' dimension 'band'"
            raise SourceError(self.name, found, remedy)
        if array.dtype.kind not in "iufcb":
            raise SourceError(self.name, f"its values are {array.dtype}", "give an array of numbers")
        self._array = (
            array.transpose(*further, *across) if further else array.expand_dims("band").transpose("band", *across)
        )
        self.grid: GeoBox = _grid(array, across, self.name)
        self.file_names = _names(array, further[0] if further else None)
        self.indexes = tuple(self.file_names) if bands is None else choose_indexes(bands, self.file_names, self.name)
        if not self.indexes:
            raise BandError(self.name, "there are no bands", "choose an array with bands")
        self.count = len(self.indexes)
        self.dtype: np.dtype[Any] = array.dtype
        self.band_names = tuple(self.file_names[index] for index in self.indexes)
        self.file_tags: Mapping[str, str] = {str(key): str(value) for key, value in array.attrs.items()}
        if 0 in array.shape:
            raise SourceError(self.name, "it holds no pixels", "give an array with pixels")
        try:
            self.tags = (_tags(array),) * self.count
            self._nodata = _nodata(array) if honour_nodata else None
        except (TypeError, ValueError) as error:
            found = f"its scale_factor, add_offset or nodata is no number ({error})"
            raise SourceError(self.name, found, "correct the attribute") from error

    def describe_bands(self) -> str:
        """Return the bands for a message: "bands 1 (B02), 2 (B03)"."""
        return listed(self.file_names)

    def read(self, window: Window) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """Read a window, which may hang over the edges: values [C, h, w] and joint validity [h, w].

        Raises
        ------
        SourceError
            If a lazy array can't be computed.
        """
        values = np.zeros((self.count, *window.shape), np.float32)
        valid = np.zeros(window.shape, np.bool_)
        inside = window.clip(self.grid.shape)
        if inside is None:
            return values, valid
        stored = self._compute(inside)
        usable = np.isfinite(stored).all(axis=0)
        if self._nodata is not None:
            usable &= (stored != stored.dtype.type(self._nodata)).all(axis=0)
        with np.errstate(over="ignore"):  # beyond float32 means infinite, which is invalid
            inner = (np.abs(stored) if stored.dtype.kind == "c" else stored).astype(np.float32)
        usable &= np.isfinite(inner).all(axis=0)
        inner[:, ~usable] = 0
        rows, cols = inside.slices_in(window)
        values[:, rows, cols], valid[rows, cols] = inner, usable
        return values, valid

    def _compute(self, inside: Window) -> NDArray[Any]:
        bands = [index - 1 for index in self.indexes]
        rows, cols = slice(inside.row, inside.row_stop), slice(inside.col, inside.col_stop)
        part = self._array[bands, rows, cols]
        try:
            # Readers are threads already; dask's own would fight with them for the processors.
            computed = part.compute(scheduler="synchronous") if part.chunks is not None else part
            return np.asarray(computed.values)
        except Exception as error:  # whatever the array is made of may fail in its own way
            reason = f"{type(error).__name__}: {error}"
            raise SourceError(
                self.name, f"it can't be computed ({reason})", "compute it first: array.load()"
            ) from error

    def close(self) -> None:
        """Do nothing: the array is the caller's."""


def _joined(dataset: xr.Dataset, name: str) -> xr.DataArray:
    """Stack a dataset's variables of the same two or more dimensions along a dimension of bands."""
    variables = {key: value for key, value in dataset.data_vars.items() if value.ndim >= 2}
    if not variables or len({value.dims for value in variables.values()}) != 1:
        raise SourceError(
            name, "its variables aren't bands of one size", "give an array: dataset[[...]].to_dataarray()"
        )
    attributes = [dict(value.attrs) for value in variables.values()]
    joined = dataset[list(variables)].to_dataarray("band")
    shared = {key: value for key, value in attributes[0].items() if all(a.get(key) == value for a in attributes)}
    differing = {"scale_factor", "add_offset", "_FillValue", "nodata", "units"} & set().union(*attributes) - set(shared)
    if differing:
        remedy = "bring them to one unit first, or give one array"
        raise SourceError(name, f"its variables differ in {', '.join(sorted(differing))}", remedy)
    return joined.assign_attrs({**dataset.attrs, **shared})


def _grid(array: xr.DataArray, across: tuple[Any, Any], name: str) -> GeoBox:
    for dimension in across:
        if dimension not in array.coords:
            continue
        steps = np.diff(np.asarray(array.coords[dimension].values, np.float64))
        if len(steps) and not np.allclose(steps, steps.mean(), rtol=1e-3, atol=0):
            raise GridError(name, f"its coordinates {dimension} aren't evenly spaced", "resample it first")
    grid = array.odc.geobox
    if grid is not None and isinstance(grid, GeoBox):
        return GeoBox((grid.shape[0], grid.shape[1]), grid.affine, grid.crs)
    return GeoBox((array.sizes[across[0]], array.sizes[across[1]]), Affine.identity(), None)


def _names(array: xr.DataArray, dimension: Any) -> dict[int, str]:
    """Return the bands' names by 1-based index: the band coordinate's texts, else rioxarray's ``long_name``."""
    if dimension is None:
        return {1: str(array.name or "")}
    count = array.sizes[dimension]
    coordinate = array.coords.get(dimension)
    if coordinate is not None and coordinate.dtype.kind in "UO":
        return {i: str(value) for i, value in enumerate(coordinate.values, start=1)}
    said = array.attrs.get("long_name", ())
    said = [said] if isinstance(said, str) else list(said)
    return {i + 1: str(said[i]) if len(said) == count else "" for i in range(count)}


def _tags(array: xr.DataArray) -> BandTags:
    scale, offset = array.attrs.get("scale_factor", 1.0), array.attrs.get("add_offset", 0.0)
    if not (math.isfinite(float(scale)) and math.isfinite(float(offset)) and float(scale) != 0):
        raise ValueError(f"{scale}, {offset}")
    return BandTags(float(scale), float(offset), str(array.attrs.get("units", "")).strip())


def _nodata(array: xr.DataArray) -> float | None:
    for key in ("_FillValue", "nodata", "missing_value"):
        value = array.attrs.get(key)
        if value is not None and not math.isnan(float(value)):
            return float(value)
    return None
