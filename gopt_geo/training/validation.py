"""Validation while training: whole blocks through the one tiler, shared out to the processes that train together."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import distributed

from gopt_geo.assessment.modelscores import ModelScores, area_options, evaluate_model
from gopt_geo.assessment.reference import ReferenceArea
from gopt_geo.grid import Window
from gopt_geo.inference import TileOptions
from gopt_geo.inference.packmodel import PackModel
from gopt_geo.models.gopt import GoPT
from gopt_geo.packmeta import ClassInfo, PackMeta

__all__ = ["figure_names", "figures_of", "share_of", "validate"]


def validate(
    model: GoPT,
    meta: PackMeta,
    areas: Sequence[ReferenceArea],
    options: TileOptions,
    device: torch.device,
    progress: Callable[[int, int], None] | None = None,
) -> ModelScores:
    """Score a model in training on areas; the same figures in every process, whatever their number.

    Parameters
    ----------
    model
        In training mode before and after.
    meta
        Of its pack.
    areas, options
        See `gopt_geo.assessment.modelscores.evaluate_model`.
    device
        Of this process.
    progress
        Called with the tiles done and all tiles of this process.
    """
    together = distributed.is_available() and distributed.is_initialized()
    rank, world = (distributed.get_rank(), distributed.get_world_size()) if together else (0, 1)
    options = replace(options, device=device)
    own = [part for area in areas if (part := share_of(area, options, rank, world)) is not None]
    model.eval()
    try:
        tiler_model = PackModel(model, meta, options.tile_size, device)
        scores = evaluate_model(tiler_model, own, len(meta.classes), options, progress=progress)
    finally:
        model.train()
    if world == 1:
        return scores
    counts = torch.from_numpy(scores.counts()).to(device)
    distributed.all_reduce(counts)
    return ModelScores.from_counts(np.asarray(counts.cpu().numpy(), np.float64), len(meta.classes))


def share_of(area: ReferenceArea, options: TileOptions, rank: int, world: int) -> ReferenceArea | None:
    """Return a process's share of an area: a band of whole rows of tiles, or None if there are too few for it.

    The tiler gives a pixel the same bits whatever the window, so the shares' counts add up to those of the whole.
    """
    if world == 1:
        return area
    own, window = area_options(area, options), area.window
    stride = own.tile_size - own.overlap
    first, stop = window.row // stride, -(-window.row_stop // stride)
    rows = stop - first
    begin, end = first + rows * rank // world, first + rows * (rank + 1) // world
    band = window.intersect(Window(begin * stride, window.col, max(0, end - begin) * stride, window.width))
    return None if band is None else replace(area, window=band)


def figure_names(classes: Sequence[ClassInfo]) -> list[str]:
    """Return the names of a validation's figures, as in metrics.csv."""
    return ["val_miou", "val_oa", "val_kappa", *(f"val_iou_{info.name}" for info in classes)]


def figures_of(scores: ModelScores, classes: Sequence[ClassInfo]) -> dict[str, float]:
    """Return a validation's figures by their names; NaN where one is undefined."""
    found = scores.scores
    values = [found.mean_iou, found.overall_accuracy, found.kappa, *found.iou]
    return dict(zip(figure_names(classes), values, strict=True))
