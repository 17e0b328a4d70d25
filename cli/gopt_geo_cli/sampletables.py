"""Tables of areas and accuracies that were estimated from a sample."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

__all__ = ["print_sample_tables"]


def print_sample_tables(found: Mapping[str, Any]) -> None:
    """Print ``SampleAssessment.to_dict()``: sampled units, areas with intervals, accuracies, and what they are."""
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    from gopt_geo.outputs.area_picture import told_unit

    console = Console(highlight=False)
    if not console.is_terminal:
        console = Console(width=10_000)  # a log or a pipe takes lines of any length; folded figures can't be read
    estimates, names = found["estimates"], [escape(entry["name"]) for entry in found["classes"]]
    unit, size = told_unit(estimates["total_area"], found["unit"])
    level = f"{100 * estimates['level']:g} %"

    matrix = Table("", title="Sampled units (down: map, across: reference)", title_justify="left")
    for name in (*names, "all"):
        matrix.add_column(name, justify="right")
    for name, row in zip(names, found["units"], strict=True):
        matrix.add_row(name, *(str(count) for count in row), str(sum(row)))
    console.print(matrix)

    areas = Table("class", title=f"Area in {unit}", title_justify="left")
    for name in ("map", "estimate", "SE", f"{level} interval", "plain interval", "share", "share's interval"):
        areas.add_column(name, justify="right")
    for k, (name, entry) in enumerate(zip(names, found["classes"], strict=True)):
        ends = [entry[f"area_{end}"] / size for end in ("lower", "upper", "plain_lower", "plain_upper")]
        areas.add_row(
            name,
            "-" if entry["mapped_area"] is None else _area(entry["mapped_area"] / size),
            _area(entry["area"] / size),
            _area(entry["area_se"] / size),
            f"{_area(ends[0])} to {_area(ends[1])}",
            f"{_area(ends[2])} to {_area(ends[3])}",
            f"{estimates['share'][k]:.4f}",
            f"{estimates['lower'][k]:.4f} to {estimates['upper'][k]:.4f}",
        )
    console.print(areas)

    accuracies = Table("class")
    for name in ("units", "user's accuracy", "SE", "producer's accuracy", "SE"):
        accuracies.add_column(name, justify="right")
    columns = ("users", "users_se", "producers", "producers_se")
    for k, name in enumerate(names):
        figures = (_figure(estimates[column][k]) for column in columns)
        accuracies.add_row(name, str(estimates["mapped_units"][k]), *figures)
    console.print(accuracies)

    console.print(
        f"overall accuracy {_figure(estimates['overall'])}   SE {_figure(estimates['overall_se'])}   {level} interval "
        f"{_figure(estimates['overall_lower'])} to {_figure(estimates['overall_upper'])}   over "
        f"{sum(map(sum, found['units']))} units in {len(found['strata'])} strata"
    )
    console.print(
        "estimates: stratified, Olofsson et al. 2014; interval: stratified score interval; plain: estimate -+ z SE"
    )


def _area(value: float) -> str:
    return f"{value:,.2f}"


def _figure(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"
