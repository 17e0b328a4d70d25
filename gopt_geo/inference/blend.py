"""Blending: tapered weights that sum to one over every pixel, and the accumulator of one row of tiles."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gopt_geo.errors import GoptGeoError
from gopt_geo.grid import Window
from gopt_geo.inference.tiles import TilePlan

__all__ = [
    "BandAccumulator",
    "BlendKind",
    "BlendedRows",
    "LikelyRows",
    "axis_weights",
    "blend_window",
    "emit_rows",
    "most_likely",
    "most_likely_there",
]

BlendKind = Literal["hann", "linear", "gaussian", "none"]
FLOOR = 1e-3
"""Least weight along one axis, next to a largest of 1: no pixel rests on a weight that rounds to nothing."""
EMIT_ROWS = 128
EMIT_BYTES = 8 << 20
"""Most rows, and bytes of them, that are handed on at once: what waits for the sink stays small beside the sums."""


@dataclass(frozen=True)
class BlendedRows:
    """Finished pixels of the scene: a few whole rows of the window, or of one of its column strips.

    Parameters
    ----------
    window
        Where the pixels lie on the scene grid.
    probabilities
        float32 [K, h, w], averaged over the tiles; 0 where `valid` is False. The array is the receiver's to
        keep.
    valid
        bool [h, w], True where at least one modality carries data.
    """

    window: Window
    probabilities: NDArray[np.float32]
    valid: NDArray[np.bool_]

    def within(self, asked: NDArray[np.bool_]) -> BlendedRows:
        """Return these rows, valid only where `asked`, bool [h, w]; the probabilities elsewhere become 0."""
        self.probabilities[:, ~asked] = 0
        return replace(self, valid=self.valid & asked)

    def likely(self) -> LikelyRows:
        """Return these rows with the most likely class alone."""
        if not self.valid.any():
            return LikelyRows.blank(self.window)
        return LikelyRows(self.window, *most_likely(self.probabilities), self.valid)


@dataclass(frozen=True)
class LikelyRows:
    """Finished pixels of the scene as `BlendedRows`, with the most likely class alone.

    Parameters
    ----------
    window
        Where the pixels lie on the scene grid.
    index
        uint8 [h, w], the place of the class of the largest probability, the first of equals; 0 where `valid` is False.
    largest
        float32 [h, w], that probability; 0 where `valid` is False.
    valid
        bool [h, w], True where at least one modality carries data.
    """

    window: Window
    index: NDArray[np.uint8]
    largest: NDArray[np.float32]
    valid: NDArray[np.bool_]

    @classmethod
    def blank(cls, window: Window) -> LikelyRows:
        """Return rows without a valid pixel."""
        kinds = (np.uint8, np.float32, np.bool_)
        return cls(window, *(np.zeros(window.shape, kind) for kind in kinds))

    def within(self, asked: NDArray[np.bool_]) -> LikelyRows:
        """Return these rows, valid only where `asked`, bool [h, w]; all else there becomes 0."""
        self.index[~asked], self.largest[~asked] = 0, 0
        return replace(self, valid=self.valid & asked)


def emit_rows(classes: int, width: int) -> int:
    """Return how many rows are handed on at once, at least 1."""
    return max(1, min(EMIT_ROWS, EMIT_BYTES // (width * (4 * classes + 1))))


def most_likely(probabilities: NDArray[np.float32]) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """Return the class of the largest probability of each pixel, the first of equals, and that probability.

    Parameters
    ----------
    probabilities
        float32 [K, h, w], finite; K at most 256.

    Returns
    -------
    index : uint8 [h, w]
    largest : float32 [h, w]
    """
    largest: NDArray[np.float32] = probabilities.max(axis=0)
    # How many classes come before the first that reaches it: whole planes, tens of times as fast as argmax by pixel.
    index, before = np.zeros(largest.shape, np.uint8), np.ones(largest.shape, np.bool_)
    for plane in probabilities[:-1]:
        before &= plane != largest
        index += before.view(np.uint8)
    return index, largest


def most_likely_there(probabilities: Tensor) -> tuple[Tensor, Tensor]:
    """Return what `most_likely` does, on the device of the probabilities, float32 [K, h, w]."""
    largest = probabilities.amax(dim=0)
    index, before = torch.zeros_like(largest, dtype=torch.uint8), torch.ones_like(largest, dtype=torch.bool)
    for plane in probabilities[:-1]:
        before &= plane != largest
        index += before
    return index, largest


@lru_cache(maxsize=64)
def _profile(tile_size: int, overlap: int, kind: str, first: bool, last: bool) -> NDArray[np.float64]:
    """Return a tile's weights along one axis [tile_size]; the sides at the scene's border aren't tapered."""
    weights = np.ones(tile_size)
    ramp = (np.arange(overlap) + 0.5) / max(overlap, 1)
    if kind == "hann":
        weights[:overlap] = np.sin(0.5 * np.pi * ramp) ** 2
    elif kind == "linear":
        weights[:overlap] = ramp
    elif kind == "gaussian":
        centred = (np.arange(tile_size) + 0.5) / tile_size - 0.5
        weights = np.exp(-0.5 * (centred * 8) ** 2)  # sigma an eighth of the tile, as is usual in the field
        weights /= 1
    elif kind != "none":
        raise GoptGeoError("--blend", f"{kind!r} is unknown", "choose hann, linear, gaussian or none")
    half = tile_size - tile_size // 2
    lower = np.minimum(weights, weights[::-1]) if kind != "gaussian" else weights
    weights = np.maximum(lower, FLOOR)
    if first:
        weights[:half] = 1
    if last:
        weights[-half:] = 1
    weights.flags.writeable = False
    return weights


