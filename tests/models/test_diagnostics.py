"""Usage of groups."""

from __future__ import annotations

import json
import math

import pytest
import torch
from torch import Tensor

from gopt_geo.models.backbone import Backbone
from gopt_geo.models.config import GoptConfig
from gopt_geo.models.cup import Grouping
from gopt_geo.models.diagnostics import GroupUsage
from gopt_geo.models.gopt import GoPT


def grouping(assignment: Tensor, layer: int = 1, modality: str = "sar") -> Grouping:
    nothing = torch.zeros(0)
    return Grouping(nothing, assignment, nothing, layer, modality)


def hard(*chosen: int | None, groups: int = 4) -> Tensor:
    """One image whose tokens chose these groups, from 1; None is an invalid token. [1, K, N]."""
    assignment = torch.zeros(1, groups, len(chosen))
    for token, group in enumerate(chosen):
        if group is not None:
            assignment[0, group - 1, token] = 1
    return assignment


def usage_of(*assignments: Tensor, dead_below: float = 0.02) -> GroupUsage:
    usage = GroupUsage(dead_below)
    for assignment in assignments:
        usage.update([grouping(assignment)])
    return usage


@pytest.mark.brief
def test_shares_are_of_the_valid_tokens_alone() -> None:
    (layer,) = usage_of(hard(1, 1, 1, 2, None, None)).layers()
    assert layer.tokens == 4
    assert layer.shares == (0.75, 0.25, 0.0, 0.0)
    assert layer.dead == (3, 4)
    assert layer.used == 2


def test_entropy_is_one_for_equal_groups_and_zero_for_a_single_one() -> None:
    assert usage_of(hard(1, 2, 3, 4)).layers()[0].entropy == pytest.approx(1, abs=1e-15)
    assert usage_of(hard(2, 2, 2)).layers()[0].entropy == 0
    half = usage_of(hard(1, 1, 2, 2)).layers()[0]
    assert half.entropy == pytest.approx(math.log(2) / math.log(4))
    assert half.entropies == pytest.approx((0.25, 0.25, 0, 0))


def test_no_entropy_is_below_zero_not_even_by_its_sign() -> None:
    for layer in (*usage_of(hard(2, 2, 2)).layers(), *usage_of(hard(1, 2, 3)).layers()):
        for value in (layer.entropy, *layer.entropies, *layer.token_entropies):
            assert math.copysign(1, value) == 1, f"{value:.3f}"


def test_tokens_of_a_hard_assignment_are_never_undecided() -> None:
    assert usage_of(hard(1, 2, None)).layers()[0].token_entropies == (0, 0, 0, 0)


def test_token_entropy_tells_how_undecided_a_groups_tokens_are() -> None:
    sure, torn = torch.tensor([1.0, 0, 0]), torch.tensor([0, 0.5, 0.5])
    (layer,) = usage_of(torch.stack([sure, torn, torch.zeros(3)], dim=1)[None]).layers()
    assert layer.tokens == 2
    assert layer.shares == (0.5, 0.25, 0.25)
    assert layer.token_entropies == pytest.approx((0, math.log(2) / math.log(3), math.log(2) / math.log(3)))


def test_a_token_weighs_in_a_group_by_how_much_of_it_belongs_there() -> None:
    sure, leaning = torch.tensor([1.0, 0]), torch.tensor([0.25, 0.75])
    (layer,) = usage_of(torch.stack([sure, leaning], dim=1)[None]).layers()
    own = -(0.25 * math.log2(0.25) + 0.75 * math.log2(0.75))
    assert layer.token_entropies == pytest.approx((0.25 * own / 1.25, own))


def test_passes_add_up_as_one_large_pass() -> None:
    torch.manual_seed(0)
    assignment = torch.rand(6, 5, 70).softmax(dim=1) * (torch.rand(6, 1, 70) > 0.3)
    whole, parts = GroupUsage(), GroupUsage()
    whole.update([grouping(assignment)])
    for part in assignment.split((1, 3, 2)):
        parts.update([grouping(part)])
    one, many = whole.layers()[0], parts.layers()[0]
    assert one.tokens == many.tokens
    assert one.shares == pytest.approx(many.shares, rel=1e-14)
    assert one.token_entropies == pytest.approx(many.token_entropies, rel=1e-14)
    assert math.fsum(one.shares) == pytest.approx(1, abs=1e-15)


def test_counts_stay_exact_where_single_precision_would_not() -> None:
    """Adding 1 to 2^24 in float32 changes nothing."""
    usage = usage_of(hard(1, groups=2).expand(1, 2, 2**24), hard(2, 1, groups=2))
    layer = usage.layers()[0]
    assert layer.tokens == 2**24 + 2
    assert layer.shares[1] == 1 / (2**24 + 2)


