"""A picture of a scene, its map and its reference, side by side, for people to look at."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gopt_geo.outputs.drawing import drawing, new_figure, printable
from gopt_geo.outputs.legend import LegendEntry, palette

__all__ = ["preview"]

_BLANK = np.float32(0.88)  # light grey: no data
_EDGE = 1200  # pixels of a panel; more don't show
_PANEL = 4.0  # inches across
_HEAD = 0.4  # inches for the titles


def preview(
    output: Path,
    optical: NDArray[Any] | None,
    sar: NDArray[Any] | None,
    landcover: NDArray[np.uint8],
    reference: NDArray[np.uint8] | None,
    legend: Sequence[LegendEntry],
) -> None:
    """Draw optical, SAR, map and reference side by side with a legend, as PNG.

    Optical and SAR are stretched between their 2nd and 98th percentiles, for the picture only; SAR should come in
    dB. Pixels without data are light grey. Panels above 1200 pixels are thinned.

    Parameters
    ----------
    output
        The PNG to write.
    optical
        Red, green and blue [3, h, w]; NaN where there is no data. None leaves the panel out.
    sar
        One band [h, w]; NaN where there is no data. None leaves the panel out.
    landcover
        Class values [h, w]; 255 is nodata.
    reference
        Class values [h, w], 255 where unlabelled. None leaves the panel out.
    legend
        The classes.

    Raises
    ------
    OutputError
        If matplotlib isn't installed.
    DrawingError
        If it can't draw.
    """
    panels: list[tuple[str, NDArray[np.float32]]] = []
    if optical is not None and np.isfinite(optical).any():
        panels.append(("Optical", stretched(np.moveaxis(_thin(optical[:3]), 0, -1))))
    if sar is not None and np.isfinite(sar).any():
        panels.append(("SAR", np.repeat(stretched(_thin(sar)[..., None]), 3, axis=-1)))
    panels.append(("Land cover", _coloured(_thin(landcover), legend)))
    if reference is not None:
        panels.append(("Reference", _coloured(_thin(reference), legend)))
    with drawing(output, "the preview"):
        _draw(output, panels, legend)


def _draw(output: Path, panels: Sequence[tuple[str, NDArray[np.float32]]], legend: Sequence[LegendEntry]) -> None:
    """Lay the panels out in a row, the legend below."""
    from matplotlib.patches import Patch

    height, width = panels[0][1].shape[:2]
    across = _PANEL * len(panels) + 0.3
    tall = float(np.clip(_PANEL * height / width, 1.0, 12.0))
    figure = new_figure(across, tall)
    names = [printable(entry.name).lstrip("_") or "-" for entry in legend]  # matplotlib hides what begins with _
    handles = [
        Patch(facecolor=entry.color, edgecolor="0.3", linewidth=0.5, label=name)
        for entry, name in zip(legend, names, strict=True)
    ]
    handles.append(Patch(facecolor=str(_BLANK), edgecolor="0.3", linewidth=0.5, label="no data"))
    foot = 0.0
    for columns in range(len(handles), 0, -1):  # as many as fit
        key = figure.legend(handles=handles, loc="lower center", ncols=columns, fontsize=11, frameon=False)
        extent = key.get_window_extent()
        foot = extent.height / figure.dpi + 0.12
        if extent.width <= across * figure.dpi or columns == 1:
            break
        key.remove()
    total = tall + _HEAD + foot
    figure.set_size_inches(across, total)
    figure.subplots_adjust(0.01, foot / total, 0.99, 1 - _HEAD / total, wspace=0.03)
    axes = figure.subplots(1, len(panels), squeeze=False)[0]
    for axis, (title, image) in zip(axes, panels, strict=True):
        axis.imshow(image, interpolation="nearest")
        axis.set_title(title, fontsize=13)
        axis.set_axis_off()
    figure.savefig(output, format="png", facecolor="white")


def _thin(image: NDArray[Any]) -> NDArray[Any]:
    step = -(-max(image.shape[-2:]) // _EDGE)
    return image[..., ::step, ::step]


def stretched(image: NDArray[Any]) -> NDArray[np.float32]:
    """Scale each channel of [h, w, C] to 0..1 between its 2nd and 98th percentiles."""
    result = np.asarray(image, dtype=np.float32).copy()
    valid = np.isfinite(result).all(axis=-1)
    if valid.any():
        low, high = np.percentile(result[valid], (2, 98), axis=0)
        result = np.clip((result - low) / np.maximum(high - low, 1e-9), 0, 1).astype(np.float32)
    result[~valid] = _BLANK
    return result


def _coloured(classes: NDArray[np.uint8], legend: Sequence[LegendEntry]) -> NDArray[np.float32]:
    """Colour class values [h, w] as [h, w, 3]; values without a class count as nodata."""
    table = np.full((256, 3), _BLANK, np.float32)
    for value, color in palette(legend).items():
        if color[3]:
            table[value] = np.array(color[:3], np.float32) / 255
    return np.asarray(table[classes])
