"""Splits of one scene's labels into training, validation and test: blocks of ground with a buffer in between.

Neighbouring pixels are alike. Where training sees ground that touches the test's, scores come out too high; tiles that
overlap and are split at random are the worst case.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from gopt_geo.datasets.base import SceneDataset
from gopt_geo.datasets.classes import IGNORED
from gopt_geo.datasets.regions import BlockLayout, BlockRegion, rectangles
from gopt_geo.datasets.strata import assign
from gopt_geo.errors import SplitError
from gopt_geo.grid import Window, lattice
from gopt_geo.scene import BLOCK

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["PARTS", "Split", "split_labels"]

PARTS = ("train", "val", "test")
_TILES_A_BLOCK, _ENOUGH = 4, 40  # a block's edge in tiles; blocks below which it shrinks to half of that


@dataclass(frozen=True)
class Split:
    """Training, validation and test; made by `split_labels`.

    Attributes
    ----------
    train, val, test
        Regions for `SceneDataset.within`; None where the share asked for is 0.
    counts
        Labelled pixels, int64 [part, class], as they are used.
    lost
        Labelled pixels, int64 [part, class], that a part loses to the buffer.
    notices
        What the user should know, one line each: what the buffer costs, classes that a part lacks.
    """

    train: BlockRegion
    val: BlockRegion | None
    test: BlockRegion | None
    counts: NDArray[np.int64]
    lost: NDArray[np.int64]
    notices: list[str]
    _blocks: NDArray[np.int8] = field(repr=False)
    _layout: BlockLayout = field(repr=False)

    def plot(self) -> Figure:
        """Return a map (a matplotlib figure) of the parts, the buffer, and blocks without labels.

        Raises
        ------
        OutputError
            If matplotlib isn't installed.
        """
        from gopt_geo.datasets.splitplot import draw_split

        regions = [region for region in (self.train, self.val, self.test) if region is not None]
        return draw_split(regions, self._layout, self._blocks, self.counts.sum(axis=1).tolist())


def split_labels(
    dataset: SceneDataset,
    tile_size: int,
    *,
    shares: Sequence[float] = (0.7, 0.15, 0.15),
    buffer: int | None = None,
    block: int | None = None,
    seed: int = 0,
) -> Split:
    """Split a data set's labels into training, validation and test.

    The ground is cut into blocks. They are dealt out so that each part gets its share of the labels of each class, and
    so that the buffer costs little. Then training gives up all that lies within the buffer of a validation or test
    pixel, and validation what lies within the buffer of a test pixel.

    Parameters
    ----------
    dataset
        Labels on a grid, alone or combined with images.
    tile_size
        Edge of the tiles that will be drawn, in pixels.
    shares
        Of training, validation and test; they sum to 1, and the latter two may be 0.
    buffer
        Pixels; None takes one tile. A pixel lies within the buffer of another if neither their rows nor their columns
        are further apart.
    block
        Edge of a block in pixels; None takes 4 tiles, or 2 where 4 give fewer than 40 blocks.
    seed
        The same seed gives the same split.

    Raises
    ------
    SplitError
        If shares, buffer or block make no sense; there are fewer blocks with labels than parts; or a part is left
        without labels.
    DatasetError
        If the data set has no labels, or a label isn't one of the classes.

    Notes
    -----
    Images outside of the training region are hidden in training. In validation and test they are shown, so that tiles
    at the region's edge have surroundings: with a buffer of a tile or more they never hold a training pixel.
    Labels are read window by window: memory doesn't grow with the scene.
    """
    targets = _checked(shares, tile_size, buffer, block)
    if seed < 0:
        raise SplitError("seed", f"{seed}", "give 0 or more")
    buffer = tile_size if buffer is None else buffer
    ground = dataset.footprint
    layout = BlockLayout(ground, block or _block_edge(ground, tile_size), buffer)
    cells = _count(dataset, layout)
    if not cells.any():
        raise SplitError(str(dataset), "it has no labels", "check the labels' CRS and the area of interest")
    blocks = _of_blocks(cells, layout)
    labelled = int((blocks.sum(axis=2) > 0).sum())
    wanted = [part for part, share in enumerate(targets) if share > 0]
    if labelled < len(wanted):
        found = f"{labelled} of {blocks.shape[0] * blocks.shape[1]} blocks have labels, for {len(wanted)} parts"
        raise SplitError(str(dataset), found, f"give smaller blocks: block={max(tile_size, 1)}, or less")
    dealt = assign(cells, layout, targets, np.random.default_rng(seed))
    return _finish(dataset, layout, cells, dealt, wanted, tile_size, buffer)


def _checked(shares: Sequence[float], tile_size: int, buffer: int | None, block: int | None) -> tuple[float, ...]:
    targets = tuple(float(share) for share in shares)
    if len(targets) != 3 or not all(0 <= share <= 1 for share in targets) or not math.isclose(sum(targets), 1):
        raise SplitError("shares", f"{', '.join(map(str, shares))}", "give three from 0 to 1 that sum to 1")
    if targets[0] == 0:
        raise SplitError("shares", "training has no share", "give it one, or evaluate on all labels")
    sizes = {"tile_size": tile_size, "buffer": buffer, "block": block}
    for name, size in sizes.items():
        if size is not None and not isinstance(size, int):
            raise SplitError(name, f"{size!r}", "give a whole number of pixels")
    if tile_size < 1:
        raise SplitError("tile_size", f"{tile_size} pixels", "give at least 1")
    if buffer is not None and buffer < 0:
        raise SplitError("buffer", f"{buffer} pixels", "give 0 or more; a tile's size is advised")
    if block is not None and block < 1:
        raise SplitError("block", f"{block} pixels", "give at least 1; several tiles are advised")
    return targets


def _block_edge(ground: Window, tile_size: int) -> int:
    edge = _TILES_A_BLOCK * tile_size
    return edge if round(ground.height / edge) * round(ground.width / edge) >= _ENOUGH else edge // 2 or 1


def _count(dataset: SceneDataset, layout: BlockLayout) -> NDArray[np.int64]:
    """Count the labels of each class in each cell, int64 [rows, cols, classes]."""
    down, across = len(layout.rows) - 1, len(layout.cols) - 1
    counts = np.zeros((down, across, 1), np.int64)
    ground = layout.window(0, 0, down, across)
    for block in lattice(ground, BLOCK):
        part = block.intersect(ground)
        assert part is not None
        labels = dataset.read_labels(part)
        there = labels != IGNORED
        if not there.any():
            continue
        row = np.searchsorted(layout.rows, np.arange(part.row, part.row_stop), "right") - 1
        col = np.searchsorted(layout.cols, np.arange(part.col, part.col_stop), "right") - 1
        classes = int(labels[there].max()) + 1
        if classes > counts.shape[2]:
            counts = np.pad(counts, ((0, 0), (0, 0), (0, classes - counts.shape[2])))
        width = int(col[-1] - col[0]) + 1
        place = (row - row[0])[:, None] * width + (col - col[0])
        size = (int(row[-1] - row[0]) + 1) * width * classes
        found = np.bincount((place * classes + labels)[there], minlength=size).reshape(-1, width, classes)
        counts[row[0] : row[-1] + 1, col[0] : col[-1] + 1, :classes] += found
    return counts


def _of_blocks(cells: NDArray[np.int64], layout: BlockLayout) -> NDArray[np.int64]:
    """Sum the cells' counts over each block."""
    blocks = np.zeros((*layout.shape, cells.shape[2]), np.int64)
    np.add.at(blocks, np.ix_(layout.block_of_row, layout.block_of_col), cells)
    return blocks


