"""Running the model on tiles: batches in which every tile keeps its slot, results in the tiles' order."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Protocol

import torch
from torch import Tensor

from gopt_geo.errors import GoptGeoError
from gopt_geo.inference.memory import ran_out_of_memory
from gopt_geo.inference.reading import TileData
from gopt_geo.inference.tiles import LOOKAHEAD, TilePlan
from gopt_geo.inference.transfer import BatchLoader, DelayedCheck

__all__ = ["Forwarder", "TileModel"]

EMPTY_AHEAD = 16
"""Tiles in all, empty ones included, that may wait, in multiples of those with data that may."""


class TileModel(Protocol):
    """What turns tiles into class probabilities; called from one thread, in inference mode."""

    @property
    def num_classes(self) -> int:
        """K, the number of classes."""
        ...

    @property
    def modalities(self) -> tuple[str, ...]:
        """Names of the modalities that it takes."""
        ...

    def __call__(self, values: dict[str, Tensor], valid: dict[str, Tensor], /) -> Tensor:
        """Return probabilities [B, K, t, t].

        Parameters
        ----------
        values
            float32 [B, C, t, t] for each modality that the source has; 0 where not valid.
        valid
            bool [B, t, t] for each of them.
        """
        ...


@dataclass
class _Waiting:
    """A tile on its way: `output` is None until it has been forwarded (and stays so for an empty tile)."""

    tile: TileData
    done: bool
    output: Tensor | None = None


class Forwarder:
    """Forwards tiles in batches of a fixed size and yields them in order.

    A tile takes the slot that `TilePlan.slot` names, so a batch is run when every slot has a tile, or when as
    many tiles wait as `LOOKAHEAD` batches hold. Free slots are filled with a copy of one of the batch's
    tiles.

    Parameters
    ----------
    model, plan
        The model and the scene's tiles.
    batch_size
        Tiles of a batch.
    device
        Where the model runs.

    Attributes
    ----------
    forwarded, batches
        Tiles and batches that went through the model so far.
    part_size
        Tiles that the model gets at a time: `batch_size`, until memory runs out; then half of it, for that batch and
        all later ones. Tiles keep their slots.
    """

    def __init__(self, model: TileModel, plan: TilePlan, batch_size: int, device: torch.device) -> None:
        self._model, self._plan, self._device = model, plan, device
        self._load = BatchLoader(plan.tile_size, device)
        self._unchecked: tuple[DelayedCheck, list[TileData]] | None = None
        self._size = self.part_size = batch_size
        self._slots: list[deque[_Waiting]] = [deque() for _ in range(batch_size)]
        self._order: deque[_Waiting] = deque()
        self._loaded = 0  # tiles with data in _order: their arrays are what costs memory
        self.forwarded = 0
        self.batches = 0

    def run(self, tiles: Iterable[TileData]) -> Iterator[tuple[TileData, Tensor | None]]:
        """Yield each tile with its probabilities [K, t, t] on the device, None for a tile without data."""
        limit = LOOKAHEAD * self._size
        for tile in tiles:
            self._append(tile)
            while all(self._slots) or self._loaded >= limit or len(self._order) >= EMPTY_AHEAD * limit:
                batch = self._forward()
                yield from self._drain(batch)
            yield from self._drain([])
        while any(self._slots):
            batch = self._forward()
            yield from self._drain(batch)
        self._check_before()

    def _append(self, tile: TileData) -> None:
        entry = _Waiting(tile, done=tile.any_valid is None)
        self._order.append(entry)
        if not entry.done:
            self._loaded += 1
            self._slots[self._plan.slot(tile.task.row, tile.task.col, self._size)].append(entry)

    def _drain(self, batch: list[_Waiting]) -> Iterator[tuple[TileData, Tensor | None]]:
        """Yield what is complete in order; what must wait lets go of its batch's tensors."""
        while self._order and self._order[0].done:
            entry = self._order.popleft()
            self._loaded -= entry.output is not None
            output, entry.output = entry.output, None
            yield entry.tile, output
        for entry in batch:
            if entry.output is not None:
                entry.output = entry.output.clone()
                entry.tile = replace(entry.tile, values={}, valid={})

    def _forward(self) -> list[_Waiting]:
        taken = [slot.popleft() if slot else None for slot in self._slots]
        entries = [entry for entry in taken if entry is not None]
        spare = entries[0]
        tiles = [(entry or spare).tile for entry in taken]
        output = self._probabilities(tiles)
        for slot, entry in enumerate(taken):
            if entry is not None:
                entry.output, entry.done = output[slot], True
        self.forwarded += len(entries)
        self.batches += 1
        return entries

    def _probabilities(self, tiles: list[TileData]) -> Tensor:
        """Run the model on a batch; once in a run, where memory runs out, go on in halves."""
        try:
            return self._in_parts(tiles)
        except (RuntimeError, MemoryError) as error:
            if self.part_size < self._size or self._size == 1 or not ran_out_of_memory(error):
                raise
        # Only here is the error gone, and with it the tensors that its frames held.
        self.part_size = -(-self._size // 2)
        if self._device.type == "cuda":
            torch.cuda.empty_cache()
        return self._in_parts(tiles)

    def _in_parts(self, tiles: list[TileData]) -> Tensor:
        outputs = []
        for start in range(0, self._size, self.part_size):
            part = tiles[start : start + self.part_size]
            part += part[:1] * (self.part_size - len(part))  # of an odd batch, the second half
            with torch.inference_mode():
                output = self._model(*self._load(part))
                self._check(output, part)
            outputs.append(output)
        return outputs[0] if len(outputs) == 1 else torch.cat(outputs)[: self._size]

    def _check(self, output: Tensor, tiles: list[TileData]) -> None:
        edge = self._plan.tile_size
        wanted = (len(tiles), self._model.num_classes, edge, edge)
        if tuple(output.shape) != wanted or not output.is_floating_point():
            raise ValueError(f"the model returned {output.dtype} {tuple(output.shape)}, not probabilities {wanted}")
        # On a GPU the answer comes while more is computed: waiting for it would leave the GPU idle.
        self._check_before()
        self._unchecked = DelayedCheck(output), tiles
        if output.device.type == "cpu":
            self._check_before()

    def _check_before(self) -> None:
        """Raise if the results that were checked last aren't finite."""
        before, self._unchecked = self._unchecked, None
        slot = None if before is None else before[0].first_wrong()
        if before is None or slot is None:
            return
        task = before[1][slot].task
        place = self._plan.window(task.row, task.col)
        raise GoptGeoError(
            f"tile at row {place.row}, column {place.col}",
            "the model's probabilities are not finite",
            "run in fp32 (--precision); if it does so already, a pixel value is out of range or the pack is damaged",
        )
