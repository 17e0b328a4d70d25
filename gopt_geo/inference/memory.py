"""Memory: what a run will hold at most, and the column strips that keep it under a ceiling."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch

from gopt_geo.errors import DeviceMemoryError, GoptGeoError
from gopt_geo.grid import Window
from gopt_geo.inference.blend import EMIT_BYTES, EMIT_ROWS
from gopt_geo.inference.tiles import LOOKAHEAD

__all__ = ["STRIP", "MemoryNeed", "column_strips", "memory_errors", "ran_out_of_memory"]

STRIP = 512
"""Strips begin and end at multiples of this column: the blocks that sources are warped and written in."""
_OUT_OF_MEMORY = ("can't allocate memory", "out of memory", "ALLOC_FAILED")


@dataclass(frozen=True)
class MemoryNeed:
    """Upper bound of a run's memory in bytes; it grows with the width of the strip.

    Attributes
    ----------
    fixed
        Tiles read ahead, tiles that wait for their batch, the batch and its output, and what the caller
        reserves.
    per_column
        The accumulator's share of one column.
    per_pixel
        Of finished rows.
    emitted
        Bands of finished rows that are held at a time.
    """

    fixed: int
    per_column: int
    per_pixel: int
    emitted: int

    @classmethod
    def of(
        cls,
        *,
        tile_size: int,
        batch_size: int,
        ahead: int,
        classes: int,
        channels: list[int],
        reserved: int,
        write_ahead: int = 0,
    ) -> MemoryNeed:
        """Return the bound for tiles of one number of channels for each modality."""
        area = tile_size * tile_size
        tile = area * (4 * sum(channels) + len(channels) + 1)
        output = area * 4 * classes
        waiting = LOOKAHEAD * batch_size * max(tile, output)
        fixed = (ahead + batch_size) * tile + waiting + 2 * batch_size * output + reserved
        pixel = 4 * classes + 1
        # Rows on their way out exist twice, as copied for the sink, and as whatever the sink derives from them; and
        # as often as they may wait for it.
        return cls(fixed, tile_size * pixel, pixel, 2 + write_ahead)

    def at(self, width: int) -> int:
        """Return the bytes that a strip of `width` columns needs."""
        row = width * self.per_pixel
        band = max(row, min(EMIT_ROWS * row, EMIT_BYTES))
        return self.fixed + self.per_column * width + self.emitted * band


def column_strips(window: Window, need: MemoryNeed, limit: int | None) -> list[Window]:
    """Cut a window into the fewest column strips that stay under `limit` bytes, all about equally wide.

    Raises
    ------
    GoptGeoError
        If even the narrowest strip needs more; the message names what it needs.
    """
    if limit is None or need.at(window.width) <= limit:
        return [window]
    first, stop = window.col // STRIP, -(-window.col_stop // STRIP)
    least = need.at(min(STRIP, window.width))
    if least > limit:
        raise GoptGeoError(
            "--max-memory",
            f"{limit / 2**20:.0f} MiB are too little for these tiles, which need {-(-least // 2**20)} MiB",
            f"give at least {-(-least // 2**20)} MiB, or lower --tile-size or --batch-size",
        )
    blocks = stop - first
    most = bisect_right(range(blocks + 1), limit, key=lambda count: need.at(count * STRIP)) - 1
    each = -(-blocks // -(-blocks // max(1, most)))
    strips = (Window(window.row, block * STRIP, window.height, each * STRIP) for block in range(first, stop, each))
    return [part for strip in strips if (part := strip.intersect(window)) is not None]


def ran_out_of_memory(error: Exception) -> bool:
    """Tell whether an error is one of the several in which memory that ran out shows."""
    known = isinstance(error, (torch.OutOfMemoryError, MemoryError))
    return known or any(sign in str(error) for sign in _OUT_OF_MEMORY)


@contextmanager
def memory_errors(device: torch.device, tile_size: int, batch_size: int | Callable[[], int]) -> Iterator[None]:
    """Turn the several ways in which memory runs out into one DeviceMemoryError; let all else pass.

    The size of a batch may be a function that tells it: the one in use when memory runs out is named.
    """
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not ran_out_of_memory(error):
            raise
        size = batch_size if isinstance(batch_size, int) else batch_size()
        raise DeviceMemoryError(
            f"device {device}",
            f"out of memory with batches of {size} tile{'s' * (size > 1)} of {tile_size} x {tile_size} pixels",
            f"lower {'--batch-size or ' * (size > 1)}--tile-size, or set a ceiling with --max-memory",
        ) from error
