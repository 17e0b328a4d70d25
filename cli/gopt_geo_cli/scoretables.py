"""Tables of an evaluation that are read at 80 columns, with two classes as well as with forty."""

from __future__ import annotations

import shutil
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

__all__ = ["score_lines"]

_NAME = 22  # characters of a class name in tables
_NARROW = 80


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
    columns = width or max(shutil.get_terminal_size((_NARROW, 24)).columns, 60)
    names = [_short(entry["name"]) for entry in found["classes"]]
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


def _short(name: str) -> str:
    name = "".join(char if char.isprintable() else " " for char in name)
    return name if len(name) <= _NAME else f"{name[: _NAME - 1]}~"


def _matrix(found: Mapping[str, Any], names: Sequence[str], width: int) -> Iterator[str]:
    """Yield the confusion matrix in pixels: reference down, prediction across, in groups of columns that fit."""
    rows = [[*row, missed] for row, missed in zip(found["confusion_matrix"], found["unpredicted_pixels"], strict=True)]
    values = [str(entry["value"]) for entry in found["classes"]]
    heads = [*values, "no class"]
    first = max(len(f"{value} {name}") for value, name in zip(values, names, strict=True))
    cells = [max(len(head), *(len(str(row[col])) for row in rows)) + 2 for col, head in enumerate(heads)]
    yield "confusion matrix in pixels (down: reference; across: prediction, by value)"
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
        for value, name, row in zip(values, names, rows, strict=True):
            yield f"{value} {name}".ljust(first) + "".join(f"{row[col]:>{cells[col]}}" for col in part)
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
        figures = "".join(f"{_figure(row[index]):>{max(len(head), 6) + 2}}" for head, row in rows)
        yield f"{value} {name}".ljust(first) + figures


def _whole(found: Mapping[str, Any]) -> str:
    scores, boundary, calibration = found["scores"], found.get("boundary"), found.get("calibration")
    parts = [
        f"mIoU {_figure(scores['mean_iou'])}",
        f"OA {_figure(scores['overall_accuracy'])}",
        f"kappa {_figure(scores['kappa'])}",
    ]
    if boundary is not None:
        parts.append(f"border F1 {_figure(boundary['mean_f1'])}")
    if calibration is not None:
        parts.append(f"ECE {_figure(calibration['ece'])}")
    return "   ".join(parts) + f"\nover {scores['pixels']} pixels"


def _published(found: Mapping[str, Any]) -> Iterator[str]:
    other = found.get("mean_iou_with_zero_classes")
    if other is not None:
        yield f"mIoU over {other['classes']} classes, those that aren't scored with IoU 0: {_figure(other['mean_iou'])}"


def _figure(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"
