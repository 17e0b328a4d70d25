"""``gopt-geo evaluate``: a land-cover map against reference labels."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated, Any

import typer

from gopt_geo_cli.say import say_notices, say_written

__all__ = ["evaluate"]


def evaluate(
    prediction: Annotated[Path, typer.Argument(metavar="PREDICTION", help="Land-cover raster.")],
    reference: Annotated[Path, typer.Option(help="Label raster, any grid: taken onto the map's grid, nearest.")],
    json_file: Annotated[
        Path | None, typer.Option("--json", metavar="FILE", help="Also write all figures to this .json.")
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the .json if it exists.")] = False,
) -> None:
    """Compare PREDICTION with reference labels: confusion matrix, IoU of each class, mIoU, OA and kappa."""
    from gopt_geo import api
    from gopt_geo.outputs.staging import Staging

    with ExitStack() as stack:
        staging = stack.enter_context(Staging(overwrite, inputs=[prediction, reference])) if json_file else None
        staged = staging.path(json_file, endings=(".json",)) if staging and json_file else None
        assessment = api.evaluate(prediction, reference)
        found = assessment.to_dict()
        if staging and staged:
            staged.write_text(json.dumps(found, indent=2, allow_nan=False) + "\n", encoding="utf-8")
            staging.publish()
    _print_tables(found)
    say_notices(assessment.notices)
    if json_file:
        say_written([json_file])


def _print_tables(found: Mapping[str, Any]) -> None:
    """Print the figures of ``Assessment.to_dict()``: the confusion matrix, then a line a class, then the whole."""
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    console = Console(highlight=False)
    if not console.is_terminal:
        console = Console(width=10_000)  # a log or a pipe takes lines of any length; folded figures can't be read
    names, scores = [escape(entry["name"]) for entry in found["classes"]], found["scores"]
    matrix = Table("", title="Confusion matrix in pixels (down: reference, across: map)", title_justify="left")
    for name in (*names, "no class"):
        matrix.add_column(name, justify="right")
    for name, row, missed in zip(names, found["confusion_matrix"], found["unpredicted_pixels"], strict=True):
        matrix.add_row(name, *(str(count) for count in row), str(missed))
    console.print(matrix)
    classes = Table("value", "class", "IoU", "producer's accuracy", "user's accuracy")
    for entry, name, *figures in zip(
        found["classes"], names, scores["iou"], scores["producers_accuracy"], scores["users_accuracy"], strict=True
    ):
        classes.add_row(str(entry["value"]), name, *(_figure(value) for value in figures))
    console.print(classes)
    console.print(
        f"mIoU {_figure(scores['mean_iou'])}   OA {_figure(scores['overall_accuracy'])}   "
        f"kappa {_figure(scores['kappa'])}   over {scores['pixels']} pixels"
    )


def _figure(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"
