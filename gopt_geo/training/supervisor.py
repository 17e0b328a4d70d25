"""What happens between the steps: figures, validation, checkpoints, early stopping, and requests to stop."""

from __future__ import annotations

import math
import signal
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from types import FrameType
from typing import Any

import lightning.pytorch as pl
from torch import Tensor

from gopt_geo.errors import RunInterrupted, TrainingError
from gopt_geo.training.checkpoints import Standing
from gopt_geo.training.module import StepModule
from gopt_geo.training.progress import TrainProgress

__all__ = ["Deeds", "StopSignals", "Supervisor"]

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_FLUSH = 20
"""On a GPU losses are looked at once in so many steps: each look waits for all that is queued there."""


@dataclass(frozen=True)
class Deeds:
    """What a supervisor has others do.

    Attributes
    ----------
    validate
        Gives the figures of a validation, "val_miou" among them; called in every process.
    record
        Adds rows to the table of figures.
    save
        Writes the checkpoint "best" or "last".
    progress
        Is told where the training stands.
    place
        The run's folder, for messages.
    """

    validate: Callable[[], Mapping[str, float]]
    record: Callable[[list[dict[str, Any]]], None]
    save: Callable[[str, Standing], None]
    progress: Callable[[TrainProgress], None]
    place: str


class Supervisor(pl.Callback):
    """Follows the steps of a training.

    Parameters
    ----------
    module
        In training.
    standing
        Where it begins.
    deeds
        What is done when it is due.
    signals
        Taken while it trains.
    patience
        Validations without a better mIoU until it stops; None: never.

    Attributes
    ----------
    standing
        Where the training stands.
    """

    def __init__(
        self,
        module: StepModule,
        standing: Standing,
        deeds: Deeds,
        signals: StopSignals,
        *,
        patience: int | None = None,
    ) -> None:
        self.standing = standing
        self._module, self._deeds, self._signals, self._patience = module, deeds, signals, patience
        self._saved = standing.step
        self._waiting: list[tuple[dict[str, Any], Tensor]] = []
        self._begin, self._before = time.monotonic(), standing.seconds
        self._loss: float | None = None

    @property
    def patience_lost(self) -> bool:
        """Whether there were as many validations without a better mIoU as are waited for."""
        return self._patience is not None and self.standing.waited >= self._patience

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:  # noqa: ARG002
        """Start the clock."""
        self._signals.hold()
        self._begin = time.monotonic()

    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,  # noqa: ARG002 (Lightning's signature)
        outputs: Any,  # noqa: ARG002
        batch: Any,  # noqa: ARG002
        batch_idx: int,  # noqa: ARG002
    ) -> None:
        """Do what is due after a step."""
        module, plan = self._module, self._module.plan
        done = module.done
        row = {"step": done, "learning_rate": plan.rate_at(done - 1), "seconds": self._seconds()}
        self._waiting.append((row, module.latest))
        validates, saves = plan.validates(done), plan.saves(done)
        if module.latest.device.type == "cpu" or validates or saves or module.stop_agreed or done % _FLUSH == 0:
            self._settle(done, validates)
        stops = module.stop_agreed or self.patience_lost
        if saves or stops:
            self._save("last")
        trainer.should_stop = trainer.should_stop or stops
        self._deeds.progress(TrainProgress("train", done, plan.steps, self._loss, self.standing.miou))

    def _settle(self, done: int, validates: bool) -> None:
        """Look at the losses since the last look, validate if that is due, and write the rows."""
        rows: list[dict[str, Any]] = []
        for row, latest in self._waiting:
            loss = float(latest)
            if not math.isfinite(loss):
                self._deeds.record(rows)
                raise TrainingError(
                    f"step {row['step']}",
                    f"the loss is {loss}",
                    f"the checkpoint of step {self._saved} in {self._deeds.place} stays; lower "
                    "learning_rate, or train in fp32, and look for pixels of impossible values",
                )
            rows.append({**row, "loss": loss})
        self._waiting.clear()
        self._loss = sum(row["loss"] for row in rows) / len(rows) if rows else self._loss
        self.standing = replace(self.standing, step=done, seconds=self._seconds())
        if validates:
            rows[-1].update(self._validate())
        self._deeds.record(rows)

    def _validate(self) -> Mapping[str, float]:
        figures = self._deeds.validate()
        miou, best = float(figures["val_miou"]), self.standing.best_miou
        better = best is None or math.isnan(best) or miou > best
        self.standing = replace(
            self.standing,
            seconds=self._seconds(),
            miou=miou,
            best_step=self.standing.step if better else self.standing.best_step,
            best_miou=miou if better else best,
            waited=0 if better else self.standing.waited + 1,
        )
        if better:
            self._save("best")
        return figures

    def _save(self, name: str) -> None:
        self._deeds.save(name, self.standing)
        self._saved = self.standing.step

    def _seconds(self) -> float:
        return self._before + time.monotonic() - self._begin


class StopSignals:
    """Context manager: Ctrl-C, SIGTERM and SIGHUP end the training after its current step, a second one at once.

    Outside of the main thread it does nothing.

    Parameters
    ----------
    module
        In training.

    Attributes
    ----------
    came
        Number of the signal that came, or None.
    """

    def __init__(self, module: StepModule) -> None:
        self.came: int | None = None
        self._module = module
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> StopSignals:
        if threading.current_thread() is threading.main_thread():
            handlers = {number: signal.getsignal(number) for number in _SIGNALS}
            self._before = {n: handler for n, handler in handlers.items() if handler is not signal.SIG_IGN}  # nohup
        self.hold()
        return self

    def __exit__(self, *error: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler if handler is not None else signal.SIG_DFL)

    def hold(self) -> None:
        """Take the signals; once more after Lightning has, whose handler would speak to other processes at once."""
        for number in self._before:
            signal.signal(number, self._note)

    def _note(self, number: int, _frame: FrameType | None) -> None:
        if self.came is not None:
            raise RunInterrupted(number, "stopped at once; --resume goes on from the latest checkpoint")
        self.came = number
        self._module.stop_asked = True
