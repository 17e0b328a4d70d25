"""How many tiles a forward pass takes where nobody says: what keeps the device busy and fits into its memory."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from gopt_geo.inference.memory import ran_out_of_memory
from gopt_geo.inference.packmodel import PackModel
from gopt_geo.inference.tiles import LOOKAHEAD, TilePlan

__all__ = ["LEAST_TOKENS", "choose_batch_size"]

LEAST_TOKENS = {"cpu": 1024, "cuda": 32768}
"""Tokens of a pass from which a larger batch is no faster a tile, by device (the CPU's measured: docs/execution.md)."""
_MOST = {"cpu": 16, "cuda": 64}
_SHARE = 0.6  # of a GPU's free memory that a batch may take: others use it too, and the allocator leaves gaps


def choose_batch_size(
    model: PackModel,
    modalities: Sequence[str],
    plan: TilePlan,
    *,
    edge: int | None = None,
    width: int | None = None,
    memory: int | None = None,
) -> int:
    """Return a power of two: the least batch that keeps the device busy, halved until it fits.

    It depends on the scene, not on a window of it, so that all windows get the same map.

    Parameters
    ----------
    model
        On its device.
    modalities
        Those that the scene has.
    plan
        The scene's tiles; there are never more slots in a batch than could be filled.
    edge
        Of the tiles as the model sees them, in pixels, the largest where several sizes are averaged; the plan's if
        None.
    width
        Of the rows that are blended, in pixels; the scene's if None.
    memory
        Bytes of main memory that batches may take; None: no bound.
    """
    kind, edge = model.device.type, plan.tile_size if edge is None else max(edge, plan.tile_size)
    tokens = (edge // model.model.backbone.patch_size) ** 2
    wanted = min(_power_above(-(-LEAST_TOKENS[kind] // tokens)), _power_above(plan.rows * plan.cols), _MOST[kind])
    if kind == "cuda":
        blended = 4 * model.num_classes * plan.tile_size * (width if width is not None else plan.shape[1])
        wanted = min(wanted, _fitting(model, modalities, edge, blended))
    while memory is not None and wanted > 1 and _main_memory(model, edge, wanted) > memory:
        wanted //= 2
    return wanted


def _power_above(number: int) -> int:
    """Return the least power of two that isn't below a number."""
    return 1 << max(number - 1, 0).bit_length()


def _main_memory(model: PackModel, edge: int, size: int) -> int:
    """Bytes of main memory that batches of a size take: the pass on a CPU, and the tiles that are read or wait."""
    tile = edge**2 * 4 * (model.num_classes + model.band_count)
    working = model.working_memory(edge, size) if model.device.type == "cpu" else 0
    return working + (LOOKAHEAD + 2) * size * tile


def _fitting(model: PackModel, modalities: Sequence[str], edge: int, blended: int) -> int:
    """Return the largest power of two whose pass fits on the GPU, by the peaks of passes of one tile and of two."""
    device, peaks = model.device, []
    torch.cuda.empty_cache()
    before = torch.cuda.memory_allocated(device)
    try:
        for size in (1, 2):
            torch.cuda.reset_peak_memory_stats(device)
            model.run_empty(modalities, size, edge, eager=True)
            peaks.append(torch.cuda.max_memory_allocated(device) - before)
    except RuntimeError as error:
        if not ran_out_of_memory(error):
            raise
        return 1
    finally:
        torch.cuda.empty_cache()
    each = max(peaks[1] - peaks[0], 1)
    free = _SHARE * torch.cuda.mem_get_info(device)[0] - blended - (peaks[0] - each)
    return 1 << max(int(free // each), 1).bit_length() - 1
