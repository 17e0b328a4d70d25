"""The README.md of a run: what it was, what came out, and how to use it."""

from __future__ import annotations

import math
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from gopt_geo.assessment.modelscores import ModelScores
from gopt_geo.training.checkpoints import Standing
from gopt_geo.training.config import TrainConfig

if TYPE_CHECKING:
    from gopt_geo.training.finishing import Finished

__all__ = ["run_page"]


def run_page(finished: Finished, config: TrainConfig, report: Sequence[str], best: Standing, folder: Path) -> str:
    """Write the summary of a run in Markdown.

    Parameters
    ----------
    finished
        What became of it.
    config
        Resolved.
    report
        Lines on the data.
    best
        Where the training stood when the pack's weights were the best.
    folder
        Of the run.
    """
    meta = finished.meta
    figures = [name for name in ("curves.png", "confusion.png", "examples.png") if (folder / name).is_file()]
    parts = [("validation", finished.validation), *([("test", finished.test)] if finished.test is not None else [])]
    precision = "half" if finished.half else "full"
    lines = [
        f"# {_plain(meta.title)}",
        "",
        f"A prompt pack on the backbone {meta.backbone.id}, of {', '.join(meta.modalities)}; trained with gopt-geo "
        f"{meta.provenance.versions.get('gopt-geo', '')}, {config.training.steps} steps, seed {config.training.seed}.",
        f"The pack holds the weights of step {best.step}, the best validation, in {precision} precision, and the "
        f"temperature {meta.temperature:g}.",
        "",
        "## Data",
        "",
        *(f"    {line}" for line in report),
        "",
        "## Scores",
        "",
        *_table(parts),
        "",
        "mIoU is the mean over the classes that occur in labels or map; pixels without a label don't count; a",
        "labelled pixel without a prediction is an error. Both parts ran through the tiler that predicts, on whole",
        "blocks.",
        "The weights were chosen by the validation, and the temperature was fitted on it.",
        "",
        "## IoU by class",
        "",
        "| class | " + " | ".join(name for name, _ in parts) + " |",
        "|---|" + "---|" * len(parts),
        *(
            f"| {_plain(info.name)} | " + " | ".join(_number(s.scores.iou[k]) for _, s in parts) + " |"
            for k, info in enumerate(meta.classes)
        ),
        "",
        *(line for name in figures for line in (f"![{name.removesuffix('.png')}]({name})", "")),
        "## Use it",
        "",
        *(f"    {command}" for command in _commands(finished, config, folder)),
    ]
    return "\n".join(lines) + "\n"


def _table(parts: Sequence[tuple[str, ModelScores]]) -> list[str]:
    rows = ["| part | mIoU | overall accuracy | kappa | boundary F1 | ECE | pixels |", "|---|---|---|---|---|---|---|"]
    for name, found in parts:
        scores = found.scores
        border = found.boundary.mean if found.boundary is not None else math.nan
        values = (scores.mean_iou, scores.overall_accuracy, scores.kappa, border, found.calibration.ece)
        rows.append(f"| {name} | " + " | ".join(map(_number, values)) + f" | {scores.pixels} |")
    return rows


def _commands(finished: Finished, config: TrainConfig, folder: Path) -> list[str]:
    pack = shlex.quote(str(finished.pack))
    settings = shlex.quote(str(folder / "config.yaml"))
    split = "test" if finished.test is not None else "val"
    sources = "OPTICAL SAR"
    if config.scene is not None and config.scene.optical is not None and config.scene.sar is not None:
        sources = f"{shlex.quote(config.scene.optical)} {shlex.quote(config.scene.sar)}"
    known = config.model.modalities
    if known == ("optical",):  # predict maps optical rasters with SAR or without, not SAR alone
        sources = sources.split()[0] if config.scene is None else shlex.quote(config.scene.optical or "OPTICAL")
    predict = (
        [] if known is not None and "optical" not in known else [f"gopt-geo predict {sources} --pack {pack} -o map.tif"]
    )
    return [
        *predict,
        f"gopt-geo evaluate --pack {pack} --config {settings} --split {split}",
        f"gopt-geo info {pack}",
    ]


def _number(value: float) -> str:
    return "" if math.isnan(value) else f"{value:.3f}"


def _plain(text: str) -> str:
    """Keep a name from being read as markup of a table."""
    return " ".join(text.split()).replace("|", "\\|")
