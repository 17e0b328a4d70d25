"""The models that GoPT is compared with: same backbone, same head, same way of calling."""

from __future__ import annotations

import pytest
import timm
import torch
import torch.nn.functional as F
from timm.models.eva import Eva
from timm.models.vision_transformer import VisionTransformer

from gopt_geo.models import Backbone, GoptConfig
from gopt_geo.models.backbone import build_vit
from gopt_geo.models.baselines import METHODS, build_model
from gopt_geo.models.tokens import token_validity

PROMPTED = ("gopt", "vipt", "vpt")
TINY = {"img_size": 32, "patch_size": 8, "embed_dim": 32, "depth": 4, "num_heads": 2, "class_token": False}
DINOV3 = {"use_abs_pos_emb": False, "use_rot_pos_emb": True, "rope_type": "dinov3", "rope_rotate_half": True}
NAMES = ("optical", "sar", "nir")


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
    with pytest.raises(ValueError, match="not 'thermal'"):
        build(method)({"thermal": torch.randn(1, 3, 32, 32)})
    with pytest.raises(ValueError, match="among the images"):
        build(method)({})


def whole_vit(kind: str) -> VisionTransformer | Eva:
    """A transformer with norms that `build_vit` leaves out, as timm's own constructors make it."""
    torch.manual_seed(0)
    shape = {**TINY, "class_token": True, "num_classes": 0, "dynamic_img_size": True}
    if kind == "DINOv3":
        return Eva(**shape, **DINOV3)
    return VisionTransformer(**shape, **{"averaged": {"global_pool": "avg"}, "registers": {"reg_tokens": 2}}[kind])


@pytest.mark.parametrize("kind", ["DINOv3", "averaged", "registers"])
@pytest.mark.parametrize("head", ["mlp", "linear"])
def test_full_fine_tuning_trains_all_that_it_has(make_inputs, kind, head):
    images, valid = make_inputs()
    backbone = Backbone(whole_vit(kind), "test:whole")
    digest = backbone.digest()
    model = build_model("early_fusion", backbone, GoptConfig(classes=5, hidden=16, head=head)).train()
    model(images, valid).square().mean().backward()
    assert [n for n, p in model.named_parameters() if p.grad is None or not p.grad.any()] == []
    assert backbone.digest() == digest


@torch.no_grad()
def test_full_fine_tuning_keeps_the_backbones_precision(make_inputs):
    images, valid = make_inputs()
    model = build_model("early_fusion", Backbone(build_vit(TINY).double(), "test:tiny"), GoptConfig(classes=5))
    model.head.double()
    assert model({n: v.double() for n, v in images.items()}, valid).dtype == torch.float64


@torch.no_grad()
def test_full_fine_tuning_reads_each_modality_through_channels_of_its_own(build, make_inputs):
    images, valid = make_inputs(names=NAMES)
    model = build("early_fusion", auxiliary=("sar", "nir"))
    model.backbone.vit.patch_embed.proj.weight.normal_(0, 0.1)
    stacked = torch.cat([torch.where(valid[n].unsqueeze(1), images[n], 0.0) for n in NAMES], dim=1)
    patches = model.backbone.vit.patch_embed.proj(stacked).flatten(2).transpose(1, 2)
    seen = []
    handle = model.backbone.vit.blocks[0].register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    model(dict(reversed(images.items())), valid)
    handle.remove()
    torch.testing.assert_close(seen[0], patches + model.backbone.vit.pos_embed)


