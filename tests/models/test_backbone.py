"""Frozen backbones: splitting a timm transformer, digests, and what is said when weights can't be had."""

from __future__ import annotations

import numpy as np
import pytest
import timm
import torch

from gopt_geo.errors import PackError
from gopt_geo.models import Backbone, load_backbone
from gopt_geo.models.backbone import build_vit, state_digest

ARCHITECTURE = {"img_size": 32, "patch_size": 8, "embed_dim": 32, "depth": 3, "num_heads": 2}


def one_line(error: PackError) -> str:
    message = str(error)
    assert "\n" not in message
    assert message.count("; ") >= 1
    return message


@pytest.mark.brief
@pytest.mark.parametrize(
    "extra", [{}, {"class_token": False}, {"reg_tokens": 4, "no_embed_class": True}, {"pre_norm": True}]
)
@torch.no_grad()
def test_embedding_and_blocks_in_a_row_are_the_transformer_itself(extra):
    vit = build_vit({**ARCHITECTURE, **extra}).eval()
    backbone = Backbone(vit, "test")
    images = torch.randn(2, 3, 24, 40)
    tokens = backbone.embed(images)
    for layer in range(1, backbone.depth + 1):
        tokens = backbone.block(layer, tokens)
    assert torch.equal(vit.norm(tokens), vit.forward_features(images))
    assert tokens.shape == (2, backbone.num_prefix_tokens + 15, 32)


@torch.no_grad()
def test_the_mask_token_replaces_the_embedding_but_keeps_the_place():
    backbone = Backbone(build_vit({**ARCHITECTURE, "class_token": False}), "test")
    invalid = torch.zeros(1, 16, dtype=torch.bool)
    invalid[0, 3] = True
    images, mask = torch.randn(1, 3, 32, 32), torch.randn(32)
    plain, masked = backbone.embed(images), backbone.embed(images, invalid, mask)
    assert torch.equal(plain[~invalid], masked[~invalid])
    torch.testing.assert_close(masked[0, 3], mask + backbone.vit.pos_embed[0, 3])


@pytest.mark.brief
def test_the_digest_sees_names_types_shapes_and_bytes_but_not_the_order():
    base = {"a": torch.arange(6.0), "b": torch.zeros(2, dtype=torch.float16)}
    others = [
        {"a": base["a"], "c": base["b"]},
        {"a": base["a"].view(2, 3), "b": base["b"]},
        {"a": base["a"], "b": base["b"].view(torch.int16)},
        {
            "a": base["a"].clone().index_fill_(0, torch.tensor([5]), np.nextafter(np.float32(5), np.float32(6))),
            "b": base["b"],
        },
        {"a": base["a"]},
    ]
    digests = {state_digest(s) for s in (base, *others)}
    assert len(digests) == 6
    assert state_digest(dict(reversed(base.items()))) == state_digest(base)
    assert state_digest({"a": base["a"].expand(2, 6).T[:, 0], "b": base["b"]}) == state_digest(base)


def test_unknown_ids_are_told_in_one_line():
    with pytest.raises(PackError) as caught:
        load_backbone("nobody:knows")
    assert "nobody:knows" in one_line(caught.value)


@pytest.mark.parametrize("name", ["no_such_model_at_all", "resnet10t", "vit_small_patch16_36x1_224"])
def test_names_that_are_no_plain_transformer_of_timm(name):
    with pytest.raises(PackError) as caught:
        load_backbone(f"timm:{name}")
    assert f"timm:{name}" in one_line(caught.value)


@pytest.mark.parametrize("failure", [OSError("no route\nto host"), RuntimeError("No pretrained weights exist for x")])
def test_weights_that_cannot_be_had_say_what_to_fetch_and_where_it_goes(monkeypatch, failure):
    def fail(*_args, **_kwargs):
        raise failure

    monkeypatch.setattr(timm, "create_model", fail)
    with pytest.raises(PackError) as caught:
        load_backbone("timm:vit_base_patch16_224.mae")
    message = one_line(caught.value)
    assert "vit_base_patch16_224.mae" in message
    assert "HF_HOME" in message


def test_a_model_that_is_not_a_plain_transformer_is_refused(monkeypatch):
    monkeypatch.setattr(timm, "create_model", lambda *_a, **_k: torch.nn.Identity())
    with pytest.raises(PackError, match="Identity"):
        load_backbone("timm:something")


def test_a_backbone_of_timm_is_frozen_and_named(monkeypatch):
    monkeypatch.setattr(timm, "create_model", lambda *_a, **_k: build_vit(ARCHITECTURE))
    backbone = load_backbone("timm:vit")
    assert backbone.identity == "timm:vit"
    assert not any(p.requires_grad for p in backbone.parameters())
    assert not backbone.train().training
