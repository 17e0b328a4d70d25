"""``missing="auxiliary"``: the auxiliary image goes through the backbone where the primary one is missing."""

from __future__ import annotations

import pytest
import torch

from gopt_geo.models import GoPT
from gopt_geo.models.baselines import build_model
from gopt_geo.models.tokens import token_validity

GARBAGE = (float("nan"), float("inf"), 1e30, -7.0)
prefix_or_not = pytest.mark.parametrize("tokens", [{}, {"class_token": True, "reg_tokens": 3}], ids=["plain", "prefix"])


def sar_alone(model):
    """The frozen model that reads SAR as its only image, with the same head."""
    alone = GoPT(model.backbone, model.config.model_copy(update={"primary": "sar", "auxiliary": ()}))
    alone.head.load_state_dict(model.head.state_dict())
    return alone.eval()


@pytest.mark.brief
@prefix_or_not
@torch.no_grad()
def test_without_optical_and_prompts_it_is_the_model_of_sar_alone(make_model, make_inputs, tokens):
    images, valid = make_inputs(share=1.0)
    everywhere = {"sar": torch.ones_like(valid["sar"])}
    model = make_model(tokens, scale=0.0, missing="auxiliary")
    model.mask_token.zero_()
    expected = sar_alone(model)({"sar": images["sar"]}, everywhere)
    nowhere = {"optical": torch.zeros_like(valid["optical"]), **everywhere}
    torch.testing.assert_close(model(images, nowhere), expected, rtol=0, atol=1e-6)
    torch.testing.assert_close(model({"sar": images["sar"]}, everywhere), expected, rtol=0, atol=1e-6)
    model.mask_token.normal_()
    assert not torch.allclose(model(images, nowhere), expected, atol=1e-3), "the mask token tells what is missing"


@torch.no_grad()
def test_where_optical_is_valid_nothing_changes(make_model, make_inputs):
    images, valid = make_inputs()
    whole = {"optical": torch.ones_like(valid["optical"]), "sar": valid["sar"]}
    assert torch.equal(make_model(missing="auxiliary")(images, whole), make_model()(images, whole))
    assert torch.equal(make_model(missing="auxiliary")(images), make_model()(images))


@pytest.mark.brief
@torch.no_grad()
def test_tokens_are_exchanged_one_by_one(make_model, make_inputs):
    images, valid = make_inputs()
    model = make_model(missing="auxiliary")
    seen = model._embed_primary(images, valid)
    there = token_validity(valid["optical"], 8)
    own = model.backbone.embed(torch.where(valid["optical"].unsqueeze(1), images["optical"], 0.0))
    sar = model.backbone.embed(torch.where(valid["sar"].unsqueeze(1), images["sar"], 0.0)) + model.mask_token
    assert there.any()
    assert not there.all()
    torch.testing.assert_close(seen, torch.where(there.unsqueeze(-1), own, sar))


@torch.no_grad()
@pytest.mark.parametrize("garbage", GARBAGE)
def test_an_invalid_value_never_changes_the_result(make_model, make_inputs, garbage):
    images, valid = make_inputs(names=("optical", "sar", "nir"))
    model = make_model({"class_token": True}, missing="auxiliary", auxiliary=("sar", "nir"))
    expected = model(images, valid)
    spoilt = {name: torch.where(valid[name].unsqueeze(1), image, garbage) for name, image in images.items()}
    assert torch.equal(model(spoilt, valid), expected)


@torch.no_grad()
def test_two_modalities_stand_in_with_their_mean(make_model, make_inputs):
    images, valid = make_inputs(names=("optical", "sar", "nir"), share=1.0)
    everywhere = {name: torch.ones_like(mask) for name, mask in valid.items()}
    model = make_model(missing="auxiliary", auxiliary=("sar", "nir"))
    mean = (images["sar"] + images["nir"]) / 2
    nowhere = {**everywhere, "optical": torch.zeros_like(valid["optical"])}
    expected = model.backbone.embed(mean) + model.mask_token
    torch.testing.assert_close(model._embed_primary(images, nowhere), expected)
    half = {**nowhere, "nir": torch.zeros_like(valid["nir"])}
    expected = model.backbone.embed(images["sar"]) + model.mask_token
    torch.testing.assert_close(model._embed_primary(images, half), expected)


@pytest.mark.parametrize("method", ["gopt", "vipt"])
def test_gradients_reach_exactly_what_is_trained(make_model, make_inputs, method):
    images, valid = make_inputs()
    given = make_model(missing="auxiliary", scale=1e-2)
    model = build_model(method, given.backbone, given.config).train()
    torch.manual_seed(0)
    model(images, valid).square().mean().backward()
    reached = {n for n, p in model.named_parameters() if p.grad is not None and p.grad.abs().max() > 0}
    assert reached == {n for n, _ in model.named_parameters() if not n.startswith("backbone.")}
