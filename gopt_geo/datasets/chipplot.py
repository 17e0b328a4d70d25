"""Pictures of samples: each modality, the labels, and a prediction, side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from gopt_geo.datasets.classes import IGNORED, ClassTable

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["draw_sample"]

_PANEL = 3.2  # inches
_INVALID = (1.0, 0.0, 1.0)  # magenta: no image has large areas of it
_LEGEND_ROWS = 12


def draw_sample(
    sample: Mapping[str, Any],
    modalities: Sequence[str],
    classes: ClassTable | None,
    *,
    show_titles: bool,
    suptitle: str | None,
) -> Figure:
    """Draw a sample's modalities, labels and prediction; pixels without data are magenta, without labels white.

    The contrast is stretched from the 2nd to the 98th percentile of each modality's valid pixels, for the eye alone.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    maps = [key for key in ("mask", "prediction") if key in sample]
    panels = [*modalities, *maps]
    figure = Figure(figsize=(_PANEL * len(panels) + 1.8, _PANEL + 0.6), dpi=100, layout="constrained")
    FigureCanvasAgg(figure)
    axes = np.ravel(figure.subplots(1, len(panels), squeeze=False))
    colours = _Colours(classes, [np.asarray(sample[key]) for key in maps])
    for axis, key in zip(axes, panels, strict=True):
        axis.axis("off")
        picture = colours.paint(np.asarray(sample[key])) if key in maps else _stretch(sample, key)
        axis.imshow(picture, interpolation="nearest")
        if show_titles:
            axis.set_title(key)
    if maps:
        figure.legend(handles=colours.handles(), loc="outside right center", frameon=False, fontsize="small")
    if suptitle is not None:
        figure.suptitle(suptitle)
    return figure


def _stretch(sample: Mapping[str, Any], modality: str) -> NDArray[np.float32]:
    """Return a modality as RGB [H, W, 3] from 0 to 1: its first three channels, or its first in grey."""
    values = np.asarray(sample[modality], np.float32)
    values = values[:3] if len(values) >= 3 else np.repeat(values[:1], 3, axis=0)
    validity = sample.get(f"validity_{modality}")
    valid = np.ones(values.shape[1:], np.bool_) if validity is None else np.asarray(validity, np.bool_)
    if valid.any():
        low, high = np.percentile(values[:, valid], (2, 98))
        values = np.clip((values - low) / max(float(high - low), 1e-6), 0, 1)
    picture = np.ascontiguousarray(np.moveaxis(values, 0, -1))
    picture[~valid] = _INVALID
    return picture


class _Colours:
    """Colours of the classes that are shown, and their legend."""

    def __init__(self, classes: ClassTable | None, maps: Sequence[NDArray[Any]]) -> None:
        counts = np.bincount(np.concatenate([np.ravel(one) for one in maps] or [np.zeros(0, np.int64)]), minlength=256)
        self._unlabelled = bool(counts[IGNORED])
        counts[IGNORED] = 0
        self._shown = [int(i) for i in np.argsort(-counts, kind="stable")[: np.count_nonzero(counts)]]
        if classes is None:
            indexes = tuple(range(max(self._shown, default=0) + 1))
            classes = ClassTable(indexes, tuple(map(str, indexes)))
        self._names = classes.names
        self._colours = classes.colours

    def paint(self, indexes: NDArray[Any]) -> NDArray[np.uint8]:
        """Return class indexes [H, W] as RGB [H, W, 3]."""
        table = np.full((256, 3), 255, np.uint8)
        for i, colour in enumerate(self._colours):
            table[i] = tuple(bytes.fromhex(colour[1:]))
        return table[indexes.astype(np.uint8)]

    def handles(self) -> list[Any]:
        """Return the legend's entries: the dozen most frequent of the classes that are there."""
        from matplotlib.patches import Patch

        frequent = sorted(self._shown[:_LEGEND_ROWS])
        patches = [Patch(facecolor=self._colours[i], label=self._names[i]) for i in frequent]
        if len(self._shown) > _LEGEND_ROWS:
            patches.append(Patch(facecolor="none", label=f"and {len(self._shown) - _LEGEND_ROWS} more"))
        if self._unlabelled:
            patches.append(Patch(facecolor="white", edgecolor="grey", label="not labelled"))
        return patches
