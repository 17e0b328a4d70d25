"""A single-band uint8 COG, written from row bands in bounded memory."""

from __future__ import annotations

import warnings
import xml.etree.ElementTree as ET
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Literal

import numpy as np
import rasterio
import rasterio.shutil
from numpy.typing import NDArray
from rasterio._env import get_gdal_config
from rasterio._err import CPLE_BaseError
from rasterio.errors import NotGeoreferencedWarning, RasterioError
from rasterio.windows import Window as RasterioWindow

from gopt_geo.errors import OutputError
from gopt_geo.grid import GeoBox, Window, to_rasterio_crs
from gopt_geo.outputs.complete import WrittenBlocks, check_complete

__all__ = ["BLOCK", "CACHE", "NODATA", "CogWriter", "gdal_writes", "overview_options"]

BLOCK = 512
"""Edge of the COG's tiles, in pixels."""
NODATA = 255
CACHE = 32 << 20
"""Bytes that GDAL may hold while a result is written."""
_EFFORT = 5  # of 9; 6, the usual, makes a class map up to a tenth smaller and takes up to half as long again
_LAYOUT = {"tiled": True, "blockxsize": BLOCK, "blockysize": BLOCK, "bigtiff": "IF_SAFER"}


class CogWriter:
    """Write one uint8 band in row bands, then turn it into a COG.

    The rows go to a hidden tiled GeoTIFF beside `path`, and `finish` lets GDAL's COG driver copy that through
    a VRT, which may carry what rasterio can't write. Nothing is written into the COG afterwards.

    Parameters
    ----------
    path
        The COG; its folder also takes two hidden files until `finish`.
    grid
        The grid of the whole raster. Without a CRS a tag says so.
    tags
        Tags of the file.
    description
        What the band holds.
    resampling
        How the overviews are made.
    colors
        Colour table, or None for a grey band.
    decorate
        Called with the VRT's band element before the copy.

    Raises
    ------
    OutputError
        Here and in `write` and `finish`, if GDAL can't write: a full disk, as a rule.
    """

    def __init__(
        self,
        path: Path,
        grid: GeoBox,
        *,
        tags: Mapping[str, str],
        description: str,
        resampling: Literal["mode", "average"],
        colors: Mapping[int, tuple[int, int, int, int]] | None = None,
        decorate: Callable[[ET.Element], None] | None = None,
    ) -> None:
        self.path = path
        self._resampling = resampling
        self._decorate = decorate
        self._raw = path.with_name(f".{path.name}.rows.tif")
        self._rows: dict[tuple[int, int], _BlockRow] = {}  # by column and width: column strips come in turn
        height, width = grid.shape
        self._whole = Window(0, 0, height, width)
        self._written = WrittenBlocks((height, width), (BLOCK, BLOCK))
        with gdal_writes(path):
            self._dataset = rasterio.open(
                self._raw,
                "w",
                driver="GTiff",
                height=height,
                width=width,
                count=1,
                dtype="uint8",
                nodata=NODATA,
                crs=to_rasterio_crs(grid.crs),
                transform=grid.affine,
                compress="DEFLATE",
                zlevel=1,
                sparse_ok=True,  # what is never written reads as nodata
                **_LAYOUT,
            )
        if colors is not None:
            self._dataset.write_colormap(1, dict(colors))
        self._dataset.set_band_description(1, description)
        note = {} if grid.crs else {"GEOREFERENCING": "none: the inputs have no CRS (pixel grid)"}
        self._dataset.update_tags(**note, **tags)

    def __enter__(self) -> CogWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Release the hidden file without finishing; harmless after `finish`."""
        self._dataset.close()

    def write(self, window: Window, values: NDArray[np.uint8]) -> None:
        """Take the rows of a window.

        Windows come top-down, in any heights; column strips one after the other. Rows are kept until they
        fill a row of tiles, so that each tile is written once.

        Parameters
        ----------
        window
            Inside the grid.
        values
            Its pixels, uint8 [h, w].

        Raises
        ------
        ValueError
            If the window lies outside the grid, or the array doesn't fit it.
        """
        window.slices_in(self._whole)  # raises
        if values.shape != window.shape or values.dtype != np.uint8:
            raise ValueError(f"{window} can't take {values.dtype} {values.shape}")
        key = window.col, window.width
        taken = 0
        while taken < window.height:
            row = self._rows.get(key)
            if row is None or row.next != window.row + taken:
                self._flush(key)
                row = self._rows[key] = _BlockRow(window.row + taken, window.width)
            taken += row.take(values[taken:])
            if row.next % BLOCK == 0:
                self._flush(key)

    def finish(self) -> None:
        """Write the COG and remove the hidden files."""
        for key in list(self._rows):
            self._flush(key)
        vrt = self.path.with_name(f".{self.path.name}.vrt")
        with gdal_writes(self.path):
            self._dataset.close()
            check_complete(self._raw, self._written, self.path)
            rasterio.shutil.copy(str(self._raw), str(vrt), driver="VRT")
            if self._decorate is not None:
                tree = ET.parse(vrt)
                band = tree.find("VRTRasterBand")
                assert band is not None
                self._decorate(band)
                tree.write(vrt, encoding="utf-8")
            rasterio.shutil.copy(
                str(vrt),
                str(self.path),
                driver="COG",
                compress="DEFLATE",  # every reader has it; class maps shrink about as well as with ZSTD
                level=_EFFORT if self._resampling == "mode" else 1,  # percents don't get smaller by more effort
                num_threads="ALL_CPUS",
                blocksize=BLOCK,
                bigtiff="IF_SAFER",
                overview_resampling=self._resampling.upper(),
                **overview_options(self._whole.shape),
            )
            check_complete(self.path, None, self.path)
        vrt.unlink()
        self._raw.unlink()

    def _flush(self, key: tuple[int, int]) -> None:
        row = self._rows.pop(key, None)
        if row is None or row.filled == 0:
            return
        values, window = row.values[: row.filled], Window(row.start, key[0], row.filled, key[1])
        there = values != NODATA
        if not there.any():  # the file is sparse: what is never written is nodata
            return
        self._written.add(window, there)
        with gdal_writes(self.path):
            self._dataset.write(values, 1, window=RasterioWindow(window.col, window.row, window.width, window.height))


def overview_options(shape: tuple[int, int]) -> dict[str, int | str]:
    """Return the COG driver's options for rasters so thin that its overviews would no longer shrink."""
    needed = (max(shape) - 1).bit_length() - (BLOCK - 1).bit_length()
    possible = min(shape).bit_length() - 1  # halvings of the shorter side
    if possible >= needed:
        return {}
    return {"overview_count": possible} if possible else {"overviews": "NONE"}


class _BlockRow:
    """The rows gathered for one row of tiles (of a column strip)."""

    def __init__(self, start: int, width: int) -> None:
        self.start = start
        self.filled = 0
        self.values = np.full((BLOCK - start % BLOCK, width), NODATA, np.uint8)

    @property
    def next(self) -> int:
        """The row of the raster that comes next."""
        return self.start + self.filled

    def take(self, values: NDArray[np.uint8]) -> int:
        """Copy as many rows as fit; return how many."""
        count = min(len(values), len(self.values) - self.filled)
        self.values[self.filled : self.filled + count] = values[:count]
        self.filled += count
        return count


@contextmanager
def gdal_writes(path: Path) -> Iterator[None]:
    """GDAL with a bounded cache, and silent about grids without a CRS; its errors become ours."""
    cache = min(int(get_gdal_config("GDAL_CACHEMAX")), CACHE)
    with rasterio.Env(GDAL_CACHEMAX=cache), warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        try:
            yield
        except (RasterioError, CPLE_BaseError) as error:
            found = f"GDAL can't write it ({error.__cause__ or error})"
            raise OutputError(path, found, "see whether the disk is full, or write elsewhere") from error
