"""The tile plan: where tiles lie, which of them touch a window, which slot of a batch each takes."""

from __future__ import annotations

from dataclasses import dataclass

from gopt_geo.errors import GoptGeoError
from gopt_geo.grid import Window

__all__ = ["LOOKAHEAD", "TilePlan"]

LOOKAHEAD = 4
"""Batches of tiles that may wait for the other slots of theirs to fill, see `TilePlan.slot`."""


@dataclass(frozen=True, slots=True)
class TilePlan:
    """Square, overlapping tiles anchored at pixel (0, 0) of the scene grid, whatever window is asked for.

    The tile in tile row i and tile column j begins at pixel (i * stride, j * stride); the last ones of a row
    or column may hang over the scene's right and lower edges.

    Parameters
    ----------
    shape
        Height and width of the scene in pixels, at least 1 x 1.
    tile_size
        Edge of a tile in pixels.
    overlap
        Pixels that neighbouring tiles share, 0 to half of `tile_size`. Within this bound no more than two
        tiles of a row, and four in all, lie over one pixel, and a tile's two tapers never meet.

    Raises
    ------
    GoptGeoError
        If the tile size or the overlap is out of its range.
    ValueError
        If the scene has no pixels.
    """

    shape: tuple[int, int]
    tile_size: int
    overlap: int

    def __post_init__(self) -> None:
        if min(self.shape) < 1:
            raise ValueError(f"a scene has at least one pixel, not {self.shape[0]} x {self.shape[1]}")
        if self.tile_size < 1:
            raise GoptGeoError("--tile-size", f"{self.tile_size} pixels", "give at least 1 pixel")
        if not 0 <= self.overlap <= self.tile_size // 2:
            raise GoptGeoError(
                "--overlap",
                f"{self.overlap} pixels with tiles of {self.tile_size}",
                f"give 0 to {self.tile_size // 2} pixels, at most half of a tile",
            )

    @property
    def stride(self) -> int:
        """Pixels from one tile's first row to the next one's."""
        return self.tile_size - self.overlap

    @property
    def rows(self) -> int:
        """Number of tile rows."""
        return self._count(self.shape[0])

    @property
    def cols(self) -> int:
        """Number of tile columns."""
        return self._count(self.shape[1])

    def window(self, row: int, col: int) -> Window:
        """Return the pixels of the tile in tile row `row` and column `col`; it may hang over the scene's edges."""
        return Window(row * self.stride, col * self.stride, self.tile_size, self.tile_size)

    def own(self, row: int, col: int) -> Window:
        """Return the pixels of tile (row, col) that count as its own: these windows cover the scene without overlap."""
        height, width = (
            n - at * self.stride if at == count - 1 else self.stride
            for n, at, count in zip(self.shape, (row, col), (self.rows, self.cols), strict=True)
        )
        return Window(row * self.stride, col * self.stride, height, width)

    def touching(self, window: Window) -> tuple[range, range]:
        """Return the tile rows and columns that share a pixel with `window` (empty ranges if none does)."""
        inside = window.clip(self.shape)
        if inside is None:
            return range(0), range(0)
        return (
            self._touching(inside.row, inside.row_stop, self.rows),
            self._touching(inside.col, inside.col_stop, self.cols),
        )

    def slot(self, row: int, col: int, batch_size: int) -> int:
        """Return the place in a batch that a tile always takes, 0 to batch_size - 1.

        A kernel may round a sample's last bit by its place in the batch (vector tails and per-thread buffers,
        seen on tiles whose number of pixels or tokens isn't a multiple of the vector width). With the place
        fixed by the tile, not by what was read before it, the same tile gives the same bits in every window.
        The two skews spread full rows, single columns and every n-th row or column evenly over the slots; a
        scene of a few batches is simply counted through.
        """
        if self.rows * self.cols <= LOOKAHEAD * batch_size:
            return (row * self.cols + col) % batch_size
        return (row + row // batch_size + col + col // batch_size) % batch_size

    def _count(self, size: int) -> int:
        return max(0, -(-(size - self.tile_size) // self.stride)) + 1

    def _touching(self, start: int, stop: int, count: int) -> range:
        first = max(0, (start - self.tile_size) // self.stride + 1)
        return range(first, min(count, -(-stop // self.stride)))
