"""The share of parameters that is trained, on backbones of full size (on the meta device: no memory, no time)."""

from __future__ import annotations

import json

import pytest
import timm
import torch

from gopt_geo.models import Backbone, GoptConfig
from gopt_geo.models.baselines import METHODS, build_model
from gopt_geo.models.parameters import ParameterReport, count_parameters

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


def count(backbone, method="gopt", **values) -> ParameterReport:
    with torch.device("meta"):
        return count_parameters(build_model(method, backbone, GoptConfig.for_width(backbone.embed_dim, **values)))


@pytest.mark.brief
@pytest.mark.parametrize("name", FROZEN)
@pytest.mark.parametrize("classes", CLASSES)
def test_the_default_configuration_trains_less_than_one_per_cent(backbones, name, classes):
    report = count(backbones[name], classes=classes)
    assert report.frozen == FROZEN[name]
    assert 0.005 < report.share < 0.01
    assert report.share == report.trained / (report.trained + report.frozen)


@pytest.mark.brief
@pytest.mark.parametrize("row", TABLE)
def test_below_one_per_cent_and_as_the_equations_count(backbones, row):
    sizes, expected = TABLE[row]
    backbone = backbones[row.split()[0]]
    for classes, wanted in zip(CLASSES, expected, strict=True):
        shape = {**sizes, "classes": classes, "groups": classes}
        every_matrix = count(backbone, acp_mode="both", **shape)
        # The equations' count leaves out the mask token.
        assert every_matrix.trained == pytest.approx(wanted, rel=0.002)
        assert every_matrix.share < 0.01
        # With the assignment alone, ACP needs no query and key, and doesn't build them.
        assigned = count(backbone, acp_mode="assignment", **shape)
        rank = sizes["rank"]
        assert every_matrix.trained - assigned.trained == (backbone.depth - 1) * 2 * (rank**2 + rank)
        assert assigned.trained == pytest.approx(wanted, rel=0.02)
        assert count(backbone, **shape).trained <= every_matrix.trained


@pytest.mark.parametrize("row", ["vit_base_patch16_224", "vit_large_patch16_224"])
def test_the_table_has_the_sizes_of_the_default_configuration(backbones, row):
    config = GoptConfig.for_width(backbones[row].embed_dim, classes=7)
    assert TABLE[row][0] == {"rank": config.rank, "hidden": config.hidden}


@pytest.mark.parametrize("classes", CLASSES)
def test_the_default_of_vit_b_is_within_one_per_cent_of_the_equations(backbones, classes):
    report = count(backbones["vit_base_patch16_224"], classes=classes, groups=classes)
    wanted = dict(zip(CLASSES, TABLE["vit_base_patch16_224"][1], strict=True))[classes]
    assert report.trained == pytest.approx(wanted, rel=0.01)


def test_a_further_group_or_modality_costs_its_class_tokens_alone(backbones):
    backbone = backbones["vit_base_patch16_224"]
    base = count(backbone, classes=7, groups=8).trained
    assert count(backbone, classes=7, groups=9).trained - base == 768
    assert count(backbone, classes=7, groups=8, auxiliary=("sar", "nir")).trained - base == 8 * 768


def test_parts_add_up_to_what_is_trained(backbones):
    report = count(backbones["vit_base_patch16_224"], classes=7)
    assert set(report.by_part) == {"mask_token", "head", "prompters", "class_tokens"}
    assert sum(report.by_part.values()) == report.trained
    assert report.by_part["mask_token"] == 768
    assert report.by_part["class_tokens"] == 8 * 768


@pytest.mark.parametrize("method", METHODS)
def test_every_method_is_counted(backbones, method):
    backbone = backbones["vit_base_patch16_224"]
    report = count(backbone, method, classes=7)
    everything = method == "early_fusion"
    assert sum(report.by_part.values()) == report.trained
    assert report.frozen == (0 if everything else FROZEN["vit_base_patch16_224"])
    assert (report.share == 1.0) if everything else (report.share < 0.01)


def test_a_report_is_plain_data_and_a_small_table(backbones):
    report = count(backbones["vit_base_patch16_224"], classes=7)
    plain = json.loads(json.dumps(report.to_dict()))
    assert plain["trained"] == report.trained
    assert plain["share"] == pytest.approx(report.share, abs=1e-6)
    assert plain["by_part"] == report.by_part
    lines = str(report).splitlines()
    assert len(lines) == len(report.by_part) + 3
    assert f"{report.trained:,}" in str(report)
    assert lines[-1].endswith(f"{100 * report.share:.3f}%")
