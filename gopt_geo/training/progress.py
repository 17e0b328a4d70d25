"""What a training tells while it runs; imports nothing heavy, so that the command line can read it."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["TrainProgress"]


@dataclass(frozen=True, slots=True)
class TrainProgress:
    """Where a training stands.

    Attributes
    ----------
    stage
        What is being done, in a word or two, such as "train" or "validate".
    done, total
        Steps finished in this stage, and in all; in other stages than training tiles, blocks or the like.
    loss
        Of the latest steps; None before the first, and where there is none.
    miou
        Of the latest validation, from 0 to 1; None before the first.
    unit
        What ``done`` and ``total`` count, in the plural.
    """

    stage: str
    done: int
    total: int
    loss: float | None = None
    miou: float | None = None
    unit: str = "steps"
