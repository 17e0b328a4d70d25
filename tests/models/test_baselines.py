"""The models that GoPT is compared with: same backbone, same head, same way of calling."""

from __future__ import annotations

import pytest
import timm
import torch

from gopt_geo.models import Backbone, GoptConfig
from gopt_geo.models.backbone import build_vit
from gopt_geo.models.baselines import METHODS, build_model

PROMPTED = ("gopt", "vipt", "vpt")
TINY = {"img_size": 32, "patch_size": 8, "embed_dim": 32, "depth": 4, "num_heads": 2, "class_token": False}


@pytest.fixture
def build():
    """A function (method, architecture changes, config values) to a model in evaluation mode."""

    def make(method, architecture=None, **config):
        torch.manual_seed(0)
        backbone = Backbone(build_vit({**TINY, **(architecture or {})}), "test:tiny")
        torch.manual_seed(1)
        model = build_model(method, backbone, GoptConfig(**{"classes": 5, "rank": 8, "hidden": 16, **config}))
        if hasattr(model, "mask_token"):
            torch.nn.init.normal_(model.mask_token)
        if hasattr(model, "prompters"):
            with torch.no_grad():
                for prompter in model.prompters.values():
                    prompter.scale.fill_(0.5)
        return model.eval()

    return make


def with_head_of(model, other):
    model.head.load_state_dict(other.head.state_dict())
    if hasattr(model, "mask_token"):
        model.mask_token.data.copy_(other.mask_token.data)
    return model


@pytest.mark.brief
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("tokens", [{}, {"class_token": True, "reg_tokens": 2}])
@torch.no_grad()
def test_every_method_takes_the_same_input_and_gives_logits_of_its_size(build, make_inputs, method, tokens):
    images, valid = make_inputs(height=24, width=40)
    model = build(method, tokens)
    for masks in (valid, None):
        logits = model(images, masks)
        assert logits.shape == (2, 5, 24, 40)
        assert torch.isfinite(logits).all()


@pytest.mark.brief
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("garbage", [float("nan"), float("inf"), -1e30])
@torch.no_grad()
def test_an_invalid_value_changes_nothing_in_any_of_them(build, make_inputs, method, garbage):
    images, valid = make_inputs()
    model = build(method)
    expected = model(images, valid)
    spoilt = {n: torch.where(valid[n].unsqueeze(1), v, garbage) for n, v in images.items()}
    assert torch.equal(model(spoilt, valid), expected)


@pytest.mark.parametrize("method", ["gopt", "early_fusion", "vipt", "vpt"])
@torch.no_grad()
def test_both_modalities_matter_where_both_are_read(build, make_inputs, method):
    images, _ = make_inputs()
    model = build(method)
    if method == "early_fusion":  # the new channels start at zero
        model.backbone.vit.patch_embed.proj.weight.normal_(0, 0.1)
    expected = model(images)
    for name in images:
        assert not torch.allclose(model({**images, name: images[name].flip(3)}), expected, atol=1e-5), name


@pytest.mark.parametrize(("method", "read", "other"), [("rgb_only", "optical", "sar"), ("sar_only", "sar", "optical")])
@torch.no_grad()
def test_single_modality_models_read_that_alone(build, make_inputs, method, read, other):
    images, valid = make_inputs()
    model = build(method)
    expected = model(images, valid)
    assert torch.equal(model({**images, other: images[other] * 5}, valid), expected)
    assert torch.equal(model({read: images[read]}, {read: valid[read]}), expected)


@pytest.mark.brief
@pytest.mark.parametrize("method", METHODS)
def test_gradients_reach_exactly_what_each_method_trains(build, make_inputs, method):
    images, valid = make_inputs()
    model = build(method).train()
    torch.manual_seed(0)
    model(images, valid).square().mean().backward()
    reached = {n for n, p in model.named_parameters() if p.grad is not None and p.grad.abs().max() > 0}
    assert reached == {n for n, p in model.named_parameters() if p.requires_grad}
    trains_backbone = any(n.startswith("backbone.") for n in reached)
    assert trains_backbone == (method == "early_fusion")
    assert not model.backbone.training


