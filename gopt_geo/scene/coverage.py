"""How much of a scene all of its sources have data for, counted while its tiles are read."""

from __future__ import annotations

import threading

import numpy as np

from gopt_geo.grid import Window
from gopt_geo.scene.scene import Scene, SceneBlock

__all__ = ["CoverageCount"]


class CoverageCount:
    """A scene that counts, tile by tile, the pixels at which every modality is valid.

    Parameters
    ----------
    scene
        What is read.
    tile_size, stride
        Of the tile plan: tile (i, j) starts at (i, j) x stride and counts its first ``stride`` rows and columns, the
        last of a row or column all of its own; so every pixel counts once, however the tiles overlap.
    """

    def __init__(self, scene: Scene, tile_size: int, stride: int) -> None:
        self.shape = scene.shape
        self._scene, self._tile_size, self._stride = scene, tile_size, stride
        self._lock = threading.Lock()
        self._seen: set[tuple[int, int]] = set()
        self._both = 0

    @property
    def share(self) -> float:
        """Share of the scene's pixels at which every modality is valid, once all tiles have been read."""
        return self._both / (self.shape[0] * self.shape[1])

    def read(self, window: Window) -> SceneBlock:
        """Read a window of the scene; count it if it is a tile that wasn't read before (strips share some)."""
        block = self._scene.read(window)
        height, width = (
            min(self._tile_size, n - at) for n, at in zip(self.shape, (window.row, window.col), strict=True)
        )
        if window.shape == (height, width):
            own_height, own_width = (
                size if at + size >= n else self._stride
                for size, at, n in zip((height, width), (window.row, window.col), self.shape, strict=True)
            )
            both = np.logical_and.reduce([mask[:own_height, :own_width] for mask in block.valid.values()]).sum()
            with self._lock:
                if (window.row, window.col) not in self._seen:
                    self._seen.add((window.row, window.col))
                    self._both += int(both)
        return block
