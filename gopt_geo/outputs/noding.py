"""Polygons of a raster's regions, with vertices wherever three of them meet.

The borders between pixels of different regions run on the lattice of pixel corners. A lattice point becomes a
vertex where a border turns, or where more than two regions meet; borders between vertices are straight and
have one region on each side, so neighbours share their vertices exactly, which is what makes a valid coverage.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import shapely
from affine import Affine
from numpy.typing import NDArray
from scipy import ndimage, sparse
from scipy.sparse import csgraph

__all__ = ["densified", "label_regions", "region_polygons"]

_Int = NDArray[np.int64]
_EAST, _SOUTH, _WEST, _NORTH = range(4)


def label_regions(values: NDArray[np.integer], valid: NDArray[np.bool_]) -> tuple[NDArray[np.int32], int]:
    """Label the 4-connected regions of equal value.

    Parameters
    ----------
    values
        Classes [H, W].
    valid
        Which pixels belong to a region [H, W].

    Returns
    -------
    labels
        int32 [H, W]: 0 where invalid, else 1 to the number of regions.
    count
        The number of regions.
    """
    labels = np.zeros(values.shape, np.int32)
    count = 0
    for value in np.unique(values[valid]):
        mask = valid & (values == value)
        part, found = ndimage.label(mask)
        np.add(part, count, out=labels, where=mask, casting="unsafe")
        count += int(found)
    return labels, count


def region_polygons(
    labels: NDArray[np.int32],
    count: int,
    affine: Affine,
    also: NDArray[np.bool_] | None = None,
) -> NDArray[np.object_]:
    """Return one polygon per region, exterior rings counter-clockwise.

    Parameters
    ----------
    labels
        4-connected regions [H, W]: 1 to `count`, 0 for none.
    count
        The number of regions; each must occur.
    affine
        From (column, row) of pixel corners to coordinates.
    also
        Lattice points [H + 1, W + 1] that become vertices wherever a border passes them: where regions beyond the array
        meet it.

    Returns
    -------
    numpy.ndarray
        shapely polygons [count], region 1 first.
    """
    if count == 0:
        return np.empty(0, dtype=object)
    padded = np.pad(labels, 1)
    vertices = _vertices(padded, also)
    edges = _half_edges(padded, vertices)
    order, starts = _rings(_successors(edges, vertices.size))
    row, col = np.divmod(edges.start[order], vertices.shape[1])
    row, col = row - 1, col - 1  # the padding
    region = edges.region[order[starts[:-1]]].astype(np.int64)
    rows_up = affine.determinant < 0
    exterior = _signed_areas(col, row, starts) > 0  # clockwise on the screen, y down
    if rows_up:  # clockwise on the map, too: turn around
        flip = _reversal(starts)
        row, col = row[flip], col[flip]
    rings = np.lexsort((~exterior, region))  # by region, its exterior first
    closed, ring_offsets = _closed(starts, rings)
    a, b, c, d, e, f = affine[:6]
    x, y = col[closed], row[closed]
    coordinates = np.stack((a * x + b * y + c, d * x + e * y + f), axis=1)
    polygon_offsets = np.searchsorted(region[rings], np.arange(1, count + 2))
    polygons = shapely.from_ragged_array(shapely.GeometryType.POLYGON, coordinates, (ring_offsets, polygon_offsets))
    return np.asarray(polygons, dtype=object)


def densified(polygons: NDArray[np.object_], every: int) -> NDArray[np.object_]:
    """Give borders a vertex on every `every`-th lattice line that they cross, the same for both neighbours.

    For a reprojection, which bends straight lines.

    Parameters
    ----------
    polygons
        Object [n], in pixels: (column, row) of pixel corners, along which borders run.
    every
        Pixels between these lattice lines, the first through (0, 0).

    Returns
    -------
    numpy.ndarray
        Object [n].
    """
    if len(polygons) == 0:
        return polygons
    kind, coordinates, (ring_offsets, polygon_offsets) = shapely.to_ragged_array(polygons)
    points = coordinates.astype(np.int64)
    way = np.zeros_like(points)
    way[:-1] = points[1:] - points[:-1]
    way[ring_offsets[1:] - 1] = 0  # no border leaves the point that closes a ring
    low, high = np.minimum(points, points + way), np.maximum(points, points + way)
    number = 1 + np.maximum((high - 1) // every - low // every, 0).sum(axis=1)  # the vertex, and those that follow it
    ends = np.concatenate(([0], np.cumsum(number)))
    nth = (np.arange(ends[-1]) - np.repeat(ends[:-1], number))[:, None]
    points, sign = np.repeat(points, number, axis=0), np.repeat(np.sign(way), number, axis=0)
    crossings = sign * every * (sign * points // every + nth)
    points = np.where((nth > 0) & (sign != 0), crossings, points)
    found = shapely.from_ragged_array(kind, points.astype(np.float64), (ends[ring_offsets], polygon_offsets))
    return np.asarray(found, dtype=object)


def _vertices(padded: NDArray[np.int32], also: NDArray[np.bool_] | None) -> NDArray[np.bool_]:
    """Return which lattice points are vertices, [H + 3, W + 3]; points are counted from the padding's corner.

    `padded` has a frame of zeros [H + 2, W + 2]; its own outer border never is one.
    """
    height, width = padded.shape
    above, left = padded[:-1] != padded[1:], padded[:, :-1] != padded[:, 1:]
    horizontal_w, horizontal_e = above[:, :-1], above[:, 1:]  # borders that leave a point to the west, east
    vertical_n, vertical_s = left[:-1], left[1:]
    straight_h = horizontal_w & horizontal_e & ~vertical_n & ~vertical_s
    straight_v = vertical_n & vertical_s & ~horizontal_w & ~horizontal_e
    on_border = horizontal_w | horizontal_e | vertical_n | vertical_s
    vertices = np.zeros((height + 1, width + 1), np.bool_)
    inner = on_border & ~straight_h & ~straight_v
    if also is not None:
        inner |= also & on_border
    vertices[1:-1, 1:-1] = inner
    return vertices


@dataclass(frozen=True, slots=True)
class _HalfEdges:
    """Straight borders between vertices, once for the region on either side, which lies to the right."""

    start: _Int  # lattice point, row * points a row + column
    end: _Int
    direction: NDArray[np.int8]
    region: NDArray[np.int32]


def _half_edges(padded: NDArray[np.int32], vertices: NDArray[np.bool_]) -> _HalfEdges:
    """Cut the borders at the vertices."""
    stride = padded.shape[1] + 1
    parts: list[tuple[_Int, _Int, int, NDArray[np.int32]]] = []
    border = np.zeros((padded.shape[0] + 1, padded.shape[1]), np.bool_)  # [point row, column of the edge]
    border[1:-1] = padded[:-1] != padded[1:]
    row, first = np.nonzero(border & vertices[:, :-1])
    last = np.nonzero(border & vertices[:, 1:])[1] + 1
    west, east = row * stride + first, row * stride + last
    parts.append((west, east, _EAST, padded[row, first]))
    parts.append((east, west, _WEST, padded[row - 1, first]))
    border = np.zeros((padded.shape[1] + 1, padded.shape[0]), np.bool_)  # [point column, row of the edge]
    border[1:-1] = (padded[:, :-1] != padded[:, 1:]).T
    col, first = np.nonzero(border & vertices.T[:, :-1])
    last = np.nonzero(border & vertices.T[:, 1:])[1] + 1
    north, south = first * stride + col, last * stride + col
    parts.append((north, south, _SOUTH, padded[first, col - 1]))
    parts.append((south, north, _NORTH, padded[first, col]))
    region = np.concatenate([part[3] for part in parts])
    keep = region > 0
    return _HalfEdges(
        np.concatenate([part[0] for part in parts])[keep],
        np.concatenate([part[1] for part in parts])[keep],
        np.concatenate([np.full(len(part[0]), part[2], np.int8) for part in parts])[keep],
        region[keep],
    )


def _successors(edges: _HalfEdges, points: int) -> _Int:
    """Return the half-edge that follows each one around its region, on a lattice of so many points.

    Where two pixels of one region touch at a corner only, the way turns left, around the pixel between them:
    so no ring meets a point twice, and what it encloses becomes a hole that touches at that point.
    """
    used = np.zeros(points, np.bool_)
    used[edges.start] = True
    dense = np.cumsum(used) - 1  # vertices are few beside the lattice's points
    leaving = np.full((np.count_nonzero(used), 4), -1, np.int64)
    leaving[dense[edges.start], edges.direction] = np.arange(len(edges.start))
    end = dense[edges.end]
    following = np.full(len(end), -1, np.int64)
    for turn in (-1, 0, 1):  # left, straight on, right
        candidate = leaving[end, (edges.direction + turn) % 4]
        fits = (following < 0) & (candidate >= 0) & (edges.region[candidate] == edges.region)
        following[fits] = candidate[fits]
    return following


def _rings(following: _Int) -> tuple[_Int, _Int]:
    """Sort the half-edges along their rings.

    Returns
    -------
    order
        Half-edges ring by ring, in the order of the way.
    starts
        Where each ring starts in `order`, and the total at the end.
    """
    index = np.arange(len(following))
    ways = sparse.csr_array((np.ones(len(index), np.int8), following, np.append(index, len(index))))
    count, ring = csgraph.connected_components(ways, connection="weak")
    leaders = np.empty(count, np.int64)
    leaders[ring[::-1]] = index[::-1]  # the smallest half-edge of the ring, which comes last, leads it
    leader = leaders[ring]
    jump = np.where(leader == index, index, following)
    to_leader = (leader != index).astype(np.int64)
    under_way = np.flatnonzero(jump != leader)  # most rings are short
    while len(under_way):
        there = jump[under_way]
        to_leader[under_way] += to_leader[there]
        jump[under_way] = jump[there]
        under_way = under_way[jump[under_way] != leader[under_way]]
    length = np.bincount(leader, minlength=len(index))
    ring = np.cumsum(length > 0)[leader] - 1
    length = length[length > 0]
    starts = np.concatenate(([0], np.cumsum(length)))
    order = np.empty_like(index)
    order[starts[ring] + (length[ring] - to_leader) % length[ring]] = index
    return order, starts


def _signed_areas(col: _Int, row: _Int, starts: _Int) -> _Int:
    """Return twice the area of each ring, positive where it runs clockwise with rows downwards."""
    following = np.arange(1, len(col) + 1)
    following[starts[1:] - 1] = starts[:-1]
    return np.asarray(np.add.reduceat(col * row[following] - col[following] * row, starts[:-1]))


def _reversal(starts: _Int) -> _Int:
    """Return indices that turn each ring around."""
    length = np.diff(starts)
    return np.repeat(starts[:-1] + starts[1:] - 1, length) - np.arange(starts[-1])


def _closed(starts: _Int, rings: _Int) -> tuple[_Int, _Int]:
    """Return indices of the rings' points in the order `rings`, each ring closed, and their offsets."""
    length = np.diff(starts)[rings]
    offsets = np.concatenate(([0], np.cumsum(length + 1)))
    within = np.arange(offsets[-1]) - np.repeat(offsets[:-1], length + 1)
    length_each = np.repeat(length, length + 1)
    return np.repeat(starts[:-1][rings], length + 1) + within % length_each, offsets