@pytest.mark.parametrize("method", ["gopt", "early_fusion", "vipt", "vpt"])
@pytest.mark.parametrize("missing", ["optical", "sar"])
@torch.no_grad()
def test_a_modality_that_is_missing_is_one_that_is_nowhere_valid(build, make_inputs, method, missing):
    images, valid = make_inputs()
    model = build(method)
    if method == "early_fusion":
        model.backbone.vit.patch_embed.proj.weight.normal_(0, 0.1)
    without = model({n: v for n, v in images.items() if n != missing}, valid)
    nowhere = model(images, {**valid, missing: torch.zeros_like(valid[missing])})
    assert torch.isfinite(without).all()
    if (method, missing) == ("vpt", "sar"):  # its tokens are left out of the sequence, or are mask tokens
        assert not torch.equal(without, nowhere)
    else:
        assert torch.equal(without, nowhere)
    assert not torch.allclose(without, model(images, valid), atol=1e-5)


@pytest.mark.parametrize("method", ["gopt", "early_fusion", "vipt", "vpt"])
@torch.no_grad()
def test_the_order_of_images_means_nothing(build, make_inputs, method):
    images, valid = make_inputs(names=NAMES)
    model = build(method, auxiliary=("sar", "nir"))
    assert torch.equal(model(dict(reversed(images.items())), valid), model(images, valid))


@pytest.mark.parametrize("method", METHODS)
@torch.no_grad()
def test_images_that_the_model_ignores_are_not_looked_at_and_others_are_refused(build, make_inputs, method):
    images, valid = make_inputs()
    model = build(method)
    expected = model(images, valid)
    odd = {"thermal": torch.full((1, 1, 5, 5), float("nan")), **images}
    with pytest.raises(ValueError, match="not 'thermal'"):
        model(odd, valid)
    model.ignores |= {"thermal"}
    assert torch.equal(model(odd, valid), expected)
    if method != "sar_only":
        known = {"optical": images["optical"]} if method == "rgb_only" else {"sar": images["sar"]}
        expected = model(known, valid)
        assert torch.equal(model({"thermal": torch.zeros(1, 1, 5, 5), **known}, valid), expected)


@pytest.mark.parametrize("method", ["gopt", "early_fusion", "vipt", "vpt"])
@pytest.mark.parametrize("shape", [(1, 3, 32, 32), (2, 3, 8, 8), (2, 3, 32, 40), (2, 4, 32, 32)])
def test_images_of_different_shapes_are_refused_and_not_broadcast(build, make_inputs, method, shape):
    images, _ = make_inputs()
    with pytest.raises(ValueError, match="shapes differ"):
        build(method)({**images, "sar": torch.zeros(shape)})


