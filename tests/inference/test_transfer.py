"""Batches on the device, and the question whether results are finite."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from gopt_geo.inference.reading import Task, TileData
from gopt_geo.inference.transfer import BatchLoader, DelayedCheck, stack_tiles

CPU = torch.device("cpu")
DEVICES = [
    CPU,
    pytest.param(
        torch.device("cuda"), marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU"), id="cuda"
    ),
]


def make_tile(seed, height, width, bands=(4, 1)):
    random = np.random.default_rng(seed)
    values = {
        name: random.normal(size=(count, height, width)).astype(np.float32)
        for name, count in zip(("optical", "sar"), bands, strict=True)
    }
    valid = {name: random.random((height, width)) < 0.7 for name in values}
    return TileData(Task(0, 0, seed, None), values, valid, np.ones((height, width), bool))


@pytest.mark.parametrize("device", DEVICES, ids=str)
def test_batches_hold_the_tiles_and_nothing_of_the_batches_before(device):
    load = BatchLoader(16, device)
    sizes = [(16, 16), (16, 9), (5, 16), (1, 1)]
    # Full tiles first: what they leave in a buffer must be gone beyond the edges of the smaller ones.
    batches = [[make_tile(4 * n + slot, *sizes[(n * slot) % 4]) for slot in range(3)] for n in range(7)]
    loaded = [load(tiles) for tiles in batches]  # all of them before the first is looked at
    for tiles, (values, valid) in zip(batches, loaded, strict=True):
        for name in ("optical", "sar"):
            assert values[name].device.type == valid[name].device.type == device.type
            expected = np.zeros((3, tiles[0].values[name].shape[0], 16, 16), np.float32)
            mask = np.zeros((3, 16, 16), bool)
            for slot, tile in enumerate(tiles):
                height, width = tile.valid[name].shape
                expected[slot, :, :height, :width], mask[slot, :height, :width] = tile.values[name], tile.valid[name]
            assert np.array_equal(values[name].cpu().numpy(), expected)
            assert np.array_equal(valid[name].cpu().numpy(), mask)


@pytest.mark.parametrize("device", DEVICES, ids=str)
def test_a_loader_takes_batches_of_another_size(device):
    load = BatchLoader(16, device)
    tiles = [make_tile(seed, 16, 16) for seed in range(4)]
    for size in (4, 2, 4, 1, 1):
        values, valid = load(tiles[:size])
        whole, mask = stack_tiles(tiles[:size], 16, CPU)
        assert all(torch.equal(values[name].cpu(), whole[name]) for name in whole)
        assert all(torch.equal(valid[name].cpu(), mask[name]) for name in mask)


@pytest.mark.parametrize("device", DEVICES, ids=str)
@pytest.mark.parametrize(("wrong", "first"), [((), None), ((3,), 3), ((5, 1), 1)])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_the_first_result_that_is_not_finite_is_named(device, wrong, first, value):
    results = torch.rand(6, 3, 8, 8, device=device)
    for slot in wrong:
        results[slot, 2, slot, 7] = value
    check = DelayedCheck(results)
    assert check.first_wrong() == first


@pytest.mark.parametrize("device", DEVICES, ids=str)
def test_results_whose_sum_overflows_are_finite_all_the_same(device):
    results = torch.full((2, 3, 8, 8), 3e38, device=device)
    assert DelayedCheck(results).first_wrong() is None
    results[1, 0, 0, 0] = float("inf")
    assert DelayedCheck(results).first_wrong() == 1
