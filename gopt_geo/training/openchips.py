"""The data of a training on a data set of chips."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from gopt_geo.assessment.reference import ReferenceArea
from gopt_geo.datasets.chips import ChipDataset
from gopt_geo.datasets.classes import ClassTable
from gopt_geo.datasets.configs import listed_classes
from gopt_geo.datasets.registry import open_dataset
from gopt_geo.errors import DatasetError
from gopt_geo.packmeta import ClassInfo, ModalityInfo
from gopt_geo.training.augment import make_augmentation
from gopt_geo.training.channels import Matrix, channel_matrix, modality_info
from gopt_geo.training.chipareas import chip_areas
from gopt_geo.training.chipground import ChipGround, Chips, ChipScan, scan_chips
from gopt_geo.training.config import TrainConfig
from gopt_geo.training.data import Part, Tick, TrainingData
from gopt_geo.training.datareport import PARTS, DataReport, class_notices, shares
from gopt_geo.training.legend import class_infos
from gopt_geo.training.opening import chosen_modalities
from gopt_geo.training.statistics import Moments, with_bands
from gopt_geo.training.tiles import TrainingTiles

__all__ = ["open_chip_data"]

_MOST = 255  # classes that labels without a class list may have


def open_chip_data(
    config: TrainConfig,
    shape: tuple[int, int],
    in_chans: int,
    channel_names: Sequence[str],  # noqa: ARG001
    parts: Collection[str],
    tick: Tick | None = None,
) -> TrainingData:
    """Open a configuration's data set; see `gopt_geo.training.data.open_training_data`.

    Parameters
    ----------
    config
        With a data set.
    shape
        Height and width of training tiles.
    in_chans, channel_names, parts, tick
        See there. Files of chips don't name their bands: the first that the backbone has channels for are taken.
    """
    used = [part for part in PARTS if part in parts]
    chips = _open(config, used, in_chans)
    first = next(iter(chips.values()))
    matrices = {name: channel_matrix(count, in_chans) for name, count in first.bands.items()}
    known = {name: _known(first.dataset, name, matrix) for name, matrix in matrices.items()}
    moments = {name: Moments(with_bands(matrix)) for name, matrix in matrices.items()}
    table = first.dataset.classes
    scans = {}
    for part, some in chips.items():
        done = partial(_tell, tick, f"look at {part}", len(some)) if tick is not None else None
        scans[part] = scan_chips(some, len(table) if table else _MOST, moments if part == "train" else None, done)
    infos, spread, measured = {}, {}, "nothing: training wasn't opened"
    for name, matrix in matrices.items():
        found = moments[name] if "train" in chips else Moments.standard(with_bands(matrix))
        chosen = known[name] or found.first(in_chans)
        bands = tuple(f"band {i}" for i in range(1, first.bands[name] + 1))
        infos[name] = modality_info(name, bands, "raw", matrix, chosen)
        spread[name] = tuple(float(value) for value in found.std[in_chans:])
    if "train" in chips:
        usual = [name for name in known if known[name] is not None]
        measured = "all valid pixels of the training chips"
        if usual:
            measured = f"{', '.join(usual)}: as usual for this data set; else of all valid pixels of the training chips"
    return _finish(config, shape, chips, scans, infos, spread, measured)


def _tell(tick: Tick, stage: str, total: int, done: int) -> None:
    tick(stage, done, total)


def _open(config: TrainConfig, used: Sequence[Part], in_chans: int) -> dict[Part, Chips]:
    """Open the parts of the data set."""
    name, root, splits = config.dataset, config.root, config.splits
    assert name is not None
    assert root is not None
    assert splits is not None
    given = listed_classes(config.classes, config.ignore)
    if given is None and config.ignore:
        found = f"{', '.join(map(str, config.ignore))} can't be ignored without a class list"
        raise DatasetError("ignore", found, "name the classes with classes, or leave ignore out")
    chips: dict[Part, Chips] = {}
    for part in used:
        split = getattr(splits, part)
        dataset = open_dataset(name, Path(root).expanduser(), split, classes=given, **config.options)
        names = chosen_modalities(config, dataset.modalities, name)
        sample = dataset[0]
        chips[part] = Chips(dataset, {m: _used(m, int(sample[m].shape[0]), in_chans) for m in names})
    return chips


def _used(modality: str, bands: int, in_chans: int) -> int:
    """Return how many bands are used: of optical images with more than the backbone takes, the first."""
    return min(bands, in_chans) if modality == "optical" else bands


def _known(dataset: ChipDataset, name: str, matrix: Matrix) -> Moments | None:
    """Return a data set's usual statistics as those of the channels, where each channel is one band."""
    usual = dataset.statistics.get(name)
    if usual is None or any(sorted(row)[:-1] != [0.0] * (len(row) - 1) for row in matrix):
        return None
    picks = [row.index(1.0) for row in matrix]
    if max(picks) >= len(usual.mean):
        return None
    mean = np.array([usual.mean[i] * usual.divide for i in picks])
    std = np.array([usual.std[i] * usual.divide for i in picks])
    return Moments.of(matrix, mean, std)


