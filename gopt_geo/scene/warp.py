"""One source on the scene grid: whole blocks of the grid's lattice, each produced once and always alike."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from rasterio.enums import Resampling

from gopt_geo.grid import GeoBox, Window, lattice, whole_pixel_offset
from gopt_geo.scene.blockcache import BlockCache
from gopt_geo.scene.footprint import surely_blank
from gopt_geo.scene.geometry import PixelMap
from gopt_geo.scene.piecekernel import Block, PieceKernel
from gopt_geo.scene.radiometry import Radiometry
from gopt_geo.scene.source import PixelSource
from gopt_geo.scene.unchanged import check_unchanged

__all__ = ["BLOCK", "AlignedSource"]

BLOCK = 512
"""Edge of a block of the scene grid's lattice, in pixels."""

_TOLERANCE = 0.005  # pixels of the source; half of what is promised, as it's measured at 25 points a piece
_TORN = 0.5  # of the kernel's width; a single pixel less affine than this lies on a tear (antimeridian, pole)
_UNDEFINED = 64  # pixels; no search for defined points inside a piece this small that shows none
_SOURCE_PIXELS = 1_500_000  # read at a time; a block that needs more is produced in quarters
_CACHE_BYTES = 512 << 20
_FITS = 256
_UNKNOWN, _BLANK, _PERHAPS = 0, 1, 2  # what is known of a block before it is made
Kernel = Literal["bilinear", "nearest", "mode"]


class _Loaded(NamedTuple):
    """Source pixels in memory: their window in the source, values, and mask (None where all are valid)."""

    window: Window
    values: NDArray[np.float32]
    mask: NDArray[np.float32] | None


