"""Rasters on their own grid: the chosen bands as float32 with one joint validity mask."""

from __future__ import annotations

import math
import threading
from collections.abc import Mapping, Sequence
from os import PathLike
from typing import Any, NamedTuple, Protocol

import numpy as np
import rasterio
import rasterio.windows
from numpy.typing import NDArray
from odc.geo.crs import CRS
from rasterio.enums import ColorInterp, MaskFlags
from rasterio.errors import RasterioError

from gopt_geo.errors import BandError, GridError, SourceError
from gopt_geo.grid import GeoBox, Window, grid_of
from gopt_geo.scene.bandchoice import choose_indexes, listed
from gopt_geo.scene.controlpoints import ControlPoints, fit_points
from gopt_geo.scene.footprint import BlockFootprint, written_blocks
from gopt_geo.scene.rasterfile import DRIVERS, gdal_settings, open_raster
from gopt_geo.scene.remote import address, gdal_name, is_remote, shown
from gopt_geo.scene.unchanged import FileStates

__all__ = ["DRIVERS", "BandTags", "PixelSource", "RasterSource"]


class BandTags(NamedTuple):
    """What a file states about a band: physical = stored * scale + offset, in `unit` ("" if unstated)."""

    scale: float
    offset: float
    unit: str


class PixelSource(Protocol):
    """What the warp, the units and the checks need of a source; see `RasterSource` for the meaning of each."""

    name: str
    grid: GeoBox
    count: int
    dtype: np.dtype[Any]
    tags: tuple[BandTags, ...]
    band_names: tuple[str, ...]
    control: ControlPoints | None
    not_placed: GridError | None
    has_palette: bool
    file_tags: Mapping[str, str]

    def read(self, window: Window) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """Read a window, which may hang over the source's edges: values [C, h, w] and joint validity [h, w].

        Both are new, the caller's to change.
        """
        ...

    def close(self) -> None:
        """Close all files; no read may be under way."""
        ...


