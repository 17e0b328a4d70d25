"""A map of a split."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, cast

import numpy as np
from numpy.typing import NDArray

from gopt_geo.datasets.regions import BlockLayout, BlockRegion
from gopt_geo.outputs.drawing import drawing, new_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["draw_split"]

_COLOURS = {"train": "#4c78a8", "val": "#f2b134", "test": "#d1495b"}
_BUFFER, _EMPTY = "#b8b8b8", "#ffffff"


def draw_split(
    regions: Sequence[BlockRegion], layout: BlockLayout, blocks: NDArray[np.int8], labels: Sequence[int]
) -> Figure:
    """Draw the regions, what they lose to the buffer (grey) and blocks without labels (white), in the grid's CRS.

    Parameters
    ----------
    regions
        The parts of the split.
    layout, blocks
        Its blocks, and the part of each; -1 where there are no labels.
    labels
        Labelled pixels of training, validation and test.
    """
    with drawing(Path("split"), "plot()"):
        from matplotlib.colors import ListedColormap
        from matplotlib.patches import Patch

        part = np.where(layout.spread(blocks) >= 0, 1, 0)
        colours, handles = [_EMPTY, _BUFFER], []
        for region in regions:
            part[region.cells] = len(colours)
            colours.append(_COLOURS[region.name])
            count = labels[("train", "val", "test").index(region.name)]
            handles.append(Patch(facecolor=colours[-1], label=f"{region.name}: {count:,} labels"))
        handles += [
            Patch(facecolor=_BUFFER, label="buffer, not used"),
            Patch(facecolor=_EMPTY, edgecolor="black", label="no labels"),
        ]
        figure = new_figure(8, 6)
        axis = figure.subplots()
        x, y = _world(regions[0], layout)
        axis.pcolormesh(x, y, part, cmap=ListedColormap(colours), vmin=-0.5, vmax=len(colours) - 0.5)
        axis.set_aspect("equal")
        axis.ticklabel_format(style="plain", useOffset=False)
        axis.tick_params(labelsize="small")
        axis.legend(handles=handles, loc="center left", bbox_to_anchor=(1.02, 0.5), frameon=False)
        figure.set_layout_engine("constrained")
        # Some fonts are chosen when the text is drawn, which must be under these settings
        figure.canvas.draw()
    return cast("Figure", figure)


def _world(region: BlockRegion, layout: BlockLayout) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    affine = region.grid.affine
    col, row = np.meshgrid(layout.cols.astype(float), layout.rows.astype(float))
    x, y = affine.a * col + affine.b * row + affine.c, affine.d * col + affine.e * row + affine.f
    return np.asarray(x, np.float64), np.asarray(y, np.float64)