def _finish(
    config: TrainConfig,
    shape: tuple[int, int],
    chips: dict[Part, Chips],
    scans: dict[Part, ChipScan],
    infos: dict[str, ModalityInfo],
    spread: dict[str, tuple[float, ...]],
    measured: str,
) -> TrainingData:
    first = next(iter(chips.values())).dataset
    table = first.classes or _indexes(scans, config)
    counts = np.zeros((len(PARTS), len(table)), np.int64)
    for part, scan in scans.items():
        counts[PARTS.index(part)] = scan.counts.sum(axis=0)[: len(table)]
    labelled = {part: np.flatnonzero(scan.counts.sum(axis=1)).tolist() for part, scan in scans.items()}
    _check(config, table, counts, labelled)
    tiles = None
    if "train" in chips:
        units = {name: info.units for name, info in infos.items()}
        ground = ChipGround(chips["train"], labelled["train"], config.training.seed, scans["train"].labelled)
        tiles = TrainingTiles(
            ground, shape, make_augmentation(config.augmentation, units, spread), config.training.seed
        )
    classes = class_infos(table)
    report = _report(config, chips, scans, infos, measured, classes, counts, labelled)
    root = Path(config.root or "").name
    areas = partial(_areas, chips, scans, labelled)
    sources = (f"{config.dataset} ({root})",)
    return TrainingData(classes, infos, None, shape, counts, report, None, sources, tiles, areas)


def _indexes(scans: dict[Part, ChipScan], config: TrainConfig) -> ClassTable:
    """Return classes for labels that are indexes already: as many as the highest needs."""
    total = sum(scan.counts.sum(axis=0) for scan in scans.values())
    there = np.flatnonzero(total)
    if not len(there):
        raise DatasetError(f"{config.dataset} ({config.root})", "it has no labelled pixel", "check the labels")
    count = int(there[-1]) + 1
    return ClassTable(tuple(range(count)), tuple(f"class {value}" for value in range(count)))


def _check(config: TrainConfig, table: ClassTable, counts: NDArray[np.int64], labelled: dict[Part, list[int]]) -> None:
    subject = f"{config.dataset} ({config.root})"
    for part, indexes in labelled.items():
        if not indexes:
            found = f"no chip of {part} has a labelled pixel"
            raise DatasetError(subject, found, "name other splits, or check the labels and the values to ignore")
    if "train" in labelled and (counts[0] > 0).sum() == 1:
        found = f"all labelled pixels of train are of one class, {table.names[int(counts[0].argmax())]}"
        raise DatasetError(subject, found, "training needs at least two classes")


def _report(
    config: TrainConfig,
    chips: dict[Part, Chips],
    scans: dict[Part, ChipScan],
    infos: dict[str, ModalityInfo],
    measured: str,
    classes: tuple[ClassInfo, ...],
    counts: NDArray[np.int64],
    labelled: dict[Part, list[int]],
) -> DataReport:
    notices: list[str] = []
    for part, some in chips.items():
        notices += [notice for notice in some.dataset.notices if notice not in notices]
        empty = len(some) - len(labelled[part])
        if empty:
            notices.append(f"{part}: {empty} of {len(some)} chips have no labelled pixel, and are left out")
    notices += class_notices(classes, counts, list(chips))
    sizes = {tuple(shape) for scan in scans.values() for shape in scan.shapes.tolist()}
    size = " x ".join(map(str, next(iter(sizes)))) if len(sizes) == 1 else f"{len(sizes)} sizes"
    numbers = ", ".join(f"{part} {len(some)}" for part, some in chips.items())
    seen_by = sum(scan.seen_by for scan in scans.values())
    total = max(int(np.sum(seen_by)), 1)
    shown = sum(scan.shown for scan in scans.values())
    return DataReport(
        f"{config.dataset} in {config.root}: chips of {size} pixels ({numbers})",
        classes,
        infos,
        counts,
        np.zeros_like(counts),
        {part: len(indexes) for part, indexes in labelled.items()},
        shares(np.asarray(seen_by)),
        {name: float(count / total) for name, count in zip(infos, np.asarray(shown), strict=True)},
        measured,
        notices,
    )


def _areas(
    chips: dict[Part, Chips], scans: dict[Part, ChipScan], labelled: dict[Part, list[int]], part: Part, tile_size: int
) -> list[ReferenceArea]:
    return chip_areas(chips[part], scans[part].shapes, labelled[part], tile_size)
