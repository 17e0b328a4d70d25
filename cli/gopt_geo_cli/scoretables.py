"""Tables of an evaluation that are read at 80 columns, with two classes as well as with forty."""

from __future__ import annotations

import shutil
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

__all__ = ["NARROW", "figure_text", "matrix_lines", "score_lines", "short_name"]

_NAME = 22  # characters of a class name in tables
NARROW = 80
"""Columns where no terminal tells."""


def score_lines(found: Mapping[str, Any], width: int | None = None) -> Iterator[str]:
    """Yield the figures of ``to_dict()`` of an assessment as lines of text.

    The confusion matrix is cut into groups of columns that fit; columns are called by the classes' numbers.

    Parameters
    ----------
    found
        Of a map or of a pack.
    width
        Of the terminal in characters; else asked for, and 80 where there is none.
    """
    columns = width or max(shutil.get_terminal_size((NARROW, 24)).columns, 60)
    names = [short_name(entry["name"]) for entry in found["classes"]]
    yield from _matrix(found, names, columns)
    yield ""
    yield from _classes(found, names)
    yield ""
    yield _whole(found)
    yield from _published(found)
    augmented = found.get("augmented")
    if augmented is not None:
        sizes = ", ".join(f"{scale:g}" for scale in augmented["scales"])
        yield ""
        yield f"averaged over sizes {sizes}" + (" and mirrored tiles" if augmented["flip"] else "")
        yield from _classes({**augmented, "classes": found["classes"]}, names)
        yield ""
        yield _whole(augmented)
        yield from _published(augmented)
    yield ""
    for line in found["conventions"]:
        yield from textwrap.wrap(line, columns, initial_indent="- ", subsequent_indent="  ")


def short_name(name: str) -> str:
    """Return a class name that fits a table."""
    name = "".join(char if char.isprintable() else " " for char in name)
    return name if len(name) <= _NAME else f"{name[: _NAME - 1]}~"


def _matrix(found: Mapping[str, Any], names: Sequence[str], width: int) -> Iterator[str]:
    """Yield the confusion matrix in pixels: reference down, prediction across."""
    rows = [[*row, missed] for row, missed in zip(found["confusion_matrix"], found["unpredicted_pixels"], strict=True)]
    values = [str(entry["value"]) for entry in found["classes"]]
    labels = [f"{value} {name}" for value, name in zip(values, names, strict=True)]
    yield "confusion matrix in pixels (down: reference; across: prediction, by value)"
    yield from matrix_lines(labels, [*values, "no class"], rows, width)


def matrix_lines(
    labels: Sequence[str], heads: Sequence[str], rows: Sequence[Sequence[int]], width: int
) -> Iterator[str]:
    """Yield a matrix of counts in groups of columns that fit a width, each with all labels."""
    first = max(map(len, labels))
    cells = [max(len(head), *(len(str(row[col])) for row in rows)) + 2 for col, head in enumerate(heads)]
    start = 0
    while start < len(heads):
        stop, used = start, first
        while stop < len(heads) and (stop == start or used + cells[stop] <= width):
            used += cells[stop]
            stop += 1
        part = range(start, stop)
        if start:
            yield ""
        yield " " * first + "".join(f"{heads[col]:>{cells[col]}}" for col in part)
        for label, row in zip(labels, rows, strict=True):
            yield label.ljust(first) + "".join(f"{row[col]:>{cells[col]}}" for col in part)
        start = stop


def _classes(found: Mapping[str, Any], names: Sequence[str]) -> Iterator[str]:
    scores, boundary = found["scores"], found.get("boundary")
    values = [str(entry["value"]) for entry in found["classes"]]
    first = max(len("class"), *(len(f"{value} {name}") for value, name in zip(values, names, strict=True)))
    rows = [
        ("IoU", scores["iou"]),
        ("F1", scores["f1"]),
        ("user's", scores["users_accuracy"]),
        ("producer's", scores["producers_accuracy"]),
    ]
    if boundary is not None:
        rows.append(("border F1", boundary["f1"]))
    yield "class".ljust(first) + "".join(f"{head:>{max(len(head), 6) + 2}}" for head, _ in rows)
    for index, (value, name) in enumerate(zip(values, names, strict=True)):
        figures = "".join(f"{figure_text(row[index]):>{max(len(head), 6) + 2}}" for head, row in rows)
        yield f"{value} {name}".ljust(first) + figures


def _whole(found: Mapping[str, Any]) -> str:
    scores, boundary, calibration = found["scores"], found.get("boundary"), found.get("calibration")
    parts = [
        f"mIoU {figure_text(scores['mean_iou'])}",
        f"OA {figure_text(scores['overall_accuracy'])}",
        f"kappa {figure_text(scores['kappa'])}",
    ]
    if boundary is not None:
        parts.append(f"border F1 {figure_text(boundary['mean_f1'])}")
    if calibration is not None:
        parts.append(f"ECE {figure_text(calibration['ece'])}")
    return "   ".join(parts) + f"\nover {scores['pixels']} pixels"


def _published(found: Mapping[str, Any]) -> Iterator[str]:
    other = found.get("mean_iou_with_zero_classes")
    if other is not None:
        value = figure_text(other["mean_iou"])
        yield f"mIoU over {other['classes']} classes, those that aren't scored with IoU 0: {value}"


def figure_text(value: float | None) -> str:
    """Return a figure with four digits, or n/a where it is undefined."""
    return "n/a" if value is None else f"{value:.4f}"
