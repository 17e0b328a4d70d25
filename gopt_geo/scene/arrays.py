"""A scene held in memory, for experiments and tests."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from gopt_geo.grid import Window
from gopt_geo.scene.scene import SceneBlock

__all__ = ["ArrayScene"]


class ArrayScene:
    """Arrays that are read window by window like a `Scene`.

    Parameters
    ----------
    values
        float32 [C, H, W] by modality, in the pack's units.
    valid
        bool [H, W] by modality; a modality that isn't named is valid wherever its values are finite.

    Raises
    ------
    ValueError
        If the arrays' sizes differ.
    """

    def __init__(
        self, values: Mapping[str, NDArray[np.float32]], valid: Mapping[str, NDArray[np.bool_]] | None = None
    ) -> None:
        shapes = {array.shape[-2:] for array in (*values.values(), *(valid or {}).values())}
        if len(shapes) != 1:
            raise ValueError(f"arrays of one scene have different sizes: {sorted(shapes)}")
        self.shape: tuple[int, int] = shapes.pop()
        self.modalities = tuple(values)
        finite = {name: np.asarray(np.isfinite(array).all(axis=0)) for name, array in values.items()}
        self._valid: dict[str, NDArray[np.bool_]] = {
            name: finite[name] & (valid or finite).get(name, finite[name]) for name in values
        }
        self._values = {name: np.where(self._valid[name], array, np.float32(0)) for name, array in values.items()}

    def read(self, window: Window) -> SceneBlock:
        """Return a window, which may hang over the edges; invalid and 0 there."""
        inside = window.clip(self.shape)
        values, valid = {}, {}
        for name, array in self._values.items():
            block = np.zeros((array.shape[0], window.height, window.width), dtype=np.float32)
            mask = np.zeros((window.height, window.width), dtype=bool)
            if inside is not None:
                rows, cols = inside.slices_in(window)
                own = np.s_[inside.row : inside.row_stop, inside.col : inside.col_stop]
                block[:, rows, cols] = array[(slice(None), *own)]
                mask[rows, cols] = self._valid[name][own]
            values[name], valid[name] = block, mask
        return SceneBlock(values, valid)
