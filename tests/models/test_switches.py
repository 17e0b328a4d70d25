"""What must hold whichever way GoPT is switched; and what each new switch does, written out."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from gopt_geo.models import GoPT, GoptConfig
from gopt_geo.models.tokens import drop_complete, normalise_tokens

SWITCHES = {
    "assignment": {"acp_mode": "assignment", "token_value": False},
    "similarity": {"acp_mode": "similarity", "token_value": False},
    "both, token value": {"acp_mode": "both", "token_value": True},
    "broadcast": {"acp_mode": "broadcast", "token_value": False},
    "cross-attention": {"cup": "cross_attention"},
    "pointwise": {"cup": "pointwise"},
    "hard": {"assignment": "hard"},
    "soft": {"assignment": "soft"},
    "mul": {"inject": "mul"},
    "frozen": {"aux_stream": "frozen"},
    "frozen, mul, soft, layers 1 and 3": {
        "aux_stream": "frozen",
        "inject": "mul",
        "assignment": "soft",
        "layers": (1, 3),
    },
    "linear head": {"head": "linear"},
    "two modalities": {"auxiliary": ("sar", "nir")},
}
NAMES = ("optical", "sar", "nir")
every_switch = pytest.mark.parametrize("switch", SWITCHES)
prefix_or_not = pytest.mark.parametrize("tokens", [{}, {"class_token": True, "reg_tokens": 3}], ids=["plain", "prefix"])


def rgb_only(model):
    plain = GoPT(model.backbone, model.config.model_copy(update={"auxiliary": ()}))
    plain.ignores = model.ignores
    plain.head.load_state_dict(model.head.state_dict())
    plain.mask_token.data.copy_(model.mask_token.data)
    return plain.eval()


@pytest.mark.brief
@every_switch
@prefix_or_not
@torch.no_grad()
def test_scale_zero_is_the_frozen_rgb_model_bit_for_bit(make_model, make_inputs, switch, tokens):
    images, valid = make_inputs(names=NAMES)
    model = make_model(tokens, scale=0.0, **SWITCHES[switch])
    plain = rgb_only(model)
    for masks in (valid, None):
        assert torch.equal(model(images, masks), plain(images, masks))
    for prompter in model.prompters.values():
        prompter.scale.fill_(0.5)
    assert not torch.allclose(model(images, valid), plain(images, valid), atol=1e-4), "the prompts do nothing at all"


@pytest.mark.brief
@every_switch
@pytest.mark.parametrize("garbage", [float("nan"), float("inf"), -1e30])
@torch.no_grad()
def test_an_invalid_value_never_changes_the_result(make_model, make_inputs, switch, garbage):
    for seed, share in ((0, 0.7), (1, 0.2), (2, 0.0)):
        images, valid = make_inputs(names=NAMES, seed=seed, share=share)
        model = make_model({"class_token": True}, **SWITCHES[switch])
        expected = model(images, valid)
        assert torch.isfinite(expected).all()
        spoilt = {n: torch.where(valid[n].unsqueeze(1), v, garbage) for n, v in images.items()}
        assert torch.equal(model(spoilt, valid), expected)


@pytest.mark.brief
@every_switch
def test_gradients_reach_exactly_what_is_trained(make_model, make_inputs, switch):
    images, valid = make_inputs(names=NAMES)
    model = make_model(scale=1e-2, **SWITCHES[switch]).train()
    torch.manual_seed(0)
    model(images, valid).square().mean().backward()
    reached = {n for n, p in model.named_parameters() if p.grad is not None and p.grad.abs().max() > 0}
    assert reached == {n for n, _ in model.named_parameters() if not n.startswith("backbone.")}


@every_switch
@torch.no_grad()
def test_a_modality_that_is_missing_or_nowhere_valid_leaves_the_rgb_stream(make_model, make_inputs, switch):
    images, valid = make_inputs(names=NAMES)
    model = make_model(**SWITCHES[switch])
    expected = rgb_only(model)(images, valid)
    assert torch.equal(model({"optical": images["optical"]}, valid), expected)
    nowhere = {n: v if n == "optical" else torch.zeros_like(v) for n, v in valid.items()}
    assert torch.equal(model(images, nowhere), expected)


@every_switch
@prefix_or_not
@torch.no_grad()
def test_no_mask_means_valid_everywhere(make_model, make_inputs, switch, tokens):
    images, valid = make_inputs(names=NAMES)
    model = make_model(tokens, **SWITCHES[switch])
    everywhere = {n: torch.ones_like(v) for n, v in valid.items()}
    torch.testing.assert_close(model(images), model(images, everywhere), rtol=0, atol=1e-5)
    assert not torch.allclose(model(images), model(images, valid), atol=1e-3)


@every_switch
@torch.no_grad()
def test_shapes_square_and_not(make_model, make_inputs, switch):
    model = make_model(**SWITCHES[switch])
    for height, width in ((32, 32), (8, 56), (24, 40)):
        images, valid = make_inputs(names=NAMES, height=height, width=width)
        assert model(images, valid).shape == (2, 5, height, width)


@pytest.mark.brief
@torch.no_grad()
def test_odd_sizes_are_padded_by_the_caller_and_the_padding_decides_nothing(make_model, make_inputs):
    images, valid = make_inputs(height=27, width=37)
    model = make_model()
    with pytest.raises(ValueError, match="27 x 37 pixels are no multiple of the patch, 8; pad"):
        model(images, valid)
    results = []
    for filling in (0.0, 1e6, float("nan")):
        padded = {n: F.pad(v, (0, 3, 0, 5), value=filling) for n, v in images.items()}
        masks = {n: F.pad(v, (0, 3, 0, 5)) for n, v in valid.items()}
        results.append(model(padded, masks)[..., :27, :37])
    assert results[0].shape == (2, 5, 27, 37)
    assert torch.equal(results[0], results[1])
    assert torch.equal(results[0], results[2])


@pytest.mark.parametrize("masks", ["none", "complete, dropped", "some invalid"])
def test_without_an_optical_mask_block_1_needs_no_backward_pass(make_model, make_inputs, masks):
    images, valid = make_inputs()
    complete = {n: torch.ones_like(v) for n, v in valid.items()}
    given = {"none": None, "complete, dropped": drop_complete(complete), "some invalid": drop_complete(valid)}[masks]
    model = make_model(scale=1e-2).train()
    seen = []
    handle = model.backbone.vit.blocks[0].register_forward_hook(lambda _m, _x, y: seen.append(y.requires_grad))
    model(images, given).square().mean().backward()
    handle.remove()
    assert seen[0] == (masks == "some invalid")  # the RGB stream's pass
    assert (model.mask_token.grad is not None) == (masks == "some invalid")


def test_only_complete_masks_are_dropped():
    masks = {"a": torch.ones(2, 3, dtype=torch.bool), "b": torch.tensor([[True, False]])}
    assert list(drop_complete(masks)) == ["b"]


@pytest.mark.parametrize(("layers", "blocks"), [(None, 4 + 3), ((1,), 4 + 1), ((2,), 4 + 2), ((), 4)])
def test_the_frozen_stream_ends_at_the_last_prompted_layer_and_stores_nothing(make_model, make_inputs, layers, blocks):
    images, valid = make_inputs()
    model = make_model(aux_stream="frozen", layers=layers, scale=1e-2).train()
    streams = []
    handles = [
        block.register_forward_hook(lambda _m, _x, y: streams.append(y.requires_grad))
        for block in model.backbone.vit.blocks
    ]
    model(images, valid)
    for handle in handles:
        handle.remove()
    assert len(streams) == blocks
    assert streams.count(False) == blocks - 4  # with optical masks every pass of the RGB stream needs a gradient


@pytest.mark.parametrize("aux_stream", ["embed_only", "frozen"])
@torch.no_grad()
def test_the_one_product_for_all_layers_is_each_prompters_own_reduction(make_model, make_inputs, aux_stream):
    images, valid = make_inputs()
    model = make_model(aux_stream=aux_stream)
    for parameter in model.prompters.parameters():
        parameter.add_(0.1 * torch.randn_like(parameter))
    seen = {}
    handles = [
        prompter.register_forward_pre_hook(lambda _, given, layer=layer: seen.update({layer: given[1]}))
        for layer, prompter in model.prompters.items()
    ]
    model(images, valid)
    for handle in handles:
        handle.remove()
    tokens = model.backbone.embed(torch.where(valid["sar"].unsqueeze(1), images["sar"], 0.0))
    for layer, reduced in seen.items():
        if aux_stream == "frozen":
            tokens = model.backbone.block(int(layer), tokens)
        expected = model.prompters[layer].reduce(normalise_tokens(tokens))
        torch.testing.assert_close(reduced, expected, rtol=1e-4, atol=1e-5)


@prefix_or_not
@torch.no_grad()
def test_each_modalitys_prompt_counts_where_it_is_valid_bias_and_all(make_model, make_inputs, tokens):
    images, valid = make_inputs(names=NAMES, share=0.5)
    valid["optical"] = torch.ones_like(valid["optical"])
    model = make_model({"depth": 2, **tokens}, auxiliary=("sar", "nir"))
    torch.nn.init.normal_(model.prompters["1"].up.bias)
    seen = []
    handle = model.backbone.vit.blocks[1].register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    for use in (NAMES, ("optical",), ("optical", "sar"), ("optical", "nir")):
        model({n: images[n] for n in use}, valid)
    handle.remove()
    both, none, sar, nir = seen
    torch.testing.assert_close(both - none, (sar - none) + (nir - none), rtol=0, atol=1e-5)


@pytest.mark.parametrize("cup", ["cross_attention", "pointwise"])
@pytest.mark.parametrize("share", [1.0, 0.5])
@torch.no_grad()
def test_cup_off_is_what_the_equations_say(make_model, make_inputs, cup, share):
    images, valid = make_inputs(share=share)
    model = make_model({"depth": 2}, cup=cup)
    seen = []
    handle = model.backbone.vit.blocks[1].register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    groupings: list = []
    model(images, valid, groupings)
    model({"optical": images["optical"]}, valid)
    handle.remove()
    assert groupings == []
    assert not model.class_tokens
    prompter = model.prompters["1"]
    patch = 8
    there = F.avg_pool2d(valid["sar"].unsqueeze(1).float(), patch).flatten(1) >= 0.5
    tokens = model.backbone.embed(torch.where(valid["sar"].unsqueeze(1), images["sar"], 0.0))
    reduced, query = (prompter.reduce(normalise_tokens(t)) for t in (tokens, seen[1]))
    for b in range(2):
        values = prompter.acp.value(reduced[b])
        if cup == "cross_attention":
            scores = prompter.acp.query(query[b]) @ prompter.acp.key(reduced[b]).T / 8**0.5
            values = torch.softmax(scores.masked_fill(~there[b], float("-inf")), dim=-1) @ values
        expected = prompter.scale * prompter.up(values) * there[b][:, None]
        torch.testing.assert_close(seen[0][b] - seen[1][b], expected, rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_acp_off_gives_all_valid_tokens_one_prompt(make_model, make_inputs):
    images, valid = make_inputs(share=0.6)
    model = make_model({"depth": 2}, acp_mode="broadcast", token_value=False)
    seen = []
    handle = model.backbone.vit.blocks[1].register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    groupings: list = []
    model(images, valid, groupings)
    model({"optical": images["optical"]}, valid)
    handle.remove()
    prompter = model.prompters["1"]
    mean = prompter.acp.value(groupings[0].representation).mean(1)
    expected = prompter.scale * prompter.up(mean)
    there = groupings[0].assignment.sum(1) > 0
    for b in range(2):
        prompt = (seen[0] - seen[1])[b]
        torch.testing.assert_close(prompt[there[b]], expected[b].expand_as(prompt[there[b]]), rtol=1e-4, atol=1e-5)
        assert not prompt[~there[b]].any()


@torch.no_grad()
def test_inject_mul_scales_the_tokens(make_model, make_inputs):
    images, _ = make_inputs()
    model, other = make_model({"depth": 2}), make_model({"depth": 2}, inject="mul")
    other.load_state_dict(model.state_dict())
    seen = []
    handles = [
        m.backbone.vit.blocks[1].register_forward_pre_hook(lambda _, given: seen.append(given[0]))
        for m in (model, other)
    ]
    model({"optical": images["optical"]})
    model(images)
    other(images)
    for handle in handles:
        handle.remove()
    plain, added, multiplied = seen
    torch.testing.assert_close(multiplied, plain * (1 + (added - plain)), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("width", "rank", "hidden"), [(192, 16, 64), (768, 16, 64), (1024, 32, 128)])
def test_the_default_configuration_grows_with_the_backbone(width, rank, hidden):
    config = GoptConfig.for_width(width, classes=7)
    assert (config.rank, config.hidden) == (rank, hidden)
    assert GoptConfig.for_width(width, classes=7, rank=3).rank == 3
