"""GoPT as a whole: the frozen stream, validity, missing modalities, gradients, switches."""

from __future__ import annotations

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from gopt_geo.models import GoPT, GoptConfig
from gopt_geo.models.baselines import METHODS, build_model
from gopt_geo.models.tokens import normalise_tokens, token_validity

SHAPES = [(32, 32, 8), (16, 48, 8), (40, 24, 8), (32, 48, 16), (28, 14, 14), (8, 8, 8), (30, 20, 5)]
GARBAGE = (float("nan"), float("inf"), -float("inf"), 1e30, -1e30, 7.0)
ANY_SEED = settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def rgb_only(model):
    """The frozen RGB model with the same head and mask token."""
    plain = GoPT(model.backbone, model.config.model_copy(update={"auxiliary": ()}))
    plain.ignores = model.ignores
    plain.head.load_state_dict(model.head.state_dict())
    plain.mask_token.data.copy_(model.mask_token.data)
    return plain.eval()


@pytest.mark.brief
@pytest.mark.parametrize("aux_stream", ["embed_only", "frozen"])
@pytest.mark.parametrize("tokens", [{}, {"class_token": True, "reg_tokens": 3}])
@torch.no_grad()
def test_scale_zero_is_the_frozen_rgb_model_bit_for_bit(make_model, make_inputs, aux_stream, tokens):
    images, valid = make_inputs()
    model = make_model(tokens, aux_stream=aux_stream, scale=0.0)
    expected = rgb_only(model)(images, valid)
    assert torch.equal(model(images, valid), expected)
    for prompter in model.prompters.values():
        prompter.scale.fill_(0.5)
    assert not torch.allclose(model(images, valid), expected, atol=1e-3), "the prompts do nothing at all"


@pytest.mark.brief
@torch.no_grad()
def test_evaluation_is_deterministic_and_keeps_the_random_state(make_model, make_inputs):
    model, (images, valid) = make_model(), make_inputs()
    before = torch.get_rng_state()
    first = model(images, valid)
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(first, model(images, valid))


@torch.no_grad()
@pytest.mark.parametrize("aux_stream", ["embed_only", "frozen"])
def test_batch_sizes_agree_where_no_assignment_flips(make_model, make_inputs, aux_stream):
    model = make_model({"depth": 6}, aux_stream=aux_stream, assignment="hard")
    images, valid = make_inputs(batch=8, height=64, width=64)
    whole_groups: list = []
    whole = torch.softmax(model(images, valid, whole_groups), 1)
    flips = tokens = compared = 0
    for size in range(1, 8):
        for start in range(0, 8, size):
            part = slice(start, min(start + size, 8))
            groups: list = []
            own = model({k: v[part] for k, v in images.items()}, {k: v[part] for k, v in valid.items()}, groups)
            flipped = torch.zeros(own.shape[0], dtype=torch.bool)
            for a, b in zip(groups, whole_groups, strict=True):
                differ = (a.assignment != b.assignment[part]).any(dim=1)
                flips, tokens = flips + int(differ.sum()), tokens + differ.numel()
                flipped |= differ.any(dim=1)
            # One flipped token reaches all others of its image through attention.
            difference = (torch.softmax(own, 1) - whole[part]).abs().amax(dim=(1, 2, 3))
            assert (difference[~flipped] <= 1e-5).all()
            compared += int((~flipped).sum())
    assert flips <= 1e-4 * tokens
    assert compared >= 50  # of 56


@pytest.mark.brief
@pytest.mark.parametrize("aux_stream", ["embed_only", "frozen"])
@pytest.mark.parametrize("acp_mode", ["assignment", "both"])
@ANY_SEED
@given(seed=st.integers(0, 10_000), share=st.floats(0, 1), garbage=st.sampled_from(GARBAGE))
@torch.no_grad()
def test_an_invalid_value_never_changes_the_result(make_model, make_inputs, aux_stream, acp_mode, seed, share, garbage):
    model = make_model(aux_stream=aux_stream, acp_mode=acp_mode, token_value=True)
    images, valid = make_inputs(seed=seed, share=share)
    expected = model(images, valid)
    assert torch.isfinite(expected).all()
    spoilt = {n: torch.where(valid[n].unsqueeze(1), v, garbage) for n, v in images.items()}
    assert torch.equal(model(spoilt, valid), expected)


@torch.no_grad()
def test_a_valid_value_does_change_the_result(make_model, make_inputs):
    model = make_model()
    images, valid = make_inputs(share=1.0)
    expected = model(images, valid)
    for name in images:
        moved = {**images, name: torch.where(valid[name].unsqueeze(1), images[name].flip(3), images[name])}
        assert not torch.allclose(model(moved, valid), expected, atol=1e-3), name


