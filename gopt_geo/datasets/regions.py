"""Blocks of ground with a buffer around them: which pixels belong to a part of a split."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from gopt_geo.grid import GeoBox, Window

__all__ = ["BlockLayout", "BlockRegion", "rectangles"]

Cells = NDArray[np.bool_]
Edges = NDArray[np.int64]


@dataclass(frozen=True)
class BlockRegion:
    """A part of a split: pixels of a grid, made of rectangles.

    Attributes
    ----------
    grid
        The grid that rows and columns are counted on.
    name
        "train", "val" or "test".
    windows
        Disjoint rectangles that together are the region; tiles are drawn from them.
    hides_images
        Whether images are hidden outside of it too, or labels alone.
    rows, cols, cells
        Edges of cells, and which of them belong to the region.
    """

    grid: GeoBox
    name: str
    windows: tuple[Window, ...]
    hides_images: bool
    rows: Edges
    cols: Edges
    cells: Cells

    def read(self, window: Window) -> NDArray[np.bool_]:
        """Tell which pixels of a window belong to the region, bool [h, w]; False beyond its edges."""
        padded = np.pad(self.cells, 1)
        row = np.searchsorted(self.rows, np.arange(window.row, window.row_stop), "right")
        col = np.searchsorted(self.cols, np.arange(window.col, window.col_stop), "right")
        return np.asarray(padded[np.ix_(row, col)])


class BlockLayout:
    """A rectangle of ground cut into blocks, and into cells at the blocks' edges and a buffer away from them.

    All pixels of a cell are equally near to each block, in the sense of the buffer.

    Parameters
    ----------
    ground
        The rectangle.
    edge
        Edge of a block in pixels; blocks are made equal, so that theirs may differ a little.
    buffer
        Pixels; a pixel lies within the buffer of another if neither their rows nor their columns are further apart.

    Attributes
    ----------
    shape : tuple of int
        Number of blocks down and across.
    rows, cols : int64
        Edges of the cells, in pixels of the grid.
    block_of_row, block_of_col : int64
        The block that a row or column of cells lies in.
    """

    def __init__(self, ground: Window, edge: int, buffer: int) -> None:
        down, self.rows, self.block_of_row, self._near_rows = _axis(ground.row, ground.height, edge, buffer)
        across, self.cols, self.block_of_col, self._near_cols = _axis(ground.col, ground.width, edge, buffer)
        self.shape = down, across

    def near(self, blocks: Cells) -> Cells:
        """Tell which cells lie in one of the blocks, or within the buffer of one."""
        total = np.pad(blocks.astype(np.int64).cumsum(axis=0).cumsum(axis=1), ((1, 0), (1, 0)))
        (top, bottom), (left, right) = self._near_rows, self._near_cols
        above, below = total[top], total[bottom]
        return np.asarray((below[:, right] - below[:, left] - above[:, right] + above[:, left]) > 0)

    def spread(self, blocks: NDArray[np.int8]) -> NDArray[np.int8]:
        """Return each cell's value from those of the blocks."""
        return np.asarray(blocks[np.ix_(self.block_of_row, self.block_of_col)])

    def window(self, row: int, col: int, row_stop: int, col_stop: int) -> Window:
        """Return the pixels of a rectangle of cells."""
        top, left = int(self.rows[row]), int(self.cols[col])
        return Window(top, left, int(self.rows[row_stop]) - top, int(self.cols[col_stop]) - left)


def _axis(start: int, size: int, edge: int, buffer: int) -> tuple[int, Edges, Edges, tuple[Edges, Edges]]:
    """Cut one axis: number of blocks, edges of cells, the block of each cell, and first and last but one near it."""
    count = max(round(size / edge), 1)
    borders = start + np.round(np.linspace(0, size, count + 1)).astype(np.int64)
    edges = np.unique(np.concatenate([borders, borders - buffer, borders + buffer]))
    edges = edges[(edges >= start) & (edges <= start + size)]
    first, last = edges[:-1], edges[1:] - 1  # pixels of each cell
    block = np.searchsorted(borders, first, "right") - 1
    # Block b holds borders[b] to borders[b + 1] - 1: near if its first pixel is at most `last + buffer`, and so on.
    low = np.searchsorted(borders[1:], first - buffer, "right")
    high = np.searchsorted(borders[:-1], last + buffer, "right")
    return count, edges, block, (low, high)


def rectangles(cells: Cells, heights: Edges, widths: Edges) -> list[tuple[int, int, int, int]]:
    """Cut cells into disjoint rectangles, the largest first.

    Parameters
    ----------
    cells
        Which cells are to be covered.
    heights, widths
        Of the rows and columns of cells, in pixels.

    Returns
    -------
    First row and column, and the row and column after the last, of each rectangle.
    """
    found, todo = [], cells.copy()
    while todo.any():
        pieces, _ = ndimage.label(todo)
        for number, place in enumerate(ndimage.find_objects(pieces), 1):
            row, col = place[0].start, place[1].start
            top, left, bottom, right = _largest(pieces[place] == number, heights[place[0]], widths[place[1]])
            box = row + top, col + left, row + bottom, col + right
            todo[box[0] : box[2], box[1] : box[3]] = False
            found.append(box)
    return sorted(found)


def _largest(cells: Cells, heights: Edges, widths: Edges) -> tuple[int, int, int, int]:
    """Return the rectangle of the largest area, by a stack of growing columns for each bottom row."""
    best, best_area = (0, 0, 0, 0), 0
    above = np.concatenate([[0], heights.cumsum()])
    across = np.concatenate([[0], widths.cumsum()]).tolist()
    first = np.zeros(cells.shape[1], np.int64)  # of each column, the first row of the run that ends here
    for row in range(len(cells)):
        first = np.where(cells[row], first, row + 1)
        tall = [*(above[row + 1] - above[first]).tolist(), 0]
        stack: list[tuple[int, int]] = []  # first column and height
        for col, height in enumerate(tall):
            start = col
            while stack and stack[-1][1] >= height:
                start, lower = stack.pop()
                area = lower * (across[col] - across[start])
                if area > best_area:
                    top = int(np.searchsorted(above, above[row + 1] - lower))
                    best, best_area = (top, start, row + 1, col), area
            stack.append((start, height))
    return best