def test_half_precision_probabilities_still_sum_to_one() -> None:
    torch.manual_seed(0)
    (layer,) = usage_of(torch.randn(1, 8, 300).softmax(dim=1).bfloat16()).layers()
    assert layer.tokens == 300
    assert math.fsum(layer.shares) == pytest.approx(1, abs=1e-14)


def test_a_group_at_the_threshold_lives() -> None:
    ninety_eight_to_two = hard(*[1] * 98, 2, 2)
    assert usage_of(ninety_eight_to_two).layers()[0].dead == (3, 4)
    assert usage_of(ninety_eight_to_two, dead_below=0.021).layers()[0].dead == (2, 3, 4)
    assert usage_of(ninety_eight_to_two, dead_below=0).layers()[0].dead == ()


def test_layers_and_modalities_are_told_apart_and_sorted() -> None:
    usage = GroupUsage()
    usage.update([grouping(hard(1), 10, "sar"), grouping(hard(2), 2, "sar"), grouping(hard(3), 2, "nir")])
    assert [(u.layer, u.modality, u.shares.index(1.0) + 1) for u in usage.layers()] == [
        (2, "nir", 3),
        (2, "sar", 2),
        (10, "sar", 1),
    ]


def test_a_layer_without_valid_tokens_says_nothing_about_its_groups() -> None:
    (layer,) = usage_of(hard(None, None)).layers()
    assert (layer.tokens, layer.entropy, layer.used, layer.dead) == (0, 0, 0, ())
    assert layer.shares == (0, 0, 0, 0)


def test_another_number_of_groups_is_another_model() -> None:
    with pytest.raises(ValueError, match="layer 1, sar: 5 groups after 4"):
        usage_of(hard(1), hard(1, groups=5))


@pytest.mark.parametrize("share", [-0.1, 1.1, math.nan])
def test_the_threshold_is_a_share(share: float) -> None:
    with pytest.raises(ValueError, match="between 0 and 1"):
        GroupUsage(share)


def test_the_report_is_plain_json() -> None:
    report = usage_of(hard(1, 1, 3)).to_dict()
    assert json.loads(json.dumps(report, allow_nan=False)) == report
    assert report["dead_below"] == 0.02
    (layer,) = report["layers"]
    assert layer["dead"] == [2, 4]
    assert [g["group"] for g in layer["groups"]] == [1, 2, 3, 4]
    assert [g["share"] for g in layer["groups"]] == pytest.approx([2 / 3, 0, 1 / 3, 0])


@pytest.fixture
def images() -> dict[str, Tensor]:
    torch.manual_seed(1)
    return {name: torch.randn(2, 3, 32, 48) for name in ("optical", "sar")}


@pytest.mark.parametrize("assignment", ["hard", "soft"])
@pytest.mark.parametrize("training", [False, True])
def test_every_prompted_layer_of_a_model_is_told(
    tiny_backbone: Backbone, images: dict[str, Tensor], assignment: str, training: bool
) -> None:
    config = GoptConfig(classes=3, rank=4, hidden=8, assignment=assignment)
    model = GoPT(tiny_backbone, config).train(training)
    valid = {"sar": torch.ones(2, 32, 48, dtype=torch.bool)}
    valid["sar"][0, :8] = False
    usage, groupings = GroupUsage(), list[Grouping]()
    model(images, valid, groupings=groupings)
    usage.update(groupings)
    layers = usage.layers()
    assert [(u.layer, u.modality) for u in layers] == [(1, "sar"), (2, "sar")]
    for layer in layers:
        assert layer.tokens == 2 * 24 - 6
        assert len(layer.shares) == config.groups
        assert math.fsum(layer.shares) == pytest.approx(1, abs=1e-14)
        assert any(layer.token_entropies) == (assignment == "soft")


def test_sums_go_on_outside_of_inference_mode(tiny_backbone: Backbone, images: dict[str, Tensor]) -> None:
    """Validation runs in inference mode, training doesn't; one usage may see both."""
    model = GoPT(tiny_backbone, GoptConfig(classes=3, rank=4, hidden=8))
    usage = GroupUsage()
    for mode in (True, False):
        groupings: list[Grouping] = []
        with torch.inference_mode(mode):
            model(images, groupings=groupings)
            usage.update(groupings)
    assert usage.layers()[0].tokens == 2 * 2 * 24


def test_without_groups_there_is_nothing_to_tell(tiny_backbone: Backbone, images: dict[str, Tensor]) -> None:
    for change in ({"cup": "pointwise"}, {"auxiliary": ()}):
        groupings: list[Grouping] = []
        model = GoPT(tiny_backbone, GoptConfig(classes=3, rank=4, hidden=8, **change))
        model({name: images[name] for name in model.config.modalities}, groupings=groupings)
        assert groupings == []
    assert GroupUsage().to_dict() == {"dead_below": 0.02, "layers": []}
