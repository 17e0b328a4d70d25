"""The share of parameters that is trained, on backbones of full size (on the meta device: no memory, no time)."""

from __future__ import annotations

import pytest
import timm
import torch

from gopt_geo.models import Backbone, GoPT, GoptConfig

CLASSES = (40, 37, 9, 5, 7)
TABLE = {  # data set by data set: the counts that the equations give, without the mask token
    "vit_base_patch16_224": ({"rank": 16, "hidden": 64}, (583_912, 581_413, 558_089, 554_757, 556_423)),
    "vit_base_patch16_224 r24": ({"rank": 24, "hidden": 64}, (758_856, 756_357, 733_033, 729_701, 731_367)),
    "vit_large_patch16_224": ({"rank": 32, "hidden": 128}, (2_506_152, 2_502_693, 2_470_409, 2_465_797, 2_468_103)),
}
FROZEN = {"vit_base_patch16_224": 85_798_656, "vit_large_patch16_224": 303_301_632}


@pytest.fixture(scope="module")
def backbones():
    with torch.device("meta"):
        return {n: Backbone(timm.create_model(n, num_classes=0, dynamic_img_size=True), n) for n in FROZEN}


def counts(backbone, **config):
    with torch.device("meta"):
        model = GoPT(backbone, GoptConfig(**config))
    frozen = sum(p.numel() for p in backbone.parameters())
    return sum(p.numel() for p in model.parameters() if p.requires_grad), frozen, model


@pytest.mark.brief
@pytest.mark.parametrize("row", TABLE)
def test_below_one_per_cent_and_as_the_equations_count(backbones, row):
    config, expected = TABLE[row]
    name = row.split()[0]
    for classes, wanted in zip(CLASSES, expected, strict=True):
        shape = {**config, "classes": classes, "groups": classes}
        every_matrix, frozen, _ = counts(backbones[name], acp_mode="both", **shape)
        assert frozen == FROZEN[name]
        assert every_matrix == pytest.approx(wanted, rel=0.01)
        assert every_matrix / (every_matrix + frozen) < 0.01
        # The default needs no query and key in ACP, and doesn't build them.
        default, _, model = counts(backbones[name], **shape)
        rank = config["rank"]
        assert every_matrix - default == len(model.prompters) * 2 * (rank**2 + rank)
        assert default == pytest.approx(wanted, rel=0.02)


@pytest.mark.parametrize("classes", CLASSES)
def test_the_default_configuration_of_vit_b(backbones, classes):
    trained, frozen, _ = counts(backbones["vit_base_patch16_224"], classes=classes, groups=classes)
    wanted = dict(zip(CLASSES, TABLE["vit_base_patch16_224"][1], strict=True))[classes]
    assert trained == pytest.approx(wanted, rel=0.01)
    assert trained / (trained + frozen) < 0.01


def test_a_further_group_or_modality_costs_its_class_tokens_alone(backbones):
    backbone = backbones["vit_base_patch16_224"]
    base, _, _ = counts(backbone, classes=7, groups=8)
    assert counts(backbone, classes=7, groups=9)[0] - base == 768
    assert counts(backbone, classes=7, groups=8, auxiliary=("sar", "nir"))[0] - base == 8 * 768
