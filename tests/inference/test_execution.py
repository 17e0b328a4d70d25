"""Device, precision, compilation, threads: what is chosen and refused, and what the model then computes."""

from __future__ import annotations

import os
import shutil

import pytest
import torch

from gopt_geo.errors import GoptGeoError
from gopt_geo.inference import execution
from gopt_geo.inference.execution import Execution, choose_device, choose_precision, usable_cores
from gopt_geo.inference.packmodel import PackModel
from gopt_geo.models.cup import ClassAwareUniModalPrompter
from gopt_geo.packs import demo_pack_path, load_model, read_pack
from gopt_geo.simulate import SceneSpec, simulate_scene

CPU, CUDA = torch.device("cpu"), torch.device("cuda")
MEASURED = execution._gain_of_bf16  # which tests/conftest.py replaces
needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")


@pytest.fixture(scope="module")
def demo():
    return read_pack(demo_pack_path())


@pytest.fixture(scope="module")
def tiles(demo):
    """Four tiles of a simulated scene as the tiler hands them over."""
    edge = demo.meta.tile_size
    scene = simulate_scene(SceneSpec(77, height=2 * edge, width=2 * edge))
    bands = {"optical": torch.from_numpy(scene.optical[:3]), "sar": 10 * torch.from_numpy(scene.sar[:1]).log10()}
    values = {
        name: pixels.float().unfold(1, edge, edge).unfold(2, edge, edge).permute(1, 2, 0, 3, 4).flatten(0, 1)
        for name, pixels in bands.items()
    }
    valid = {name: torch.ones((4, edge, edge), dtype=torch.bool) for name in values}
    valid["optical"][0, :40] = False
    return values, valid


def pretend(monkeypatch, flags, gain):
    """Pretend that the processor has these flags, and multiplies so many times as fast in bf16."""
    monkeypatch.setattr(execution, "_cpu_flags", lambda: frozenset(flags))
    monkeypatch.setattr(execution, "_gain_of_bf16", lambda: gain)


@pytest.mark.parametrize(
    ("flags", "gain", "chosen"),
    [
        ((), 9.0, "fp32"),
        (("avx512_bf16",), 9.0, "fp32"),
        (("amx_tile", "amx_bf16"), 3.0, "bf16"),
        (("amx_tile", "amx_bf16"), 1.9, "fp32"),
    ],
)
def test_a_cpu_runs_in_bf16_by_itself_only_with_matrix_units_that_double_the_speed(monkeypatch, flags, gain, chosen):
    pretend(monkeypatch, flags, gain)
    assert choose_precision("auto", CPU) == chosen


def test_the_gain_is_a_measured_ratio():
    assert 0.001 < MEASURED() < 1000
    assert MEASURED() == MEASURED()  # once in a process


@pytest.mark.parametrize(
    ("capability", "chosen"), [((9, 0), "bf16"), ((8, 0), "bf16"), ((7, 5), "fp16"), ((7, 0), "fp16"), ((6, 1), "fp32")]
)
def test_a_gpu_runs_in_bf16_an_old_one_in_fp16(monkeypatch, capability, chosen):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "an old GPU")
    assert choose_precision("auto", CUDA) == chosen
    assert choose_precision("fp32", CUDA) == "fp32"
    assert choose_precision("fp16", CUDA) == "fp16"
    if chosen == "bf16":
        assert choose_precision("bf16", CUDA) == "bf16"
    else:
        with pytest.raises(
            GoptGeoError, match=r"^--precision bf16: an old GPU doesn't compute in bf16; use fp16 or fp32"
        ):
            choose_precision("bf16", CUDA)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("fp16", "--precision fp16: a CPU doesn't compute in fp16; use bf16 or fp32, or a GPU (--device)"),
        ("int8", "--precision int8: there is no such precision; choose auto, fp32, bf16, fp16"),
    ],
)
def test_what_a_cpu_has_not_is_refused_in_one_line(name, message):
    with pytest.raises(GoptGeoError) as error:
        choose_precision(name, CPU)
    assert str(error.value) == message


