"""A local cluster of two processes for the tests of a module, and small scenes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from distributed import Client

import gopt_geo
from gopt_geo.batch.clusters import connect


@pytest.fixture(scope="module")  # its threads would disturb what other tests measure of this process
def client() -> Iterator[Client]:
    with connect(workers=2) as connected:
        yield connected


@pytest.fixture(scope="session")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two scenes of 96 x 96 pixels: a/scene.tif, a/sar.tif, b/..."""
    folder = tmp_path_factory.mktemp("scenes")
    for seed, name in enumerate("ab"):
        gopt_geo.simulate_files(folder / name, seed=seed, size=(96, 96))
    return folder