class AlignedSource:
    """A source's bands on the scene grid.

    Pixels are produced in whole blocks of `BLOCK` x `BLOCK`, anchored at the scene grid's pixel (0, 0), and
    every window is cut from those: what a pixel holds doesn't depend on the window, the order or the thread.
    Grids that agree or are offset by whole pixels are read, not warped.

    Parameters
    ----------
    source
        The raster; closed together with this object.
    grid
        The scene grid.
    resampling
        "bilinear" for images (a triangular kernel that widens when downsampling), "nearest" or "mode" for
        labels.
    radiometry
        Steps before and after the warp; None leaves the stored values.
    by_pixel
        Ignore georeferencing and lay pixel upon pixel (`--pixel-grid`).
    cache_bytes
        Bound of the cache of blocks; None keeps two rows of blocks (at most 512 MiB), which suits reading
        row by row.
    by_window
        Make each window by itself instead of out of blocks, and keep nothing: a few small windows then cost no more
        than their own pixels. Where they are warped, a pixel depends on its window, within the tolerance below.

    Raises
    ------
    GridError
        If there is no way from the source's CRS to the grid's.

    Notes
    -----
    Validity: with "bilinear" a pixel is valid where at least half of the kernel's weight falls on valid
    pixels, and its value is their weighted mean; invalid pixels weigh nothing. With "nearest" it is the
    nearest pixel's validity, with "mode" at least half of the pixel's area must be valid.

    Geometry: each block is warped in affine pieces that stay within 0.005 pixel of the exact transformation.
    """

    def __init__(
        self,
        source: PixelSource,
        grid: GeoBox,
        resampling: Kernel = "bilinear",
        *,
        radiometry: Radiometry | None = None,
        by_pixel: bool = False,
        cache_bytes: int | None = None,
        by_window: bool = False,
    ) -> None:
        self.source, self.grid, self.resampling = source, grid, Resampling[resampling]
        self.count: int = source.count
        self._radiometry, self._by_window = radiometry, by_window
        control = None if by_pixel else source.control
        aligned = by_pixel or control is None
        self.offset = (0, 0) if by_pixel else whole_pixel_offset(grid, source.grid) if aligned else None
        self._map = PixelMap(grid, grid if by_pixel else source.grid, source.name, control)
        ratio = self._map.scale() if self.offset is None else (1.0, 1.0)
        self._kernel = PieceKernel(self.resampling, ratio)
        self.scale, self._margin = self._kernel.scale, self._kernel.margin
        self._fit = lru_cache(_FITS)(self._map.fit)  # asked for by `blank`, and once more when the block is made
        block_bytes = BLOCK * BLOCK * (4 * self.count + 1)
        down, across = -(-grid.shape[0] // BLOCK), -(-grid.shape[1] // BLOCK)
        self._known = np.zeros((down, across), np.uint8)
        kept = min((2 * across + 4) * block_bytes, _CACHE_BYTES) if cache_bytes is None else cache_bytes
        self.cache: BlockCache[Block | None] = BlockCache(
            0 if by_window else kept,
            lambda block: 0 if block is None else block[0].nbytes + block[1].nbytes,
        )
        self._arguments: dict[str, Any] = {
            "resampling": resampling,
            "radiometry": radiometry,
            "by_pixel": by_pixel,
            "cache_bytes": cache_bytes,
            "by_window": by_window,
        }

    @property
    def own_grid(self) -> GeoBox:
        """The source's own grid, from which it is warped."""
        return self.source.grid

    @property
    def band_names(self) -> tuple[str, ...]:
        """What the source calls its bands, "" where it doesn't say."""
        return self.source.band_names

    @property
    def notice(self) -> str | None:
        """What the user should know about the transformation's accuracy."""
        return self._map.notice

    @property
    def cache_bytes(self) -> int:
        """Bytes that the cache of blocks may hold."""
        return self.cache.capacity

    @property
    def block_memory(self) -> int:
        """Bytes that producing one block takes at most, about: source pixels as stored, scaled, warped; the block."""
        pixels = float(BLOCK * BLOCK)
        if self.offset is None:
            pixels = min(pixels / (self.scale[0] * self.scale[1]) * 1.5, _SOURCE_PIXELS)
        # Per source pixel and band: as stored, as float32, the float64 of scale and offset, the stack that is warped,
        # and GDAL's copy of it; and the masks.
        return int(pixels * (self.count * 28 + 12)) + 3 * BLOCK * BLOCK * (4 * self.count + 1)

    def read(self, window: Window) -> Block:
        """Read a window of the scene grid, which may hang over its edges.

        Returns
        -------
        values : float32 [C, h, w]
            0 where invalid.
        valid : bool [h, w]
            False beyond the grid's edges.

        Raises
        ------
        SourceError
            If the file's bytes are damaged.
        """
        inside = window.clip(self.grid.shape)
        if self._by_window or (self.cache.capacity == 0 and inside == window and self._is_block(window)):
            return self._alone(window, inside)
        blocks = [] if inside is None else [(key, self._block(key)) for key in lattice(inside, BLOCK)]
        if inside != window or any(block is None for _, block in blocks):
            values, valid = self._zeros(window)
        else:
            values, valid = np.empty((self.count, *window.shape), np.float32), np.empty(window.shape, np.bool_)
        for key, block in blocks:
            extent = key.clip(self.grid.shape)
            part = None if extent is None or inside is None else extent.intersect(inside)
            if block is None or extent is None or part is None:
                continue
            rows, cols = part.slices_in(extent)
            to_rows, to_cols = part.slices_in(window)
            values[:, to_rows, to_cols] = block[0][:, rows, cols]
            valid[to_rows, to_cols] = block[1][rows, cols]
        return values, valid

    def _alone(self, window: Window, inside: Window | None) -> Block:
        """Make a window, of which `inside` lies on the grid, by itself; nobody else holds it."""
        made = None if inside is None else self._produce(inside)
        if inside == window and made is not None:
            return made
        values, valid = self._zeros(window)
        if inside is not None and made is not None:
            rows, cols = inside.slices_in(window)
            values[:, rows, cols], valid[rows, cols] = made
        return values, valid

    def blank(self, window: Window) -> bool:
        """Return True only if surely no pixel of a window is valid; nothing is read for it."""
        inside = window.clip(self.grid.shape)
        return inside is None or all(self._is_blank(key) for key in lattice(inside, BLOCK))

    def _is_blank(self, key: Window) -> bool:
        """Return whether a block of the lattice is known to be blank; look once, at what the source can tell."""
        place = key.row // BLOCK, key.col // BLOCK
        if self._known[place] == _UNKNOWN:
            block = key.clip(self.grid.shape)
            self._known[place] = _BLANK if block is None or self._out_of_reach(block) else _PERHAPS
        return bool(self._known[place] == _BLANK)

    def _out_of_reach(self, block: Window) -> bool:
        """Return whether surely none of the pixels that a block is made of is valid."""
        if self.offset is not None:
            return surely_blank(self.source, _moved(block, self.offset))
        matrix, error = self._fit(block)
        if math.isnan(error):
            return False
        window = self._source_window(block, matrix, error)
        if window is None or math.isinf(error):
            return window is None
        more = math.ceil(error) + 2  # the quarters of a curved block have fits of their own
        wider = Window(window.row - more, window.col - more, window.height + 2 * more, window.width + 2 * more)
        return surely_blank(self.source, wider)

    def _block(self, key: Window) -> Block | None:
        """Return a block of the lattice from the cache, else make it; None without a valid pixel."""
        block = key.clip(self.grid.shape)
        if block is None or self._is_blank(key):
            return None
        made = self.cache.get((key.row, key.col), _producer(self._produce, block))
        if made is None:
            self._known[key.row // BLOCK, key.col // BLOCK] = _BLANK
        return made

    def _zeros(self, window: Window) -> Block:
        return np.zeros((self.count, *window.shape), np.float32), np.zeros(window.shape, np.bool_)

    def _is_block(self, window: Window) -> bool:
        key = Window(window.row // BLOCK * BLOCK, window.col // BLOCK * BLOCK, BLOCK, BLOCK)
        return key.clip(self.grid.shape) == window

    def _produce(self, block: Window) -> Block | None:
        """Make a block; None without a valid pixel."""
        if self.offset is not None:
            values, valid = self._load_raw(_moved(block, self.offset))
        else:
            values = np.zeros((self.count, *block.shape), np.float32)
            valid = np.zeros(block.shape, np.bool_)
            self._fill(block, block, values, valid, None)
        if self._radiometry is not None and valid.any():
            values, valid = self._radiometry.after_warp(values, valid)
        return (values, valid) if valid.any() else None

    def _load_raw(self, window: Window) -> Block:
        values, valid = self.source.read(window)
        if self._radiometry is None or not valid.any():
            return values, valid
        return self._radiometry.before_warp(values, valid)

    def _fill(
        self,
        piece: Window,
        block: Window,
        values: NDArray[np.float32],
        valid: NDArray[np.bool_],
        loaded: _Loaded | None,
    ) -> None:
        """Produce one piece of a block, in quarters where the source is too large or the map too curved."""
        matrix, error = self._fit(piece)
        edge = max(piece.shape)
        torn = not error <= _TORN / min(self.scale)  # true for NaN, which says undefined in part
        if (edge == 1 and torn) or (edge <= _UNDEFINED and math.isinf(error)):
            return
        window = self._source_window(piece, matrix, error)
        if window is None:
            return
        if loaded is None or window.intersect(loaded.window) != window:
            small = window.height * window.width <= _SOURCE_PIXELS
            loaded = self._load(window) if edge == 1 or (small and math.isfinite(error)) else None
            if loaded is None and small and math.isfinite(error):
                return
        if loaded is not None and (error <= _TOLERANCE or edge == 1):
            place = piece.slices_in(block)
            values[:, place[0], place[1]], valid[place] = self._warp(piece, matrix, window, loaded)
            return
        for part in _quarters(piece) if edge > 1 else ():
            self._fill(part, block, values, valid, loaded)

    def _source_window(self, piece: Window, matrix: NDArray[np.float64], error: float) -> Window | None:
        """Return the source pixels that the piece's kernels touch, None where there are none."""
        height, width = self.source.grid.shape
        bounds = Window(-self._margin[1], -self._margin[0], height + 2 * self._margin[1], width + 2 * self._margin[0])
        if not math.isfinite(error):
            return bounds
        corners = np.array([(0, 0, 1), (piece.width, 0, 1), (0, piece.height, 1), (*piece.shape[::-1], 1)]) @ matrix.T
        reach = np.array(self._margin) + error
        low, high = np.floor(corners.min(axis=0) - reach), np.ceil(corners.max(axis=0) + reach)
        if not ((high > 0) & (low < (width, height))).all():
            return None
        low, high = (
            np.maximum(low, (bounds.col, bounds.row)),
            np.minimum(high, (bounds.col_stop, bounds.row_stop)),
        )
        (col, row), (col_stop, row_stop) = low.astype(int).tolist(), high.astype(int).tolist()
        return Window(row, col, row_stop - row, col_stop - col)

    def _load(self, window: Window) -> _Loaded | None:
        """Read source pixels; None where none is valid."""
        values, valid = self._load_raw(window)
        if not valid.any():
            return None
        return _Loaded(window, values, None if valid.all() else valid.astype(np.float32))

    def _warp(self, piece: Window, matrix: NDArray[np.float64], window: Window, loaded: _Loaded) -> Block:
        """Warp one affine piece out of the loaded pixels.

        Invalid pixels are 0 in the values and in the mask, which is warped along: the quotient of the two is
        the mean over valid pixels, and the warped mask is the valid share of the kernel's weight.
        """
        part = window.intersect(loaded.window)
        determinant = np.linalg.det(matrix[:, :2])
        if part is None or abs(determinant) < 1e-12:
            return np.zeros((self.count, *piece.shape), np.float32), np.zeros(piece.shape, np.bool_)
        rows, cols = part.slices_in(loaded.window)
        values, mask = loaded.values[:, rows, cols], None if loaded.mask is None else loaded.mask[rows, cols]
        inner = np.column_stack([matrix[:, :2], matrix[:, 2] - (part.col, part.row)])
        if self.resampling == Resampling.mode:
            return self._kernel.most_frequent(values, mask, inner, piece.shape)
        if mask is not None:
            values = np.concatenate([values, mask[None]])
        result = self._kernel.resample(values, inner, piece.shape)
        if mask is None:
            return result, np.ones(piece.shape, np.bool_)
        weight = result[-1]
        valid = weight >= 0.5 - 1e-6  # halves are frequent; rounding mustn't decide them
        if valid.all() and weight.min() == 1:
            return result[:-1], valid
        return np.where(valid, result[:-1] / np.where(valid, weight, np.float32(1)), np.float32(0)), valid

    def check_unchanged(self) -> None:
        """Raise SourceError if a file behind the source has changed since it was opened."""
        check_unchanged([self.source])

    def close(self) -> None:
        """Drop the cache and close the source."""
        self.cache.clear()
        self.source.close()

    def __reduce__(self) -> tuple[Callable[..., AlignedSource], tuple[Any, ...]]:
        return _rebuild, (self.source, self.grid, self._arguments)


def _rebuild(source: PixelSource, grid: GeoBox, arguments: dict[str, Any]) -> AlignedSource:
    return AlignedSource(source, grid, **arguments)


def _moved(window: Window, offset: tuple[int, int]) -> Window:
    return Window(window.row + offset[0], window.col + offset[1], window.height, window.width)


def _producer(produce: Callable[[Window], Block | None], block: Window) -> Callable[[], Block | None]:
    return lambda: produce(block)


def _quarters(piece: Window) -> list[Window]:
    """Split a window into up to four of half its edge."""
    height, width = max(piece.height // 2, 1), max(piece.width // 2, 1)
    rows = [(piece.row, height)] + ([(piece.row + height, piece.height - height)] if piece.height > 1 else [])
    cols = [(piece.col, width)] + ([(piece.col + width, piece.width - width)] if piece.width > 1 else [])
    return [Window(row, col, h, w) for row, h in rows for col, w in cols]
