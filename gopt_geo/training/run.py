"""A training from a configuration to the pack in its run folder."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

from gopt_geo.errors import ConfigError, RunInterrupted
from gopt_geo.models.backbone import DEMO_BACKBONE, Backbone, load_backbone
from gopt_geo.models.gopt import GoPT
from gopt_geo.models.normalise import Normaliser
from gopt_geo.training.checkpoints import Checkpoint, Standing, read_checkpoint, write_checkpoint
from gopt_geo.training.config import TrainConfig
from gopt_geo.training.configtext import dump_config
from gopt_geo.training.data import TrainingData, open_training_data
from gopt_geo.training.finishing import Finished, finish
from gopt_geo.training.fit import class_weights
from gopt_geo.training.fitting import fit, make_trainer, out_of_memory, quiet, rank_of_this_process, step_loader
from gopt_geo.training.identity import Identity
from gopt_geo.training.losses import SegmentationLoss
from gopt_geo.training.module import StepModule
from gopt_geo.training.progress import TrainProgress
from gopt_geo.training.runfolder import MetricsTable, RunFolder
from gopt_geo.training.schedule import StepSampler
from gopt_geo.training.setup import Setup, set_up
from gopt_geo.training.supervisor import Deeds, StopSignals, Supervisor
from gopt_geo.training.validation import figure_names, figures_of, validate

__all__ = ["TrainReport", "train"]

Say = Callable[[str], None]
Tell = Callable[[TrainProgress], None]


@dataclass(frozen=True)
class TrainReport:
    """What a training did.

    Attributes
    ----------
    folder, pack
        Of the run, and the pack in it.
    steps, best_step
        Steps taken in all, and the one whose weights the pack holds.
    seconds
        Time of the steps, interruptions left out.
    temperature
        Of the pack.
    validation, test
        Scores of the pack, as `ModelScores.to_dict` gives them; test is None where the data have no such part.
    notices
        What the user should know.
    """

    folder: Path
    pack: Path
    steps: int
    best_step: int
    seconds: float
    temperature: float
    validation: dict[str, Any]
    test: dict[str, Any] | None
    notices: tuple[str, ...]


def train(
    config: TrainConfig,
    *,
    resume: bool = False,
    overwrite: bool = False,
    progress: Tell | None = None,
    say: Say | None = None,
) -> TrainReport:
    """Train a pack.

    Parameters
    ----------
    config
        Of the training; ``output`` names the run folder.
    resume
        Go on with the run that the folder holds.
    overwrite
        Replace the run that the folder holds, once the data are open.
    progress
        Told where it stands.
    say
        Given the lines for the user: the report on the data before the first step, notices.

    Returns
    -------
    TrainReport

    Raises
    ------
    GoptGeoError
        If configuration, data, backbone, checkpoint or folder don't serve, the loss isn't finite any more, memory runs
        out, or the disk is full. What stood in the folder is as it was, or the latest checkpoint is whole.
    RunInterrupted
        After Ctrl-C, SIGTERM or SIGHUP: the current step was finished and a checkpoint written.

    Notes
    -----
    With several ``devices`` Lightning starts this program once more for each further one; those processes end in here
    (SystemExit) once the steps are done.
    """
    if config.output is None:
        raise ConfigError("train", "no folder for the run is named", "give -o runs/NAME, or output: in a configuration")
    first = rank_of_this_process() == 0
    say = say if say is not None and first else _nothing
    tell = progress if progress is not None and first else _nothing
    with ExitStack() as stack:
        # Only the first process looks after the folder: the others are started when its run has begun.
        folder = RunFolder(Path(config.output), resume=resume or not first, overwrite=overwrite and first)
        if first:
            stack.enter_context(folder)
        stack.enter_context(torch.random.fork_rng(range(torch.cuda.device_count())))
        run = _Run.open(config, folder, stack, say, tell)
        if first:
            run.prepare()
        run.steps()
        if not first:
            raise SystemExit(0)
        return run.finish()


def _nothing(_: object) -> None:
    """Tell nobody."""


def _open(config: TrainConfig, backbone: Backbone, tell: Tell | None) -> TrainingData:
    def tick(stage: str, done: int, total: int) -> None:
        if tell is not None:
            tell(TrainProgress(stage, done, total, unit="blocks"))

    return open_training_data(
        config,
        patch_size=backbone.patch_size,
        in_chans=backbone.in_chans,
        channel_names=backbone.expects.bands,
        tick=tick,
    )


@dataclass
class _Run:
    """One training in this process."""

    folder: RunFolder
    setup: Setup
    data: TrainingData
    backbone: Backbone
    identity: Identity
    checkpoint: Checkpoint | None
    say: Say
    tell: Tell

    @classmethod
    def open(cls, config: TrainConfig, folder: RunFolder, stack: ExitStack, say: Say, tell: Tell) -> _Run:
        """Read backbone, data and checkpoint, and check that they belong together; nothing is written."""
        # A damaged or foreign checkpoint is told before the data are read.
        checkpoint = read_checkpoint(folder.last) if folder.resume else None
        backbone = load_backbone(config.model.backbone, config.model.backbone_weights)
        data = stack.enter_context(_open(config, backbone, tell))
        setup = set_up(config, data, backbone)
        identity = setup.identity(data)
        if checkpoint is not None:
            identity.check(checkpoint.identity, folder.last)
        return cls(folder, setup, data, backbone, identity, checkpoint, say, tell)

    @property
    def standing(self) -> Standing:
        """Where the run begins."""
        return self.checkpoint.standing if self.checkpoint is not None else Standing()

    @property
    def metrics(self) -> MetricsTable:
        """The table of figures."""
        return MetricsTable(self.folder.path / "metrics.csv", figure_names(self.setup.meta.classes))

    def prepare(self) -> None:
        """Tell what will be done, and write what stands before the first step."""
        for line in (*self.data.report.lines(), *self.setup.notices):
            self.say(line)
        if self.backbone.identity == DEMO_BACKBONE:
            self.say(
                "the embedded small backbone was trained on simulated scenes; name a pre-trained one with --backbone "
                "for real work"
            )
        if self.checkpoint is not None:
            self.say(f"going on after step {self.standing.step} of {self.setup.plan.steps}")
        self.folder.begin()
        self.folder.write("config.yaml", dump_config(self.setup.config, comments=False))
        self.folder.write("data.json", json.dumps(self.data.report.to_dict(), indent=2) + "\n")
        self.metrics.begin(self.standing.step)

    def steps(self) -> None:
        """Take the steps that are left."""
        config, standing = self.setup.config.training, self.standing
        module = self._module()
        if standing.step >= self.setup.plan.steps or _lost(standing, config.patience):
            return
        with StopSignals(module) as signals, quiet(), out_of_memory(self._size()):
            save, place = partial(self._save, module), str(self.folder.path)
            deeds = Deeds(partial(self._validate, module.model), self._record, save, self.tell, place)
            supervisor = Supervisor(module, standing, deeds, signals, patience=config.patience)
            trainer = make_trainer(config, self.setup.device, [supervisor])
            rank, world = trainer.global_rank, trainer.world_size
            sampler = StepSampler(standing.step, self.setup.plan.steps, self.setup.plan.batch, rank, world)
            names = self.setup.meta.config.modalities
            loader = step_loader(self.data.train, config, names, sampler, self.setup.device)
            if self.checkpoint is None:
                self._save(module, "last", standing)
            fit(trainer, module, loader, self.checkpoint.scaler if self.checkpoint is not None else {})
        if module.stop_agreed:
            number = signals.came or signal.SIGTERM
            at = f"stopped after step {module.done} of {self.setup.plan.steps}; its checkpoint is {self.folder.last}"
            raise RunInterrupted(number, f"{at}: go on with gopt-geo train --resume -o {self.folder.path}")

    def finish(self) -> TrainReport:
        """Make the pack of the best checkpoint, and the summary."""
        best, last = read_checkpoint(self.folder.best), read_checkpoint(self.folder.last)
        self.identity.check(best.identity, self.folder.best)
        with out_of_memory(self._size()):
            found: Finished = finish(self.folder, self.setup, self.data, self.backbone, best, self.tell)
        return TrainReport(
            folder=self.folder.path,
            pack=found.pack,
            steps=last.standing.step,
            best_step=best.standing.step,
            seconds=last.standing.seconds,
            temperature=found.meta.temperature,
            validation=found.validation.to_dict(),
            test=None if found.test is None else found.test.to_dict(),
            notices=found.notices,
        )

    def _module(self) -> StepModule:
        setup, config = self.setup, self.setup.config.training
        model = setup.model(self.backbone)
        shares = self.data.counts[0] / max(1, int(self.data.counts[0].sum()))
        loss = SegmentationLoss(config.loss, class_weights(shares) if config.class_weights else None)
        module = StepModule(
            model,
            Normaliser(setup.meta.modalities),
            loss,
            setup.plan,
            decay=config.weight_decay,
            clip=config.clip,
            seed=config.seed,
        )
        if self.checkpoint is not None:
            model.load_trainable_state(self.checkpoint.model)
            module.restored, module.done = self.checkpoint.optimizer or None, self.standing.step
        return module.train()

    def _validate(self, model: GoPT) -> dict[str, float]:
        setup = self.setup
        device = next(model.parameters()).device
        areas = self.data.areas("val", setup.options.tile_size)

        def tick(done: int, total: int) -> None:
            self.tell(TrainProgress("validate", done, total, unit="tiles"))

        return figures_of(validate(model, setup.meta, areas, setup.options, device, tick), setup.meta.classes)

    def _record(self, rows: list[dict[str, Any]]) -> None:
        if rank_of_this_process() == 0:
            self.metrics.append(rows)

    def _save(self, module: StepModule, name: str, standing: Standing) -> None:
        if rank_of_this_process() != 0:
            return
        trainer = module._trainer
        optimizer: dict[str, Any] = trainer.optimizers[0].state_dict() if trainer is not None else {}
        scaler: dict[str, Any] = trainer.precision_plugin.state_dict() if trainer is not None else {}
        path = self.folder.last if name == "last" else self.folder.best
        write_checkpoint(path, Checkpoint(self.identity, standing, module.model.trainable_state(), optimizer, scaler))

    def _size(self) -> str:
        plan, shape = self.setup.plan, self.data.tile_shape
        return f"batches of {plan.batch} tiles of {shape[0]} x {shape[1]} pixels in {plan.passes} passes"


def _lost(standing: Standing, patience: int | None) -> bool:
    return patience is not None and standing.waited >= patience
