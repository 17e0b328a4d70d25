"""The probabilities of all classes as one COG, a band a class, written from row bands in bounded memory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, get_args

import numpy as np
import rasterio
import rasterio.shutil
from numpy.typing import NDArray
from rasterio.windows import Window as RasterioWindow

from gopt_geo.errors import GoptGeoError
from gopt_geo.grid import GeoBox, Window, to_rasterio_crs
from gopt_geo.outputs.cog import BLOCK, CACHE, gdal_writes, overview_options
from gopt_geo.outputs.complete import WrittenBlocks, check_complete

__all__ = ["ProbabilityType", "ProbabilityWriter", "check_probability_type"]

ProbabilityType = Literal["float32", "uint16", "uint8"]
"""How a probability is stored: as it is; in ten-thousandths; in percent."""

_ROWS = 64  # height of the scratch file's blocks: rows come a few at a time, and whole blocks are written once


@dataclass(frozen=True)
class _Encoding:
    """How probabilities become pixels: value = probability / scale, rounded where the type is whole numbers."""

    dtype: ProbabilityType
    scale: float
    nodata: float

    def encode(self, probabilities: NDArray[np.float32], valid: NDArray[np.bool_]) -> NDArray[Any]:
        if self.dtype == "float32":
            return np.where(valid, probabilities, np.float32(np.nan))
        whole = np.rint(probabilities.clip(0, 1) * np.float32(round(1 / self.scale)))
        return np.where(valid, whole, np.float32(self.nodata)).astype(self.dtype)


_ENCODINGS: dict[ProbabilityType, _Encoding] = {
    "float32": _Encoding("float32", 1.0, float("nan")),
    "uint16": _Encoding("uint16", 1e-4, 65535),
    "uint8": _Encoding("uint8", 1e-2, 255),
}


def check_probability_type(name: str) -> None:
    """Refuse a type that there isn't.

    Raises
    ------
    GoptGeoError
        If it is none of `ProbabilityType`.
    """
    if name not in _ENCODINGS:
        known = ", ".join(get_args(ProbabilityType))
        raise GoptGeoError(f"--probabilities-type {name}", "there is no such type", f"choose {known}")


class ProbabilityWriter:
    """Write the probabilities of all classes as a COG: band descriptions are the classes' names.

    Rows go to a hidden, uncompressed file beside `path`, in which ground without data takes no room; `finish` lets
    GDAL's COG driver copy that, with averaged overviews. Memory holds no more than GDAL's cache.

    Parameters
    ----------
    path
        The file to write; `Staging.path` gives one that is published as a whole.
    grid
        The grid of the whole map. The CRS may be None (pixel grid).
    names
        The classes', in the order of the probabilities.
    tags
        Tags of the file.
    kind
        How probabilities are stored; whole numbers carry their scale as GDAL's scale of the band.

    Raises
    ------
    GoptGeoError
        If there is no such kind.
    OutputError
        Here and in `write` and `finish`, if GDAL can't write: a full disk, as a rule.
    """

    memory = CACHE
    """Bytes that it may hold."""

    def __init__(
        self,
        path: Path,
        grid: GeoBox,
        names: Sequence[str],
        tags: Mapping[str, str],
        kind: ProbabilityType = "float32",
    ) -> None:
        check_probability_type(kind)
        self.path, self._encoding = path, _ENCODINGS[kind]
        self._raw = path.with_name(f".{path.name}.rows.tif")
        self._whole = Window(0, 0, grid.shape[0], grid.shape[1])
        self._written = WrittenBlocks(self._whole.shape, (_ROWS, BLOCK))
        self._blocks = WrittenBlocks(self._whole.shape, (BLOCK, BLOCK))
        with gdal_writes(path):
            self._dataset = rasterio.open(
                self._raw,
                "w",
                driver="GTiff",
                height=grid.shape[0],
                width=grid.shape[1],
                count=len(names),
                dtype=kind,
                nodata=self._encoding.nodata,
                crs=to_rasterio_crs(grid.crs),
                transform=grid.affine,
                interleave="band",
                sparse_ok=True,  # what is never written reads as nodata
                tiled=True,
                blockxsize=BLOCK,
                blockysize=_ROWS,
                bigtiff="IF_SAFER",
            )
            self._dataset.descriptions = tuple(names)
            if self._encoding.scale != 1:
                self._dataset.scales = (self._encoding.scale,) * len(names)
                self._dataset.offsets = (0.0,) * len(names)
            note = {} if grid.crs else {"GEOREFERENCING": "none: the inputs have no CRS (pixel grid)"}
            self._dataset.update_tags(**note, **tags)

    def __enter__(self) -> ProbabilityWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def write(self, window: Window, probabilities: NDArray[np.float32], valid: NDArray[np.bool_]) -> None:
        """Take the rows of a window, in any order.

        Parameters
        ----------
        window
            Inside the grid. What is never written is nodata.
        probabilities
            float32 [K, h, w].
        valid
            bool [h, w]; nodata where it is False.

        Raises
        ------
        ValueError
            If the window lies outside the grid, or an array doesn't fit it.
        """
        window.slices_in(self._whole)  # raises
        if probabilities.shape != (self._dataset.count, *window.shape) or valid.shape != window.shape:
            raise ValueError(f"{window} can't take {probabilities.shape} with {valid.shape}")
        if not valid.any():
            return
        self._written.add(window, valid)
        self._blocks.add(window, valid)
        place = RasterioWindow(window.col, window.row, window.width, window.height)
        with gdal_writes(self.path):
            for band, shares in enumerate(probabilities, start=1):
                self._dataset.write(self._encoding.encode(shares, valid), band, window=place)

    def finish(self) -> None:
        """Write the COG and remove the hidden file."""
        with gdal_writes(self.path):
            self._dataset.close()
            check_complete(self._raw, self._written, self.path)
            rasterio.shutil.copy(
                str(self._raw),
                str(self.path),
                driver="COG",
                compress="DEFLATE",
                predictor="YES",
                level=1,  # higher ones take several times as long for a few percent of the size
                blocksize=BLOCK,
                bigtiff="IF_SAFER",
                sparse_ok=True,  # ground without data takes no room
                overview_resampling="AVERAGE",
                **overview_options(self._whole.shape),
            )
            check_complete(self.path, self._blocks, self.path)
        self._raw.unlink()

    def close(self) -> None:
        """Release the hidden file without finishing; harmless after `finish`."""
        self._dataset.close()