@pytest.mark.brief
@pytest.mark.parametrize("aux_stream", ["embed_only", "frozen"])
@torch.no_grad()
def test_a_missing_auxiliary_modality_leaves_the_rgb_stream_as_it_was(make_model, make_inputs, aux_stream):
    model = make_model(aux_stream=aux_stream, acp_mode="both", token_value=True)
    images, valid = make_inputs()
    expected = rgb_only(model)(images, valid)
    assert torch.equal(model({"optical": images["optical"]}, {"optical": valid["optical"]}), expected)
    nowhere = {**valid, "sar": torch.zeros_like(valid["sar"])}
    assert torch.equal(model(images, nowhere), expected)


@torch.no_grad()
def test_each_image_of_a_batch_has_its_own_validity(make_model, make_inputs):
    model = make_model()
    images, valid = make_inputs()
    valid["sar"][1] = False
    result = model(images, valid)
    alone = model({"optical": images["optical"][1:]}, {"optical": valid["optical"][1:]})
    torch.testing.assert_close(result[1:], alone, rtol=0, atol=1e-5)


@torch.no_grad()
def test_a_prompt_reaches_only_tokens_that_are_valid_in_its_modality(make_model, make_inputs):
    model = make_model({"depth": 2})
    images, valid = make_inputs(batch=1, share=0.5)
    seen = []
    handle = model.backbone.vit.blocks[1].register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    model(images, valid)
    model({"optical": images["optical"]}, {"optical": valid["optical"]})
    handle.remove()
    touched = (seen[0] != seen[1]).any(dim=2)
    assert torch.equal(touched, token_validity(valid["sar"], 8))


@pytest.mark.brief
@torch.no_grad()
def test_sar_alone_decides_where_optical_is_missing(make_model, make_inputs):
    model = make_model()
    images, valid = make_inputs()
    alone = model({"sar": images["sar"]}, {"sar": valid["sar"]})
    nowhere = {**valid, "optical": torch.zeros_like(valid["optical"])}
    assert torch.equal(alone, model(images, nowhere))
    other = model({"sar": images["sar"].flip(2)}, {"sar": valid["sar"].flip(1)})
    assert not torch.allclose(alone, other, atol=1e-3)


@torch.no_grad()
def test_the_mask_token_stands_for_invalid_optical_tokens_alone(make_model, make_inputs):
    model = make_model()
    images, valid = make_inputs()
    everywhere = {n: torch.ones_like(v) for n, v in valid.items()}
    partly, whole = model(images, valid), model(images, everywhere)
    model.mask_token.copy_(model.mask_token.flip(0))  # a constant would vanish in the next normalisation
    assert torch.equal(model(images, everywhere), whole)
    assert not torch.allclose(model(images, valid), partly, atol=1e-3)


@pytest.mark.parametrize("patch", [4, 7, 8])
@ANY_SEED
@given(seed=st.integers(0, 10_000))
def test_a_token_is_valid_where_half_of_its_pixels_are(patch, seed):
    generator = torch.Generator().manual_seed(seed)
    valid = torch.rand(2, 3 * patch, 2 * patch, generator=generator) < 0.5
    counts = valid.unflatten(1, (3, patch)).unflatten(3, (2, patch)).sum(dim=(2, 4)).flatten(1)
    assert torch.equal(token_validity(valid, patch), counts * 2 >= patch**2)


@pytest.mark.brief
@pytest.mark.parametrize("aux_stream", ["embed_only", "frozen"])
@pytest.mark.parametrize("acp_mode", ["assignment", "similarity", "both"])
def test_gradients_reach_exactly_what_is_trained(make_model, make_inputs, aux_stream, acp_mode):
    model = make_model(aux_stream=aux_stream, acp_mode=acp_mode, scale=1e-2).train()
    images, valid = make_inputs()
    torch.manual_seed(0)
    model(images, valid).square().mean().backward()
    reached = {n for n, p in model.named_parameters() if p.grad is not None and p.grad.abs().max() > 0}
    trained = {n for n, _ in model.named_parameters() if not n.startswith("backbone.")}
    assert reached == trained
    assert {n.split(".")[0] for n in trained} == {"prompters", "head", "class_tokens", "mask_token"}
    assert {n for n, p in model.named_parameters() if p.requires_grad} == trained