def blend_window(
    tile_size: int,
    overlap: int,
    kind: BlendKind = "hann",
    *,
    top: bool = False,
    bottom: bool = False,
    left: bool = False,
    right: bool = False,
) -> NDArray[np.float32]:
    """Return the blending weights of one tile before they are normalised, positive everywhere.

    Parameters
    ----------
    tile_size, overlap
        In pixels, as in `TilePlan`.
    kind
        "hann" and "linear" taper over the overlap, "gaussian" over the whole tile, "none" nowhere (a plain mean).
    top, bottom, left, right
        Whether that side is the scene's border (of the scene, not of a window on it): not tapered there.

    Returns
    -------
    numpy.ndarray
        float32 [tile_size, tile_size], between 1e-6 and 1.

    Raises
    ------
    GoptGeoError
        If `kind` is unknown.
    """
    rows = _profile(tile_size, overlap, kind, top, bottom)
    cols = _profile(tile_size, overlap, kind, left, right)
    return np.outer(rows, cols).astype(np.float32)


@lru_cache(maxsize=64)
def _normalised(tile_size: int, overlap: int, kind: str, before: int, after: int) -> Tensor:
    """Return the weights of a tile with `before` and `after` tiles on its two sides (2 stands for all above)."""
    own = _profile(tile_size, overlap, kind, before == 0, after == 0)
    total = own.copy()
    stride = tile_size - overlap  # at least half of a tile: only next neighbours overlap
    if overlap and before:
        total[:overlap] += _profile(tile_size, overlap, kind, before == 1, False)[stride:]
    if overlap and after:
        total[stride:] += _profile(tile_size, overlap, kind, False, after == 1)[:overlap]
    return torch.from_numpy((own / total).astype(np.float32))


def axis_weights(index: int, count: int, tile_size: int, overlap: int, kind: BlendKind) -> Tensor:
    """Return the weights of tile `index` of `count` along one axis, float32 [tile_size], normalised.

    The window of a tile is the product of its weights down and across, and all tiles of a plan are there: so the sum
    of windows over a pixel is a product too, and dividing along each axis makes the weights over every pixel sum to
    one. A pixel under a single tile has the weight 1 exactly.
    """
    return _normalised(tile_size, overlap, kind, min(index, 2), min(count - 1 - index, 2))