@torch.no_grad()
def test_full_fine_tuning_starts_from_the_rgb_model_and_leaves_the_given_backbone_alone(build, make_inputs):
    images, _ = make_inputs()
    torch.manual_seed(0)
    backbone = Backbone(build_vit(TINY), "test:tiny")
    digest = backbone.digest()
    config = GoptConfig(classes=5, hidden=16)
    rgb = build_model("rgb_only", backbone, config).eval()
    full = with_head_of(build_model("early_fusion", backbone, config).eval(), rgb)
    torch.testing.assert_close(full(images), rgb(images), rtol=0, atol=1e-5)
    with torch.enable_grad():
        optimizer = torch.optim.AdamW(full.parameters(), lr=0.1)
        full.train()(images).square().mean().backward()
        optimizer.step()
    assert backbone.digest() == digest
    assert not any(p.requires_grad for p in backbone.parameters())
    assert full.backbone.vit.patch_embed.proj.in_channels == 6
    assert not torch.allclose(full.eval()(images), rgb(images), atol=1e-2)


@pytest.mark.parametrize("tokens", [{}, {"class_token": True, "reg_tokens": 2}])
@torch.no_grad()
def test_vipt_of_scale_zero_is_the_rgb_model_bit_for_bit(build, make_inputs, tokens):
    images, valid = make_inputs()
    model, rgb = build("vipt", tokens), build("rgb_only", tokens)
    with_head_of(rgb, model)
    for prompter in model.prompters.values():
        prompter.scale.zero_()
    assert torch.equal(model(images, valid), rgb(images, valid))


@pytest.mark.parametrize("method", ["gopt", "vipt"])
@torch.no_grad()
def test_a_missing_auxiliary_modality_leaves_the_rgb_model(build, make_inputs, method):
    images, valid = make_inputs()
    model, rgb = build(method), build("rgb_only")
    with_head_of(rgb, model)
    expected = rgb(images, valid)
    assert torch.equal(model({"optical": images["optical"]}, valid), expected)
    assert torch.equal(model(images, {**valid, "sar": torch.zeros_like(valid["sar"])}), expected)


@torch.no_grad()
def test_the_prompts_of_deep_vpt_enter_every_layer_and_leave_again(build, make_inputs):
    images, _ = make_inputs()
    model = build("vpt", {"class_token": True}, groups=3)
    seen = []
    handles = [b.register_forward_pre_hook(lambda _, given: seen.append(given[0])) for b in model.backbone.vit.blocks]
    model(images)
    for handle in handles:
        handle.remove()
    for layer, tokens in enumerate(seen):
        assert tokens.shape[1] == 3 + 1 + 16 + 16  # prompts, CLS, optical, SAR
        assert torch.equal(tokens[0, :3], model.prompt_tokens[layer])


def test_deep_vpt_refuses_rotary_positions():
    torch.manual_seed(0)
    vit = timm.create_model(
        "vit_small_patch16_dinov3", embed_dim=32, depth=2, num_heads=2, num_classes=0, dynamic_img_size=True
    )
    backbone = Backbone(vit, "test:rotary")
    build_model("gopt", backbone, GoptConfig(classes=5, rank=4))
    with pytest.raises(ValueError, match="rotary"):
        build_model("vpt", backbone, GoptConfig(classes=5))


@pytest.mark.parametrize("method", METHODS)
def test_the_trained_state_comes_back_in_any_of_them(build, make_inputs, method):
    images, valid = make_inputs()
    model, other = build(method), build(method)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(0.1)
        other.load_trainable_state(model.trainable_state())
        assert torch.equal(other(images, valid), model(images, valid))


def test_sar_alone_needs_an_auxiliary_modality(build):
    with pytest.raises(ValueError, match="auxiliary"):
        build("sar_only", auxiliary=())


@pytest.mark.parametrize("method", METHODS)
def test_images_that_the_patch_does_not_divide_or_that_nobody_knows_are_refused(build, make_inputs, method):
    images, _ = make_inputs(height=30)
    with pytest.raises(ValueError, match="pad the images"):
        build(method)(images)
    with pytest.raises(ValueError, match="among the images"):
        build(method)({"thermal": torch.randn(1, 3, 32, 32)})
