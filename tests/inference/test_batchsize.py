"""The batch where none is asked for."""

from __future__ import annotations

import pytest
import torch

from gopt_geo.inference.batchsize import LEAST_TOKENS, choose_batch_size
from gopt_geo.inference.execution import Execution
from gopt_geo.inference.packmodel import PackModel
from gopt_geo.inference.tiles import TilePlan
from gopt_geo.packs import demo_pack_path, load_model, read_pack

NAMES = ("optical", "sar")


@pytest.fixture(scope="module")
def make():
    pack = read_pack(demo_pack_path())
    loaded = load_model(pack)
    return lambda edge, device="cpu": PackModel(loaded, pack.meta, edge, Execution(torch.device(device)))


@pytest.mark.parametrize(("edge", "size"), [(32, 16), (64, 16), (128, 4), (256, 1), (512, 1)])
def test_a_cpu_takes_the_least_tiles_that_keep_it_busy(make, edge, size):
    assert choose_batch_size(make(edge), NAMES, TilePlan((9000, 9000), edge, 0)) == size
    tokens = (edge // 8) ** 2
    assert size == 16 or size * tokens >= LEAST_TOKENS["cpu"]


@pytest.mark.parametrize(("shape", "size"), [((10, 10), 1), ((128, 256), 2), ((256, 256), 4), ((384, 128), 4)])
def test_no_more_slots_than_a_small_scene_could_fill(make, shape, size):
    assert choose_batch_size(make(128), NAMES, TilePlan(shape, 128, 0)) == size


def test_it_is_halved_until_it_fits(make):
    model, plan = make(64), TilePlan((9000, 9000), 64, 0)
    sizes = [choose_batch_size(model, NAMES, plan, memory=mib << 20) for mib in (0, 8, 20, 40, 80, 10_000)]
    assert sizes == sorted(sizes)
    assert (sizes[0], sizes[-1]) == (1, 16)
    assert len(set(sizes)) > 2
    for mib, size in zip((8, 20, 40, 80), sizes[1:], strict=False):
        assert size == 1 or model.working_memory(64, size) <= mib << 20


def test_tiles_that_are_averaged_fit_at_their_largest(make):
    model, plan = make(64), TilePlan((9000, 9000), 64, 0)
    assert choose_batch_size(model, NAMES, plan, edge=128) == 4
    assert choose_batch_size(model, NAMES, plan, edge=32) == choose_batch_size(model, NAMES, plan) == 16
    memory = 30 << 20
    size = choose_batch_size(model, NAMES, plan, edge=128, memory=memory)
    assert size < choose_batch_size(model, NAMES, plan, memory=memory)
    assert size == 1 or model.working_memory(128, size) <= memory


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_takes_what_fits(make):
    model, plan = make(512, "cuda"), TilePlan((9000, 9000), 512, 64)
    size = choose_batch_size(model, NAMES, plan)
    assert size & (size - 1) == 0
    torch.cuda.reset_peak_memory_stats()
    model.run_empty(NAMES, size, 512)
    assert torch.cuda.max_memory_allocated() < torch.cuda.mem_get_info()[1]
