"""After the last step: the best weights become a pack, calibrated and scored, with figures and a summary."""

from __future__ import annotations

import platform
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from gopt_geo.assessment.modelscores import ModelScores, evaluate_model
from gopt_geo.assessment.temperature import TemperatureFit, fit_temperature
from gopt_geo.inference.packmodel import PackModel
from gopt_geo.models.backbone import Backbone
from gopt_geo.models.gopt import GoPT
from gopt_geo.packmeta import PackMeta, Provenance
from gopt_geo.packs import write_pack
from gopt_geo.training.checkpoints import Checkpoint, unwritable
from gopt_geo.training.curves import draw_confusion, draw_curves, draw_examples
from gopt_geo.training.progress import TrainProgress
from gopt_geo.training.runfolder import PACK_NAME, MetricsTable, RunFolder
from gopt_geo.training.runpage import run_page
from gopt_geo.training.setup import Setup

if TYPE_CHECKING:
    from gopt_geo.training.data import TrainingData

__all__ = ["Finished", "finish"]

_HALF_COST = 1e-3
"""Largest change of the validation's mIoU at which weights are stored in half precision."""
_LIBRARIES = ("gopt-geo", "torch", "lightning", "timm", "numpy")

Say = Callable[[str], None]
Tell = Callable[[TrainProgress], None]


@dataclass(frozen=True)
class Finished:
    """What became of a training.

    Attributes
    ----------
    pack
        Where the pack stands.
    meta
        What it says.
    validation, test
        Scores of the weights as stored; test is None where the data have no such part.
    temperature
        How it was found.
    half
        Whether the weights are stored in half precision.
    notices
        What the user should know.
    """

    pack: Path
    meta: PackMeta
    validation: ModelScores
    test: ModelScores | None
    temperature: TemperatureFit
    half: bool
    notices: tuple[str, ...]


def finish(
    folder: RunFolder, setup: Setup, data: TrainingData, backbone: Backbone, best: Checkpoint, tell: Tell
) -> Finished:
    """Make the pack of the best checkpoint, score it, and write all that belongs to the run.

    Raises
    ------
    OutputError
        If a file can't be written.
    GoptGeoError
        Whatever the evaluation meets.
    """
    scorer = _Scorer(setup, data, backbone, tell)
    state, half = _stored(scorer, best)
    found = fit_temperature(
        scorer.model(state, setup.meta), scorer.areas("val"), setup.options, progress=scorer.ticks("calibrate")
    )
    temperature = float(f"{found.temperature:.6g}")
    meta = setup.meta.model_copy(update={"temperature": temperature})
    boundary = setup.config.evaluation.boundary
    validation = scorer.score(state, meta, "val", boundary=boundary)
    test = scorer.score(state, meta, "test", boundary=boundary) if int(data.counts[2].sum()) else None
    meta = meta.model_copy(update={"provenance": _provenance(setup, data, best, validation, test)})
    try:
        write_pack(folder.pack, meta, state)
    except OSError as error:
        folder.pack.with_name(f".{PACK_NAME}.part").unlink(missing_ok=True)
        raise unwritable(folder.pack, error) from error
    notices = []
    if found.at_bound:
        notices.append(f"the temperature ({temperature:g}) is the last that was tried: the confidence stays off")
    notices += _figures(folder, scorer, meta, state, validation)
    finished = Finished(folder.pack, meta, validation, test, found, half, tuple(notices))
    folder.write("README.md", run_page(finished, setup.config, data.report.lines(), best.standing, folder.path))
    return finished


class _Scorer:
    """Runs weights over the parts of the data."""

    def __init__(self, setup: Setup, data: TrainingData, backbone: Backbone, tell: Tell) -> None:
        self.setup, self._data, self._tell = setup, data, tell
        with torch.random.fork_rng(devices=[]):
            self._gopt = GoPT(backbone, setup.meta.config).eval()

    def areas(self, part: str) -> list[Any]:
        return list(self._data.areas(part, self.setup.options.tile_size))  # type: ignore[arg-type]

    def model(self, state: Mapping[str, Tensor], meta: PackMeta) -> PackModel:
        """Return the model as `predict` would make it of a pack with these tensors."""
        options = self.setup.options
        self._gopt.load_trainable_state({name: tensor.float() for name, tensor in state.items()})
        return PackModel(self._gopt, meta, options.tile_size, options.device)

    def score(self, state: Mapping[str, Tensor], meta: PackMeta, part: str, *, boundary: int | None) -> ModelScores:
        """Score weights on a part; see `evaluate_model`."""
        return evaluate_model(
            self.model(state, meta),
            self.areas(part),
            len(meta.classes),
            self.setup.options,
            boundary=boundary,
            progress=self.ticks("validate" if part == "val" else "test"),
        )

    def ticks(self, stage: str) -> Callable[[int, int], None]:
        """Return what tells how many tiles of a stage are done."""
        return lambda done, total: self._tell(TrainProgress(stage, done, total, unit="tiles"))


def _stored(scorer: _Scorer, best: Checkpoint) -> tuple[dict[str, Tensor], bool]:
    """Return the weights as they will be stored: in half precision, unless that costs accuracy."""
    full = {name: tensor.float() for name, tensor in best.model.items()}
    half = {name: tensor.half() for name, tensor in full.items()}
    before = best.standing.best_miou
    if before is not None and all(bool(torch.isfinite(tensor).all()) for tensor in half.values()):
        now = scorer.score(half, scorer.setup.meta, "val", boundary=None).scores.mean_iou
        if abs(now - before) <= _HALF_COST:
            return half, True
    return full, False


def _provenance(
    setup: Setup, data: TrainingData, best: Checkpoint, validation: ModelScores, test: ModelScores | None
) -> Provenance:
    scores = _scores("validation", validation)
    if test is not None:
        scores |= _scores("test", test)
    return Provenance(
        data=tuple(data.sources),
        aoi=data.aoi_wkt,
        seed=setup.config.training.seed,
        versions={name: version(name) for name in _LIBRARIES} | {"python": platform.python_version()},
        scores=scores,
        details={"step": best.standing.step, "configuration": _portable(setup.config.model_dump(mode="json"))},
    )


def _portable(config: dict[str, Any]) -> dict[str, Any]:
    """Leave out where the run was written: the pack doesn't depend on it."""
    return {key: value for key, value in config.items() if key != "output"}


def _scores(part: str, found: ModelScores) -> dict[str, float]:
    scores = found.scores
    values = {
        "miou": scores.mean_iou,
        "oa": scores.overall_accuracy,
        "kappa": scores.kappa,
        "ece": found.calibration.ece,
        "boundary_f1": found.boundary.mean if found.boundary is not None else float("nan"),
    }
    return {f"{part}_{name}": round(value, 6) for name, value in values.items() if value == value}


def _figures(
    folder: RunFolder,
    scorer: _Scorer,
    meta: PackMeta,
    state: Mapping[str, Tensor],
    validation: ModelScores,
) -> list[str]:
    """Draw what can be drawn, and say what can't."""
    if find_spec("matplotlib") is None:
        return ["figures are left out: matplotlib isn't installed (pip install 'gopt-geo[report]')"]
    path = folder.path
    draw_curves(path / "curves.png", MetricsTable(path / "metrics.csv", ()).rows())
    draw_confusion(path / "confusion.png", validation.matrix, meta.classes)
    draw_examples(path / "examples.png", scorer.areas("val"), scorer.model(state, meta), meta, scorer.setup.options)
    return []
