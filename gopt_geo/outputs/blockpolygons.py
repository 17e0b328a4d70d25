"""Polygons of a class map of any size, block by block, the same as if the whole map were held at once.

Each block is cut into polygons of its own, in whole pixels, with the vertices that the map has on the block's frame.
Those that go on beyond the frame wait, and are put together when nothing can be added any more: memory holds a row of
blocks' frames, one block, and the polygons that are still open.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace

import numpy as np
import shapely
from affine import Affine
from numpy.typing import NDArray

from gopt_geo.grid import GeoBox, Window, crop
from gopt_geo.outputs.areas import region_areas
from gopt_geo.outputs.noding import densified, label_regions, region_polygons

__all__ = ["BLOCK", "PolygonBatch", "block_polygons"]

BLOCK = 2048
"""Edge of a block in pixels."""


@dataclass(frozen=True)
class PolygonBatch:
    """Finished polygons.

    Attributes
    ----------
    shapes
        Polygons, object [n], in the map's CRS, exterior rings counter-clockwise.
    classes
        int32 [n].
    areas
        On the ellipsoid in square metres, float64 [n]; NaN without a CRS.
    confidences
        Mean of the valid confidences, in percent, float64 [n]; NaN where there is none.
    """

    shapes: NDArray[np.object_]
    classes: NDArray[np.int32]
    areas: NDArray[np.float64]
    confidences: NDArray[np.float64]


def block_polygons(
    grid: GeoBox,
    read: Callable[[Window], NDArray[np.integer] | None],
    nodata: int = 255,
    size: int | None = None,
    *,
    confidence: Callable[[Window], tuple[NDArray[np.integer], NDArray[np.bool_]]] | None = None,
    densify: int | None = None,
) -> Iterator[PolygonBatch]:
    """Yield the polygons of a class map: 4-connected pixels of one class, nodata left out.

    Neighbours share their borders vertex by vertex, across blocks too; no border remains where a block ended.

    Parameters
    ----------
    grid
        The map's.
    read
        Returns a window's classes, of any integer type [h, w]; the window may hang over the grid's edges, where nodata
        is. None where all of it is nodata.
    nodata
        The value that means no data.
    size
        Edge of a block; else `BLOCK`.
    confidence
        Returns a window's confidences in percent, and which of them are valid, each [h, w]; the window lies on the
        grid.
    densify
        If given, borders also get a vertex on every `densify`-th line of the lattice of pixel corners that they cross.
    """
    size = BLOCK if size is None else size
    height, width = grid.shape
    seams = _Seams(width)
    for row in range(0, height, size):
        seams.begin_row(min(size, height - row))
        for col in range(0, width, size):
            window = Window(row, col, min(size, height - row), min(size, width - col))
            around = read(Window(row - 1, col - 1, window.height + 2, window.width + 2))
            if around is not None and (around[1:-1, 1:-1] != nodata).any():
                percent = None if confidence is None else confidence(window)
                yield _placed(seams.add(_Block(window, around, nodata, grid, percent)), grid, densify)
        yield _placed(_put_together(seams.end_row(), width + 1), grid, densify)


@dataclass
class _Piece:
    """A polygon in whole pixels, or its parts as far as they are known.

    `straight` holds keys of points on frames where its parts have a vertex and the map has none; `percent` and `known`
    are the sum and the number of its valid confidences.
    """

    value: int
    area: float
    percent: float
    known: int
    parts: list[shapely.Polygon]
    straight: list[NDArray[np.int64]] = field(default_factory=list)

    def absorb(self, other: _Piece) -> None:
        self.area += other.area
        self.percent += other.percent
        self.known += other.known
        self.parts += other.parts
        self.straight += other.straight

    def whole(self, stride: int) -> shapely.Polygon:
        """Return the polygon, its parts put together."""
        if len(self.parts) == 1:
            return self.parts[0]
        united = shapely.coverage_union_all(self.parts)
        assert isinstance(united, shapely.Polygon), "what is connected by pixels' edges is one polygon"
        straight = np.concatenate(self.straight) if self.straight else np.empty(0, np.int64)
        rings = [_without(ring, straight, stride) for ring in (united.exterior, *united.interiors)]
        return shapely.Polygon(rings[0], rings[1:])


def _without(ring: shapely.LinearRing, keys: NDArray[np.int64], stride: int) -> shapely.LinearRing:
    points = shapely.get_coordinates(ring)[:-1]
    keep = ~np.isin(_keys(points, stride), keys)
    return ring if keep.all() else shapely.LinearRing(points[keep])


def _keys(points: NDArray[np.float64], stride: int) -> NDArray[np.int64]:
    """Return a number for each point (column, row) of the lattice of pixel corners."""
    return points[:, 1].astype(np.int64) * stride + points[:, 0].astype(np.int64)


class _Block:
    """The regions of one block, and where they go on beyond it."""

    def __init__(
        self,
        window: Window,
        around: NDArray[np.integer],
        nodata: int,
        grid: GeoBox,
        confidence: tuple[NDArray[np.integer], NDArray[np.bool_]] | None,
    ) -> None:
        self.window = window
        values = around[1:-1, 1:-1]
        labels, count = label_regions(values, values != nodata)
        self.values = np.zeros(count + 1, np.int32)
        self.values[labels] = values
        self.areas = region_areas(labels, count, crop(grid, window))
        self.percent: NDArray[np.float64] = np.zeros(count)
        self.known: NDArray[np.int64] = np.zeros(count, np.int64)
        if confidence is not None:
            percent, valid = confidence
            inside = labels[valid]
            self.percent = np.asarray(np.bincount(inside, percent[valid], count + 1)[1:], np.float64)
            self.known = np.bincount(inside, minlength=count + 1)[1:]
        vertices, upright, level = _lattice_points(around)
        # A frame cuts the borders that cross it, in the blocks on both sides alike: there alone are vertices too many.
        cuts = np.zeros_like(vertices)
        cuts[[0, -1]] |= upright[[0, -1]]
        cuts[:, [0, -1]] |= level[:, [0, -1]]
        corners = np.ix_([0, -1], [0, -1])
        cuts[corners] |= upright[corners] | level[corners]
        rows, cols = np.nonzero(cuts)
        points = np.stack((cols + window.col, rows + window.row), axis=1).astype(np.float64)
        self.straight = _keys(points, grid.shape[1] + 1)
        vertices[1:-1, 1:-1] = False
        self.shapes = region_polygons(labels, count, Affine.translation(window.col, window.row), also=vertices)
        on = (around[1:-1, 1:-1] != nodata) & (labels > 0)
        self.north = np.where(on[0] & (around[0, 1:-1] == values[0]), labels[0], 0)
        self.south = np.where(on[-1] & (around[-1, 1:-1] == values[-1]), labels[-1], 0)
        self.west = np.where(on[:, 0] & (around[1:-1, 0] == values[:, 0]), labels[:, 0], 0)
        self.east = np.where(on[:, -1] & (around[1:-1, -1] == values[:, -1]), labels[:, -1], 0)

    @property
    def going_on(self) -> NDArray[np.int32]:
        """The regions that go on beyond the block."""
        labels = np.unique(np.concatenate([self.north, self.south, self.west, self.east]))
        return labels[labels > 0]

    def piece(self, label: int, stride: int) -> _Piece:
        """Return one region's part in this block."""
        shape = self.shapes[label - 1]
        keys = _keys(shapely.get_coordinates(shape), stride)
        straight = keys[np.isin(keys, self.straight)]
        percent, known = float(self.percent[label - 1]), int(self.known[label - 1])
        return _Piece(int(self.values[label]), float(self.areas[label - 1]), percent, known, [shape], [straight])

    def polygons(self, labels: NDArray[np.int64]) -> PolygonBatch:
        """Return regions that don't go on beyond the block, in whole pixels."""
        means = _means(self.percent[labels - 1], self.known[labels - 1])
        return PolygonBatch(self.shapes[labels - 1], self.values[labels], self.areas[labels - 1], means)