def _finish(
    dataset: SceneDataset,
    layout: BlockLayout,
    cells: NDArray[np.int64],
    dealt: NDArray[np.int8],
    wanted: Sequence[int],
    tile_size: int,
    buffer: int,
) -> Split:
    own = layout.spread(dealt)
    heights, widths = np.diff(layout.rows), np.diff(layout.cols)
    counts, lost = np.zeros((len(PARTS), cells.shape[2]), np.int64), np.zeros((len(PARTS), cells.shape[2]), np.int64)
    regions: list[BlockRegion | None] = [None] * len(PARTS)
    grid = dataset.grid
    assert grid is not None
    for part in wanted:
        kept = (own == part) & ~layout.near(dealt > part)
        boxes = rectangles(kept, heights, widths)
        if part < max(wanted):  # tiles in what the buffer leaves of a block's rim would be hidden for the most part
            thin = [box for box in boxes if min(_size(box, layout)) < min(tile_size / 2, *_block_size(layout))]
            for row, col, row_stop, col_stop in thin:
                kept[row:row_stop, col:col_stop] = False
            boxes = [box for box in boxes if box not in thin]
        counts[part] = cells[kept].sum(axis=0)
        lost[part] = cells[(own == part) & ~kept].sum(axis=0)
        if not counts[part].any():
            found = f"the buffer of {buffer} pixels leaves no labels for {PARTS[part]}"
            raise SplitError(str(dataset), found, "give a smaller buffer, larger blocks, or other shares")
        windows = tuple(layout.window(*box) for box in boxes)
        regions[part] = BlockRegion(grid, PARTS[part], windows, part == 0, layout.rows, layout.cols, kept)
    train, val, test = regions
    assert train is not None
    notices = _notices(cells, counts, lost, wanted, buffer, tile_size, own)
    return Split(train, val, test, counts, lost, notices, dealt, layout)


def _size(box: tuple[int, int, int, int], layout: BlockLayout) -> tuple[int, int]:
    return layout.window(*box).shape


def _block_size(layout: BlockLayout) -> tuple[float, float]:
    down, across = layout.shape
    return (layout.rows[-1] - layout.rows[0]) / down, (layout.cols[-1] - layout.cols[0]) / across


def _notices(
    cells: NDArray[np.int64],
    counts: NDArray[np.int64],
    lost: NDArray[np.int64],
    wanted: Sequence[int],
    buffer: int,
    tile_size: int,
    own: NDArray[Any],
) -> list[str]:
    total = int(cells[own >= 0].sum())
    said = []
    if lost.any():
        each = ", ".join(f"{PARTS[part]} {_percent(lost[part].sum(), (lost + counts)[part].sum())}" for part in wanted)
        spent = f"{int(lost.sum()):,} of {total:,} labelled pixels, {_percent(lost.sum(), total)} ({each})"
        said.append(f"the buffer of {buffer} pixels costs {spent}")
    if buffer < tile_size - 1 and len(wanted) > 1:
        said.append(
            f"warning: the buffer of {buffer} pixels is less than a tile ({tile_size}): images at the edge of "
            "validation and test hold training pixels"
        )
    for label in np.flatnonzero(cells.sum(axis=(0, 1))).tolist():
        lacking = [PARTS[part] for part in wanted if counts[part, label] == 0]
        if lacking:
            said.append(f"warning: class {label} has no pixel in {' and '.join(lacking)}: it lies in too few blocks")
    return said


def _percent(part: int, whole: int) -> str:
    return f"{100 * part / max(whole, 1):.1f} %"
