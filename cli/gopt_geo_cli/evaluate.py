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
    say_notices(getattr(assessment, "notices", ()))
    if json_file:
        say_written([json_file])


def _print_tables(found: Mapping[str, Any]) -> None:
    raise NotImplementedError
