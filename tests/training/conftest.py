"""One scene and one undisturbed run for all tests of the trainer."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from gopt_geo.training.run import TrainReport, train
from trainings import small_config, small_scene


@pytest.fixture(scope="session")
def ground(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A scene with labels; don't write there."""
    return small_scene(tmp_path_factory.mktemp("ground"))


@pytest.fixture(scope="session")
def undisturbed(ground: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> tuple[TrainReport, list[str]]:
    """A whole run, and what it said; don't write there."""
    said: list[str] = []
    before = torch.random.get_rng_state()
    report = train(small_config(ground, tmp_path_factory.mktemp("runs") / "whole"), say=said.append)
    assert torch.equal(torch.random.get_rng_state(), before)
    return report, said
