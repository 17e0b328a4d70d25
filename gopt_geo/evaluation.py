"""A pack on the labelled ground of a configuration: figures of one of its parts, at one size and at several."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, get_args

import torch

from gopt_geo.aoi import read_aoi
from gopt_geo.assessment.conventions import conventions
from gopt_geo.assessment.evaluate import Assessment, evaluate_map
from gopt_geo.assessment.modelscores import ModelScores, evaluate_model
from gopt_geo.assessment.reference import ReferenceArea
from gopt_geo.assessment.scorenotices import only_predicted
from gopt_geo.ceiling import check_tiles
from gopt_geo.classnames import first_few
from gopt_geo.datasets.chips import Scoring
from gopt_geo.datasets.registry import dataset_class
from gopt_geo.errors import AoiError, ConfigError, GoptGeoError, PackError
from gopt_geo.inference import TileModel, TileOptions
from gopt_geo.inference.augmented import SCALES, AugmentedModel, Symmetry
from gopt_geo.inference.execution import Execution, PrecisionName
from gopt_geo.inference.memory import memory_errors
from gopt_geo.inference.packmodel import PackModel
from gopt_geo.inference.reading import usual_readers
from gopt_geo.packs import Pack, PackMeta, load_model, read_pack
from gopt_geo.paths import StrPath
from gopt_geo.scalelimits import wrong_scale
from gopt_geo.training.config import TrainConfig
from gopt_geo.training.configfile import Override, read_train_config
from gopt_geo.training.progress import TrainProgress

if TYPE_CHECKING:
    from gopt_geo.training.data import TrainingData

__all__ = ["PackAssessment", "evaluate", "evaluate_pack"]

Split = Literal["train", "val", "test"]


@dataclass(frozen=True)
class PackAssessment:
    """What `evaluate_pack` found.

    Attributes
    ----------
    pack, config, split
        What was evaluated on what.
    class_values, class_names
        The K classes.
    single
        At the one size 1, as prediction runs.
    augmented
        Averaged over `scales`, mirrored too if `flip`; None where that wasn't asked for.
    scales, flip
        Of the augmented figures.
    scoring
        How published figures of the data set are made; None where it states nothing.
    tiles
        Tile size and overlap in pixels.
    notices
        What the reader of the figures should know.
    """

    pack: str
    config: str
    split: str
    class_values: tuple[int, ...]
    class_names: tuple[str, ...]
    single: ModelScores
    augmented: ModelScores | None
    scales: tuple[float, ...]
    flip: bool
    scoring: Scoring | None
    tiles: tuple[int, int]
    notices: tuple[str, ...]

    @property
    def conventions(self) -> tuple[str, ...]:
        """How the figures are made, a line each."""
        boundary = self.single.boundary
        lines = conventions(
            self.single.scores,
            None if boundary is None else boundary.tolerance,
            len(self.single.calibration.pixels),
        )
        size, overlap = self.tiles
        tiles = f"tiles of {size} pixels, overlap {overlap} (none between chips), temperature of the pack applied"
        return (*lines, tiles, *((self.scoring.note,) if self.scoring is not None and self.scoring.note else ()))

    def to_dict(self) -> dict[str, Any]:
        """Return all figures as plain types for JSON; undefined ones are None."""
        augmented = None
        if self.augmented is not None:
            augmented = {
                "scales": list(self.scales),
                "flip": self.flip,
                **self.augmented.to_dict(),
                **self._with_zero_classes(self.augmented),
            }
        return {
            "pack": self.pack,
            "config": self.config,
            "split": self.split,
            "classes": [
                {"value": value, "name": name} for value, name in zip(self.class_values, self.class_names, strict=True)
            ],
            **self.single.to_dict(),
            **self._with_zero_classes(self.single),
            "augmented": augmented,
            "conventions": list(self.conventions),
            "notices": list(self.notices),
        }

    def _with_zero_classes(self, scores: ModelScores) -> dict[str, Any]:
        """Return the mean IoU as some publications have it, with classes that count 0."""
        found = scores.scores
        if self.scoring is None or not self.scoring.zero_classes or found.absent or not found.pixels:
            return {}
        classes = self.scoring.averaged + self.scoring.zero_classes
        return {
            "mean_iou_with_zero_classes": {
                "classes": classes,
                "mean_iou": self.scoring.with_zero_classes(found.mean_iou),
            }
        }


def evaluate(
    prediction: StrPath,
    reference: StrPath,
    *,
    class_field: str | None = None,
    aoi: StrPath | None = None,
    aoi_crs: str | None = None,
    ignore: Sequence[int] = (),
    confidence: StrPath | None = None,
    boundary: int | None = 3,
) -> Assessment:
    """Compare a land-cover map with reference labels.

    Parameters
    ----------
    prediction, reference, class_field, ignore, confidence, boundary
        See `gopt_geo.assessment.evaluate.evaluate_map`.
    aoi, aoi_crs
        Area that the comparison is limited to, see `gopt_geo.aoi.read_aoi`.

    Raises
    ------
    GoptGeoError
        See `gopt_geo.assessment.evaluate.evaluate_map`.
    """
    if aoi is None and aoi_crs is not None:
        raise AoiError("--aoi-crs", "it needs --aoi", "name an area, or leave it out")
    return evaluate_map(
        prediction,
        reference,
        ignore=ignore,
        class_field=class_field,
        aoi=None if aoi is None else read_aoi(aoi, aoi_crs),
        confidence=confidence,
        boundary=boundary,
    )


def evaluate_pack(
    pack: StrPath,
    config: StrPath,
    split: str = "test",
    *,
    root: StrPath | None = None,
    multi_scale: bool = False,
    scales: Sequence[float] | None = None,
    flip: bool = False,
    backbone_weights: StrPath | None = None,
    tile_size: int | None = None,
    overlap: int | None = None,
    batch_size: int | None = None,
    boundary: int | None = None,
    device: str = "auto",
    precision: PrecisionName = "auto",
    threads: int | None = None,
    progress: Callable[[TrainProgress], None] | None = None,
) -> PackAssessment:
    """Evaluate a pack on a part of a configured data set or scene, through the tiler that predicts.

    Parameters
    ----------
    pack
        Prompt pack.
    config
        Configuration of a training, which names data and split.
    split
        "train", "val" or "test".
    root
        The data set's folder instead of the configuration's.
    multi_scale
        Beside the figures at one size, also those averaged over sizes, with mirrored tiles.
    scales, flip
        The sizes, 0.1 to 10, and whether to mirror; either asks for the second figures too. Else as the configuration's
        section ``evaluation`` says.
    backbone_weights
        File with the weights of the pack's backbone; else see `gopt_geo.models.load_backbone`.
    tile_size, overlap, batch_size, boundary
        Else the configuration's, else the pack's.
    device, precision, threads
        Where and how the model runs, as in `gopt_geo.predict`; see `gopt_geo.maprequest.MapOptions`.
    progress
        Called after each tile.

    Returns
    -------
    PackAssessment

    Raises
    ------
    GoptGeoError
        If pack, configuration or data can't be read, or the pack is for other classes, modalities or bands.
    """
    if split not in get_args(Split):
        raise ConfigError(f"--split {split}", "there is no such part", f"choose from {', '.join(get_args(Split))}")
    overrides = [] if root is None else [Override(("root",), str(root), "--root")]
    settings = read_train_config(config, overrides)
    sizes, mirrored = _augmentation(settings, multi_scale=multi_scale, scales=scales, flip=flip)
    read = read_pack(pack)
    execution = Execution.choose(device, precision, threads=threads)
    options = _tiles(read.meta, settings, tile_size, overlap, batch_size, execution.device)
    within = boundary if boundary is not None else settings.evaluation.boundary
    with memory_errors(torch.device(options.device), options.tile_size, options.batch_size):
        model = PackModel(load_model(read, weights=backbone_weights), read.meta, options.tile_size, execution)
    check_tiles(model, options.tile_size, options.batch_size, f"--tile-size {options.tile_size}")
    patch = model.model.backbone.patch_size
    symmetry: Symmetry = "flip" if mirrored else "none"
    wrapped = None if sizes == (1.0,) and not mirrored else AugmentedModel(model, patch, sizes, symmetry)
    if wrapped is not None:
        largest = max(wrapped.sizes(options.tile_size))
        check_tiles(model, largest, options.batch_size, f"--scales {max(sizes):g}")
    with _open(settings, split, read.meta, patch, progress) as data, execution.in_force():
        notices = [*data.report.notices, *execution.notices, *check_fit(read, data, str(config))]
        areas = data.areas(split, options.tile_size)  # type: ignore[arg-type]

        def run(what: TileModel, stage: str) -> ModelScores:
            return _scores(what, areas, len(read.meta.classes), options, within, stage, progress)

        single = run(model, "evaluate")
        if not single.matrix.any():
            raise GoptGeoError(config, f"part {split!r} has no labelled pixel", "choose another --split")
        augmented = None if wrapped is None else run(wrapped, "multi-scale")
    values, names = zip(*((info.value, info.name) for info in read.meta.classes), strict=True)
    notices += only_predicted(single.matrix, values, names)
    return PackAssessment(
        pack=str(pack),
        config=str(config),
        split=split,
        class_values=values,
        class_names=names,
        single=single,
        augmented=augmented,
        scales=sizes,
        flip=mirrored,
        scoring=None if settings.dataset is None else dataset_class(settings.dataset).scoring,
        tiles=(options.tile_size, options.overlap),
        notices=tuple(dict.fromkeys(notices)),
    )


def _scores(
    model: TileModel,
    areas: Sequence[ReferenceArea],
    classes: int,
    options: TileOptions,
    boundary: int,
    stage: str,
    progress: Callable[[TrainProgress], None] | None,
) -> ModelScores:
    tick = None if progress is None else partial(_tell, progress, stage)
    return evaluate_model(model, areas, classes, options, boundary=boundary, progress=tick)


def _tell(progress: Callable[[TrainProgress], None], stage: str, done: int, total: int) -> None:
    progress(TrainProgress(stage, done, total, unit="tiles"))


def _open(
    settings: TrainConfig, split: str, meta: PackMeta, patch: int, progress: Callable[[TrainProgress], None] | None
) -> TrainingData:
    from gopt_geo.training.data import open_training_data

    tick = None if progress is None else partial(_tell, progress)
    primary = meta.modalities[meta.config.primary]
    return open_training_data(settings, patch_size=patch, in_chans=len(primary.mean), parts=(split,), tick=tick)


def _tiles(
    meta: PackMeta,
    settings: TrainConfig,
    tile_size: int | None,
    overlap: int | None,
    batch_size: int | None,
    device: torch.device,
) -> TileOptions:
    size = tile_size or settings.evaluation.tile_size or meta.tile_size
    asked = overlap if overlap is not None else settings.evaluation.overlap
    return TileOptions(
        tile_size=size,
        overlap=asked if asked is not None else max(0, min(meta.overlap, size // 2)),
        batch_size=batch_size if batch_size is not None else settings.evaluation.batch,
        readers=usual_readers(device),
        device=device,
    )


def _augmentation(
    settings: TrainConfig, *, multi_scale: bool, scales: Sequence[float] | None, flip: bool
) -> tuple[tuple[float, ...], bool]:
    """Return sizes and mirror of the second figures; (1,) and False for none."""
    own = tuple(settings.evaluation.scales)
    sizes = tuple(scales) if scales is not None else own
    wrong = wrong_scale(sizes, distinct=True)
    if wrong is not None or not sizes:
        _, found, remedy = wrong or (0, "there are none", "give sizes such as 0.75,1,1.25")
        raise GoptGeoError("--scales", found, remedy)
    if multi_scale:
        return (SCALES if sizes == (1.0,) and scales is None else sizes), True
    return sizes, flip or (scales is None and settings.evaluation.flip)


def check_fit(pack: Pack, data: TrainingData, config: str) -> list[str]:
    """Refuse a pack for other classes, modalities or bands than the data have; tell what it does without.

    Raises
    ------
    PackError
        If they don't go together.
    """
    meta, subject = pack.meta, pack.path or pack.meta.title
    mine, theirs = ([info.name for info in classes] for classes in (meta.classes, data.classes))
    if mine != theirs:
        found = f"its classes ({first_few(mine)}) aren't those of {config} ({first_few(theirs)})"
        raise PackError(subject, found, "use a pack that was trained on these classes, in this order")
    shared = [name for name in meta.modalities if name in data.modalities]
    if not shared:
        found = f"it takes {', '.join(meta.modalities)}, and {config} gives {', '.join(data.modalities)}"
        raise PackError(subject, found, "use a pack for these modalities")
    for name in shared:
        own, other = meta.modalities[name], data.modalities[name]
        for what, one, two in (("bands", own.bands, other.bands), ("units", (own.units,), (other.units,))):
            if one != two:
                found = f"its {what} of {name} ({', '.join(one)}) aren't those of {config} ({', '.join(two)})"
                raise PackError(subject, found, f"use a pack for these {what}, or choose others in the configuration")
    missing = [name for name in meta.modalities if name not in shared]
    if not missing:
        return []
    return [f"warning: the pack also takes {', '.join(missing)}, which {config} doesn't give: evaluated without"]
