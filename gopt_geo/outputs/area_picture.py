"""A picture of areas that were estimated from a sample: each class's estimate, its interval, and what the map says."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from gopt_geo.outputs.drawing import drawing, new_figure, printable

__all__ = ["draw_areas", "told_unit"]

_WIDTH, _ROW, _AROUND = 7.5, 0.42, 1.3  # inches
_ESTIMATE, _MAPPED = "#1f4e79", "#d95f02"
_HECTARE = 1e4
_SMALL = 100 * _HECTARE  # below this, square metres are told


def told_unit(total: float, unit: str) -> tuple[str, float]:
    """Return the unit to tell areas in, and how many of the given one make it: hectares, or m2 where all is small."""
    if unit != "m2":
        return unit, 1.0
    return ("m2", 1.0) if total < _SMALL else ("ha", _HECTARE)


def draw_areas(output: Path, found: Mapping[str, Any], leave_out: str = "--figures") -> None:
    """Draw a row a class, as PNG.

    Parameters
    ----------
    output
        The PNG to write.
    found
        Of `gopt_geo.assessment.sampleevaluation.SampleAssessment.to_dict`.
    leave_out
        The option that asks for the picture, for messages.

    Raises
    ------
    OutputError
        If matplotlib isn't installed.
    DrawingError
        If it can't draw.
    """
    classes: Sequence[Mapping[str, Any]] = found["classes"]
    estimates = found["estimates"]
    unit, size = told_unit(estimates["total_area"], found["unit"])
    with drawing(output, leave_out):
        height = _ROW * len(classes) + _AROUND
        figure = new_figure(_WIDTH, height)
        axis = figure.add_axes((0.22, 0.75 / height, 0.75, (height - _AROUND) / height))
        for row, entry in enumerate(classes):
            ends = (entry["area_lower"] / size, entry["area_upper"] / size)
            axis.plot(ends, (row, row), color=_ESTIMATE, linewidth=2, solid_capstyle="butt", zorder=2)
            axis.plot(ends, (row, row), "|", color=_ESTIMATE, markersize=9, zorder=2)
            axis.plot(entry["area"] / size, row, "o", color=_ESTIMATE, markersize=6, zorder=3)
            if entry["mapped_area"] is not None:
                axis.plot(entry["mapped_area"] / size, row, "D", color=_MAPPED, markersize=5, zorder=4, alpha=0.85)
        axis.set_yticks(range(len(classes)), [printable(entry["name"]) for entry in classes])
        axis.set_ylim(len(classes) - 0.5, -0.5)
        axis.set_xlim(left=0)
        axis.grid(axis="x", color="#dddddd", zorder=0)
        axis.set_axisbelow(True)
        axis.set_xlabel(f"area in {unit}")
        axis.plot([], [], "o-", color=_ESTIMATE, label=f"estimate, {estimates['level']:.0%} score interval")
        if any(entry["mapped_area"] is not None for entry in classes):
            axis.plot([], [], "D", color=_MAPPED, label="pixels of the map")
        axis.legend(loc="lower right", bbox_to_anchor=(1, 1), ncols=2, frameon=False, fontsize=9)
        figure.savefig(output, format="png", facecolor="white")
