"""A picture of the groups that a model makes of an image's tokens, one panel a layer, for people to look at."""

from __future__ import annotations

import colorsys
import math
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import distance_transform_cdt

from gopt_geo.outputs.drawing import drawing, new_figure, printable
from gopt_geo.outputs.preview import stretched

__all__ = ["GroupPanel", "draw_groups", "group_colors"]

# Nine colours of Paul Tol's "muted" scheme and an orange: told apart with any common colour blindness, and from grey.
_SAFE = ("#332288", "#ddcc77", "#cc6677", "#117733", "#88ccee", "#882255", "#e69f00", "#44aa99", "#aa4499", "#999933")
_GREY = "0.88"
_HATCH: dict[str, Any] = {"facecolor": _GREY, "edgecolor": "0.65", "hatch": "////", "linewidth": 0}
_NOTE = "group (a number means something else in each layer; groups are not classes)"
_CHARACTERS = 10  # of a text an inch, at least
_ACROSS = 3.9  # inches of a panel's place
_GAP = 0.12
_TITLE = 0.32
_MOST = 24.0  # inches of all panels along a column; beyond, they shrink
_ROOM = 0.04  # of a panel's longer side: what a number needs around it


@dataclass(frozen=True)
class GroupPanel:
    """The groups of one layer.

    Attributes
    ----------
    title
        Shown above.
    numbers
        Group of each token, from 1, integer [rows, cols]; 0 where the token isn't valid.
    """

    title: str
    numbers: NDArray[np.integer[Any]]