def _lattice_points(around: NDArray[np.integer]) -> tuple[NDArray[np.bool_], NDArray[np.bool_], NDArray[np.bool_]]:
    """Tell of a block's lattice points [H + 1, W + 1] whether the map has a vertex, or a straight border, there.

    Returns
    -------
    vertices, upright, level
        Where borders turn or meet; where one runs straight from north to south; where one does from west to east.
    """
    down, across = around[:-1] != around[1:], around[:, :-1] != around[:, 1:]
    west, east, north, south = down[:, :-1], down[:, 1:], across[:-1], across[1:]
    upright, level = north & south & ~west & ~east, west & east & ~north & ~south
    return (north | south | west | east) & ~upright & ~level, upright, level


class _Seams:
    """What is still open while blocks come row by row."""

    def __init__(self, width: int) -> None:
        self._stride = width + 1
        self._pieces: dict[int, _Piece] = {}
        self._parents: dict[int, int] = {}
        self._next = 1
        self._above = np.zeros(width, np.int64)  # numbers of the pieces that come down from the row of blocks above
        self._below = np.zeros(width, np.int64)
        self._left = np.zeros(0, np.int64)

    def begin_row(self, height: int) -> None:
        """Begin a row of blocks."""
        self._left = np.zeros(height, np.int64)

    def add(self, block: _Block) -> PolygonBatch:
        """Take a block; return its polygons that are finished, in whole pixels."""
        open_labels = block.going_on
        numbers = np.zeros(len(block.values), np.int64)
        for label in open_labels.tolist():
            numbers[label] = self._next
            self._parents[self._next] = self._next
            self._pieces[self._next] = block.piece(label, self._stride)
            self._next += 1
        columns = slice(block.window.col, block.window.col_stop)
        self._join(self._above[columns], numbers[block.north])
        self._join(self._left, numbers[block.west])
        self._below[columns] = numbers[block.south]
        self._left = numbers[block.east]
        return block.polygons(np.setdiff1d(np.arange(1, len(block.values)), open_labels))

    def end_row(self) -> list[_Piece]:
        """End a row of blocks; return the polygons that are finished."""
        going = {self._root(number) for number in np.unique(self._below).tolist() if number}
        done = [self._pieces.pop(number) for number in list(self._pieces) if number not in going]
        kept = {number: self._root(number) for number in np.unique(self._below).tolist() if number}
        self._parents = {**kept, **{root: root for root in going}}
        self._above, self._below = self._below, np.zeros_like(self._below)
        return done

    def _join(self, ones: NDArray[np.int64], others: NDArray[np.int64]) -> None:
        """Join the pieces on both sides of a frame; 0 goes on to nothing."""
        both = others > 0
        pairs = np.unique(np.stack((ones[both], others[both]), axis=1), axis=0)
        for one, other in pairs.tolist():
            first, second = self._root(one), self._root(other)
            if first == second:
                continue
            if len(self._pieces[first].parts) < len(self._pieces[second].parts):
                first, second = second, first
            self._pieces[first].absorb(self._pieces.pop(second))
            self._parents[second] = first

    def _root(self, number: int) -> int:
        root = number
        while self._parents[root] != root:
            root = self._parents[root]
        while self._parents[number] != root:
            self._parents[number], number = root, self._parents[number]
        return root


