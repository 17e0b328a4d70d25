"""A picture of the shifts between two rasters: arrows over the optical one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gopt_geo.outputs.drawing import drawing, new_figure, printable
from gopt_geo.outputs.preview import stretched
from gopt_geo.scene.shift.estimate import ShiftEstimate

__all__ = ["draw_shift"]

_ACROSS = 7.5  # inches of the image's longer side
_MARGIN = 0.15
_HEAD, _FOOT = 0.62, 0.62
_LENGTH = 0.06  # of the image's longer side, that a long arrow takes
_SURE, _JOINT, _UNSURE = "#ffd400", "#ff2a6d", "white"
_KEYS = (0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100)


def draw_shift(
    output: Path,
    image: NDArray[np.float32],
    extent: tuple[float, float, float, float],
    estimate: ShiftEstimate,
    heading: str,
) -> None:
    """Draw where SAR content lies from where it belongs, as PNG.

    Arrows start at the points and are lengthened, all alike; an arrow at the foot tells by how much. Points that don't
    fit well enough to be looked at alone are dots. The large arrow in the middle is the shift of all points together.

    Parameters
    ----------
    output
        The PNG to write.
    image
        Optical bands [1 or 3, h, w]; NaN where there is no data.
    extent
        Of the image in optical pixels: left, right, bottom, top.
    estimate
        In optical pixels.
    heading
        A line above.

    Raises
    ------
    OutputError
        If matplotlib isn't installed.
    DrawingError
        If it can't draw.
    """
    left, right, bottom, top = extent
    across, down = abs(right - left), abs(bottom - top)
    scale = _ACROSS / max(across, down)
    wide, tall = max(across * scale, 3.0), max(down * scale, 0.5)
    with drawing(output, "--picture"):
        figure = new_figure(wide + 2 * _MARGIN, tall + _HEAD + _FOOT)
        total = tall + _HEAD + _FOOT
        axis = figure.add_axes(
            (_MARGIN / (wide + 2 * _MARGIN), _FOOT / total, wide / (wide + 2 * _MARGIN), tall / total)
        )
        bands = np.moveaxis(np.repeat(image, 3, axis=0) if len(image) == 1 else image, 0, -1)
        axis.imshow(stretched(bands), extent=extent, interpolation="nearest")
        axis.set_axis_off()
        _arrows(axis, estimate, ((left + right) / 2, (bottom + top) / 2), max(across, down))
        figure.text(0.5, 1 - 0.3 / total, printable(heading), fontsize=10, ha="center", va="center", wrap=True)
        figure.savefig(output, format="png", facecolor="white")


def _arrows(axis: Any, estimate: ShiftEstimate, middle: tuple[float, float], longer: float) -> None:
    """Draw points, arrows and key."""
    trusted = estimate.trusted
    lengths = [float(np.hypot(p.dx, p.dy)) for p in trusted] + ([estimate.length] if estimate.reliable else [])
    # A few points that are far off mustn't make all others too short to see.
    typical = max(float(np.percentile(lengths, 75)) if lengths else 1.0, _KEYS[0])
    per_pixel = _LENGTH * longer / typical  # pixels of the picture that one of shift takes
    unsure = [p for p in estimate.points if p not in trusted]
    dots = axis.scatter(
        [p.x for p in unsure], [p.y for p in unsure], s=14, c=_UNSURE, edgecolors="black", linewidths=0.6, zorder=3
    )
    handles, labels = ([dots], ["points that can't be told alone"]) if unsure else ([], [])
    style = {"angles": "xy", "scale_units": "xy", "scale": 1 / per_pixel, "edgecolor": "black", "linewidth": 0.6}
    style |= {"headwidth": 3, "headlength": 3, "headaxislength": 2.7, "minlength": 0, "clip_on": False}
    drawn = None
    if trusted:
        x, y, dx, dy = (np.array([getattr(p, name) for p in trusted]) for name in ("x", "y", "dx", "dy"))
        drawn = axis.quiver(x, y, dx, dy, color=_SURE, width=0.005, zorder=4, **style)
        handles.append(_patch(_SURE))
        labels.append("shift at a point")
    if estimate.reliable:
        drawn = axis.quiver(*middle, estimate.dx, estimate.dy, color=_JOINT, width=0.009, zorder=5, **style)
        handles.append(_patch(_JOINT))
        labels.append("all points together")
    if drawn is not None:
        length = max(key for key in _KEYS if key <= typical)
        place = {"labelpos": "E", "coordinates": "inches", "color": "black"}
        axis.quiverkey(drawn, _MARGIN + 0.5, 0.3, length, f"{length:g} px", **place)
    if handles:
        axis.figure.legend(handles, labels, loc="lower right", ncols=len(handles), fontsize=9, frameon=False)


def _patch(color: str) -> Any:
    from matplotlib.patches import Patch

    return Patch(facecolor=color, edgecolor="black", linewidth=0.6)