class BandAccumulator:
    """Sums weighted tiles over one tile row of a window, and hands on the rows that no later tile touches.

    Memory: float32 [K, tile_size, width of the window] and one tile; nothing grows with the window's height.

    Parameters
    ----------
    plan
        The scene's tiles.
    window
        Pixels to produce, inside the scene.
    classes
        K.
    kind
        Blending window.
    device
        Where the tiles' probabilities are, and are summed.
    likely
        Whether rows leave as `LikelyRows`.
    """

    def __init__(
        self,
        plan: TilePlan,
        window: Window,
        classes: int,
        kind: BlendKind,
        device: torch.device,
        *,
        likely: bool = False,
    ) -> None:
        self._plan, self._window, self._kind, self._device, self._likely = plan, window, kind, device, likely
        self._last = plan.touching(window)[0][-1]
        self._sum = torch.zeros((classes, plan.tile_size, window.width), device=device)
        self._weighted = torch.empty((classes, plan.tile_size, plan.tile_size), device=device)
        self._valid = np.zeros((plan.tile_size, window.width), bool)
        self._emit = emit_rows(classes, window.width)
        self._filled = 0  # finished tile rows, counted down, after which the sums are 0 again

    def add(self, row: int, col: int, probabilities: Tensor, valid: NDArray[np.bool_]) -> None:
        """Add a tile of the current tile row.

        Parameters
        ----------
        row, col
            The tile's place in the plan. Tiles must come in order, so that sums are rounded alike in every
            run.
        probabilities
            Floating point [K, tile_size, tile_size].
        valid
            bool [h, w], the tile's part inside the scene.
        """
        plan, start = self._plan, col * self._plan.stride
        first = max(start, self._window.col)
        stop = min(start + plan.tile_size, self._window.col_stop)
        here, there = (
            slice(first - start, stop - start),
            slice(first - self._window.col, stop - self._window.col),
        )
        down = axis_weights(row, plan.rows, plan.tile_size, plan.overlap, self._kind)
        across = axis_weights(col, plan.cols, plan.tile_size, plan.overlap, self._kind)
        # The two vectors travel, not their product: copies of a few KB don't wait for what a GPU still computes.
        weights = down.to(self._device)[:, None] * across[here].to(self._device)[None]
        # Two roundings, product and sum: a fused operation may round the tail of a row otherwise than its
        # body.
        part = self._weighted[:, :, : stop - first]
        torch.mul(probabilities[:, :, here].float(), weights, out=part)
        self._sum[:, :, there] += part
        self._filled = 2  # and the overlap with the next one
        inside = valid[:, here]  # the tile may hang over the scene on the right, the window never does
        self._valid[: inside.shape[0], there] |= inside

    def finish(self, row: int) -> Iterator[BlendedRows | LikelyRows]:
        """Yield the rows that tile row `row` completes, top down, then make room for the next tile row."""
        top, stride, overlap = row * self._plan.stride, self._plan.stride, self._plan.overlap
        start = max(self._window.row, top)
        stop = self._window.row_stop if row == self._last else min(self._window.row_stop, top + stride)
        for begin in range(start, stop, self._emit):
            yield self._rows(begin, min(begin + self._emit, stop), top)
        if not self._filled:
            return
        self._filled -= 1
        self._sum[:, :overlap] = self._sum[:, stride:]  # never one memory: the overlap is at most the stride
        self._sum[:, overlap:] = 0
        self._valid[:overlap] = self._valid[stride:]
        self._valid[overlap:] = False

    def _rows(self, start: int, stop: int, top: int) -> BlendedRows | LikelyRows:
        window = Window(start, self._window.col, stop - start, self._window.width)
        valid = self._valid[start - top : stop - top].copy()
        sums = self._sum[:, start - top : stop - top]
        rows: BlendedRows | LikelyRows
        if not valid.any():  # of memory that is never written none is taken
            if self._likely:
                return LikelyRows.blank(window)
            return BlendedRows(window, np.zeros((len(sums), *window.shape), np.float32), valid)
        if self._likely and self._device.type == "cpu":  # NumPy is quicker there
            rows = LikelyRows(window, *most_likely(sums.numpy()), valid)
        elif self._likely:  # five bytes a pixel leave a GPU
            index, largest = most_likely_there(sums)
            rows = LikelyRows(window, index.cpu().numpy(), largest.cpu().numpy(), valid)
        else:
            rows = BlendedRows(window, sums.to("cpu", copy=True).numpy(), valid)
        return rows if valid.all() else rows.within(valid)