def _means(percent: NDArray[np.float64], known: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return means from sums and numbers; NaN where there is nothing."""
    return np.asarray(np.divide(percent, known, out=np.full(len(percent), np.nan), where=known > 0))


def _put_together(pieces: list[_Piece], stride: int) -> PolygonBatch:
    """Return finished pieces as polygons in whole pixels, exterior rings counter-clockwise."""
    shapes = np.array([piece.whole(stride) for piece in pieces] + [None], dtype=object)[:-1]
    percent = np.array([piece.percent for piece in pieces], np.float64)
    return PolygonBatch(
        np.asarray(shapely.orient_polygons(shapes), dtype=object),
        np.array([piece.value for piece in pieces], np.int32),
        np.array([piece.area for piece in pieces], np.float64),
        _means(percent, np.array([piece.known for piece in pieces], np.int64)),
    )


def _placed(batch: PolygonBatch, grid: GeoBox, densify: int | None) -> PolygonBatch:
    """Bring polygons from pixels to the map's CRS, in place: a block may have millions of them."""
    if len(batch.shapes) == 0:
        return batch
    a, b, c, d, e, f = grid.affine[:6]
    shapes = batch.shapes if densify is None else densified(batch.shapes, densify)
    _, points, (rings, _) = shapely.to_ragged_array(shapes)
    if grid.affine.determinant < 0:  # the map mirrors pixels: rings turn around to stay counter-clockwise
        points = points[np.repeat(rings[:-1] + rings[1:] - 1, np.diff(rings)) - np.arange(len(points))]
    x, y = points.T
    shapely.set_coordinates(shapes, np.stack((a * x + b * y + c, d * x + e * y + f), axis=1))
    return replace(batch, shapes=shapes)