def group_colors(count: int) -> list[str]:
    """Colours ``#rrggbb`` of groups 1 to ``count``: up to ten that colour blindness spares, else hues that step."""
    if count <= len(_SAFE):
        return list(_SAFE[:count])
    # Three lightnesses, the hues of each evenly spread; numbers that follow each other get hues far apart.
    shades = ((0.62, 0.75), (0.36, 0.85), (0.8, 0.6))
    each = -(-count // len(shades))
    stride = next(n for n in range(max(round(0.38 * each), 1), each + 2) if math.gcd(n, each) == 1)
    colors = []
    for number in range(count):
        place, shade = divmod(number, len(shades))
        hue = ((place * stride + shade * each // 3) % each + shade / 3) / each
        colors.append(colorsys.hls_to_rgb(hue, *shades[shade]))
    return ["#" + "".join(f"{round(255 * channel):02x}" for channel in color) for color in colors]


def draw_groups(
    output: Path,
    optical: NDArray[np.float32] | None,
    sar: NDArray[np.float32] | None,
    panels: Sequence[GroupPanel],
    groups: int,
    heading: str = "",
) -> None:
    """Draw optical, SAR and the groups of each layer on one scale, with the groups' numbers, as PNG.

    Parameters
    ----------
    output
        The PNG to write.
    optical
        Red, green and blue [3, h, w] (or one band [1, h, w]); NaN where there is no data. None leaves the panel out.
    sar
        One band [h, w], likewise.
    panels
        One or more, of the same ground as the images and each other.
    groups
        K.
    heading
        A line above all.

    Raises
    ------
    OutputError
        If matplotlib isn't installed.
    DrawingError
        If it can't draw.
    """
    images: list[tuple[str, NDArray[Any]]] = []
    if optical is not None and np.isfinite(optical).any():
        bands = optical[:3] if len(optical) >= 3 else np.repeat(optical[:1], 3, axis=0)
        images.append(("optical", _see_through(np.moveaxis(bands, 0, -1))))
    if sar is not None and np.isfinite(sar).any():
        images.append(("SAR", _see_through(np.repeat(sar[..., None], 3, axis=-1))))
    colors = group_colors(groups)
    images += [(panel.title, _coloured(panel.numbers, colors)) for panel in panels]
    numbers = [None] * (len(images) - len(panels)) + [panel.numbers for panel in panels]
    with drawing(output, "--groups"):
        _draw(output, images, numbers, colors, printable(heading))


def _draw(
    output: Path,
    images: Sequence[tuple[str, NDArray[Any]]],
    numbers: Sequence[NDArray[np.integer[Any]] | None],
    colors: Sequence[str],
    heading: str,
) -> None:
    """Lay the panels out in rows, the legend and the note below."""
    from matplotlib.patches import Rectangle

    tokens = next(grid for grid in numbers if grid is not None).shape
    cols, across, tall = _layout(len(images), tokens[0] / tokens[1])
    rows = -(-len(images) // cols)
    width = cols * (_ACROSS + _GAP) + _GAP
    figure = new_figure(width, 4)
    foot = _legend(figure, colors, width)
    lines = textwrap.wrap(heading, int(width * _CHARACTERS))
    head = _GAP + 0.26 * len(lines)
    total = head + rows * (tall + _TITLE) + _GAP + foot
    figure.set_size_inches(width, total)
    figure.text(_GAP / width, 1 - _GAP / total, "\n".join(lines), fontsize=12, va="top")
    for place, ((title, image), grid) in enumerate(zip(images, numbers, strict=True)):
        row, col = divmod(place, cols)
        left, bottom = _GAP + col * (_ACROSS + _GAP), total - head - (row + 1) * (tall + _TITLE)
        axis = figure.add_axes((left / width, bottom / total, across / width, tall / total))
        axis.add_patch(Rectangle((0, 0), 1, 1, transform=axis.transAxes, zorder=-1, **_HATCH))
        axis.imshow(image, interpolation="nearest", extent=(0, tokens[1], tokens[0], 0), aspect="auto")
        axis.set_title(printable(title), fontsize=11, pad=4, loc="left")
        axis.set_axis_off()
        for number, at_row, at_col, roomy in _places(grid, len(colors) > len(_SAFE)) if grid is not None else []:
            axis.text(at_col, at_row, str(number), **_number_style(colors[number - 1], roomy))
    figure.savefig(output, format="png", facecolor="white")


def _legend(figure: Any, colors: Sequence[str], width: float) -> float:
    """Add the key of numbers and the note at the foot; their height in inches."""
    from matplotlib.patches import Patch

    handles = [Patch(facecolor=color, label=str(number)) for number, color in enumerate(colors, 1)]
    handles.append(Patch(label="no data", **_HATCH))
    for columns in range(len(handles), 0, -1):  # as many as fit
        key = figure.legend(
            handles=handles,
            loc="lower left",
            ncols=columns,
            fontsize=11,
            frameon=False,
            handlelength=1.4,
            columnspacing=1.2,
            title=textwrap.fill(_NOTE, int(width * _CHARACTERS)),
            title_fontsize=11,
            alignment="left",
        )
        extent = key.get_window_extent()
        if extent.width <= width * figure.dpi or columns == 1:
            return float(extent.height / figure.dpi) + 0.1
        key.remove()
    raise AssertionError  # the last pass returns


def _layout(count: int, ratio: float) -> tuple[int, float, float]:
    """Columns, and width and height of a panel in inches, for ``count`` panels of height / width ``ratio``."""

    # As near to 3 : 2 as rows of whole panels come; of two that are as near, the one with fewer empty places.
    def fit(cols: int) -> tuple[float, int]:
        rows = -(-count // cols)
        return round(abs(math.log(cols / (rows * ratio) / 1.5)), 1), rows * cols - count

    cols = min(range(min(2, count), count + 1), key=fit)
    tall = min(_ACROSS * ratio, _MOST / -(-count // cols))
    return cols, tall / ratio, tall


def _places(numbers: NDArray[np.integer[Any]], every: bool) -> list[tuple[int, float, float, bool]]:
    """Where to write each group's number: in the middle of the largest square of its tokens, and whether that has room.

    Squares that have none are left out, but where ``every`` group shall carry its number.
    """
    places = []
    for number in range(1, int(numbers.max(initial=0)) + 1):
        inside = np.pad(numbers == number, 1)
        depth = distance_transform_cdt(inside, "chessboard")
        row, col = np.unravel_index(int(depth.argmax()), depth.shape)
        roomy = bool(2 * depth[row, col] - 1 >= _ROOM * max(numbers.shape))
        if roomy or (every and depth[row, col] > 0):
            places.append((number, float(row) - 0.5, float(col) - 0.5, roomy))
    return places


def _number_style(color: str, roomy: bool) -> dict[str, Any]:
    """Dark on light groups, light on dark ones; small, with a border, where the neighbours are near."""
    red, green, blue = bytes.fromhex(color.removeprefix("#"))
    light = 0.299 * red + 0.587 * green + 0.114 * blue > 140
    style: dict[str, Any] = {
        "color": "black" if light else "white",
        "fontsize": 9,
        "ha": "center",
        "va": "center",
        "weight": "bold",
    }
    if not roomy:
        style |= {"fontsize": 6, "bbox": {"facecolor": color, "edgecolor": "none", "pad": 0.6}}
    return style


def _see_through(image: NDArray[np.float32]) -> NDArray[np.float32]:
    """Stretch an image [h, w, 3] for the picture and make it transparent where it has no data, [h, w, 4]."""
    valid = np.isfinite(image).all(axis=-1, keepdims=True)
    return np.concatenate([stretched(image), valid.astype(np.float32)], axis=-1)


def _coloured(numbers: NDArray[np.integer[Any]], colors: Sequence[str]) -> NDArray[np.uint8]:
    """Colour group numbers [rows, cols] as [rows, cols, 4]; 0 is transparent."""
    table = [(0, 0, 0, 0), *((*bytes.fromhex(color.removeprefix("#")), 255) for color in colors)]
    return np.asarray(np.array(table, dtype=np.uint8)[numbers])