class RasterSource:
    """Bands of one raster file, read on the file's own grid.

    Parameters
    ----------
    path
        File of one of `DRIVERS`; or its URL, which is read by range requests, in the parts that are needed.
    bands
        Bands by 1-based index or by name (the band's description, upper and lower case alike); None takes all
        data bands. An alpha band is never a data band.
    name
        What messages call the source, an option for instance; None says the path.
    honour_nodata
        Whether declared nodata, alpha and masks make pixels invalid. Without, only NaN and infinities do.
    nodata
        Stored value that means no data, in addition to what the file declares; None adds nothing.
    alpha_is_data
        Whether a band that the file calls alpha is a data band (another modality in the fourth channel of a PNG);
        nodata values count then, and masks don't.

    Attributes
    ----------
    grid : GeoBox
        The file's grid; `grid.crs` is None where the file states none.
    count : int
        Number of chosen bands, C.
    indexes : tuple of int
        The chosen bands' 1-based indexes in the file.
    dtype : numpy.dtype
        Type of the stored values; of complex ones amplitudes are read.
    band_names : tuple of str
        The chosen bands' descriptions, "" where there is none.
    tags : tuple of BandTags
        Scale, offset and unit of each chosen band.
    control : ControlPoints or None
        Ground control points, where those alone place the file; `grid` is then the affine grid that fits them best.
    not_placed : GridError or None
        Why the file's ground control points don't place it.
    has_palette : bool
        Whether a chosen band indexes a colour table.
    file_tags : Mapping
        What the file says of itself besides, such as its product type and date.

    Raises
    ------
    SourceError
        If the file is missing or can't be opened.
    BandError
        If a band doesn't exist.
    GridError
        If the geotransform or CRS can't be used.

    Notes
    -----
    Each thread reads through its own dataset handle. A source can be pickled; the copy opens the file anew.
    """

    def __init__(
        self,
        path: str | PathLike[str],
        bands: Sequence[int | str] | None = None,
        name: str | None = None,
        *,
        honour_nodata: bool = True,
        nodata: float | None = None,
        alpha_is_data: bool = False,
    ) -> None:
        self.path = address(path)
        self.remote = is_remote(path)
        self.name = name or shown(path)
        self.honour_nodata = honour_nodata
        self._further_nodata = nodata
        self._alpha_is_data = alpha_is_data
        self._bands = None if bands is None else tuple(bands)
        self._handles: dict[int, rasterio.DatasetReader] = {}
        self._lock = threading.Lock()
        # Before it is opened: a change in between is then seen, too.
        self._states = FileStates([] if self.remote else [self.path])
        self._describe(self._handle())

    def _describe(self, dataset: rasterio.DatasetReader) -> None:
        interpretation = dataset.colorinterp
        data = [i for i in dataset.indexes if self._alpha_is_data or interpretation[i - 1] != ColorInterp.alpha]
        self._alpha = next((i for i in dataset.indexes if i not in data), None)
        self.file_names = {i: dataset.descriptions[i - 1] or "" for i in data}
        self.indexes = tuple(data) if self._bands is None else choose_indexes(self._bands, self.file_names, self.name)
        if not self.indexes:
            raise BandError(self.name, "there are no data bands", "choose a file with image bands")
        self.count = len(self.indexes)
        dtypes = {dataset.dtypes[i - 1] for i in self.indexes}
        self.dtype: np.dtype[Any] = np.result_type(*dtypes)
        self.band_names = tuple(self.file_names[i] for i in self.indexes)
        self.tags = tuple(
            BandTags(dataset.scales[i - 1], dataset.offsets[i - 1], (dataset.units[i - 1] or "").strip())
            for i in self.indexes
        )
        self._nodata = tuple(dataset.nodatavals[i - 1] for i in self.indexes)
        self.has_palette = any(interpretation[i - 1] == ColorInterp.palette for i in self.indexes)
        self.file_tags: Mapping[str, str] = dataset.tags()
        self.grid: GeoBox = grid_of(dataset)
        self.control: ControlPoints | None = None
        self.not_placed: GridError | None = None
        self._states.add([] if self.remote else dataset.files)
        self._written = self._footprint(dataset)
        self._masked = self._asks_masks(dataset)
        gcps, crs = dataset.gcps
        if gcps and dataset.transform.is_identity:
            self._place_by(gcps, crs)
        elif self.grid.crs is not None and dataset.transform.is_identity:
            raise GridError(self.name, "it has a CRS but no geotransform", "set one with gdal_edit -a_ullr")

    def _footprint(self, dataset: rasterio.DatasetReader) -> BlockFootprint | None:
        """Return the blocks that were written; one band's are enough, for what lacks a band is invalid."""
        filled = self._nodata[0] if self._nodata[0] is not None else 0.0  # as GDAL reads what was never written
        if not self.honour_nodata or self.remote or (self._nodata[0] is None and self._further_nodata != 0):
            return None
        return written_blocks(dataset, self.indexes[0], filled)

    def _asks_masks(self, dataset: rasterio.DatasetReader) -> bool:
        """Return whether GDAL's masks have to be read: whether they say more than the nodata values do."""
        every = dataset.mask_flag_enums
        flags = [every[i - 1] for i in self.indexes]
        if self._alpha_is_data or all(flag == [MaskFlags.all_valid] for flag in flags):
            return False
        if any(flag not in ([MaskFlags.nodata], [MaskFlags.all_valid]) for flag in flags):
            return True
        # Of floats GDAL's mask takes in the nearest neighbours of the nodata value.
        exact = (
            dtype.kind == "f" if math.isnan(nodata) else dtype.kind in "iu" and float(nodata).is_integer()
            for dtype, nodata in zip((np.dtype(dataset.dtypes[i - 1]) for i in self.indexes), self._nodata, strict=True)
            if nodata is not None
        )
        return not all(exact)

    def _place_by(self, gcps: Sequence[Any], crs: rasterio.crs.CRS | None) -> None:
        """Place the file by its control points; why that can't be is told by whoever needs the place."""
        try:
            self.control = fit_points(
                gcps, CRS(crs.to_wkt()) if crs else None, (self.grid.shape[0], self.grid.shape[1]), self.name
            )
            self.grid = self.control.grid
        except GridError as error:
            self.not_placed = error
            self.grid = GeoBox(self.grid.shape, self.grid.affine, None)

    def describe_bands(self) -> str:
        """Return the file's data bands for a message: "1 (B02), 2 (B03)"."""
        return listed(self.file_names)

    def _handle(self) -> rasterio.DatasetReader:
        """Return this thread's own handle; a finished thread's handle passes on with its identifier."""
        key = threading.get_ident()
        with self._lock:
            handle = self._handles.get(key)
        if handle is None:
            handle = open_raster(self.path, self.name, remote=self.remote)
            with self._lock:
                self._handles[key] = handle
        return handle

    def read(self, window: Window) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """Read a window, which may hang over the file's edges.

        Parameters
        ----------
        window
            In pixels of the file.

        Returns
        -------
        values : float32 [C, h, w]
            Stored values, without scale and offset, of complex ones the amplitude; 0 where invalid.
        valid : bool [h, w]
            True where all chosen bands carry data: inside the file, finite, not the nodata value, not
            transparent, not masked. Bands are joined, for a pixel that lacks one is no use to a model.

        Raises
        ------
        SourceError
            If the bytes are damaged or missing.
        """
        inside = window.clip(self.grid.shape)
        if inside is not None and self._written is not None:
            inside = self._written.crop(inside)
        read = None if inside is None else self._read(inside)
        if inside is None or read is None:
            return np.zeros((self.count, *window.shape), np.float32), np.zeros(window.shape, np.bool_)
        if inside == window:
            return read
        values, valid = np.zeros((self.count, *window.shape), np.float32), np.zeros(window.shape, np.bool_)
        place = inside.slices_in(window)
        values[:, place[0], place[1]], valid[place] = read
        return values, valid

    def blank(self, window: Window) -> bool:
        """Return True only if surely no pixel of a window is valid: beyond the file, or in blocks never written."""
        inside = window.clip(self.grid.shape)
        return inside is None or (self._written is not None and self._written.crop(inside) is None)

    def check_unchanged(self) -> None:
        """Raise SourceError if a file behind the source has changed since it was opened; see `FileStates`."""
        self._states.check(self.name)

    def _read(self, inside: Window) -> tuple[NDArray[np.float32], NDArray[np.bool_]] | None:
        """Read a window inside the file; None where no pixel is valid, which may be known before all is read."""
        area = rasterio.windows.Window(inside.col, inside.row, inside.width, inside.height)
        handle = self._handle()
        try:
            with gdal_settings(self.remote):
                if self._lacks_data(handle, area):
                    return None
                stored = handle.read(self.indexes, window=area)
                usable = self._declared_valid(handle, stored, area)
        except RasterioError as error:
            self.check_unchanged()  # if so, that is why
            cause = error.__cause__ or error  # rasterio's own text says only "Read failed. See previous exception"
            where = f"rows {inside.row} to {inside.row_stop}, columns {inside.col} to {inside.col_stop}"
            reason = str(cause).replace(gdal_name(self.path), self.name)
            remedy = "check the network, or download the file first" if self.remote else "replace the damaged file"
            raise SourceError(self.name, f"{where} can't be read ({reason})", remedy) from error
        with np.errstate(over="ignore"):  # beyond float32 means infinite, which is invalid
            inner = (np.abs(stored) if stored.dtype.kind == "c" else stored).astype(np.float32)
        if stored.dtype.kind not in "iub":
            usable &= np.isfinite(inner).all(axis=0)
        if not usable.all():
            np.copyto(inner, np.float32(0), where=~usable)
        return inner, usable

    def _lacks_data(self, handle: rasterio.DatasetReader, area: rasterio.windows.Window) -> bool:
        """Return whether the first band is nodata all over; it is read only where its middle is."""
        marks = [mark for mark in (self._nodata[0], self._further_nodata) if mark is not None]
        if not marks or not self.honour_nodata:
            return False
        row, col = area.row_off + area.height // 2, area.col_off + area.width // 2
        middle = rasterio.windows.Window(col, row, 1, 1)
        return all(_all_equal(handle.read(self.indexes[0], window=part), marks) for part in (middle, area))

    def _declared_valid(
        self, handle: rasterio.DatasetReader, stored: NDArray[Any], area: rasterio.windows.Window
    ) -> NDArray[np.bool_]:
        """Join what the file declares: GDAL's mask of each band, alpha, and nodata that a mask file hides."""
        usable = np.ones(stored.shape[1:], np.bool_)
        if not self.honour_nodata:
            return usable
        if self._masked:
            usable &= (handle.read_masks(self.indexes, window=area) != 0).all(axis=0)
        if self._alpha is not None:
            usable &= handle.read(self._alpha, window=area) != 0
        for band, declared in zip(stored, self._nodata, strict=True):
            for nodata in {declared, self._further_nodata} - {None}:
                assert nodata is not None
                if not np.isnan(nodata):  # NaN is invalid anyway
                    with np.errstate(over="ignore"):
                        usable &= band != (band.dtype.type(nodata) if band.dtype.kind in "fc" else nodata)
        return usable

    def close(self) -> None:
        """Close every thread's handle; no read may be under way."""
        with self._lock:
            handles, self._handles = list(self._handles.values()), {}
        for handle in handles:
            handle.close()

    def __enter__(self) -> RasterSource:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __getstate__(self) -> dict[str, Any]:
        return {k: v for k, v in self.__dict__.items() if k not in ("_handles", "_lock")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._handles, self._lock = {}, threading.Lock()


def _all_equal(stored: NDArray[Any], marks: Sequence[float]) -> bool:
    """Return whether all stored values mean no data, by the comparison that decides on validity."""
    left = np.ones(stored.shape, np.bool_)
    for mark in marks:
        if math.isnan(mark):
            left &= ~np.isnan(stored) if stored.dtype.kind in "fc" else True
        else:
            with np.errstate(over="ignore"):
                left &= stored != (stored.dtype.type(mark) if stored.dtype.kind in "fc" else mark)
    return not left.any()
