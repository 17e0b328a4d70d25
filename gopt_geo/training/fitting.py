"""Lightning's trainer, set up to take the steps and nothing else: no log, no bar, no folder, no word of its own."""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal

import lightning.pytorch as pl
import torch
from torch.utils.data import DataLoader

from gopt_geo.errors import DeviceMemoryError
from gopt_geo.inference.memory import ran_out_of_memory
from gopt_geo.training.config import OptimisationConfig
from gopt_geo.training.module import Batch, Collate, StepModule
from gopt_geo.training.schedule import StepSampler

if TYPE_CHECKING:
    from gopt_geo.training.data import TrainingTiles

__all__ = ["fit", "make_trainer", "out_of_memory", "quiet", "rank_of_this_process", "step_loader"]

Precision = Literal["32-true", "bf16-mixed", "16-mixed"]
_MOST_WORKERS = 8
_RANKS = ("RANK", "SLURM_PROCID", "LOCAL_RANK")
_LOGGERS = ("lightning.pytorch", "lightning.fabric", "lightning")


def rank_of_this_process() -> int:
    """Return this process's rank: 0, or above where a launcher or Lightning has started it beside the first."""
    for name in _RANKS:
        if os.environ.get(name, "").isdigit():
            return int(os.environ[name])
    return 0


def make_trainer(config: OptimisationConfig, device: torch.device, callbacks: list[pl.Callback]) -> pl.Trainer:
    """Build the trainer; several devices train by Lightning's ``ddp``.

    Lightning then starts this program once more for each of the other devices.
    """
    return pl.Trainer(
        accelerator="cpu" if device.type == "cpu" else "gpu",
        devices=config.devices,
        strategy="auto" if config.devices == 1 else "ddp",
        precision=precision_of(config, device),
        max_epochs=1,
        callbacks=callbacks,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        use_distributed_sampler=False,
    )


def precision_of(config: OptimisationConfig, device: torch.device) -> Precision:
    """Return Lightning's word for the precision: on a CPU always fp32, unless another is asked for."""
    if config.precision == "auto":
        if device.type == "cpu":
            return "32-true"
        return "bf16-mixed" if torch.cuda.is_bf16_supported() else "16-mixed"
    words: dict[str, Precision] = {"fp32": "32-true", "bf16": "bf16-mixed", "fp16": "16-mixed"}
    return words[config.precision]


def step_loader(
    tiles: TrainingTiles, config: OptimisationConfig, names: tuple[str, ...], sampler: StepSampler, device: torch.device
) -> DataLoader[Batch]:
    """Return what loads one step after the other, in as many processes as asked for.

    Parameters
    ----------
    tiles
        Training samples by number.
    config
        Of the training.
    names
        Of the modalities.
    sampler
        Which samples each step takes.
    device
        Where they go.
    """
    workers = config.workers
    if workers is None:
        workers = 0 if device.type == "cpu" else min(_MOST_WORKERS, len(os.sched_getaffinity(0)))
    return DataLoader(
        tiles,
        batch_sampler=sampler,
        num_workers=workers,
        collate_fn=Collate(names, drop_complete=sampler.world == 1),
        pin_memory=device.type == "cuda",
    )


def fit(trainer: pl.Trainer, module: StepModule, loader: DataLoader[Batch], scaler: dict[str, Any]) -> None:
    """Take the loader's steps.

    Parameters
    ----------
    trainer
        From `make_trainer`.
    module
        To train.
    loader
        From `step_loader`.
    scaler
        State of the loss scale to begin with; empty for a new one.
    """
    if scaler:
        trainer.precision_plugin.load_state_dict(scaler)
    trainer.fit(module, loader)


@contextmanager
def out_of_memory(what: str) -> Iterator[None]:
    """Turn the several ways in which memory runs out into one DeviceMemoryError; let all else pass."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not ran_out_of_memory(error):
            raise
        remedy = "raise accumulate (more, smaller forward passes a step), or lower batch or tile_size"
        raise DeviceMemoryError("training", f"out of memory with {what}", remedy) from error


@contextmanager
def quiet() -> Iterator[None]:
    """Keep Lightning's banners, hints and warnings off the terminal."""
    levels = {name: logging.getLogger(name).level for name in _LOGGERS}
    try:
        for name in _LOGGERS:
            logging.getLogger(name).setLevel(logging.ERROR)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module=r"lightning\..*")
            warnings.filterwarnings("ignore", message=r".*(does not have many workers|Trainer already configured).*")
            yield
    finally:
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)
