"""Pictures of an evaluation: confusion matrix, figures of each class, reliability diagram."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from gopt_geo.outputs.drawing import drawing, new_figure, printable

__all__ = ["draw_classes", "draw_confusion", "draw_reliability"]

_WRITTEN = 16  # classes up to which a cell's share is written into it
_NAME = 24  # characters of a class name
_BARS = (("iou", "IoU", "#4c78a8"), ("f1", "F1", "#f2b134"), ("boundary", "boundary F1", "#d1495b"))


def _names(found: Mapping[str, Any]) -> list[str]:
    names = [printable(entry["name"]) for entry in found["classes"]]
    return [name if len(name) <= _NAME else f"{name[: _NAME - 1]}…" for name in names]


def draw_confusion(output: Path, found: Mapping[str, Any]) -> None:
    """Draw the confusion matrix as a heat map, as PNG: shares of each reference class.

    Parameters
    ----------
    output
        The PNG to write.
    found
        Of ``to_dict()`` of an assessment: ``classes``, ``confusion_matrix``, ``unpredicted_pixels``.

    Raises
    ------
    OutputError
        If matplotlib isn't installed.
    DrawingError
        If it can't draw.
    """
    names = _names(found)
    cells = np.column_stack([found["confusion_matrix"], found["unpredicted_pixels"]]).astype(np.float64)
    columns = [*names, "no class"]
    if not cells[:, -1].any():
        cells, columns = cells[:, :-1], names
    totals = cells.sum(axis=1, keepdims=True)
    shares = np.divide(cells, totals, out=np.full_like(cells, np.nan), where=totals > 0)
    edge = min(max(4.0, 0.3 * len(names) + 2.5), 16.0)
    with drawing(output, "--figures"):
        figure = new_figure(edge + 1, edge)
        figure.set_layout_engine("constrained")
        axis = figure.subplots()
        image = axis.imshow(shares, cmap="Blues", vmin=0, vmax=1)
        image.cmap.set_bad("#eeeeee")
        size = "small" if len(names) <= _WRITTEN else "x-small"
        axis.set_xticks(range(len(columns)), columns, rotation=90, fontsize=size)
        axis.set_yticks(range(len(names)), names, fontsize=size)
        axis.set_xlabel("predicted")
        axis.set_ylabel("reference")
        if len(names) <= _WRITTEN:
            for (row, col), share in np.ndenumerate(shares):
                if share >= 0.005:
                    shade = "white" if share > 0.5 else "black"
                    axis.text(col, row, f"{100 * share:.0f}", ha="center", va="center", color=shade, fontsize="small")
        axis.set_title("share of each reference class, %", fontsize="medium")
        figure.colorbar(image, shrink=0.8, format=lambda value, _: f"{100 * value:.0f} %")
        figure.savefig(output, format="png")


def draw_classes(output: Path, found: Mapping[str, Any]) -> None:
    """Draw IoU, F1 and boundary F1 of each class as bars, as PNG.

    Parameters
    ----------
    output, found
        As of `draw_confusion`; of ``found`` also ``scores`` and ``boundary``.

    Raises
    ------
    OutputError, DrawingError
        As `draw_confusion`.
    """
    names = _names(found)
    boundary = found.get("boundary")
    rows = {"iou": found["scores"]["iou"], "f1": found["scores"]["f1"]}
    if boundary is not None:
        rows["boundary"] = boundary["f1"]
    bars = [(rows[key], label, colour) for key, label, colour in _BARS if key in rows]
    with drawing(output, "--figures"):
        figure = new_figure(7.0, min(max(2.5, 0.12 * len(names) * (len(bars) + 1) + 1.2), 30.0))
        figure.set_layout_engine("constrained")
        axis = figure.subplots()
        places, thick = np.arange(len(names)), 0.8 / len(bars)
        for number, (values, label, colour) in enumerate(bars):
            lengths = [0.0 if value is None else value for value in values]
            axis.barh(places + (number - (len(bars) - 1) / 2) * thick, lengths, thick, label=label, color=colour)
        for place, value in enumerate(rows["iou"]):
            if value is None:
                axis.text(0.01, place, "in neither", va="center", fontsize="x-small", color="#777777")
        axis.set_yticks(places, names, fontsize="small")
        axis.set_ylim(len(names) - 0.4, -0.6)
        axis.set_xlim(0, 1)
        axis.grid(axis="x", color="#dddddd")
        axis.set_axisbelow(True)
        mean = found["scores"]["mean_iou"]
        if mean is not None:
            axis.axvline(mean, color=_BARS[0][2], linestyle="--", linewidth=1, label=f"mIoU {mean:.3f}")
        figure.legend(loc="outside lower center", ncols=4, frameon=False, fontsize="small")
        figure.savefig(output, format="png")


def draw_reliability(output: Path, found: Mapping[str, Any]) -> None:
    """Draw the reliability diagram as PNG: share of right pixels by confidence, and how many pixels there are.

    Parameters
    ----------
    output, found
        As of `draw_confusion`; of ``found`` also ``calibration``.

    Raises
    ------
    OutputError, DrawingError
        As `draw_confusion`.
    """
    calibration = found["calibration"]
    bins = calibration["bins"]
    total = max(calibration["pixels"], 1)
    left, wide = [one["from"] for one in bins], [one["to"] - one["from"] for one in bins]
    with drawing(output, "--figures"):
        figure = new_figure(5.0, 6.0)
        figure.set_layout_engine("constrained")
        upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=[4, 1])
        right = [one["accuracy"] or 0.0 for one in bins]
        upper.bar(left, right, wide, align="edge", color="#4c78a8", edgecolor="white", label="right pixels")
        known = [one for one in bins if one["pixels"]]
        upper.plot(
            [one["confidence"] for one in known],
            [one["accuracy"] for one in known],
            "o",
            color="#d1495b",
            markersize=4,
            label="at the mean confidence",
        )
        upper.plot([0, 1], [0, 1], "--", color="#777777", linewidth=1, label="perfectly calibrated")
        upper.set_xlim(0, 1)
        upper.set_ylim(0, 1)
        upper.set_ylabel("share of right pixels")
        upper.legend(loc="upper left", frameon=False, fontsize="small")
        ece = calibration["ece"]
        upper.set_title("" if ece is None else f"ECE {100 * ece:.2f} %, {len(bins)} bins", fontsize="medium")
        lower.bar(left, [one["pixels"] / total for one in bins], wide, align="edge", color="#b8b8b8", edgecolor="white")
        lower.set_ylabel("share of pixels")
        lower.set_xlabel("confidence")
        figure.savefig(output, format="png")