@pytest.mark.parametrize("name", ["tpu", "cuda:99", "meta", "mps", ""])
def test_a_device_that_is_not_here_is_refused(name):
    with pytest.raises(GoptGeoError, match=r"there is no such device here; use auto, cpu or cuda\[:n\]"):
        choose_device(name)


def test_what_runs_otherwise_than_in_fp32_is_told(monkeypatch):
    assert Execution.choose("cpu", "fp32").notices == ()
    pretend(monkeypatch, {"avx512_bf16"}, 1.0)
    said = ("the model runs in bf16 on cpu, blending in float32 (--precision)",)
    assert Execution.choose("cpu", "bf16").notices == said
    pretend(monkeypatch, {"avx2"}, 1.0)
    assert Execution.choose("cpu", "bf16").notices[1].startswith("warning: this processor has no instructions for")


def test_threads_are_set_for_the_run_alone():
    before = torch.get_num_threads()
    with Execution.choose("cpu", threads=before + 2).in_force():
        assert torch.get_num_threads() == before + 2
    assert torch.get_num_threads() == before
    with pytest.raises(KeyError), Execution.choose("cpu", threads=before + 2).in_force():
        raise KeyError
    assert torch.get_num_threads() == before
    with pytest.raises(GoptGeoError, match=r"^--threads: 0; give at least 1"):
        Execution.choose("cpu", threads=0)


def test_a_containers_share_of_time_bounds_the_threads_unless_the_user_says_otherwise(monkeypatch):
    cores = usable_cores()
    assert 1 <= cores <= (os.cpu_count() or 1)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(execution, "usable_cores", lambda: 1)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 8)
    monkeypatch.setattr(torch, "set_num_threads", lambda count: None)
    assert Execution.choose("cpu", "fp32").threads == 1
    assert Execution.choose("cpu", "fp32", threads=3).threads == 3
    monkeypatch.setenv("OMP_NUM_THREADS", "8")
    assert Execution.choose("cpu", "fp32").threads is None


@torch.inference_mode()
def test_bf16_keeps_statistics_groups_and_probabilities_in_float32(monkeypatch, demo, tiles):
    seen = []
    usual = ClassAwareUniModalPrompter.assign
    monkeypatch.setattr(ClassAwareUniModalPrompter, "assign", lambda self, s: seen.append(s.dtype) or usual(self, s))
    full = PackModel(load_model(demo), demo.meta, demo.meta.tile_size)(*tiles)
    low = PackModel(load_model(demo), demo.meta, demo.meta.tile_size, Execution(CPU, "bf16"))(*tiles)
    assert set(seen) == {torch.float32}
    assert full.dtype == low.dtype == torch.float32
    torch.testing.assert_close(low.sum(1), torch.ones_like(low[:, 0]), rtol=0, atol=1e-6)
    assert (low - full).abs().max() > 0  # something is in bf16 at all
    assert (low - full).abs().mean() < 0.01
    # Measured here: 0.45 % of the pixels.
    assert (low.argmax(1) != full.argmax(1)).float().mean() < 0.02


@torch.inference_mode()
def test_bf16_rounds_the_frozen_matrices_once_and_leaves_a_shared_backbone_as_it_is(demo, tiles):
    loaded = load_model(demo)
    digest, state = loaded.backbone.digest(), {n: t.clone() for n, t in loaded.state_dict().items()}
    model = PackModel(loaded, demo.meta, demo.meta.tile_size, Execution(CPU, "bf16"))
    kinds = {name: p.dtype for name, p in model.model.named_parameters()}
    assert {n for n, kind in kinds.items() if kind == torch.bfloat16} == {
        n for n in kinds if n.startswith("backbone.") and (".attn." in n or ".mlp." in n or "patch_embed.proj" in n)
    }
    found = model(*tiles)
    # The same as autocast on the model as it is, which rounds the same matrices in every pass.
    with torch.autocast("cpu", torch.bfloat16):
        images = model._normalise(tiles[0])
        logits = loaded(images, tiles[1])
    expected = torch.softmax(logits.float() / demo.meta.temperature, 1)
    assert torch.equal(found, expected)
    assert loaded.backbone.digest() == digest
    assert all(torch.equal(t, state[n]) and t.dtype == state[n].dtype for n, t in loaded.state_dict().items())
    small = [n for n, p in loaded.named_parameters() if kinds[n] == torch.float32]
    mine = dict(model.model.named_parameters())
    theirs = dict(loaded.named_parameters())
    assert all(mine[n].data_ptr() == theirs[n].data_ptr() for n in small)  # shared, not copied


