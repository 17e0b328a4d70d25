"""When what happens in a training: how many steps, at which rate, when it is validated, which samples a step takes."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
from torch.utils.data import Sampler

from gopt_geo.training.config import OptimisationConfig
from gopt_geo.training.sections import LEAST_BATCH

__all__ = ["DEFAULT_STEPS", "Plan", "StepSampler", "noise_seed", "step_samples"]

DEFAULT_STEPS = 2000
_FULL_TILES = 4  # a step sees about as many labelled pixels as these hold
_MOST = 3  # times LEAST_BATCH


@dataclass(frozen=True)
class Plan:
    """The steps of a training; all of it is a function of the step alone.

    Attributes
    ----------
    steps, warmup
        All optimiser steps, and those of them until the full rate.
    validate_every, checkpoint_every
        In steps. The last step is always validated.
    rate
        Highest learning rate.
    batch, passes
        Tiles of a step on each device, and forward passes that they are divided into.
    schedule, power
        How the rate falls.
    """

    steps: int
    warmup: int
    validate_every: int
    checkpoint_every: int
    rate: float
    batch: int
    passes: int
    schedule: Literal["cosine", "poly", "constant"] = "cosine"
    power: float = 0.9

    @classmethod
    def of(cls, config: OptimisationConfig, rounds: int, labelled: float = 1.0) -> Plan:
        """Settle what the configuration leaves open.

        A gradient is as good as the labelled pixels that it is a mean of: where few of a tile's pixels are labelled, a
        step takes more tiles, in passes that are no larger, so that it needs no more memory.

        Parameters
        ----------
        config
            Of the training.
        rounds
            Samples of an epoch.
        labelled
            Share of labelled pixels in the tile around one.
        """
        batch, passes = config.batch, config.accumulate or 1
        if batch is None:
            times = min(math.ceil(_FULL_TILES / (LEAST_BATCH * max(labelled, 1e-9))), _MOST)
            batch, passes = LEAST_BATCH * times, passes * times
        epoch = max(1, math.ceil(rounds / (batch * config.devices)))
        steps = config.steps
        if steps is None:
            steps = DEFAULT_STEPS if config.epochs is None else config.epochs * epoch
        warmup = config.warmup_steps
        if warmup is None:
            warmup = math.ceil(steps / 20) if config.warmup_epochs is None else config.warmup_epochs * epoch
        validate = config.validate_every or max(1, math.ceil(steps / 10))
        return cls(
            steps=steps,
            warmup=min(warmup, steps),
            validate_every=validate,
            checkpoint_every=config.checkpoint_every or validate,
            rate=config.learning_rate,
            batch=batch,
            passes=passes,
            schedule=config.schedule,
            power=config.power,
        )

    def rate_at(self, step: int) -> float:
        """Learning rate of a step, counted from 0: up in a straight line, then down as the schedule says."""
        if step < self.warmup:
            return self.rate * (step + 1) / self.warmup
        left = 1 - (step - self.warmup) / max(1, self.steps - self.warmup)
        if self.schedule == "cosine":
            return self.rate * 0.5 * (1 - math.cos(math.pi * left))
        return self.rate * left**self.power if self.schedule == "poly" else self.rate

    def validates(self, done: int) -> bool:
        """Whether the model is validated after ``done`` steps."""
        return done % self.validate_every == 0 or done == self.steps

    def saves(self, done: int) -> bool:
        """Whether a checkpoint is due after ``done`` steps."""
        return done % self.checkpoint_every == 0 or done == self.steps


def step_samples(step: int, batch: int, rank: int = 0, world: int = 1) -> range:
    """Return the numbers of the samples that a process takes in a step, counted from 0.

    Over all processes a step takes the next ``world * batch`` numbers, so that what a step is made of doesn't depend
    on what came before it.
    """
    first = (step * world + rank) * batch
    return range(first, first + batch)


class StepSampler(Sampler[list[int]]):
    """Sample numbers of the steps from ``start`` to ``steps``, a list each.

    Parameters
    ----------
    start, steps
        First step, and where it ends.
    batch
        Tiles of a step in this process.
    rank, world
        Of this process, and number of processes.
    """

    def __init__(self, start: int, steps: int, batch: int, rank: int = 0, world: int = 1) -> None:
        self.start, self.steps, self.batch, self.rank, self.world = start, steps, batch, rank, world

    def __iter__(self) -> Iterator[list[int]]:
        """Yield each step's numbers."""
        for step in range(self.start, self.steps):
            yield list(step_samples(step, self.batch, self.rank, self.world))

    def __len__(self) -> int:
        """Return the number of steps that are left."""
        return max(0, self.steps - self.start)


def noise_seed(seed: int, number: int) -> int:
    """Return the seed for what the model draws itself, in the forward pass that begins with sample ``number``."""
    # 2 keeps it apart from streams that are seeded by (seed, number) alone.
    return int(np.random.SeedSequence((seed, number, 2)).generate_state(1, np.uint64)[0] >> 1)