@pytest.mark.parametrize("tokens", [{}, {"class_token": True, "reg_tokens": 2}])
@pytest.mark.parametrize("auxiliary", [("sar",), ("sar", "nir"), ("nir", "sar")])
@torch.no_grad()
def test_vipt_is_the_equations(build, make_inputs, tokens, auxiliary):
    images, valid = make_inputs(names=("optical", *auxiliary), share=0.6)
    model = build("vipt", tokens, auxiliary=auxiliary, layers=(1, 3))
    for parameter in model.prompters.parameters():
        parameter.add_(0.2 * torch.randn_like(parameter))
    backbone, prefix = model.backbone, model.backbone.num_prefix_tokens
    there = {n: token_validity(v, 8) for n, v in valid.items()}
    blank = {n: torch.where(valid[n].unsqueeze(1), v, 0.0) for n, v in images.items()}
    rgb = backbone.embed(blank["optical"], ~there["optical"], model.mask_token)
    prompts = {n: backbone.embed(blank[n])[:, prefix:] for n in auxiliary}
    taps = []
    for layer in range(1, 5):
        rgb = backbone.block(layer, rgb)
        taps.append(rgb[:, prefix:])
        if layer not in (1, 3):
            continue
        own = model.prompters[str(layer)]
        patches = rgb[:, prefix:]
        for name, prompt in prompts.items():
            x = own.rgb(own.norm_rgb(patches))
            x = x + own.fovea * (x.exp() / x.exp().sum(1, keepdim=True)) * x
            made = own.scale * own.up(x + own.prompt(own.norm_prompt(prompt)))
            prompts[name] = torch.where(there[name].unsqueeze(-1), made, 0.0)
        added = patches + sum(prompts.values())
        rgb = torch.cat([rgb[:, :prefix], added], dim=1)
    expected = model.head(taps, (4, 4), (32, 32))
    torch.testing.assert_close(model(images, valid), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("tokens", [{}, {"class_token": True, "reg_tokens": 2}])
@torch.no_grad()
def test_deep_vpt_is_the_equations(build, make_inputs, tokens):
    images, valid = make_inputs(names=NAMES, share=0.6)
    model = build("vpt", tokens, auxiliary=("sar", "nir"), groups=3)
    backbone, prefix = model.backbone, model.backbone.num_prefix_tokens
    parts = []
    for name in NAMES:
        blank = torch.where(valid[name].unsqueeze(1), images[name], 0.0)
        embedded = backbone.embed(blank, ~token_validity(valid[name], 8), model.mask_token)
        parts.append(embedded if name == "optical" else embedded[:, prefix:])
    joint, taps = torch.cat(parts, dim=1), []
    for layer in range(1, 5):
        prompted = torch.cat([model.prompt_tokens[layer - 1].expand(2, -1, -1), joint], dim=1)
        joint = backbone.block(layer, prompted)[:, 3:]
        taps.append(joint[:, prefix : prefix + 16])
    torch.testing.assert_close(model(images, valid), model.head(taps, (4, 4), (32, 32)), rtol=1e-4, atol=1e-5)


def test_gradients_reach_the_prompt_tokens_of_every_layer(build, make_inputs):
    images, valid = make_inputs()
    model = build("vpt").train()
    model(images, valid).square().mean().backward()
    assert (model.prompt_tokens.grad.abs().amax(dim=(1, 2)) > 0).all()


@pytest.mark.parametrize("method", [m for m in METHODS if m != "vpt"])
@torch.no_grad()
def test_all_but_deep_vpt_run_on_rotary_backbones(make_inputs, method):
    images, valid = make_inputs(height=24, width=40)
    backbone = Backbone(whole_vit("DINOv3"), "test:rotary")
    model = build_model(method, backbone, GoptConfig(classes=5, rank=4, hidden=16)).eval()
    seen = []
    handle = model.backbone.vit.blocks[3].register_forward_pre_hook(
        lambda _, _given, named: seen.append(named["rope"]), with_kwargs=True
    )
    logits = model(images, valid)
    handle.remove()
    assert logits.shape == (2, 5, 24, 40)
    assert torch.equal(seen[0], model.backbone.positions(24, 40))


@pytest.mark.parametrize("method", METHODS)
@torch.no_grad()
def test_batch_sizes_agree(build, make_inputs, method):
    images, valid = make_inputs(batch=6)
    model = build(method, assignment="soft")  # nothing to flip
    whole = torch.softmax(model(images, valid), 1)
    for part in (slice(0, 1), slice(1, 3), slice(3, 6)):
        own = model({n: v[part] for n, v in images.items()}, {n: v[part] for n, v in valid.items()})
        torch.testing.assert_close(torch.softmax(own, 1), whole[part], rtol=0, atol=1e-5)


@pytest.mark.parametrize("method", METHODS)
def test_training_leaves_the_given_backbone_as_it_is(make_inputs, method):
    images, valid = make_inputs()
    torch.manual_seed(0)
    backbone = Backbone(build_vit({**TINY, "proj_drop_rate": 0.5, "drop_path_rate": 0.5}), "test:tiny")
    digest = backbone.digest()
    model = build_model(method, backbone, GoptConfig(classes=5, rank=8, hidden=16)).train()
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=0.1, weight_decay=0.1)
    F.cross_entropy(model(images, valid), torch.zeros(2, 32, 32, dtype=torch.long)).backward()
    optimizer.step()
    assert backbone.digest() == digest
    assert not any(p.requires_grad or p.grad is not None for p in backbone.parameters())
    assert not any(module.training for module in backbone.modules())