@pytest.mark.skipif(shutil.which("g++") is None, reason="torch's compiler needs g++ on a CPU")
@torch.inference_mode()
def test_compiled_it_gives_the_same_probabilities_after_a_warm_up_that_is_counted(demo, tiles):
    torch._dynamo.reset()
    plain = PackModel(load_model(demo), demo.meta, demo.meta.tile_size)
    plain.warm_up(("optical", "sar"), 4)
    assert plain.warm_up_seconds == 0  # nothing to do
    model = PackModel(load_model(demo), demo.meta, demo.meta.tile_size, Execution(CPU, "fp32", compiled=True))
    model.warm_up(("optical", "sar"), 4)
    spent = model.warm_up_seconds
    assert spent > 0
    compiled = torch._dynamo.utils.counters["stats"]["unique_graphs"]
    tiles = [
        {name: tensor.clone() for name, tensor in part.items()} for part in tiles
    ]  # made in this mode, as the tiler's
    # No grouping flips here, so promise 3's bound holds for all pixels.
    torch.testing.assert_close(model(*tiles), plain(*tiles), rtol=0, atol=1e-5)
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == compiled  # the warm-up compiled for the real tiles
    model.warm_up(("optical", "sar"), 4)
    assert model.warm_up_seconds - spent < spent / 10  # warm already


def test_a_compiler_that_fails_is_told_in_one_line(monkeypatch, demo):
    def broken(model, **options):
        def fail(*args):
            raise RuntimeError("no C++ compiler\nand forty lines more")

        return fail

    monkeypatch.setattr(torch, "compile", broken)
    model = PackModel(load_model(demo), demo.meta, demo.meta.tile_size, Execution(CPU, "fp32", compiled=True))
    with pytest.raises(GoptGeoError) as error:
        model.warm_up(("optical", "sar"), 1)
    assert str(error.value) == (
        "--compile: torch's compiler failed (no C++ compiler); leave it out; on a CPU it needs a C++ compiler (g++)"
    )


def test_memory_that_runs_out_while_it_warms_up_is_told_as_that(monkeypatch, demo):
    def full(*args):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(torch, "compile", lambda model, **options: full)
    model = PackModel(load_model(demo), demo.meta, demo.meta.tile_size, Execution(CPU, "fp32", compiled=True))
    with pytest.raises(torch.OutOfMemoryError):
        model.warm_up(("optical", "sar"), 1)


@needs_gpu
@pytest.mark.parametrize("compiled", [False, True])
@torch.inference_mode()
def test_on_a_gpu_fp32_is_fp32(demo, tiles, compiled):
    expected = PackModel(load_model(demo), demo.meta, demo.meta.tile_size)(*tiles)
    chosen = Execution(CUDA, "fp32", compiled=compiled)
    model = PackModel(load_model(demo), demo.meta, demo.meta.tile_size, chosen)
    there = [{name: tensor.cuda() for name, tensor in part.items()} for part in tiles]
    with chosen.in_force():
        model.warm_up(("optical", "sar"), 4)
        found = model(*there).cpu()
        again = model(*there).cpu()
    changed = (found - expected).abs().amax(1) > 1e-5
    assert changed.float().mean() < 1e-3  # where an assignment flips, some pixels change
    assert torch.equal(found, again)


@needs_gpu
@pytest.mark.parametrize("precision", ["bf16", "fp16"])
@torch.inference_mode()
def test_on_a_gpu_reduced_precisions_stay_near(demo, tiles, precision):
    expected = PackModel(load_model(demo), demo.meta, demo.meta.tile_size)(*tiles)
    model = PackModel(load_model(demo), demo.meta, demo.meta.tile_size, Execution(CUDA, precision))
    found = model(*[{name: tensor.cuda() for name, tensor in part.items()} for part in tiles]).cpu()
    assert found.dtype == torch.float32
    assert (found.argmax(1) != expected.argmax(1)).float().mean() < 0.02
