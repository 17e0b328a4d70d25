"""Groups of a window's tokens: every tile that touches it goes through the model, and its token maps are joined."""

from __future__ import annotations

from collections.abc import Container, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from numpy.typing import NDArray

from gopt_geo.grid import Window
from gopt_geo.inference.packmodel import PackModel
from gopt_geo.inference.reading import BlockSource, Task, TileData, read_tiles
from gopt_geo.inference.tiles import TilePlan
from gopt_geo.inference.transfer import stack_tiles
from gopt_geo.models.cup import Grouping
from gopt_geo.models.diagnostics import GroupUsage

__all__ = ["GroupCanvas", "gather_groups"]

_READERS = 2


@dataclass
class GroupCanvas:
    """What is gathered tile by tile.

    Attributes
    ----------
    window
        The pixels looked at: the window asked for, widened to whole tokens; it may hang over the scene's edges.
    step
        Every how many pixels the images are shown.
    images
        By modality, float32 [C, h, w]; NaN where there is no data.
    numbers
        By layer and modality, the group of each token, from 1, int16 [rows, cols]; 0 where not valid.
    usage
        Of the tokens inside the window.
    """

    window: Window
    step: int
    images: dict[str, NDArray[np.float32]] = field(default_factory=dict)
    numbers: dict[tuple[int, str], NDArray[np.int16]] = field(default_factory=dict)
    usage: GroupUsage = field(default_factory=GroupUsage)

    def show(self, tile: Window, data: TileData) -> None:
        """Put a tile's pixels into the images."""
        shown = tile.intersect(self.window)
        if shown is None:
            return
        first = (self.window.row - shown.row) % self.step, (self.window.col - shown.col) % self.step
        rows, cols = shown.slices_in(tile)
        row, col = (
            (shown.row + first[0] - self.window.row) // self.step,
            (shown.col + first[1] - self.window.col) // self.step,
        )
        for name, values in data.values.items():
            pixels = np.where(data.valid[name], values, np.float32(np.nan))[:, rows, cols]
            pixels = pixels[:, first[0] :: self.step, first[1] :: self.step]
            shape = len(values), *(-(-edge // self.step) for edge in self.window.shape)
            image = self.images.setdefault(name, np.full(shape, np.nan, np.float32))
            image[:, row : row + pixels.shape[1], col : col + pixels.shape[2]] = pixels

    def count(self, tile: Window, groupings: Sequence[Grouping], patch: int) -> None:
        """Put the tokens of a whole tile into the maps, and count those inside the window."""
        tokens, whole = _in_tokens(tile, patch), _in_tokens(self.window, patch)
        shown = tokens.intersect(whole)
        if shown is None:
            return
        here, there = shown.slices_in(tokens), shown.slices_in(whole)
        for grouping in groupings:
            inside = grouping.assignment[0].unflatten(1, tokens.shape)[:, *here]  # [K, rows, cols]
            self.usage.update([replace(grouping, assignment=inside.flatten(1).unsqueeze(0))])
            chosen = (inside.argmax(dim=0) + 1) * (inside.sum(dim=0) > 0.5)
            key = grouping.layer, grouping.modality
            numbers = self.numbers.setdefault(key, np.zeros(whole.shape, np.int16))
            numbers[there] = chosen.cpu().numpy()


def gather_groups(
    source: BlockSource, model: PackModel, plan: TilePlan, asked: Window, layers: Container[int], edge: int
) -> GroupCanvas:
    """Forward every tile that touches a window, and gather what it shows there.

    Parameters
    ----------
    source, model, plan
        The scene, the pack's model and the tiles, which don't overlap.
    asked
        Pixels to look at, inside the scene.
    layers
        The layers whose groups are gathered.
    edge
        Images are thinned to at most so many pixels a side.
    """
    patch = model.model.backbone.patch_size
    tokens = Window(asked.row // patch, asked.col // patch, 0, 0)
    down, across = -(-asked.row_stop // patch) - tokens.row, -(-asked.col_stop // patch) - tokens.col
    window = Window(tokens.row * patch, tokens.col * patch, down * patch, across * patch)
    canvas = GroupCanvas(window, -(-max(window.shape) // edge))
    rows, cols = plan.touching(asked)
    tasks = [Task(0, row, col, None) for row in rows for col in cols]
    tiles = read_tiles(source, plan, tasks, modalities=model.modalities, readers=_READERS, ahead=2 * _READERS)
    for data in tiles:
        if data.any_valid is None:
            continue
        tile = plan.window(data.task.row, data.task.col)
        groupings: list[Grouping] = []
        with torch.inference_mode():
            model(*stack_tiles([data], plan.tile_size, model.device), groupings=groupings)
        canvas.count(tile, [grouping for grouping in groupings if grouping.layer in layers], patch)
        inside = tile.clip(plan.shape)
        if inside is not None:
            canvas.show(inside, data)
    return canvas


def _in_tokens(window: Window, patch: int) -> Window:
    """Pixels of whole tokens as a window in units of tokens."""
    return Window(window.row // patch, window.col // patch, window.height // patch, window.width // patch)
