"""Between main memory and the device: tiles into batches, and what is asked of results without waiting for them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from gopt_geo.inference.reading import TileData

__all__ = ["BatchLoader", "DelayedCheck", "stack_tiles"]

Batch = tuple[dict[str, Tensor], dict[str, Tensor]]


def stack_tiles(tiles: Sequence[TileData], edge: int, device: torch.device) -> Batch:
    """Put tiles into a batch: values float32 [B, C, edge, edge] and validity bool [B, edge, edge] by modality.

    Beyond the scene both are zero, and so not valid.
    """
    values, valid = _empty(tiles, edge)
    _fill(values, valid, tiles)
    return {name: pixels.to(device) for name, pixels in values.items()}, {n: m.to(device) for n, m in valid.items()}


def _empty(tiles: Sequence[TileData], edge: int, *, pinned: bool = False) -> Batch:
    values = {
        name: torch.zeros((len(tiles), first.shape[0], edge, edge), pin_memory=pinned)
        for name, first in tiles[0].values.items()
    }
    valid = {n: torch.zeros((len(tiles), edge, edge), dtype=torch.bool, pin_memory=pinned) for n in values}
    return values, valid


def _fill(values: dict[str, Tensor], valid: dict[str, Tensor], tiles: Sequence[TileData]) -> None:
    for name, pixels in values.items():
        there, mask = pixels.numpy(), valid[name].numpy()
        for slot, tile in enumerate(tiles):
            height, width = tile.valid[name].shape
            if (height, width) != mask.shape[1:]:  # what the last batch left beyond the scene's edge
                there[slot], mask[slot] = 0, False
            there[slot, :, :height, :width] = tile.values[name]
            mask[slot, :height, :width] = tile.valid[name]


class _Pinned:
    """Page-locked memory for one batch, and when the copy out of it has ended."""

    def __init__(self, tiles: Sequence[TileData], edge: int) -> None:
        self.values, self.valid = _empty(tiles, edge, pinned=True)
        self.free = torch.cuda.Event()

    def fits(self, tiles: Sequence[TileData]) -> bool:
        """Whether tiles have its number and bands."""
        shapes = {name: (len(tiles), pixels.shape[0]) for name, pixels in tiles[0].values.items()}
        return shapes == {name: tuple(pixels.shape[:2]) for name, pixels in self.values.items()}


class BatchLoader:
    """Puts batches on the device; on a GPU while it still computes the one before.

    There, tiles are gathered in one of two page-locked buffers and copied on a stream of their own; what is computed
    next waits for the copy, the caller doesn't.

    Parameters
    ----------
    edge
        Of the tiles in pixels.
    device
        Where batches go.
    """

    def __init__(self, edge: int, device: torch.device) -> None:
        self._edge, self._device = edge, device
        self._stream = torch.cuda.Stream(device) if device.type == "cuda" else None
        self._buffers: list[_Pinned | None] = [None, None]

    def __call__(self, tiles: Sequence[TileData]) -> Batch:
        """Return values float32 [B, C, edge, edge] and validity bool [B, edge, edge], as `stack_tiles` does."""
        if self._stream is None:
            return stack_tiles(tiles, self._edge, self._device)
        buffer, later = self._buffers
        if buffer is None or not buffer.fits(tiles):
            buffer = _Pinned(tiles, self._edge)
        buffer.free.synchronize()  # of the copy before the last, which has ended long ago
        _fill(buffer.values, buffer.valid, tiles)
        computing = torch.cuda.current_stream(self._device)
        with torch.cuda.stream(self._stream):
            values = {name: t.to(self._device, non_blocking=True) for name, t in buffer.values.items()}
            valid = {name: t.to(self._device, non_blocking=True) for name, t in buffer.valid.items()}
            buffer.free.record(self._stream)
        computing.wait_event(buffer.free)
        for tensor in (*values.values(), *valid.values()):
            tensor.record_stream(computing)  # its memory isn't another batch's before this one is computed
        self._buffers = [later, buffer]
        return values, valid


class DelayedCheck:
    """Whether all of a batch's results are finite; on a GPU the answer travels while it computes on.

    Parameters
    ----------
    results
        Floating point [B, ...].
    """

    def __init__(self, results: Tensor) -> None:
        # A sum is finite only if all of it is, and takes a pass without a mask of the same size.
        sums = results.flatten(1).sum(dim=1, dtype=torch.float32)
        self._results = results
        self._arrived: torch.cuda.Event | None = None
        if results.device.type != "cuda":
            self._sums = sums
            return
        self._sums = torch.empty(sums.shape, pin_memory=True)
        self._sums.copy_(sums, non_blocking=True)
        self._arrived = torch.cuda.Event()
        self._arrived.record(torch.cuda.current_stream(results.device))

    def first_wrong(self) -> int | None:
        """Return the place of the first result that isn't finite, or None; waits for the answer."""
        if self._arrived is not None:
            self._arrived.synchronize()
        if bool(torch.isfinite(self._sums).all()):
            return None
        # A sum that overflows says nothing yet: look at the values.
        finite = torch.isfinite(self._results).flatten(1).all(dim=1)
        wrong = torch.nonzero(~finite)
        return int(wrong[0]) if len(wrong) else None
