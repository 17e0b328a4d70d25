"""Tables of areas and accuracies that were estimated from a sample, read at 80 columns."""

from __future__ import annotations

import shutil
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from gopt_geo_cli.scoretables import NARROW, figure_text, matrix_lines, short_name

__all__ = ["sample_lines"]


def sample_lines(found: Mapping[str, Any], width: int | None = None) -> Iterator[str]:
    """Yield ``SampleAssessment.to_dict()`` as lines of text: sampled units, areas, shares, accuracies, what they are.

    Parameters
    ----------
    found
        The figures.
    width
        Of the terminal in characters; else asked for, and 80 where there is none.
    """
    from gopt_geo.outputs.area_picture import told_unit

    columns = width or max(shutil.get_terminal_size((NARROW, 24)).columns, 60)
    classes, estimates = found["classes"], found["estimates"]
    values = [str(entry["value"]) for entry in classes]
    labels = [f"{value} {short_name(entry['name'])}" for value, entry in zip(values, classes, strict=True)]
    rows = [[*row, sum(row)] for row in found["units"]]
    yield "sampled units (down: map; across: reference, by value)"
    yield from matrix_lines(labels, [*values, "all"], rows, columns)
    yield ""
    unit, size = told_unit(estimates["total_area"], found["unit"])
    level = f"{100 * estimates['level']:g} %"
    keys = ("mapped_area", "area", "area_se", "area_lower", "area_upper")
    cells = [[_area(entry[key], size) for key in keys] for entry in classes]
    yield from _table(f"area in {unit}", ("map", "estimate", "SE", f"{level} from", "to"), labels, cells)
    yield ""
    shares = ("share", "share_se", "lower", "upper", "plain_lower", "plain_upper")
    cells = [[figure_text(estimates[key][k]) for key in shares] for k in range(len(labels))]
    yield from _table("share", ("estimate", "SE", f"{level} from", "to", "plain from", "to"), labels, cells)
    yield ""
    accuracies = ("users", "users_se", "producers", "producers_se")
    cells = [
        [str(estimates["mapped_units"][k]), *(figure_text(estimates[key][k]) for key in accuracies)]
        for k in range(len(labels))
    ]
    yield from _table("accuracy", ("units", "user's", "SE", "producer's", "SE"), labels, cells)
    yield ""
    yield (
        f"overall accuracy {figure_text(estimates['overall'])}   SE {figure_text(estimates['overall_se'])}   "
        f"{level} interval {figure_text(estimates['overall_lower'])} to {figure_text(estimates['overall_upper'])}"
    )
    yield f"over {sum(map(sum, found['units']))} units in {len(found['strata'])} strata"
    yield ""
    for line in found["conventions"]:
        yield from textwrap.wrap(line, columns, initial_indent="- ", subsequent_indent="  ")


def _table(title: str, heads: Sequence[str], labels: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    first = max(len(title), *map(len, labels))
    sizes = [max(len(head), *(len(row[col]) for row in rows)) + 2 for col, head in enumerate(heads)]
    yield title.ljust(first) + "".join(f"{head:>{size}}" for head, size in zip(heads, sizes, strict=True))
    for label, row in zip(labels, rows, strict=True):
        yield label.ljust(first) + "".join(f"{cell:>{size}}" for cell, size in zip(row, sizes, strict=True))


def _area(value: float | None, size: float) -> str:
    return "-" if value is None else f"{value / size:,.1f}"
