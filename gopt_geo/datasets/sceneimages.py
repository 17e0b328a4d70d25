"""The images of one scene, all modalities at once, as one data set on the scene's grid."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray

from gopt_geo.datasets.base import IGNORED, Sample, SceneDataset, is_grid
from gopt_geo.datasets.blocks import Blocks, Layer, Reopening
from gopt_geo.datasets.geo import ScenePairs
from gopt_geo.errors import DatasetError
from gopt_geo.grid import GeoBox, Window
from gopt_geo.paths import StrPath
from gopt_geo.scene import Scene
from gopt_geo.scene.scene import SceneBlock

__all__ = ["CACHE_BYTES", "LabelledScene", "SceneImages", "bytes_of"]

CACHE_BYTES = 512 << 20
"""Bytes of finished blocks that are kept in memory, in each process."""


class SceneImages(SceneDataset):
    """All modalities of an open scene.

    Where `gopt_geo.datasets.geo.ImageDataset` takes one source, this takes a scene: what `open_scene` decides about
    the grid, and the correction of a shift, holds for it. A sample holds ``NAME`` and ``validity_NAME`` for each
    modality; it lies wherever the scene does, whether one modality has data there or all.

    Parameters
    ----------
    scene
        Opened with ``cache_bytes=0``: finished blocks are kept here. It is closed with this object.
    cache_bytes, cache_dir
        See `gopt_geo.datasets.geo.ImageDataset`; the bound holds for all modalities together.

    Raises
    ------
    GridError
        If the scene's grid has no CRS, or is rotated.
    DatasetError
        If `cache_dir` can't be written to.
    """

    def __init__(self, scene: Scene, *, cache_bytes: int = CACHE_BYTES, cache_dir: StrPath | None = None) -> None:
        self.grid, self.notices = scene.grid, list(scene.notices)
        self.modalities = scene.modalities
        self.counts = scene.counts
        self._scene = Reopening(scene)
        layers = [layer for name in self.modalities for layer in _layers(self.counts[name])]
        produce = _SceneBlocks(self._scene)
        self._blocks = Blocks(scene.shape, layers, produce, cache_bytes, cache_dir)
        self._place(Window(0, 0, *scene.shape), None, None)

    def __str__(self) -> str:
        return f"SceneImages({', '.join(self.modalities)})"

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width of the scene in pixels."""
        return self._footprint.shape

    @property
    def keys(self) -> tuple[str, ...]:
        """Each modality, and its validity."""
        return tuple(key for name in self.modalities for key in (name, f"validity_{name}"))

    def on(self, grid: GeoBox) -> Self:
        """Return the data set itself: a scene's grid is chosen when it is opened.

        Raises
        ------
        DatasetError
            If another grid is asked for.
        """
        if self.grid is None or not is_grid(self.grid, grid):
            raise DatasetError(str(self), "a scene's grid is chosen when it is opened", "open it with grid=...")
        return self

    def read(self, window: Window, into: Sample | None = None) -> Sample:
        """Return values and validity of a window of the grid."""
        if into is not None:
            self._blocks.read(window, tuple(into[key].numpy() for key in self.keys))
            return into
        return {key: torch.from_numpy(array) for key, array in zip(self.keys, self._blocks.read(window), strict=True)}

    def block(self, window: Window) -> SceneBlock:
        """Return the same as arrays, as the tiler reads them; from any thread."""
        arrays = dict(zip(self.keys, self._blocks.read(window), strict=True))
        return SceneBlock(
            {name: arrays[name] for name in self.modalities},
            {name: arrays[f"validity_{name}"] for name in self.modalities},
        )

    def seen(self, window: Window) -> NDArray[np.bool_]:
        """Tell where at least one modality has data, bool [h, w]."""
        return np.asarray(np.logical_or.reduce(list(self.block(window).valid.values())))

    def close(self) -> None:
        """Close the files."""
        self._scene.get().close()


def _layers(bands: int) -> tuple[Layer, Layer]:
    return Layer((bands,), np.float32), Layer((), np.bool_)


def bytes_of(scene: Scene) -> int:
    """Return the bytes that all finished blocks of a scene take."""
    height, width = scene.shape
    return height * width * sum(4 * bands + 1 for bands in scene.counts.values())


@dataclass(frozen=True)
class _SceneBlocks:
    """Produces blocks of a scene."""

    scene: Reopening[Scene]

    def __call__(self, block: Window) -> tuple[NDArray[np.float32] | NDArray[np.bool_], ...]:
        pixels = self.scene.get().read(block)
        return tuple(array for name in pixels.values for array in (pixels.values[name], pixels.valid[name]))


class LabelledScene(ScenePairs):
    """A scene's images and labels, whose labels count only where an image shows what they label.

    Made by ``LabelledScene.of((images, labels))``, `SceneImages` first.
    """

    _lookup: NDArray[np.uint8] | None = None

    @property
    def images(self) -> SceneImages:
        """The images."""
        images = self.members[0]
        assert isinstance(images, SceneImages)
        return images

    def keeping(self, classes: Sequence[int]) -> Self:
        """Return the data set with some of its classes alone, renumbered in their order; the others are ignored."""
        kept = copy.copy(self)
        kept._lookup = np.full(256, IGNORED, np.uint8)
        kept._lookup[np.asarray(classes, np.int64)] = np.arange(len(classes), dtype=np.uint8)
        return kept

    def read_labels(self, window: Window) -> NDArray[np.uint8]:
        """Return the labels of a window that count, uint8 [h, w]; see `SceneDataset.read_labels`."""
        mask = self.all_labels(window)
        if (mask != IGNORED).any():
            mask[~self.images.seen(window)] = IGNORED
        return mask

    def all_labels(self, window: Window) -> NDArray[np.uint8]:
        """Return the labels of a window, those that no image shows too, uint8 [h, w]."""
        mask = super().read_labels(window)
        return mask if self._lookup is None else self._lookup[mask]

    def cut(self, window: Window) -> Sample:
        """Return a sample without ``bounds`` and ``transform``, hidden as the part of a split says."""
        sample = self._shown(window)
        if self._lookup is not None:
            sample["mask"] = torch.from_numpy(self._lookup)[sample["mask"]].long()
        seen = torch.stack([sample[f"validity_{name}"] for name in self.images.modalities]).any(dim=0)
        sample["mask"].masked_fill_(~seen, IGNORED)
        return sample
