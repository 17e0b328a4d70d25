"""The data of a training: from a configuration to training tiles, areas of validation and test, and a report."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Self

import numpy as np
from numpy.typing import NDArray

from gopt_geo.errors import GoptGeoError
from gopt_geo.packmeta import ClassInfo, ModalityInfo
from gopt_geo.training.config import TrainConfig
from gopt_geo.training.datareport import PARTS, DataReport, Part
from gopt_geo.training.tiles import TrainingTiles

if TYPE_CHECKING:
    from gopt_geo.assessment.reference import ReferenceArea

__all__ = ["Part", "Tick", "TrainingData", "TrainingTiles", "open_training_data", "tile_shape"]

Tick = Callable[[str, int, int], None]
"""Told a stage, and how much of how much is done in it."""

_SMALL_PATCH, _SMALL_TILE, _TILE = 8, 128, 256


def _nothing() -> None:
    """Close nothing."""


@dataclass(frozen=True)
class TrainingData:
    """What a training is fed with; made by `open_training_data`. A context manager that closes the files.

    Attributes
    ----------
    classes
        Legend; class index k is ``classes[k]``.
    modalities
        By name, the primary one first: bands, units, channels, and statistics of the training ground (mean 0 and
        std 1 where training wasn't opened).
    resolution_m
        Pixel size on the ground in metres; None where nothing tells (chips).
    tile_shape
        Height and width of a training tile, multiples of the backbone's patch.
    counts
        Labelled pixels as used, int64 [3, K], of training, validation and test; 0 in parts that weren't opened.
    report
        What was found.
    aoi_wkt
        Area of interest in EPSG:4326, None without one.
    sources
        What the data are called, for provenance.
    """

    classes: tuple[ClassInfo, ...]
    modalities: dict[str, ModalityInfo]
    resolution_m: float | None
    tile_shape: tuple[int, int]
    counts: NDArray[np.int64]
    report: DataReport
    aoi_wkt: str | None
    sources: tuple[str, ...]
    _tiles: TrainingTiles | None = field(repr=False)
    _areas: Callable[[Part, int], list[ReferenceArea]] = field(repr=False)
    _close: Callable[[], None] = field(default=_nothing, repr=False)

    @property
    def train(self) -> TrainingTiles:
        """Training tiles, without end.

        Raises
        ------
        ValueError
            If the part "train" wasn't opened.
        """
        if self._tiles is None:
            raise ValueError("training wasn't opened: parts has no 'train'")
        return self._tiles

    def areas(self, part: Part, tile_size: int) -> list[ReferenceArea]:
        """Return a part as areas for the tiler.

        Of a scene there is one: images around the labels of the part are shown. Of chips, those no larger than a tile
        make one area of a tile each, larger ones an area each.

        Parameters
        ----------
        part
            "train", "val" or "test".
        tile_size
            Of the tiles that will be run, in pixels.

        Raises
        ------
        ValueError
            If the part wasn't opened.
        """
        if part not in self.report.tiles:
            raise ValueError(f"part {part!r} wasn't opened")
        return self._areas(part, tile_size)

    def close(self) -> None:
        """Close all files."""
        self._close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def open_training_data(
    config: TrainConfig,
    *,
    patch_size: int,
    in_chans: int,
    channel_names: Sequence[str] = (),
    parts: Collection[str] = PARTS,
    tick: Tick | None = None,
) -> TrainingData:
    """Open the data of a configuration, look at all labels, and measure the statistics of the training ground.

    Parameters
    ----------
    config
        With a scene, or a data set of chips.
    patch_size, in_chans, channel_names
        Of the backbone: edge of its patches in pixels, channels it expects, and how these are called.
    parts
        Which of "train", "val" and "test" will be used. Without "train" no statistics are measured.
    tick
        Told how far it is; large data take a while.

    Raises
    ------
    GoptGeoError
        If training can't work with these data: see docs/training-data.md.
    """
    from gopt_geo.training import openchips, openscene

    shape = tile_shape(config, patch_size)
    opener = openscene.open_scene_data if config.scene is not None else openchips.open_chip_data
    return opener(config, shape, in_chans, channel_names, frozenset(parts), tick)


def tile_shape(config: TrainConfig, patch_size: int) -> tuple[int, int]:
    """Return height and width of training tiles: as asked for, else 128 (patches up to 8 pixels) or about 256.

    Raises
    ------
    GoptGeoError
        If patches don't divide the size asked for.
    """
    asked = config.training.tile_size
    if asked is None:
        edge = _SMALL_TILE if patch_size <= _SMALL_PATCH else _TILE
        edge = max(edge // patch_size, 1) * patch_size
        return edge, edge
    height, width = (asked, asked) if isinstance(asked, int) else asked
    for size in (height, width):
        if size < 1 or size % patch_size:
            lower = max(size // patch_size, 1) * patch_size
            found = f"the backbone cuts images into patches of {patch_size} pixels"
            remedy = f"use multiples of {patch_size}, such as {lower}"
            raise GoptGeoError(f"training.tile_size: {asked}", found, remedy)
    return height, width
