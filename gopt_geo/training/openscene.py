"""The data of a training on one scene."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace
from functools import partial

import numpy as np
from numpy.typing import NDArray

from gopt_geo.assessment.reference import ReferenceArea
from gopt_geo.datasets.base import SceneDataset
from gopt_geo.datasets.classes import ClassTable
from gopt_geo.datasets.configs import listed_classes
from gopt_geo.datasets.sceneimages import LabelledScene
from gopt_geo.datasets.splits import Split, split_labels
from gopt_geo.errors import AoiError, DatasetError, SplitError
from gopt_geo.grid import pixel_size_m
from gopt_geo.packmeta import ModalityInfo
from gopt_geo.training.augment import make_augmentation
from gopt_geo.training.channels import Units, channel_matrix, modality_info
from gopt_geo.training.config import SceneConfig, TrainConfig
from gopt_geo.training.data import Part, Tick, TrainingData
from gopt_geo.training.datareport import PARTS, DataReport, class_notices, shares
from gopt_geo.training.legend import class_infos, found_only, open_labels
from gopt_geo.training.opening import OpenedScene, open_images
from gopt_geo.training.sceneground import SceneGround, scene_area
from gopt_geo.training.statistics import BLOCKS, Moments, region_blocks, region_moments, with_bands
from gopt_geo.training.tally import LabelCells, Tally, tally_labels
from gopt_geo.training.tiles import TrainingTiles

__all__ = ["open_scene_data"]

_ROOM = 4
"""Tiles a side below which ground is too small for three parts with a tile in between, for the advice alone."""


def open_scene_data(
    config: TrainConfig,
    shape: tuple[int, int],
    in_chans: int,
    channel_names: Sequence[str],
    parts: Collection[str],
    tick: Tick | None = None,
) -> TrainingData:
    """Open a configuration's scene; see `gopt_geo.training.data.open_training_data`.

    Parameters
    ----------
    config
        With a scene.
    shape
        Height and width of training tiles.
    in_chans, channel_names, parts, tick
        See there.
    """
    said = config.scene
    assert said is not None
    given = listed_classes(config.classes, config.ignore)
    opened = open_images(config, in_chans, channel_names)
    try:
        if tick is not None:
            tick("labels", 0, 1)
        scene, table, tally = _labelled(said, config, given, opened)
        opened.notices.extend([n for n in scene.notices if n not in opened.notices])
        size = max(shape)
        split = _split(config, said, scene, size)
        return _finish(config, shape, in_chans, parts, opened, scene, table, tally, split, tick)
    except BaseException:
        opened.images.close()
        raise


def _split(config: TrainConfig, said: SceneConfig, scene: LabelledScene, size: int) -> Split:
    """Split the labels; what stands against it is told in the words of the command."""
    wanted = config.split
    try:
        return split_labels(
            scene, size, shares=wanted.shares, buffer=wanted.buffer, block=wanted.block, seed=wanted.seed
        )
    except SplitError as error:
        subject = said.labels if error.subject == str(scene) else error.subject
        remedy = error.remedy.replace("block=", "--block ")
        if wanted.block is None and wanted.buffer is None and _ROOM * size > min(scene.footprint.shape):
            remedy = f"label more ground, or give smaller tiles than {size} pixels: --tile-size"
        raise SplitError(subject, error.found, remedy) from error


def _labelled(
    said: SceneConfig, config: TrainConfig, given: ClassTable | None, opened: OpenedScene
) -> tuple[LabelledScene, ClassTable, Tally]:
    """Bring labels onto the scene, count them, and stop where nothing can be learnt from them."""
    grid = opened.images.grid
    assert grid is not None
    labels, table = open_labels(said, given, config.ignore, grid)
    scene = _inside(labels, opened)
    tally = tally_labels(scene, len(table))
    _check(tally, table, scene, labels, opened)
    if given is None and not tally.classes.all():
        kept = np.flatnonzero(tally.classes).tolist()
        table, scene = found_only(table, kept), scene.keeping(kept)
        tally = replace(tally, classes=tally.classes[kept])
    return scene, table, tally


def _inside(labels: SceneDataset, opened: OpenedScene) -> LabelledScene:
    scene = LabelledScene.of((opened.images, labels))
    assert isinstance(scene, LabelledScene)
    if opened.aoi is None:
        return scene
    try:
        return scene.inside(opened.aoi)
    except AoiError as error:
        if opened.images.grid is not None:
            opened.aoi.on(opened.images.grid)  # says so where the area lies off the scene
        found = f"it doesn't touch the ground that {labels} label"
        raise AoiError(opened.aoi.name, found, "give labels inside of the area, or another area") from error


def _check(tally: Tally, table: ClassTable, scene: LabelledScene, labels: SceneDataset, opened: OpenedScene) -> None:
    if not tally.seen_by.any():
        if opened.aoi is not None:
            found = f"{labels} has no labelled pixel in it"
            raise AoiError(opened.aoi.name, found, "give labels inside of the area, or another area")
        raise DatasetError(str(labels), "it has no labelled pixel", "check its nodata value and the values to ignore")
    if not tally.classes.any():
        names = " or ".join(scene.images.modalities)
        found = f"none of its {int(tally.seen_by.sum()):,} labelled pixels has data in {names}"
        raise DatasetError(str(labels), found, "give images of the same ground, and check nodata and cloud mask")
    there = np.flatnonzero(tally.classes)
    if len(there) == 1:
        found = f"all labelled pixels are of one class, {table.names[int(there[0])]}"
        raise DatasetError(str(labels), found, "label at least two classes; what isn't labelled is not background")


def _finish(
    config: TrainConfig,
    shape: tuple[int, int],
    in_chans: int,
    parts: Collection[str],
    opened: OpenedScene,
    scene: LabelledScene,
    table: ClassTable,
    tally: Tally,
    split: Split,
    tick: Tick | None,
) -> TrainingData:
    counts, lost = (_wide(array, len(table)) for array in (split.counts, split.lost))
    regions = dict(zip(PARTS, (split.train, split.val, split.test), strict=True))
    used = [part for part in PARTS if part in parts and regions[part] is not None]
    ground = SceneGround(scene, split.train, shape) if "train" in used else None
    infos, spread, measured = _statistics(config, in_chans, opened, split if ground is not None else None, tick)
    tiles = None
    if ground is not None:
        units = {name: info.units for name, info in infos.items()}
        augmentation = make_augmentation(config.augmentation, units, spread)
        tiles = TrainingTiles(ground, shape, augmentation, config.training.seed)
    classes = class_infos(table)
    numbers: dict[str, int] = {}
    for part in used:
        region = regions[part]
        assert region is not None
        numbers[part] = ground.rounds if part == "train" and ground else LabelCells(scene, region, shape).count
    notices = [*opened.notices, *(n for n in split.notices if not n.startswith("warning: class "))]
    notices += class_notices(classes, counts, used)
    grid = opened.images.grid
    assert grid is not None
    size = pixel_size_m(grid)
    height, width = opened.images.shape
    report = DataReport(
        f"scene of {height} x {width} pixels of {size:.4g} m (height x width)",
        classes,
        infos,
        counts,
        lost,
        numbers,
        shares(tally.seen_by),
        _shown(opened, tally),
        measured,
        notices,
    )
    return TrainingData(
        classes,
        infos,
        size,
        shape,
        counts,
        report,
        opened.aoi.wkt if opened.aoi is not None else None,
        opened.sources,
        tiles,
        partial(_areas, scene, split),
        opened.images.close,
    )


def _areas(scene: LabelledScene, split: Split, part: Part, tile_size: int) -> list[ReferenceArea]:  # noqa: ARG001
    return scene_area(scene, split, part)


def _wide(counts: NDArray[np.int64], classes: int) -> NDArray[np.int64]:
    """Return counts with a column for each class of the legend."""
    return np.pad(counts, ((0, 0), (0, max(classes - counts.shape[1], 0))))[:, :classes]


def _shown(opened: OpenedScene, tally: Tally) -> dict[str, float]:
    total = max(int(tally.seen_by.sum()), 1)
    return {name: int(count) / total for name, count in zip(opened.images.modalities, tally.shown, strict=True)}


def _statistics(
    config: TrainConfig, in_chans: int, opened: OpenedScene, split: Split | None, tick: Tick | None
) -> tuple[dict[str, ModalityInfo], dict[str, tuple[float, ...]], str]:
    """Measure the channels on training ground, and the bands for the offsets of augmentation."""
    units: dict[str, Units] = opened.units
    matrices = {name: channel_matrix(len(bands), in_chans) for name, bands in opened.bands.items()}
    if split is None:
        moments = {name: Moments.standard(matrix) for name, matrix in matrices.items()}
        measured = "nothing: training wasn't opened"
    else:
        blocks, of = region_blocks(split.train, BLOCKS, config.training.seed)
        stacked = {name: with_bands(matrix) for name, matrix in matrices.items()}
        done = (lambda i: tick("statistics", i, len(blocks))) if tick is not None else None
        moments = region_moments(opened.images, split.train, stacked, blocks, done)
        measured = f"the training ground's valid pixels in {len(blocks)} of {of} blocks of 512 x 512 pixels"
        if len(blocks) == of:
            measured = "all valid pixels of the training ground"
    infos, spread = {}, {}
    for name, found in moments.items():
        infos[name] = modality_info(name, opened.bands[name], units[name], matrices[name], found.first(in_chans))
        spread[name] = tuple(float(value) for value in found.std[in_chans:])
    return infos, spread, measured
