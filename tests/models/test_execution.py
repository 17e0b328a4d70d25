"""Ways of running the model: compiled, exported, in half precision; and what of its work grows with the image."""

from __future__ import annotations

import shutil

import pytest
import torch
import torch.nn.functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from gopt_geo.models.cup import ClassAwareUniModalPrompter

VARIANTS = {
    "default": {},
    "frozen, both, token value": {"aux_stream": "frozen", "acp_mode": "both", "token_value": True},
    "soft, mul": {"assignment": "soft", "inject": "mul"},
    "broadcast, linear head": {"acp_mode": "broadcast", "head": "linear"},
    "cross-attention": {"cup": "cross_attention"},
    "pointwise": {"cup": "pointwise"},
}


@pytest.mark.brief
@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("masks", [True, False])
def test_compiled_without_graph_breaks_it_predicts_the_same(make_model, make_inputs, variant, masks):
    images, valid = make_inputs()
    valid = valid if masks else None
    model = make_model({"reg_tokens": 2}, **VARIANTS[variant])
    torch._dynamo.reset()
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    with torch.no_grad():
        torch.testing.assert_close(compiled(images, valid), model(images, valid), rtol=0, atol=1e-5)


@pytest.mark.parametrize("variant", ["default", "frozen, both, token value", "cross-attention"])
def test_compiled_without_graph_breaks_it_trains_the_same_parameters(make_model, make_inputs, variant):
    images, valid = make_inputs()
    model = make_model(scale=1e-2, **VARIANTS[variant]).train()
    torch._dynamo.reset()
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    compiled(images, valid).square().mean().backward()
    reached = {n for n, p in model.named_parameters() if p.grad is not None and p.grad.abs().max() > 0}
    assert reached == {n for n, _ in model.named_parameters() if not n.startswith("backbone.")}


@pytest.mark.skipif(shutil.which("g++") is None, reason="torch's compiler needs g++ on the CPU")
def test_the_real_compiler_gives_the_same_probabilities(make_model, make_inputs):
    images, valid = make_inputs()
    model = make_model({"depth": 2})
    torch._dynamo.reset()
    compiled = torch.compile(model, fullgraph=True)
    with torch.no_grad():
        expected, found = (torch.softmax(m(images, valid), 1) for m in (model, compiled))
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)


@pytest.mark.brief
@pytest.mark.parametrize("variant", VARIANTS)
@torch.no_grad()
def test_exported_with_any_batch_size_it_predicts_the_same(make_model, make_inputs, variant):
    model = make_model({"class_token": True}, **VARIANTS[variant])
    example = make_inputs(batch=2)
    batch = torch.export.Dim("batch", min=2, max=64)
    free = {name: {0: batch} for name in example[0]}
    program = torch.export.export(model, example, dynamic_shapes=(free, free)).module()
    for size in (2, 5):
        images, valid = make_inputs(batch=size, seed=size)
        torch.testing.assert_close(program(images, valid), model(images, valid), rtol=0, atol=1e-5)


@pytest.mark.brief
@pytest.mark.parametrize("assignment", ["hard", "soft"])
@torch.no_grad()
def test_under_bf16_autocast_groups_are_chosen_in_fp32_and_probabilities_stay_near(
    make_model, make_inputs, monkeypatch, assignment
):
    seen = []
    usual = ClassAwareUniModalPrompter.assign
    monkeypatch.setattr(ClassAwareUniModalPrompter, "assign", lambda self, s: seen.append(s.dtype) or usual(self, s))
    images, valid = make_inputs(batch=8)
    model = make_model(assignment=assignment)
    full_groups: list = []
    expected = torch.softmax(model(images, valid, full_groups), 1)
    groups: list = []
    with torch.autocast("cpu", torch.bfloat16):
        logits = model(images, valid, groups)
    found = torch.softmax(logits.float(), 1)
    assert set(seen) == {torch.float32}
    assert torch.isfinite(found).all()
    steady = torch.ones(8, dtype=torch.bool)
    for low, full in zip(groups, full_groups, strict=True):
        steady &= ~(low.assignment.float().argmax(1) != full.assignment.argmax(1)).any(1) | (assignment == "soft")
    assert steady.any()
    # bf16 keeps 8 bits: with four layers of width 32, differences stay below 2e-2.
    assert (found - expected).abs()[steady].max() < 2e-2


def test_a_training_step_under_bf16_autocast_gives_finite_gradients_in_fp32(make_model, make_inputs):
    images, valid = make_inputs()
    model = make_model(scale=1e-2).train()
    with torch.autocast("cpu", torch.bfloat16):
        logits = model(images, valid)
        loss = F.cross_entropy(logits.float(), torch.randint(0, 5, (2, 32, 32)))
    loss.backward()
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            assert parameter.grad.dtype == torch.float32, name
            assert torch.isfinite(parameter.grad).all(), name


class Counter(TorchDispatchMode):
    """Counts operators."""

    def __init__(self):
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.count += 1
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("variant", VARIANTS)
@torch.no_grad()
def test_the_number_of_operations_depends_on_neither_tokens_nor_groups_nor_classes(make_model, make_inputs, variant):
    counts = set()
    for size, groups, classes in ((32, 8, 5), (64, 8, 5), (32, 30, 5), (32, 8, 40)):
        images, valid = make_inputs(height=size, width=size)
        model = make_model(groups=groups, classes=classes, **VARIANTS[variant])
        model.backbone.vit.pos_embed = torch.nn.Parameter(  # a resized one would be an operation more
            torch.randn(1, (size // 8) ** 2, 32), requires_grad=False
        )
        model.backbone.vit.patch_embed.grid_size = (size // 8, size // 8)
        with Counter() as counter:
            model(images, valid)
        counts.add(counter.count)
    assert len(counts) == 1
    assert counts.pop() > 50


@pytest.mark.parametrize(("variant", "calls"), [("default", 3), ("frozen, both, token value", 6), ("pointwise", 0)])
@torch.no_grad()
def test_attention_goes_through_the_fused_kernel(make_model, make_inputs, monkeypatch, variant, calls):
    images, valid = make_inputs()
    model = make_model(**VARIANTS[variant])
    seen = []
    usual = F.scaled_dot_product_attention
    monkeypatch.setattr(
        F, "scaled_dot_product_attention", lambda *given, **named: seen.append(1) or usual(*given, **named)
    )
    model(images, valid)
    blocks = 4 + (3 if "frozen" in variant else 0)
    assert len(seen) == blocks + calls  # CUP's, and ACP's where it compares
    assert all(block.attn.fused_attn for block in model.backbone.vit.blocks)


@torch.no_grad()
def test_in_double_precision_it_is_the_same_model(make_model, make_inputs):
    images, valid = make_inputs(share=1.0)
    model = make_model()
    expected = model(images, valid)
    found = model.double()({n: v.double() for n, v in images.items()}, valid)
    assert found.dtype == torch.float64
    torch.testing.assert_close(found.float(), expected, rtol=0, atol=1e-4)