def test_the_first_layers_backward_pass_reaches_prompts_through_the_frozen_blocks(make_model, make_inputs):
    """The head's first tap lies before every prompt; what trains the prompters comes through the blocks above."""
    model = make_model(layers=(1,), scale=1e-2).train()
    images, valid = make_inputs()
    model(images, valid).square().mean().backward()
    assert model.prompters["1"].down.weight.grad.abs().max() > 0


def test_training_keeps_the_backbone_as_it_is(make_model, make_inputs):
    model = make_model({"proj_drop_rate": 0.5, "drop_path_rate": 0.5})
    before = model.backbone.digest()
    model.train()
    assert model.training
    assert not any(m.training for m in model.backbone.modules())
    images, valid = make_inputs()
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=0.1, weight_decay=0.1)
    model(images, valid).square().mean().backward()
    optimizer.step()
    assert model.backbone.digest() == before


def test_training_draws_noise_for_the_assignment_and_nothing_else(make_model, make_inputs):
    images, valid = make_inputs()
    model = make_model().train()
    torch.manual_seed(3)
    first = model(images, valid)
    torch.manual_seed(3)
    assert torch.equal(first, model(images, valid))
    assert not torch.equal(first, model(images, valid))


@pytest.mark.parametrize(("height", "width", "patch"), SHAPES)
@pytest.mark.parametrize("upscale", [1, 4])
@torch.no_grad()
def test_shapes(make_model, make_inputs, height, width, patch, upscale):
    model = make_model({"patch_size": patch, "img_size": 4 * patch}, upscale=upscale)
    images, valid = make_inputs(height=height, width=width, patch=patch)
    groupings: list = []
    logits = model(images, valid, groupings)
    assert logits.shape == (2, 5, height, width)
    assert torch.isfinite(logits).all()
    assert len(groupings) == 3
    assert groupings[0].assignment.shape == (2, 8, height * width // patch**2)


@pytest.mark.parametrize(
    "tokens",
    [
        {"class_token": True},
        {"class_token": True, "reg_tokens": 4},
        {"class_token": True, "reg_tokens": 4, "no_embed_class": True},
        {"class_token": False, "reg_tokens": 2, "no_embed_class": True},
        {"class_token": True, "pre_norm": True},
    ],
)
@torch.no_grad()
def test_prefix_tokens_are_carried_and_never_prompted(make_model, make_inputs, tokens):
    model = make_model(tokens)
    prefix = int(tokens["class_token"]) + tokens.get("reg_tokens", 0)
    assert model.backbone.num_prefix_tokens == prefix
    images, valid = make_inputs(height=24, width=40)
    given, made = [], []
    blocks = model.backbone.vit.blocks
    handles = [b.register_forward_pre_hook(lambda _, x: given.append(x[0])) for b in blocks]
    handles += [b.register_forward_hook(lambda _m, _x, y: made.append(y)) for b in blocks]
    assert model(images, valid).shape == (2, 5, 24, 40)
    for handle in handles:
        handle.remove()
    for before, after in zip(made, given[1:], strict=False):
        assert torch.equal(before[:, :prefix], after[:, :prefix])
        assert not torch.equal(before[:, prefix:], after[:, prefix:])


@torch.no_grad()
def test_every_switch_runs_and_matters(make_model, make_inputs):
    images, valid = make_inputs()
    base = {"assignment": "hard", "acp_mode": "assignment", "token_value": False, "aux_stream": "embed_only"}
    switches = {
        "base": {},
        "soft": {"assignment": "soft"},
        "similarity": {"acp_mode": "similarity"},
        "both": {"acp_mode": "both"},
        "broadcast": {"acp_mode": "broadcast"},
        "token value": {"token_value": True},
        "cross-attention": {"cup": "cross_attention"},
        "pointwise": {"cup": "pointwise"},
        "frozen": {"aux_stream": "frozen"},
        "mul": {"inject": "mul"},
        "two layers": {"layers": (1, 3)},
        "no layer": {"layers": ()},
    }
    reference = make_model(acp_mode="both").state_dict()
    results = {}
    for name, changes in switches.items():
        model = make_model(**{**base, **changes})
        # The same weights in all, as far as they have them: what differs is the switch.
        model.load_state_dict({k: reference[k] for k in model.state_dict()})
        results[name] = model(images, valid)
    names = list(results)
    for i, a in enumerate(names):
        for b in names[i + 1 :]:
            assert not torch.allclose(results[a], results[b], atol=1e-4), (a, b)


@torch.no_grad()
def test_the_frozen_stream_runs_the_auxiliary_tokens_through_the_blocks(make_model, make_inputs):
    images, valid = make_inputs(share=1.0)
    model = make_model(aux_stream="frozen", layers=(2,))
    seen = {}
    handle = model.prompters["2"].register_forward_pre_hook(lambda _, given: seen.update(auxiliary=given[1]))
    model(images, valid)
    handle.remove()
    backbone = model.backbone
    tokens = backbone.embed(torch.where(valid["sar"].unsqueeze(1), images["sar"], 0.0))
    expected = model.prompters["2"].reduce(normalise_tokens(backbone.block(2, backbone.block(1, tokens))))
    assert torch.equal(seen["auxiliary"], expected)


@torch.no_grad()
def test_several_modalities_add_up_and_share_all_but_the_class_tokens(make_model, make_inputs):
    names = ("optical", "sar", "nir")
    images, valid = make_inputs(names=names, share=1.0)
    model = make_model({"depth": 2}, auxiliary=("sar", "nir"))
    seen = []
    handle = model.backbone.vit.blocks[1].register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    for use in (names, names[:1], names[:2], ("optical", "nir")):
        model({n: images[n] for n in use}, {n: valid[n] for n in use})
    handle.remove()
    both, none, sar, nir = seen
    torch.testing.assert_close(both - none, (sar - none) + (nir - none), rtol=0, atol=1e-5)
    own = {n for n in model.trainable_state() if "nir" in n}
    assert own == {"class_tokens.nir"}


def test_a_model_of_sar_alone(make_model, make_inputs):
    images, valid = make_inputs()
    model = make_model(primary="sar", auxiliary=())
    with torch.no_grad():
        expected = model({"sar": images["sar"]}, {"sar": valid["sar"]})
        assert torch.equal(model(images, valid), expected)
    assert not model.prompters
    assert not model.class_tokens


def test_the_trained_state_leaves_the_backbone_out_and_comes_back(make_model, make_inputs):
    images, valid = make_inputs()
    model, other = make_model(seed=0), make_model(seed=5)
    state = model.trainable_state()
    assert not [n for n in state if n.startswith("backbone.")]
    other.backbone = model.backbone
    other.load_trainable_state(state)
    with torch.no_grad():
        assert torch.equal(other(images, valid), model(images, valid))


@pytest.mark.parametrize("change", ["lacks one", "has one more", "has the backbone's", "has another shape"])
def test_a_state_that_does_not_fit_is_refused_and_the_backbone_untouched(make_model, change):
    model = make_model()
    digest = model.backbone.digest()
    state = dict(model.trainable_state())
    if change == "lacks one":
        del state["mask_token"]
    elif change == "has one more":
        state["extra"] = torch.zeros(1)
    elif change == "has the backbone's":
        state["backbone.vit.norm.weight"] = torch.zeros(32)
    else:
        state["mask_token"] = torch.zeros(1)
    with pytest.raises(RuntimeError):
        model.load_trainable_state(state)
    assert model.backbone.digest() == digest


@pytest.mark.parametrize(("classes", "groups"), [(2, 8), (7, 8), (8, 8), (9, 9), (40, 40)])
def test_as_many_groups_as_classes_but_at_least_eight(classes, groups):
    assert GoptConfig(classes=classes).groups == groups
    assert GoptConfig(classes=classes, groups=3).groups == 3


@pytest.mark.parametrize(
    "wrong",
    [
        {"classes": 1},
        {"rank": 0},
        {"acp_mode": "other"},
        {"auxiliary": ("optical",)},
        {"auxiliary": ("a.b",)},
        {"x": 1},
    ],
)
def test_a_configuration_that_makes_no_sense_is_refused(wrong):
    with pytest.raises(ValidationError):
        GoptConfig(**{"classes": 5, **wrong})


@pytest.mark.parametrize("layers", [(0,), (4,), (1, 7)])
def test_only_layers_below_the_last_can_be_prompted(make_model, layers):
    with pytest.raises(ValueError, match="layers"):
        make_model(layers=layers)


@pytest.mark.brief
@pytest.mark.parametrize("method", METHODS)
def test_names_and_masks_that_are_none_are_refused(make_model, make_inputs, method):
    base = make_model({"depth": 2})
    model, (images, valid) = build_model(method, base.backbone, base.config), make_inputs()
    model(images, valid)
    typo = {**images, "sra": images["sar"]}
    with pytest.raises(ValueError, match=r"the model knows .*, not 'sra'"):
        model(typo, valid)
    with pytest.raises(ValueError, match=r"the model knows .*, not 'opticl'"):
        model(images, {"opticl": valid["optical"]})
    for odd in (torch.uint8, torch.float32):
        with pytest.raises(ValueError, match=rf"the mask of 'sar' is {odd}, it must be bool"):
            model(images, {"sar": valid["sar"].to(odd)})
