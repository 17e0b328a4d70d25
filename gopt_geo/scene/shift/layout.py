"""Where on a scene the shift is looked at: square windows in even rows and columns."""

from __future__ import annotations

import math

from gopt_geo.grid import Window

__all__ = ["LEAST_EDGE", "place_templates", "template_edge"]

LEAST_EDGE = 24
"""Pixels; a smaller template holds too few edges to be told from another."""

_MOST_EDGE = 128
_TILE = 256


def template_edge(shape: tuple[int, int]) -> int:
    """Return the edge of the templates on a scene: a quarter of its shorter side, 24 to 128 pixels."""
    return min(max(min(shape) // 4, LEAST_EDGE), _MOST_EDGE, *shape)


def place_templates(shape: tuple[int, int], points: int, edge: int) -> list[tuple[int, int, Window]]:
    """Spread templates evenly: at most `points`, never overlapping.

    Parameters
    ----------
    shape
        Height and width of the scene.
    points
        How many at most.
    edge
        Of a template.

    Returns
    -------
    list of (row, column, window)
        Place in the raster of points, and the template's pixels.

    Notes
    -----
    On large scenes templates are moved to the middle of a square of 256 pixels, as files are cut into as a rule, so
    that of a file on the scene's grid a tile has to be decoded for each.
    """
    height, width = shape
    most = max(height // edge, 1), max(width // edge, 1)
    cols = min(most[1], max(1, round(math.sqrt(points * width / height))))
    rows = min(most[0], max(1, points // cols))
    cols = min(most[1], max(1, points // rows))
    return [
        (row, col, Window(top, left, edge, edge))
        for row, top in enumerate(_starts(height, rows, edge))
        for col, left in enumerate(_starts(width, cols, edge))
    ]


def _starts(length: int, count: int, edge: int) -> list[int]:
    """Place `count` stretches of `edge` evenly in `length`."""
    step = length / count
    starts = [int(step * (k + 0.5) - edge / 2) for k in range(count)]
    if step >= 4 * _TILE:
        starts = [start // _TILE * _TILE + (_TILE - edge) // 2 for start in starts]
    return [min(max(start, 0), length - edge) for start in starts]
