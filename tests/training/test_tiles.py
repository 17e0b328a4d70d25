"""Training tiles: drawn from the seed and their number alone, where labels are, and never of held-out ground."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch.utils.data import DataLoader

from gopt_geo.grid import Window
from gopt_geo.models.backbone import Backbone
from gopt_geo.training.data import TrainingData
from gopt_geo.training.setup import set_up
from training.tileground import EDGE, TILE, config, opened, places, write_ground, write_polygons


@pytest.fixture(scope="module")
def ground(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    return write_ground(tmp_path_factory.mktemp("ground"))


@pytest.fixture(scope="module")
def full(ground: dict[str, str]) -> TrainingData:
    """All augmentation at work."""
    changes = {"scales": (0.5, 2.0), "speckle": 4.0, "clouds": 0.5, "dropout": {"optical": 0.3, "sar": 0.3}}
    return opened(config(ground, augmentation=changes))


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


@pytest.mark.brief
def test_a_sample_depends_on_seed_and_number_alone(full: TrainingData, ground: dict[str, str]) -> None:
    numbers = [5, 3, 10_000_000, 4, 3]
    once = {number: full.train[number] for number in sorted(set(numbers))}
    for number in numbers:
        assert same(full.train[number], once[number])
    assert not same(once[3], once[4])
    copy = pickle.loads(pickle.dumps(full.train))
    assert same(copy[5], once[5])
    changes = {"scales": (0.5, 2.0), "speckle": 4.0, "clouds": 0.5, "dropout": {"optical": 0.3, "sar": 0.3}}
    with opened(config(ground, augmentation=changes, training={"tile_size": TILE, "seed": 1})) as other:
        assert not same(other.train[5], once[5])


def test_worker_processes_give_the_same_samples(full: TrainingData) -> None:
    numbers = list(range(24))
    batches = {
        workers: list(DataLoader(full.train, batch_size=4, sampler=numbers, num_workers=workers))
        for workers in (0, 1, 3)
    }
    for workers in (1, 3):
        assert all(same(a, b) for a, b in zip(batches[0], batches[workers], strict=True))


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(number=st.integers(0, 2**40))
def test_samples_are_whole_and_labelled(full: TrainingData, number: int) -> None:
    sample = full.train[number]
    assert {key: (value.dtype, tuple(value.shape)) for key, value in sample.items()} == {
        "optical": (torch.float32, (3, TILE, TILE)),
        "validity_optical": (torch.bool, (TILE, TILE)),
        "sar": (torch.float32, (1, TILE, TILE)),
        "validity_sar": (torch.bool, (TILE, TILE)),
        "mask": (torch.int64, (TILE, TILE)),
    }
    labelled = sample["mask"] != 255
    assert labelled.any()
    assert (sample["mask"][labelled] < 3).all()
    assert (sample["validity_optical"] | sample["validity_sar"])[labelled].all()
    for name in ("optical", "sar"):
        assert torch.isfinite(sample[name]).all()
        assert (sample[name][:, ~sample[f"validity_{name}"]] == 0).all()


def test_training_never_shows_held_out_ground(ground: dict[str, str]) -> None:
    """Neither as an image nor as a label, whatever the scale; the buffer stays hidden too."""
    for scales in ((1.0, 1.0), (0.4, 0.6)):
        changes = {"symmetry": "dihedral", "brightness": 0.0, "offset": 0.0, "clouds": 0.0, "scales": scales}
        with opened(config(ground, augmentation=changes)) as data:
            held_out = np.zeros((EDGE, EDGE), bool)
            for part in ("val", "test"):
                (area,) = data.areas(part, TILE)
                held_out[area.window.slices_in(Window(0, 0, EDGE, EDGE))] |= area.labels(area.window) != 255
            near = np.zeros((EDGE + 2 * TILE, EDGE + 2 * TILE), bool)  # what lies within a buffer of it
            for row, col in zip(*np.nonzero(held_out), strict=True):
                near[row : row + 2 * TILE + 1, col : col + 2 * TILE + 1] = True
            near = near[TILE:-TILE, TILE:-TILE]
            seen = set()
            for number in range(200):
                seen |= places(data.train[number])
            assert len(seen) > 0.5 * data.counts[0].sum()
            if scales == (1.0, 1.0):
                assert not any(near[row, col] for row, col in seen)
            else:  # in between pixels: at least none in the middle of held-out ground
                assert not any(held_out[row, col] for row, col in seen)


@pytest.mark.brief
def test_tiles_are_where_sparse_labels_are(ground: dict[str, str], tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    corners = [(r, c) for r in range(5, 250, 25) for c in range(5, 250, 25)]
    boxes = [(r, c, 3, 3, int(rng.integers(1, 3))) for r, c in corners]
    boxes += [(r + 8, c + 8, 1, 1, 3) for r, c in corners[::6]]
    labels = write_polygons(tmp_path / "sparse.gpkg", boxes)
    settings = ground | {"labels": labels, "class_field": "kind"}
    with opened(config(settings)) as data:
        assert data.counts.sum() < 0.02 * EDGE**2
        kinds = np.zeros(3, int)
        for number in range(150):
            mask = data.train[number]["mask"]
            assert (mask != 255).any()
            kinds += [bool((mask == k).any()) for k in range(3)]
        share = data.counts[0] / data.counts[0].sum()
        assert share[2] < 0.04
        assert kinds[2] > 2 * share[2] * 150  # the rare class is seen more often than its share
    half = config(settings, augmentation={"scales": (0.4, 0.5), "symmetry": "none", "clouds": 1.0})
    with opened(half) as data:  # a pixel's label may be lost in a smaller picture, and then isn't
        assert all((data.train[number]["mask"] != 255).any() for number in range(150))


def test_rounds_count_tiles_with_labels(ground: dict[str, str], tmp_path: Path) -> None:
    boxes = [(r, c, 4, 4, 1 + (r // 32 + c // 32) % 2) for r in range(6, 250, 32) for c in range(6, 250, 32)]
    labels = write_polygons(tmp_path / "p.gpkg", boxes)
    with opened(config(ground | {"labels": labels, "class_field": "kind"})) as data:
        assert data.train.rounds == data.counts[0].sum() // 16  # each polygon lies in one cell of 16 x 16
        assert data.report.tiles["train"] == data.train.rounds
        assert data.train.labelled == 16 / 256


def test_sparse_labels_settle_how_many_tiles_a_step_takes(
    ground: dict[str, str], tmp_path: Path, tiny_backbone: Backbone
) -> None:
    boxes = [(r, c, 4, 4, 1 + (r // 32 + c // 32) % 2) for r in range(6, 250, 32) for c in range(6, 250, 32)]
    sparse = ground | {"labels": write_polygons(tmp_path / "p.gpkg", boxes), "class_field": "kind"}
    for labels, batch, passes in ((sparse, 24, 3), (ground, 8, 1)):
        with opened(config(labels)) as data:
            setup = set_up(config(labels), data, tiny_backbone)
        assert (setup.plan.batch, setup.plan.passes) == (batch, passes)
        assert (setup.config.training.batch, setup.config.training.accumulate) == (batch, passes)
        told = [notice for notice in setup.notices if notice.startswith("labels are sparse, 6.2 % of the tile")]
        assert len(told) == (batch == 24)
    asked = config(sparse, training={"tile_size": 16, "batch": 5})
    with opened(asked) as data:
        setup = set_up(asked, data, tiny_backbone)
    assert (setup.plan.batch, setup.plan.passes, setup.sparse) == (5, 1, None)


def test_wide_tiles_turn_too(ground: dict[str, str]) -> None:
    settings = config(ground, training={"tile_size": (16, 32)}, augmentation={"symmetry": "dihedral"})
    with opened(settings) as data:
        assert all(data.train[number]["mask"].shape == (16, 32) for number in range(20))
    with pytest.raises(IndexError, match="count from 0"):
        data.train[-1]
