"""What is asked of torchgeo, whichever version it is."""

from __future__ import annotations

import re
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch

from gopt_geo.datasets import compat
from gopt_geo.datasets.geo import OpticalDataset

from .conftest import Ground


@pytest.mark.brief
def test_the_version_is_one_that_is_supported() -> None:
    assert (0, 8) <= compat.TORCHGEO < (0, 11)


def test_no_other_module_asks_for_it() -> None:
    package = Path(compat.__file__).parents[1]
    asks = re.compile(r"torchgeo\.__version__|version\(.torchgeo")
    found = [path.name for path in package.rglob("*.py") if asks.search(path.read_text(encoding="utf-8"))]
    # the description of an environment may tell the version; nothing decides by it
    assert [name for name in found if name != "compat.py"] == []


@pytest.mark.brief
def test_samplers_keep_to_the_data_set_and_say_nothing(ground: Ground) -> None:
    dataset = OpticalDataset(ground.optical, units="dn10000")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        sampler = compat.random_sampler(dataset, 100, 50, generator=torch.Generator().manual_seed(3))
        grid = compat.grid_sampler(dataset, 100, 50)
    drawn, rows = list(sampler), list(grid)  # drawing, torchgeo 0.10 warns of its own functions, to itself alone
    x, y = np.array([[(q[0].start, q[0].stop), (q[1].start, q[1].stop)] for q in drawn]).transpose(1, 2, 0)
    assert (x[1] - x[0] == 1000).all()
    assert x.min() >= 700000
    assert x.max() <= 706400
    assert y.min() >= 4994000
    assert y.max() <= 5000000
    assert len(rows) == 11 * 12
    repeated = list(compat.random_sampler(dataset, 100, 50, generator=torch.Generator().manual_seed(3)))
    assert [q[:2] for q in repeated] == [q[:2] for q in drawn]
